"""Commands on the far side that belong to an upload, over both ways of sending: each can be repeated, and whatever the
moment at which the link is lost, the next attempt comes to the same end."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from unit.faulty_store import Faults, folder_remote
from unit.scripted import Event
from unit.upload_lab import CONTENT, DEST, Lab, any_request, nth, refusing, whats

from iot.sftp.client.protocol.packets import Code, Status
from iot.transfer import (
    ConfigurationError,
    Failure,
    LinkLost,
    NameRefused,
    NotFound,
    PermissionDenied,
    RemoteCommand,
    RemoteCommands,
    TransferResult,
    Unsupported,
    UploadJob,
    Verb,
)
from iot.transfer.journal.checkpoints import CHECKPOINTS, Checkpoints
from iot.transfer.journal.journal import Journal
from iot.transfer.model import Checkpoint, Direction, Fingerprint, Phase, Span, Token

DENIED = Status(Code.PERMISSION_DENIED, "Permission denied")


def command(verb: str, path: str, to: str = "", mode: int = 0) -> RemoteCommand:
    return RemoteCommand(Verb(verb), path, to, mode)


ALL = RemoteCommands(
    before=(command("mkdir", "old"), command("rename", "{path}", "old/{name}"), command("delete", "stale")),
    before_publish=(command("touch", "{folder}/soon"), command("rename", "soon", "sooner")),
    after_success=(
        command("chmod", "{path}", mode=0o640),
        command("rename", "{path}", "done/{name}"),
        command("delete", "sooner"),
        command("touch", "READY"),
    ),
    base="/up",
)
END = {b"/up/old/file": b"old", b"/up/done/file": CONTENT, b"/up/READY": b""}


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


# -- over a store


class Side:
    """A folder as the far side, and a source. calls: those that may go wrong."""

    calls = ("move", "delete", "mkdir", "chmod", "touch", "publish", "stat", "where", "confirm", "begin", "write")

    def __init__(self, base: Path) -> None:
        self.root = base / "far"
        (self.root / "up").mkdir(parents=True)
        (self.root / "up/file").write_bytes(b"old")
        (self.root / "up/stale").write_bytes(b"x")
        self.source = base / "source"
        self.source.write_bytes(CONTENT)
        self.state = base / "state"

    def job(self, commands: RemoteCommands = ALL, **more) -> UploadJob:
        return UploadJob(self.source, "/up/file", commands=commands, **more)

    def send(self, faults: Faults | None = None, commands: RemoteCommands = ALL, **more) -> object:
        remote = folder_remote(self.root, self.state, faults, attempts=1)
        try:
            return remote.upload(self.job(commands, **more))
        finally:
            remote.close()

    def stands(self) -> dict[bytes, bytes]:
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return {b"/" + os.fsencode(path.relative_to(self.root)): path.read_bytes() for path in files}


def test_over_a_store_they_come_to_the_same_end(tmp_path: Path) -> None:
    side = Side(tmp_path)
    assert isinstance(side.send(), TransferResult)
    assert side.stands() == END
    assert (side.root / "up/done/file").stat().st_mode & 0o777 == 0o640


def test_whenever_a_stores_link_is_lost_the_next_attempt_comes_to_the_same_end(tmp_path: Path) -> None:
    whole = Faults()
    Side(tmp_path / "whole").send(whole)
    cuts = [(name, number) for name in Side.calls for number in range(whole.counts[name])]
    assert len(cuts) > 12
    for number, cut in enumerate(cuts):
        for when in ("before", "after"):
            side = Side(tmp_path / f"{when}-{number}")
            first = Faults(**{when: {cut: LinkLost("cut")}})
            assert isinstance(side.send(first), Failure), cut
            outcome = side.send()
            assert isinstance(outcome, TransferResult), (cut, when, outcome)
            assert side.stands() == END, (cut, when)
            was_published = first.counts["publish"] and not (cut[0] == "publish" and when == "before")
            assert not (was_published and outcome.sent_bytes), (cut, when)


@pytest.mark.parametrize("when", ["before", "after"])
def test_over_a_store_those_that_follow_a_rename_are_carried_out_under_another_name_too(tmp_path: Path, when) -> None:
    side = Side(tmp_path)
    follow = (command("rename", "{path}", "done/{name}"), command("delete", "stale"))
    commands = RemoteCommands(after_success=follow, base="/up")
    rename: dict = {"if_exists": "rename", "alternatives": ("/up/file-2",)}
    assert isinstance(side.send(Faults(**{when: {("move", 0): LinkLost("cut")}}), commands, **rename), Failure)
    outcome = side.send(None, commands, **rename)
    assert isinstance(outcome, TransferResult)
    assert not outcome.sent_bytes
    assert side.stands() == {b"/up/file": b"old", b"/up/done/file-2": CONTENT}


def test_over_a_store_files_for_one_destination_wait_for_the_commands_that_follow_each(tmp_path: Path) -> None:
    jobs = []
    for number in range(12):
        source = tmp_path / str(number)
        source.write_bytes(b"%02d" % number)
        commands = RemoteCommands(after_success=(command("rename", "{path}", f"done/{number}"),))
        jobs.append(UploadJob(source, "/file", commands=commands))
    remote = folder_remote(tmp_path / "far", tmp_path / "state")
    assert all(isinstance(outcome, TransferResult) for outcome in remote.upload_many(jobs))
    remote.close()
    found = {path.name: path.read_bytes() for path in (tmp_path / "far").rglob("*") if path.is_file()}
    assert found == {str(number): b"%02d" % number for number in range(12)}


@pytest.mark.parametrize("where", ["before", "before_publish"])
def test_over_a_store_one_that_fails_is_the_failure_of_the_file(tmp_path: Path, where: str) -> None:
    side = Side(tmp_path)
    commands = replace(RemoteCommands(base="/up"), **{where: (command("delete", "stale"),)})
    failure = side.send(Faults(before={("delete", 0): PermissionDenied("no")}), commands)
    assert isinstance(failure, Failure)
    assert str(failure.error) == "remote command delete '/up/stale': no"
    assert side.stands()[b"/up/file"] == b"old"


def test_over_a_store_one_that_fails_afterwards_is_logged(tmp_path: Path, caplog) -> None:
    side = Side(tmp_path)
    assert isinstance(side.send(Faults(before={("chmod", 0): PermissionDenied("no")})), TransferResult)
    assert side.stands() == END
    assert "remote command failed after the delivery" in caplog.text


def test_what_a_server_cannot_do_is_named(tmp_path: Path) -> None:
    side = Side(tmp_path)
    faults = Faults(capabilities={"commands": frozenset(Verb) - {Verb.CHMOD}})
    commands = RemoteCommands(before_publish=(command("chmod", "stale", mode=0o600),), base="/up")
    failure = side.send(faults, commands)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, Unsupported)
    assert "remote command chmod 600 '/up/stale': this server cannot chmod" in str(failure.error)
    assert faults.counts["chmod"] == 0


def test_over_a_store_a_rename_that_fails_is_done_only_if_the_new_name_alone_is_there(tmp_path: Path) -> None:
    for number, (to, gone) in enumerate([("stale", False), ("none", False), ("none", True), ("stale", True)]):
        side = Side(tmp_path / str(number))
        commands = RemoteCommands(before=(command("rename", "{path}", to),), base="/up")
        if gone:
            (side.root / "up/file").unlink()
        outcome = side.send(Faults(before={("move", 0): NotFound("gone, says the server")}), commands)
        assert isinstance(outcome, TransferResult) is (gone and to == "stale"), (to, gone)


def test_over_a_store_a_rename_to_its_own_name_asks_for_nothing(tmp_path: Path) -> None:
    faults = Faults()
    commands = RemoteCommands(before=(command("rename", "stale", "./stale"),), base="/up")
    assert isinstance(Side(tmp_path).send(faults, commands), TransferResult)
    assert faults.counts["move"] == 0


def test_a_folder_follows_no_link(tmp_path: Path) -> None:
    side = Side(tmp_path)
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    outside.chmod(0o600)
    (side.root / "up/link").symlink_to(outside)
    for each in (command("chmod", "link", mode=0o777), command("touch", "link")):
        before = outside.stat()
        assert isinstance(side.send(commands=RemoteCommands(before=(each,), base="/up")), Failure)
        assert (outside.stat().st_mode, outside.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_touch_sets_the_time_and_keeps_the_content(tmp_path: Path) -> None:
    side = Side(tmp_path)
    os.utime(side.root / "up/stale", (5, 5))
    commands = RemoteCommands(before=(command("touch", "stale"), command("touch", "new/flag")), base="/up")
    assert isinstance(side.send(commands=commands), TransferResult)
    assert (side.root / "up/stale").read_bytes() == b"x"
    assert (side.root / "up/stale").stat().st_mtime > 1e9
    assert (side.root / "up/new/flag").read_bytes() == b""
