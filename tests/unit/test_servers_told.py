"""The servers of a process: what is told of a change and of the other server, and what cannot go wrong with either."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from unit.test_fallback import AFTER_S, CAP_S, CHECK_S, DOWN, REFUSED
from unit.test_servers_in_use import Asked, Lab

from iot.spooler.process.servers import FILE, LEAVE_S, Servers, _rules
from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import TO_DO, Availability
from iot.spooler.state import held
from iot.transfer import Timeout


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def fresh(lab: Lab) -> None:
    """The agent of the other server has begun."""
    lab.agent.server = Availability(Backoff(1.0, 60.0), Backoff(1.0, 60.0), lambda: 0.0)


def asked(lab: Lab, servers: Servers, error: Any = None) -> Asked:
    """The other server is asked, and has answered."""
    lab.look(servers)
    probe = lab.probes[-1]
    probe.is_over, probe.error = True, error
    lab.look(servers)
    return probe


def down(lab: Lab) -> None:
    lab.agent.server.lost(DOWN, lab.clock.now)
    lab.clock.now += 2 * AFTER_S


def test_without_a_second_server_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    lab = Lab(tmp_path, fallback=None)
    servers = lab.servers()
    down(lab)
    assert not lab.look(servers)
    servers.wake()
    servers.close()
    assert (servers.is_second, servers.is_leaving, servers.drains_on(lab.agent.server)) == (False, False, False)
    assert servers.next_s(lab.agent) == float("inf")
    assert not lab.servers(drain=True).drains_on(lab.agent.server)


def test_a_drain_asks_nobody_beside_its_own_work(lab: Lab) -> None:
    servers = lab.servers(drain=True)
    down(lab)
    assert not lab.look(servers)
    assert (lab.probes, servers.next_s(lab.agent)) == ([], float("inf"))


def test_whoever_has_no_drain_goes_on_with_no_other_server_at_its_end(lab: Lab) -> None:
    for _ in range(2 * lab.settings.retry.drain_attempts):
        lab.agent.server.lost(DOWN, lab.clock.now)
    assert not lab.servers().drains_on(lab.agent.server)


def test_each_server_has_a_record_of_its_own_for_its_holds(lab: Lab) -> None:
    servers = lab.servers()
    assert servers.hold_file == held.FILE
    lab.leave(servers)
    servers.switch(lab.agent.server)
    assert servers.hold_file == held.FALLBACK_FILE
    servers.switch(lab.agent.server)
    assert servers.hold_file == held.FILE


def test_who_asks_for_a_try_has_the_other_server_asked_before_its_time(lab: Lab) -> None:
    servers = lab.servers()
    down(lab)
    asked(lab, servers, DOWN)
    lab.look(servers)
    assert len(lab.probes) == 1
    servers.wake()
    assert servers.next_s(lab.agent) == 0.0
    lab.look(servers)
    assert len(lab.probes) == 2


def test_the_change_and_the_way_back_are_told_with_their_reasons(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    servers = lab.servers()
    lab.leave(servers)
    servers.switch(lab.agent.server)
    fresh(lab)
    servers.switch(lab.agent.server)
    servers.switch(lab.agent.server)
    told = [line for line in caplog.messages if line.startswith("server changed")]
    assert told == [
        'server changed to=b:22 from=a:22 reason="LinkLost: no answer"',
        'server changed to=a:22 from=b:22 reason="it answers again"',
        'server changed to=b:22 from=a:22 reason="it does not answer"',
    ]


def test_what_is_in_flight_at_a_server_that_is_left_has_its_time_each_time_anew(lab: Lab) -> None:
    servers = lab.servers()
    lab.leave(servers)
    servers.switch(lab.agent.server)
    lab.cancels = 0
    fresh(lab)
    lab.agent.server.progressed()
    lab.clock.now += 86400
    servers.wake()
    asked(lab, servers)
    lab.clock.now += 86400
    servers.wake()
    asked(lab, servers)
    assert (servers.is_leaving, lab.cancels) == (True, 0)
    lab.clock.now += LEAVE_S - 1
    lab.look(servers)
    assert lab.cancels == 0
    lab.clock.now += 1
    lab.look(servers)
    lab.look(servers)
    assert lab.cancels == 2


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        (None, "INFO", "other server answers server=b:22"),
        (Timeout("silent"), "WARNING", 'other server down server=b:22 error="Timeout: silent" next_s=60'),
        (REFUSED, "ERROR", f'other server held server=b:22 error="LoginRefused: not you" next_s=900 to_do={TO_DO}'),
    ],
)
def test_each_answer_of_the_other_server_is_told_as_what_it_is(
    lab: Lab, error: Any, level: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    servers = lab.servers()
    down(lab)
    asked(lab, servers, error)
    told = [(record.levelname, record.getMessage()) for record in caplog.records if "other server" in record.message]
    assert told == [(level, words)]


def test_another_error_than_the_last_one_is_news_and_so_is_the_same_after_a_change(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    servers = lab.servers()
    down(lab)
    for error in (DOWN, DOWN, Timeout("silent"), DOWN):
        asked(lab, servers, error)
        lab.clock.now += CAP_S
    assert [line.partition("error=")[2].partition(" next")[0] for line in caplog.messages] == [
        '"LinkLost: no answer"', '"Timeout: silent"', '"LinkLost: no answer"',
    ]  # fmt: skip
    servers.switch(lab.agent.server)
    servers.switch(lab.agent.server)
    caplog.clear()
    down(lab)
    asked(lab, servers, DOWN)
    assert len(caplog.messages) == 1


def test_a_question_that_is_not_answered_yet_is_no_news(lab: Lab) -> None:
    servers = lab.servers()
    down(lab)
    lab.look(servers)
    assert not lab.look(servers)
    assert len(lab.probes) == 1
    lab.probes[0].is_over = True
    assert lab.look(servers)
    assert not lab.look(servers)
    assert len(lab.carried) == 1


def test_the_status_shows_when_the_other_server_is_asked_next(lab: Lab) -> None:
    servers = lab.servers()
    plain = {"server": "b:22", "table": "fallback", "next_attempt_at": None, "error": None}
    assert servers.figures(2e9) == plain
    down(lab)
    asked(lab, servers, DOWN)
    assert servers.figures(2e9) == {**plain, "next_attempt_at": 2_000_000_060, "error": '"no answer"'}
    lab.clock.now += CHECK_S
    assert servers.figures(2e9) == {**plain, "error": '"no answer"'}
    servers.switch(lab.agent.server)
    figures = servers.figures(2e9)
    assert figures is not None
    assert (figures["server"], figures["table"], figures["error"]) == ("a:22", "server", None)


def test_a_question_is_cancelled_once(lab: Lab) -> None:
    servers = lab.servers()
    servers.close()
    down(lab)
    lab.look(servers)
    for _ in range(2):
        servers.close()
        lab.probes[0].is_over = True
        assert not lab.look(servers)


def test_a_server_that_cannot_be_recorded_is_used_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = lab.servers()
    lab.leave(servers)
    (lab.settings.state_dir / "fallback.new").mkdir()
    servers.switch(lab.agent.server)
    assert servers.is_second
    assert "cannot record which server is used" in caplog.text
    assert not (lab.settings.state_dir / FILE).exists()
    servers.switch(lab.agent.server)  # there is nothing to remove
    assert caplog.text.count("cannot record") == 1


def test_the_record_is_never_half_written_and_nobody_elses(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed: list[tuple[str, str, int]] = []
    real = Path.rename

    def rename(path: Path, to: Path) -> Path:
        renamed.append((path.name, path.read_text(), os.stat(path).st_mode & 0o777))
        return real(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    servers = lab.servers()
    lab.leave(servers)
    servers.switch(lab.agent.server)
    ((name, content, mode),) = renamed
    assert (name, mode) == ("fallback.new", 0o600)
    assert '"account"' in content


def test_a_second_server_that_was_used_and_is_no_longer_configured_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"account": null}')
    assert not Lab(tmp_path, fallback=None).servers().is_second


def test_waits_for_the_other_server_are_those_of_the_settings(tmp_path: Path) -> None:
    given = {"fallback_check_s": 7.0, "fallback_after_s": 8.0, "fallback_back_after_s": 9.0}
    retry = {"cap_s": 100.0, "base_s": 1.0, "auth_hold_s": 200.0, "auth_hold_max_s": 300.0, "herd_window_s": 0}
    rules = _rules(Lab(tmp_path, **given, retry=retry).settings)
    assert (rules.after_s, rules.back_after_s, rules.when_held) == (8.0, 9.0, False)
    assert (rules.check.base_s, rules.check.cap_s) == (7.0, 100.0)
    assert (rules.hold.base_s, rules.hold.cap_s) == (200.0, 300.0)
    rules = _rules(Lab(tmp_path, fallback_check_s=101.0, retry=retry).settings)
    assert (rules.check.base_s, rules.check.cap_s) == (101.0, 101.0)
