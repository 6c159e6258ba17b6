"""Remote commands of the configuration: what is one, what is wrong with others, and what they become for a file."""

from __future__ import annotations

import pytest

from iot.spooler.naming import CommandTemplate, Facts
from iot.transfer import RemoteCommand, Verb

FACTS = Facts(1_700_000_000 * 10**9, 42)


def parsed(*words: str, absolute: bool = False) -> CommandTemplate:
    return CommandTemplate.parse(words, absolute=absolute)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["rename", "a", "b/{name}"], CommandTemplate(Verb.RENAME, 0, ("a", "b/{name}"))),
        (["delete", "{path}"], CommandTemplate(Verb.DELETE, 0, ("{path}",))),
        (["mkdir", "{date}"], CommandTemplate(Verb.MKDIR, 0, ("{date}",))),
        (["touch", "./a"], CommandTemplate(Verb.TOUCH, 0, ("./a",))),
        (["chmod", "640", "a"], CommandTemplate(Verb.CHMOD, 0o640, ("a",))),
        (["chmod", "2750", "a"], CommandTemplate(Verb.CHMOD, 0o2750, ("a",))),
    ],
)
def test_each_command_has_so_many_words(words, command):
    assert parsed(*words) == command
    with pytest.raises(ValueError, match=f"must be {words[0]} "):
        parsed(*words, "more")
    with pytest.raises(ValueError, match=f"must be {words[0]} "):
        parsed(*words[:-1])


@pytest.mark.parametrize("mode", ["", "64", "06400", "648", "u+x"])
def test_a_mode_has_three_or_four_octal_digits(mode):
    with pytest.raises(ValueError, match="is no mode: three or four octal digits, such as 640"):
        parsed("chmod", mode, "a")


@pytest.mark.parametrize("path", ["", ".", "/", "./", "//."])
def test_a_path_names_something(path):
    with pytest.raises(ValueError, match="names no file or folder"):
        parsed("delete", path, absolute=True)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("a/../b", 'must not contain ".."'), ("{folder}/../b", "must not"), ("{folder", "unpaired"), ("a\0", "a NUL"),
     ("{user}", "unknown {user}"), ("{seq:x}", "least number of digits")],
)  # fmt: skip
def test_its_template_has_to_be_right(path, reason):
    with pytest.raises(ValueError, match=reason.replace("{", r"\{").replace(".", r"\.")):
        parsed("delete", path)


def test_only_where_that_is_allowed_a_path_is_absolute():
    with pytest.raises(ValueError, match="'/a' is absolute"):
        parsed("mkdir", "/a")
    assert parsed("mkdir", "/a", absolute=True).paths == ("/a",)


def test_fields_of_the_configuration_are_filled_in_and_those_of_the_file_are_left():
    command = parsed("rename", "{path}", "{outbox}/{device_id}/{seq:3}-{name}")
    assert command.fields == {"outbox", "device_id", "seq"}
    filled = command.filled(FACTS, device_id="gw", outbox="box")
    assert filled == RemoteCommand(Verb.RENAME, "{path}", "box/gw/042-{name}")
    assert parsed("chmod", "600", "{folder}").filled(FACTS, device_id="gw", outbox="box") == RemoteCommand(
        Verb.CHMOD, "{folder}", mode=0o600
    )
