"""What an outbox may be like, and what may lie in it: nothing lost, nothing led astray."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.bad_input import Site, mounted, until, without_root_rights
from servers.openssh import OpenSSH

from iot.sftp.client import NotFound, PermanentError


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


# -- the folder


def test_a_missing_outbox_is_told_and_served_as_soon_as_it_is_there(site: Site) -> None:
    site.box.rmdir()
    drained = site.drain()
    assert drained.returncode == 75
    assert f'source failed outbox=box reason="outbox {site.box}: No such file or directory"' in drained.stderr
    assert site.status()["outboxes"][0]["state"] == "source failed"
    with site.running():
        until(lambda: "source failed" in site.log)
        site.put("file")
        until(lambda: site.left() == [])
    assert site.arrived() == ["file"]


def test_an_outbox_that_is_a_file_is_told(site: Site) -> None:
    site.box.rmdir()
    site.box.write_bytes(b"")
    drained = site.drain()
    assert drained.returncode == 75
    assert "Not a directory" in drained.stderr


def test_an_unreadable_outbox_folder_or_file_is_told_and_the_rest_goes(site: Site) -> None:
    site.put("readable")
    site.put("no-file").chmod(0)
    site.put("no-folder/file").parent.chmod(0)
    site.prefix = without_root_rights()
    drained = site.drain()
    assert drained.returncode == 75
    assert 'path=no-file error="PermissionDenied' in drained.stderr
    assert 'path=no-folder reason="folder: Permission denied"' in drained.stderr
    assert site.arrived() == ["readable"]
    site.box.chmod(0)
    drained = site.drain()
    assert drained.returncode == 75
    assert "source failed" in drained.stderr
    site.box.chmod(0o700)
    (site.box / "no-folder").chmod(0o700)
    (site.box / "no-file").chmod(0o600)
    assert site.drain().returncode == 0
    assert site.arrived() == ["no-file", "no-folder/file", "readable"]


@pytest.mark.needs("mounts")
def test_an_outbox_on_a_read_only_mount_delivers_once_and_says_that_it_cannot_remove(site: Site) -> None:
    behind = site.folder / "behind"
    behind.mkdir()
    (behind / "file").write_bytes(b"content")
    with mounted(site.box, "bind", "ro", str(behind)):
        drained = site.drain()
        assert drained.returncode == 75
        assert "Read-only file system" in drained.stderr
        assert site.content("file") == b"content"
        before = (site.server.root / "up/file").stat().st_mtime_ns
        assert site.drain().returncode == 75
        assert (site.server.root / "up/file").stat().st_mtime_ns == before  # remembered, not sent again
        assert site.left() == ["file"]
        site.outbox["after_upload"] = "keep"
        (behind / "other").write_bytes(b"other")
        kept = site.drain()
        assert site.content("other") == b"other"
        assert "path=other" in kept.stderr


def touched(path: Path) -> None:
    """As a backup, a restore, `chmod` and a rename do it: another change time and inode, the same size and time."""
    path.chmod(0o600 if path.stat().st_mode & 0o77 else 0o644)


def replaced_by_a_copy(path: Path) -> None:
    shutil.copy2(path, path.parent.parent / "copy")
    (path.parent.parent / "copy").rename(path)


def hard_linked(path: Path) -> None:
    (path.parent.parent / f"link{time.monotonic_ns()}").hardlink_to(path)


@pytest.mark.parametrize("touch", [touched, replaced_by_a_copy, hard_linked])
def test_a_kept_file_that_was_only_touched_is_not_sent_again_after_its_consumer_took_it(
    site: Site, touch: Callable[[Path], None]
) -> None:
    site.outbox["after_upload"] = "keep"
    small, large = site.put("small", b"small"), site.put("large", os.urandom(3_000_000))
    assert site.drain().returncode == 0
    for _ in range(2):
        for name in site.arrived():
            (site.server.root / "up" / name).unlink()  # the consumer
        for path in (small, large):
            touch(path)
        drained = site.drain()
        assert drained.returncode == 0
        assert site.arrived() == []
        assert drained.stderr.count("touched, content as delivered before") == 2
    assert site.drain().stderr.count("touched") == 0  # that is on record


def test_a_kept_file_that_was_rewritten_with_its_old_time_is_sent_again(site: Site) -> None:
    site.outbox["after_upload"] = "keep"
    path = site.put("file", b"first")
    assert site.drain().returncode == 0
    (site.server.root / "up" / "file").unlink()
    status = path.stat()
    path.write_bytes(b"again")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert site.drain().returncode == 0
    assert site.content("file") == b"again"
    (site.server.root / "up" / "file").unlink()
    touched(path)
    assert site.drain().returncode == 0
    assert site.arrived() == []


def test_a_touched_file_whose_delivery_was_recorded_without_a_hash_is_compared_with_the_server(site: Site) -> None:
    """As earlier releases recorded them. Nothing tells then that the content is the same but what stands there."""
    site.outbox["after_upload"] = "keep"
    path = site.put("file")
    assert site.drain().returncode == 0
    with contextlib.closing(sqlite3.connect(site.state / "journal.db")) as db:
        db.execute("UPDATE delivered SET sha256 = NULL")
        db.commit()
    before = (site.server.root / "up" / "file").stat().st_mtime_ns
    touched(path)
    drained = site.drain()
    assert "sent=0" in drained.stderr
    assert (site.server.root / "up" / "file").stat().st_mtime_ns == before


# -- what is no file


def test_only_regular_files_are_sent_and_the_others_are_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"not for you")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/file").write_bytes(b"not for you")
    (site.box / "symlink").symlink_to(tmp_path / "secret")
    (site.box / "dangling").symlink_to(tmp_path / "nowhere")
    (site.box / "folder").symlink_to(tmp_path / "secrets")
    os.mkfifo(site.box / "fifo")
    site.put("file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(site.box / "socket"))  # its path may hold 107 bytes at most
        drained = site.drain()
    assert drained.returncode == 75
    assert "not all is delivered never_sent=5" in drained.stderr
    for name, kind in (("symlink", "symlink"), ("dangling", "symlink"), ("folder", "symlink")):
        assert f"path={name} reason={kind}" in drained.stderr
    assert "path=fifo reason=fifo" in drained.stderr
    assert "path=socket reason=socket" in drained.stderr
    assert site.arrived() == ["file"]
    assert site.left() == ["dangling", "fifo", "folder", "socket", "symlink"]
    (told,) = site.status()["outboxes"]
    assert told["never_sent"] == {"symlink": 3, "fifo": 1, "socket": 1}
    assert "5 never sent (symlink: 3, fifo: 1, socket: 1)" in " ".join(site.spooler("status").stdout.split())
    site.outbox["exclude"] = ["*link", "dangling", "fif?", "folder", "socket"]
    assert site.drain().returncode == 0  # the configuration says that nobody wants them
    assert site.status()["outboxes"][0]["never_sent"] == {}


def test_files_below_a_hundred_folders_are_counted_as_never_sent(site: Site) -> None:
    deep = "deep/" + "d/" * 99
    site.put(f"{deep}sent")
    site.put(f"{deep}x/not")
    drained = site.drain()
    assert drained.returncode == 75
    assert site.arrived() == [f"{deep}sent"]
    assert site.status()["outboxes"][0]["never_sent"] == {"deeper than 100 folders": 1}
    site.outbox["exclude"] = ["deep/*/x*"]
    assert site.drain().returncode == 0
    (site.box / f"{deep}x/not").unlink()
    del site.outbox["exclude"]
    (site.box / f"{deep}x").rmdir()
    assert site.drain().returncode == 0


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_the_client_refuses_what_is_no_file_without_waiting_for_it(
    site: Site, make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "it")
    with site.client() as client:
        with pytest.raises(PermanentError):
            client.upload(tmp_path / "it", site.server.path("it"))
        with pytest.raises(NotFound):
            client.upload(tmp_path / "missing", site.server.path("it"))
    assert site.iot_sftp("put", str(tmp_path / "it"), site.server.path("it")).returncode == 74
    assert site.server.names() == []


def test_a_folder_swapped_for_a_symlink_leads_nobody_out_of_the_outbox(site: Site, tmp_path: Path) -> None:
    """Same names, sizes and times on both sides, swapped all the time while the agent scans, sends and removes."""
    secrets, real = tmp_path / "secrets", site.box / "folder"
    secrets.mkdir()
    names = [f"file{number}" for number in range(150)]
    for name in names:
        (secrets / name).write_bytes(b"secret!")
        site.put(f"folder/{name}", b"content")
        for folder in (secrets, real):
            os.utime(folder / name, ns=(10**18, 10**18))
    away, link = site.folder / "away", site.folder / "link"
    link.symlink_to(secrets)
    with site.running() as agent:
        while len(site.arrived()) < len(names) // 2 and agent.poll() is None:
            real.rename(away)
            link.rename(real)
            real.rename(link)
            away.rename(real)
        until(lambda: site.left() == [])
    assert sorted(os.listdir(secrets)) == sorted(names)
    assert {(secrets / name).read_bytes() for name in names} == {b"secret!"}
    finals = [name for name in site.arrived() if not name.endswith(".part")]
    assert finals == sorted(f"folder/{name}" for name in names)
    assert {site.content(name) for name in site.arrived()} <= {b"content", b""}
