"""The delivery record: every delivery is on it, it stays small, and it can be read beside a running agent."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot.sftp.client import EmbeddedServer
from iot.spooler.cli.main import main
from iot.spooler.config.load import load
from iot.spooler.process.service import run
from iot.spooler.queue.deliveries import DELIVERIES, KEPT, Deliveries, last_delivered, last_deliveries, table
from iot.spooler.queue.policy import State
from iot.spooler.queue.queue import QUEUE_SCHEMA, Queue
from iot.spooler.queue.rows import Entry
from iot.transfer import Fingerprint, Journal, JournalUnavailable, Proof, Schema, TransferResult

PAST_S = 1_700_000_000


def entry(outbox: int, path: bytes, destination: str) -> Entry:
    values: dict[str, Any] = {**dict.fromkeys(Entry._fields), "outbox": outbox, "path": path}
    return Entry(**{**values, "destination": destination, "state": State.DELIVERED, "fingerprint": Fingerprint(3, 0)})


def result(**more: Any) -> TransferResult:
    values: dict[str, Any] = {"sent_bytes": 3, "resumed_at": 0, "seconds": 0.1, "proof": Proof.SIZE, **more}
    return TransferResult("source", "dest", 3, **values)


def noted(
    journal: Journal,
    deliveries: Deliveries,
    *items: tuple[Entry, TransferResult],
    at: float = PAST_S,
    synchronised: bool | None = True,
) -> None:
    journal.write(lambda db: deliveries.add(db, at, synchronised, items))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, QUEUE_SCHEMA, DELIVERIES)
    yield journal
    journal.close()


def test_a_delivery_is_read_back_as_it_was(tmp_path: Path, journal: Journal) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    digest = "ab" * 32
    noted(
        journal,
        Deliveries(journal),
        (entry(outbox, b"a/\xff b", "/up/a/\udcff b"), result(durable=True, sha256=digest)),
        (entry(outbox, b"a", "/elsewhere/x"), result(proof=None, possible_repeat=True)),
    )
    first, second = last_deliveries(tmp_path, 10)
    assert first == (PAST_S, "/out/a/\udcff b", "/up/a/\udcff b", 3, "size", True, False, digest, "synchronised", None)
    assert second == (PAST_S, "/out/a", "/elsewhere/x", 3, "none", False, True, None, "synchronised", None)


@pytest.mark.parametrize(
    ("synchronised", "clock", "mark"),
    [(True, "synchronised", " "), (False, "unsynchronised", "?"), (None, "unknown", " ")],
)
def test_whether_the_clock_was_synchronised_is_part_of_the_record(
    tmp_path: Path, journal: Journal, synchronised: bool | None, clock: str, mark: str
) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    noted(journal, Deliveries(journal), (entry(outbox, b"a", "/up/a"), result()), synchronised=synchronised)
    (found,) = last_deliveries(tmp_path, 10)
    assert found.clock == clock
    assert table([found]).startswith(f"2023-11-14 22:13:20{mark} size")


def test_a_record_of_an_earlier_version_does_not_know_the_clock(tmp_path: Path) -> None:
    journal = Journal(tmp_path, QUEUE_SCHEMA, Schema("deliveries", DELIVERIES.migrations[:1]))
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    journal.write(
        lambda db: db.execute(
            "INSERT INTO delivery VALUES (1, 1, ?, ?, X'61', X'2f', 1, 3, 'size', 1, 0, NULL)", (PAST_S, outbox)
        )
    )
    journal.close()
    journal = Journal(tmp_path, QUEUE_SCHEMA, DELIVERIES)
    noted(journal, Deliveries(journal), (entry(outbox, b"b", "/up/b"), result()))
    journal.close()
    assert [(item.path, item.clock) for item in last_deliveries(tmp_path, 10)] == [
        ("/out/a", "unknown"),
        ("/out/b", "synchronised"),
    ]


def test_the_newest_thousand_are_kept_and_the_journal_does_not_grow(tmp_path: Path, journal: Journal) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    deliveries = Deliveries(journal)
    sizes = []
    for batch in range(5):
        items = [(entry(outbox, b"%d" % number, f"/up/{number}"), result()) for number in range(KEPT // 2)]
        noted(journal, deliveries, *items, at=PAST_S + batch)
        sizes.append(journal.read("PRAGMA page_count")[0][0])
    found = last_deliveries(tmp_path, 10 * KEPT)
    assert [item.at - PAST_S for item in found] == [3] * (KEPT // 2) + [4] * (KEPT // 2)
    assert sizes[-1] == sizes[2]
    assert [item.path for item in last_deliveries(tmp_path, 2)] == [f"/out/{KEPT // 2 - 2}", f"/out/{KEPT // 2 - 1}"]


def test_a_later_agent_goes_on_behind_what_an_earlier_one_wrote(tmp_path: Path, journal: Journal) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    for name in (b"a", b"b"):
        noted(journal, Deliveries(journal), (entry(outbox, name, "/up/x"), result()))
    assert [item.path for item in last_deliveries(tmp_path, 10)] == ["/out/a", "/out/b"]


def test_what_a_failed_transaction_took_back_is_not_on_record(tmp_path: Path, journal: Journal) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    deliveries = Deliveries(journal)

    def fails(db: sqlite3.Connection) -> None:
        deliveries.add(db, PAST_S, True, [(entry(outbox, b"lost", "/up/lost"), result())])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.write(fails)
    noted(journal, deliveries, (entry(outbox, b"kept", "/up/kept"), result()))
    assert [item.path for item in last_deliveries(tmp_path, 10)] == ["/out/kept"]


@pytest.mark.parametrize(
    "damage", ["at = 'x'", "at = -1", "at = 253402300800", "at = 1 << 60", "path = 7.5", "base = 'x'", "size = X'ff'"]
)
def test_a_row_that_makes_no_sense_is_left_out(tmp_path: Path, journal: Journal, damage: str) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    noted(journal, Deliveries(journal), *((entry(outbox, name, "/up/x"), result()) for name in (b"a", b"b")))
    journal.write(lambda db: db.execute(f"UPDATE delivery SET {damage} WHERE path = X'61'"))
    assert [item.path for item in last_deliveries(tmp_path, 10)] == ["/out/b"]


@pytest.mark.parametrize("number", ["'x'", "2.5", str(2**63 - 1)])
def test_a_damaged_number_keeps_no_later_delivery_from_being_recorded(
    tmp_path: Path, journal: Journal, number: str
) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    noted(journal, Deliveries(journal), (entry(outbox, b"a", "/up/a"), result()))
    journal.write(lambda db: db.execute(f"UPDATE delivery SET number = {number}"))
    noted(journal, Deliveries(journal), (entry(outbox, b"b", "/up/b"), result()))
    assert "/out/b" in [item.path for item in last_deliveries(tmp_path, 10)]


def test_a_clock_that_stands_at_its_very_beginning_is_a_time_too(tmp_path: Path, journal: Journal) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    noted(journal, Deliveries(journal), (entry(outbox, b"a", "/up/a"), result()), at=0.0, synchronised=False)
    assert table(last_deliveries(tmp_path, 10)).startswith("1970-01-01 00:00:00? size ")


def test_each_line_says_how_sure_it_is_and_where_of_several_servers_a_file_went(
    tmp_path: Path, journal: Journal
) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    noted(journal, Deliveries(journal), (entry(outbox, b"a", "/up/a"), result()))
    item = entry(outbox, b"b", "/up/b"), result(published_as="/up/b.1", durable=True, possible_repeat=True)
    noted(journal, Deliveries(journal, "u@h:22"), item)
    assert table(last_deliveries(tmp_path, 10)).splitlines() == [
        f"2023-11-14 22:13:20  size {3:>27}  /out/a -> /up/a",
        f"2023-11-14 22:13:20  size durable repeat {3:>12}  /out/b -> /up/b.1 at u@h:22",
    ]
    assert last_delivered(tmp_path) == {"/up/a": PAST_S, "/up/b.1": PAST_S}


def test_where_there_is_no_record_nothing_was_delivered_as_far_as_is_known(tmp_path: Path) -> None:
    assert last_delivered(tmp_path) == {}


def test_a_journal_without_the_record_and_none_at_all_are_told_apart(tmp_path: Path) -> None:
    Journal(tmp_path / "older", QUEUE_SCHEMA).close()
    assert last_deliveries(tmp_path / "older", 10) == []
    with pytest.raises(JournalUnavailable, match=r"^there is no journal in .* yet$"):
        last_deliveries(tmp_path, 10)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "journal.db").write_bytes(b"no database" * 1000)
    with pytest.raises(JournalUnavailable, match=r"or move journal\.db away"):
        last_deliveries(tmp_path / "damaged", 10)
    assert not (tmp_path / "journal.db").exists()


def test_reading_beside_a_writer_waits_for_nobody_and_changes_nothing(tmp_path: Path, journal: Journal) -> None:
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    noted(journal, Deliveries(journal), (entry(outbox, b"a", "/up/a"), result()))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
    assert journal.write(lambda _: len(last_deliveries(tmp_path, 10))) == 1  # in the middle of a transaction
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")} == before


# -- with a real agent and a real server


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "outbox").mkdir()
    return tmp_path / "spooler.toml"


def deliver(config: Path, server: EmbeddedServer, names: list[str]) -> None:
    folder = config.parent
    config.write_text(
        f'state_dir = "{folder / "state"}"\n[server]\nhost = "{server.host}"\nport = {server.port}\n'
        f'user = "{server.user}"\npassword = "{server.password}"\nhost_key = "{server.host_key}"\n'
        f'[[outbox]]\npath = "{folder / "outbox"}"\ndestination = "/up"\n'
    )
    config.chmod(0o600)
    for name in names:
        (folder / "fresh").write_text(name)
        os.utime(folder / "fresh", (PAST_S, PAST_S))
        os.rename(folder / "fresh", folder / "outbox" / name)
    run(config, {}, drain=True)


def test_what_an_agent_delivered_is_on_record_after_the_file_has_left(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "remote").mkdir()
    with EmbeddedServer(tmp_path / "remote") as server:
        deliver(config, server, ["one", "two words"])
        deliver(config, server, ["three"])
    assert list((tmp_path / "outbox").iterdir()) == []
    assert main(["deliveries", "--json", "--config", str(config)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(item["path"] for item in told[:2]) == [f"{tmp_path}/outbox/one", f"{tmp_path}/outbox/two words"]
    assert told[2] == {
        "at": told[2]["at"],
        "path": f"{tmp_path}/outbox/three",
        "destination": "/up/three",
        "bytes": 5,
        "proof": "size",
        "durable": True,
        "repeat": False,
        "sha256": None,
        "clock": told[2]["clock"],
        "server": None,
    }
    assert told[2]["clock"] in ("synchronised", "unsynchronised", "unknown")
    assert main(["deliveries", "--last", "1", "--config", str(config)]) == 0
    line = capsys.readouterr().out
    assert line.endswith(f"size durable                   5  {tmp_path}/outbox/three -> /up/three\n")
    assert load(config, {}).state_dir == tmp_path / "state"


def test_before_the_first_delivery_the_command_says_so(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "remote").mkdir()
    with EmbeddedServer(tmp_path / "remote") as server:
        deliver(config, server, [])
    assert main(["deliveries", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "nothing was delivered yet\n"


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_a_number_that_makes_no_sense_is_refused(config: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["deliveries", "--last", number, "--config", str(config)])
    assert f"--last: invalid number value: '{number}'" in capsys.readouterr().err


def test_the_last_twenty_are_told_where_no_number_is_given(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(
        f'state_dir = "{tmp_path / "state"}"\n[server]\nkind = "folder"\npath = "{tmp_path}"\n'
        f'[[outbox]]\npath = "{tmp_path / "outbox"}"\ndestination = "/up"\n'
    )
    journal = Journal(tmp_path / "state", QUEUE_SCHEMA, DELIVERIES)
    outbox, _ = Queue(journal).outbox(b"/out", "/up")
    noted(journal, Deliveries(journal), *((entry(outbox, b"%d" % each, f"/up/{each}"), result()) for each in range(25)))
    journal.close()
    for words, expected in (([], range(5, 25)), (["--last", "30"], range(25))):
        assert main(["deliveries", "--json", "--config", str(config), *words]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [item["destination"] for item in told] == [f"/up/{each}" for each in expected]
