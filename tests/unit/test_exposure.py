"""`check` refuses secrets that others can read, and says how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from iot.spooler.cli.main import main

GROUP, OTHERS = 0o640, 0o604


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def config(tmp_path: Path, server: str, mode: int) -> str:
    text = f'state_dir = "{tmp_path}/state"\n[server]\nhost = "h"\n{server}\n'
    (tmp_path / "box").mkdir(exist_ok=True)
    (tmp_path / "credentials-spooler").mkdir(exist_ok=True)
    (tmp_path / "credentials-spooler" / "key").touch()  # as for iot-spooler@spooler
    text += f'[[outbox]]\npath = "{tmp_path}"\ndestination = "/up"\n'
    return str(write(tmp_path / "spooler.toml", text.replace(f'path = "{tmp_path}"', f'path = "{tmp_path}/box"'), mode))


@pytest.mark.parametrize("mode", [GROUP, OTHERS, 0o644])
@pytest.mark.parametrize("key", ["password", "key_passphrase"])
def test_a_configuration_with_a_secret_that_others_can_read_is_refused(
    tmp_path: Path, key: str, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, f'{key} = "hunter2"', mode)
    assert main(["check", "--config", path]) == 78
    said = capsys.readouterr().err
    assert f"{path}: holds server.{key}" in said
    assert f"chmod 600 {path}" in said
    assert "hunter2" not in said
    Path(path).chmod(0o600)
    assert main(["check", "--config", path]) == 0


def test_a_configuration_without_secrets_may_be_read_by_others(tmp_path: Path) -> None:
    assert main(["check", "--config", config(tmp_path, 'user = "u"', 0o644)]) == 0


@pytest.mark.parametrize("key", ["password_file", "key_file", "prompt_file"])
def test_a_secret_file_that_others_can_read_is_refused(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = write(tmp_path / "secret", "hunter2\n", GROUP)
    path = config(tmp_path, f'{key} = "{secret}"', 0o644)
    assert main(["check", "--config", path]) == 78
    assert f"{secret}: holds what server.{key} names" in capsys.readouterr().err
    secret.chmod(0o600)
    assert main(["check", "--config", path]) == (78 if key == "key_file" else 0)
    assert "may be read by others" not in capsys.readouterr().err


def test_credentials_of_systemd_are_guarded_by_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").mkdir()
    write(tmp_path / "credentials" / "sftp_password", "hunter2\n", 0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert main(["check", "--config", config(tmp_path, "", 0o640)]) == 0


def test_a_file_of_answers_that_is_missing_is_reported_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f'prompt_file = "{tmp_path}/nowhere"\n'
    assert main(["check", "--config", config(tmp_path, line, 0o644)]) == 78
    assert "No such file" in capsys.readouterr().err


def test_check_says_whether_completeness_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "box").mkdir(exist_ok=True)
    (tmp_path / "box" / "f").write_bytes(b"x")
    assert main(["check", "--config", config(tmp_path, "", 0o644)]) == 0
    assert "outbox box: completeness known" in capsys.readouterr().out
