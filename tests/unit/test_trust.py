"""Who may do what: nothing that a producer plants leads the agent or root anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ordinary_user import AGENT, PRODUCER, as_user, open_folder
from quarantined import quarantined
from unit.removing import taken

from iot.sftp.client import Fingerprint
from iot.spooler.config.layout import shared_destinations
from iot.spooler.config.load import BadConfiguration, load
from iot.spooler.leaving.archive import Archive
from iot.spooler.leaving.quarantine import Quarantine
from iot.spooler.leaving.release import release
from iot.spooler.leaving.removal import Item
from iot.spooler.leaving.trust import UntrustedFolder, open_trusted

CONFIG = """
state_dir = "{0}/state"
[server]
host = "h"
[[outbox]]
path = "{0}/box"
destination = "/up"
"""


def quarantine(box, name, folder):
    item = Item(1, os.fsencode(name), Fingerprint.of(os.stat(box / name)))
    root = os.open(box, os.O_RDONLY)
    outcome = taken(root, [item], Quarantine(folder, box))
    os.close(root)
    assert outcome == ([1], [])


@pytest.fixture
def site():
    """A state directory of the agent's, an outbox that anybody may write to, and what neither may touch."""
    with open_folder() as base:
        for name, owner in (("state", AGENT), ("box", AGENT), ("precious", 0)):
            (base / name).mkdir()
            os.chown(base / name, owner, owner)
        (base / "box").chmod(0o777)
        (base / "state").chmod(0o700)
        (base / "precious" / "key").write_text("secret")
        (base / "config.toml").write_text(CONFIG.format(base))
        yield base


def retry(base):
    command = [sys.executable, "-m", "iot.spooler", "retry", "--config", str(base / "config.toml")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def untouched(base):
    return [path.name for path in (base / "precious").iterdir()] == ["key"]


@pytest.mark.needs("root")
def test_a_planted_link_leads_root_nowhere_when_files_are_released(site):
    box = site / "box"

    def give_up():
        (box / "sub").mkdir()
        for name in ("sub/f", "g"):
            (box / name).write_text(name)
            quarantine(box, name, site / "state" / "quarantine")
        return ""

    def plant():
        (box / ".quarantine").symlink_to(site / "precious")
        (box / ".archive").symlink_to(site / "precious")
        os.rename(box / "sub", box / "gone")
        (box / "sub").symlink_to(site / "precious")
        return ""

    as_user(AGENT, give_up)
    as_user(PRODUCER, plant)
    done = retry(site)
    assert (done.returncode, done.stdout) == (
        1,
        f"released 1 file from {site}/state/quarantine, 1 could not be moved (see above)\n",
    )
    assert "sub/f" in done.stderr
    assert untouched(site)
    assert (box / "g").read_text() == "g"
    (box / "sub").unlink()
    done = retry(site)
    assert done.returncode == 0, done.stderr
    assert (box / "sub/f").read_text() == "sub/f"
    assert (box / "sub").stat().st_uid == AGENT


@pytest.mark.needs("root")
def test_released_by_root_a_file_goes_where_the_agent_may_write_and_nowhere_else(site):
    (site / "box" / "closed").mkdir()
    (site / "box" / "closed" / "f").write_text("f")
    quarantine(site / "box", "closed/f", site / "q")
    os.chown(site / "q", AGENT, AGENT)
    os.rename(site / "q", site / "state" / "quarantine")
    for path in [*(site / "state/quarantine").rglob("*")]:
        os.chown(path, AGENT, AGENT)
    done = retry(site)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert len(quarantined(site / "state/quarantine")) == 1
    os.chown(site / "box" / "closed", AGENT, AGENT)
    assert retry(site).returncode == 0


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", [Archive, Quarantine])
def test_a_folder_that_others_can_exchange_is_refused_with_the_reason(kind, site):
    box = site / "box"
    shared = site / "shared"
    shared.mkdir()
    shared.chmod(0o777)

    def plant():
        (shared / "link").symlink_to(site / "precious")
        (shared / "theirs").mkdir()
        return ""

    as_user(PRODUCER, plant)

    def leave():
        (box / "f").write_text("f")
        reasons = []
        for target in (shared / "new", shared / "link", shared / "theirs", box):
            leaver = kind(target) if kind is Archive else kind(target, box)
            root = os.open(box, os.O_RDONLY)
            name = "f" if (box / "f").exists() else ".iot-sent.#1.f"
            done, failed = taken(root, [Item(1, b"f", Fingerprint.of(os.stat(box / name)))], leaver)
            os.close(root)
            assert not done
            assert isinstance(failed[0][1], UntrustedFolder)
            reasons.append(failed[0][1].strerror)
        return "\n".join(reasons)

    reasons = as_user(AGENT, leave).splitlines()
    assert all(f"{shared}: everybody may write to it" in reason for reason in reasons[:3])
    assert f"{box}: everybody may write to it" in reasons[3]
    shared.chmod(0o1777)  # like /tmp: on the way it will do, for what belongs to us or root
    reasons = as_user(AGENT, lambda: "\n".join(map(why_not, (shared / "link", shared / "theirs", shared)))).splitlines()
    assert f"{shared}/link: is a symlink of user {PRODUCER}" in reasons[0]
    assert f"{shared}/theirs: belongs to user {PRODUCER}" in reasons[1]
    assert f"{shared}: everybody may write to it" in reasons[2]
    as_user(AGENT, lambda: str(os.close(open_trusted(shared / "own", make=True))))
    assert untouched(site)


def why_not(path):
    try:
        os.close(open_trusted(path, make=True))
    except OSError as error:
        return error.strerror
    return "trusted"


@pytest.mark.needs("root")
def test_a_group_that_may_write_is_refused_unless_it_is_the_agents_own(site):
    folder = site / "state" / "q"
    folder.mkdir()
    os.chown(folder, AGENT, PRODUCER)
    folder.chmod(0o770)
    assert f"group {PRODUCER} may write" in as_user(AGENT, lambda: why_not(folder))
    os.chown(folder, AGENT, AGENT)
    assert as_user(AGENT, lambda: why_not(folder)) == "trusted"


def test_a_link_of_our_own_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a").symlink_to("real")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("real/../real")
    assert [why_not(tmp_path / name) for name in ("a", "b")] == ["trusted", "trusted"]
    os.close(open_trusted(tmp_path / "b" / "new", make=True))
    assert (tmp_path / "real" / "new").is_dir()
    assert "Too many levels" in why_not(tmp_path / "loop")
    assert why_not(tmp_path / "up") == "trusted"


def test_a_record_that_names_a_place_outside_its_outbox_moves_nothing(tmp_path):
    box, folder = tmp_path / "box", tmp_path / "q"
    box.mkdir()
    (box / "f").write_text("f")
    quarantine(box, "f", folder)
    (record,) = folder.glob("*.json")
    record.write_text(record.read_text().replace('"path": "f"', '"path": "../../etc/f"'))
    assert release([folder], [box]) == (0, 1)


# -- folders that get into each other's way


def problems(tmp_path, text):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(BadConfiguration) as caught:
        load(path, {})
    return caught.value.problems


def config(base, state="state", *outboxes):
    text = f'state_dir = "{base}/{state}"\n[server]\nhost = "h"\n'
    for number, outbox in enumerate(outboxes):
        text += f'[[outbox]]\nname = "o{number}"\ndestination = "/up"\n'
        text += "".join(f'{key} = "{base}/{value}"\n' for key, value in outbox.items() if key != "limits")
        text += outbox.get("limits", "")
    return text


@pytest.mark.parametrize(
    ("state", "outboxes", "keys"),
    [
        ("state", [{"path": "a"}, {"path": "a"}], ("outbox[0].path", "outbox[1].path")),
        ("state", [{"path": "a"}, {"path": "a/b"}], ("outbox[0].path", "outbox[1].path")),
        ("state", [{"path": "a", "archive": "x", "quarantine": "x"}], ("archive", "quarantine")),
        ("state", [{"path": "a", "archive": "x", "quarantine": "x/y"}], ("archive", "quarantine")),
        ("state", [{"path": "a", "archive": "x/y", "quarantine": "x"}], ("archive", "quarantine")),
        ("state", [{"path": "a", "archive": "x"}, {"path": "b", "quarantine": "x"}], ("[0].archive", "[1].quarantine")),
        ("state", [{"path": "a"}, {"path": "b", "archive": "a/x"}], ("[0].path", "[1].archive")),
        ("state", [{"path": "a/b"}, {"path": "c", "quarantine": "a"}], ("[0].path", "[1].quarantine")),
        ("a/state", [{"path": "a"}], ("state_dir", "[0].path")),
        ("state", [{"path": "state/a"}], ("state_dir", "[0].path")),
        ("state", [{"path": "a", "archive": "state"}], ("state_dir", "[0].archive")),
        ("state/s", [{"path": "a", "quarantine": "state"}], ("state_dir", "[0].quarantine")),
        ("state", [{"path": "a", "archive": "state/quarantine"}], ("state_dir", "[0].archive")),
        ("state", [{"path": "a", "archive": "x"}, {"path": "b", "archive": "x/y"}], ("[0].archive", "[1].archive")),
        ("state", [{"path": "a", "quarantine": "link"}], ("[0].path", "[0].quarantine")),
        ("link/state", [{"path": "a"}], ("state_dir", "[0].path")),
        ("state", [{"path": "a", "archive": "link/../a/x"[8:]}], ("[0].path", "[0].archive")),
        (
            "state",
            [{"path": "a", "archive": "x", "limits": "archive_max_bytes = 1\n"}, {"path": "b", "archive": "x"}],
            ("[0].archive", "[1].archive"),
        ),
    ],
)
def test_folders_that_contradict_each_other_are_refused_and_named(state, outboxes, keys, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    told = problems(tmp_path, config(tmp_path, state, *outboxes))
    assert any(all(key in line for key in keys) for line in told), told
    assert all(str(tmp_path / "c.toml") in line for line in told)


@pytest.mark.parametrize(
    ("folder", "destination"), [("a", "/"), ("a", "in"), ("", "a/in"), ("state", "/"), ("x", "/"), ("", "{date}")]
)
def test_a_folder_as_destination_lies_apart_from_what_is_delivered(folder, destination, tmp_path):
    """Else each file that arrives is a file to be sent, without end."""
    (tmp_path / "a").mkdir()
    path = tmp_path / "c.toml"
    path.write_text(
        f'state_dir = "{tmp_path}/state"\n[server]\nkind = "folder"\npath = "{tmp_path / folder}"\n'
        f'[[outbox]]\npath = "{tmp_path}/a"\ndestination = "{destination}"\nafter_upload = "archive"\n'
        f'archive = "{tmp_path}/x"\n'
    )
    with pytest.raises(BadConfiguration, match=r"outbox\[0\]\.destination .*must lie apart"):
        load(path, {})
    path.write_text(path.read_text().replace(f'path = "{tmp_path / folder}"\n', f'path = "{tmp_path}/far"\n', 1))
    load(path, {})


def test_two_outboxes_may_deliver_into_one_folder(tmp_path):
    path = tmp_path / "c.toml"
    boxes = "".join(f'[[outbox]]\npath = "{tmp_path}/{name}"\ndestination = "in"\n' for name in ("a", "b"))
    path.write_text(f'state_dir = "{tmp_path}/state"\n[server]\nkind = "folder"\npath = "{tmp_path}/far"\n{boxes}')
    assert len(load(path, {}).outbox) == 2


def test_every_contradiction_is_told_at_once(tmp_path):
    outboxes = [{"path": "a", "archive": "x", "quarantine": "x"}, {"path": "a/b"}, {"path": "state"}]
    assert len(problems(tmp_path, config(tmp_path, "state", *outboxes))) >= 4


def test_what_does_not_contradict_is_accepted(tmp_path):
    outboxes = [
        {"path": "a", "quarantine": "q"},
        {"path": "b", "quarantine": "q", "archive": "archives/b"},
        {"path": "c", "archive": "state/archive/mine", "quarantine": "state/quarantine"},
        {"path": "ab", "archive": "archives/c"},
    ]
    path = tmp_path / "c.toml"
    path.write_text(config(tmp_path, "state", *outboxes))
    settings = load(path, {})
    assert settings.archive_of(settings.outbox[0]) == tmp_path / "state/archive/o0"
    assert settings.quarantine_of(settings.outbox[3]) == tmp_path / "state/quarantine"


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", ".hidden"])
def test_an_outbox_of_any_name_gets_an_archive_of_its_own(name, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(config(tmp_path, "state", {"path": "a"}).replace('"o0"', f'"{name}"'))
    settings = load(path, {})
    folder = settings.archive_of(settings.outbox[0])
    assert folder.parent == tmp_path / "state" / "archive"
    assert folder.name not in ("", ".", "..")
    assert Path(os.path.normpath(folder)) == folder


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "/", "a\\u0000b"])
def test_an_outbox_name_that_would_leave_its_destination_is_refused(name, tmp_path):
    text = config(tmp_path, "state", {"path": "a"}).replace('"o0"', f'"{name}"')
    (told,) = problems(tmp_path, text.replace('"/up"', '"/up/{outbox}/x"'))
    assert told.startswith("outbox[0].name = ")
    assert str(tmp_path / "c.toml") in told


def destinations(tmp_path, *pairs):
    text = f'state_dir = "{tmp_path}/state"\ndevice_id = "gw"\n[server]\nhost = "h"\n'
    for number, (destination, more) in enumerate(pairs):
        text += f'[[outbox]]\nname = "o{number}"\npath = "{tmp_path}/{number}"\ndestination = "{destination}"\n{more}\n'
    path = tmp_path / "c.toml"
    path.write_text(text)
    return [(pair.one, pair.other) for pair in shared_destinations(load(path, {}))]


@pytest.mark.parametrize(
    ("one", "other", "told"), [("unique", "fail", False), ("unique", "overwrite", True), ("overwrite", "skip", True)]
)
def test_outboxes_that_replace_no_file_may_share_a_destination(one, other, told, tmp_path):
    found = destinations(tmp_path, ("/up", f'collision = "{one}"'), ("/up", f'collision = "{other}"'))
    assert found == ([("o0", "o1")] if told else [])


def test_outboxes_whose_names_differ_by_time_formats_share_nothing(tmp_path):
    assert destinations(tmp_path, ("/up/{date:%Y}", ""), ("/up/{date:%m}", "")) == []
    assert destinations(tmp_path, ("/up/{date:%Y}", ""), ("/up/{date:%Y}", "")) == [("o0", "o1")]


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("/up", "/up", True),
        ("/up", "/up/./", True),
        ("/up/{device_id}", "/up/gw", True),
        ("/up/{date}", "/up/{date}", True),
        ("up", "/up", False),
        ("/up", "/up/deeper", True),
        ("/up/deeper", "/up", True),
        ("/up", "/upper", False),
        ("/up/{outbox}", "/up/{outbox}", False),
        ("/up/{date}", "/down/{date}", False),
    ],
)
def test_outboxes_with_one_destination_are_told_that_they_overwrite_each_other(one, other, shared, tmp_path):
    found = destinations(tmp_path, (one, ""), (other, ""))
    assert found == ([("o0", "o1")] if shared else [])


def test_an_outbox_without_folders_cannot_reach_a_deeper_destination(tmp_path):
    assert destinations(tmp_path, ("/up", "recursive = false"), ("/up/deeper", "")) == []
    assert destinations(tmp_path, ("/up", ""), ("/up/deeper", "recursive = false")) == [("o0", "o1")]
