"""The part of an upload on the server: created, or opened again, and closed."""

from __future__ import annotations

from collections.abc import Sequence

from iot.sftp.client.jobs.context import Context
from iot.sftp.client.jobs.folders import create_in_folder
from iot.sftp.client.jobs.free_space import LARGE_BYTES, SpaceQuestion, full
from iot.sftp.client.jobs.look import stands
from iot.sftp.client.pipeline.job import Work, ask, ask_all, expect_handle, expect_status, handle_or_refusal
from iot.sftp.client.protocol import packets
from iot.sftp.client.protocol.packets import Attributes, Code, Flag, Reply, Request, Status
from iot.sftp.client.protocol.server import Refusal
from iot.transfer.errors import ServerBusy
from iot.transfer.names import check_no_folder
from iot.transfer.source import Source
from iot.transfer.terminal import quoted
from iot.transfer.window import PartState

CREATE = Flag.WRITE | Flag.CREATE | Flag.TRUNCATE | Flag.EXCLUSIVE
CREATE_DIRECT = Flag.WRITE | Flag.CREATE | Flag.TRUNCATE
REOPEN = Flag.WRITE | Flag.CREATE
REOPEN_CLASSIC = Flag.READ | Flag.WRITE
"""For servers that only know the modes of fopen; tried last, because others refuse it."""


class PartFile:
    """names: from names.part_names. path: the one that it has. owned: the one that says whose it is. dest: the name
    that it gets. is_ours: whatever is there under its name may be replaced. asked_alone: no other file was open when it
    was last to be opened again; otherwise a refusal may only mean that there are no more handles."""

    def __init__(self, context: Context, names: Sequence[bytes], dest: bytes, source: Source) -> None:
        self.path = names[0]
        self.owned = names[-1]
        self.is_ours = len(names) == 1
        self.asked_alone = True
        self._names = names
        self._context = context
        self._dest = dest
        self._source = source
        self._handles: list[bytes] = []
        self._space: SpaceQuestion | None = None

    @property
    def may_be_shared(self) -> bool:
        """Whether another device could have a part of this name, too."""
        return self.path != self.owned

    def take(self, token: bytes) -> bool:
        """The journal says that an earlier attempt has created it under this name -> whether that is one of ours."""
        if token not in self._names:
            return False
        self.path, self.is_ours = token, True
        return True

    def claim(self, partial: bytes) -> None:
        """Another program's file is to become the part: in place if it has the name, otherwise under one that is
        ours."""
        if partial != self.path and not self.is_ours:
            self.path = self.owned
        self.is_ours = True

    def create(self, state: PartState) -> Work[bytes]:
        """Always create a new part, never truncate an old one: data of a lost connection that is still in flight, or a
        late open, then cannot reach it. Where a file that is not ours has the name, take the other one."""
        mode = self._source.mode if self._context.options.keep_mode else None
        direct = self._context.options.direct_write
        flags = CREATE_DIRECT if direct else CREATE
        requests = [packets.open_file(self.path, flags, Attributes(mode=mode)), *self._questions(state)]
        doing = f"cannot create {quoted(self.path)}"
        reply, *told = yield from create_in_folder(self._context, self.path, requests)
        if isinstance(reply, Status) and not self.is_ours and (yield from stands(self.path)):
            self.take(self.owned)
            return (yield from self.create(state))
        self.is_ours = True
        if not direct and isinstance(reply, Status) and reply.code not in (Code.NO_SUCH_FILE, Code.PERMISSION_DENIED):
            # left by an earlier attempt: the name says that it is ours
            expect_status((yield from ask(packets.remove(self.path))), f"cannot remove {quoted(self.path)}")
            reply, *told = yield from ask_all(requests, self._context.server.in_order)
        crowded = isinstance(reply, Status) and reply.code == Code.FAILURE and self._context.handles
        if crowded and (yield from full(self._context, self.path, self._source.name, state)) is None:
            raise ServerBusy(f"{doing} while others are open")
        handle = self._opened(expect_handle(reply, doing))
        self._check_answers(told, state)
        return handle

    def reopen(self, state: PartState, *, read: bool) -> Work[tuple[bytes | Status, bytes | Status]]:
        """Open it for writing and, if `read`, beside that for reading -> both handles, or refusals.

        Raises: NameRefused; NoSpaceOnServer.
        """
        doing = f"cannot reopen {quoted(self.path)}"
        self.asked_alone = not self._context.handles
        reading = [packets.open_file(self.path, Flag.READ)] if read else []
        replies = yield from self._reopen([*reading, *self._questions(state)])
        writer, *readers = [self._opened_or_refused(reply, doing) for reply in replies[: 1 + len(reading)]]
        reader = readers[0] if readers else b""
        self._check_answers(replies[1 + len(reading) :], state)
        return writer, reader

    def closed(self, handle: bytes) -> None:
        """Somebody else has closed it."""
        self._handles.remove(handle)
        self._context.handles.discard(handle)

    def close_all(self) -> Work[None]:
        while self._handles:
            handle = self._handles.pop()
            self._context.handles.discard(handle)
            yield from ask(packets.close(handle))

    def remove(self) -> Work[None]:
        if self.path != self._dest:
            yield from ask(packets.remove(self.path))

    def _questions(self, state: PartState) -> list[Request]:
        """What to check before many bytes are sent, in the same flight as the open."""
        if state.size <= LARGE_BYTES:
            return []
        self._space = SpaceQuestion.about(self._context, self.path, state)
        return [packets.stat(self._dest), *self._space.requests]

    def _check_answers(self, told: list[Reply], state: PartState) -> None:
        """Raises: NameRefused; NoSpaceOnServer."""
        if not told:
            return
        final, *space = told
        if isinstance(final, Attributes):
            check_no_folder(final.mode, self._dest, self._source.path)
        for told_space in space:
            assert self._space is not None
            self._space.check(self._context, self._source.name, state, told_space)

    def _reopen(self, others: list[Request]) -> Work[list[Reply]]:
        """Open the part for writing, in the mode that this server accepts -> its answer and those of the others."""
        server = self._context.server
        flags = REOPEN_CLASSIC if server.refuses(Refusal.WRITE_CREATE) else REOPEN
        first, *rest = yield from ask_all([packets.open_file(self.path, flags), *others], server.in_order)
        if flags == REOPEN and isinstance(first, Status):
            first = yield from ask(packets.open_file(self.path, REOPEN_CLASSIC))
            if not isinstance(first, Status) and self.asked_alone:
                server.learn(Refusal.WRITE_CREATE)
        return [first, *rest]

    def _opened(self, handle: bytes) -> bytes:
        self._handles.append(handle)
        self._context.handles.add(handle)
        return handle

    def _opened_or_refused(self, reply: Reply, doing: str) -> bytes | Status:
        opened = handle_or_refusal(reply, doing)
        return opened if isinstance(opened, Status) else self._opened(opened)
