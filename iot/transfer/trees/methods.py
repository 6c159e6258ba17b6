"""The part of the facade that works on whole folders; what it needs for that is loaded with the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from iot.transfer.errors import ConfigurationError, PermanentError
from iot.transfer.model import Direction, LocalPath, ProgressCallback, RemoteEntry, RemoteFile, RemotePath
from iot.transfer.names import path_text, remote_path
from iot.transfer.remote import Remote
from iot.transfer.stop import no_tick

if TYPE_CHECKING:
    from iot.transfer.trees.model import Step, StepResult, TreePlan, TreeResult

__all__ = ["TreeMethods"]


class TreeMethods:
    """Whole folders: first a plan, which changes nothing and says what will happen to each name and why; then that.

    Files go over one connection, many at once, with the guarantees of single ones. A file that fails is reported and
    holds up no other; if the link stays lost, that is raised, and the same call goes on where it was. Links to files
    count as files; links to folders, devices and unfinished parts are named in the plan and left out.
    """

    _remote: Remote

    def upload_dir(
        self,
        local: LocalPath,
        remote: RemotePath,
        *,
        update: bool = False,
        keep_times: bool = False,
        dry_run: bool = False,
        resume: bool = True,
        sha256: bool = False,
        progress: ProgressCallback | None = None,
        tick: Callable[[], None] | None = None,
    ) -> TreeResult:
        """Send all that is in a local folder to a remote folder, which is made if it is missing.

        update: leave files that have the same size and time there; this includes `keep_times`: give each file the time
        of its source. dry_run: return the plan alone. resume, tick: as for `upload_many`; sha256: as for `upload`.

        Raises: NotFound, NameRefused (`local` is missing, or is not a folder), TransientError, AuthenticationError,
            LocalStateError, ConfigurationError, Cancelled. What fails for one file is in the result: see `TreeResult`.
        """
        from iot.transfer.trees.making import check_folder

        check_folder(local)
        plan = self.plan_upload([(local, remote)], update=update, keep_times=keep_times)
        return self._result(plan, dry_run, resume, sha256, progress, tick)

    def download_dir(
        self,
        remote: RemotePath,
        local: LocalPath,
        *,
        update: bool = False,
        keep_times: bool = False,
        dry_run: bool = False,
        resume: bool = True,
        sha256: bool = False,
        progress: ProgressCallback | None = None,
        tick: Callable[[], None] | None = None,
    ) -> TreeResult:
        """Fetch all that is in a remote folder into a local folder, which is made if it is missing.

        A name from the server that would lead out of the folder is refused; of two names that differ only in case, the
        second is refused where the local file system takes both for one. Arguments and errors: see `upload_dir`.
        """
        from iot.transfer.trees.making import found_folder

        file = found_folder(self._remote, remote)
        plan = self.plan_download([(remote, local, file)], update=update, keep_times=keep_times)
        return self._result(plan, dry_run, resume, sha256, progress, tick)

    def sync(
        self,
        local: LocalPath,
        remote: RemotePath,
        *,
        direction: Literal["upload", "download"] = "upload",
        prune: bool = False,
        allow_empty: bool = False,
        max_remove: int | None = None,
        time_tolerance_s: int = 0,
        dry_run: bool = False,
        resume: bool = True,
        sha256: bool = False,
        progress: ProgressCallback | None = None,
        tick: Callable[[], None] | None = None,
    ) -> TreeResult:
        """Make one folder hold what the other holds; only what differs in size or time is transferred.

        direction: "upload" changes the remote folder, "download" the local one. prune: also remove what is only at the
        destination, after everything was transferred without a failure. Links are removed, never followed; unfinished
        parts, devices and what is below a folder that could not be listed stay. Nothing is removed if the source holds
        no files (unless `allow_empty`), or if more than `max_remove` names would go; that counts as a failure.
        time_tolerance_s: difference up to which two times are the same; 1 for FAT, which counts in steps of two.

        Raises: see `upload_dir`; a missing source is an error.
        """
        if direction not in ("upload", "download"):
            raise ConfigurationError(f"direction: must be 'upload' or 'download' (got {direction!r})")
        from iot.transfer.trees.making import Syncing, plan_sync

        wish = Syncing(prune, allow_empty, max_remove, time_tolerance_s)
        plan = plan_sync(self._remote, local, remote, Direction(direction), wish)
        return self._result(plan, dry_run, resume, sha256, progress, tick)

    def walk(
        self, path: RemotePath, *, wanted: Callable[[str], bool] | None = None
    ) -> Iterator[tuple[str, list[RemoteEntry] | PermanentError]]:
        """Each folder below a remote folder, by its path below it ("": the folder itself), with what is in it, sorted
        by name, or why it cannot be listed.

        Level by level, the folders of a level at once. Links to folders are not followed. wanted: by name; what is not
        is left out, and not entered.
        """
        from iot.transfer.trees.remote import remote_walk

        return remote_walk(self._remote, path_text(remote_path(path)), wanted or (lambda _: True))

    def plan_upload(
        self, pairs: Iterable[tuple[LocalPath, RemotePath]], *, update: bool = False, keep_times: bool = False
    ) -> TreePlan:
        """The plan for sending files and folders, each with its remote path; see `upload_dir` and `carry_out`."""
        from iot.transfer.trees.making import plan_upload

        return plan_upload(self._remote, pairs, update=update, keep_times=keep_times or update)

    def plan_download(
        self,
        wanted: Iterable[tuple[RemotePath, LocalPath, RemoteFile | None]],
        *,
        update: bool = False,
        keep_times: bool = False,
    ) -> TreePlan:
        """The plan for fetching files and folders, each with its local path and what is known about it already."""
        from iot.transfer.trees.making import plan_download

        return plan_download(self._remote, wanted, update=update, keep_times=keep_times or update)

    def carry_out(
        self,
        plan: TreePlan,
        *,
        resume: bool = True,
        sha256: bool | str = False,
        progress: Callable[[Step], ProgressCallback | None] | None = None,
        tick: Callable[[], None] | None = None,
        adopt_partial: str | None = None,
    ) -> Iterator[StepResult]:
        """Do what a plan says; yield what became of each step that changes something or fails, as it happens.

        progress: gives the callback of a step. adopt_partial: as for `upload`. Raises: see `upload_dir`.
        """
        from iot.transfer.trees.carrying import Manner, carry_out

        manner = Manner(resume, sha256, progress or (lambda _: None), tick or no_tick, adopt_partial)
        return carry_out(self._remote, plan, manner)

    def _result(
        self,
        plan: TreePlan,
        dry_run: bool,
        resume: bool,
        sha256: bool,
        progress: ProgressCallback | None,
        tick: Callable[[], None] | None,
    ) -> TreeResult:
        from iot.transfer.trees.model import TreeResult

        if dry_run:
            return TreeResult(plan)
        steps = self.carry_out(plan, resume=resume, sha256=sha256, progress=lambda _: progress, tick=tick)
        return TreeResult(plan, tuple(steps))
