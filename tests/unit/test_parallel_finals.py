"""Under which of its names a file stands on a store: only the content tells, and what commands took away is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from iot.transfer.errors import AlreadyExists
from iot.transfer.model import IfExists, RemoteEntry, RemoteFile, UploadJob
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.finals import Finals, Taken
from iot.transfer.parallel.work import Desk
from iot.transfer.remote import Capabilities, Meta, Publish, Resume, Token
from iot.transfer.source import Source
from iot.transfer.stop import StopFlag

CONTENT = b"content"
NAMES = ("a", "b", "c")


class Store:
    """files: by path. published: with which name, and whether it might replace."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.encode(): content for name, content in files.items()}
        self.published: list[tuple[bytes, bool]] = []
        self.listed: list[bytes] = []
        self.capabilities = Capabilities(resume=Resume.OFFSET, publish=Publish.RENAME)

    def stat(self, path: bytes) -> RemoteFile | None:
        return RemoteFile(len(self.files[path])) if path in self.files else None

    def read(self, path: bytes, offset: int) -> Iterator[bytes]:
        yield self.files[path][offset:]

    def list(self, path: bytes) -> Iterator[RemoteEntry]:
        self.listed.append(path)
        return iter([RemoteEntry("File", RemoteFile(1)), RemoteEntry("other", RemoteFile(1))])

    def publish(self, token: bytes, dest: bytes, meta: Meta, *, replace: bool) -> bool:
        self.published.append((dest, replace))
        if not replace and dest in self.files:
            raise AlreadyExists("there")
        return True


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "f").write_bytes(CONTENT)
    with closing(Source(tmp_path / "f")) as source:
        yield source


def finals(source: Source, policy: IfExists = IfExists.RENAME, dest: str = "a", **job: object) -> Finals:
    others = NAMES[1:] if policy is IfExists.RENAME else ()
    return Finals(UploadJob("f", dest, if_exists=policy, alternatives=others, **job), source)  # type: ignore[arg-type]


def desk() -> Desk:
    return Desk(lambda _: None, lambda _: None, lambda: 0.0, StopFlag())


@pytest.mark.parametrize(
    ("files", "is_there", "ours"),
    [
        ({}, False, None),
        ({"b": CONTENT}, True, b"b"),
        ({"a": b"another", "c": CONTENT}, True, b"c"),
        ({"a": b"another"}, True, None),
        ({"a": CONTENT + b"x", "b": CONTENT[:-1]}, False, None),
    ],
)
def test_ours_is_the_first_with_the_whole_content(source, files, is_there, ours):
    store, names = Store(**files), finals(source)
    assert names.of_this_size(store) == (RemoteFile(len(CONTENT)) if is_there else None)
    assert names.ours(desk(), store) == ours


@pytest.mark.parametrize(
    ("number", "files", "name"),
    [
        (0, {"a": CONTENT}, b"a"),
        (1, {"a": b"another", "b": CONTENT}, b"b"),
        (2, {"a": CONTENT, "b": CONTENT}, b"c"),  # commands have taken it away
        (0, {"a": b"another", "b": CONTENT}, None),
        (0, {"a": CONTENT + b"x"}, None),
        (0, {"a": CONTENT[:-1]}, None),
        (3, {"a": CONTENT}, None),
    ],
)
def test_the_name_that_it_got_is_its_own_unless_another_file_has_it_now(source, number, files, name):
    assert finals(source).published(desk(), Store(**files), number) == name


def test_each_name_has_its_number(source):
    names = finals(source)
    assert [names.number(name.encode()) for name in (*NAMES, "none")] == [0, 1, 2, 0]


@pytest.mark.parametrize(("policy", "asks"), [(IfExists.SKIP, True), (IfExists.FAIL, True), (IfExists.RENAME, False),
                                              (IfExists.OVERWRITE, False)])  # fmt: skip
def test_only_who_would_send_for_nothing_asks_first(source, policy, asks):
    names = finals(source, policy)
    names.check_free(Store())
    if asks:
        with pytest.raises(Taken if policy is IfExists.SKIP else AlreadyExists):
            names.check_free(Store(a=b"theirs"))
    else:
        names.check_free(Store(a=b"theirs"))


def test_the_first_free_name_is_taken_and_where_none_is_free_that_is_told(source):
    store = Store(a=b"theirs")
    assert finals(source).publish(store, Token(b"t"), Meta(b"t"), TransferOptions()) == (b"b", True)
    assert store.published == [(b"a", False), (b"b", False)]
    with pytest.raises(AlreadyExists, match=r"'a' exists \(and so does each name to use instead\), and is not to be"):
        finals(source).publish(Store(a=b"", b=b"", c=b""), Token(b"t"), Meta(b"t"), TransferOptions())
    with pytest.raises(AlreadyExists, match="'a' exists, and is not to be replaced"):
        finals(source, IfExists.FAIL).publish(Store(a=b""), Token(b"t"), Meta(b"t"), TransferOptions())


@pytest.mark.parametrize(
    ("ignores_case", "stands", "dest", "name", "listed"),
    [
        (True, True, "file", b"File", [b"."]),
        (True, True, "/up/file", b"/up/File", [b"/up"]),
        (True, False, "file", b"file", []),
        (False, True, "file", b"file", []),
    ],
)
def test_what_is_replaced_keeps_its_spelling_where_case_does_not_count(
    source, ignores_case, stands, dest, name, listed
):
    store = Store()
    if stands:
        store.files[dest.encode()] = b"old"
    names = finals(source, IfExists.OVERWRITE, dest, ignores_case=ignores_case)
    assert names.publish(store, Token(b"t"), Meta(b"t"), TransferOptions()) == (name, True)
    assert (store.published, store.listed) == ([(name, True)], listed)
