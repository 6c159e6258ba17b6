"""What both sides of an SSH connection have to agree on, and what is told where they do not."""

from __future__ import annotations

from typing import Any

import paramiko
import pytest
from paramiko.ssh_exception import IncompatiblePeer

from iot.sftp.client.ssh import transport as module
from iot.sftp.client.ssh.transport import LISTED, Transport

LISTS = {key: ["same"] for keys in module.LISTS.values() for key in keys}


@pytest.mark.parametrize(
    ("key", "what"),
    [("kex_algo_list", "key exchange"), ("server_encrypt_algo_list", "cipher"), ("client_mac_algo_list", "MAC")],
)
def test_no_agreement_is_told_with_both_sides_of_it(key: str, what: str) -> None:
    ours, theirs = {**LISTS, key: ["a", "b"]}, {**LISTS, key: ["c\x1b"]}
    assert module._no_agreement(ours, theirs) == rf"no common {what}: we offer a, b; the server offers c\x1b"
    assert module._no_agreement({**LISTS, key: []}, theirs).endswith(r"we offer nothing; the server offers c\x1b")
    assert module._no_agreement(LISTS, LISTS) == ""
    long = module._no_agreement({**LISTS, key: ["x" * 999]}, theirs)
    assert f"offer {'x' * LISTED}...; the" in long


@pytest.mark.parametrize(
    ("theirs", "told"),
    [(["c"], "no common MAC: we offer same; the server offers c"), (["same"], "as paramiko says it")],
)
def test_a_server_with_which_there_is_no_agreement_is_refused_with_both_lists(monkeypatch, theirs, told) -> None:
    def refuse(_: Any, message: paramiko.Message) -> None:
        message.get_int()
        raise IncompatiblePeer("as paramiko says it")

    def parsed(message: paramiko.Message) -> dict[str, list[str]]:
        assert message.get_int() == 7, "from its beginning"
        return {**LISTS, "client_mac_algo_list": theirs}

    monkeypatch.setattr(paramiko.ServiceRequestingTransport, "_parse_kex_init", refuse)
    found: Any = Transport.__new__(Transport)
    found._really_parse_kex_init, found._get_latest_kex_init = parsed, lambda: LISTS
    message = paramiko.Message((7).to_bytes(4, "big"))
    with pytest.raises(IncompatiblePeer) as caught:
        found._parse_kex_init(message)
    assert told in str(caught.value)
    assert isinstance(caught.value.__cause__, IncompatiblePeer)
