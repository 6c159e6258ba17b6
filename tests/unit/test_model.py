"""The values that modules hand to each other: what they are when nothing is said, and how they are kept and shown."""

from __future__ import annotations

import dataclasses
import stat
from types import SimpleNamespace
from typing import Any

import pytest

from iot.transfer.errors import Cancelled, ConfigurationError
from iot.transfer.model import (
    Checkpoint,
    Direction,
    DownloadJob,
    Fingerprint,
    IfExists,
    Phase,
    Progress,
    Proof,
    RemoteEntry,
    RemoteFile,
    Span,
    Token,
    TransferResult,
    UploadJob,
    check_partial_name,
)
from iot.transfer.remote_commands import NO_COMMANDS

INT64 = range(-(2**63), 2**63)


def given(value: Any) -> dict[str, Any]:
    """Its fields without the functions."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: each for name, each in fields.items() if not callable(each)}


def test_an_upload_asks_for_nothing_that_is_not_said() -> None:
    plain = dict.fromkeys(["key", "fingerprint", "progress", "sent_before", "part_suffix", "share", "adopt_partial"])
    off = dict.fromkeys(["check_final", "grace", "digest", "keep_times", "ignores_case"], False)
    more = {"priority": 0, "if_exists": IfExists.OVERWRITE, "alternatives": (), "commands": NO_COMMANDS}
    job = UploadJob("here", "there")
    assert given(job) == {"source": "here", "dest": "there", **plain, **off, **more}
    assert job.suspended() is False


def test_a_download_asks_for_nothing_that_is_not_said() -> None:
    off = dict.fromkeys(["sha256", "keep_times", "sidecar"], False)
    job = DownloadJob("there", "here")
    assert given(job) == {"source": "there", "dest": "here", "key": None, "progress": None, **off}
    assert job.suspended() is False


def test_a_result_claims_nothing_that_is_not_known() -> None:
    result = TransferResult("a", "b", 1, 1, 0, 0.1, None)
    known = {"source": "a", "dest": "b", "size": 1, "sent_bytes": 1, "resumed_at": 0, "seconds": 0.1, "proof": None}
    off = dict.fromkeys(["durable", "already_done", "possible_repeat", "skipped"], False)
    none = dict.fromkeys(["sha256", "key", "fingerprint", "evidence"])
    assert given(result) == {**known, **off, **none, "local_path": b"", "published_as": ""}
    assert Progress("a", 1, 2).resumed_at == 0


def test_jobs_are_the_same_whoever_watches_them() -> None:
    for kind in (UploadJob, DownloadJob):
        watched = kind("a", "b", progress=print, suspended=lambda: True)
        assert watched == kind("a", "b")
        assert watched != kind("a", "c")


def test_a_suspended_upload_says_that_what_was_sent_is_kept() -> None:
    UploadJob("a", "b").check_suspended()
    with pytest.raises(Cancelled, match="suspended; what was sent is kept for a resume"):
        UploadJob("a", "b", suspended=lambda: True).check_suspended()


@pytest.mark.parametrize(("proof", "word"), [(None, "none"), *((proof, proof.value) for proof in Proof)])
def test_a_proof_has_a_word(proof: Proof | None, word: str) -> None:
    assert TransferResult("a", "b", 1, 1, 0, 0.1, proof).proven == word


# -- what a job refuses


def test_what_to_do_with_another_file_may_be_said_in_words() -> None:
    assert UploadJob("a", "b", if_exists="skip").if_exists is IfExists.SKIP  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="one of overwrite, skip, fail, rename \\(got 'keep'\\)"):
        UploadJob("a", "b", if_exists="keep")  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["{name}", "{name}.filepart", ".{name}~"])
def test_the_name_of_anothers_part_holds_the_files_name_once(pattern: str) -> None:
    check_partial_name(pattern)
    assert UploadJob("a", "b", adopt_partial=pattern).adopt_partial == pattern


@pytest.mark.parametrize("pattern", ["", "part", "{name}{name}", "d/{name}", "{name}\0"])
def test_a_name_that_is_none_is_refused_for_anothers_part(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a name with \{name\} in it, such as \{name\}.filepart"):
        check_partial_name(pattern)
    with pytest.raises(ConfigurationError, match=r"^adopt_partial: must be a name with \{name\} in it, .* \(got '"):
        UploadJob("a", "b", adopt_partial=pattern)


# -- versions


def test_a_version_is_the_size_the_times_and_the_inode() -> None:
    status: Any = SimpleNamespace(st_size=1, st_mtime_ns=2, st_ctime_ns=3, st_ino=4)
    assert Fingerprint.of(status) == Fingerprint(1, 2, 3, 4)
    assert Fingerprint(1, 2) == Fingerprint(1, 2, 0, 0)


def test_a_version_looks_like_another_by_size_and_time_alone() -> None:
    version = Fingerprint(1, 2, 3, 4)
    assert version.looks_like(Fingerprint(1, 2, 9, 9))
    for other in (version._replace(size=0), version._replace(size=2), version._replace(mtime_ns=1)):
        assert not version.looks_like(other)
        assert not other.looks_like(version)


@pytest.mark.parametrize("inode", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("time_ns", [-(2**63) - 1, -(2**63), -1, 0, 2**63 - 1, 2**63, 2**93])
def test_any_version_fits_into_a_row(inode: int, time_ns: int) -> None:
    version = Fingerprint(1, time_ns, -time_ns, inode)
    size, mtime, ctime, number = version.columns()
    assert all(isinstance(each, bytes) or each in INT64 for each in (size, mtime, ctime, number))
    assert isinstance(mtime, int) is (time_ns in INT64)
    assert {len(each) for each in (mtime, ctime) if isinstance(each, bytes)} <= {12}
    assert Fingerprint.from_columns(size, mtime, ctime, number) == version


# -- small things


def test_a_token_is_never_shown() -> None:
    token = Token(b"secret")
    assert f"{token} {token!r}" == "Token(6 bytes) Token(6 bytes)"
    assert token == b"secret"


@pytest.mark.parametrize(
    ("mode", "folder"),
    [(None, False), (0o755, False), (stat.S_IFDIR, True), (stat.S_IFDIR | 0o755, True), (stat.S_IFREG, False)],
)
def test_an_entry_is_a_folder_where_the_server_says_so(mode: int | None, folder: bool) -> None:
    entry = RemoteEntry("name", RemoteFile(None, None, mode))
    assert (entry.is_folder, entry.is_link) == (folder, False)


def test_a_span_is_as_long_as_what_lies_between_its_ends() -> None:
    assert [Span(2, 5).length, Span(0, 5).length, Span(5, 5).length] == [3, 5, 0]


def test_an_upload_begins_by_sending() -> None:
    begun = Checkpoint(Direction.UPLOAD, b"/d", b"s", Token(b"p"), Fingerprint(1, 2))
    assert (begun.acked_bytes, begun.synced_bytes, begun.suspect) == (0, 0, ())
    assert (begun.phase, begun.published_as) == (Phase.SENDING, None)
