"""A refused login holds the server for the next process, too, as long as it would be refused for the same reasons."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from iot.spooler.config.load import load
from iot.spooler.queue.policy import Backoff
from iot.spooler.server.availability import Availability, ServerState
from iot.spooler.state.elapsed import Moment
from iot.spooler.state.held import FALLBACK_FILE, FILE, Held, _content, release
from iot.transfer import LoginRefused

SECRET = "correct-horse-battery"


class Device:
    """Its clock since boot is moved by hand; its wall clock is never right."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 1000.0
        self.environment: dict[str, str] = {}
        (folder / "state").mkdir()
        (folder / "password").write_text(SECRET)
        (folder / "known_hosts").write_text("")
        self.configure()

    def configure(self, more: str = "", known_hosts: str | None = None) -> None:
        trusted = f'known_hosts = "{self.folder}/known_hosts"\n' if known_hosts is None else known_hosts
        (self.folder / "spooler.toml").write_text(
            f'state_dir = "{self.folder}/state"\n[server]\nhost = "h"\npassword_file = "{self.folder}/password"\n'
            f'{trusted}{more}[[outbox]]\npath = "/box"\ndestination = "up"\n'
        )

    def configure_ssh(self, identity: str) -> None:
        (self.folder / "ssh").write_text(
            f"Host *\n  IdentityFile {self.folder}/{identity}\n  UserKnownHostsFile {self.folder}/ssh_known_hosts\n"
        )

    def process(self) -> tuple[Held, Availability]:
        config = self.folder / "spooler.toml"
        server = Availability(Backoff(1.0, 60.0), Backoff(900.0, 3600.0), lambda: 0.0)
        return Held(load(config, self.environment), config, self.look), server

    def look(self) -> Moment:
        return Moment("boot", self.seconds, 0.0, False)

    def refused(self) -> None:
        """One process whose login is refused, if it may try at all."""
        held, server = self.process()
        assert held.restore(server, 0.0) is None
        server.lost(LoginRefused("no"), 0.0)
        held.follow(server, 0.0)

    def next_hold_s(self) -> float | None:
        held, server = self.process()
        return held.restore(server, 0.0)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_the_next_process_waits_for_the_rest_of_the_hold(device: Device) -> None:
    device.refused()
    device.seconds += 600
    held, server = device.process()
    assert held.restore(server, 50.0) == 300.0
    assert (server.state, server.ready_at, server.last_error) == (ServerState.HELD, 350.0, "LoginRefused: no")


def test_a_hold_that_is_over_lets_try_and_the_next_one_is_longer(device: Device) -> None:
    device.refused()
    device.seconds += 900
    device.refused()
    device.seconds += 900
    assert device.next_hold_s() == 900.0


def test_nothing_is_written_while_a_hold_goes_on(device: Device) -> None:
    device.refused()
    record = device.folder / "state" / FILE
    before = record.stat()
    held, server = device.process()
    held.restore(server, 0.0)
    held.follow(server, 0.0)
    assert record.stat() == before


def password(device: Device) -> None:
    (device.folder / "password").write_text("other")


def known_hosts(device: Device) -> None:
    (device.folder / "known_hosts").write_text("h ssh-ed25519 AAAA\n")


def configuration(device: Device) -> None:
    device.configure("port = 2222\n")


def environment(device: Device) -> None:
    device.environment["IOT_SPOOLER_SERVER__USER"] = "other"


def ssh_config(device: Device) -> None:
    device.configure_ssh("id_other")


def identity(device: Device) -> None:
    (device.folder / "id").write_text("other")


def ssh_known_hosts(device: Device) -> None:
    (device.folder / "ssh_known_hosts").write_text("h ssh-ed25519 AAAA\n")


@pytest.mark.parametrize("change", [ssh_config, identity, ssh_known_hosts])
def test_what_an_openssh_configuration_names_ends_it_too(device: Device, change: Callable[[Device], None]) -> None:
    device.configure_ssh("id")
    device.configure(f'ssh_config = "{device.folder}/ssh"\n', known_hosts="")
    device.refused()
    assert device.next_hold_s() == 900.0
    change(device)
    assert device.next_hold_s() is None


def test_the_rest_of_a_hold_is_reckoned_from_the_clock_of_its_process(device: Device) -> None:
    held, server = device.process()
    server.lost(LoginRefused("no"), 5000.0)
    held.follow(server, 5100.0)
    held, server = device.process()
    assert held.restore(server, 70.0) == 800.0
    assert server.ready_at == 870.0


def test_while_a_try_is_under_way_its_record_stays_as_it_is(device: Device) -> None:
    device.refused()
    device.seconds += 900
    held, server = device.process()
    held.restore(server, 0.0)
    server.state = ServerState.CONNECTING
    held.follow(server, 0.0)
    assert (device.folder / "state" / FILE).exists()


def test_a_flush_ends_the_holds_of_both_servers(device: Device) -> None:
    for name in (FILE, FALLBACK_FILE):
        (device.folder / "state" / name).write_text("{}")
    assert release(device.folder / "state")
    assert list((device.folder / "state").iterdir()) == []
    (device.folder / "state" / FALLBACK_FILE).write_text("{}")
    assert release(device.folder / "state")
    assert not release(device.folder / "state")
    assert not release(device.folder / "password")


def test_what_a_login_depends_on_may_be_a_file_a_folder_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    assert [_content(tmp_path / name) for name in ("file", "pipe", "missing")] == [b"content", b"", b""]
    before = _content(tmp_path)
    assert before != b""
    tmp_path.chmod(0o500)
    assert _content(tmp_path) != before


def flush(device: Device) -> None:
    assert release(device.folder / "state")


@pytest.mark.parametrize("change", [password, known_hosts, configuration, environment, flush])
def test_what_could_mend_it_ends_it(device: Device, change: Callable[[Device], None]) -> None:
    device.refused()
    assert device.next_hold_s() == 900.0
    change(device)
    assert device.next_hold_s() is None


def test_the_same_password_made_anew_ends_nothing(device: Device) -> None:
    """As systemd does with a unit's credentials at each start."""
    device.refused()
    (device.folder / "fresh").write_text(SECRET)
    (device.folder / "fresh").rename(device.folder / "password")
    assert device.next_hold_s() == 900.0


def test_a_login_that_succeeds_or_is_asked_for_ends_it(device: Device) -> None:
    device.refused()
    held, server = device.process()
    held.restore(server, 0.0)
    server.wake()
    held.follow(server, 0.0)
    assert device.next_hold_s() is None
    device.refused()
    device.seconds += 900
    held, server = device.process()
    held.restore(server, 0.0)
    server.progressed()
    held.follow(server, 0.0)
    assert list((device.folder / "state").iterdir()) == []
    assert not release(device.folder / "state")


def test_the_record_is_ours_alone_and_holds_no_secret(device: Device) -> None:
    device.refused()
    record = device.folder / "state" / FILE
    assert record.stat().st_mode & 0o777 == 0o600
    assert SECRET not in record.read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"hold_s": "x"}', "\udcff"])
def test_a_broken_record_holds_nothing(device: Device, content: str) -> None:
    device.refused()
    record = device.folder / "state" / FILE
    record.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert device.next_hold_s() is None
    device.refused()
    assert json.loads(record.read_text())["holds"] == 1


def test_a_connected_server_is_asked_once_whether_there_is_a_record(device: Device, monkeypatch) -> None:
    held, server = device.process()
    server.progressed()
    looks: list[Path] = []
    monkeypatch.setattr(Path, "unlink", lambda path, **_: looks.append(path))
    for _ in range(3):
        held.follow(server, 0.0)
    assert len(looks) == 1
