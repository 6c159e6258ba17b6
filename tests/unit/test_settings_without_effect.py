"""Settings that do nothing as they stand: `check` and the agent warn. All wrong texts of a list are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from iot.spooler.cli.main import main
from iot.spooler.config.effects import without_effect
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.naming import Action, Rule, useless

TOP = 'state_dir = "/var/lib/iot-spooler"\n'
SERVER = '[server]\nhost = "a"\nuser = "device"\n'
OUTBOX = '[[outbox]]\npath = "/out"\ndestination = "up"\n'
INBOX = '[[inbox]]\npath = "/in"\nsource = "down"\n'


def warnings(tmp_path: Path, outbox: str = "", top: str = "", inbox: str = "") -> list[str]:
    file = tmp_path / "spooler.toml"
    file.write_text(TOP + top + SERVER + OUTBOX + outbox + (INBOX + inbox if inbox else ""))
    return without_effect(load(file, {}))


@pytest.mark.parametrize(
    ("outbox", "top", "words"),
    [
        ('on_metered = "stop"\n', "", 'on_metered = "stop" has no effect without metered_command'),
        ('beyond_quota = "send"\n', "", 'beyond_quota = "send" has no effect without quota_day or quota_month'),
        ("batch_grace_s = 5\n", "", "batch_grace_s has no effect without batch_marker"),
        ('archive = "/a"\n', "", 'archive has no effect without after_upload = "archive"'),
        ("archive_max_age_s = 5\n", "", 'archive_max_age_s has no effect without after_upload = "archive"'),
        (
            'beyond_quota = "urgent"\n',
            'quota_day = "1 MiB"\n',
            'beyond_quota = "urgent" sends nothing: the outbox has no urgent patterns',
        ),
        (
            'rules = [{ action = "prefix", value = "x/" }, { action = "only-filename" }]\n',
            "",
            "rules[0] (prefix) has no effect: rules[1] (only-filename) leaves nothing of it",
        ),
    ],
)
def test_a_setting_of_an_outbox_that_does_nothing_is_named(tmp_path, outbox, top, words):
    assert warnings(tmp_path, outbox, top) == [f"outbox out: {words}"]


def test_so_is_one_of_an_inbox_or_of_all(tmp_path):
    inbox = warnings(tmp_path, inbox='on_metered = "stop"\nbeyond_quota = "send"\n')
    assert inbox == [
        'inbox in: on_metered = "stop" has no effect without metered_command',
        'inbox in: beyond_quota = "send" has no effect without quota_day or quota_month',
    ]
    (metered,) = warnings(tmp_path, top='metered_command = ["true"]\n')
    assert metered.startswith("metered_command has no effect: everything is sent")
    (quota,) = warnings(tmp_path, top='quota_day = "2 GiB"\nquota_month = "1 GiB"\n')
    assert quota == "quota_day of 2.0 GiB has no effect: it is more than the quota_month of 1.0 GiB"


def test_what_has_an_effect_is_not(tmp_path):
    outbox = (
        'urgent = ["a*"]\non_metered = "urgent"\nbeyond_quota = "urgent"\nafter_upload = "archive"\narchive = "/a"\n'
        'archive_max_bytes = 5\nbatch_marker = "*.done"\nbatch_grace_s = 5\n'
        'rules = [{ action = "lowercase" }, { match = "*.csv", action = "replace-separator", value = "_" }]\n'
    )
    top = 'metered_command = ["true"]\nquota_day = "1 MiB"\nquota_month = "1 GiB"\n'
    assert warnings(tmp_path, outbox, top) == []
    assert warnings(tmp_path) == []


MARKER = 'batch_marker = "*.done"\n'


@pytest.mark.parametrize(
    "patterns",
    ['include = ["*.csv"]\n', 'exclude = ["*.done"]\n', 'include = ["a/*.csv"]\nignore_case = true\n'],
)
def test_a_marker_that_is_not_sent_is_named(tmp_path, patterns):
    (warning,) = warnings(tmp_path, MARKER + patterns)
    assert "batch_marker = *.done names files that are not sent" in warning


def test_a_marker_with_the_name_of_what_is_not_finished_is_named(tmp_path):
    (warning,) = warnings(tmp_path, 'batch_marker = "*.part"\nready = "renamed"\n')
    assert "no batch would ever be complete" in warning


@pytest.mark.parametrize(
    "patterns",
    [
        'include = ["*.csv", "*.done"]\n',
        'include = ["day/*"]\n',
        'include = ["day*"]\n',
        'include = ["re:.*"]\n',
        'exclude = ["*.tmp"]\n',
        'include = ["*.DONE"]\nignore_case = true\n',
        'batch_marker = "[rR]eady"\ninclude = ["*.csv"]\n',
    ],
)
def test_a_marker_that_may_be_sent_is_believed(tmp_path, patterns):
    assert warnings(tmp_path, patterns if "marker" in patterns else MARKER + patterns) == []


@pytest.mark.parametrize(
    ("rules", "pairs"),
    [
        ([Rule("*", Action.REPLACE, "B", "b"), Rule("*", Action.LOWERCASE)], [(0, 1)]),
        ([Rule("*", Action.ONLY_FILENAME), Rule("*", Action.REPLACE_SEPARATOR, "_")], []),
        ([Rule("*", Action.PREFIX, "x-"), Rule("*", Action.ONLY_FILENAME)], []),
        ([Rule("*.csv", Action.PREFIX, "x/"), Rule("*.txt", Action.ONLY_FILENAME)], []),
        ([Rule("*", Action.PREFIX, "x/"), Rule("*", Action.LOWERCASE), Rule("*", Action.ONLY_FILENAME)], []),
        ([Rule("*", Action.NO_ACTION), Rule("*", Action.LOWERCASE)], []),
    ],
)
def test_a_rule_of_which_the_next_one_leaves_nothing_is_found(rules, pairs):
    assert list(useless(rules)) == pairs


def test_check_says_so_and_is_content(tmp_path, capfd):
    for name in ("state", "out", "far"):
        (tmp_path / name).mkdir()
    file = tmp_path / "spooler.toml"
    file.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nkind = "folder"\npath = "{tmp_path}/far"\n'
        f'[[outbox]]\npath = "{tmp_path}/out"\ndestination = "up"\non_metered = "stop"\n'
    )
    assert main(["check", "--config", str(file)]) == 0
    assert 'warning: outbox out: on_metered = "stop" has no effect' in capfd.readouterr().err


@pytest.mark.parametrize(
    ("top", "outbox", "named"),
    [
        ("", 'schedule = ["23:00-23:00", "Sat-Sun", "25:00-26:00"]\n', ("'23:00-23:00' never opens", "'25:00-26:00'")),
        ('rates = ["a", "b"]\n', "", ("'a': must be", "'b': must be")),
        ("", 'include = ["re:(", "re:)"]\n', ("'re:('", "'re:)'")),
        ("", '[outbox.budget]\nmax_files = 3\npreserve = ["re:(", "re:)"]\n', ("'re:('", "'re:)'")),
    ],
)
def test_all_wrong_texts_of_a_list_are_named_at_once(tmp_path, top, outbox, named):
    with pytest.raises(BadConfiguration) as caught:
        warnings(tmp_path, outbox, top)
    (problem,) = caught.value.problems
    assert all(words in problem for words in named)


@pytest.mark.parametrize(
    ("outbox", "top", "told"),
    [
        ('on_metered = "stop"\n', 'metered_command = ["true"]\n', []),
        ('on_metered = "urgent"\n', 'metered_command = ["true"]\n', ['on_metered = "urgent" sends nothing']),
        ('on_metered = "urgent"\nurgent = ["a"]\n', 'metered_command = ["true"]\n', []),
        ('beyond_quota = "send"\n', 'quota_day = "1 MiB"\n', []),
        ('beyond_quota = "send"\n', 'quota_month = "1 MiB"\n', []),
        ("archive_max_bytes = 5\n", "", ["archive_max_bytes has no effect"]),
        ('after_upload = "archive"\narchive_max_bytes = 5\narchive_max_age_s = 5\n', "", []),
        ("", 'quota_day = "1 GiB"\nquota_month = "1 GiB"\n', []),
        ("", 'quota_day = "1 GiB"\n', []),
        ("", 'quota_month = "1 GiB"\n', []),
        ('batch_marker = "*.done"\nbatch_grace_s = 5\n', "", []),
    ],
)
def test_only_what_does_nothing_is_named(tmp_path, outbox, top, told):
    found = warnings(tmp_path, outbox, top)
    assert len(found) == len(told)
    assert all(words in line for words, line in zip(told, found, strict=True))
