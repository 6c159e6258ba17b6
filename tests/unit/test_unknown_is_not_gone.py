"""What cannot be looked at is unknown, never gone: nothing is forgotten, nothing is sent again, and it is said."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sqlite3
from pathlib import Path

import pytest
from unit.agent_rig import Rig
from unit.other_user import in_child, without_capabilities

from iot.sftp.client import Fingerprint, PermissionDenied
from iot.spooler.agent.draining import End
from iot.spooler.outbox.scan import Outbox, SourceFailed
from iot.transfer.abandoned_parts import _may_go_on
from iot.transfer.model import Checkpoint, Direction, Token

GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_only_three_errors_mean_that_a_file_is_not_there(number: int) -> None:
    from iot.sftp.client import is_gone

    assert is_gone(OSError(number, "")) is (number in GONE)


def rows(rig: Rig, column: str) -> list[object]:
    """What the queue holds."""
    with contextlib.closing(sqlite3.connect(rig.base / "state" / "journal.db")) as db:
        return [value for (value,) in db.execute(f"SELECT {column} FROM entry")]


def test_a_folder_that_is_unreadable_for_a_while_drops_no_row_and_sends_nothing_again(tmp_path: Path) -> None:
    def work() -> None:
        rig = Rig(tmp_path)
        rig.outbox["after_upload"] = "keep"
        for name in ("a", "sub/deep/b", "sub/c", "other/d"):
            rig.put(name)
        assert rig.run() is End.DRAINED
        for _ in range(3):
            (rig.box / "sub").chmod(0)
            rig.put("other/late")
            assert rig.run() is End.REMAINS  # what could not be looked at is not nothing
            assert "sub: Permission denied" in rig.agent.intakes[0].failed
            (rig.box / "sub").chmod(0o755)
        assert rig.run() is End.DRAINED
        assert rig.agent.intakes[0].failed is None
        assert len(rows(rig, "id")) == 5
        assert sorted(set(rig.remote.deliveries)) == sorted(f"/up/{name}" for name in rig.left())
        assert [dest for dest in rig.remote.deliveries if "sub" in dest] == ["/up/sub/c", "/up/sub/deep/b"]

    without_capabilities(work)


def test_a_folder_that_becomes_readable_again_is_found_by_a_running_agent(tmp_path: Path) -> None:
    def work() -> None:
        rig = Rig(tmp_path)
        rig.put("sub/f")
        (rig.box / "sub").chmod(0)
        seen: list[str | None] = []
        end = rig.loop.now + 120

        def report(agent: object, *, changed: bool, final: bool = False) -> None:
            seen.append(rig.agent.intakes[0].failed if rig.agent else None)
            if rig.loop.now > end - 60:
                (rig.box / "sub").chmod(0o755)

        rig.loop.report = report
        rig.loop.stop_at = end
        rig.run(drain=False)
        assert any(seen)
        assert seen[-1] is None
        assert rig.arrived() == ["sub/f"]

    without_capabilities(work)


def test_a_file_in_an_unreadable_folder_gets_no_strike(tmp_path: Path) -> None:
    def work() -> None:
        rig = Rig(tmp_path)
        rig.put("sub/f")
        rig.retry = {"max_attempts": 3}
        rig.remote.refuse["/up/sub/f"] = PermissionDenied("sub/f: Permission denied")
        rig.remote.before = lambda job: (rig.box / "sub").chmod(0)
        rig.loop.stop_at = rig.loop.now + 3600
        rig.run(drain=False)
        (rig.box / "sub").chmod(0o755)
        assert rig.agent.owed.quarantined == 0
        assert rows(rig, "strikes") == [0]

    without_capabilities(work)


def test_without_a_descriptor_left_nothing_is_known_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "box" / "sub").mkdir(parents=True)
    (tmp_path / "box" / "sub" / "f").write_bytes(b"x")
    outbox = Outbox(tmp_path / "box", wanted=lambda _: True, clock=lambda: 0.0)
    found = [item for batch in outbox.walk(whole=True) for item in batch]

    def work() -> None:
        lowest = os.dup(0)
        for spare in (0, 1, 2):  # none left; one for the outbox; two: one for the folder; three: for the file itself
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, 4096))
            with pytest.raises(SourceFailed, match="Too many open files"):
                outbox.look(b"sub/f")
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 2, 4096))
        assert [answer for _, answer in outbox.ask(found)] == [None]
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        assert outbox.look(b"sub/f") == found[0].fingerprint

    in_child(work)
    outbox.release()


def test_the_part_of_a_source_that_cannot_be_looked_at_is_not_abandoned(tmp_path: Path) -> None:
    def work() -> None:
        source = tmp_path / "sub" / "f"
        source.parent.mkdir()
        source.write_bytes(b"x")
        record = Checkpoint(Direction.UPLOAD, b"/f", bytes(source), Token(b"/f.part"), Fingerprint(9, 9))
        assert not _may_go_on(record)  # another version by now
        source.parent.chmod(0)
        assert _may_go_on(record)
        source.parent.chmod(0o755)
        source.unlink()
        assert not _may_go_on(record)

    without_capabilities(work)


def test_the_lost_and_found_of_a_file_system_is_nobodys_outbox(tmp_path: Path) -> None:
    def work() -> None:
        rig = Rig(tmp_path)
        rig.put("f")
        (rig.box / "lost+found").mkdir(mode=0)
        assert rig.run() is End.DRAINED

    without_capabilities(work)
