"""Each step of a plan for a folder is taken once, and what fails takes only its own files along."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.transfer.errors import (
    Cancelled,
    ConfigurationError,
    LocalStateError,
    NameRefused,
    NotFound,
    PermanentError,
    PermissionDenied,
    ServerBusy,
    TransferError,
)
from iot.transfer.model import Direction, Failure, TransferResult
from iot.transfer.trees import carrying
from iot.transfer.trees.carrying import Manner, carry_out
from iot.transfer.trees.model import Act, Step, StepResult, TreePlan, TreeResult
from iot.transfer.trees.removing import remove_local, remove_remote


class Remote:
    """A folder on a far side that takes and gives everything but what is refused. calls: what it was asked for."""

    def __init__(self, refused: dict[str, TransferError] | None = None, most: int = 99) -> None:
        self.refused, self.most, self.calls, self.jobs, self.manner = refused or {}, most, [], [], {}

    def mkdir(self, path: bytes) -> None:
        self._called("mkdir", path.decode())

    def rmdir(self, path: bytes) -> None:
        self._called("rmdir", path.decode())

    def delete(self, path: bytes) -> None:
        self._called("delete", path.decode())

    def _called(self, what: str, path: str) -> None:
        self.calls.append((what, path))
        if path in self.refused:
            raise self.refused[path]

    def upload_many(self, jobs: Any, **manner: Any) -> Iterator[TransferResult | Failure]:
        self.manner = manner
        for job in list(jobs)[: self.most]:
            self.jobs.append(job)
            error = self.refused.get(str(job.dest)) or self.refused.get(str(job.source))
            yield Failure(job.key, job.source, job.dest, error) if error else done(job)

    download_many = upload_many


def done(job: Any) -> TransferResult:
    return TransferResult(str(job.source), str(job.dest), 1, 1, 0, 0.0, None, key=job.key)


def step(act: Act, path: str, **more: Any) -> Step:
    return Step(act, path, f"/from/{path}", f"/to/{path}", "", **more)


def up(*steps: Step, **more: Any) -> TreePlan:
    return TreePlan(Direction.UPLOAD, steps, **more)


def outcomes(remote: Remote, plan: TreePlan, manner: Manner | None = None) -> list[tuple[str, str]]:
    """-> the path of each step that was taken, and why it failed"""
    return [(told.step.path, str(told.error or "")) for told in carry_out(remote, plan, manner or Manner())]


# -- uploads


def test_a_folder_that_gets_a_file_is_made_with_it_and_an_empty_one_by_itself() -> None:
    remote = Remote({"/to/empty": PermissionDenied("no")})
    folders = [step(Act.MAKE_FOLDER, name) for name in ("a", "a/b", "empty", "other")]
    told = outcomes(remote, up(*folders, step(Act.TRANSFER, "a/b/f")))
    assert remote.calls == [("mkdir", "/to/empty"), ("mkdir", "/to/other")]
    assert told == [("empty", "no"), ("other", ""), ("a/b/f", "")]


def test_jobs_are_made_as_the_plan_and_the_manner_say() -> None:
    remote, told = Remote(), []
    manner = Manner(False, True, lambda step: told.append, lambda: None, "{name}.tmp")
    list(carry_out(remote, up(step(Act.TRANSFER, "f"), keep_times=True), manner))
    [job] = remote.jobs
    assert (job.source, job.dest, job.key.path) == ("/from/f", "/to/f", "f")
    assert (job.digest, job.keep_times, job.adopt_partial, job.progress) == (True, True, "{name}.tmp", told.append)
    assert remote.manner == {"resume": False, "tick": manner.tick}
    list(carry_out(remote, up(step(Act.TRANSFER, "f")), Manner()))
    job = remote.jobs[-1]
    assert (job.digest, job.keep_times, job.adopt_partial, job.progress) == (False, False, None, None)
    assert remote.manner["resume"] is True


@pytest.mark.parametrize("direction", Direction)
def test_a_plan_without_files_asks_for_no_transfer(direction: Direction, tmp_path: Path) -> None:
    remote: Any = SimpleNamespace()
    assert list(carry_out(remote, TreePlan(direction), Manner())) == []


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_unless_every_file_has_its_outcome_all_were_stopped(most: int) -> None:
    plan = up(*(step(Act.TRANSFER, name) for name in "abc"))
    if most < 3:
        with pytest.raises(Cancelled):
            outcomes(Remote(most=most), plan)
    else:
        assert outcomes(Remote(most=most), plan) == [("a", ""), ("b", ""), ("c", "")]


@pytest.mark.parametrize("error", [PermissionDenied("no"), LocalStateError("no"), ConfigurationError("no")])
def test_an_error_of_one_file_is_told_with_it(error: TransferError) -> None:
    plan = up(step(Act.TRANSFER, "a"), step(Act.TRANSFER, "b"))
    assert outcomes(Remote({"/to/a": error}), plan) == [("a", "no"), ("b", "")]
    with pytest.raises(ServerBusy):
        outcomes(Remote({"/to/a": ServerBusy("later")}), plan)


# -- removals


def test_nothing_is_removed_unless_everything_arrived_and_that_is_told_once() -> None:
    removal, file = step(Act.REMOVE, "old"), step(Act.TRANSFER, "a")
    failed = [step(Act.FAIL, name, error=NameRefused("no")) for name in "xy"]
    remote = Remote()
    told = outcomes(remote, up(*failed, file, removal, dest="/to"))
    assert told == [
        ("x", "no"),
        ("y", "no"),
        ("a", ""),
        ("", "nothing was removed in /to: 2 names were not transferred"),
    ]
    assert remote.calls == []
    assert outcomes(remote, up(*failed)) == [("x", "no"), ("y", "no")]
    told = outcomes(remote, up(file, removal, dest="/to", prune_refused="too many"))
    assert told[-1] == ("", "nothing was removed in /to: too many")


def test_a_removal_that_is_refused_holds_up_no_other() -> None:
    remote = Remote({"/to/b": PermissionDenied("no"), "/to/gone": NotFound("gone")})
    removals = [step(Act.REMOVE, name) for name in ("a", "b", "gone")]
    told = outcomes(remote, up(*removals, step(Act.REMOVE_FOLDER, "d")))
    assert told == [("a", ""), ("b", "no"), ("gone", ""), ("d", "")]
    assert remote.calls == [("delete", f"/to/{name}") for name in ("a", "b", "gone")] + [("rmdir", "/to/d")]


def test_a_result_tells_what_was_removed_transferred_and_failed() -> None:
    error = PermissionDenied("no")
    taken = [
        StepResult(step(Act.REMOVE, "a")),
        StepResult(step(Act.REMOVE, "b"), error=error),
        StepResult(step(Act.REMOVE_FOLDER, "d")),
        StepResult(step(Act.MAKE_FOLDER, "m")),
    ]
    result = TreeResult(up(), tuple(taken))
    assert (result.removed, result.transferred, result.ok) == (["/to/a", "/to/d"], [], False)
    assert (result.failed, list(result)) == ([taken[1]], taken)
    with pytest.raises(PermissionDenied):
        result.raise_first()
    TreeResult(up(), (taken[0],)).raise_first()


@pytest.mark.parametrize("dest", ["A", "/A", "d/A"])
def test_both_names_are_looked_for_in_the_folder_that_holds_them(dest: str) -> None:
    asked: list[bytes] = []
    found = [SimpleNamespace(name="a"), SimpleNamespace(name="A")]
    remote: Any = SimpleNamespace(scan=lambda paths: asked.extend(paths) or [found], delete=lambda path: None)
    remove_remote(remote, Step(Act.REMOVE, "A", "", dest, "", clash="a"))
    assert asked == [{"A": b".", "/A": b"/", "d/A": b"d"}[dest]]


# -- downloads


def down(root: Path, *steps: tuple[Act, str, str], **more: Any) -> TreePlan:
    made = [Step(act, path, f"/from/{path}", str(root / path), "", clash=clash) for act, path, clash in steps]
    return TreePlan(Direction.DOWNLOAD, tuple(made), **more)


def test_where_a_folder_cannot_be_made_its_files_fail_with_the_reason_and_the_others_come(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("in the way")
    remote = Remote()
    plan = down(tmp_path, *((Act.TRANSFER, name, "") for name in ("d/x", "d/y", "e/z", "top")))
    told = outcomes(remote, plan)
    assert [path for path, _ in told] == ["d/x", "d/y", "e/z", "top"]
    assert [bool(error) for _, error in told] == [True, True, False, False]
    assert str(tmp_path / "d") in told[0][1]
    assert [job.source for job in remote.jobs] == ["/from/e/z", "/from/top"]
    assert (tmp_path / "e").is_dir()


def test_a_folder_that_stands_is_as_good_as_one_that_is_made_and_one_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    plan = down(tmp_path, *((Act.MAKE_FOLDER, name, "") for name in ("there", "file/x", "new/er")))
    assert [(path, bool(error)) for path, error in outcomes(Remote(), plan)] == [
        ("there", False),
        ("file/x", True),
        ("new/er", False),
    ]
    assert (tmp_path / "new/er").is_dir()


def test_a_file_may_go_into_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = TreePlan(Direction.DOWNLOAD, (Step(Act.TRANSFER, "f", "/from/f", "f", ""),))
    assert outcomes(Remote(), plan) == [("f", "")]


def test_names_that_may_be_one_wait_until_the_others_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Any] = {"B": False, "C": True, "D": OSError(errno.EIO, "broken"), "E": False}

    def hidden(dest: str, path: str) -> bool:
        assert dest == str(tmp_path / path)
        if isinstance(answers[path], OSError):
            raise answers[path]
        return bool(answers[path])

    monkeypatch.setattr(carrying, "hidden_by_case", hidden)
    remote = Remote()
    clashing = [(Act.TRANSFER, name, name.lower()) for name in "BCD"]
    plan = down(tmp_path, *clashing, (Act.MAKE_FOLDER, "E", "e"), (Act.TRANSFER, "a", ""), (Act.MAKE_FOLDER, "m", ""))
    told = outcomes(remote, plan)
    assert [path for path, _ in told] == ["m", "a", "B", "C", "D", "E"]
    assert [job.source for job in remote.jobs] == ["/from/a", "/from/B"]
    assert told[3][1].endswith("C differs from c only in case or dots at the end, and here both are one name")
    assert "broken" in told[4][1]
    assert (tmp_path / "E").is_dir()


# -- one name here


@pytest.fixture(params=["by descriptors", "by paths"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by paths":  # as on Windows
        monkeypatch.setattr(os, "supports_dir_fd", set())
    return str(request.param)


def removal(root: Path, path: str, act: Act = Act.REMOVE, clash: str = "") -> Callable[[], None]:
    return lambda: remove_local(str(root), Step(act, path, "", str(root / path), "", clash=clash))


def test_a_file_an_empty_folder_and_a_link_are_removed_and_a_full_folder_is_not(tmp_path: Path, way: str) -> None:
    for name in ("d/f", "full/f"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("full")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for path, act in (("d/f", Act.REMOVE), ("d", Act.REMOVE_FOLDER), ("link", Act.REMOVE), ("gone", Act.REMOVE)):
        removal(tmp_path, path, act)()
    with pytest.raises((PermanentError, LocalStateError), match="full"):
        removal(tmp_path, "full", Act.REMOVE_FOLDER)()
    with pytest.raises((PermanentError, LocalStateError), match="full"):
        removal(tmp_path, "full")()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/f"]
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("names", "is_removed"), [(("a", "A"), True), (("A",), False)])
def test_a_name_that_differs_in_case_is_removed_only_where_both_are_there(
    tmp_path: Path, way: str, names: tuple[str, ...], is_removed: bool
) -> None:
    (tmp_path / "d").mkdir()
    for name in names:
        (tmp_path / "d" / name).write_text("")
    if is_removed:
        removal(tmp_path, "d/A", clash="d/a")()
    else:
        with pytest.raises(PermanentError, match="are one name on this file system"):
            removal(tmp_path, "d/A", clash="d/a")()
    assert (tmp_path / "d/A").exists() is not is_removed


def test_nothing_is_removed_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "treasure").mkdir()
    (tmp_path / "treasure/f").write_text("")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/way").symlink_to("../treasure")
    (tmp_path / "other").symlink_to("treasure")
    for root, path in ((tmp_path / "root", "way/f"), (tmp_path / "other", "f")):
        with contextlib.suppress(PermanentError, LocalStateError):
            removal(root, path)()
    assert (tmp_path / "treasure/f").exists()
