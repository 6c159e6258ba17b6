"""Every setting that is more than its type is checked: what it refuses, what it takes, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iot.spooler.config import packed
from iot.spooler.config.settings import Settings
from iot.transfer import Fingerprint

OUTBOX: dict[str, Any] = {"path": "/box", "destination": "up"}
INBOX: dict[str, Any] = {"path": "/in", "source": "cfg"}
ABSOLUTE = 'must be an absolute path without ".."'
TOGETHER = 'after_download = "move" and move_to go together'
MARKERS = "belong together"


def settings(*, outbox: Any = None, inbox: Any = None, **top: Any) -> Settings:
    given = {"state_dir": "/s", "server": {"host": "h"}, **top, "outbox": [{**OUTBOX, **(outbox or {})}]}
    return Settings.model_validate(given | ({"inbox": [{**INBOX, **inbox}]} if inbox is not None else {}))


def refusal(**given: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        settings(**given)
    return "; ".join(detail["msg"] for detail in refused.value.errors() if detail["type"] != "too_short")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("path", "box", ABSOLUTE),
        ("path", "/a/../box", ABSOLUTE),
        ("path", "/a\0", ABSOLUTE),
        ("archive", "archive", ABSOLUTE),
        ("quarantine", "/a/..", ABSOLUTE),
        ("forward_to", "", "must be the name of an outbox"),
        ("forward_to", "/a/../b", "must be the name of an outbox"),
        ("forward_to", "a\0", "must be the name of an outbox"),
        ("destination", " ", "must name a folder"),
        ("destination", "up/{nobody}", "unknown {nobody}"),
        ("adopt_partial", ".part", "must be a name with {name} in it"),
        ("percent_encode", "%/", "'/' cannot be among them"),
        ("percent_encode", ".", "'.' cannot be among them"),
        ("percent_encode", "-", "'-' cannot be among them"),
        ("percent_encode", "7", "'7' cannot be among them"),
        ("include", ["re:("], "'re:(': not a regular expression"),
        ("exclude", ["a", "re:("], "'re:(': not a regular expression"),
        ("urgent", ["re:("], "'re:(': not a regular expression"),
        ("batch_marker", "re:(", "not a regular expression"),
        ("schedule", ["always", "08:00-08:00"], "'always' is no window"),
        ("rules", [{"action": "replace-separator", "value": "ab"}], "must be the one character"),
        ("budget", {"max_files": 1, "preserve": ["re:("]}, "'re:(': not a regular expression"),
        ("budget", {"max_files": 1, "log_destination": "{nobody}"}, "unknown {nobody}"),
        ("hooks", {"before": ["/no/such/program"]}, "is not an executable program"),
        ("retry", {"base_s": 2, "cap_s": 1}, "is less than base_s"),
    ],
)
def test_what_an_outbox_cannot_do_is_refused(key: str, value: Any, words: str) -> None:
    assert words in refusal(outbox={key: value})


@pytest.mark.parametrize(
    "given",
    [
        {"archive": "/a", "quarantine": "/q"},
        {"forward_to": "a name"},
        {"forward_to": "/a"},
        {"adopt_partial": "{name}.filepart"},
        {"percent_encode": "% :"},
        {"include": ["re:(a|b)"], "batch_marker": "*.done"},
        {"schedule": ["Mon-Fri 08:00-18:00"]},
    ],
)
def test_what_an_outbox_can_do_is_taken_as_it_is_given(given: dict[str, Any]) -> None:
    box = settings(outbox=given).outbox[0]
    for key, value in given.items():
        taken = getattr(box, key)
        assert (list(taken) if isinstance(taken, tuple) else str(taken)) == value


def test_a_compression_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: object) -> None:
        raise ValueError("is not installed here")

    monkeypatch.setattr(packed.Compression, "check_installed", missing)
    assert "is not installed here" in refusal(outbox={"compress": "gzip"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ready": "marker"}, MARKERS),
        ({"ready_marker": "{name}.done"}, MARKERS),
        ({"ready": "renamed", "ready_marker": "{name}.done"}, MARKERS),
        ({"ready": "marker", "ready_marker": "{name}"}, "must differ from the name of the file itself"),
    ],
)
def test_a_marker_has_a_name_and_is_asked_for(given: dict[str, Any], words: str) -> None:
    assert words in refusal(outbox=given)
    assert settings(outbox={"ready": "marker", "ready_marker": "{name}.done"}).outbox[0].readiness.value == "marker"


@pytest.mark.parametrize(
    ("given", "ready", "quiet"),
    [
        ({}, "closed", None),
        ({"settle_s": 3.0}, "settled", 3.0),
        ({"ready": "settled"}, "settled", None),
        ({"ready": "renamed"}, "renamed", 0.0),
        ({"ready": "renamed", "settle_s": 3.0}, "renamed", 3.0),
        ({"ready": "marker", "ready_marker": "X"}, "marker", 0.0),
    ],
)
def test_who_sets_a_quiet_time_asks_for_it_and_a_name_that_tells_needs_none(
    given: dict[str, Any], ready: str, quiet: float | None
) -> None:
    box = settings(outbox=given).outbox[0]
    assert box.readiness.value == ready
    assert box.quiet_s == (box.settle_s if quiet is None else quiet)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("path", "in", ABSOLUTE),
        ("path", "/a/../in", ABSOLUTE),
        ("path", "/a\0", ABSOLUTE),
        ("source", " ", "source must name a folder"),
        ("source", "{date}", "{date} cannot be used here; known is {device_id}"),
        ("source", "{seq}{date}", "{date} cannot be used here; known is {device_id}"),
        ("move_to", "{seq}", "{seq} cannot be used here; known is {device_id}"),
        ("move_to", "done", TOGETHER),
        ("after_download", "move", TOGETHER),
        ("include", ["re:("], "'re:(': not a regular expression"),
        ("exclude", ["re:("], "'re:(': not a regular expression"),
        ("schedule", ["never"], "'never' is no window"),
        ("before_publish", ["/no/such/program"], "is not an executable program"),
    ],
)
def test_what_an_inbox_cannot_do_is_refused(key: str, value: Any, words: str) -> None:
    assert words in refusal(inbox={key: value})


@pytest.mark.parametrize(
    ("source", "move_to", "recursive", "again"),
    [
        ("cfg", "cfg", False, True),
        ("cfg", "./cfg/", False, True),
        ("cfg", "cfg/done", False, False),
        ("cfg", "cfg/done", True, True),
        ("cfg/", "cfg/done", True, True),
        ("cfg", "cfgs", True, False),
        (".", "done", True, True),
        (".", "done", False, False),
        (".", "/done", True, False),
        ("/", "/done", True, True),
    ],
)
def test_what_is_moved_may_not_be_fetched_again(source: str, move_to: str, recursive: bool, again: bool) -> None:
    given = {"source": source, "move_to": move_to, "recursive": recursive, "after_download": "move"}
    if again:
        assert "lies in source, so that files would be fetched again" in refusal(inbox=given)
    else:
        inbox = settings(inbox=given, device_id="gw").inbox[0]
        assert (inbox.source_of("gw"), inbox.move_to_of("gw")) == (source, move_to)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("state_dir", "s", "must be an absolute path"),
        ("mounts", ["/a", "b"], "'b' is not an absolute path"),
        ("mounts", ["/a/../b"], "'/a/../b' is not an absolute path"),
        ("mounts", ["/a\0"], "is not an absolute path"),
        ("device_id", "-a", "no dot or dash in front"),
        ("device_id", "a b", "letters, digits, dot, dash and underscore only"),
        ("device_id", "", "letters, digits, dot, dash and underscore only"),
        ("time_zone", "Europe", "no such time zone"),
        ("rates", ["fast"], "must be a window and a rate"),
        ("condition", ["/no/such/program"], "is not an executable program"),
        ("metered_command", ["/no/such/program"], "is not an executable program"),
        ("condition", ["/bin/sh", "a\0"], "must not contain a NUL"),
        ("control", {"group": "no-such-group-here"}, "there is no group 'no-such-group-here'"),
        ("wake", {"file": "wake"}, "must be an absolute path"),
        ("retry", {"base_s": 5, "cap_s": 4}, "is less than base_s"),
        ("retry", {"base_s": 5, "herd_window_s": 4}, "is less than base_s"),
        ("retry", {"auth_hold_s": 5, "auth_hold_max_s": 4}, "is less than auth_hold_s"),
        ("server", {"kind": "pigeon"}, "must be one of folder, ftp, sftp"),
        ("fallback", {"kind": 5}, "must be one of folder, ftp, sftp"),
    ],
)
def test_what_the_agent_cannot_do_is_refused(key: str, value: Any, words: str) -> None:
    assert words in refusal(**{key: value})


@pytest.mark.parametrize(
    "given",
    [
        {"mounts": ["/a", "/b"]},
        {"device_id": "a.b-c_1"},
        {"control": {"group": "root"}},
        {"wake": {"file": "/run/wake"}},
        {"retry": {"base_s": 5, "cap_s": 5, "herd_window_s": 5, "auth_hold_s": 5, "auth_hold_max_s": 5}},
        {"retry": {"herd_window_s": 0}},
        {"server": {"kind": "sftp", "host": "h"}},
    ],
)
def test_what_the_agent_can_do_is_taken(given: dict[str, Any]) -> None:
    assert settings(**given)


# -- what follows


def test_a_box_without_a_name_is_called_by_its_folder() -> None:
    plain, named = settings(inbox={}), settings(outbox={"name": "o"}, inbox={"name": "i"})
    assert [each[0].label for each in (plain.outbox, plain.inbox, named.outbox, named.inbox)] == ["box", "in", "o", "i"]
    root = settings(outbox={"path": "/"}, inbox={"path": "/"})
    assert (root.outbox[0].label, root.inbox[0].label) == ("outbox", "inbox")


@pytest.mark.parametrize(
    ("label", "folder"),
    [("a", "a"), ("a/b%", "a%2Fb%25"), (".", "%2E"), ("..", "%2E."), (".a", "%2Ea"), ("a.b", "a.b")],
)
def test_folders_of_an_outbox_are_called_after_it_and_stay_in_their_place(label: str, folder: str) -> None:
    given = settings(outbox={"name": label})
    (box,) = given.outbox
    assert given.archive_of(box) == Path("/s/archive") / folder
    assert given.lists_of(box) == Path("/s/dropped") / folder
    assert given.quarantine_of(box) == Path("/s/quarantine")


def test_folders_that_are_given_are_used_as_they_are() -> None:
    given = settings(outbox={"archive": "/a", "quarantine": "/q"})
    assert (given.archive_of(given.outbox[0]), given.quarantine_of(given.outbox[0])) == (Path("/a"), Path("/q"))


@pytest.mark.parametrize(
    ("given", "following"),
    [
        ({"after_upload": "forward", "forward_to": "/next"}, Path("/next")),
        ({"after_upload": "forward", "forward_to": "box"}, Path("/box")),
        ({"after_upload": "forward", "forward_to": "none"}, None),
        ({"after_upload": "delete", "forward_to": "/next"}, None),
        ({"after_upload": "forward"}, None),
    ],
)
def test_files_go_on_to_an_outbox_by_its_name_or_path(given: dict[str, Any], following: Path | None) -> None:
    found = settings(outbox=given)
    assert found.next_of(found.outbox[0]) == following


def test_the_fallback_is_used_where_it_stands_in_the_place_of_the_server() -> None:
    one, both = settings(), settings(fallback={"host": "i"})
    assert (list(one.servers), list(both.servers)) == (["server"], ["server", "fallback"])
    assert not one.uses_fallback
    assert not both.uses_fallback
    assert both.model_copy(update={"server": both.fallback}).uses_fallback


@pytest.mark.parametrize(
    ("budget", "limited", "backlog", "drops"),
    [
        ({}, False, False, False),
        ({"max_files": 1}, True, True, True),
        ({"max_bytes": 1}, True, True, True),
        ({"min_free_percent": 1}, True, False, True),
        ({"min_free_inodes": 1}, True, False, True),
        ({"max_files": 1, "evict": "none"}, True, True, False),
        ({"max_files": 1, "evict": "none", "evict_urgent": "oldest"}, True, True, True),
        ({"ttl_s": 5}, False, False, True),
        ({"ttl_s": 5, "expired": "quarantine"}, False, False, False),
    ],
)
def test_what_a_budget_limits_and_whether_it_may_drop(
    budget: dict[str, Any], limited: bool, backlog: bool, drops: bool
) -> None:
    found = settings(outbox={"budget": budget}).outbox[0].budget
    assert (found.is_limited, found.limits_backlog, found.may_drop) == (limited, backlog, drops)


@pytest.mark.parametrize(
    ("order", "first"), [("oldest", b"old"), ("newest", b"new"), ("size", b"small"), ("name", b"a name")]
)
def test_the_order_in_which_files_are_sent(order: str, first: bytes) -> None:
    second = 10**9
    files = {
        b"old": Fingerprint(9, 5 * second, 1, 1),
        b"new": Fingerprint(8, 7 * second, 1, 1),
        b"small": Fingerprint(7, 6 * second, 1, 1),
        b"a name": Fingerprint(10, 6 * second, 1, 1),
    }
    ranked = settings(outbox={"order": order}).outbox[0].order.rank
    ranks = {path: ranked(path, version) for path, version in files.items()}
    assert min(ranks, key=lambda path: ranks[path]) == first  # type: ignore[return-value,arg-type]
    if order in ("oldest", "newest"):  # within a second, the order in which they are found
        assert ranked(b"x", Fingerprint(1, 5 * second, 1, 1)) == ranked(b"y", Fingerprint(2, 6 * second - 1, 1, 1))
