"""The first hour of a new user on real programs: installation, unknown host, pin, a folder, a cut, sync, the service, a
wrong password, delivery. What is typed and what is answered goes into deploy/HOWTO.md; a test compares the two.

    python -m servers.first_hour        in tests/, as root: writes it there

All of it happens in namespaces of its own: /etc, /opt, /usr and /var are laid over with memory, and what was installed
is gone with the processes. The server is a real sshd, its link can be cut, and the service is started as its unit says,
also where no systemd is process 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from faults.proxy import BadLink, Fault
from servers.bad_input import until
from servers.base import client_key
from servers.openssh import OpenSSH
from servers.unit_runner import Unit

__all__ = ["BEGIN", "DOCUMENT", "END", "REGENERATE", "document_with", "transcript"]

TOP = Path(__file__).parents[2]
DOCUMENT = TOP / "deploy/HOWTO.md"
REGENERATE = "cd tests && python -m servers.first_hour"
BEGIN = "<!-- made by tests/servers/first_hour.py -->\n"
END = "<!-- end -->\n"
LAID_OVER = ("etc", "opt", "usr", "var")
HOST = "sftp.example.com"
FINGERPRINT = "SHA256:Zk3Nn0qYwB4sR1cJ7uVd5tXe9LhPgQmKf2aTiOyWb8E"
WIDTH = 100
USER, PASSWORD = "device", "correct-horse-battery"
CREDENTIALS = "/etc/iot-spooler/credentials"
BIG_BYTES = 12 * 1024 * 1024
RATE_BPS = 80e6
CUT_AT_BYTES = 8 * 1024 * 1024
FAULTS = (Fault("refuse", up_bytes=CUT_AT_BYTES), Fault("reset", up_bytes=CUT_AT_BYTES))
NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")


def transcript(wheel: Path) -> str:
    """Live it -> what was typed and answered. Raises: CalledProcessError if it fails."""
    command = [*NAMESPACES, sys.executable, "-m", "servers.first_hour", "--inside", str(wheel)]
    done = subprocess.run(command, cwd=TOP / "tests", check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    return done.stdout


def document_with(text: str) -> str:
    """The document with another transcript."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}"


def built_wheel() -> Path:
    """The one that is tested. Raises: ValueError if there is none: sh tests/run setup."""
    (wheel,) = (TOP / ".test-wheel").glob("*.whl")
    return wheel


# -- inside


class Hour:
    """A user's shell. What differs from run to run is shown as what it stands for."""

    def __init__(self, server: OpenSSH, port: int, wheel: Path, home: Path) -> None:
        self.text = ""
        self.home = home
        self._actual = {
            "-p 22 ": f"-p {port} ",
            "install -q iot-sftp-client": f"install -q --disable-pip-version-check {wheel}",
            "sh deploy/install": f"sh {TOP}/deploy/install {wheel}",
            FINGERPRINT: server.host_key,
            "sudo ": "",
        }
        self._stable = {
            server.host_key: FINGERPRINT,
            f"[{HOST}]:{port}": HOST,
            f"-p {port} ": "-p 22 ",
            f"{HOST}:{port}": f"{HOST}:22",
            str(home): "~",
        }
        programs = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SFTP_", "IOT_"))}
        here = {"PATH": programs, "HOME": str(home), "SFTP_PORT": str(port), "SFTP_BACKOFF_S": "0.1"}
        self.environment = {**kept, **here}

    def chapter(self, title: str, words: str = "") -> None:
        self.text += f"### {title}\n\n" + (f"{textwrap.fill(words, 120)}\n\n" if words else "") + "```console\n"

    def end(self) -> None:
        self.text += "```\n\n"

    def __call__(
        self,
        command: str,
        *,
        code: int = 0,
        in_any_order: bool = False,
        instead: Callable[[], None] | None = None,
    ) -> None:
        """Type a command, show what it answers, and go on only if it ended as expected.

        instead: what is done in its place, where this machine cannot.
        """
        self.text += "\n".join([*folded(f"$ {command}"), ""])
        if instead is not None:
            instead()
            return
        done = self._run(command)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}"
        lines = [line for whole in self.stable(done.stdout).splitlines() for line in folded(whole)]
        self.text += "".join(f"{line}\n" for line in (sorted(lines) if in_any_order else lines))

    def asked(self, command: str) -> str:
        """What a command answers, without a word in the transcript."""
        return self._run(command).stdout

    def export(self, words: str) -> None:
        """Type `export`; later commands have it."""
        self.text += f"$ export {words}\n"
        shown = self.asked(f"export {words}; env -0")
        self.environment = dict(line.split("=", 1) for line in shown.split("\0") if line)

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", self.actual(command)],
            cwd=self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=300,
            check=False,
        )

    def actual(self, command: str) -> str:
        return replaced(command, self._actual)

    def stable(self, text: str) -> str:
        text = replaced(text, self._stable)
        for pattern, shown in VARYING:
            text = re.sub(pattern, shown, text)
        return text


VARYING = (
    (r"port \d{4,5}", "port 22"),
    (r"127\.0\.0\.1", "192.0.2.10"),
    (r"Creating (group|user) .*\n", ""),
    (r"in \d+\.\d s \([\d.]+ [KMG]?i?B/s\)", "in 0.1 s (1.0 MiB/s)"),
    (r"resumed at \d+", "resumed at 8388608"),
    (r"after [\d.]+ s", "after 0.1 s"),
    (r"process \d+", "process 4711"),
    (r"updated \d+ s ago", "updated 1 s ago"),
    (r"next attempt in \d+ min \d+ s", "next attempt in 15 min 0 s"),
    (r"oldest \d+ s", "oldest 1 s"),
    (r"failed for \d+ s", "failed for 1 s"),
    (r"at \d+(\.\d)? KiB", "at 256.0 KiB"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[ ?]", "2026-11-28 20:15:00 "),
    (r"rate( +)[\d.]+ [KMG]?i?B/s", r"rate\g<1>0 B/s"),
)
"""Times, rates, numbers of processes, where the server is; and what a first installation says in further lines."""


def replaced(text: str, pairs: Mapping[str, str]) -> str:
    for this, that in pairs.items():
        text = text.replace(this, that)
    return text


def folded(line: str) -> list[str]:
    """A line that is too long for a page goes on below it."""
    if len(line) <= WIDTH:
        return [line]
    options = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "    "}
    return textwrap.wrap(line, WIDTH, **options)  # type: ignore[arg-type]


def lay_over() -> None:
    """Memory over all that an installation changes, and a home that is empty."""
    upper = Path("/mnt")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(upper)], check=True)
    for name in LAID_OVER:
        for part in ("changes", "work"):
            (upper / name / part).mkdir(parents=True)
        options = f"lowerdir=/{name},upperdir={upper}/{name}/changes,workdir={upper}/{name}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", f"/{name}"], check=True)
    for name in ("home", "run", "srv"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", f"/{name}"], check=True)
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"\n127.0.0.1 {HOST}\n")


def live(wheel: Path) -> str:
    lay_over()
    home = Path("/home/me")
    home.mkdir()
    subprocess.run(["useradd", "--no-create-home", USER], check=True)
    subprocess.run(["chpasswd"], input=f"{USER}:{PASSWORD}\n", check=True, text=True)
    server = OpenSSH(Path("/srv/sftp"), more=["ChrootDirectory /srv/sftp"])
    server.user, server.password = USER, PASSWORD
    with server, server.link(rate_bps=RATE_BPS, script=FAULTS) as link:
        shutil.chown(ensured(server.root / "upload"), USER)
        hour = Hour(server, link.port, wheel, home)
        prepare(home)
        install(hour)
        meet_the_host(hour)
        send_a_folder(hour)
        lose_the_link(hour, link, server)
        synchronise(hour)
        serve(hour, server, link.port)
    return hour.text


def ensured(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def prepare(home: Path) -> None:
    """What the user has already: a key that the server knows, and files."""
    key = ensured(home / ".ssh") / "id_ed25519"
    key.write_bytes(client_key().read_bytes())
    key.chmod(0o600)
    data = ensured(home / "data")
    for day in (26, 27, 28):
        (data / f"2026-11-{day}.csv").write_text("".join(f"{day},{n}\n" for n in range(1000)))
    (home / "big.bin").write_bytes(os.urandom(BIG_BYTES))


def install(hour: Hour) -> None:
    hour.chapter("Install")
    hour("python3 -m venv ~/sftp")
    hour("~/sftp/bin/pip install -q iot-sftp-client")
    hour.export("PATH=~/sftp/bin:$PATH")
    hour.end()


def meet_the_host(hour: Hour) -> None:
    hour.chapter("An unknown host", "It is refused. The operator has told the fingerprint: it is the same, and pinned.")
    hour(f"iot-sftp ls {USER}@{HOST}:/", code=77)
    hour.export(f"SFTP_HOST={HOST} SFTP_USER={USER}")
    hour.export(f"SFTP_HOST_KEY={FINGERPRINT}")
    hour("iot-sftp ls /")
    hour.end()


def send_a_folder(hour: Hour) -> None:
    hour.chapter("A folder")
    hour("iot-sftp put -r --update data /upload/", in_any_order=True)
    hour("iot-sftp ls -R /upload")
    hour.end()


def lose_the_link(hour: Hour, link: BadLink, server: OpenSSH) -> None:
    hour.chapter("A cut of the link", "The link ends in the middle of a file. Later the same command goes on.")
    hour("iot-sftp put big.bin /upload/", code=69)
    link.restore()
    hour("iot-sftp put big.bin /upload/")
    assert server.content("upload/big.bin") == (hour.home / "big.bin").read_bytes()
    hour.end()


def synchronise(hour: Hour) -> None:
    hour.chapter("Only what differs")
    hour("echo 28,1000 >> data/2026-11-28.csv")
    hour("iot-sftp sync --dry-run data :/upload/data")
    hour("iot-sftp sync data :/upload/data")
    hour("iot-sftp sync data :/upload/data")
    hour.end()


def serve(hour: Hour, server: OpenSSH, port: int) -> None:
    hour.chapter("The service", "The example of the configuration names this server, user and outbox already.")
    hour("sudo sh deploy/install")
    configure_port(port)
    hour(f"ssh-keyscan -p 22 {HOST} 2>/dev/null > known_hosts")
    hour(f"sudo install -m 600 known_hosts {CREDENTIALS}/known_hosts")
    hour.end()
    with Unit("iot-spooler", hour.environment) as unit:
        refuse(hour, unit)
        deliver(hour, unit, server)


def configure_port(port: int) -> None:
    """The one thing that differs from what the example says: the real server of this hour has no port 22."""
    configuration = Path("/etc/iot-spooler/iot-spooler.toml")
    configuration.write_text(configuration.read_text().replace("# port = 22", f"port = {port}"))


def refuse(hour: Hour, unit: Unit) -> None:
    hour.chapter("A wrong password")
    hour(f"echo wrong | sudo install -m 600 /dev/stdin {CREDENTIALS}/password")
    hour("sudo iot-spooler check --connect", code=78)
    hour("sudo systemctl enable --now iot-spooler", instead=unit.restart)
    hour("cp data/2026-11-28.csv /var/spool/iot/outbox/")
    until(lambda: "connection  held" in hour.asked("iot-spooler status"))
    hour("iot-spooler status")
    hour.end()


def deliver(hour: Hour, unit: Unit, server: OpenSSH) -> None:
    hour.chapter("Fixed, and delivered")
    hour(f"echo {PASSWORD} | sudo install -m 600 /dev/stdin {CREDENTIALS}/password")
    hour("sudo iot-spooler check --connect")
    hour("sudo systemctl restart iot-spooler", instead=unit.restart)
    until(lambda: "delivered   1 file " in hour.asked("iot-spooler status"))
    hour("ls -A /var/spool/iot/outbox")
    hour("sudo iot-spooler deliveries --last 1")
    (arrived,) = server.root.glob("upload/gw-*/2026-11-28.csv")
    assert arrived.read_bytes() == (hour.home / "data/2026-11-28.csv").read_bytes()
    hour.end()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print(live(Path(sys.argv[2])), end="")
    else:
        DOCUMENT.write_text(document_with(transcript(built_wheel())), encoding="utf-8")
