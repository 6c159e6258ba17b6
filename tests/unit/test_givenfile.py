"""Files that a user names: what is no regular file is refused in words, and nothing blocks or stays open."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from iot.transfer.givenfile import check_readable, exposure, read_text_once


@pytest.mark.parametrize(
    ("kind", "words"), [("folder", "is a folder"), ("pipe", "is a pipe"), ("device", "is a device")]
)
def test_what_is_no_regular_file_is_refused_in_words_and_not_waited_for(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "given"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    for read in (check_readable, read_text_once):
        with pytest.raises(OSError, match=f"{words}, not a regular file"):
            read(path)


def test_a_file_and_the_empty_device_are_read(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("täxt", encoding="utf-8")
    check_readable(tmp_path / "given")
    assert read_text_once(tmp_path / "given") == "täxt"
    assert read_text_once(Path("/dev/null")) == ""
    with pytest.raises(FileNotFoundError):
        check_readable(tmp_path / "missing")


def test_a_pipe_that_the_shell_has_handed_over_is_read_to_its_end() -> None:
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "w") as file:
            file.write("secret")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert read_text_once(Path(f"/dev/fd/{reader}")) == "secret"
    finally:
        thread.join()
        os.close(reader)


@pytest.mark.parametrize(
    ("mode", "exposed"),
    [(0o600, False), (0o400, False), (0o700, False), (0o640, True), (0o604, True), (0o610, True), (0o601, True)],
)
def test_a_secret_that_others_may_read_is_told_with_the_way_to_mend_it(
    tmp_path: Path, mode: int, exposed: bool
) -> None:
    path = tmp_path / "a secret"
    path.touch()
    path.chmod(mode)
    told = f"may be read by others (mode {mode:04o}): chmod 600 '{path}'"
    assert exposure(path) == (told if exposed else "")


def test_what_is_no_secret_of_ours_is_not_ours_to_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    assert exposure(path) == ""  # told where it is read
    path.touch(mode=0o644)
    path.chmod(0o644)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert exposure(Path("~/secret")).endswith("chmod 600 '~/secret'")
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        assert exposure(path) == ""
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", str(b"nt", "ascii"))
        found = exposure(path)
    assert found == ""
    assert exposure(tmp_path) == ""


def test_a_pipe_is_refused_where_it_must_be_read_more_than_once() -> None:
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="is a pipe, not a regular file"):
        check_readable(Path(f"/dev/fd/{reader}"))
    os.close(reader)
    os.close(writer)
