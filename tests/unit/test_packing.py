"""Files that are sent compressed: once, from the state directory, under a name that says so, and only where it pays."""

from __future__ import annotations

import gzip
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from unit.packing_rig import KIB, NOISE, TEXT, PackingRig, begun

from iot.spooler.agent.draining import End
from iot.spooler.compression import folder as folders
from iot.spooler.compression import packer as packers
from iot.spooler.compression.codecs import pays, writer
from iot.spooler.config.packed import Compression, is_packed, zstd_library

KINDS = pytest.mark.parametrize("kind", list(Compression))


def unpacked(kind: Compression, content: bytes) -> bytes:
    if kind is Compression.GZIP:
        return gzip.decompress(content)
    library = zstd_library()
    if library.__name__ == "zstandard":
        return library.ZstdDecompressor().decompressobj().decompress(content)
    return library.decompress(content)


@pytest.fixture
def rig(tmp_path: Path) -> PackingRig:
    return PackingRig(tmp_path)


# -- what is compressed


@KINDS
def test_a_file_arrives_compressed_under_the_name_that_says_so(tmp_path: Path, kind: Compression) -> None:
    rig = PackingRig(tmp_path, kind)
    rig.put("sub/a.csv", TEXT)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == [f"sub/a.csv{kind.suffix}"]
    packed = rig.content(f"sub/a.csv{kind.suffix}")
    assert unpacked(kind, packed) == TEXT
    assert len(packed) < len(TEXT) / 2
    assert (rig.left(), rig.compressed()) == ([], [])


@KINDS
@pytest.mark.parametrize("piece", [1000, 64 * KIB, len(TEXT)])
def test_what_is_written_depends_on_the_content_alone(kind: Compression, piece: int) -> None:
    def packed(size: int) -> bytes:
        made = writer(kind)
        return b"".join(made.compress(TEXT[at : at + size]) for at in range(0, len(TEXT), size)) + made.flush()

    assert packed(piece) == packed(4096)


def test_the_header_of_gzip_has_neither_time_nor_name() -> None:
    made = writer(Compression.GZIP)
    assert (made.compress(TEXT) + made.flush())[3:8] == bytes(5)


def test_a_file_of_zstd_has_a_checksum_as_one_of_gzip_has() -> None:
    made = writer(Compression.ZSTD)
    frame = made.compress(TEXT) + made.flush()
    assert frame[4] & 0b100  # RFC 8878: Content_Checksum_flag


def test_nothing_is_saved_of_nothing() -> None:
    assert [pays(kind, b"") for kind in Compression] == [False, False]


@pytest.mark.parametrize(
    ("name", "content"), [("noise", NOISE), ("photo.JPG", TEXT), ("a.csv.gz", TEXT), ("empty", b""), ("n" * 253, TEXT)]
)
def test_what_compressing_saves_nothing_of_is_sent_as_it_is(rig: PackingRig, name: str, content: bytes) -> None:
    rig.put(name, content)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == [name]
    assert rig.content(name) == content
    assert rig.compressed() == []


def test_a_file_whose_packed_name_another_has_is_sent_as_it_is(rig: PackingRig) -> None:
    rig.put("a.csv", TEXT)
    rig.put("a.csv.gz", b"another file")
    assert rig.run() is End.DRAINED
    assert sorted(rig.arrived()) == ["a.csv", "a.csv.gz"]
    assert (rig.content("a.csv"), rig.content("a.csv.gz")) == (TEXT, b"another file")


def test_the_first_mib_decides(rig: PackingRig) -> None:
    noisy = random.Random(1).randbytes(1024 * KIB)
    rig.most = "8 MiB"
    rig.put("late", noisy + TEXT * 10)
    rig.put("early", TEXT * 10 + noisy)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["early.gz", "late"]


@KINDS
def test_less_than_5_percent_is_not_worth_it(kind: Compression) -> None:
    assert not pays(kind, NOISE)
    assert not pays(kind, NOISE[: 98 * KIB] + bytes(2 * KIB))
    assert pays(kind, NOISE[: 90 * KIB] + bytes(10 * KIB))


@pytest.mark.parametrize("name", [b"a.gz", b"a/b.TGZ", b"x.zst", b"x.jpeg", b"x.zip", b"x.mp4"])
def test_endings_of_compressed_files(name: bytes) -> None:
    assert is_packed(name)
    assert not is_packed(name + b".csv")


# -- room


def test_a_file_above_the_limit_is_sent_as_it_is(rig: PackingRig) -> None:
    rig.most = len(TEXT)
    rig.put("fits", TEXT)
    rig.put("large", TEXT + b"x")
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["fits.gz", "large"]


def test_with_many_files_the_limit_holds_at_any_moment(rig: PackingRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.most = 2 * len(TEXT)
    sizes: list[int] = []

    def look(_: object) -> None:
        sizes.append(sum(path.stat().st_size for path in rig.folder.iterdir()))

    rig.remote.before = look
    for number in range(30):
        rig.put(f"f{number}", TEXT + b"%d" % number)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == sorted(f"f{number}.gz" for number in range(30))
    assert 0 < max(sizes) <= 2 * len(TEXT) + 100
    assert rig.compressed() == []


def test_without_room_in_the_state_directory_a_file_is_sent_as_it_is(
    rig: PackingRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folders, "LEAST_FREE_BYTES", 1 << 60)
    rig.put("a.csv", TEXT)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["a.csv"]
    assert "no room" in caplog.text


def test_what_is_compressed_is_private(rig: PackingRig) -> None:
    modes: list[int] = []
    rig.remote.before = lambda job: modes.append(os.stat(job.source).st_mode & 0o777)
    rig.put("a.csv", TEXT)
    assert rig.run() is End.DRAINED
    assert modes == [0o600]
    assert rig.folder.stat().st_mode & 0o777 == 0o700


# -- again


def test_a_file_that_could_not_be_sent_is_sent_from_what_was_compressed(
    rig: PackingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "KEPT_BYTES", 1000)
    rig.put("a.csv", TEXT)
    begun(rig)
    (name,) = rig.compressed()
    inode = (rig.folder / name).stat().st_ino
    seen: list[int] = []
    rig.remote.before = lambda job: seen.append(os.stat(job.source).st_ino)
    assert rig.run() is End.DRAINED
    assert seen == [inode]
    assert rig.arrived() == ["a.csv.gz"]
    assert rig.compressed() == []


@pytest.mark.parametrize("damage", ["gone", "unfinished", "of nothing"])
def test_what_is_lost_is_made_again_with_the_same_bytes_and_time(
    rig: PackingRig, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(folders, "KEPT_BYTES", 1000)
    os.utime(rig.put("a.csv", TEXT), ns=(10**18, 10**18 + 5))
    begun(rig)
    (name,) = rig.compressed()
    before = (rig.folder / name).read_bytes()
    if damage == "gone":
        (rig.folder / name).unlink()
    elif damage == "unfinished":
        (rig.folder / name).rename(rig.folder / (name + ".new"))
    else:
        (rig.folder / "0123456789abcdef.gz").write_bytes(bytes(5000))
    times: list[int] = []
    rig.remote.before = lambda job: times.append(job.fingerprint.mtime_ns)
    assert rig.run() is End.DRAINED
    assert rig.content("a.csv.gz") == before
    assert times[-1] == 10**18 + 5
    assert rig.compressed() == []


def test_what_was_begun_compressed_stays_so_when_the_setting_is_taken_away(
    rig: PackingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have it under that name already."""
    rig.put("a.csv", TEXT)
    begun(rig)
    del rig.outbox["compress"]
    rig.put("b.csv", TEXT)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["a.csv.gz", "b.csv"]
    assert gzip.decompress(rig.content("a.csv.gz")) == TEXT
    assert rig.content("b.csv") == TEXT


def test_a_producer_that_takes_the_file_away_leaves_nothing_compressed(rig: PackingRig) -> None:
    path = rig.put("a.csv", TEXT)
    begun(rig)
    path.unlink()
    assert rig.run() is End.DRAINED
    assert rig.compressed() == []
    assert rig.arrived() == []
    ((source, dest),) = rig.remote.given_up
    assert (Path(source).parent, dest) == (rig.folder, "/up/a.csv.gz")


def test_a_version_that_changes_while_it_is_compressed_is_not_sent(
    rig: PackingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rig.put("a.csv", TEXT)
    real, changes = packers.writer, iter([True])

    def slow(kind: Compression) -> Any:
        if next(changes, False):
            path.write_bytes(TEXT[::-1])
        return real(kind)

    monkeypatch.setattr(packers, "writer", slow)
    assert rig.run() is End.DRAINED
    assert rig.arrived() == ["a.csv.gz"]
    assert gzip.decompress(rig.content("a.csv.gz")) == TEXT[::-1]


def test_files_of_other_outboxes_do_not_wait_for_one_that_is_being_compressed(
    rig: PackingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = rig.base / "other"
    other.mkdir()
    (other / "plain").write_bytes(b"x")
    rig.put("a.csv", TEXT)
    may_go_on = threading.Event()
    real = packers.writer

    def held(kind: Compression) -> Any:
        assert may_go_on.wait(30)
        return real(kind)

    monkeypatch.setattr(packers, "writer", held)
    rig.remote.before = lambda job: may_go_on.set()
    settings = rig.settings
    more = {"path": str(other), "destination": "/up", "settle_s": 0}
    monkeypatch.setattr(rig, "settings", lambda: {**settings(), "outbox": [rig.outbox, more]})
    assert rig.run() is End.DRAINED
    assert [os.path.basename(dest) for dest in rig.remote.deliveries] == ["plain", "a.csv.gz"]


def test_what_is_kept_in_the_outbox_is_sent_once(rig: PackingRig) -> None:
    rig.outbox["after_upload"] = "keep"
    rig.put("a.csv", TEXT)
    assert rig.run() is End.DRAINED
    os.utime(rig.box / "a.csv")
    assert rig.run() is End.DRAINED
    (rig.box / "a.csv").chmod(0o600)
    assert rig.run() is End.DRAINED
    assert rig.left() == ["a.csv"]
    assert len(rig.remote.deliveries) <= 2
    assert rig.compressed() == []
