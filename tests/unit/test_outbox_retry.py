"""Each outbox may have its own counts and waits of tries; what it does not set is that of [retry]."""

import itertools

import pytest
from unit.agent_rig import Rig

from iot.sftp.client import PermissionDenied
from iot.spooler.agent import assembly
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.config.settings import Settings

HEAD = """
state_dir = "/state"
[server]
host = "h"
[retry]
base_s = 2.0
cap_s = 60.0
[[outbox]]
path = "/box"
destination = "/up"
"""


def problems(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_text(HEAD + text)
    with pytest.raises(BadConfiguration) as caught:
        load(path, {})
    return [line.replace(str(path), "c.toml") for line in caught.value.problems]


class TwoOutboxes(Rig):
    """The second one gives up at once."""

    def __init__(self, tmp_path):
        super().__init__(tmp_path)
        self.other = tmp_path / "other"
        self.other.mkdir()
        self.outbox["retry"] = {"max_attempts": 4, "base_s": 100.0}

    def settings(self):
        hasty = {"path": str(self.other), "destination": "/up", "settle_s": 0, "retry": {"max_attempts": 1}}
        return {**super().settings(), "outbox": [self.outbox, hasty]}


def test_each_outbox_gives_up_and_waits_as_it_says(tmp_path):
    rig = TwoOutboxes(tmp_path)
    rig.retry = {"cap_s": 300.0}
    rig.put("patient")
    (rig.other / "hasty").write_bytes(b"x")
    tried: dict[str, list[float]] = {}
    rig.remote.before = lambda job: tried.setdefault(job.dest, []).append(rig.loop.now)
    rig.remote.refuse = dict.fromkeys(("/up/patient", "/up/hasty"), PermissionDenied("no"))
    rig.loop.stop_at = 3000.0
    rig.run(drain=False)
    assert len(tried["/up/hasty"]) == 1
    assert len(tried["/up/patient"]) == 4
    waits = [round(after - before, -1) for before, after in itertools.pairwise(tried["/up/patient"])]
    assert waits == [100, 200, 300]  # cap_s is that of [retry]


def test_what_an_outbox_does_not_set_is_that_of_retry(tmp_path):
    (tmp_path / "c.toml").write_text(HEAD + "[outbox.retry]\nmax_attempts = 3\n")
    settings = load(tmp_path / "c.toml", {})
    effective = settings.retry_of(settings.outbox[0])
    assert (effective.base_s, effective.cap_s, effective.max_attempts) == (2.0, 60.0, 3)
    assert settings.retry.max_attempts == 8


def test_first_waits_of_a_drain_are_capped_as_all_are():
    settings = Settings.model_validate(
        {
            "state_dir": "/s",
            "server": {"host": "h"},
            "retry": {"base_s": 20.0},
            "outbox": [{"path": "/o", "destination": "/d"}],
        }
    )
    rules = assembly._rules(settings.retry, drain=True)
    assert rules.backoff.base_s == rules.backoff.cap_s == assembly.DRAIN_CAP_S


def test_the_environment_sets_it_too(tmp_path):
    (tmp_path / "c.toml").write_text(HEAD)
    settings = load(tmp_path / "c.toml", {"IOT_SPOOLER_OUTBOX__0__RETRY__CAP_S": "90"})
    assert settings.retry_of(settings.outbox[0]).cap_s == 90


def test_every_wrong_key_is_reported_with_its_line(tmp_path):
    told = problems(tmp_path, '[outbox.retry]\nbase_s = "1"\ncap_s = 0\nmax_atempts = 3\n')
    assert told == [
        "outbox[0].retry.base_s = '1': must be a number, without quotes (from c.toml:12)",
        "outbox[0].retry.cap_s = 0: must be greater than 0 (from c.toml:13)",
        "outbox[0].retry.max_atempts: no such setting; perhaps outbox.retry.max_attempts (from c.toml:14)",
    ]


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("base_s = 61.0", "outbox[0].retry.base_s = 61.0 and retry.cap_s = 60.0"),
        ("cap_s = 1.0", "retry.base_s = 2.0 and outbox[0].retry.cap_s = 1.0"),
    ],
)
def test_a_longest_wait_below_the_first_is_a_contradiction_also_across_tables(tmp_path, table, keys):
    (line,) = problems(tmp_path, f"[outbox.retry]\n{table}\n")
    assert line.startswith(f"{keys}: the waits begin with base_s and may not be longer than cap_s")


def test_within_the_table_too(tmp_path):
    (line,) = problems(tmp_path, "[outbox.retry]\nbase_s = 5.0\ncap_s = 3.0\n")
    assert line == "outbox[0].retry.cap_s = 3.0: is less than base_s = 5.0, with which the waits begin (from c.toml:13)"


def test_a_table_that_is_none_is_reported(tmp_path):
    (line,) = problems(tmp_path, "retry = 3\n")
    assert line.startswith("outbox[0].retry = (hidden): must be a table, begun with [outbox.retry] ")
