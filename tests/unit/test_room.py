"""Jobs that wait for room in the window: what they are going to send is not in memory meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.pipeline_lab import KIB, Script, names, run
from unit.upload_lab import Lab

from iot.sftp.client.jobs.sending import Sending
from iot.sftp.client.pipeline.job import WAIT, Job, Room, Send, Work
from iot.sftp.client.protocol import packets
from iot.transfer.errors import Cancelled, SourceChanged
from iot.transfer.model import Span
from iot.transfer.source import Source
from iot.transfer.window import PartState

BLOCK = 32 * KIB
WINDOW = 128 * KIB


class Counted(Source):
    """A source that counts the bytes that were read of it."""

    read_bytes = 0

    def read(self, span: Span) -> bytes:
        self.read_bytes += span.length
        return super().read(span)


class Device:
    """Files that are sent at the same time; the server answers one request at a time."""

    def __init__(self, path: Path, files: int) -> None:
        path.write_bytes(bytes(4 * BLOCK))
        self.script = Script(max_bytes=WINDOW)
        self.script.answer = self.answer
        self.sources = [Counted(path) for _ in range(files)]
        self.lab = Lab(path, block=BLOCK)
        self.answered_bytes = self.held_bytes = 0
        self.may_go_on: Callable[[], None] = lambda: None
        self.at_answer: Callable[[], None] = lambda: None

    def answer(self) -> bytes | None:
        self.at_answer()
        read_bytes = sum(source.read_bytes for source in self.sources)
        self.held_bytes = max(self.held_bytes, read_bytes - self.answered_bytes)
        first = self.script.open[:1]
        self.answered_bytes += sum(item.data for item in first)
        return self.script.give(first)

    def sending(self, source: Source, name: bytes) -> Work[Any]:
        context, state = self.lab.upload().context, PartState(source.fingerprint.size)
        return Sending(context, source, state, name, b"", {}, False, lambda: None, self.may_go_on).run()

    def run(self) -> list[Any]:
        numbered = zip(self.sources, names(len(self.sources)), strict=True)
        try:
            return run(self.script, [Job(self.sending(source, name), tag=name) for source, name in numbered])
        finally:
            for source in self.sources:
                source.close()


def test_of_many_files_only_what_is_in_flight_is_in_memory(tmp_path: Path) -> None:
    device = Device(tmp_path / "file", files=100)
    assert all(item.error is None for item in device.run())
    assert device.answered_bytes == 100 * 4 * BLOCK
    assert device.held_bytes <= WINDOW


def test_what_is_suspended_while_it_waits_for_room_sends_nothing_more(tmp_path: Path) -> None:
    device = Device(tmp_path / "file", files=20)

    def suspended() -> None:
        if device.answered_bytes:
            raise Cancelled("suspended")

    device.may_go_on = suspended
    suspended_files = [item for item in device.run() if isinstance(item.error, Cancelled)]
    assert len(suspended_files) == 19  # the first one had been sent
    assert device.answered_bytes <= WINDOW


def test_a_file_that_becomes_shorter_while_it_waits_for_room_fails_alone(tmp_path: Path) -> None:
    device = Device(tmp_path / "file", files=4)
    (tmp_path / "shorter").write_bytes(bytes(4 * BLOCK))
    device.sources[3].close()
    device.sources[3] = Counted(tmp_path / "shorter")
    device.at_answer = lambda: (tmp_path / "shorter").write_bytes(b"")
    errors = [type(item.error) for item in sorted(device.run(), key=lambda item: str(item.tag))]
    assert errors == [type(None)] * 3 + [SourceChanged]


@pytest.mark.parametrize("asked", [1, 2])
def test_room_is_given_for_one_payload(asked: int) -> None:
    """Whoever sends more, or asks for more than it sends, waits as everybody does."""

    def greedy(name: bytes) -> Work[None]:
        heard = 0
        for number in range(20):
            for _ in range(asked):
                heard += len((yield Room(16 * KIB)))
            for part in range(2):
                heard += len((yield Send(packets.write(name, (2 * number + part) * 16 * KIB, bytes(16 * KIB)))))
        while heard < 40:
            heard += len((yield WAIT))

    script = Script(max_bytes=WINDOW)
    script.answer = lambda: script.give(script.open[:1])
    assert all(item.error is None for item in run(script, [Job(greedy(name), tag=name) for name in names(8)]))
    assert script.in_flight_at_most <= WINDOW
