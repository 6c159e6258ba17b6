"""Files that a user names: what is no regular file is refused in words, and nothing blocks or stays open."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from iot.transfer.givenfile import check_readable, read_text_once


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
