"""What is said of each wrong setting, wherever it comes from; and what is looked at in the same run all the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from unit.other_user import without_capabilities

from iot.spooler.config import load as module
from iot.spooler.config.load import BadConfiguration, Loaded, load, look, secrets_in

SERVER = '[server]\nhost = "h"\nuser = "u"\n'
OUTBOX = '[[outbox]]\npath = "/box"\ndestination = "up"\n'
GOOD = f'state_dir = "/s"\n{SERVER}{OUTBOX}'


class Config:
    def __init__(self, base: Path) -> None:
        self.path = base / "c.toml"
        self.credentials = base / "credentials"
        self.credentials.mkdir()

    def look(self, text: str = GOOD, **environment: str) -> Loaded:
        self.path.write_text(text)
        return look(self.path, {f"IOT_SPOOLER_{name}": value for name, value in environment.items()})

    def told(self, text: str = GOOD, **environment: str) -> list[str]:
        problems = self.look(text, **environment).problems
        return [problem.replace(str(self.path), "FILE") for problem in problems]

    def with_credentials(self, text: str = GOOD, **files: bytes) -> Loaded:
        for name, content in files.items():
            (self.credentials / name).write_bytes(content)
        self.path.write_text(text)
        return look(self.path, {"CREDENTIALS_DIRECTORY": str(self.credentials)})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path)


# -- the file


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file or directory; name the right one: --config FILE"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff"), "not valid TOML: "),
        (lambda path: path.write_text("x = " + "[" * 5000), "not valid TOML: "),
        (lambda path: path.write_text("x = " + "1" * 5000), "not valid TOML: "),
        (lambda path: path.write_text("x = "), "not valid TOML: "),
    ],
)
def test_a_file_that_is_no_configuration_is_told_and_nothing_else(config: Config, make: Any, words: str) -> None:
    make(config.path)
    with pytest.raises(BadConfiguration) as bad:
        look(config.path, {})
    (line,) = bad.value.problems
    assert line.startswith(f"{config.path}: ")
    assert words in line
    assert line.endswith(words) or words.endswith(": ")


def test_settings_are_read_whole_or_all_that_is_wrong_is_raised(config: Config) -> None:
    config.path.write_text(GOOD)
    assert load(config.path, {}).outbox[0].destination == "up"
    config.path.write_text(GOOD + "a = 1\nb = 2\n")
    with pytest.raises(BadConfiguration) as bad:
        load(config.path, {})
    assert str(bad.value).splitlines() == bad.value.problems
    assert len(bad.value.problems) == 2
    with pytest.raises(BadConfiguration):
        load(None, {})


def test_the_secrets_of_a_file_are_named_by_their_keys(config: Config) -> None:
    fallback = '[fallback]\nkind = "ftp"\nhost = "i"\npassword = "y"\n'
    config.path.write_text(GOOD.replace("[[outbox]]", f'password = "x"\nkey_passphrase = "z"\n{fallback}[[outbox]]'))
    assert sorted(secrets_in(config.path)) == ["fallback.password", "server.key_passphrase", "server.password"]
    for text in (GOOD, 'server = "x"\n', '[server]\nkind = "pigeon"\npassword = "x"\n', ""):
        config.path.write_text(text)
        assert secrets_in(config.path) == []


# -- what is wrong, in words


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "settle_s = -1\n", "outbox[0].settle_s = -1: must be at least 0 (from FILE:8)"),
        (GOOD + "include = 'a'\n", "outbox[0].include = 'a': must be a list: [\"...\", \"...\"] (from FILE:8)"),
        (GOOD + "retry = 5\n", "outbox[0].retry = (hidden): must be a table, begun with [outbox.retry] (from FILE:8)"),
        (GOOD + "[[retry]]\n", "retry = (...): must be a table, begun with [retry] (from FILE:8)"),
        (f"inbox = 5\n{GOOD}", "inbox = (hidden): must be tables, each begun with [[inbox]] (from FILE:1)"),
        (
            GOOD + "budget.max_fils = 3\n",
            "outbox[0].budget.max_fils: no such setting; perhaps outbox.budget.max_files (from FILE:8)",
        ),
        (GOOD + "retry.cap_s = '3'\n", "outbox[0].retry.cap_s = '3': must be a number, without quotes (from FILE:8)"),
        (f"base_s = 3\n{GOOD}", "base_s: no such setting; it belongs in [retry] (from FILE:1)"),
        (f"retry_base_s = 3\n{GOOD}", "retry_base_s: no such setting; perhaps retry.base_s (from FILE:1)"),
        (f"ttl_s = 3\n{GOOD}", "ttl_s: no such setting; it belongs in [outbox.budget] (from FILE:1)"),
        (f"zzzzzz = 3\n{GOOD}", "zzzzzz: no such setting (from FILE:1)"),
        (GOOD + "scan = 3\n", "outbox[0].scan: no such setting; perhaps outbox.scan_s (from FILE:8)"),
        (
            GOOD + "time_zone = 'UTC'\n",
            "outbox[0].time_zone: no such setting; it belongs before the first table (from FILE:8)",
        ),
        (
            GOOD.replace('user = "u"', 'marker = "u"'),
            "server.marker: no such setting with this kind of server (from FILE:4)",
        ),
        (GOOD.replace('user = "u"', "attempts = 3"), "server.attempts: no such setting (from FILE:4)"),
        (GOOD.replace("destination", "x"), "outbox[0].destination: missing; it must be given (in FILE:5)"),
    ],
)  # fmt: skip
def test_each_kind_of_mistake_has_its_words(config: Config, text: str, line: str) -> None:
    assert line in config.told(text)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('host = "sftp://u:pw@h"', "server.host = (hidden): "),
        ('host = "u:pw@h"', "server.host = (hidden): "),
        ('host = "a b"', "server.host = 'a b': "),
        ('password_file = "/none"', "server.password_file = '/none': "),
        ('password = ""', "server.password = (hidden): "),
        ("port = 0", "server.port = 0: "),
    ],
)
def test_no_value_is_shown_that_could_be_a_secret(config: Config, line: str, shown: str) -> None:
    key = line.partition(" ")[0]
    kept = "".join(each + "\n" for each in SERVER.splitlines() if not each.startswith(key))
    told = config.told(GOOD.replace(SERVER, f"{kept}{line}\n"))
    if key == "password" and not told:
        return
    (wrong,) = [each for each in told if each.startswith(f"server.{key}")]
    assert wrong.startswith(shown)


def test_a_long_value_is_cut_and_a_key_that_acts_on_a_terminal_is_not_shown_as_it_is(config: Config) -> None:
    (line,) = config.told(GOOD + f'ready = "{"x" * 500}"\n')
    assert len(line) < 400
    (line,) = config.told(GOOD + '"a\\u001bb" = 1\n')
    assert line.startswith("'outbox[0].a\\x1bb'")
    (line,) = config.told(f'"" = 1\n{GOOD}')
    assert line.startswith("'': no such setting")


# -- what is good, beside what is wrong


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (GOOD + "settle_s = -1\n", ["box"]),
        (GOOD + '[[outbox]]\npath = "two"\ndestination = "up"\n', ["box"]),
        (GOOD.replace('"up"', '" "'), ["box"]),
        (GOOD + "[retry]\nbase_s = -1\n", ["box"]),
        (f"log_level = 5\n{GOOD}", ["box"]),
        (f'log_level = "loud"\n{GOOD}', ["box"]),
        (GOOD + '[[inbox]]\npath = "in"\nsource = "x"\n', ["box"]),
        (GOOD.replace('host = "h"', "host = 5"), ["box"]),
        (GOOD + '[fallback]\nkind = "pigeon"\n', ["box"]),
    ],
)
def test_what_is_wrong_does_not_keep_the_rest_from_being_looked_at(
    config: Config, text: str, labels: list[str]
) -> None:
    settings, _, problems = config.look(text)
    assert problems != []
    assert settings is not None
    assert [outbox.label for outbox in settings.outbox] == labels


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.replace('state_dir = "/s"', ""),
        f"state_dir = '/s'\n{SERVER}",
        f"outbox = 5\nstate_dir = '/s'\n{SERVER}",
    ],
)
def test_too_little_to_look_at_is_told_as_that(config: Config, text: str) -> None:
    settings, _, problems = config.look(text)
    assert settings is None
    assert problems != []


def test_outboxes_keep_their_numbers_though_one_before_them_is_wrong(config: Config) -> None:
    first, second = '[[outbox]]\npath = "one"\ndestination = "up"\n', '[[outbox]]\npath = "/b"\ndestination = "up"\n'
    inner = '[[outbox]]\npath = "/b/c"\ndestination = "other"\n'
    told = config.told(GOOD + first + second + inner)
    assert told[0].startswith("outbox[1].path = 'one': must be an absolute path")
    assert told[1] == (
        "outbox[2].path = '/b' and outbox[3].path = '/b/c': one lies within the other: every file would be sent twice"
        " (in FILE:12, FILE:15)"
    )
    _, origins, _ = config.look(GOOD + first + second + inner)
    assert origins.key(("outbox", 1, "path")) == "outbox[2].path"


def test_a_list_of_which_all_is_wrong_is_not_also_too_short(config: Config) -> None:
    (line,) = config.told(GOOD.replace('"/box"', '"box"'))
    assert line.startswith("outbox[0].path = 'box': ")


def test_a_value_of_the_wrong_kind_is_told_once_of_every_table(config: Config) -> None:
    more = (
        '[[inbox]]\npath = "/in"\nsource = "x"\npoll_s = "5"\n[wake]\nmin_s = "5"\n[fallback]\nhost = "i"\nport = "5"\n'
    )
    told = config.told(f'scan_s = "5"\n{GOOD}settle_s = "5"\nbudget.max_files = "5"\n{more}')
    keys = {line.partition(" ")[0] for line in told}
    assert keys == {
        "scan_s", "fallback.port", "wake.min_s", "outbox[0].settle_s", "outbox[0].budget.max_files", "inbox[0].poll_s",
    }  # fmt: skip
    assert len(told) == len(keys)


# -- the environment


@pytest.mark.parametrize(
    ("name", "value", "place", "taken"),
    [
        ("LOG_LEVEL", "debug", ("log_level",), "debug"),
        ("OUTBOX__0__SETTLE_S", "7", ("outbox", 0, "settle_s"), 7.0),
        ("OUTBOX__0__INCLUDE", '["a"]', ("outbox", 0, "include"), ("a",)),
        ("OUTBOX__0__BUDGET__PRESERVE", '["a"]', None, None),
        ("RATES", '["08:00-18:00 1 Mbit/s"]', ("rates",), ("08:00-18:00 1 Mbit/s",)),
        ("INBOX__0__PATH", "/in", None, None),
        ("SERVER__PROMPT_COMMAND", ' ["a", "b"]', ("server", "prompt_command"), ("a", "b")),
        ("SERVER__PROMPT_COMMAND", "a b", ("server", "prompt_command"), ("a", "b")),
        ("RETRY__BASE_S", "3", ("retry", "base_s"), 3.0),
    ],
)
def test_a_variable_sets_what_its_name_says(
    config: Config, name: str, value: str, place: tuple[Any, ...] | None, taken: Any
) -> None:
    settings, origins, problems = config.look(GOOD, **{name: value})
    if place is None:  # it is wrong, but it has its place
        assert problems != []
        assert all("no such place" not in line for line in problems)
        return
    assert problems == []
    found: Any = settings
    for key in place:
        found = found[key] if isinstance(key, int) else getattr(found, key)
    assert found == taken
    assert origins.of(place) == f"environment variable IOT_SPOOLER_{name}"


def test_a_box_one_behind_the_last_is_a_new_one_and_whole_lists_are_json(config: Config) -> None:
    settings, _, problems = config.look(GOOD, OUTBOX__1__PATH="/two", OUTBOX__1__DESTINATION="other")
    assert problems == []
    assert settings is not None
    assert [outbox.label for outbox in settings.outbox] == ["box", "two"]
    boxes = [{"path": "/three", "destination": "up"}]
    settings, _, problems = config.look(GOOD, OUTBOX=json.dumps(boxes))
    assert settings is not None
    assert [outbox.label for outbox in settings.outbox] == ["three"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OUTBOX__2__PATH", "/x", "no such place in the configuration"),
        ("OUTBOX__1000__PATH", "/x", "no such place in the configuration"),
        ("OUTBOX__PATH", "/x", "no such place in the configuration"),
        ("STATE_DIR__X", "/x", "no such place in the configuration"),
        ("SERVER__0", "/x", "no such place in the configuration"),
        ("OUTBOX", "/x", "must be a JSON list: "),
        ("OUTBOX__0__INCLUDE", "*.csv", "must be a JSON list: "),
        ("OUTBOX__0__INCLUDE", "[" * 100_000, "must be a JSON list: "),
    ],
)
def test_a_variable_that_has_no_place_or_no_list_is_told(config: Config, name: str, value: str, words: str) -> None:
    told = config.told(GOOD, **{name: value})
    assert told[0].startswith(f"IOT_SPOOLER_{name}: {words}")
    assert told[0].endswith(" (from the environment)")


def test_the_kind_of_server_is_read_before_the_settings_that_depend_on_it(config: Config) -> None:
    """By name, the kind would come after the host."""
    text = GOOD.replace(SERVER, "")
    settings, _, problems = config.look(text, SERVER__HOST="h", SERVER__KIND="ftp", SERVER__ACTIVE="true")
    assert problems == []
    assert settings is not None
    assert settings.server.address == "h:21"


def test_other_variables_are_none_of_ours(config: Config) -> None:
    config.path.write_text(GOOD)
    given = {"IOT_SPOOLER_CONFIG": "/x", "IOT_SPOOLE": "x", "PATH": "/bin", "SFTP_HOST": "x"}
    assert look(config.path, given).problems == []
    for name in ("iot_spooler_host", "IOT_SPOOLERX"):
        (line,) = look(config.path, {name: "x"}).problems
        assert line == f"{name}: looks like a setting, but lacks the prefix IOT_SPOOLER_ (in the environment)"


# -- credentials


def test_a_credential_is_the_content_of_a_secret_and_the_path_of_any_other(config: Config) -> None:
    settings, origins, problems = config.with_credentials(
        sftp_key_passphrase=b" p w \r\n", sftp_key=b"key", sftp_x=b"x"
    )
    assert problems == []
    server: Any = settings and settings.server
    assert server.key_passphrase.get_secret_value() == " p w "
    assert server.key_file == config.credentials / "sftp_key"
    assert origins.of(("server", "key_passphrase")) == "credential sftp_key_passphrase"


@pytest.mark.parametrize("given", ['password = "own"', 'password_file = "FILE"'])
def test_what_is_given_comes_before_a_credential(config: Config, given: str) -> None:
    own = config.path.with_name("own")
    own.write_text("own")
    text = GOOD.replace('user = "u"', f'user = "u"\n{given.replace("FILE", str(own))}')
    settings, _, problems = config.with_credentials(text, sftp_password=b"other")
    server: Any = settings and settings.server
    assert problems == []
    assert server.login_password() == "own"


def test_a_credential_alone_makes_no_server_but_the_first(config: Config) -> None:
    settings, _, problems = config.with_credentials(sftp_fallback_password=b"x")
    assert problems == []
    assert settings is not None
    assert settings.fallback is None
    settings, _, _ = config.with_credentials(GOOD + '[fallback]\nhost = "i"\n', sftp_fallback_password=b"x")
    fallback: Any = settings and settings.fallback
    assert fallback.login_password() == "x"


def test_a_credential_that_cannot_be_read_is_told_with_its_name(config: Config) -> None:
    told = config.with_credentials(sftp_key_passphrase=b"\xff").problems
    assert told == ["server.key_passphrase: holds no UTF-8 text (from credential sftp_key_passphrase)"]
    (config.credentials / "sftp_key_passphrase").chmod(0)

    def ask() -> None:
        config.path.write_text(GOOD)
        found = look(config.path, {"CREDENTIALS_DIRECTORY": str(config.credentials)}).problems
        assert found == ["server.key_passphrase: Permission denied (from credential sftp_key_passphrase)"]

    without_capabilities(ask)


def test_a_folder_in_place_of_a_credential_is_none(config: Config) -> None:
    (config.credentials / "sftp_password").mkdir()
    assert config.with_credentials().problems == []
    assert os.listdir(config.credentials) == ["sftp_password"]


def test_without_settings_of_a_server_its_table_is_missing_and_not_its_kind() -> None:
    problems = look(None, {"IOT_SPOOLER_STATE_DIR": "/s"}).problems
    assert "server.host: missing; it must be given (in the environment)" in problems
    assert module.PREFIX == "IOT_SPOOLER_"
