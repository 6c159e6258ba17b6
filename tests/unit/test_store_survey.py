"""How an upload over a store starts: what the far side is asked for, and what is made of its answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iot.transfer.errors import PermissionDenied
from iot.transfer.model import Checkpoint, Direction, IfExists, Phase, RemoteFile, Span, UploadJob
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.finals import Finals
from iot.transfer.parallel.survey import alike_bytes, partial_of, survey, taken_over
from iot.transfer.parallel.work import Desk
from iot.transfer.plan import Fresh, ProveFinal, ResumeAt
from iot.transfer.remote import Capabilities, Gone, Offset, Publish, Published, Resume, Token
from iot.transfer.source import Source
from iot.transfer.stop import StopFlag

CONTENT = bytes(range(100))
PART = Token(b"f.part")
ABLE = Capabilities(resume=Resume.OFFSET, publish=Publish.RENAME)


class Store:
    """standing: of the part. found: what `stat` says of a path; an exception is raised. asked: in order."""

    def __init__(self, standing: Any = None, found: dict[bytes, Any] | None = None, **able: Any) -> None:
        self.standing, self.found, self.capabilities = standing, found or {}, replace(ABLE, **able)
        self.content, self.asked = CONTENT, []

    def where(self, token: Token) -> Any:
        assert token == PART
        self.asked.append("where")
        return self.standing

    def stat(self, path: bytes) -> RemoteFile | None:
        self.asked.append("stat")
        found = self.found.get(path)
        if isinstance(found, Exception):
            raise found
        return found

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        yield self.content[offset:]

    def move(self, source: bytes, dest: bytes, *, make_dirs: bool) -> None:
        self.asked.append(f"move {make_dirs}")
        if isinstance(self.standing, Exception):
            raise self.standing


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "f").write_bytes(CONTENT)
    with closing(Source(tmp_path / "f")) as source:
        yield source


def known(source: Source, acked: int = 40, phase: Phase = Phase.SENDING, token: Token = PART) -> Checkpoint:
    version = source.fingerprint
    return Checkpoint(Direction.UPLOAD, b"f", source.path, token, version, acked, acked, (), phase)


def step(
    store: Store, source: Source, found: Checkpoint | None, *, shared: bool = False, trust: bool = False, **job: Any
) -> Any:
    asked = UploadJob(os.fsdecode(source.path), "f", **job)
    return survey(store, asked, source, found, Finals(asked, source), TransferOptions(trust=trust), shared=shared)  # type: ignore[arg-type]


ALIKE = {b"f": RemoteFile(100)}


def test_where_nothing_is_on_record_the_far_side_is_only_asked_for_what_may_stand_there(source):
    store = Store(found=ALIKE)
    assert step(store, source, None) == Fresh()
    assert store.asked == []
    assert step(store, source, None, check_final=True) == ProveFinal(Fresh())
    assert step(store, source, None, adopt_partial="{name}") == ProveFinal(Fresh())
    store.asked.clear()
    assert step(store, source, None, adopt_partial="{name}.filepart") == Fresh()
    assert store.asked == []


def test_a_part_is_gone_on_with_as_far_as_the_record_and_the_far_side_say(source):
    assert step(Store(Offset(40)), source, known(source)) == ResumeAt(40, (), 40)
    assert step(Store(Offset(70)), source, known(source)) == ResumeAt(70, (Span(40, 70),), 40)
    assert step(Store(Gone()), source, known(source)) == Fresh()
    store = Store(Offset(40))
    assert step(store, source, known(source, token=Token())) == Fresh()
    assert "where" not in store.asked


def test_where_the_far_side_is_trusted_all_that_stands_there_is_taken(source):
    assert step(Store(Offset(70)), source, known(source), trust=True) == ResumeAt(70, (), 40)
    assert step(Store(Offset(30)), source, known(source), trust=True) == ResumeAt(30, (), 30)
    assert step(Store(Gone()), source, known(source), trust=True) == Fresh()


def test_a_part_that_another_device_could_have_too_is_read_back_whole(source):
    assert step(Store(Offset(40)), source, known(source), shared=True) == ResumeAt(40, (Span(0, 40),), 40)


def test_where_nothing_can_be_gone_on_with_it_is_begun_anew(source):
    assert step(Store(Offset(40), resume=Resume.NONE), source, known(source)) == Fresh()
    store = Store(Gone(), resume=Resume.NONE)
    assert step(store, source, known(source, phase=Phase.PUBLISHING)) == Fresh(possible_repeat=True)


def test_what_cannot_be_read_back_is_sent_again(source):
    assert step(Store(Offset(70), reads_back=False), source, known(source)) == ResumeAt(40, (), 40)


@pytest.mark.parametrize("standing", [Published(), Gone()])
@pytest.mark.parametrize("stands", [True, False])
def test_a_part_that_is_published_may_be_the_file_that_stands_there(source, standing, stands):
    phase = Phase.SENDING if isinstance(standing, Published) else Phase.PUBLISHING
    again = Fresh(possible_repeat=True)
    found = step(Store(standing, ALIKE if stands else {}), source, known(source, 100, phase))
    assert found == (ProveFinal(again) if stands else again)


@pytest.mark.parametrize(
    ("policy", "phase", "stands", "is_proven"),
    [
        (IfExists.FAIL, Phase.PUBLISHING, True, True),
        (IfExists.FAIL, Phase.PUBLISHING, False, False),
        (IfExists.FAIL, Phase.SENDING, True, False),
        (IfExists.OVERWRITE, Phase.PUBLISHING, True, False),
    ],
)
def test_a_part_and_a_file_may_be_one_where_nothing_is_replaced(source, policy, phase, stands, is_proven):
    store = Store(Offset(100), ALIKE if stands else {})
    found = step(store, source, known(source, 100, phase), if_exists=policy)
    on = ResumeAt(100, (), 100)
    assert found == (ProveFinal(on) if is_proven else on)


# -- what another program has left


@pytest.mark.parametrize(
    ("able", "options", "pattern", "partial"),
    [
        ({}, {}, "{name}.x", b"f.x"),
        ({}, {}, None, None),
        ({}, {"resume": False}, "{name}.x", None),
        ({"resume": Resume.NONE}, {}, "{name}.x", None),
        ({"publish": Publish.LAST_BYTE}, {}, "{name}.x", None),
        ({"reads_back": False}, {}, "{name}.x", None),
    ],
)
def test_it_is_looked_for_only_where_it_could_be_gone_on_with(able, options, pattern, partial):
    job = UploadJob("f", "f", adopt_partial=pattern)
    assert partial_of(job, Store(**able), TransferOptions(**options)) == partial  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "content", "size"),
    [
        (None, CONTENT, 0),
        (RemoteFile(50), CONTENT, 50),
        (RemoteFile(50, 1, 0o100600), CONTENT, 50),
        (RemoteFile(50, 1, 0o040700), CONTENT, 0),
        (RemoteFile(50, 1, 0o120777), CONTENT, 0),
        (RemoteFile(None), CONTENT, 0),
        (RemoteFile(0), CONTENT, 0),
        (RemoteFile(1), CONTENT, 1),
        (RemoteFile(100), CONTENT, 100),
        (RemoteFile(101), CONTENT + b"x", 0),
        (RemoteFile(50), b"?" + CONTENT[1:], 0),
        (RemoteFile(50), CONTENT[:49], 0),
        (PermissionDenied("no"), CONTENT, 0),
    ],
)
def test_only_a_regular_file_that_is_a_beginning_of_the_source_counts(source, there, content, size):
    store = Store(found={b"partial": there})
    store.content = content
    desk = Desk(lambda _: None, lambda _: None, lambda: 0.0, StopFlag())
    assert alike_bytes(desk, store, b"partial", source) == size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("partial", "refusal", "there", "is_ours", "asked"),
    [
        (b"p", None, RemoteFile(50), True, ["move False", "stat"]),
        (b"f.part", None, RemoteFile(50), True, ["stat"]),
        (b"p", None, RemoteFile(None), True, ["move False", "stat"]),
        (b"p", None, RemoteFile(51), False, ["move False", "stat"]),
        (b"p", None, None, False, ["move False", "stat"]),
        (b"p", PermissionDenied("no"), RemoteFile(50), False, ["move False"]),
        (b"p", None, PermissionDenied("no"), False, ["move False", "stat"]),
    ],
)
def test_it_is_ours_once_it_has_our_name_and_still_its_size(partial, refusal, there, is_ours, asked):
    store = Store(refusal, {b"f.part": there})
    assert taken_over(store, partial, b"f.part", 50) is is_ours  # type: ignore[arg-type]
    assert store.asked == asked
