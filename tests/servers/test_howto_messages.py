"""deploy/HOWTO.md, "Messages": each heading is what the programs say, and is provoked here."""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.bad_input import Site, clean_environment, mounted, until
from servers.base import client_key, host_keys
from servers.openssh import OpenSSH
from servers.shell import COMMAND, Shell

HOWTO = (Path(__file__).parents[2] / "deploy/HOWTO.md").read_text(encoding="utf-8")
CHAPTER = HOWTO.partition("\n## Messages\n")[2].partition("\n## ")[0]
HEADINGS = re.findall(r"^### `(.+)`$", CHAPTER, re.MULTILINE)
VARIES = re.compile(r"\b[A-Z][A-Z0-9]*\b")
AS_THEY_ARE = ("DEST", "SSH", "SRC")
"""Words in capitals that the message has itself."""


@contextlib.contextmanager
def filled(listener: socket.socket) -> Iterator[None]:
    """Calls that nobody takes, until the listener's queue is full."""
    with contextlib.ExitStack() as calls:
        for _ in range(3):
            call = calls.enter_context(socket.socket())
            call.setblocking(False)
            call.connect_ex(listener.getsockname())
        yield


class Lab:
    """A server, a user in front of it, and a device beside it."""

    def __init__(self, server: OpenSSH, base: Path) -> None:
        self.server = server
        self.base = base
        (base / "home").mkdir()
        self.shell = Shell(server, base / "home")
        self.file("f", 100_000)
        self.file("empty")

    def file(self, name: str, size: int = 0) -> Path:
        path = self.base / "home" / name
        path.write_bytes(b"x" * size)
        path.chmod(0o600)
        return path

    def sftp(self, *words: str, **settings: str) -> str:
        """What `iot-sftp` says, one attempt only."""
        done = self.shell(*words, **{"SFTP_ATTEMPTS": "1", "SFTP_CONNECT_TIMEOUT_S": "2", **settings})
        assert done.returncode != 0, done.stdout
        return done.stderr.decode()

    def site(self) -> Site:
        return Site(self.server, self.base / "device")

    def of_other_key(self, name: str) -> Path:
        """known_hosts with other keys for this server."""
        path = self.base / name
        address = f"[{self.server.host}]:{self.server.port}"
        keys = (" ".join(Path(f"{key}.pub").read_text().split()[:2]) for key in host_keys("other"))
        path.write_text("".join(f"{address} {key}\n" for key in keys))
        return path


Provoke = Callable[[Lab], str]
PROVOKED: dict[str, Provoke] = {}


def says(heading: str) -> Callable[[Provoke], Provoke]:
    def register(provoke: Provoke) -> Provoke:
        PROVOKED[heading] = provoke
        return provoke

    return register


@pytest.fixture
def lab(sshd: OpenSSH, tmp_path: Path) -> Lab:
    return Lab(sshd, tmp_path)


def expected(heading: str) -> re.Pattern[str]:
    """What is in capitals differs; a message may go on after what its heading shows."""
    parts = re.split(f"({VARIES.pattern})", heading)
    varying = [part if i % 2 and part not in AS_THEY_ARE else None for i, part in enumerate(parts)]
    return re.compile("".join(".+?" if name else re.escape(part) for name, part in zip(varying, parts, strict=True)))


# -- the way to the server


@says("cannot find the address of 'HOST'")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", SFTP_HOST="sftp.invalid")


@says("cannot connect to HOST port PORT: ADDRESS: Connection refused")
def _(lab: Lab) -> str:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        return lab.sftp("ls", "/", SFTP_PORT=str(nobody.getsockname()[1]))


@says("cannot connect to HOST port PORT: ADDRESS: no answer in N s")
def _(lab: Lab) -> str:
    """A queue that is full: further calls are dropped, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, filled(full):
        return lab.sftp("ls", "/", SFTP_PORT=str(full.getsockname()[1]), SFTP_CONNECT_TIMEOUT_S="0.5")


@says("HOST: Error reading SSH protocol banner: it begins with 'TEXT'; is this an SSH server's port?")
def _(lab: Lab) -> str:
    code = (
        "import socket; call = socket.socket(fileno=0).accept()[0]; call.recv(99); call.sendall(b'HTTP/1.1 400\\r\\n')"
    )
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, subprocess.Popen([sys.executable, "-c", code], stdin=listener) as web:
        told = lab.sftp("ls", "/", SFTP_PORT=str(listener.getsockname()[1]))
        web.wait(30)
    return told


@says("HOST: the ProxyCommand 'PROGRAM ...' ended with exit code N: LINE")
def _(lab: Lab) -> str:
    config = lab.file("config")
    config.write_text("Host *\n  ProxyCommand nc6 %h %p\n")
    return lab.sftp("ls", "/", "--ssh-config", str(config))


# -- host keys


@says("HOST port PORT is not in FILE; it presented KEY")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", SFTP_KNOWN_HOSTS=str(lab.file("empty")))


@says("HOST port PORT presented KEY, which is not the key that FILE lists")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", SFTP_KNOWN_HOSTS=str(lab.of_other_key("changed")))


@says("HOST port PORT presented KEY, but --host-key pins SHA256")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", "--host-key", "SHA256:" + "A" * 43)


@says("HOST port PORT presented a key marked @revoked in FILE: do not connect")
def _(lab: Lab) -> str:
    lines = lab.server.known_hosts.read_text().splitlines(keepends=True)
    revoked = lab.base / "revoked"
    revoked.write_text("".join(["@revoked " + line for line in lines] + lines))
    return lab.sftp("ls", "/", SFTP_KNOWN_HOSTS=str(revoked))


# -- the login


@says("HOST refused user 'USER'; tried WAYS")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", SFTP_KEY=str(host_keys("stranger")[0]))


@says("nothing to log in with (REASONS): give a password, a --key, or --agent with a running ssh-agent that has keys")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", "--agent", SFTP_KEY="", SSH_AUTH_SOCK="")


@says("--key FILE may be read by others (mode N): chmod 600 FILE")
def _(lab: Lab) -> str:
    key = lab.file("key")
    key.chmod(0o644)
    return lab.sftp("ls", "/", SFTP_KEY=str(key))


@says("--key FILE is encrypted: give its --key-passphrase-file")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", SFTP_KEY=str(client_key("ed25519", "secret")))


@says("--key FILE: not a private key")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", SFTP_KEY=str(lab.file("empty")))


@says("--key FILE does not exist")
def _(lab: Lab) -> str:
    return lab.sftp("ls", "/", SFTP_KEY="nowhere")


@says("HOST accepted WAYS and asks for WAYS as well: give password")
def _(lab: Lab) -> str:
    with OpenSSH(lab.base / "two", password=True, more=["AuthenticationMethods publickey,password"]) as server:
        (lab.base / "at-two").mkdir()
        lab.shell = Shell(server, lab.base / "at-two")
        return lab.sftp("ls", "/", SFTP_KEY=str(client_key()))


@says("HOST: no common key exchange: we offer LIST; the server offers LIST")
def _(lab: Lab) -> str:
    with OpenSSH(lab.base / "new", more=["KexAlgorithms sntrup761x25519-sha512@openssh.com"]) as server:
        (lab.base / "at-new").mkdir()
        lab.shell = Shell(server, lab.base / "at-new")
        return lab.sftp("ls", "/")


# -- files and folders


@says("'PATH' is not on the server")
def _(lab: Lab) -> str:
    return lab.sftp("get", lab.server.path("nowhere"))


@says("nothing on the server matches 'PATTERN'")
def _(lab: Lab) -> str:
    return lab.sftp("get", lab.server.path("*.csv"))


@says("cannot create 'PATH': server says 'Permission denied'")
def _(lab: Lab) -> str:
    with OpenSSH(lab.base / "fixed", subsystem="internal-sftp -R") as server:
        (lab.base / "at-fixed").mkdir()
        lab.shell = Shell(server, lab.base / "at-fixed")
        return lab.sftp("put", str(lab.file("f")), server.path("f"))


@says("cannot open 'PATH': server says 'Permission denied'")
def _(lab: Lab) -> str:
    with OpenSSH(lab.base / "shut", subsystem="internal-sftp -P open") as server:
        (server.root / "g").touch()
        (lab.base / "at-shut").mkdir()
        lab.shell = Shell(server, lab.base / "at-shut")
        return lab.sftp("get", server.path("g"))


@says("cannot create 'PATH': server says 'No such file'")
def _(lab: Lab) -> str:
    (lab.server.root / "file").touch()
    return lab.sftp("put", "f", lab.server.path("file/f"))


@says("'PATH' is a folder; did you mean 'PATH'?")
def _(lab: Lab) -> str:
    (lab.server.root / "far").mkdir()
    return lab.sftp("put", "-T", "f", lab.server.path("far"))


@says("FOLDER is a folder; send it with -r")
def _(lab: Lab) -> str:
    (lab.base / "home/folder").mkdir()
    return lab.sftp("put", "folder", lab.server.path("far"))


@says("no space on the server for FILE: needs SIZE, SIZE free")
def _(lab: Lab) -> str:
    with mounted(lab.base / "disk", "tmpfs", "size=64k"), OpenSSH(lab.base / "disk/root") as server:
        (lab.base / "at-disk").mkdir()
        lab.shell = Shell(server, lab.base / "at-disk")
        return lab.sftp("put", str(lab.file("f", 100_000)), server.path("f"))


@says("not enough space for FILE: needs SIZE, SIZE free; free some space there")
def _(lab: Lab) -> str:
    (lab.server.root / "big").write_bytes(b"x" * 100_000)
    with mounted(lab.base / "disk", "tmpfs", "size=64k"):
        return lab.sftp("get", lab.server.path("big"), f"{lab.base}/disk/big")


@says("another transfer to 'PATH' is running; wait until it ends")
def _(lab: Lab) -> str:
    """The first one is under way, over a link that is almost still."""
    words = ["put", "f", lab.server.path("f")]
    with lab.server.link(rate_bps=20e3) as link:
        slowly = {"SFTP_PORT": str(link.port), "SFTP_HOST_KEY": lab.server.host_key, "SFTP_KNOWN_HOSTS": ""}
        environment = {name: value for name, value in {**lab.shell.environment, **slowly}.items() if value}
        with subprocess.Popen([*COMMAND, *words], cwd=lab.shell.folder, env=environment) as first:
            until(lambda: lab.server.names() != [])
            told = lab.sftp(*words)
            first.kill()
    return told


# -- this device


@says("state directory FOLDER: REASON; make sure it is a folder that this user may write to")
def _(lab: Lab) -> str:
    return lab.sftp("put", "f", lab.server.path("f"), SFTP_STATE_DIR=str(lab.file("empty")))


@says("journal in FOLDER: database is locked; check the folder's permissions and disk, or move journal.db away")
def _(lab: Lab) -> str:
    """With a shorter patience than the half minute that a user waits for."""
    assert lab.shell("put", "empty", lab.server.path("first")).returncode == 0
    other = sqlite3.connect(lab.base / "home/state/journal.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    code = (
        "import sys; from iot.transfer.journal import journal; journal.BUSY_TIMEOUT_S = 0.1;"
        " from iot.sftp.client.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "put", "f", lab.server.path("f")]
    done = subprocess.run(
        command,
        cwd=lab.shell.folder,
        env=lab.shell.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    other.close()
    return done.stderr


@says("another agent (process N) works on FOLDER; one at a time")
def _(lab: Lab) -> str:
    site = lab.site()
    with site.running():
        until(lambda: site.spooler("status").returncode == 0)
        return site.spooler("run").stderr


@says("FILE: cannot be read: No such file or directory; name the right one: --config FILE")
def _(lab: Lab) -> str:
    command = [sys.executable, "-m", "iot.spooler", "check", "--config", "nowhere.toml"]
    return lab.site().run(command, clean_environment()).stderr


@says("FILE: holds what server.password_file names and may be read by others; chmod 600 FILE")
def _(lab: Lab) -> str:
    password = lab.file("password", 8)
    password.chmod(0o644)
    return lab.site().spooler("check", key_file=None, password_file=password).stderr


@says("no agent is running, and none has left a status")
def _(lab: Lab) -> str:
    return lab.site().spooler("status").stderr


# -- the document


def test_every_heading_is_provoked_and_every_provocation_has_its_heading() -> None:
    assert list(PROVOKED) == HEADINGS


@pytest.mark.parametrize("heading", list(PROVOKED))
def test_the_programs_say_what_the_heading_says(heading: str, lab: Lab) -> None:
    told = " ".join(PROVOKED[heading](lab).split())
    assert expected(heading).search(told), told
