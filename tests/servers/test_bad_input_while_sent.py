"""Files that change while they are sent, and whatever their names and sizes: nothing lost, nothing mixed."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.proxy import BadLink
from servers.bad_input import Site, until
from servers.openssh import OpenSSH

from iot.sftp.client import NameRefused, PermanentError, SourceChanged

MIB = 1 << 20


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


# -- what happens to a file while it is sent


@pytest.fixture
def slow(site: Site, tmp_path: Path) -> Iterator[BadLink]:
    """16 Mbit/s between the two: a file of 3 MiB takes one and a half seconds."""
    with BadLink(site.server.host, site.server.port, rate_bps=16e6) as link:
        site.login |= {"port": link.port, "known_hosts": None, "host_key": site.server.host_key}
        yield link


def vanish(path: Path) -> bytes | None:
    path.unlink()
    return None


def grow(path: Path) -> bytes:
    with path.open("ab") as file:
        file.write(b"more")
    return path.read_bytes()


def rewrite(path: Path) -> bytes:
    content = os.urandom(path.stat().st_size)
    path.write_bytes(content)
    return content


def rewrite_with_its_old_time(path: Path) -> bytes:
    before = path.stat()
    content = rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return content


def replace(path: Path) -> bytes:
    fresh = path.with_name(".fresh")
    fresh.write_bytes(os.urandom(path.stat().st_size))
    content = fresh.read_bytes()
    fresh.rename(path)
    return content


def shrink(path: Path) -> bytes:
    os.truncate(path, 1000)
    return path.read_bytes()


CHANGES = [vanish, grow, rewrite, rewrite_with_its_old_time, replace, shrink]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_sent_is_never_published_mixed(
    site: Site, slow: BadLink, change: Callable[[Path], bytes | None]
) -> None:
    path = site.put("file", os.urandom(3 * MIB))
    site.outbox["exclude"] = [".fresh"]
    site.top["scan_s"] = 0.1
    with site.running() as agent:
        until(lambda: slow.up_bytes > MIB)
        wanted = change(path)
        published = site.content("file")
        assert published is None
        if wanted is None:
            until(lambda: "vanished path=file" in site.log)
        else:
            until(lambda: site.left() == [])
        assert agent.poll() is None
    assert site.content("file") == wanted


def test_the_client_says_so_when_the_source_changes_while_it_is_sent(site: Site, slow: BadLink) -> None:
    path = site.put("file", os.urandom(2 * MIB))
    changed = False

    def change(_: object) -> None:
        nonlocal changed
        changed = changed or bool(grow(path))

    with site.client() as client, pytest.raises(SourceChanged):
        client.upload(path, site.server.path("file"), progress=change)
    assert changed
    assert site.server.content("file") is None


def test_a_put_of_a_file_that_is_rewritten_meanwhile_ends_with_75(site: Site, slow: BadLink) -> None:
    path = site.put("file", os.urandom(2 * MIB))
    settings = site.settings({"state_dir": site.state})
    environment = {f"SFTP_{'KEY' if name == 'key_file' else name.upper()}": str(it) for name, it in settings.items()}
    command = [
        *site.spooler_command()[:1],
        "-m",
        "iot.sftp.client.cli.main",
        "put",
        str(path),
        site.server.path("file"),
    ]
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: slow.up_bytes > MIB)
        rewrite(path)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 75, told
    assert "during the upload" in told  # changed, or shorter: it is emptied before it is written anew
    assert site.server.content("file") is None


# -- names and sizes


NAMES = [
    b"with space",
    b" leading and trailing ",
    b"new\nline",
    b"tab\tand\rreturn",
    b"'single' \"double\" `back`",
    b"$(touch pwned); rm -rf * & | > <",
    b"\\back\\slash\\",
    b"-rf",
    b"--",
    b"\xff\xfe not UTF-8 \x80",
    "ünïcödé 数据 🛰".encode(),
    b"\x1b[31mred\x07",
    b"{date} {nobody} %s %n {",
    b"*?[a-z]",
    b"...",
    b"~",
    b"#.part",
    b"x" * 255,
    b"\xe2\x82\xac" * 85,
    b"\xff" * 255,
]


def remote_names(root: Path) -> list[bytes]:
    return sorted(os.listdir(os.fsencode(root)))


@pytest.mark.parametrize("after_upload", ["delete", "archive"])
def test_every_name_that_a_file_can_have_arrives(site: Site, after_upload: str) -> None:
    site.outbox["after_upload"] = after_upload
    for name in NAMES:
        site.put(name, b"of " + name)
    site.put(b"fol der\n/-\xff/file")
    drained = site.drain()
    assert drained.returncode == 0, drained.stderr
    assert remote_names(site.server.root / "up") == sorted([*NAMES, b"fol der\n"])
    for name in NAMES:
        assert (site.server.root / "up" / os.fsdecode(name)).read_bytes() == b"of " + name
    assert (site.server.root / "up" / os.fsdecode(b"fol der\n/-\xff/file")).read_bytes() == b"content"
    assert all(character.isprintable() or character == "\n" for character in drained.stderr)
    assert all(line.startswith(("INFO ", "WARNING ", "ERROR ")) for line in drained.stderr.splitlines())
    if after_upload == "archive":
        (bundle,) = (site.state / "archive" / "box").glob("*.*[0-9]")
        assert remote_names(bundle) == sorted([*NAMES, b"fol der\n"])
    assert site.left() == []


def test_every_name_goes_there_and_back_with_the_client(site: Site, tmp_path: Path) -> None:
    with site.client() as client:
        for number, name in enumerate(NAMES):
            source = site.put(name, b"%d" % number)
            client.upload(source, site.server.path(os.fsdecode(name)))
            client.download(site.server.path(os.fsdecode(name)), tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == b"%d" % number
        assert client.list(site.server.path()) == sorted(site.server.path(os.fsdecode(name)) for name in NAMES)
    assert remote_names(site.server.root) == sorted(NAMES)


def test_a_destination_that_no_server_can_have_is_an_error_of_that_file(site: Site) -> None:
    source = site.put("file")
    with site.client() as client:
        for dest in ("x" * 256, "a/" * 2100 + "file"):
            with pytest.raises(PermanentError):
                client.upload(source, site.server.path(dest))
        with pytest.raises(NameRefused):
            client.upload(source, site.server.path("a\0b"))
        client.upload(source, site.server.path("file"))


def test_an_empty_file_arrives_and_goes_on_arriving(site: Site, tmp_path: Path) -> None:
    source = site.put("empty", b"")
    with site.client() as client:
        result = client.upload(source, site.server.path("a"), sha256=True)
        client.download(site.server.path("a"), tmp_path / "back")
    assert (result.size, result.sha256[:8] if result.sha256 else "") == (0, "e3b0c442")
    assert (tmp_path / "back").read_bytes() == b""
    assert site.iot_sftp("put", str(source), site.server.path("b")).returncode == 0
    assert site.drain().returncode == 0
    assert stat.S_ISREG((site.server.root / "up/empty").stat().st_mode)
    assert site.server.names() == ["a", "b", "up/empty"]
