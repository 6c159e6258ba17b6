"""Whatever is new in the status is told as a change: else it would be written, and seen, only with the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unit.inbox_lab import InboxLab
from unit.test_inbox_orders import Script

from iot.spooler.agent.agent import Agent
from iot.spooler.status.status import snapshot

PASSES = (".connection.next_attempt_at", ".outboxes.0.waiting")
"""When a wait is over that is no news yet: the try is, in the same moment."""


class Told:
    """untold: what was new in the status although no change was told. in_vain: changes that were told, without one.
    last: the status, flat."""

    def __init__(self, lab: InboxLab) -> None:
        self.untold: list[str] = []
        self.reports = self.in_vain = 0
        self._lab = lab
        self.last: dict[str, Any] = {}
        lab.loop.report = self._report  # type: ignore[method-assign]

    def _report(self, agent: Agent, *, changed: bool, final: bool = False) -> None:
        now = _flat("", snapshot(agent, self._lab.loop.wall(), self._lab.loop.now))
        news = {key for key, _ in now.items() ^ self.last.items()}.difference(PASSES)
        self.reports += 1
        self.in_vain += changed and not news
        if not changed and not final:
            self.untold += [f"{key}: {self.last.get(key)} -> {now.get(key)}" for key in news]
        self.last = now


def _flat(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        return {key: value}
    return {name: each for at, part in parts for name, each in _flat(f"{key}.{at}", part).items()}


def test_all_that_is_new_in_the_status_is_told_and_little_else(tmp_path: Path) -> None:
    lab = InboxLab(tmp_path, name="config", poll_s=5)
    lab.put("a", b"a")
    told = Told(lab)
    script = Script(lab)
    away, content = tmp_path / "away", b"x" * 100
    (lab.base / "server" / "up" / "refused").mkdir(parents=True)
    script.do(1, lambda: (lab.box / "f").write_bytes(content))
    script.ask(10, "suspend")
    script.do(12, lambda: (lab.box / "g").write_bytes(content))
    script.ask(20, "resume")
    script.ask(30, "stop")
    script.ask(40, "start")
    script.do(50, lambda: lab.box.rename(away))
    script.do(70, lambda: away.rename(lab.box))
    script.do(80, lambda: lab.here.rename(away))
    script.do(81, lambda: lab.put("b", b"b"))
    script.do(95, lambda: away.rename(lab.here))
    script.do(110, lambda: (lab.base / "server").rename(away))
    script.do(111, lambda: (lab.box / "h").write_bytes(content))
    script.do(130, lambda: away.rename(lab.base / "server"))
    script.ask(135, "flush")
    script.do(140, lambda: (lab.box / "refused").write_bytes(content))
    script.run(300)
    assert lab.loop.now > script.began + 290
    assert told.untold == []
    assert told.in_vain < told.reports / 5
    assert (told.last[".quarantined"], told.last[".delivered.files"], told.last[".inboxes.0.taken"]) == (1, 3, 2)


def test_of_a_source_that_fails_for_years_the_failures_are_told_ever_more_rarely(tmp_path: Path) -> None:
    lab = InboxLab(tmp_path)
    told: list[int] = []
    seen: set[int] = set()

    def report(agent: Agent, *, changed: bool, final: bool = False) -> None:
        failures = agent.intakes[0].failures
        if changed and failures not in seen and not final:
            told.append(failures)
        seen.add(failures)

    lab.loop.report = report  # type: ignore[method-assign]
    lab.box.rmdir()
    lab.loop.stop_at = lab.loop.now + 600
    lab.run(drain=False)
    assert max(seen) > 16
    assert [each for each in told if each] == [2**power for power in range(max(seen).bit_length())]
