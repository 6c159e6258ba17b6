"""The hash of a file's content, computed in steps before the file is queued."""

import hashlib
import os
from types import SimpleNamespace

import pytest

from iot.spooler.outbox import content as module
from iot.spooler.outbox.content import FILE_BYTES, PAGE, STEP_BYTES, Hashing, hashless
from iot.spooler.outbox.place import open_file
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import NewEntry
from iot.transfer import Fingerprint


@pytest.fixture
def hashing(tmp_path):
    hashing = Hashing(lambda: os.open(tmp_path, os.O_RDONLY))
    yield hashing
    hashing.close()


def entry(tmp_path, name, content=b""):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return NewEntry(1, os.fsencode(name), Fingerprint.of(os.stat(path)), False, 5, 0, 100.0)


def test_small_files_are_hashed_together_and_a_large_one_in_steps(tmp_path, hashing):
    content = {"a": b"one", "sub/b": b"", "large": os.urandom(2 * STEP_BYTES + 1)}
    entries = [entry(tmp_path, *item) for item in content.items()]
    hashing.add(entries)
    steps = []
    while len(hashing):
        steps.append(hashing.step())
    assert [[each.path for each in done] for done, _ in steps] == [[b"a", b"sub/b"], [], [b"large"]]
    hashes = {os.fsdecode(each.path): each.hash8 for done, _ in steps for each in done}
    assert hashes == {name: hashlib.sha256(value).hexdigest()[:8] for name, value in content.items()}
    assert not any(lost for _, lost in steps)


def test_a_file_that_changes_goes_or_becomes_a_link_is_not_named_and_holds_up_no_other(tmp_path, hashing):
    hashing.add([entry(tmp_path, name, b"x") for name in ("changed", "gone", "link", "good")])
    (tmp_path / "changed").write_bytes(b"other")
    (tmp_path / "gone").unlink()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("good")
    done, lost = hashing.step()
    assert [each.path for each in done] == [b"good"]
    assert lost == [b"changed", b"gone", b"link"]
    assert not len(hashing)


def test_a_file_that_changes_between_two_steps_is_not_named(tmp_path, hashing):
    large = entry(tmp_path, "large", bytes(STEP_BYTES + 1))
    hashing.add([large])
    assert hashing.step() == ([], [])
    assert hashing.has(b"large")
    with (tmp_path / "large").open("r+b") as file:
        file.write(b"x")
    os.utime(tmp_path / "large", (1, 1))
    assert hashing.step() == ([], [b"large"])


def test_no_descriptor_is_left_open(tmp_path, hashing):
    before = len(os.listdir("/proc/self/fd"))
    hashing.add([entry(tmp_path, "large", bytes(STEP_BYTES + 1)), entry(tmp_path, "other", b"x")])
    hashing.step()
    hashing.close()
    assert not len(hashing)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("state", "unanswered", "hash8", "meant"),
    [(State.READY, 0, None, True), (State.WAITING, 0, None, True), (State.READY, 0, "0123abcd", False),
     (State.SENDING, 0, None, False), (State.DELIVERED, 0, None, False), (State.WAITING, 1, None, False)],
)  # fmt: skip
def test_only_what_has_no_hash_and_may_not_have_been_published_is_named_anew(state, unanswered, hash8, meant):
    rows = [
        SimpleNamespace(id=number, state=state, unanswered=unanswered, hash8=hash8) for number in range(1, PAGE + 2)
    ]
    pages = SimpleNamespace(page=lambda outbox, after_id, most: [row for row in rows if row.id > after_id][:most])
    assert hashless(pages, 1) == (rows if meant else [])


def test_no_more_files_are_opened_in_a_step_than_it_has_room_for(tmp_path, hashing, monkeypatch):
    opened = []
    monkeypatch.setattr(module, "open_file", lambda root, path: opened.append(path) or open_file(root, path))
    most = STEP_BYTES // FILE_BYTES
    hashing.add([entry(tmp_path, f"{number:03}") for number in range(most + 1)])
    done, _ = hashing.step()
    assert len(done) == len(opened) == most
    done, _ = hashing.step()
    assert [each.path for each in done] == [b"%03d" % most]
