"""The settings as plain values: the same defaults, and every value where it belongs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from iot.transfer.capabilities import Capabilities, Publish, Resume
from iot.transfer.model import UploadJob
from iot.transfer.options import TransferOptions
from iot.transfer.remote_commands import Verb
from iot.transfer.settings import TransferSettings


class Settings(TransferSettings):
    """As a remote has them."""


def test_the_defaults_of_the_plain_values_are_those_of_the_settings() -> None:
    assert asdict(Settings().plain("")) == asdict(TransferOptions())


def test_what_only_one_remote_has_is_off_and_an_upload_is_resumed() -> None:
    plain = TransferOptions()
    assert (plain.direct_write, plain.sha256, plain.resume, plain.chunk_size) == (False, False, True, None)


@pytest.mark.parametrize("verify", ["size", "timestamp", "tail", "full"])
@pytest.mark.parametrize(("durability", "trust"), [("trust", True), ("fsync", False)])
def test_the_words_of_the_settings_are_values(verify: str, durability: str, trust: bool) -> None:
    plain = Settings(verify=verify, server_durability=durability, keep_mode=True, tail_size=7).plain("owner")  # type: ignore[arg-type]
    assert (plain.verify, plain.trust, plain.keep_mode, plain.tail_size) == (verify, trust, True, 7)
    assert type(plain.verify) is str


def test_the_owner_is_the_state_directory_and_the_tag_behind_it() -> None:
    assert Settings(owner_tag="-gw1").plain("0123").owner == "0123-gw1"


@pytest.mark.parametrize(
    ("name", "of_the_job", "suffix"),
    [("owned", None, None), ("owned", ".tmp", ".tmp"), ("exact", None, ".p"), ("exact", ".tmp", ".tmp")],
)
def test_a_part_has_an_exact_name_if_the_settings_or_the_job_say_so(
    name: str, of_the_job: str | None, suffix: str | None
) -> None:
    plain = Settings(part_name=name, part_suffix=".p").plain("")  # type: ignore[arg-type]
    assert plain.exact_suffix(UploadJob("a", "b", part_suffix=of_the_job)) == suffix


def test_settings_take_what_lies_at_their_limits(tmp_path: Path) -> None:
    least = {"attempts": 1, "backoff_s": 0, "backoff_cap_s": 0, "tail_size": 1, "publish_grace_s": 0}
    settings = Settings(**least, checkpoint_bytes=64 * 1024, part_suffix="s" * 32, state_dir=tmp_path)  # type: ignore[arg-type]
    assert settings.model_dump(include=set(least)) == least
    for name, value in {**least, "checkpoint_bytes": 64 * 1024, "checkpoint_s": 1, "stale_part_s": 1}.items():
        with pytest.raises(ValueError, match=name):
            Settings(**{name: value - 1})
    for suffix in ("", "a/b", "a\0", "s" * 33):
        with pytest.raises(ValueError, match="must be 1 to 32 characters without a slash"):
            Settings(part_suffix=suffix)


def test_a_remote_of_which_nothing_more_is_known_replaces_and_reads_back_over_four_connections() -> None:
    usual = Capabilities(Resume.OFFSET, Publish.RENAME)
    assert (usual.replaces, usual.reads_back, usual.named_tokens, usual.connections) == (True, True, True, 4)
    assert (usual.creates_only, usual.durable, usual.keeps_times, usual.hashes) == (False, False, False, ())
    assert (usual.write_bytes, usual.write_multiple, usual.token_life_s) == (None, 1, None)
    assert usual.block_bytes == 256 * 1024
    assert usual.commands == frozenset(Verb)
