"""How a ProxyCommand ended is told as it was, also when it is slower to end than the link."""

from __future__ import annotations

import pytest

from iot.sftp.client.ssh.detour import CommandLink, by_command
from iot.transfer.stop import StopFlag

HANGS_UP = "exec 0<&- 1>&-; sleep 0.2"


def closed(command: str, *, after: bytes) -> CommandLink:
    """Its link, closed after so many bytes have come through it."""
    link = by_command(f"sh -c '{command}'", StopFlag())
    try:
        assert link.recv(len(after) or 1) == after
    finally:
        link.close()
    return link


@pytest.mark.parametrize(
    ("last", "told"), [("kill -9 $$", "was ended by SIGKILL"), ("exit 3", "ended with exit code 3")]
)
def test_a_command_that_hangs_up_first_is_waited_for(last: str, told: str) -> None:
    link = closed(f"{HANGS_UP}; {last}", after=b"")
    assert link.failure() == f"the ProxyCommand 'sh ...' {told}"


def test_a_command_that_we_end_is_told_as_running() -> None:
    link = closed("echo; exec sleep 60", after=b"\n")
    assert link.failure() == "the ProxyCommand 'sh ...' runs, but no SSH server answers through it"
