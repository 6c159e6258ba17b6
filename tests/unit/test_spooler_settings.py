"""The configuration: every wrong key at once, with where it came from, and never a secret."""

import json

import pytest
from unit.spooler_config import GOOD, problems

from iot.spooler.cli.main import main
from iot.spooler.config.load import load


@pytest.fixture
def config(tmp_path):
    (tmp_path / "credentials-spooler").mkdir(exist_ok=True)
    (tmp_path / "credentials-spooler" / "key").touch()  # as for iot-spooler@spooler

    def write(text):
        path = tmp_path / "spooler.toml"
        path.write_text(text)
        return path

    return write


def test_good_file_gives_plain_frozen_values(config):
    settings = load(config(GOOD), {})
    assert settings.outbox[0].settle_s == 2.0
    assert settings.server.client_options() == {"tail_size": 4096}
    with pytest.raises(ValueError, match="frozen"):
        settings.device_id = "other"


def test_every_wrong_key_is_told_at_once_with_value_and_file(config):
    path = config(
        GOOD.replace('"gw-0042"', '"../x"').replace("4096", '"much"').replace("{device_id}", "{nobody}")
        + 'settle_s = -1\nafter_upload = "burn"\ninclude = ["re:("]\nwhatever = 1\n'
    )
    told = problems(path)
    for key in (
        "device_id = '../x'",
        "server.tail_size = 'much'",
        "outbox[0].destination",
        "outbox[0].settle_s = -1",
        "outbox[0].after_upload = 'burn'",
        "outbox[0].include",
        "outbox[0].whatever",
    ):
        assert any(line.startswith(key) for line in told), (key, told)
    assert all(str(path) in line for line in told)
    assert any("'delete', 'archive', 'keep' or 'forward'" in line for line in told)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('settle_s = "1"', "outbox[0].settle_s = '1': must be a number, without quotes"),
        ("settle_s = true", "outbox[0].settle_s = True: must be a number, without quotes"),
        ('settle_s = "soon"', "outbox[0].settle_s = 'soon': must be a number, without quotes"),
        ('recursive = "yes"', "outbox[0].recursive = 'yes': must be true or false, without quotes"),
        ("recursive = 1", "outbox[0].recursive = 1: must be true or false, without quotes"),
        ('priority = "3"', "outbox[0].priority = '3': must be a whole number, without quotes"),
        ("priority = 3.0", "outbox[0].priority = 3.0: must be a whole number, without quotes"),
        (
            "archive_max_bytes = false",
            'outbox[0].archive_max_bytes = False: must be a whole number of bytes, or text such as "10 MiB"',
        ),
        ('[retry]\nmax_attempts = "8"', "retry.max_attempts = '8': must be a whole number, without quotes"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_line(config, given, told):
    path = config(GOOD + given + "\n")
    assert problems(path) == [f"{told} (from {path}:{(GOOD + given).count(chr(10)) + 1})"]


def test_numbers_of_the_server_are_no_text_either(config):
    assert problems(config(GOOD.replace("4096", '"4096"'))) == [
        f"server.tail_size = '4096': must be a whole number, without quotes (from {config(GOOD)}:7)"
    ]
    ftp = GOOD.replace("[server]", '[server]\nkind = "ftp"\npassword = "x"')
    assert load(config(ftp.replace("tail_size = 4096", "tls = false")), {}).server.tls is False
    assert load(config(ftp.replace("tail_size = 4096", 'tls = "implicit"')), {}).server.tls == "implicit"
    assert "server.tls = 1" in "".join(problems(config(ftp.replace("tail_size = 4096", "tls = 1"))))


def test_whole_numbers_and_sizes_as_text_are_of_the_right_kind(config):
    settings = load(config(GOOD + 'settle_s = 1\narchive_max_bytes = "10 MiB"\n'), {})
    assert (settings.outbox[0].settle_s, settings.outbox[0].archive_max_bytes) == (1.0, 10 * 1024 * 1024)


def test_text_of_the_environment_is_a_number_where_one_is_wanted(config):
    environment = {"IOT_SPOOLER_OUTBOX__0__SETTLE_S": "1", "IOT_SPOOLER_OUTBOX__0__RECURSIVE": "no"}
    outbox = load(config(GOOD), environment).outbox[0]
    assert (outbox.settle_s, outbox.recursive) == (1.0, False)


def test_environment_wins_and_is_named(config):
    path = config(GOOD)
    environment = {
        "IOT_SPOOLER_SERVER__HOST": "other.example.com",
        "IOT_SPOOLER_OUTBOX__0__SETTLE_S": "7",
        "IOT_SPOOLER_OUTBOX__1__PATH": "/second",
        "IOT_SPOOLER_OUTBOX__1__DESTINATION": "/up",
        "IOT_SPOOLER_OUTBOX__1__INCLUDE": '["*.csv"]',
    }
    settings = load(path, environment)
    assert settings.server.host == "other.example.com"
    assert [outbox.settle_s for outbox in settings.outbox] == [7.0, 2.0]
    assert settings.outbox[1].include == ("*.csv",)
    told = problems(path, {"IOT_SPOOLER_SERVER__PORT": "99999", "IOT_SPOOLER_OUTBOX__5__PATH": "/x"})
    assert any("server.port = '99999'" in line and "IOT_SPOOLER_SERVER__PORT" in line for line in told)
    assert any("IOT_SPOOLER_OUTBOX__5__PATH" in line for line in told)


def test_environment_alone_is_enough():
    environment = {
        "IOT_SPOOLER_STATE_DIR": "/s",
        "IOT_SPOOLER_SERVER__HOST": "h",
        "IOT_SPOOLER_OUTBOX": json.dumps([{"path": "/o", "destination": "/d"}]),
    }
    assert load(None, environment).outbox[0].destination == "/d"


def test_credentials_of_systemd_fill_what_is_not_set(config, tmp_path):
    (tmp_path / "sftp_password").write_text("hunter2\n")
    (tmp_path / "sftp_key").write_text("key")
    settings = load(config(GOOD), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.server.login_password() == "hunter2"
    assert settings.server.key_file == tmp_path / "sftp_key"
    given = load(
        config(GOOD.replace("[[outbox]]", 'password = "own"\n[[outbox]]')), {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    )
    assert given.server.login_password() == "own"


def test_secrets_are_never_shown(config, tmp_path):
    secret = "hunter2-very-secret"
    lines = f'password = ["{secret}"]\nkey_passphrase = {{a = "{secret}"}}\n'
    assert secret not in "\n".join(problems(config(GOOD.replace("[[outbox]]", lines + "[[outbox]]"))))
    both = f'password = "{secret}"\npassword_file = "{config("x")}"\n'
    assert secret not in "\n".join(problems(config(GOOD.replace("[[outbox]]", both + "[[outbox]]"))))
    settings = load(config(GOOD.replace("[[outbox]]", f'password = "{secret}"\n[[outbox]]')), {})
    assert secret not in repr(settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("[[outbox]]", 'key_file = "/no/such/key"\n[[outbox]]'), "cannot be read"),
        (GOOD + GOOD[GOOD.index("[[outbox]]") :], "sent twice"),
        (GOOD + '[[outbox]]\npath="/var/spool/iot/outbox/in"\ndestination="/"\n', "sent twice"),
        (GOOD + 'quarantine = "/var/spool/iot"\n', "an outbox must hold nothing but"),
        (GOOD.replace('"/var/spool/iot/outbox"', '"relative"'), "absolute"),
        (GOOD[: GOOD.index("[[outbox]]")], "outbox: missing"),
        (GOOD.replace("[[outbox]]", "[outbox]"), "outbox = (...): must be tables, each begun with [[outbox]] (from "),
        (GOOD.replace("[server]", "[[server]]"), "must be a table, begun with [server] (from "),
        (GOOD + 'exclude = "*.tmp"\n', 'outbox[0].exclude = \'*.tmp\': must be a list: ["...", "..."] (from '),
        ("this is not toml", "not valid TOML"),
    ],
)
def test_each_kind_of_bad_setting_is_told(config, text, words):
    assert any(words in line for line in problems(config(text)))


def test_check_exits_with_78_or_0(config, tmp_path, capsys, monkeypatch):
    assert main(["check", "--config", str(config("x = 1"))]) == 78
    assert "state_dir: missing" in capsys.readouterr().err
    assert main(["check", "--config", str(tmp_path / "none.toml")]) == 78
    assert main(["check", "--config", str(config(GOOD))]) == 78
    assert "outbox[0].path = /var/spool/iot/outbox: is not there" in capsys.readouterr().err
    (tmp_path / "box").mkdir()
    here = GOOD.replace("/var/spool/iot/outbox", f"{tmp_path}/box")
    assert main(["check", "--config", str(config(here))]) == 0


@pytest.mark.parametrize(
    "line",
    [
        'pasword = "hunter2"',
        "pasword = 12345678",
        'pasword = ["hunter2"]',
        'pasword = {secret = "hunter2"}',
        'password = {valeu = "hunter2"}',
        'agent = {pasword = "hunter2"}',
        "password = 12345678",
        "key_passphrase = 12345678",
        'password = ["hunter2"]',
        "key_passphrase = [12345678]",
    ],
)
def test_a_mistyped_setting_or_a_secret_of_the_wrong_kind_never_shows_its_value(config, capsys, line):
    path = config(GOOD.replace("tail_size = 4096", line))
    assert main(["check", "--config", str(path)]) == 78
    told = capsys.readouterr()
    assert f"server.{line.partition(' ')[0]}" in told.err
    assert "hunter2" not in told.out + told.err
    assert "12345678" not in told.out + told.err


@pytest.mark.parametrize("name", ["SERVER__PASWORD", "PASWORD", "SERVER__PASSWORD__VALUE", "OUTBOX__0__PASWORD"])
def test_a_mistyped_variable_never_shows_its_value(config, name):
    told = problems(config(GOOD), {f"IOT_SPOOLER_{name}": "hunter2"})
    assert "hunter2" not in "\n".join(told)
    assert name.split("__")[-1 if "PASWORD" in name else 0].lower() in "\n".join(told).lower()


@pytest.mark.parametrize("kind", ["sftp", "ftp"])
@pytest.mark.parametrize("host", ["me:hunter2@h", "me@h", "h:22", "h/upload"])
def test_a_host_that_is_not_only_a_host_is_refused_without_its_password(config, kind, host):
    told = problems(config(GOOD), {"IOT_SPOOLER_SERVER__HOST": host, "IOT_SPOOLER_SERVER__KIND": kind})
    [line] = [each for each in told if each.startswith("server.host = ")]
    assert "must be a name or an address alone" in line
    assert "hunter2" not in line


def test_nothing_from_the_configuration_acts_on_the_terminal(config, capsys):
    assert main(["check", "--config", str(config(GOOD.replace("{device_id}", "{\\u001b[2J}")))]) == 78
    told = capsys.readouterr().err
    assert "\\x1b[2J" in told
    assert "\x1b" not in told


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("IOT_SPOOLER_FOO", "foo: no such setting"),
        ("IOT_SPOOLER_SERVER_HOST", "server_host: no such setting; perhaps server.host"),
        ("IOT_SPOOLER_SERVER__HOTS", "server.hots: no such setting; perhaps server.host"),
        ("IOT_SPOOLER_OUTBOX__0__PAHT", "outbox[0].paht: no such setting; perhaps outbox.path"),
        ("IOT_SPOOLER_RETRY__BASES", "retry.bases: no such setting; perhaps retry.base_s"),
        ("IOT_SPOOLER_SERVER__ATTEMPTS", "server.attempts: no such setting"),
        ("IOT_SPOOLER_SERVER__STATE_DIR", "server.state_dir: no such setting"),
        ("IOT_SPOOLER_OUTBOX__0__STATE_DIR", "outbox[0].state_dir: no such setting; it belongs before the first table"),
        ("IOT_SPOOLER_OUTBOX__0__MAX_RATE", "outbox[0].max_rate: no such setting; it belongs in [server]"),
        ("IOT_SPOOLER_OUTBOX__0__TTL_S", "outbox[0].ttl_s: no such setting; it belongs in [outbox.budget]"),
        ("IOT_SPOOLER___X", "'': no such setting"),
        ("IOT_SPOOLER_CONFIG__X", "config: no such setting"),
        ("IOT_SPOOLER_OUTBOX__5__PATH", "no such place"),
        ("iot_spooler_server__host", "looks like a setting"),
        ("IOT_SPOOLERSERVER", "looks like a setting"),
    ],
)
def test_a_variable_that_sets_nothing_is_told_with_its_name_and_its_neighbour(config, name, words):
    (line,) = problems(config(GOOD), {name: "x"})
    assert words in line
    assert name in line


def test_an_option_that_the_spooler_sets_itself_is_refused_in_the_file_too(config):
    (line,) = problems(config(GOOD.replace("tail_size = 4096", 'owner_tag = "x"')))
    assert line.startswith("server.owner_tag: no such setting (from ")


@pytest.mark.parametrize("kind", ["sftp", "ftp"])
def test_a_password_is_one_line(config, tmp_path, kind):
    (tmp_path / "password").write_text("hunter2\nhunter3\n")
    for line in ('password = "hunter2\\nhunter3"', f'password_file = "{tmp_path}/password"'):
        (told,) = problems(config(GOOD.replace("[server]", f'[server]\nkind = "{kind}"\n{line}')))
        assert told.startswith(f"server.{line.partition(' ')[0]} = ")
        assert "hunter" not in told


def test_a_schedule_and_its_time_zone_are_checked_and_named_with_their_line(config):
    path = config(
        GOOD.replace("[server]", 'time_zone = "Europe/Berlim"\n[server]')
        + 'schedule = ["Mon-Fri 08:00-18:00", "08:00-08:00"]\n'
    )
    zone, window = problems(path)
    assert zone.startswith("time_zone = 'Europe/Berlim': no such time zone; perhaps Europe/Berlin (from ")
    assert zone.endswith("spooler.toml:4)")
    assert window.startswith("outbox[0].schedule = (...): '08:00-08:00' never opens: it ends when it begins;")
    settings = load(config(GOOD), {"IOT_SPOOLER_OUTBOX__0__SCHEDULE": '["Sat-Sun"]', "IOT_SPOOLER_TIME_ZONE": "UTC"})
    assert settings.outbox[0].schedule == ("Sat-Sun",)
    assert str(settings.zone) == "UTC"


@pytest.mark.parametrize("name", ["Europe", "../etc/passwd", "", "nonsense", "/etc/localtime"])
def test_what_is_no_time_zone_is_refused(config, name):
    (told,) = problems(config(f'time_zone = "{name}"\n{GOOD}'))
    assert told.startswith(f"time_zone = '{name}': no such time zone; ")


def test_without_a_time_zone_that_of_the_device_counts(config, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    assert str(load(config(GOOD), {}).zone) == "America/New_York"
    monkeypatch.setenv("TZ", "no such zone")
    assert str(load(config(GOOD), {}).zone) == "UTC"


def test_a_timetable_of_the_rate_is_checked(config):
    (told,) = problems(config('rates = ["08:00-18:00 1 Mbit/s", "08:00-18:00"]\n' + GOOD))
    assert told.startswith("rates = (...): '08:00-18:00': must be a window and a rate")
    (told,) = problems(config(GOOD.replace("tail_size = 4096", 'max_rate = "2 parsec/s"')))
    assert told.startswith("server.max_rate = '2 parsec/s': must be bytes a second, or a text such as")


def test_a_command_that_is_no_program_and_a_quota_without_its_period_are_refused(config):
    head = 'condition = ["no-such-program", "x"]\nquota = "50 MiB"\nquota_day = 0\n'
    told = problems(config(head + GOOD))
    assert any(line.startswith("condition = (...): 'no-such-program' is not an executable program") for line in told)
    assert any(line.startswith("quota: no such setting; perhaps quota_day") for line in told)
    assert any(line.startswith("quota_day = 0: ") for line in told)
