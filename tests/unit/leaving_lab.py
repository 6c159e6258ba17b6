"""Files on their way out of an outbox: what the tests of leaving share."""

import os
from contextlib import contextmanager

from unit.removing import taken

from iot.sftp.client import Fingerprint
from iot.spooler.leaving.removal import Item, private_names

__all__ = ["PRIVATE", "files_in", "item", "opened", "take"]

PRIVATE = private_names(1, b"f")[0]


def item(box, name, key=1, **about):
    return Item(key, os.fsencode(name), Fingerprint.of(os.stat(box / name)), about)


def take(box, items, leaver):
    root = os.open(box, os.O_RDONLY)
    try:
        return taken(root, items, leaver)
    finally:
        os.close(root)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@contextmanager
def opened(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
