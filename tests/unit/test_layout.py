"""Folders, names and options of a configuration that do not go together: each is found with its keys and its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iot.spooler.config.layout import contradictions, merging_rules, shared_destinations
from iot.spooler.config.settings import Settings

Found = list[tuple[list[str], str]]
TWICE = "every file would be sent twice"
NOTHING_ELSE = "an outbox must hold nothing but what is to be sent"
STATE_ONLY = "the state directory holds nothing but the agent's state"
APART = "what is delivered must lie apart"
FETCHED_APART = "what is fetched must lie apart"


def settings(outboxes: list[dict[str, Any]], inboxes: list[dict[str, Any]], **top: Any) -> Settings:
    given = {
        "state_dir": "/n/state",
        "server": {"host": "h"},
        "outbox": [{"path": "/n/box", "destination": "up", **each} for each in outboxes],
        "inbox": [{"path": "/n/in", "source": "cfg", **each} for each in inboxes],
        **top,
    }
    return Settings.model_validate(given)


def found(*outboxes: dict[str, Any], inboxes: tuple[dict[str, Any], ...] = (), **top: Any) -> Found:
    """The keys that do not go together, and why, without what all reasons of folders begin with."""
    contradicting = contradictions(settings(list(outboxes) or [{}], list(inboxes), **top))
    return [
        (
            [".".join(map(str, place)) + value for place, value in each.settings],
            each.reason.removeprefix("one lies within the other: "),
        )
        for each in contradicting
    ]


def reasons(*outboxes: dict[str, Any], **more: Any) -> list[str]:
    return [reason for _, reason in found(*outboxes, **more)]


def two(path: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"path": path, "name": "two", "destination": "other", **more}


ARCHIVES = {"after_upload": "archive"}


def test_folders_of_their_own_go_together() -> None:
    assert found(*two("/n/boxes"), inboxes=({}, {"path": "/n/inn"})) == []


@pytest.mark.parametrize(
    ("outboxes", "expected"),
    [
        (two("/n/box/sub"), [TWICE]),
        (two("/n"), [NOTHING_ELSE, TWICE, NOTHING_ELSE, NOTHING_ELSE]),
        (({"quarantine": "/n/box/q"},), [NOTHING_ELSE]),
        (({**ARCHIVES, "archive": "/n/box/a"},), [NOTHING_ELSE]),
        (({"archive": "/n/box/a"},), [NOTHING_ELSE]),
        (({"path": "/n/state/box"},), [NOTHING_ELSE]),
        (({**ARCHIVES, "archive": "/n/state/a"},), [STATE_ONLY]),
        (({**ARCHIVES, "archive": "/n/state/archive/a"},), []),
        (({"quarantine": "/n/state/archive/q"},), [STATE_ONLY]),
        (({"quarantine": "/n/state/quarantine/q"},), []),
        (
            ({**ARCHIVES, "archive": "/n/a", "quarantine": "/n/a/q"},),
            ["what was never delivered would be deleted by age"],
        ),
        (({"path": "/n/state/archive/box", **ARCHIVES},), [NOTHING_ELSE, NOTHING_ELSE]),
    ],
)
def test_what_the_agent_moves_or_keeps_lies_apart_from_what_is_sent(
    outboxes: tuple[dict[str, Any], ...], expected: list[str]
) -> None:
    told = reasons(*outboxes)
    assert told[: len(expected)] == expected
    assert bool(told) is bool(expected)


def test_the_keys_of_both_folders_are_named_with_their_values() -> None:
    assert found(*two("/n/box/sub")) == [(["outbox.0.path = '/n/box'", "outbox.1.path = '/n/box/sub'"], TWICE)]
    assert found({**ARCHIVES, "archive": "/n/state/a"}) == [
        (["state_dir = '/n/state'", "outbox.0.archive = '/n/state/a'"], STATE_ONLY)
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"archive": "/n/a"}, {"archive": "/n/a"}, []),
        ({"archive": "/n/a", "archive_max_age_s": 5}, {"archive": "/n/a", "archive_max_age_s": 5}, []),
        ({"archive": "/n/a"}, {"archive": "/n/a/b"}, ["one lies within the other"]),
        ({"quarantine": "/n/q"}, {"quarantine": "/n/q"}, []),
        ({"quarantine": "/n/q"}, {"quarantine": "/n/q/r"}, ["one lies within the other"]),
        ({"quarantine": "/n/q", "archive_max_bytes": 5}, {"quarantine": "/n/q"}, []),
        (
            {"archive": "/n/a", "archive_max_age_s": 5},
            {"archive": "/n/a", "archive_max_age_s": 6},
            ["outboxes that share an archive must set the same archive_max_age_s and archive_max_bytes"],
        ),
        (
            {"archive": "/n/a"},
            {"archive": "/n/a", "archive_max_bytes": 6},
            ["outboxes that share an archive must set the same archive_max_age_s and archive_max_bytes"],
        ),
    ],
)
def test_outboxes_share_a_folder_whole_or_not_at_all(
    first: dict[str, Any], second: dict[str, Any], expected: list[str]
) -> None:
    one, other = two("/n/two")
    assert reasons({**one, **ARCHIVES, **first}, {**other, **ARCHIVES, **second}) == expected


FOLDER = {"server": {"kind": "folder", "path": "/n/disk"}}


@pytest.mark.parametrize(
    ("outboxes", "expected"),
    [
        (two("/n/two", destination="up"), []),
        (({"path": "/n/disk/up"},), [APART]),
        (({"path": "/n/disk/up/2026", "destination": "up/{date}"},), [APART]),
        (({"path": "/n/disk/down", "destination": "up"},), []),
        (({"quarantine": "/n/disk/up/q"},), [APART]),
    ],
)
def test_what_is_delivered_to_a_folder_of_this_device_lies_apart(
    outboxes: tuple[dict[str, Any], ...], expected: list[str]
) -> None:
    assert reasons(*outboxes, **FOLDER) == expected


def test_a_fallback_that_is_a_folder_of_this_device_counts_too() -> None:
    fallback = {"fallback": {"kind": "folder", "path": "/n/disk"}}
    assert reasons({"path": "/n/disk/up"}, **fallback) == [APART]
    assert reasons({"path": "/n/disk/down"}, **fallback) == []


def forwarding(to: str, **more: Any) -> dict[str, Any]:
    return {"after_upload": "forward", "forward_to": to, **more}


def test_a_next_outbox_is_an_outbox_itself_or_lies_apart() -> None:
    assert reasons(forwarding("/n/next")) == []
    one, other = two("/n/two")
    assert reasons({**one, **forwarding("/n/two")}, other) == []
    assert "files are forwarded to an outbox itself" in reasons({**one, **forwarding("/n/two/sub")}, other)
    assert reasons(forwarding("/n/q/sub", quarantine="/n/q")) == ["what is forwarded must come into an outbox"]
    assert reasons(forwarding("/n/disk/up"), **FOLDER) == [APART]


def test_of_a_chain_that_is_incomplete_what_is_given_is_named() -> None:
    ((keys, reason),) = found({"after_upload": "forward"})
    assert keys == ["outbox.0.after_upload = 'forward'"]
    assert reason == "needs forward_to: the name of another outbox, or the absolute path of one"
    ((keys, _),) = found({"forward_to": "/n/next"})
    assert keys == ["outbox.0.after_upload = 'delete'", "outbox.0.forward_to = '/n/next'"]


def test_a_next_outbox_that_is_named_is_judged_as_the_outbox_that_it_is() -> None:
    one, other = two("/n/disk/other")
    told = found({**one, **forwarding("two")}, other, **FOLDER)
    assert told == [(["outbox.1.path = '/n/disk/other'", "outbox.1.destination = '/n/disk/other'"], APART)]


@pytest.mark.parametrize(
    ("inboxes", "more", "expected"),
    [
        (({}, {"path": "/n/in/sub"}), {}, ["each inbox needs a folder of its own"]),
        (({"path": "/n/box/in"},), {}, ["what is fetched would be sent again"]),
        (({"path": "/n/state/in"},), {}, ["an inbox must hold nothing but what is fetched"]),
        (({"path": "/n/disk/cfg/in"},), FOLDER, ["an inbox must hold nothing but what is fetched"]),
        (({"source": "up"},), FOLDER, []),
        (({"source": "cfg"}, {"path": "/n/inn", "source": "cfg/sub"}), FOLDER, []),
        (({"source": "cfg"},), {"server": {"kind": "folder", "path": "/n/box"}}, [FETCHED_APART]),
        (({"source": "./cfg//"},), {**FOLDER, "state_dir": "/n/disk/cfg/state"}, [FETCHED_APART] * 2),
    ],
)
def test_what_is_fetched_and_where_to_lies_apart(
    inboxes: tuple[dict[str, Any], ...], more: dict[str, Any], expected: list[str]
) -> None:
    told = reasons(inboxes=inboxes, **more)
    assert [reason for reason in told if reason != APART] == expected


def test_only_what_the_paths_do_not_show_is_explained_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "link").symlink_to("box")
    for path, hidden in (("link/sub", True), ("box/sub", False), ("box/../box", False), ("box", False)):
        one, other = two(f"{tmp_path}/link/x" if hidden else f"{tmp_path}/box/x")
        (told,) = reasons({**one, "path": f"{tmp_path}/box"}, other)
        assert told.endswith(" (by a symlink or a mount)") is hidden, path


# -- times, batches, hooks


@pytest.mark.parametrize(
    ("retry", "own", "keys"),
    [
        ({"base_s": 5, "cap_s": 60}, {"cap_s": 5}, None),
        ({"base_s": 5, "cap_s": 60}, {"cap_s": 4}, ["retry.base_s = 5.0", "outbox.1.retry.cap_s = 4.0"]),
        ({"base_s": 5, "cap_s": 60}, {"base_s": 61}, ["outbox.1.retry.base_s = 61.0", "retry.cap_s = 60.0"]),
    ],
)
def test_the_waits_of_an_outbox_grow_also_where_one_end_is_that_of_all(
    retry: dict[str, float], own: dict[str, float], keys: list[str] | None
) -> None:
    told = found(*two("/n/two", retry=own), retry={**retry, "herd_window_s": 0})
    assert told == ([] if keys is None else [(keys, "the waits begin with base_s and may not be longer than cap_s")])


@pytest.mark.parametrize(
    ("ttl_s", "batch_s", "wrong"), [(60, 60, True), (61, 60, False), (None, 60, False), (5, None, False)]
)
def test_a_file_may_not_be_dropped_before_its_batch_is_sent(
    ttl_s: float | None, batch_s: float | None, wrong: bool
) -> None:
    budget = {} if ttl_s is None else {"budget": {"ttl_s": ttl_s}}
    told = found({**budget, "batch_interval_s": batch_s})
    keys = ["outbox.0.batch_interval_s = 60.0", "outbox.0.budget.ttl_s = 60.0"]
    assert told == ([(keys, "a file would have to leave before its batch may be sent")] if wrong else [])


def test_a_batch_ends_in_one_way() -> None:
    marker, interval = {"batch_marker": "*.done"}, {"batch_interval_s": 60.0}
    assert found(marker) == found(interval) == []
    assert found({**marker, **interval}) == [
        (
            ["outbox.0.batch_marker = '*.done'", "outbox.0.batch_interval_s = 60.0"],
            "a batch ends with its marker or after an interval; leave one out",
        )
    ]


@pytest.mark.parametrize("name", ["before_batch", "after_batch", "before"])
def test_hooks_of_batches_need_batches(name: str) -> None:
    hooks = {"hooks": {name: ["/bin/true", "x"]}}
    wrong = [
        (
            [f"outbox.0.hooks.{name} = ['/bin/true', 'x']"],
            "the outbox has no batches: set batch_interval_s or batch_marker",
        )
    ]
    assert found(hooks) == ([] if name == "before" else wrong)
    for batches in ({"batch_marker": "*.done"}, {"batch_interval_s": 60.0}):
        assert found({**hooks, **batches}) == []


# -- options of the server that an outbox contradicts


@pytest.mark.parametrize(
    ("outbox", "keys", "reason"),
    [
        ({}, [], ""),
        ({"collision": "skip"}, ["outbox.0.collision = 'skip'"], "replaces what is there"),
        ({"adopt_partial": "{name}.part"}, ["outbox.0.adopt_partial = '{name}.part'"], "is never resumed"),
        (
            {"commands": {"before_publish": [["mkdir", "x"]]}},
            ["outbox.0.commands.before_publish = [['mkdir', 'x']]"],
            "has no moment before that",
        ),
    ],
)
def test_what_needs_a_part_does_not_go_with_writing_directly(
    outbox: dict[str, Any], keys: list[str], reason: str
) -> None:
    told = found(outbox, server={"host": "h", "direct_write": True})
    expected = [(["server.direct_write = True", *keys], f"a file that is written directly to its name {reason}")]
    assert told == (expected if keys else [])
    assert found(outbox) == []


def test_a_compressed_file_does_not_have_the_mode_of_its_original() -> None:
    packed = {"compress": "gzip"}
    assert found(packed, server={"host": "h"}) == found({}, server={"host": "h", "keep_mode": True}) == []
    told = found(packed, fallback={"host": "i", "keep_mode": True})
    assert told == [
        (
            ["fallback.keep_mode = True", "outbox.0.compress = 'gzip'"],
            "a compressed file is the agent's own, with mode 600, and not the producer's",
        )
    ]


def test_a_server_that_has_no_such_option_has_it_not_on() -> None:
    assert found({"collision": "skip", "compress": "gzip"}, **FOLDER) == []


# -- names


def test_each_outbox_and_each_inbox_has_a_name_of_its_own() -> None:
    boxes = [{"path": f"/n/{number}", "name": "same"} for number in range(3)]
    assert found(*boxes) == [(["outbox"], "3 are called 'same': give each its own name")]
    told = found({"name": "in"}, inboxes=({}, {"path": "/m/in", "source": "x"}))
    assert told == [(["inbox"], "2 are called 'in': give each its own name")]


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"destination": "up/{outbox}", "name": "a/b"}, True),
        ({"destination": "up/{outbox}", "name": ".."}, True),
        ({"destination": "up/{outbox}", "name": "a"}, False),
        ({"destination": "up", "name": "a/b"}, False),
        ({"name": "a/b", "commands": {"before": [["mkdir", "/x/{outbox}"]], "absolute_paths": True}}, True),
    ],
)
def test_a_name_that_is_part_of_a_path_on_the_server_is_one_name(more: dict[str, Any], wrong: bool) -> None:
    told = found(more)
    assert [keys for keys, _ in told] == ([[f"outbox.0.name = {more['name']!r}"]] if wrong else [])
    assert all("it would lead elsewhere" in reason for _, reason in told)


def test_a_rule_that_a_later_one_undoes_is_named_with_it() -> None:
    suffixes = [{"action": "temporary-suffix", "value": each} for each in (".a", ".b")]
    told = found({"rules": [{"action": "lowercase"}, *suffixes]})
    keys = ["outbox.0.rules.1 = temporary-suffix", "outbox.0.rules.2 = temporary-suffix"]
    assert told == [(keys, "the later one undoes the earlier one; leave both out")]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, None),
        ({"rules": [{"action": "prefix", "value": "x"}]}, None),
        ({"rules": [{"action": "lowercase"}] * 2}, "lowercase may give"),
        ({"rules": [{"action": "lowercase"}, {"action": "only-filename"}]}, "lowercase, only-filename may give"),
        ({"rules": [{"action": "lowercase"}], "collision": "unique"}, None),
        ({"rules": [{"action": "lowercase"}], "destination": "up/{seq}"}, None),
    ],
)
def test_rules_that_may_merge_two_files_are_warned_of_where_one_would_replace_the_other(
    more: dict[str, Any], words: str | None
) -> None:
    told = merging_rules(settings([{**more, "name": "b b"}], []))
    assert len(told) == (words is not None)
    assert all(line.startswith(f'outbox "b b": {words} different files one name') for line in told)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ({"destination": "up"}, {"destination": "up"}, "up"),
        ({"destination": "./up/"}, {"destination": "up"}, "up"),
        ({"destination": "/up"}, {"destination": "up"}, None),
        ({"destination": "up"}, {"destination": "down"}, None),
        ({"destination": "up"}, {"destination": "up/sub"}, "up/sub"),
        ({"destination": "up/sub"}, {"destination": "up"}, "up/sub"),
        ({"destination": "up", "recursive": False}, {"destination": "up/sub"}, None),
        ({"destination": "up"}, {"destination": "up/sub", "recursive": False}, "up/sub"),
        ({"destination": "up", "recursive": False}, {"destination": "up", "recursive": False}, "up"),
        ({"destination": "up", "collision": "skip"}, {"destination": "up"}, "up"),
        ({"destination": "up"}, {"destination": "up", "collision": "skip"}, "up"),
        ({"destination": "up", "collision": "fail"}, {"destination": "up", "collision": "skip"}, None),
        ({"destination": "up/{outbox}"}, {"destination": "up/{outbox}"}, None),
    ],
)
def test_outboxes_that_may_replace_each_others_files_are_told(
    first: dict[str, Any], second: dict[str, Any], shared: str | None
) -> None:
    one, other = two("/n/two")
    pairs = shared_destinations(settings([{**one, **first}, {**other, **second}], []))
    assert [tuple(pair) for pair in pairs] == ([] if shared is None else [("box", "two", shared)])
    assert all(str(pair).startswith(f"outboxes box and two both deliver to {shared}: files of the") for pair in pairs)
