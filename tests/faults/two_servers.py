"""Two servers, of which one is the fallback of the other: they are killed or fall silent in turn, while files flow.

A file must come to stand whole on at least one of them, on both only where the second delivery was announced as a
possible repeat. Parts may lie on the server that is not used: they go when it is used again, which has a test.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from faults.proxy import BadLink
from faults.rig import KIB, Rig, judge, wait_for
from faults.table import Row
from faults.watch import PART, Watch
from servers.base import descendants
from servers.openssh import OpenSSH

__all__ = ["RETRY", "SETTINGS", "Rooted", "broken_in_turn", "fallback_to"]

MBIT = 1e6
SETTINGS = "fallback_after_s = 1\nfallback_check_s = 1\nfallback_back_after_s = 0\n"
RETRY = "[retry]\nbase_s = 0.05\ncap_s = 0.5\nherd_window_s = 0\n"
PATIENT_S = 60.0


class Together:
    """The finals that a watch has seen on all servers below its folder, as if they were one."""

    def __init__(self, watch: Watch) -> None:
        watch.look()
        self.seen = [replace(final, name=Path(final.name).name) for final in watch.seen]
        self._names = {Path(name).name for name in watch.names() if not name.endswith(PART)}

    def names(self) -> set[str]:
        return self._names


def fallback_to(server: OpenSSH, link: BadLink | None = None) -> str:
    """The table [fallback]."""
    port = server.port if link is None else link.port
    return (
        f'[fallback]\nhost = "{server.host}"\nport = {port}\nuser = "{server.user}"\n'
        f'host_key = "{server.host_key}"\nkey_file = "{server.key_file}"\nlink_deadline_s = 1\n'
    )


class Rooted(OpenSSH):
    """Its paths begin in its own folder, so that one destination means another folder on each server."""

    def __init__(self, root: Path, keys_name: str) -> None:
        super().__init__(root, subsystem=f"internal-sftp -d {root}", keys_name=keys_name)

    def path(self, relative: str = "") -> str:
        return relative or "."


@contextlib.contextmanager
def silent(server: OpenSSH) -> Iterator[None]:
    """It answers nothing, and its connections stay."""
    assert server.process is not None
    pids = [server.process.pid, *descendants(server.process.pid)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def dead(server: OpenSSH) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


def broken_in_turn(folder: Path, *, rounds: int, files_each: int = 40, seed: int | None = None) -> Row:
    """Each round breaks one of them at a random moment, sometimes the agent too, until all has arrived on the other."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Rooted(folder / "servers" / name, name)) for name in ("one", "two")]
        links = [stack.enter_context(contextlib.closing(server.link(rate_bps=40 * MBIT))) for server in servers]
        watch = stack.enter_context(contextlib.closing(Watch(folder / "servers")))
        rig = stack.enter_context(
            Rig(
                folder / "device",
                servers[0],
                link=links[0],
                destination="up",
                settings=SETTINGS + RETRY,
                server_settings="link_deadline_s = 1\n" + fallback_to(servers[1], links[1]),
                watch=watch,
                seed=seed,
            )
        )
        rig.start()
        for number in range(rounds):
            _one_round(rig, servers, number, files_each)
        rig.drain()
        row = Row("one of two servers is killed or silent, in turn", rounds, len(rig.versions))
        judge(
            row, Together(watch), rig.contents, {name: {last[-1]} for name, last in rig.versions.items()}, rig.marked()
        )
        row.payload_bytes = rig.payload_bytes
        row.up_bytes, row.down_bytes = (sum(getattr(link, way) for link in links) for way in ("up_bytes", "down_bytes"))
        shares = Counter(Path(name).parts[0] for name in watch.names() if not name.endswith(PART))
        row.notes.append(f"seed {rig.seed}, files on {dict(shares)}")
        return row


def _one_round(rig: Rig, servers: list[OpenSSH], number: int, count: int) -> None:
    rig.put_many(count, 10 * KIB, prefix=f"round-{number}")
    rig.put(f"large-{number}", 700 * KIB)
    wait_for(lambda: False, rig.random.uniform(0, 0.4))
    if rig.random.random() < 0.2:
        rig.kill()
        rig.start()
    breaks = rig.random.choice((dead, dead, silent))
    with breaks(servers[number % 2]):
        assert rig.wait(lambda: not rig.left(), PATIENT_S), rig.told()
