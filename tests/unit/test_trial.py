"""What `check --connect` leaves on a server that it loses, or that lets it remove nothing, is told by name."""

from __future__ import annotations

import pytest

from iot.spooler.checks.trial import Came, Destination, Step, tried
from iot.transfer import (
    LinkLost,
    NoSpaceOnServer,
    NotFound,
    PermissionDenied,
    ServerRefused,
    TransferError,
    TransferResult,
)

SCRATCH = "up/.iot-spooler-check.0123abcd.part"


class Remote:
    """A server that fails at one upload; afterwards each call ends with `then`, if given."""

    def __init__(self, fails_at: int, error: TransferError, then: TransferError | None = None) -> None:
        self.uploads = 0
        self.names: set[str] = set()
        self._fails_at = fails_at
        self._error = error
        self._then = then
        self._failed = False

    def connect(self) -> None:
        pass

    def upload(self, source: object, dest: str) -> TransferResult:
        self.uploads += 1
        self.names.add(dest)
        if self.uploads == self._fails_at:
            self.names.add(dest + ".89abcdef.part")
            self._failed = True
            raise self._error
        return TransferResult(dest, dest, 8, 8, 0, 0.1, None, True)

    def exists(self, path: str) -> bool:
        return True

    def list(self, path: str, file_pattern: str | None = None) -> list[str]:
        self._check()
        return sorted(self.names)

    def delete(self, path: str) -> None:
        self._check()
        if path not in self.names:
            raise NotFound(path)
        self.names.remove(path)

    def rmdir(self, path: str) -> None:
        self._check()

    def _check(self) -> None:
        if self._failed and self._then is not None:
            raise self._then


def steps(remote: Remote) -> list[Step]:
    return list(tried(remote, "host key", [Destination(SCRATCH, ("box",))]))


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_a_link_that_is_lost_leaves_a_name_and_it_is_told(fails_at: int) -> None:
    last = steps(Remote(fails_at, LinkLost("gone"), LinkLost("gone")))[-1]
    assert (last.name, last.came) == ("clean up", Came.LATER)
    assert f"may still be there, also with an ending: {SCRATCH}; remove it by hand" in last.means


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (NoSpaceOnServer("no space"), "no space; the agent would keep files that do not fit, and try them again"),
        (PermissionDenied("no"), "no; files would fail like this, and go to quarantine"),
    ],
)
def test_a_step_that_fails_says_what_would_become_of_files(error: TransferError, means: str) -> None:
    assert Step("write", Came.FAILED, means) in steps(Remote(1, error))


def test_what_cannot_be_removed_after_a_refusal_is_told() -> None:
    last = steps(Remote(1, ServerRefused("no"), PermissionDenied("no")))[-1]
    assert last.name != "clean up"  # nothing may be listed, so nothing is known to be there
    remote = Remote(1, ServerRefused("no"))
    remote.delete = lambda path: (_ for _ in ()).throw(PermissionDenied(path))  # type: ignore[method-assign]
    last = steps(remote)[-1]
    assert (last.name, last.came) == ("clean up", Came.LATER)
    assert SCRATCH in last.means
    assert SCRATCH + ".89abcdef.part" in last.means
    remote = Remote(2, ServerRefused("no"))
    remote.delete = lambda path: (_ for _ in ()).throw(PermissionDenied(path))  # type: ignore[method-assign]
    last = steps(remote)[-1]  # the step that deletes has said it
    assert (last.name, last.came) == ("delete", Came.FAILED)
    assert SCRATCH in last.means


def test_where_all_was_removed_nothing_more_is_told() -> None:
    for remote in (Remote(99, LinkLost("never")), Remote(2, ServerRefused("no"))):
        assert "clean up" not in [step.name for step in steps(remote)]
        assert remote.names == set()


@pytest.mark.parametrize(
    ("fails_at", "error", "names"),
    [
        (1, ServerRefused("no"), ["write"]),
        (1, LinkLost("gone"), ["write", "clean up"]),
        (2, ServerRefused("no"), ["write", "fsync", "resume", "delete"]),
        (2, LinkLost("gone"), ["write", "fsync", "resume", "clean up"]),
    ],
)
def test_deleting_is_tried_only_where_something_is_there_and_the_link_stands(
    fails_at: int, error: TransferError, names: list[str]
) -> None:
    tried_at_destination = [step.name for step in steps(Remote(fails_at, error)) if step.came is not None][3:]
    assert tried_at_destination == names
