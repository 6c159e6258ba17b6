"""An agent that is not run: its pieces are those of a test, which note what is asked of them, and answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from unit.agent_rig import Rig

from iot.sftp.client import Journal
from iot.spooler.agent.agent import Agent
from iot.spooler.config.settings import Settings
from iot.spooler.outbox.intake import Clocks
from iot.spooler.queue.queue import QUEUE_SCHEMA

__all__ = ["NEVER", "Piece", "Quiet"]

NEVER = float("inf")


class Piece:
    """calls: where it notes what it is asked, as "name.what". answers: what comes of that, or what does; else None."""

    def __init__(self, name: str, calls: list[str], **answers: Any) -> None:
        self._name, self._calls, self._answers = name, calls, answers

    def __getattr__(self, what: str) -> Callable[..., Any]:
        def asked(*given: Any, **more: Any) -> Any:
            self._calls.append(f"{self._name}.{what}")
            answer = self._answers.get(what)
            return answer(*given, **more) if callable(answer) else answer

        return asked


class Quiet(AbstractContextManager["Quiet"]):
    """An agent with an outbox and nothing to do: `agent`, and around it the pieces by their names. calls: of them."""

    def __init__(self, tmp_path: Path, **options: bool) -> None:
        self.rig = Rig(tmp_path)
        self.loop = self.rig.loop
        self.calls: list[str] = []
        self.reports: list[bool] = []
        self.settings = Settings.model_validate(self.rig.settings())
        self.journal = Journal(self.settings.state_dir, QUEUE_SCHEMA)
        self.agent = self.made(**options)
        self.loop.report = lambda agent, *, changed, final=False: self.reports.append(bool(changed))
        self.intake = self.box("box")
        self.agent.intakes = [self.intake]
        self.agent.queue = self.queue = self.piece("queue", made_ready=3, totals=list)
        self.agent.outcomes = self.outcomes = self.piece("outcomes", unrecorded=0, destination_failed=lambda _: "")
        self.agent.pull = self.pull = self.piece("pull", inboxes=[], next_at=lambda: NEVER, claims=lambda: False)
        self.agent.gates = self.gates = self.piece(
            "gates", look_at=NEVER, suspended=lambda _: "", allowed_up_to=lambda least: least
        )
        self.agent.budget = self.budget = self.piece("budget", look_at=lambda: NEVER)
        self.agent.owed = self.owed = self.piece("owed", waiting=SimpleNamespace(next_s=NEVER))
        self.before, self.after = self.piece("before"), self.piece("after", is_idle=lambda: True)
        self.batches = self.piece("batches")
        self.agent.hooks = self.hooks = self.piece(
            "hooks", before=self.before, after=self.after, batches=SimpleNamespace(before=self.batches),
            look_at=lambda: NEVER,
        )  # fmt: skip
        self.agent.packing = self.packing = self.piece("packing")
        self.agent.pacer = self.pacer = self.piece("pacer", rate=None)
        self.agent.dispatcher = self.dispatcher = self.piece("dispatcher")
        self.agent._restarted = True
        self.agent._look_at_states()  # the first of each is news
        self.agent._changed = False
        self.calls.clear()

    def made(self, **options: bool) -> Any:
        clocks = Clocks(lambda: self.loop.now, self.loop.wall)
        return Agent(self.settings, self.journal, self.rig.remote, self.loop, clocks, lambda: 0.0, **options)

    def piece(self, name: str, **answers: Any) -> Any:
        """Those answers that are no functions are its attributes."""
        made = Piece(name, self.calls, **{key: answer for key, answer in answers.items() if callable(answer)})
        made.__dict__.update({key: answer for key, answer in answers.items() if not callable(answer)})
        return made

    def box(self, label: str, number: int = 1) -> Any:
        return self.piece(
            label, number=number, settings=SimpleNamespace(label=label), stopped=False, failed=None, walking=False,
            failures=0, passes=1, outbox=self.piece(f"{label}'s outbox"), next_step=lambda: NEVER,
        )  # fmt: skip

    def answer(self, piece: Any, **answers: Any) -> None:
        piece._answers.update(answers)

    def __exit__(self, *_: object) -> None:
        self.journal.close()
