"""Many downloads at once against real servers and misbehaving ones: each file whole, and none at another's expense."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import BadLink, Fault
from paramiko import Message
from servers.base import Server
from servers.misbehaving import MISBEHAVIOURS
from servers.openssh import OpenSSH
from servers.quirks import Misbehaving, Quirk

from iot.sftp.client import (
    Cancelled,
    ConfigurationError,
    DiskFull,
    DownloadJob,
    Failure,
    IoTSFTPClient,
    LinkLost,
    NotFound,
    PermanentError,
    ProofFailed,
    TransferResult,
    TransientError,
)
from iot.sftp.server.protocol import Reply

KIB = 1024
MIB = 1024 * KIB
HOUR_S = 3600.0


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    """One running sshd for all tests here: each has a folder of its own."""
    with OpenSSH(tmp_path_factory.mktemp("ssh") / "root") as server:
        yield server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def connect(server: Server, here: Path, link: BadLink | None = None, **changes: Any) -> IoTSFTPClient:
    over = {"sftp_port": link.port, "known_hosts": None, "host_key": server.host_key} if link is not None else {}
    options = {**server.login(), "state_dir": here.parent / "state", "backoff_s": 0.05, **over, **changes}
    return IoTSFTPClient(**options)


def make(server: Server, folder: str, sizes: dict[str, int]) -> dict[str, bytes]:
    """Files that have been there for an hour."""
    (server.root / folder).mkdir()
    contents = {}
    for name, size in sizes.items():
        contents[name] = os.urandom(size)
        path = server.root / folder / name
        path.write_bytes(contents[name])
        os.utime(path, (time.time() - HOUR_S,) * 2)
    return contents


def jobs(server: Server, folder: str, here: Path, names: Any, **more: Any) -> list[DownloadJob]:
    return [DownloadJob(server.path(f"{folder}/{name}"), here / name, key=name, **more) for name in names]


def there(here: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in here.iterdir()}


def succeed(outcomes: Iterator[TransferResult | Failure]) -> dict[object, TransferResult]:
    results = {}
    for outcome in outcomes:
        assert isinstance(outcome, TransferResult), outcome
        results[outcome.key] = outcome
    return results


def test_many_files_of_all_sizes_arrive_whole(ssh: OpenSSH, here: Path) -> None:
    sizes = {f"small{number}": number * 50 for number in range(150)} | {"large": 9 * MIB, "larger": 11 * MIB + 7}
    contents = make(ssh, "all", sizes)
    with connect(ssh, here) as client:
        results = succeed(client.download_many(jobs(ssh, "all", here, contents, sha256=True)))
    assert there(here) == contents
    assert {name: result.size for name, result in results.items()} == sizes
    assert all(result.durable and result.sha256 for result in results.values())


def test_all_files_are_under_way_before_the_first_has_arrived(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "slots", {str(number): 10 for number in range(300)})
    given: list[DownloadJob] = []

    def feed() -> Iterator[DownloadJob]:
        for job in jobs(ssh, "slots", here, contents):
            given.append(job)
            yield job

    with BadLink(ssh.host, ssh.port, delay_s=0.1) as link, connect(ssh, here, link) as client:
        client.connect()
        outcomes = client.download_many(feed())
        next(outcomes)
        assert len(given) == 300
        assert sum(1 for _ in outcomes) == 299
    assert there(here) == contents


@pytest.mark.parametrize("said", ["answers out of order", "tells no size", "has no extension at all"])
def test_files_are_not_mixed_by_servers_that_misbehave(said: str, here: Path) -> None:
    with Misbehaving(here.parent / "root", MISBEHAVIOURS[said]) as server, connect(server, here) as client:
        contents = make(server, "files", {f"{number}": 1 + number * 3 * KIB for number in range(40)})
        succeed(client.download_many(jobs(server, "files", here, contents)))
        assert server.hits
    assert there(here) == contents


def test_a_file_that_cannot_be_had_does_not_hold_up_its_neighbours(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "some", {"a": 10, "b": 20, "folder": 5, "proven": 7})
    (here / "folder").mkdir()
    asked = [
        DownloadJob(ssh.path("some/missing"), here / "missing", key="missing"),
        *jobs(ssh, "some", here, ("a", "folder")),
        DownloadJob(ssh.path("some/proven"), here / "proven", key="proven", sha256="0" * 64),
        DownloadJob("", here / "empty", key="empty"),
        None,
        *jobs(ssh, "some", here, ("b",)),
    ]
    with connect(ssh, here) as client:
        told = {outcome.key: outcome for outcome in client.download_many(asked)}
    errors = {key: type(outcome.error) for key, outcome in told.items() if isinstance(outcome, Failure)}
    assert errors.pop("empty") in PermanentError.__subclasses__()
    assert errors == {"missing": NotFound, "folder": PermanentError, "proven": ProofFailed}
    assert told["missing"].source == ssh.path("some/missing")
    assert {name: content for name, content in contents.items() if name in "ab"} == {
        path.name: path.read_bytes() for path in here.iterdir() if path.is_file()
    }, "nothing else is left, no part either"


def test_two_jobs_with_one_destination_are_never_mixed(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "twice", {"a": 3 * MIB, "b": 3 * MIB + 1})
    (here.parent / "link").symlink_to(here)
    file = io.BytesIO()
    asked = [
        DownloadJob(ssh.path("twice/a"), here / "file", key="first"),
        DownloadJob(ssh.path("twice/b"), here.parent / "link" / "file", key="second"),
        DownloadJob(ssh.path("twice/a"), file, key="open"),
        DownloadJob(ssh.path("twice/b"), file, key="open too"),
    ]
    with connect(ssh, here) as client:
        told = {outcome.key: outcome for outcome in client.download_many(asked)}
        for key in ("second", "open too"):
            assert isinstance(told[key].error, TransientError)
            assert "another transfer" in str(told[key].error)
        assert (here / "file").read_bytes() == contents["a"]
        assert file.getvalue() == contents["a"]
        succeed(client.download_many([asked[1]]))  # the first is over
    assert there(here) == {"file": contents["b"]}


def test_a_size_that_no_disk_holds_is_the_failure_of_its_own_file(here: Path) -> None:
    class Claims(Quirk):
        def on_stat(self, message: Message) -> Reply:
            kind, body = super().on_stat(message)
            if b"huge" in message.asbytes():
                self.hit()
                body = body[:4] + (2**62).to_bytes(8, "big") + body[12:]
            return kind, body

    with Misbehaving(here.parent / "root", Claims) as server, connect(server, here) as client:
        names = [*(f"huge{number}" for number in range(8)), *map(str, range(20))]
        contents = make(server, "files", dict.fromkeys(names, 1000))
        told = {outcome.key: outcome for outcome in client.download_many(jobs(server, "files", here, contents))}
        assert server.hits
    assert {type(told[name].error) for name in names if "huge" in name} == {DiskFull}
    assert there(here) == {name: content for name, content in contents.items() if "huge" not in name}


def test_a_server_with_few_handles_serves_all(here: Path) -> None:
    class FewHandles(Quirk):
        def on_open(self, message: Message) -> Reply:
            if len(self.handles) >= 5:
                self.refuse(4, "Failure")
            return super().on_open(message)

    with Misbehaving(here.parent / "root", FewHandles) as server, connect(server, here) as client:
        contents = make(server, "files", {str(number): 100 for number in range(100)})
        succeed(client.download_many(jobs(server, "files", here, contents)))
        assert server.hits
    assert there(here) == contents


# -- a link that is lost


def test_all_in_flight_go_on_over_the_next_connection(ssh: OpenSSH, here: Path) -> None:
    sizes = {"large": 6 * MIB} | {f"small{number}": 20 * KIB for number in range(100)}
    contents = make(ssh, "cut", sizes)
    script = [Fault("cut", down_bytes=MIB), Fault("cut", down_bytes=4 * MIB)]
    link = BadLink(ssh.host, ssh.port, rate_bps=80e6, script=script)
    with link, connect(ssh, here, link) as client:
        results = succeed(client.download_many(jobs(ssh, "cut", here, contents)))
        assert link.connections == 3
    assert there(here) == contents
    assert results["large"].resumed_at > 0
    assert results["large"].sent_bytes >= 6 * MIB


def test_a_link_that_stays_lost_fails_what_is_in_flight_and_a_later_call_goes_on(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "lost", {"large": 6 * MIB, "small": 10})
    script = [Fault("cut", down_bytes=3 * MIB), Fault("refuse", down_bytes=3 * MIB)]
    link = BadLink(ssh.host, ssh.port, rate_bps=80e6, script=script)
    with link, connect(ssh, here, link, attempts=2) as client:
        told = {outcome.key: outcome for outcome in client.download_many(jobs(ssh, "lost", here, contents))}
        assert isinstance(told["small"], TransferResult)
        assert isinstance(told["large"].error, LinkLost)
        link.restore()
        results = succeed(client.download_many(jobs(ssh, "lost", here, ["large"])))
    assert results["large"].resumed_at > 0
    assert there(here) == contents


# -- a caller who ends it


def until_first(client: IoTSFTPClient, asked: list[DownloadJob], act: Callable[[], object]) -> list[Any]:
    """All outcomes; `act` is called once, when half a megabyte of something has come."""
    acted: list[object] = []

    def progress(state: Any) -> None:
        if state.done_bytes > MIB // 2 and not acted:
            acted.append(act())

    with_progress = [DownloadJob(job.source, job.dest, key=job.key, progress=progress) for job in asked]
    return list(client.download_many(with_progress))


def test_a_cancel_ends_all_and_keeps_the_parts(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "cancel", {"a": 8 * MIB, "b": 8 * MIB})
    asked = jobs(ssh, "cancel", here, contents)
    link = BadLink(ssh.host, ssh.port, rate_bps=80e6)
    with link, connect(ssh, here, link) as client:
        told = until_first(client, asked, client.cancel)
        assert {type(outcome.error) for outcome in told} == {Cancelled}
        assert len(told) == 2
        results = succeed(client.download_many(asked))
    assert max(result.resumed_at for result in results.values()) > 0
    assert there(here) == contents


def test_while_it_runs_other_operations_are_refused_and_closing_it_frees_the_client(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "busy", {str(number): 100 for number in range(20)})
    with connect(ssh, here) as client:
        outcomes = client.download_many(jobs(ssh, "busy", here, contents))
        next(outcomes)
        with pytest.raises(ConfigurationError, match="download_many"):
            client.exists("/")
        with pytest.raises(ConfigurationError, match="download_many"):
            list(client.upload_many([]))
        outcomes.close()
        assert client.exists("/")
        succeed(client.download_many(jobs(ssh, "busy", here, contents)))
    assert there(here) == contents


def test_any_thread_may_take_the_outcomes(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "threads", {str(number): 100 for number in range(30)})
    taken: list[Any] = []
    with connect(ssh, here) as client:
        outcomes = client.download_many(jobs(ssh, "threads", here, contents))
        for count in (10, 10, 10):
            thread = threading.Thread(target=lambda most=count: taken.extend(next(outcomes) for _ in range(most)))
            thread.start()
            thread.join(60)
        assert next(outcomes, None) is None
    assert {outcome.key for outcome in taken} == set(contents)


def test_the_tick_comes_while_nothing_else_does(ssh: OpenSSH, here: Path) -> None:
    ticks: list[float] = []
    with connect(ssh, here) as client:
        feed = iter([None, None, None])
        assert list(client.download_many(feed, tick=lambda: ticks.append(time.monotonic()))) == []
    assert len(ticks) >= 3


# -- limits of this device


PROGRAM = """
import sys
from pathlib import Path
from iot.sftp.client import DownloadJob, IoTSFTPClient, TransferResult

host, port, user, key, known, state, far, here = sys.argv[1:]
login = dict(sftp_host=host, sftp_port=int(port), sftp_user=user, key_file=key, known_hosts=known, state_dir=state)
with IoTSFTPClient(**login, checkpoint_bytes=65536) as client:
    names = [Path(name).name for name in client.list(far)]
    jobs = (DownloadJob(f"{far}/{name}", Path(here, name), key=name) for name in names)
    for outcome in client.download_many(jobs):
        assert isinstance(outcome, TransferResult), outcome
        print(outcome.key, outcome.resumed_at, flush=True)
"""


def start(ssh: OpenSSH, folder: str, here: Path, link: BadLink | None = None, **more: Any) -> subprocess.Popen[str]:
    login = [ssh.host, str(link.port if link is not None else ssh.port), ssh.user, str(ssh.key_file)]
    known = here.parent / "known_hosts"
    lines = ssh.known_hosts.read_text()
    known.write_text(lines + lines.replace(f"]:{ssh.port}", f"]:{link.port}") if link is not None else lines)
    places = [str(known), str(here.parent / "state"), ssh.path(folder), str(here)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, *login, *places]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **more)


def test_no_more_files_are_open_than_this_process_may_have(ssh: OpenSSH, here: Path) -> None:
    contents = make(ssh, "open", {str(number): 100 for number in range(600)})
    process = start(ssh, "open", here, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(told.splitlines()) == 600
    assert there(here) == contents


@pytest.mark.parametrize("after", [3, 40])
def test_a_process_killed_among_many_downloads_goes_on_with_what_it_has(ssh: OpenSSH, here: Path, after: int) -> None:
    sizes = {f"small{number:02}": 5 * KIB for number in range(60)} | {"large0": 6 * MIB, "large1": 6 * MIB}
    folder = f"killed{after}"
    contents = make(ssh, folder, sizes)
    with BadLink(ssh.host, ssh.port, rate_bps=40e6) as link:
        process = start(ssh, folder, here, link)
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        give_up_at = time.monotonic() + 30
        while sum(part.stat().st_size for part in here.glob("large*.part")) < 2 * MIB:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        finished = {path.name: path.read_bytes() for path in here.iterdir() if ".part" not in path.name}
        assert finished == {name: contents[name] for name in finished}, "what has its name is whole"
        again = start(ssh, folder, here, link)
        told, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    resumed_at = {line.split()[0]: int(line.split()[1]) for line in told.splitlines()}
    assert max(resumed_at["large0"], resumed_at["large1"]) > 0
    assert there(here) == contents
