"""Removes one name at a destination: never through a link, never outside of the folder, never a folder that holds
something."""

from __future__ import annotations

import os
import posixpath

from iot.transfer.errors import NotFound, PermanentError, is_gone
from iot.transfer.names import path_text, remote_path
from iot.transfer.remote import Remote
from iot.transfer.source import local_error
from iot.transfer.trees.local import local_join
from iot.transfer.trees.model import Act, Step

__all__ = ["remove_local", "remove_remote"]


def remove_remote(remote: Remote, step: Step) -> None:
    """By its path, as there is no other way: through a folder that somebody on the server has replaced by a link since
    the plan was made, it leads to where that link does.

    Raises: PermanentError; a name that is gone already is fine.
    """
    path = remote_path(step.dest)
    try:
        if step.clash and not _both_listed(remote, step):
            raise PermanentError(f"{step.dest} and {step.clash} are one name on this server")
        if step.act is Act.REMOVE_FOLDER:
            remote.rmdir(path)
        else:
            remote.delete(path)  # of a link: the link itself
    except NotFound:
        pass  # somebody else was faster; and on an object store a folder goes with the last file in it


def _both_listed(remote: Remote, step: Step) -> bool:
    """Whether the server really has both names. If not, this one may be the file that just arrived."""
    [found] = remote.scan([posixpath.dirname(remote_path(step.dest)) or b"."])
    if isinstance(found, PermanentError):
        raise found
    names = {entry.name for entry in found}
    return {posixpath.basename(path_text(step.dest)), posixpath.basename(step.clash)} <= names


def remove_local(root: str, step: Step) -> None:
    """root: without a link in it. Raises: PermanentError, LocalStateError; a name that is gone already is fine."""
    try:
        if step.clash and not _both_here(root, step):
            raise PermanentError(f"{step.dest} and {step.clash} are one name on this file system")
        if os.unlink in os.supports_dir_fd:
            _remove_beneath(root, step)
        elif step.act is Act.REMOVE_FOLDER:
            os.rmdir(step.dest)
        else:
            os.unlink(step.dest)
    except OSError as error:
        if not is_gone(error):
            raise local_error(error, step.dest) from error


def _both_here(root: str, step: Step) -> bool:
    folder = local_join(root, posixpath.dirname(step.path))
    return {posixpath.basename(step.path), posixpath.basename(step.clash)} <= set(os.listdir(folder))


def _remove_beneath(root: str, step: Step) -> None:
    """By descriptors, none of which leads through a link that somebody has put there meanwhile."""
    from iot.transfer.beneath import DIRECTORY, open_below  # there is no such thing on Windows

    folder, _, name = os.fsencode(step.path).rpartition(b"/")
    base = os.open(root, DIRECTORY | os.O_NOFOLLOW)
    try:
        here = open_below(base, folder)
        try:
            if step.act is Act.REMOVE_FOLDER:
                os.rmdir(name, dir_fd=here)
            else:
                os.unlink(name, dir_fd=here)
        finally:
            os.close(here)
    finally:
        os.close(base)
