"""Logins and options of the connection against real servers: second factors, agent, certificates, foreign ciphers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko.packet import Packetizer
from servers.base import HOST, client_key, host_keys, program
from servers.openssh import OpenSSH
from servers.pam import SecondFactor
from servers.tinyssh import TinySSH

from iot.sftp.client import (
    ConfigurationError,
    CredentialsInvalid,
    HostKeyMismatch,
    Incompatible,
    IoTSFTPClient,
    LoginRefused,
    SFTPError,
)

WRONG = "wr0ng-s3cret"


@pytest.fixture
def second_factor(tmp_path: Path) -> Iterator[SecondFactor]:
    """One for each test: no code is good for two logins."""
    with SecondFactor(tmp_path / "root") as server:
        yield server


def logged_in(server: Any, folder: Path, **changes: Any) -> bool:
    login = {name: value for name, value in {**server.login(), **changes}.items() if value is not None}
    with IoTSFTPClient(**login, state_dir=folder / "state", attempts=3, backoff_s=0.05) as client:
        client.connect()
        return client.is_connected()


def log_of(server: OpenSSH) -> str:
    return server.log.read_text(errors="replace")


def test_a_key_a_password_and_a_code_from_a_command_log_in(second_factor: SecondFactor, tmp_path: Path) -> None:
    assert logged_in(second_factor, tmp_path, prompt_command=second_factor.code_command)


def test_a_code_from_a_file_logs_in(second_factor: SecondFactor, tmp_path: Path) -> None:
    file = tmp_path / "code"
    file.write_text(second_factor.code() + "\n")
    assert logged_in(second_factor, tmp_path, prompt_file=file)


def test_a_callback_is_asked_everything_that_is_not_the_password(second_factor: SecondFactor, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(prompt: str, echo: bool) -> str:
        asked.append(prompt)
        return second_factor.code()

    assert logged_in(second_factor, tmp_path, prompts=answer)
    assert len(asked) == 1
    assert "One-time" in asked[0]


def test_without_the_password_the_callback_is_asked_for_it_too(second_factor: SecondFactor, tmp_path: Path) -> None:
    given = [str(second_factor.password), second_factor.code()]
    assert logged_in(second_factor, tmp_path, sftp_pass=None, prompts=lambda prompt, echo: given.pop(0))


def test_a_missing_answer_is_told_with_the_prompt(second_factor: SecondFactor, tmp_path: Path) -> None:
    with pytest.raises(CredentialsInvalid, match=r"One-time password.*prompt_command"):
        logged_in(second_factor, tmp_path)


def test_a_second_factor_that_is_not_configured_is_named_with_its_options(
    second_factor: SecondFactor, tmp_path: Path
) -> None:
    with pytest.raises(
        CredentialsInvalid, match=r"accepted key .* keyboard-interactive as well: give .*prompt_command"
    ):
        logged_in(second_factor, tmp_path, sftp_pass=None)


@pytest.mark.parametrize("answer", [lambda *_: {}["secret"], lambda *_: 123456])
def test_an_error_of_the_callback_is_the_callers_own(second_factor: SecondFactor, tmp_path: Path, answer: Any) -> None:
    with pytest.raises(CredentialsInvalid, match=r"prompts (raised KeyError|must return)") as caught:
        logged_in(second_factor, tmp_path, prompts=answer)
    assert "secret" not in str(caught.value)


def test_a_refused_password_is_sent_once_and_the_login_tried_once(tmp_path: Path) -> None:
    with SecondFactor(tmp_path / "root", "publickey,keyboard-interactive:pam") as server:
        with pytest.raises(LoginRefused):
            logged_in(server, tmp_path, sftp_pass=WRONG, prompt_command=server.code_command)
        assert log_of(server).count("Partial publickey") == 1, log_of(server)  # no second login
        assert log_of(server).count("PAM: Authentication failure") == 1, log_of(server)


def test_a_password_that_the_password_method_refused_is_not_tried_at_a_prompt(tmp_path: Path) -> None:
    with SecondFactor(tmp_path / "root", "password keyboard-interactive") as server:
        with pytest.raises(LoginRefused):
            logged_in(server, tmp_path, sftp_pass=WRONG, key_file=None)
        assert log_of(server).count("Failed password") == 1, log_of(server)
        assert "Postponed keyboard-interactive" not in log_of(server)


def test_what_a_command_prints_or_is_given_is_never_told(
    second_factor: SecondFactor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    tried = {
        "exit status 3": [sys.executable, "-c", f"print('{WRONG}'); raise SystemExit(3)"],
        "no line": [sys.executable, "-c", f"#{WRONG}"],
        "No such file": ["/no/such/program", WRONG],
    }
    for fault, command in tried.items():
        with pytest.raises(CredentialsInvalid, match=fault) as caught:
            logged_in(second_factor, tmp_path, prompt_command=command)
        assert WRONG not in str(caught.value)
    assert WRONG not in caplog.text
    with pytest.raises(ConfigurationError) as refused:
        IoTSFTPClient("host", prompt_command=["x"], prompt_file=WRONG)
    assert WRONG not in str(refused.value)


def test_a_running_agents_key_logs_in(sshd: OpenSSH, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = tmp_path / "agent"
    agent = subprocess.Popen(
        [program("ssh-agent", "openssh-client"), "-D", "-a", str(socket)], stdout=subprocess.DEVNULL
    )
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        while not socket.exists():
            time.sleep(0.01)
        with pytest.raises(SFTPError, match="nothing to log in with"):  # it holds no key yet
            logged_in(sshd, tmp_path, key_file=None, agent=True)
        add = [program("ssh-add", "openssh-client"), "-q"]
        for key in (host_keys("unknown-to-the-server")[0], client_key()):
            subprocess.run([*add, str(key)], check=True, timeout=30)
        assert logged_in(sshd, tmp_path, key_file=None, agent=True)
    finally:
        agent.terminate()
        agent.wait(10)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["-n", HOST], ""),
        (["-n", "other.example.com"], "is for other.example.com"),
        (["-n", HOST, "-V", "-2w:-1w"], "not valid now"),
        (["-n", HOST, "-O", "critical:verify@example.com"], "critical options"),
    ],
)
def test_a_host_certificate_counts_where_its_authority_is_listed(
    options: list[str], fault: str, tmp_path: Path
) -> None:
    authority = host_keys("authority")[0]
    public = tmp_path / "host.pub"
    key = host_keys()[0]
    public.write_text(Path(f"{key}.pub").read_text())
    sign = [
        program("ssh-keygen", "openssh-client"),
        "-q",
        "-s",
        str(authority),
        "-I",
        "id",
        "-h",
        *options,
        str(public),
    ]
    subprocess.run(sign, check=True, timeout=30, stdin=subprocess.DEVNULL)
    certificate = tmp_path / "host-cert.pub"
    known = tmp_path / "known_hosts"
    with OpenSSH(tmp_path / "root", more=[f"HostCertificate {certificate}"]) as server:
        known.write_text(f"@cert-authority [{HOST}]:{server.port} {Path(f'{authority}.pub').read_text()}")
        if fault:
            with pytest.raises(HostKeyMismatch, match=fault):
                logged_in(server, tmp_path, known_hosts=known)
        else:
            assert logged_in(server, tmp_path, known_hosts=known)


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr"])
def test_every_cipher_stands_new_keys_in_the_middle_of_both_directions(
    cipher: str, sshd: OpenSSH, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packetizer, "REKEY_BYTES", 1 << 20)
    content = os.urandom(5 << 20)
    source = tmp_path / "source"
    source.write_bytes(content)
    with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "state", ciphers=(cipher,), attempts=1) as client:
        client.upload(source, sshd.path("file"))
        assert sshd.content("file") == content
        client.download(sshd.path("file"), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content


def test_compression_is_asked_for_and_bytes_stay_what_they_are(sshd: OpenSSH, tmp_path: Path) -> None:
    content = bytes(2 << 20) + os.urandom(1 << 20)
    source = tmp_path / "source"
    source.write_bytes(content)
    with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "state", compression=True, attempts=1) as client:
        client.upload(source, sshd.path("file"))
        assert sshd.content("file") == content
        link = client.connection.link
        assert link.sent_bytes < (1 << 20) + 300_000
        client.download(sshd.path("file"), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content


def test_times_and_mode_are_kept_where_asked_for_and_a_folder_is_deleted(sshd: OpenSSH, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"1")
    source.chmod(0o640)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    for kept in (True, False):
        with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "state", keep_times=kept, keep_mode=kept) as client:
            client.upload(source, sshd.path(f"folder/file-{kept}"))
            status = (sshd.root / f"folder/file-{kept}").stat()
            assert (int(status.st_mtime) == 1_000_000_000) is kept
            assert (status.st_mode & 0o777 == 0o640) is kept
    with IoTSFTPClient(**sshd.login(), state_dir=tmp_path / "state") as client:
        assert client.delete_dir(sshd.path("folder")) is False  # it is not empty
        client.delete(sshd.path("folder/file-True"))
        client.delete(sshd.path("folder/file-False"))
        assert client.delete_dir(sshd.path("folder")) is True
        assert not (sshd.root / "folder").exists()


def test_tinysshd_is_spoken_to_in_its_only_cipher_and_without_it_is_incompatible(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    source = tmp_path / "source"
    source.write_bytes(content)
    with TinySSH() as server:
        with IoTSFTPClient(**server.login(), state_dir=tmp_path / "state", attempts=1) as client:
            client.upload(source, str(server.home / "file"))
            assert (server.home / "file").read_bytes() == content
        with (
            IoTSFTPClient(**server.login(), state_dir=tmp_path / "state", ciphers=("aes128-ctr",)) as client,
            pytest.raises(Incompatible, match=r"we offer aes128-ctr; the server offers chacha20-poly1305@openssh\.com"),
        ):
            client.connect()
