"""Commands that the configuration names are given no secret of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from iot.sftp.client.ssh.children import environment
from iot.sftp.client.ssh.detour import by_command
from iot.sftp.client.ssh.openssh_config import way_to
from iot.sftp.client.ssh.prompts import from_command
from iot.transfer.stop import StopFlag

SECRETS = ("SFTP_PASSWORD", "SFTP_KEY_PASSPHRASE", "SFTP_PROXY_PASSWORD", "IOT_SPOOLER_SERVER__PASSWORD")
SHOW = "echo " + "".join(f"[${name}]" for name in SECRETS) + "$KEPT"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("KEPT", "kept")


def test_what_is_no_secret_is_passed_on() -> None:
    assert environment(MORE="x")["KEPT"] == "kept"
    assert environment(MORE="x")["MORE"] == "x"
    assert not set(SECRETS) & set(environment())


def test_a_prompt_command_is_given_the_prompt_and_no_secret() -> None:
    assert from_command(("sh", "-c", SHOW + '"$IOT_SFTP_PROMPT"'))("Code:", False) == "[][][][]keptCode:"


def test_a_proxy_command_is_given_no_secret() -> None:
    link = by_command(f"sh -c '{SHOW}'", StopFlag())
    try:
        link.settimeout(10)
        assert link.recv(100) == b"[][][][]kept\n"
    finally:
        link.close()


def test_a_command_of_match_is_given_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text('Match exec "test -z \\"$SFTP_PASSWORD\\""\n  Port 2222\n')
    assert way_to("host", None, None, str(config)).port == 2222
