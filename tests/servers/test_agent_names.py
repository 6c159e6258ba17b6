"""Names on the server, decided once for each version of a file, whatever clock and process do meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from quarantined import quarantined
from servers.bad_input import Site, until
from servers.openssh import OpenSSH

YEAR_S = 365 * 24 * 3600


@pytest.fixture
def site(sshd: OpenSSH, tmp_path: Path) -> Site:
    return Site(sshd, tmp_path / "device")


def into(site: Site, template: str) -> None:
    site.outbox["destination"] = site.server.path(f"up/{template}")


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:8]


def test_every_field_is_filled_in(site: Site) -> None:
    into(site, "{device_id}/{outbox}/{date:%Y/%m}/{mtime:%d%H%M%S}/{boot_id}/{seq:6}/{hash8}")
    os.utime(site.put("sub/a.csv", b"content"), (1_700_000_000, 1_700_000_000))
    done = site.drain()
    assert done.returncode == 0, done.stderr
    (name,) = site.arrived()
    hash8 = hashlib.sha256(b"content").hexdigest()[:8]
    assert re.fullmatch(rf"gw/box/2023/11/14221320/{boot()}/\d{{6}}/{hash8}/sub/a\.csv", name), name
    assert site.left() == []


def test_with_a_number_no_version_of_a_file_overwrites_another_when_the_clock_goes_back(site: Site) -> None:
    into(site, "{seq}")
    now = time.time()
    for version, second in enumerate([now, now - 10 * YEAR_S, 0]):
        os.utime(site.put("log", b"version %d" % version), (second, second))
        assert site.drain().returncode == 0
    names = site.arrived()
    assert len(names) == 3
    assert [site.content(name) for name in names] == [b"version 0", b"version 1", b"version 2"]  # sorted by name


def test_a_name_that_was_begun_is_kept_when_the_agent_is_killed(site: Site) -> None:
    into(site, "{boot_id}-{seq}-{mtime}")
    site.put("large", os.urandom(64 << 20))
    site.top["log_level"] = "info"
    for _ in range(3):
        with site.running("run") as agent:
            until(lambda: any(name.endswith(".part") for name in site.arrived()), 60)
            agent.send_signal(signal.SIGKILL)
            agent.wait()
    assert site.drain().returncode == 0
    (name,) = site.arrived()
    assert name.endswith("/large")
    assert site.left() == []


def test_files_that_wait_without_a_hash_get_one_when_the_template_asks_for_it(site: Site) -> None:
    site.put("a", b"one")
    site.put("b", b"two")
    done = site.drain(port=1)
    assert done.returncode == 75, done.stderr
    into(site, "{hash8}")
    done = site.drain()
    assert done.returncode == 0, done.stderr
    hashes = {name: hashlib.sha256(content).hexdigest()[:8] for name, content in [("a", b"one"), ("b", b"two")]}
    assert site.arrived() == sorted(f"{hash8}/{name}" for name, hash8 in hashes.items())


def test_a_bad_template_is_refused_at_the_start_with_its_line(site: Site) -> None:
    into(site, "{date:%Q}")
    done = site.spooler("check")
    assert done.returncode == 78
    assert done.stderr.startswith("outbox[0].destination = ")
    assert "{date:%Q}: unknown %Q; known are %Y" in done.stderr
    assert re.search(r"spooler\.toml:\d+\)$", done.stderr.strip()), done.stderr


def test_the_name_is_on_disk_before_the_first_byte_is_sent(site: Site) -> None:
    """The row says where the file goes while the server still refuses everything."""
    into(site, "{seq}-{hash8}")
    site.put("a", b"one")
    (site.server.root / "up").write_text("a file where the folder should be")
    done = site.drain()
    assert done.returncode != 0
    db = sqlite3.connect(site.state / "journal.db")
    names = [row[0] for row in db.execute("SELECT destination FROM entry")]
    db.close()
    assert len(names) == 1
    assert re.fullmatch(rb".*/up/\d{10}-[0-9a-f]{8}/a", names[0]), names


# -- rules


def rules(site: Site, *tables: dict[str, str]) -> None:
    site.outbox["rules"] = list(tables)


def test_rules_change_the_names_in_series_and_what_none_matches_goes_to_quarantine(site: Site) -> None:
    rules(
        site,
        {"match": "*.csv", "action": "replace-separator", "value": "_"},
        {"match": "LOGS/*", "action": "lowercase"},
        {"match": "*.csv", "action": "prefix", "value": "{device_id}-"},
    )
    for name in ("A/b/c.csv", "LOGS/X.LOG", "LOGS/d.csv", "other.txt"):
        site.put(name, name.encode())
    done = site.drain()
    assert done.returncode == 75, done.stderr
    assert {name: site.content(name) for name in site.arrived()} == {
        "gw-A_b_c.csv": b"A/b/c.csv",
        "gw-logs_d.csv": b"LOGS/d.csv",
        "logs/x.log": b"LOGS/X.LOG",
    }
    assert site.left() == []
    (file,) = quarantined(site.state / "quarantine")
    assert (file.record["path"], file.record["reason"]) == ("other.txt", "no rule matches this file")
    rules(site, {"action": "no-action"})
    assert site.spooler("quarantine", "retry").returncode == 0
    assert site.drain().returncode == 0
    assert "other.txt" in site.arrived()


def test_a_hostile_name_and_a_regular_expression_that_cannot_bear_it_hold_up_no_other_file(site: Site) -> None:
    rules(site, {"action": "replace", "regex": "(a|a)*b", "value": "x"})
    for folder in range(3):
        site.put(f"{folder}/" + "a" * 250)
    site.put("good-b")
    began = time.monotonic()
    done = site.drain()
    assert done.returncode == 75, done.stderr
    assert site.arrived() == ["good-x"]
    assert time.monotonic() - began < 30
    reasons = {file.record["reason"] for file in quarantined(site.state / "quarantine")}
    assert reasons == {"the regular expressions of the rules take longer than 0.1 s for it"}


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ([{"action": "rename"}], r"outbox\[0\]\.rules\[0\]\.action = 'rename': .*'no-action'"),
        ([{"action": "replace-separator", "value": "ab"}], r"outbox\[0\]\.rules\[0\].*the one character"),
        ([{"action": "lowercase", "wit": "x"}], r"outbox\[0\]\.rules\[0\]\.wit: no such setting"),
        ([{"match": "re:(", "action": "lowercase"}], r"outbox\[0\]\.rules\[0\].*not a regular expression"),
        (
            [
                {"action": "replace", "regex": "_", "value": "-"},
                {"action": "lowercase"},
                {"action": "replace", "regex": "-", "value": "_"},
            ],
            r"outbox\[0\]\.rules\[0\] = replace and outbox\[0\]\.rules\[2\] = replace: the later one undoes",
        ),
    ],
)
def test_a_bad_rule_is_refused_at_the_start_with_its_line(site: Site, tables: list[dict[str, str]], told: str) -> None:
    rules(site, *tables)
    done = site.drain()
    assert done.returncode == 78, done.stderr
    assert re.search(told, done.stderr), done.stderr
    assert re.search(r"spooler\.toml:\d+", done.stderr), done.stderr


def test_rules_that_may_give_two_files_one_name_are_warned_of(site: Site) -> None:
    rules(site, {"action": "only-filename"})
    done = site.spooler("check")
    assert done.returncode == 0, done.stderr
    assert "warning: outbox box: only-filename may give different files one name" in done.stderr
    rules(site, {"action": "only-filename"}, {"action": "prefix", "value": "{seq}-"})
    assert "may give" not in site.spooler("check").stderr


# -- collisions


def deliveries(site: Site) -> list[dict[str, Any]]:
    return json.loads(site.spooler("deliveries", "--json").stdout)  # type: ignore[no-any-return]


def occupied(site: Site, name: str, content: bytes) -> None:
    path = site.server.root / "up" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_overwrite_is_the_default(site: Site) -> None:
    occupied(site, "a.csv", b"theirs")
    site.put("a.csv", b"mine")
    assert site.drain().returncode == 0
    assert site.content("a.csv") == b"mine"


@pytest.mark.parametrize(
    ("collision", "pattern", "always"),
    [
        ("timestamp", r"a-20231114T221320Z\.csv", False),
        ("unique", r"a-[0-9a-f]{8}\.csv", False),
        ("timestamp-always", r"a-20231114T221320Z\.csv", True),
    ],
)
def test_a_taken_name_is_gone_round_and_the_delivery_record_says_which(
    site: Site, collision: str, pattern: str, always: bool
) -> None:
    site.outbox["collision"] = collision
    occupied(site, "a.csv", b"theirs")
    for name in ("a.csv", "b.csv"):
        os.utime(site.put(name, b"mine"), (1_700_000_000, 1_700_000_000))
    done = site.drain()
    assert done.returncode == 0, done.stderr
    assert site.content("a.csv") == b"theirs"
    (name,) = [name for name in site.arrived() if name.startswith("a-")]
    assert re.fullmatch(pattern, name)
    assert site.content(name) == b"mine"
    assert ("b.csv" in site.arrived()) is not always
    assert site.server.path(f"up/{name}") in [item["destination"] for item in deliveries(site)]
    assert site.left() == []


def test_what_is_skipped_stays_in_the_outbox_and_is_tried_again_when_it_changes(site: Site) -> None:
    site.outbox["collision"] = "skip"
    occupied(site, "a.csv", b"theirs")
    site.put("a.csv", b"mine")
    done = site.drain()
    assert done.returncode == 0, done.stderr
    assert "skipped path=a.csv" in done.stderr
    assert (site.content("a.csv"), site.left()) == (b"theirs", ["a.csv"])
    assert deliveries(site) == []
    assert "skipped path" not in site.drain().stderr  # remembered
    (site.server.root / "up/a.csv").unlink()
    site.put("a.csv", b"mine, changed")
    assert site.drain().returncode == 0
    assert (site.content("a.csv"), site.left()) == (b"mine, changed", [])


def test_what_fails_goes_to_quarantine_with_the_reason(site: Site) -> None:
    site.outbox["collision"] = "fail"
    site.retry["max_attempts"] = 1
    occupied(site, "a.csv", b"theirs")
    site.put("a.csv", b"mine")
    assert site.drain().returncode == 75
    assert site.content("a.csv") == b"theirs"
    (file,) = quarantined(site.state / "quarantine")
    assert "is not to be replaced" in file.record["reason"]


def test_an_agent_that_is_killed_again_and_again_gives_no_file_two_names(site: Site) -> None:
    site.outbox["collision"] = "unique"
    contents = {f"f{number}": os.urandom(20_000) for number in range(200)}
    for name, content in contents.items():
        occupied(site, name, b"theirs")
        site.put(name, content)
    moments = random.Random(7)
    for _ in range(6):
        with site.running("run") as agent:
            time.sleep(0.4 + moments.random() / 4)
            agent.send_signal(signal.SIGKILL)
            agent.wait()
    assert site.drain().returncode == 0
    arrived = [name for name in site.arrived() if ".part" not in name]
    assert {name for name in arrived if "-" not in name} == set(contents)
    mine = [name for name in arrived if "-" in name]
    assert sorted(name.partition("-")[0] for name in mine) == sorted(contents)
    assert all(site.content(name) == contents[name.partition("-")[0]] for name in mine)
    assert site.left() == []


def test_a_collision_that_direct_write_cannot_keep_is_refused_at_the_start(site: Site) -> None:
    site.outbox["collision"] = "fail"
    done = site.spooler("check", direct_write=True)
    assert done.returncode == 78
    assert "server.direct_write = True and outbox[0].collision = 'fail': a file that is written directly" in done.stderr
