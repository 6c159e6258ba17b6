"""The names that an upload may get, and what happens where another file has one of them.

Whether two devices can take one name at the same moment depends on the far side: see Capabilities.creates_only. Where
the answer to a publish was lost, our own file stands there: the intent is in the journal, and the content proves it.
"""

from __future__ import annotations

import posixpath

from iot.transfer.errors import AlreadyExists
from iot.transfer.model import IfExists, RemoteFile, UploadJob
from iot.transfer.names import as_spelled, check_final_name, remote_path
from iot.transfer.options import TransferOptions
from iot.transfer.parallel.content import same_file
from iot.transfer.parallel.publish import publish_as
from iot.transfer.parallel.work import Desk
from iot.transfer.remote import Meta, Store, Token
from iot.transfer.source import Source
from iot.transfer.terminal import quoted

__all__ = ["Finals", "Taken"]


class Taken(Exception):
    """Another file has the name, and the upload is to be skipped then."""


class Finals:
    """names: in the order in which they are tried; the first is the job's destination.

    Raises: NameRefused if one is not a valid path.
    """

    def __init__(self, job: UploadJob, source: Source) -> None:
        self.names = [remote_path(name, "dest") for name in (job.dest, *job.alternatives)]
        self.overwrites = job.if_exists is IfExists.OVERWRITE
        self._policy = job.if_exists
        self._ignores_case = job.ignores_case
        self._source = source
        self._alike: list[bytes] = []

    def check_names(self, *, sidecar: bool, part_suffix: str | None) -> None:
        """Raises: NameRefused."""
        for name in self.names:
            check_final_name(name, self._source.path, sidecar=sidecar, part_suffix=part_suffix)

    def check_free(self, store: Store) -> None:
        """Raises: Taken, AlreadyExists, where nothing would come of sending it."""
        if self._policy in (IfExists.SKIP, IfExists.FAIL) and store.stat(self.names[0]) is not None:
            raise self._taken()

    def of_this_size(self, store: Store) -> RemoteFile | None:
        """Whether a file of the size of the source stands under one of the names: only such a one can be ours."""
        size = self._source.fingerprint.size
        found = {name: store.stat(name) for name in self.names}
        self._alike = [name for name, there in found.items() if there is not None and there.size == size]
        return RemoteFile(size) if self._alike else None

    def ours(self, desk: Desk, store: Store) -> bytes | None:
        """The first name under which the whole content of the source stands."""
        size = self._source.fingerprint.size
        return next((name for name in self._alike if same_file(desk, store, name, self._source, size)), None)

    def number(self, name: bytes) -> int:
        """Of a name that the source has got, for `published`."""
        return self.names.index(name) if name in self.names else 0

    def published(self, desk: Desk, store: Store, number: int) -> bytes | None:
        """The name that an earlier attempt gave to the source, unless another file has it now. Commands may have taken
        ours away from there: then those that follow are still to be carried out."""
        size = self._source.fingerprint.size
        for name in self.names[number : number + 1]:
            if (found := store.stat(name)) is None:
                return name
            if found.size == size and same_file(desk, store, name, self._source, size):
                return name
        return None

    def publish(self, store: Store, token: Token, meta: Meta, options: TransferOptions) -> tuple[bytes, bool]:
        """Give the part its name -> the name, and whether both are on the far side's disk.

        Raises: Taken, AlreadyExists; see publish_as.
        """
        if self.overwrites:
            final = self._as_spelled(store, self.names[0])
            return final, publish_as(store, token, final, meta, options, self._source.path)
        for name in self.names:
            try:
                return name, store.publish(token, name, meta, replace=False)
            except AlreadyExists:
                continue
        raise self._taken()

    def _as_spelled(self, store: Store, name: bytes) -> bytes:
        """The folder is listed only if a file is there that the new one replaces."""
        if not self._ignores_case or store.stat(name) is None:
            return name
        return as_spelled(name, [entry.name for entry in store.list(posixpath.dirname(name) or b".")])

    def _taken(self) -> Exception:
        if self._policy is IfExists.SKIP:
            return Taken()
        others = " (and so does each name to use instead)" if len(self.names) > 1 else ""
        return AlreadyExists(f"{quoted(self.names[0])} exists{others}, and is not to be replaced")
