"""Folders that are the same, or lie in each other, by a bind mount or a symlink: `check` and `run` refuse them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iot.spooler.config.whereabouts import Mounts, mounted_now, whereabouts

PAIRS = {
    "archive that is the outbox": ('archive = "{base}/b"\nafter_upload = "archive"', "box", "b"),
    "archive in the outbox": ('archive = "{base}/b"\nafter_upload = "archive"', "box/sub", "b"),
    "archive around the outbox": ('archive = "{base}/b"\nafter_upload = "archive"', ".", "b"),
    "archive below a folder that is the outbox": ('archive = "{base}/b/x/y"\nafter_upload = "archive"', "box", "b"),
    "quarantine that is the outbox": ('quarantine = "{base}/b"', "box", "b"),
    "quarantine in the outbox": ('quarantine = "{base}/b/q"', "box/sub", "b"),
    "quarantine that is seen in the outbox": ('quarantine = "{base}/q"', "q", "box/sub"),
    "part of the quarantine seen in the outbox": ('quarantine = "{base}/q"', "q/part", "box/sub"),
    "archive that is the quarantine": (
        'quarantine = "{base}/q"\narchive = "{base}/b"\nafter_upload = "archive"',
        "q",
        "b",
    ),
    "state in the outbox": ("", "box/sub", "state"),
    "second outbox that is the first": ('[[outbox]]\npath = "{base}/b"\ndestination = "/other"', "box", "b"),
    "second outbox in the first": ('[[outbox]]\npath = "{base}/b"\ndestination = "/other"', "box/sub", "b"),
}


def configuration(base: Path, lines: str) -> Path:
    for name in ("box/sub", "b", "q/part", "state"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "c.toml").write_text(
        f'state_dir = "{base}/state"\n[server]\nhost = "127.0.0.1"\nport = 1\npassword_file = "{base}/password"\n'
        f'host_key = "SHA256:{"A" * 43}"\n'
        f'[[outbox]]\npath = "{base}/box"\ndestination = "/up"\n{lines.format(base=base)}\n'
    )
    (base / "password").write_text("secret")
    for secret in ("c.toml", "password"):
        (base / secret).chmod(0o600)
    return base / "c.toml"


def spooler(command: str, config: Path, mount: str = "true") -> subprocess.CompletedProcess[str]:
    """Where this is mounted, and nowhere else."""
    script = f'{mount} && exec "$0" -m iot.spooler {command} --config {config}'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, sys.executable]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.mark.needs("root", "mounts")
@pytest.mark.parametrize(("lines", "source", "target"), PAIRS.values(), ids=PAIRS)
def test_folders_that_are_one_by_a_bind_mount_are_refused_by_check_and_at_the_start(
    tmp_path: Path, lines: str, source: str, target: str
) -> None:
    config = configuration(tmp_path, lines)
    mount = f"mount --bind {tmp_path}/{source} {tmp_path}/{target}"
    for command in ("check", "run --drain"):
        done = spooler(command, config, mount)
        assert done.returncode == 78, done.stderr
        assert "(by a symlink or a mount)" in done.stderr
        assert str(config) in done.stderr


@pytest.mark.parametrize("name", ["archive that is the outbox", "quarantine in the outbox", "state in the outbox"])
def test_folders_that_are_one_by_a_symlink_are_refused(tmp_path: Path, name: str) -> None:
    lines, source, target = PAIRS[name]
    config = configuration(tmp_path, lines)
    (tmp_path / target).rmdir()
    (tmp_path / target).symlink_to(tmp_path / source)
    done = subprocess.run(
        [sys.executable, "-m", "iot.spooler", "check", "--config", str(config)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "(by a symlink or a mount)" in done.stderr


@pytest.mark.needs("root", "mounts")
def test_mounts_that_show_different_folders_are_accepted(tmp_path: Path) -> None:
    """As systemd and containers make them: each folder is a mount of its own, of one file system."""
    lines = 'archive = "{base}/b"\nafter_upload = "archive"\nquarantine = "{base}/q"'
    config = configuration(tmp_path, lines)
    (tmp_path / "elsewhere with a space").mkdir()
    mounts = [f"mount --bind {tmp_path}/{name} {tmp_path}/{name}" for name in ("box", "q", "state")]
    mounts.append(f"mount --bind '{tmp_path}/elsewhere with a space' {tmp_path}/b")
    done = spooler("check", config, " && ".join(mounts))
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_not_there_yet_is_compared_by_where_it_will_be(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    mounts = mounted_now()
    here, there = (whereabouts(tmp_path / name / "x" / "y", mounts) for name in ("a", "link"))
    assert here.is_same(there)
    assert whereabouts(tmp_path / "link" / "x" / "y" / "z", mounts).is_within(here)
    assert not whereabouts(tmp_path / "a" / "xy", mounts).overlaps(here)


def test_where_it_cannot_be_known_what_is_mounted_nothing_is_taken_for_the_same(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("iot.spooler.config.whereabouts.MOUNTINFO", tmp_path / "missing")
    assert mounted_now() == {}
    inner, outer = tmp_path / "a" / "b", tmp_path / "a"
    inner.mkdir(parents=True)
    assert whereabouts(inner, {}).is_within(whereabouts(outer, {}))
    assert not whereabouts(outer, {}).is_within(whereabouts(inner, {}))


@pytest.mark.parametrize("mounts", [mounted_now(), {}], ids=["mounts known", "not known"])
def test_folders_overlap_that_are_one_or_lie_in_each_other_and_no_others(tmp_path: Path, mounts: Mounts) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    places = {name: whereabouts(tmp_path / name, mounts) for name in ("a", "a/b", "link", "link/b/new", "c", "ab")}
    overlapping = {(one, other) for one in places for other in places if places[one].overlaps(places[other])}
    ours = ("a", "a/b", "link", "link/b/new")
    assert overlapping == {(one, other) for one in ours for other in ours} | {("c", "c"), ("ab", "ab")}
    same = {(one, other) for one in places for other in places if places[one].is_same(places[other])}
    assert same == {(each, each) for each in places} | {("a", "link"), ("link", "a")}
