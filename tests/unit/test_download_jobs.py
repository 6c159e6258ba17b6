"""What a download is asked for: refused before anything is fetched where it could not be kept or proven."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from iot.sftp.client.settings import ClientOptions
from iot.transfer.errors import ConfigurationError
from iot.transfer.landing import download_task
from iot.transfer.model import DownloadJob, Proof

DIGEST = "ab" * 32


class OneWay(io.BytesIO):
    """An open file that lacks one ability."""

    def __init__(self, lacks: str) -> None:
        super().__init__()
        setattr(self, lacks, lambda: False)


def asked(dest: Any, sha256: bool | str = False, *, times: bool = False, **options: Any) -> Any:
    return download_task(DownloadJob("/f", dest, sha256=sha256, keep_times=times), ClientOptions(**options))


@pytest.mark.parametrize("lacks", ["writable", "seekable"])
def test_an_open_file_that_cannot_take_blocks_in_any_order_is_refused(lacks: str) -> None:
    with pytest.raises(ConfigurationError, match="writable and seekable"):
        asked(OneWay(lacks))


@pytest.mark.parametrize("option", ["keep_times", "keep_mode"])
def test_an_open_file_has_no_times_or_mode_to_keep(option: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=option):
        asked(io.BytesIO(), **{option: True})
    assert asked(tmp_path / "f", **{option: True}).dest == os.fspath(tmp_path / "f")


def test_a_single_job_can_ask_for_the_times_of_its_file(tmp_path: Path) -> None:
    assert asked(tmp_path / "f", times=True).keep_times
    with pytest.raises(ConfigurationError, match="keep_times"):
        asked(io.BytesIO(), times=True)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w+") as file, pytest.raises(ConfigurationError, match="an open binary file"):
        asked(file)


def test_a_closed_file_is_refused() -> None:
    file = io.BytesIO()
    file.close()
    with pytest.raises(ConfigurationError, match="closed already"):
        asked(file)


@pytest.mark.parametrize(
    ("sha256", "options"),
    [
        (True, {}),
        (DIGEST, {}),
        (False, {"sidecar": True}),
        (False, {"proof": Proof.TAIL}),
        (False, {"proof": Proof.FULL}),
    ],
)
def test_an_open_file_that_cannot_be_read_is_refused_only_where_it_is_to_be_proven(
    sha256: bool | str, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="not readable"):
        asked(OneWay("readable"), sha256, **options)
    assert asked(io.BytesIO(), sha256, **options).source == b"/f"
    assert asked(OneWay("readable")).expected_sha256 is None


def test_an_expected_hash_is_64_hex_digits_of_either_case() -> None:
    assert asked("f", DIGEST.upper()).expected_sha256 == DIGEST
    assert asked("f", True).expected_sha256 is None
    for wrong in (DIGEST[1:], DIGEST + "a", "x" * 64, ""):
        with pytest.raises(ConfigurationError, match="64 hex digits"):
            asked("f", wrong)
