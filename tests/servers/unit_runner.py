"""Starts a service as its installed unit says, where no systemd is process 1: user, command, folders, credentials."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Unit"]

UNITS = Path("/etc/systemd/system")


class Unit:
    """One unit, stopped with the block. Root only."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._name = name
        self._text = (UNITS / f"{name}.service").read_text()
        self._environment = {"PATH": environment["PATH"]}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def restart(self) -> None:
        self.stop()
        user = self._value("User")
        folders = {
            "STATE_DIRECTORY": self._folder("/var/lib", "StateDirectory", user),
            "RUNTIME_DIRECTORY": self._folder("/run", "RuntimeDirectory", user),
            "CREDENTIALS_DIRECTORY": self._credentials(user),
        }
        rights = "+" + self._value("AmbientCapabilities").removeprefix("CAP_").lower()
        command = ["setpriv", f"--reuid={user}", f"--regid={self._value('Group')}", "--init-groups", "--no-new-privs"]
        command += [f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set=-all,{rights}"]
        self._process = subprocess.Popen(
            [*command, *self._value("ExecStart").split()],
            env={**self._environment, **{name: str(folder) for name, folder in folders.items()}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def _value(self, key: str) -> str:
        found = re.search(rf"^{key}=(.+)$", self._text, re.MULTILINE)
        assert found, key
        return found[1]

    def _folder(self, above: str, key: str, user: str) -> Path:
        folder = Path(above) / self._value(key)
        folder.mkdir(mode=int(self._value(f"{key}Mode"), 8), exist_ok=True)
        shutil.chown(folder, user, user)
        return folder

    def _credentials(self, user: str) -> Path:
        """Each file of the folder becomes PREFIX_NAME, readable for the user of the service alone."""
        prefix, source = self._value("LoadCredential").split(":")
        folder = Path("/run/credentials") / self._name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in Path(source).iterdir():
            copy = folder / f"{prefix}_{file.name}"
            copy.write_bytes(file.read_bytes())
            copy.chmod(0o400)
            shutil.chown(copy, user, user)
        shutil.chown(folder, user, user)
        return folder
