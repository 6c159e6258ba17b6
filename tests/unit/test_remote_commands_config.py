"""[outbox.commands]: what is wrong with them is told at the start, all at once; and what a file's commands become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from quarantined import quarantined
from unit.agent_rig import Rig

from iot.sftp.client import Unsupported
from iot.spooler.agent.draining import End
from iot.spooler.config.load import BadConfiguration, load
from iot.transfer import RemoteCommand, RemoteCommands, Verb


def problems(tmp_path: Path, commands: str, *, server: str = "", outbox: str = "", given: dict | None = None) -> str:
    (tmp_path / "box").mkdir(exist_ok=True)
    config = tmp_path / "spooler.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nhost = "h"\n{server}\n[[outbox]]\npath = "{tmp_path}/box"\n'
        f'destination = "/up"\n{outbox}\n[outbox.commands]\n{commands}\n'
    )
    try:
        load(config, given or {})
    except BadConfiguration as error:
        return str(error)
    return ""


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        'before = [["copy", "a", "b"], ["rename", "a"], [], ["chmod", "9", "a"], ["delete", "../x"], ["touch", "."]]\n'
        'before_publish = [["mkdir", "/etc"], ["touch", "{nonsense}"], ["touch", "{date:%Q}"]]\n'
        'after_success = [["delete", "{path"]]',
    )
    for words in (
        "outbox[0].commands.before",
        "['copy', 'a', 'b']: must begin with one of rename, delete, mkdir, chmod, touch",
        "['rename', 'a']: must be rename PATH PATH",
        "[]: must begin with one of",
        "['chmod', '9', 'a']: '9' is no mode",
        "['delete', '../x']: must not contain \"..\"",
        "['touch', '.']: '.' names no file or folder",
        "outbox[0].commands.before_publish",
        "['mkdir', '/etc']: '/etc' is absolute: paths are relative to the destination unless absolute_paths is set",
        "['touch', '{nonsense}']: unknown {nonsense}",
        "unknown %Q",
        "outbox[0].commands.after_success",
        "['delete', '{path']: unpaired { or }",
    ):
        assert words in told


def test_absolute_paths_are_a_setting(tmp_path: Path) -> None:
    assert problems(tmp_path, 'absolute_paths = true\nbefore = [["mkdir", "/srv/index"]]') == ""
    assert "must not contain" in problems(tmp_path, 'absolute_paths = true\nbefore = [["mkdir", "/srv/../x"]]')


def test_the_environment_gives_them_as_json(tmp_path: Path) -> None:
    given = {"IOT_SPOOLER_OUTBOX__0__COMMANDS__BEFORE": json.dumps([["mkdir", "a"], ["copy", "b"]])}
    assert "['copy', 'b']: must begin with" in problems(tmp_path, "", given=given)


def test_written_directly_there_is_no_moment_before_publishing(tmp_path: Path) -> None:
    told = problems(tmp_path, 'before_publish = [["touch", "x"]]', server="direct_write = true")
    assert "server.direct_write = True and outbox[0].commands.before_publish = [['touch', 'x']]" in told


def test_an_outbox_whose_name_is_no_folder_cannot_be_in_a_path(tmp_path: Path) -> None:
    told = problems(tmp_path, 'before = [["mkdir", "{outbox}"]]', outbox='name = "a/b"')
    assert "outbox[0].name = 'a/b'" in told


# -- of a file


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def sent(rig: Rig) -> dict[str, RemoteCommands]:
    jobs: dict[str, RemoteCommands] = {}
    rig.remote.before = lambda job: jobs.update({job.dest: job.commands})
    assert rig.run() is End.DRAINED
    return jobs


def test_templates_are_filled_in_as_those_of_the_destination(rig: Rig) -> None:
    rig.outbox |= {
        "destination": "/up/{outbox}/{date:%Y}",
        "commands": {
            "before": [["mkdir", "{outbox}-{hash8}"]],
            "before_publish": [["chmod", "0750", "{folder}"]],
            "after_success": [["rename", "{path}", "done/{date:%Y}/{name}"]],
        },
    }
    rig.put("sub/a", b"x")
    ((dest, commands),) = sent(rig).items()
    year = dest.split("/")[3]
    assert dest == f"/up/box/{year}/sub/a"
    assert commands == RemoteCommands(
        before=(RemoteCommand(Verb.MKDIR, "box-2d711642"),),
        before_publish=(RemoteCommand(Verb.CHMOD, "{folder}", mode=0o750),),
        after_success=(RemoteCommand(Verb.RENAME, "{path}", f"done/{year}/{{name}}"),),
        base=f"/up/box/{year}/",
    )
    (step,) = commands.steps(commands.after_success, dest.encode())
    assert (step.path, step.to) == (dest.encode(), f"/up/box/{year}/done/{year}/a".encode())


def test_an_outbox_without_them_has_none(rig: Rig) -> None:
    rig.put("a")
    assert sent(rig) == {"/up/a": RemoteCommands()}


def test_below_the_root_paths_are_absolute(rig: Rig) -> None:
    rig.outbox |= {"destination": "/", "commands": {"before": [["mkdir", "x"], ["rename", "{path}", "{path}.old"]]}}
    rig.put("sub/a")
    ((dest, commands),) = sent(rig).items()
    made, renamed = commands.steps(commands.before, dest.encode())
    assert (made.path, renamed.path, renamed.to) == (b"/x", b"/sub/a", b"/sub/a.old")


def test_below_the_login_folder_paths_are_relative_to_it(rig: Rig) -> None:
    rig.outbox |= {"destination": ".", "commands": {"after_success": [["rename", "{path}", "done/{name}"]]}}
    rig.put("a")
    ((dest, commands),) = sent(rig).items()
    (step,) = commands.steps(commands.after_success, dest.encode())
    assert (dest, step.path, step.to) == ("a", b"a", b"done/a")


def test_what_was_begun_under_an_earlier_destination_stays_below_that(rig: Rig) -> None:
    rig.outbox["commands"] = {"after_success": [["rename", "{path}", "done/{name}"]]}
    rig.put("a")
    rig.remote.lose_after = [0, 0, 0, 0]
    assert rig.run() is End.REMAINS
    rig.remote.lose_after = []
    rig.outbox["destination"] = "/other"
    ((dest, commands),) = sent(rig).items()
    (step,) = commands.steps(commands.after_success, dest.encode())
    assert (dest, step.to) == ("/up/a", b"/up/done/a")


def test_what_the_server_cannot_do_holds_the_file_with_the_reason(rig: Rig) -> None:
    rig.put("a")
    rig.retry = {"max_attempts": 2}
    rig.remote.refuse["/up/a"] = Unsupported("remote command chmod 640 '/up/a': this server cannot chmod")
    rig.loop.stop_at = rig.loop.now + 600
    rig.run(drain=False)
    (held,) = quarantined(rig.quarantine)
    assert "this server cannot chmod" in held.record["reason"]
