"""The hooks of the laboratory: what they say is ordered, and they are programs that need no time of their own.

They run in the agent's process, in place of `iot.spooler.commands.Command`. What each judged is told to the laboratory.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iot.spooler.commands import Ended

if TYPE_CHECKING:
    from faults.lab_process import Loop

__all__ = ["BAD", "HOOK_LIMIT_S", "MOODS", "REFUSES", "Judged", "commands_of"]

MOODS = ("good", "good", "good", "bad", "later", "hangs", "crashes", "kills the agent")
"""Of all hooks of a life. good: they refuse nothing but contents that begin with BAD."""
BAD = b"bad "
HOOK_LIMIT_S = 5
REFUSES = 1
CODES = {"bad": REFUSES, "later": 75, "crashes": -11, "hangs": -9}


class Judged(NamedTuple):
    """A hook that has ended, with what lay at IOT_PATH then; None: nothing."""

    hook: str
    content: bytes | None
    remote_path: str
    code: int


def commands_of(loop: Loop) -> type:
    """What stands for Command in this agent."""

    class LabCommand:
        """words: anything, and the name of the hook."""

        def __init__(
            self, words: Sequence[str], environment: Mapping[str, str], kill_at: float, *, heard: bool = False
        ) -> None:
            del heard
            self._hook = words[-1]
            self._environment = environment
            self._kill_at = kill_at

        def poll(self, now: float) -> Ended | None:
            loop.step()
            mood = loop.order.mood
            if mood == "hangs" and now < self._kill_at:
                return None
            if mood == "kills the agent":
                loop.line.send(("dying",))
                os.kill(os.getpid(), signal.SIGKILL)
            content = self._content()
            code = CODES.get(mood, int(content is None or content.startswith(BAD)))
            judged = Judged(self._hook, content, self._environment["IOT_REMOTE_PATH"], code)
            loop.line.send(("judged", judged))
            return Ended(None if mood == "hangs" else code)

        def kill(self) -> None:
            """There is nothing to kill."""

        def _content(self) -> bytes | None:
            try:
                with loop.unseen():
                    return Path(self._environment["IOT_PATH"]).read_bytes()
            except OSError:
                return None

    return LabCommand
