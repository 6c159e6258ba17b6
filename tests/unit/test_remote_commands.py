"""Commands on the far side that belong to an upload, over SFTP: each can be repeated, and whatever the moment at which
the link is lost, the next attempt comes to the same end. Over a store: test_remote_commands_over_a_store.py."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from unit.remote_commands import ALL, END, command
from unit.scripted import Event
from unit.upload_lab import CONTENT, DEST, Lab, any_request, nth, refusing, whats

from iot.sftp.client.protocol.packets import Code, Status
from iot.transfer import (
    ConfigurationError,
    NameRefused,
    NotFound,
    PermissionDenied,
    RemoteCommand,
    RemoteCommands,
    Unsupported,
)
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Phase, Span, Token

DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")


# -- paths


def places(text: str, final: bytes = b"/up/dev/a/b.csv", base: str = "/up/dev", verb: str = "delete") -> bytes:
    commands = RemoteCommands(after_success=(command(verb, text),), base=base)
    (step,) = commands.steps(commands.after_success, final)
    return step.path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{path}", b"/up/dev/a/b.csv"),
        ("{folder}/done/{name}", b"/up/dev/a/done/b.csv"),
        ("{path}.old", b"/up/dev/a/b.csv.old"),
        ("./x//y", b"/up/dev/x/y"),
        ("/index/{path}", b"/index/a/b.csv"),
    ],
)
def test_paths_are_those_below_the_base(text: str, place: bytes) -> None:
    assert places(text) == place


def test_a_file_in_the_base_itself_has_no_absolute_folder() -> None:
    assert places("{folder}/done", b"/up/dev/b.csv") == b"/up/dev/done"


def test_without_a_base_they_are_those_of_the_login_folder() -> None:
    assert places("{folder}/done/{name}", b"a/b", base="") == b"a/done/b"
    assert places("x", b"/a/b", base=".") == b"x"


def test_a_name_that_looks_like_a_field_is_none() -> None:
    assert places("{folder}/{name}", b"/up/dev/{folder}/{path}") == b"/up/dev/{folder}/{path}"


@pytest.mark.parametrize("text", ["../x", "a/../../x", "{path}/../../../x", "/../x", ".", "a/..", "x\0y"])
def test_none_leaves_the_base_or_names_it(text: str) -> None:
    with pytest.raises(NameRefused):
        places(text)


def test_a_folder_whose_name_begins_as_that_of_the_base_is_another_one() -> None:
    assert places("{path}.old", b"/up/device/b.csv") == b"/up/device/b.csv.old"


def test_the_base_itself_may_be_made() -> None:
    assert places(".", verb="mkdir") == b"/up/dev"


@pytest.mark.parametrize(
    "wrong", [("copy", "a", "b"), ("rename", "a"), ("delete", "a", "b"), ("delete", ""), ("chmod", "a", "", 0o10000)]
)
def test_a_command_that_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(ConfigurationError):
        RemoteCommand(*wrong)


def test_a_mode_may_have_all_twelve_bits() -> None:
    assert RemoteCommand("chmod", "a", mode=0o7777).mode == 0o7777


# -- the journal


@pytest.mark.parametrize("suspect", [(), (Span(3, 5),)])
@pytest.mark.parametrize("published", [None, 0, 2])
def test_a_checkpoint_tells_under_which_name_the_file_is_published(suspect, published) -> None:
    journal = Journal(None, CHECKPOINTS)
    ledger = Checkpoints(journal, "s", every_bytes=1, every_s=1, clock=lambda: 0.0)
    told = Checkpoint(
        Direction.UPLOAD, b"/r", b"/l", Token(b"/r.part"), Fingerprint(9, 1), 9, 9, suspect, Phase.PUBLISHING, published
    )
    ledger.commit([told])
    again = Checkpoints(journal, "s", every_bytes=1, every_s=1, clock=lambda: 0.0)
    assert again.load(Direction.UPLOAD, b"/r", b"/l") == told
    assert [tuple(row) for row in journal.read("SELECT published_as FROM checkpoint")] == [(published,)]
    journal.close()


# -- over SFTP


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    lab = Lab(path, job={"commands": ALL})
    lab.files.content |= {DEST: bytearray(b"old"), b"/up/stale": bytearray(b"x")}
    return lab


def stands(lab: Lab) -> dict[bytes, bytes]:
    return {name: bytes(content) for name, content in lab.files.content.items()}


def test_they_are_carried_out_in_their_place_and_order(lab: Lab) -> None:
    lab.run()
    assert stands(lab) == END
    acts = [each for each in whats(lab.files) if each in ("RENAME", "REMOVE", "WRITE", "SETSTAT", "BARRIER")]
    first_write, last_write = acts.index("WRITE"), len(acts) - 1 - acts[::-1].index("WRITE")
    assert acts[:first_write] == ["RENAME", "REMOVE", "BARRIER"]
    assert acts[last_write + 1 :] == [
        *("SETSTAT", "RENAME", "BARRIER"),  # touch makes the file; the intent comes after the commands
        *("RENAME", "BARRIER"),  # published, and recorded as such
        *("SETSTAT", "RENAME", "REMOVE", "SETSTAT"),
    ]


def test_whenever_the_link_is_lost_the_next_attempt_comes_to_the_same_end(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)

    def fresh() -> Lab:
        lab = Lab(source, job={"commands": ALL})
        lab.files.content |= {DEST: bytearray(b"old"), b"/up/stale": bytearray(b"x")}
        return lab

    whole = fresh()
    whole.run()
    requests = sum(event.what != "BARRIER" for event in whole.files.events)
    for number in range(1, requests + 1):
        for answered in (False, True):
            lab = fresh()
            lab.loses_link(any_request(number), answered=answered)
            written = sum(len(event.data) for event in lab.files.did("WRITE"))
            lab.run()
            assert stands(lab) == END, (number, answered)
            again = sum(len(event.data) for event in lab.files.did("WRITE")) - written
            assert written < len(CONTENT) or not again, (number, answered)


def test_whenever_the_link_is_lost_those_that_follow_a_rename_are_carried_out_under_another_name_too(tmp_path) -> None:
    """The name that the file has got is not that of its destination, and the first of them takes it away."""
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    follow = (command("rename", "{path}", "done/{name}"), command("delete", "flag"))
    commands = RemoteCommands(after_success=follow, base="/up")

    def fresh() -> Lab:
        lab = Lab(source, job={"commands": commands, "if_exists": "rename", "alternatives": ("/up/file-2",)})
        lab.files.content |= {DEST: bytearray(b"old"), b"/up/flag": bytearray()}
        return lab

    whole = fresh()
    whole.run()
    requests = sum(event.what != "BARRIER" for event in whole.files.events)
    for number in range(1, requests + 1):
        for answered in (False, True):
            lab = fresh()
            lab.loses_link(any_request(number), answered=answered)
            lab.run()
            assert stands(lab) == {DEST: b"old", b"/up/done/file-2": CONTENT}, (number, answered)


def test_after_a_crash_before_the_delivery_was_recorded_nothing_is_sent_again(lab: Lab) -> None:
    lab.run()
    written = len(lab.files.did("WRITE"))
    result = lab.run()
    assert result.already_done
    assert (stands(lab), len(lab.files.did("WRITE"))) == (END, written)


def test_another_version_is_sent_although_the_earlier_one_was_published(lab: Lab) -> None:
    lab.job = {"commands": RemoteCommands(after_success=ALL.after_success, base="/up")}
    lab.run()
    lab.path.write_bytes(b"another")
    assert not lab.run().already_done
    assert lab.files.content[b"/up/done/file"] == b"another"


def test_a_file_that_another_one_replaced_by_name_is_not_touched_by_what_follows(lab: Lab) -> None:
    """The answer to all was lost; meanwhile another file has the name that this one did not get."""
    commands = RemoteCommands(after_success=(command("rename", "{path}", "done/{name}"),), base="/up")
    lab.job = {"commands": commands, "if_exists": "rename", "alternatives": ("/up/file-2",)}
    lab.run()
    assert stands(lab)[b"/up/done/file-2"] == CONTENT
    lab.run()
    assert stands(lab)[DEST] == b"old"


@pytest.mark.parametrize("where", ["before", "before_publish"])
def test_one_that_fails_is_the_failure_of_the_file_and_nothing_is_published(lab: Lab, where: str) -> None:
    commands = replace(RemoteCommands(base="/up"), **{where: (command("delete", "stale"), command("delete", "later"))})
    lab.job = {"commands": commands}
    lab.files.refuse = refusing(nth("REMOVE"), DENIED)
    error = lab.fails(PermissionDenied)
    assert str(error).startswith("remote command delete '/up/stale': cannot delete '/up/stale': ")
    assert lab.published == b"old"
    assert len(lab.files.did("REMOVE")) == 1
    assert (lab.files.did("WRITE") == []) is (where == "before")
    lab.files.refuse = lambda event: None
    lab.run()
    assert lab.published == CONTENT


def test_one_that_fails_afterwards_is_logged_and_the_others_are_carried_out(lab: Lab, caplog) -> None:
    caplog.set_level(logging.WARNING)
    lab.files.refuse = lambda event: DENIED if event.what == "SETSTAT" and event.path == DEST else None
    lab.run()
    assert stands(lab) == END
    assert "remote command failed after the delivery" in caplog.text
    assert "chmod 640 '/up/file'" in caplog.text


def test_a_rename_without_its_file_fails_unless_it_was_done(lab: Lab) -> None:
    del lab.files.content[DEST]
    lab.job = {"commands": RemoteCommands(before=(command("rename", "{path}", "kept"),), base="/up")}
    error = lab.fails(Exception)  # type: ignore[arg-type]
    assert "remote command rename '/up/file' '/up/kept': " in str(error)
    lab.files.content[b"/up/kept"] = bytearray(b"it was done")
    lab.run()
    assert stands(lab)[b"/up/kept"] == b"it was done"


def test_a_rename_that_fails_although_both_names_are_there_was_not_done(lab: Lab) -> None:
    lab.job = {"commands": RemoteCommands(before=(command("rename", "{path}", "stale"),), base="/up")}
    lab.files.refuse = refusing(nth("RENAME"), Status(Code.NO_SUCH_FILE, "gone, says the server"))
    assert "remote command rename" in str(lab.fails(NotFound))
    assert lab.files.did("WRITE") == []


def test_a_rename_to_its_own_name_asks_the_server_nothing(lab: Lab) -> None:
    """Some servers would delete what has the name first."""
    lab.job = {"commands": RemoteCommands(before=(command("rename", "stale", "./stale"),), base="/up")}
    lab.run()
    assert b"/up/stale" not in [event.path for event in lab.files.events]


@pytest.mark.parametrize("code", [Code.NO_SUCH_FILE, Code.NO_SUCH_PATH])
def test_a_delete_of_what_is_missing_is_done(lab: Lab, code: Code) -> None:
    lab.job = {"commands": RemoteCommands(before=(command("delete", "no/such"),), base="/up")}
    lab.files.refuse = refusing(nth("REMOVE"), Status(code, ""))
    lab.run()
    assert lab.published == CONTENT


def test_a_touch_that_is_refused_fails_and_replaces_nothing(lab: Lab) -> None:
    lab.job = {"commands": RemoteCommands(before=(command("touch", "stale"),), base="/up")}
    lab.files.refuse = refusing(nth("SETSTAT"), DENIED)
    assert "cannot touch '/up/stale'" in str(lab.fails(PermissionDenied))
    assert stands(lab)[b"/up/stale"] == b"x"


def test_a_touch_leaves_what_another_upload_has_made_just_now(lab: Lab) -> None:
    flag = b"/up/flag"
    lab.job = {"commands": RemoteCommands(before=(command("touch", "flag"),), base="/up")}

    def made_meanwhile(event: Event) -> None:
        if event.what == "OPEN" and event.path == flag:
            lab.files.content[flag] = bytearray(b"the other's")

    lab.files.refuse = made_meanwhile
    lab.run()
    assert stands(lab)[flag] == b"the other's"
    assert lab.published == CONTENT


def test_a_touch_leaves_no_file_open(lab: Lab) -> None:
    lab.run()
    assert lab.files.handles == {}


def test_written_directly_there_is_no_moment_before_publishing(lab: Lab) -> None:
    lab.options = {"direct_write": True}
    lab.fails(Unsupported)
    lab.job = {"commands": RemoteCommands(after_success=ALL.after_success, base="/up")}
    lab.run()
    assert lab.files.content[b"/up/done/file"] == CONTENT


def test_a_path_that_leaves_the_base_is_the_failure_of_the_file(lab: Lab) -> None:
    lab.job = {"commands": RemoteCommands(before=(command("delete", "../x"),), base="/up")}
    lab.fails(NameRefused)
    assert lab.files.did("REMOVE") == []
