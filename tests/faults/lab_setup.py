"""A device of the laboratory before its life begins: users, folders, and its configuration."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from faults.lab_disk import FAT_OWNER
from faults.lab_hooks import HOOK_LIMIT_S
from faults.lab_pull import Remotes
from faults.lab_world import User, as_user

from iot.spooler.leaving.trust import open_trusted

__all__ = ["MARKER", "POLICIES", "PRODUCER", "PULLS", "ROOT", "STRANGER", "THIRD", "Setup"]

ROOT, PRODUCER, STRANGER, THIRD = User(0, 0), User(FAT_OWNER, FAT_OWNER), User(4002, 4002), User(4003, 4003)
HOOKS = (
    "{"
    + ", ".join(
        [f'{hook} = ["sh", "{hook}"]' for hook in ("before", "after_success", "after_failure")]
        + [f"limit_s = {HOOK_LIMIT_S}"]
    )
    + "}"
)
POLICIES: dict[str, dict[str, str]] = {
    "none": {},
    "windows": {"schedule": '["06:00-12:00", "18:00-24:00"]'},
    "batches": {"batch_interval_s": "20"},
    "budget": {"budget": '{max_files = 2, max_bytes = 6000, evict_urgent = "oldest", preserve = ["*x*"]}'},
    "chain": {},
    "batches in windows": {"schedule": '["06:00-12:00", "18:00-24:00"]', "batch_interval_s": "20"},
    "markers": {"batch_marker": '"x.json"', "batch_grace_s": "5"},
    "hooks": {"hooks": HOOKS},
    "pull": {},
    "judged pull": {},
}
PULLS = ("pull", "judged pull")
MARKER = b"x.json"


class Setup:
    """For the machine."""

    def _make_folders(self, who: str, folders: str) -> None:
        self._made(self.here, ROOT)
        for box in self.boxes:
            self._made(box, ROOT if who == "sticky folder" else PRODUCER, 0o1777 if who == "sticky folder" else 0o777)
        self.aside = self._made(self.here / "aside", PRODUCER)
        self._made(self.state, self.user, 0o700)
        for name in ("outside", "outside/folder"):
            self._made(self.here / name, ROOT)
        for name, mode in (("file", 0o600), ("folder/inner", 0o644), ("open", 0o666), ("x.reason.txt", 0o644)):
            (self.outside / name).write_bytes(b"somebody else's " + os.fsencode(name))
            if self.disk.has_owners:
                (self.outside / name).chmod(mode)
        self._places: dict[str, str] = {}
        if folders != "default":
            # On FAT everybody may write, so no agent trusts a quarantine there: what is to go to it stays in its outbox
            # for good, as it should, and would not be told from what was forgotten.
            base = self.here if folders == "shared" and self.disk.has_owners else self.life
            for name in ("quarantine", "archive"):
                place = self._made(base / name, self.user, 0o700)
                with as_user(self.user):
                    os.close(open_trusted(place))
                self._places[name] = f'"{place}"'

    def _make_remotes(self, settle_s: float) -> None:
        """On FAT everybody could exchange what an inbox has fetched, so no agent has one there."""
        base = self.here if self.disk.has_owners else self.life
        self.server.inbox = self._made(base / "inbox", self.user)
        source = self._made(self.server.root / "pull", self.user, 0o777)
        self.remotes = Remotes(source, self.server.inbox, self.clock, settle_s, judged=self.policy == "judged pull")
        self.incidents_seen = 0

    def _made(self, folder: Path, user: User, mode: int = 0o755) -> Path:
        folder.mkdir(parents=True)
        with contextlib.suppress(PermissionError):  # FAT has no owners
            os.chown(folder, *user)
            folder.chmod(mode)
        return folder

    def _configure(self) -> None:
        lines = [
            f'state_dir = "{self.state}"',
            'time_zone = "UTC"',
            "small_file_bytes = 1000",
            '[server]\nhost = "server"',
            "[retry]\nbase_s = 1\ncap_s = 5\nmax_attempts = 2",
        ]
        for box, path in enumerate(self.boxes):
            lines += ["[[outbox]]", f'path = "{path}"', f'destination = "/up{box}-{self.destinations[box]}"']
            forward = (
                {"after_upload": '"forward"', "forward_to": '"box1"'} if self.policy == "chain" and box == 0 else {}
            )
            lines += [f"{key} = {value}" for key, value in (self.settings | forward).items()]
            lines += ['include = ["*a*"]'] * self.include[box]
        if self.policy in PULLS:
            lines += [
                "[[inbox]]",
                f'path = "{self.server.inbox}"',
                'source = "/pull"',
                "poll_s = 2",
                "recursive = true",
            ]
            lines += [f"settle_s = {self.remotes.settle_s}", f'after_download = "{self.after_download}"']
            lines += ['move_to = "/done"'] * (self.after_download == "move")
            if self.policy == "judged pull":
                lines += ['before_publish = ["sh", "before_publish"]', f"before_publish_limit_s = {HOOK_LIMIT_S}"]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o644)

    def _offers_leases(self) -> bool:
        if not self.disk.tells_writers:
            return False
        path = self.aside / "lease"
        path.write_bytes(b"")
        with path.open("rb") as file:
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            except OSError:
                return False
        return True
