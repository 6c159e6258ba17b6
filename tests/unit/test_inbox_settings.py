"""Settings of inboxes: what is refused, with its key and reason, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from iot.spooler.config.load import BadConfiguration, load

HEAD = (
    'state_dir = "{base}/state"\n[server]\nkind = "{kind}"\n{place}\n'
    '[[outbox]]\npath = "{base}/box"\ndestination = "/up"\n'
)


def problems(base: Path, inboxes: str, *, kind: str = "folder") -> list[str]:
    place = f'path = "{base}/server"' if kind == "folder" else 'host = "h"\nuser = "u"\npassword = "p"'
    config = base / "c.toml"
    config.write_text(HEAD.format(base=base, kind=kind, place=place) + inboxes.replace("BASE", str(base)))
    try:
        load(config, {})
    except BadConfiguration as error:
        return error.problems
    return []


def inbox(**settings: str) -> str:
    given = {"path": "BASE/in", "source": "/cfg", **settings}
    return "[[inbox]]\n" + "".join(f'{key} = "{value}"\n' for key, value in given.items())


def test_a_plain_inbox_is_good(tmp_path: Path) -> None:
    assert problems(tmp_path, inbox(source="/cfg/{device_id}")) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"path": "in"}, "must be an absolute path"),
        ({"path": "BASE/../in"}, 'without ".."'),
        ({"source": " "}, "must name a folder"),
        ({"source": "/cfg/{seq}"}, "{seq} cannot be used here"),
        ({"source": "/../cfg"}, '".."'),
        ({"after_download": "burn"}, "after_download"),
        ({"after_download": "move"}, "go together"),
        ({"move_to": "/done"}, "go together"),
        ({"after_download": "move", "move_to": "/cfg"}, "fetched again"),
        ({"checksum": "maybe"}, "checksum"),
        ({"path": "BASE/box"}, "would be sent again"),
        ({"path": "BASE/box/in"}, "would be sent again"),
        ({"path": "BASE"}, "lies within the other"),
        ({"path": "BASE/state/in"}, "nothing but what is fetched"),
        ({"path": "BASE/server/cfg/in"}, "nothing but what is fetched"),
        ({"before_pubish": "x"}, "perhaps inbox.before_publish"),
    ],
)
def test_a_wrong_setting_is_named_with_its_reason(tmp_path: Path, settings: dict[str, str], told: str) -> None:
    found = problems(tmp_path, inbox(**settings))
    assert any(told in problem and "inbox" in problem for problem in found), found


def test_a_move_into_the_source_is_refused_only_where_it_would_be_fetched_again(tmp_path: Path) -> None:
    move = inbox(after_download="move", move_to="/cfg/done")
    assert problems(tmp_path, move) == []
    assert any("fetched again" in problem for problem in problems(tmp_path, move + "recursive = true\n"))


@pytest.mark.parametrize("other", ["BASE/in", "BASE/in/deeper"])
def test_two_inboxes_share_no_folder(tmp_path: Path, other: str) -> None:
    two = inbox(name="a") + inbox(name="b", path=other, source="/fw")
    assert any("a folder of its own" in problem for problem in problems(tmp_path, two))


def test_a_link_hides_no_contradiction(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "box")
    assert any("would be sent again" in problem for problem in problems(tmp_path, inbox(path="BASE/link")))


def test_two_inboxes_of_one_name_are_refused(tmp_path: Path) -> None:
    two = inbox(name="a") + inbox(name="a", path="BASE/other")
    assert any("'a'" in problem for problem in problems(tmp_path, two))


def test_a_hook_that_is_no_program_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, inbox() + 'before_publish = ["/no/such/program"]\n')
    assert any("not an executable program" in problem for problem in found)


def test_everything_wrong_is_told_at_once_and_under_its_own_number(tmp_path: Path) -> None:
    three = inbox(name="a", checksum="maybe") + inbox(name="b", path="BASE/b", settle_s="x") + inbox(path="BASE/box")
    found = "\n".join(problems(tmp_path, three))
    assert "inbox[0].checksum" in found
    assert "inbox[1].settle_s" in found
    assert "inbox[2].path" in found


def test_inboxes_that_are_no_tables_are_told(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    place = f'path = "{tmp_path}/server"'
    config.write_text("inbox = 3\n" + HEAD.format(base=tmp_path, kind="folder", place=place))
    with pytest.raises(BadConfiguration, match=r"\[\[inbox\]\]"):
        load(config, {})


def test_a_variable_sets_a_list_of_an_inbox(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    place = f'path = "{tmp_path}/server"'
    config.write_text(HEAD.format(base=tmp_path, kind="folder", place=place) + inbox().replace("BASE", str(tmp_path)))
    settings = load(config, {"IOT_SPOOLER_INBOX__0__INCLUDE": '["*.bin"]', "IOT_SPOOLER_INBOX__0__POLL_S": "60"})
    assert settings.inbox[0].include == ("*.bin",)
    assert settings.inbox[0].poll_s == 60
