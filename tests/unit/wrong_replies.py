"""A server in this process whose one reply, in any phase of any transfer, is wrong in any way.

The phases are found, not listed: an exchange is played once as it should be, and every request that it sends is a
phase. WRONGS is the table of what a reply can be instead; each phase meets each of them.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from paramiko import Message
from unit.scripted import Clock
from unit.wrongs import BLOCK, NO_TEXT, Wrong, framed

from iot.sftp.client.jobs import paths
from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.download import Download
from iot.sftp.client.jobs.look import look
from iot.sftp.client.jobs.upload import Upload
from iot.sftp.client.pipeline.job import Job, Work
from iot.sftp.client.pipeline.pace import Pace
from iot.sftp.client.pipeline.pipeline import Pipeline
from iot.sftp.client.protocol.outgoing import Outgoing
from iot.sftp.client.protocol.server import Server
from iot.sftp.client.session import ask_limits, commit
from iot.sftp.server.files import SFTPSession
from iot.sftp.server.protocol import EXTENDED_REPLY, Reply, RequestRefused, text
from iot.transfer.errors import LinkLost
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.landing import DownloadTask
from iot.transfer.model import IfExists, Proof, RemoteEntry, UploadJob
from iot.transfer.options import TransferOptions
from iot.transfer.source import Source

__all__ = ["EXCHANGES", "HANGS_S", "REPLY_DEADLINE_S", "Bench", "Exchange", "Phase"]

REPLY_DEADLINE_S = 20.0
LATE_S = 5.0
CUT_AFTER = 6  # the folder or a look, the opening, and four blocks
ARRIVED = 7
HANGS_S = 3 * REPLY_DEADLINE_S
CONTENT = random.Random(11).randbytes(7 * BLOCK + 77)
OLD = random.Random(12).randbytes(3 * BLOCK)
KINDS = {
    3: "OPEN", 4: "CLOSE", 5: "READ", 6: "WRITE", 7: "LSTAT", 8: "FSTAT", 9: "SETSTAT", 10: "FSETSTAT", 11: "OPENDIR",
    12: "READDIR", 13: "REMOVE", 14: "MKDIR", 15: "RMDIR", 16: "REALPATH", 17: "STAT", 18: "RENAME", 200: "EXTENDED",
}  # fmt: skip


class Phase(NamedTuple):
    """The n-th request of an exchange; what: its kind, or the name of the extension."""

    number: int
    what: str


class HashingSession(SFTPSession):
    """Also offers check-file-handle, as ProFTPD does."""

    extensions: Mapping[bytes, bytes] = {**SFTPSession.extensions, b"check-file-handle": b"1"}

    def on_extended(self, message: Message) -> Reply:
        peek = Message(message.get_remainder())
        if peek.get_binary() != b"check-file-handle" or b"check-file-handle" not in self.extensions:
            return super().on_extended(message)
        file = self.file(peek)
        return EXTENDED_REPLY, text(b"sha256") + sha256(os.pread(file.descriptor, 1 << 20, 0)).digest()


class PlainSession(SFTPSession):
    """Version 3 as it was written: no extension."""

    extensions: Mapping[bytes, bytes] = {}

    def on_posix_rename(self, message: Message) -> Reply:
        raise RequestRefused(8, "not offered")


class FullSession(SFTPSession):
    """No room for anything, told as OpenSSH does."""

    def on_write(self, message: Message) -> Reply:
        raise RequestRefused(4, "Failure")


@dataclass
class WrongChannel:
    """What the pipeline sees: the session's replies, of which one is wrong. asked: every request, in order.

    cut_after: the link is lost after so many replies, and what was asked behind ARRIVED requests never arrived.
    """

    clock: Clock
    wrong: Wrong | None = None
    at: int = -1
    cut_after: int | None = None
    session: SFTPSession = field(init=False)
    asked: list[Phase] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._out: list[bytes] = []
        self._late: list[tuple[float, bytes]] = []
        self._numbers: dict[int, int] = {}
        self._began = self.clock.now

    def serve(self, kind: type[SFTPSession], root: Path) -> None:
        self.session = kind(os.fsencode(root.resolve()), self._answered)

    def send(self, outgoing: Outgoing, _: float) -> None:
        data = outgoing.first(len(outgoing))
        outgoing.drop(len(data))
        at = 0
        while at < len(data):
            size, kind, number = struct.unpack_from(">IBI", data, at)
            what = KINDS[kind]
            if kind == 200:
                length = struct.unpack_from(">I", data, at + 9)[0]
                what = data[at + 13 : at + 13 + length].decode()
            self._numbers[number] = len(self.asked)
            self.asked.append(Phase(len(self.asked), what))
            if self.cut_after is None or len(self.asked) <= ARRIVED:
                self.session.receive(data[at : at + 4 + size])
            at += 4 + size

    def receive(self, limit: int, timeout_s: float) -> bytes | None:
        self.clock.now += 1e-3
        if not self._out:
            self.clock.now += timeout_s
        assert self.clock.now - self._began < HANGS_S, "it waits beyond the deadline"
        if self.cut_after is not None:
            if self.cut_after == 0:
                raise LinkLost("cut")
            self._out = self._out[: self.cut_after]
            self.cut_after -= len(self._out)
        due = [packet for at, packet in self._late if at <= self.clock.now]
        self._late = [(at, packet) for at, packet in self._late if at > self.clock.now]
        data = b"".join(self._out + due)
        self._out.clear()
        return data or None

    def check_alive(self, waiting_since: float | None) -> float:
        """The link lives; only the answer does not come."""
        return 0.0

    def _answered(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            size = struct.unpack_from(">I", data, at)[0]
            packet = data[at + 4 : at + 4 + size]
            self._one(packet, struct.unpack(">I", packet[1:5])[0])
            at += 4 + size

    def _one(self, packet: bytes, number: int) -> None:
        if self.wrong is None or self._numbers[number] != self.at:
            self._out.append(framed(packet))
        elif self.wrong.late:
            self._late.append((self.clock.now + LATE_S, framed(packet)))
        else:
            self._out.append(self.wrong.change(packet))


class Bench:
    """A device with its journal, a server with its folder. Each `play` is a new connection."""

    def __init__(self, folder: Path, exchange: Exchange) -> None:
        self.root = folder / "server"
        self.local = folder / "local"
        self.clock = Clock()
        self.journal = Journal(None, CHECKPOINTS)
        self.ledger = Checkpoints(self.journal, "s", every_bytes=1, every_s=1, clock=self.clock)
        self.exchange = exchange
        self.channel = WrongChannel(self.clock)
        (self.root / "up").mkdir(parents=True)
        self.local.mkdir()
        (self.local / "source").write_bytes(CONTENT)
        exchange.prepare(self)

    def play(self, wrong: Wrong | None = None, at: int = -1, *, cut_after: int | None = None) -> Any:
        """-> what the job gave. Raises: what it raised."""
        channel = self.channel = WrongChannel(self.clock, wrong, at, cut_after)
        channel.serve(self.exchange.session, self.root)
        server = Server(self.exchange.banner, "key", dict(self.exchange.session.extensions), BLOCK, BLOCK)
        pace = Pace(1 << 20, BLOCK)
        given = {"chunk_size": BLOCK, "owner": "me", "publish_grace_s": 1.0, "checkpoint_bytes": 1}
        context = Context(server, pace, self.ledger, TransferOptions(**{**given, **self.exchange.options}), self.clock)
        pipeline = Pipeline(
            channel,
            pace,
            clock=self.clock,
            commit=partial(commit, self.ledger),
            reply_deadline_s=REPLY_DEADLINE_S,
            cancelled=threading.Event(),
        )
        return pipeline.run_one(Job(self.exchange.work(self, context)))

    def close(self) -> None:
        self.channel.session.close()
        self.journal.close()


class Exchange(NamedTuple):
    """What is played. good: whether success, when it is reported, is true. refused: by a server that behaves, too."""

    name: str
    work: Callable[[Bench, Context], Work[Any]]
    good: Callable[[Bench, Any], bool]
    prepare: Callable[[Bench], None] = lambda bench: None
    options: Mapping[str, Any] = {}
    session: type[SFTPSession] = SFTPSession
    banner: str = "SSH-2.0-OpenSSH_9.2"
    refused: bool = False


DEST = b"/up/file"


def _upload(bench: Bench, context: Context, dest: str = DEST.decode(), **job: Any) -> Work[Any]:
    source = bench.local / "source"
    return Upload(UploadJob(source, dest, **job), Source(source), context).run()


def _download(bench: Bench, context: Context) -> Work[Any]:
    return Download(DownloadTask(b"/up/remote", str(bench.local / "fetched")), context).run()


def _stands(bench: Bench, _: Any) -> bool:
    final = bench.root / "up/file"
    return final.exists() and final.read_bytes() == CONTENT


def _stands_beside_hash(bench: Bench, _: Any) -> bool:
    line = f"{sha256(CONTENT).hexdigest()}  file\n"
    return _stands(bench, None) and (bench.root / "up/file.sha256").read_text() == line


def _fetched(bench: Bench, _: Any) -> bool:
    return (bench.local / "fetched").read_bytes() == CONTENT


def _old_final(bench: Bench) -> None:
    (bench.root / "up/file").write_bytes(OLD)


def _same_final(bench: Bench) -> None:
    (bench.root / "up/file").write_bytes(CONTENT)


def _remote(bench: Bench) -> None:
    (bench.root / "up/remote").write_bytes(CONTENT)


def _cut(bench: Bench) -> None:
    """An earlier attempt was cut after so many answers; its part stays."""
    try:
        bench.play(cut_after=CUT_AFTER)
    except LinkLost:
        bench.channel.session.close()
    else:
        raise AssertionError("it was not cut")


def _remote_beside_hash(bench: Bench) -> None:
    _remote(bench)
    (bench.root / "up/remote.sha256").write_text(f"{sha256(CONTENT).hexdigest()}  remote\n")


def _begun_upload(bench: Bench) -> None:
    _cut(bench)


def _begun_download(bench: Bench) -> None:
    _remote(bench)
    _cut(bench)


def _folders(bench: Bench) -> None:
    for name in ("b", "a", "c"):
        (bench.root / "up" / name).write_bytes(b"x")
    (bench.root / "up/folder").mkdir()


def _listed(bench: Bench, found: list[RemoteEntry]) -> bool:
    return {os.fsencode(entry.name) for entry in found} <= {b"a", b"b", b"c", b"folder", b"name", NO_TEXT}


def _moved(bench: Bench, _: Any) -> bool:
    return (bench.root / "up/new/place").read_bytes() == CONTENT and not (bench.root / "up/remote").exists()


def _uploads() -> Iterator[Exchange]:
    upload = partial(Exchange, work=_upload, good=_stands)
    yield upload("upload")
    yield upload("upload over an old file", prepare=_old_final)
    yield upload("upload, one request at a time", banner="SSH-2.0-other")
    yield upload("upload into a new folder", work=partial(_upload, dest="/up/new/er/file"),
        good=lambda bench, _: (bench.root / "up/new/er/file").read_bytes() == CONTENT)  # fmt: skip
    yield upload("upload with times and mode", options={"keep_times": True, "keep_mode": True})
    yield upload("upload proven by its tail", options={"proof": Proof.TAIL, "tail_size": 2000})
    yield upload("upload proven by reading", options={"proof": Proof.FULL})
    yield upload("upload proven by hash", options={"proof": Proof.FULL}, session=HashingSession)
    yield upload("upload with a sidecar", options={"sidecar": True}, good=_stands_beside_hash)
    yield upload("upload that replaces nothing", work=partial(_upload, if_exists=IfExists.FAIL))
    yield upload(
        "upload that replaces nothing, without extensions", session=PlainSession,
        work=partial(_upload, if_exists=IfExists.FAIL),
    )  # fmt: skip
    yield upload("upload by an exact name", work=partial(_upload, part_suffix=".tmp"))
    yield upload("upload without extensions", session=PlainSession)
    yield upload(
        "upload without extensions over an old file", session=PlainSession, prepare=_old_final,
        options={"replace_by_remove": True}, work=partial(_upload, grace=True))  # fmt: skip
    yield upload("upload in place", options={"direct_write": True}, prepare=_old_final)
    yield upload("upload to a full disk", session=FullSession, refused=True)
    yield upload("resumed upload", prepare=_begun_upload)
    yield upload("resumed upload, one request at a time", prepare=_begun_upload, banner="SSH-2.0-other")
    yield upload("resumed upload after a look at its tail", prepare=_begun_upload, options={"verify": "tail"})
    yield upload("upload that may stand already", prepare=_same_final, work=partial(_upload, check_final=True))
    yield upload("upload whose name is taken", prepare=_old_final, work=partial(_upload, check_final=True))


def _others() -> Iterator[Exchange]:
    download = partial(Exchange, work=_download, good=_fetched, prepare=_remote)
    yield download("download")
    yield download("resumed download", prepare=_begun_download)
    yield download("resumed download after a second reading", prepare=_begun_download, options={"verify": "full"})
    yield download("download proven by reading", options={"proof": Proof.FULL})
    yield download("download proven by hash", options={"proof": Proof.FULL}, session=HashingSession)
    yield download("download with a sidecar", options={"sidecar": True}, prepare=_remote_beside_hash)
    yield Exchange("limits", lambda bench, context: ask_limits(context.server), lambda *_: True)
    yield Exchange("list", lambda bench, context: paths.scan(context, b"/up"), _listed, _folders)
    yield Exchange("stat", lambda *_: look(b"/up/remote"), lambda _, found: found is not None, _remote)
    yield Exchange("real path", lambda *_: paths.real_path(b"/up"), lambda _, found: bool(found))
    for session in (SFTPSession, PlainSession):
        yield Exchange(
            f"move with {len(session.extensions)} extensions",
            lambda bench, context: paths.move(context, b"/up/remote", b"/up/new/place", paths.Earlier()),
            _moved, _remote, session=session)  # fmt: skip
    yield Exchange(
        "delete", lambda bench, context: paths.delete(b"/up/remote", paths.Earlier()),
        lambda bench, _: not (bench.root / "up/remote").exists(), _remote)  # fmt: skip
    yield Exchange(
        "make folders", lambda bench, context: paths.make_dir(context, b"/up/one/two"),
        lambda bench, _: (bench.root / "up/one/two").is_dir())  # fmt: skip
    yield Exchange(
        "delete folder", lambda bench, context: paths.delete_dir(context, b"/up/folder", paths.Earlier()),
        lambda bench, _: not (bench.root / "up/folder").exists(), _folders)  # fmt: skip


EXCHANGES = (*_uploads(), *_others())
