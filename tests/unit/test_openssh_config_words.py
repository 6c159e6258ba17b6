"""What each word of an OpenSSH configuration means for the way to a host, and which words end with a reason."""

from __future__ import annotations

import getpass
import glob
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iot.sftp.client.ssh import openssh_config as module
from iot.sftp.client.ssh.openssh_config import DEPTH_MAX, Way, check, files, way_to
from iot.transfer.errors import ConfigurationError

Says = Callable[..., Way]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(getpass, "getuser", lambda: "local")
    monkeypatch.setattr(module, "SYSTEM_FILE", str(tmp_path / "system"))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.fixture
def says(home: Path) -> Says:
    """The way to a host as this text says it."""

    def way(text: str, host: str = "a", port: int | None = None, user: str | None = None) -> Way:
        write(home / "config", text)
        return way_to(host, port, user, str(home / "config"))

    return way


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# -- who and where


def test_without_a_word_a_host_is_itself_on_the_usual_port_with_the_usual_keys(says: Says, home: Path) -> None:
    assert says("") == Way(
        host="a",
        port=22,
        user="local",
        identities=tuple(home / ".ssh" / name for name in ("id_ed25519", "id_ecdsa", "id_rsa")),
        uses_agent=True,
        known_hosts=(
            home / ".ssh/known_hosts", home / ".ssh/known_hosts2",
            Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("value", "port"), [("1", 1), ("65535", 65535), ("0", None), ("65536", None), ("-1", None)])
def test_a_port_is_a_number_that_can_be_one(says: Says, value: str, port: int | None) -> None:
    if port is not None:
        assert says(f"Port {value}").port == port
        return
    with pytest.raises(ConfigurationError, match=f"^ssh_config: Port '{value}' of host 'a' is no port$"):
        says(f"Port {value}")


def test_the_user_is_who_is_given_else_who_is_configured_else_who_runs_this(says: Says, monkeypatch) -> None:
    assert says("User u", user="me").user == "me"
    assert says("User u").user == "u"
    for error in (KeyError("uid"), OSError("no")):

        def nobody(error: Exception = error) -> str:
            raise error

        monkeypatch.setattr(getpass, "getuser", nobody)
        assert says("User u\nHostName %h.example").host == "a.example"
        assert says("", user="me").user == "me"
        with pytest.raises(ConfigurationError, match="the user of this process has no name"):
            says("")


def test_all_that_cannot_be_followed_is_named_at_once(says: Says) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^ssh_config: ciphers, macs of host 'a' cannot be followed here; leave"
    ):
        says("MACs x\nCiphers y\nHostKeyAlias none\nIdentityAgent NONE\n")
    says("HostKeyAlias none\nPKCS11Provider no\nCiphers any\nMACs default\n")


# -- keys


def test_keys_are_those_that_are_named_and_none_where_that_is_said(says: Says, home: Path) -> None:
    assert says("IdentityFile ~/k\nIdentityFile none\n").identities == (home / "k",)
    assert says("IdentityFile none").identities == ()
    assert says("CertificateFile ~/c").certificate == home / "c"
    assert says("CertificateFile none").certificate is None


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("IdentitiesOnly yes", False),
        ("IdentitiesOnly YES", False),
        ("IdentitiesOnly no", True),
        ("IdentityAgent none", False),
        ("IdentityAgent none\nIdentitiesOnly no", False),
        ("", True),
    ],
)
def test_an_agent_is_used_unless_that_is_ruled_out(says: Says, text: str, uses: bool) -> None:
    assert says(text).uses_agent is uses


# -- values


def test_percent_signs_and_variables_are_filled_in(says: Says, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "there")
    way = says("HostName %h.example\nPort 7\nUser u\nIdentityFile /%h/%n/%p/%r/%u/%%/${MINE}/%d\n")
    assert way.identities == (Path(f"/a.example/a/7/u/local/%/there/{home}"),)
    with pytest.raises(ConfigurationError, match=r"^ssh_config: %x in '/%x' cannot be followed$"):
        says("IdentityFile /%x")
    with pytest.raises(ConfigurationError, match=r"^ssh_config: \$\{GONE\} is not in the environment$"):
        says("IdentityFile /${GONE}")


def test_known_hosts_are_words_that_may_be_quoted_and_none_knows_nobody(says: Says) -> None:
    way = says('UserKnownHostsFile /a "/b c"\nGlobalKnownHostsFile none\n')
    assert way.known_hosts == (Path("/a"), Path("/b c"), Path(os.devnull))
    with pytest.raises(ConfigurationError, match=r"^ssh_config: .*: No closing quotation$"):
        module._words('/a "b')


# -- detours


@pytest.mark.parametrize(
    ("text", "command", "via"),
    [
        ("ProxyCommand nc %h %p\nProxyJump b\n", "nc a 22", None),
        ("ProxyJump b\nProxyCommand nc\n", None, "b"),
        ("ProxyCommand none\nProxyJump b\n", None, None),
        ("ProxyJump none\nProxyCommand nc\n", "nc", None),
        ("ProxyJump none\n", None, None),
        ("ProxyJump zeta\n", None, "zeta"),
        ("ProxyCommand socat -\n", "socat -", None),
        ("", None, None),
    ],
)
def test_of_a_command_and_a_jump_the_first_counts(says: Says, text: str, command: str | None, via: str | None) -> None:
    way = says(f"Host a\n{text}")
    assert way.proxy_command == command
    assert (way.via.host if way.via else None) == via


@pytest.mark.parametrize(("host", "command"), [("a;b", "nc %h"), ("a;b", "nc %n"), ("-x", "nc %h"), ("a b", "nc %h")])
def test_no_name_is_code_for_the_shell_of_a_command(says: Says, host: str, command: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be passed to a ProxyCommand"):
        says(f"ProxyCommand {command}", host=host, user="u")
    assert says("ProxyCommand nc fixed %r", host=host, user="u").proxy_command == "nc fixed u"
    with pytest.raises(ConfigurationError, match=r"^ssh_config: 'u;x' cannot be passed"):
        says("ProxyCommand nc %r", user="u;x")


@pytest.mark.parametrize(
    ("jump", "expected"),
    [
        ("b", ("b", 22, "local")),
        ("u@b:7", ("b", 7, "u")),
        ("ssh://u@b:7/", ("b", 7, "u")),
        ("[::1]:7", ("::1", 7, "local")),
        ("me@[::1]", ("::1", 22, "me")),
    ],
)
def test_a_jump_is_a_user_a_host_and_a_port(says: Says, jump: str, expected: tuple[str, int, str]) -> None:
    via = says(f"Host a\nProxyJump {jump}\n").via
    assert via is not None
    assert (via.host, via.port, via.user) == expected


def test_of_several_jumps_only_the_first_is_reached_as_its_own_words_say(says: Says) -> None:
    own = "BindAddress 127.0.0.1\nBindInterface eth0\nProxyCommand nc %h\n"
    way = says(f"Host a\nProxyJump b, c\nHost b c\n{own}")
    second = way.via
    assert second is not None
    assert (second.host, second.bind_address, second.bind_interface, second.proxy_command) == ("c", None, None, None)
    first = second.via
    assert first is not None
    assert (first.host, first.bind_address, first.bind_interface, first.proxy_command) == (
        "b", "127.0.0.1", "eth0", "nc b",
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"^ssh_config: ProxyJump 'b:x' is no \[user@\]host\[:port\]$"):
        says("Host a\nProxyJump b:x\n")


@pytest.mark.parametrize(("jumps", "fine"), [(DEPTH_MAX, True), (DEPTH_MAX + 1, False)])
def test_a_chain_of_jumps_has_an_end(says: Says, jumps: int, fine: bool) -> None:
    text = "".join(f"Host h{number}\nProxyJump h{number + 1}\n" for number in range(jumps))
    if fine:
        assert says(text, host="h0").via is not None
        return
    with pytest.raises(ConfigurationError, match="leads in a circle"):
        says(text, host="h0")


# -- lines


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("Host a\nUser one # a comment\n", "one"),
        ("Match host a\nUser one\n", "one"),
        ("Match=host a\nUser one\n", "one"),
        ("Match !host b user u\nUser one\n", "local"),
        ("Match host b\nUser one\n", "local"),
        ("Match all\nUser one\n", "one"),
        ("Match exec true\nUser one\n", "one"),
        ("Match exec false\nUser one\n", "local"),
        ("Match !exec false\nUser one\n", "one"),
        ("Match host b exec true\nUser one\n", "local"),
        ("Match host a exec true host b\nUser one\n", "local"),
        ("Match host a exec true\nUser one\n", "one"),
    ],
)
def test_a_block_counts_where_all_its_conditions_hold(says: Says, text: str, user: str) -> None:
    assert says(text).user == user


def test_a_condition_is_only_run_where_those_in_front_of_it_hold(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(module, "_succeeds", lambda command: ran.append(command) or True)
    says("Match host b exec one\nUser x\nMatch host a exec two\nUser y\n")
    assert set(ran) == {"two"}
    ran.clear()
    says("Match exec 'x %n %r'\nUser y\n", user="me")
    assert set(ran) == {"x a me"}


def test_a_command_that_a_signal_ended_has_not_succeeded() -> None:
    found = [module._succeeds(command) for command in ("true", "false", "kill -9 $$")]
    assert found == [True, False, False]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Match maybe", "Match maybe cannot be followed here"),
        ("Match host a !maybe", "Match !maybe cannot be followed here"),
        ("Match all maybe", "Match maybe cannot"),
        ('Match exec "x', "No closing quotation"),
    ],
)
def test_a_condition_that_we_do_not_know_is_not_taken_for_met(says: Says, line: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        says(f"{line}\nUser x\n")


def test_only_where_a_condition_is_run_a_name_has_to_be_safe_for_a_shell(says: Says) -> None:
    assert says("Match host b\nUser x\n", host="a;b").host == "a;b"
    for given, told in (({"host": "a;b"}, "a;b"), ({"user": "u;x"}, "u;x"), ({"host": "a;b", "user": "u;x"}, "a;b")):
        with pytest.raises(ConfigurationError, match=rf"^ssh_config: '{told}' cannot be passed to a Match exec$"):
            says("Host c\nMatch exec true\nUser x\n", **given)


def test_what_paramiko_cannot_read_is_told(says: Says) -> None:
    with pytest.raises(ConfigurationError, match=r"^ssh_config: cannot be read: "):
        says("nonsense")


# -- files


def test_the_users_file_comes_before_the_systems_and_either_may_be_missing(home: Path) -> None:
    write(home / "system", "User system\nPort 7\n")
    assert files("default") == [home / ".ssh/config", home / "system"]
    assert files("~/x") == [home / "x"]
    assert way_to("a", None, None, "default").user == "system"
    write(home / ".ssh/config", "Host a\nUser own\nHost b\n")
    way = way_to("a", None, None, "default")
    assert (way.user, way.port) == ("own", 7)
    for gone in (str(home / "gone"), "~/gone"):
        with pytest.raises(ConfigurationError, match=r"is not there$"):
            check(gone)


@pytest.mark.parametrize(("mode", "fine"), [(0o644, True), (0o755, True), (0o620, False), (0o602, False)])
def test_a_file_that_others_may_write_is_not_believed(home: Path, mode: int, fine: bool) -> None:
    path = write(home / "x", "User x\n", mode)
    if fine:
        check(str(path))
        return
    with pytest.raises(ConfigurationError, match=rf"^ssh_config: {path} may be written by others$"):
        check(str(path))


@pytest.mark.parametrize(("owner", "fine"), [(0, True), (1000, True), (1, False), (1001, False)])
def test_a_file_is_its_users_or_roots(home: Path, monkeypatch, owner: int, fine: bool) -> None:
    path = write(home / "x", "User x\n")
    monkeypatch.setattr(Path, "stat", lambda _: SimpleNamespace(st_uid=owner, st_mode=0o100600))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    if fine:
        assert module._text(path, must_be=True) == "User x\n"
        return
    with pytest.raises(ConfigurationError, match="may be written by others"):
        module._text(path, must_be=True)


def test_what_is_no_file_is_told_with_the_reason(home: Path) -> None:
    for path, told in ((home / ".ssh", "Is a directory"), ("a\0b", "null")):
        with pytest.raises(ConfigurationError, match=told):
            check(str(path))
    (home / "latin").write_bytes(b"# caf\xe9\nUser x\n")
    assert way_to("a", None, None, str(home / "latin")).user == "x"


def test_a_file_that_includes_itself_is_told(home: Path) -> None:
    write(home / "config", f"Include {home}/config\n")
    with pytest.raises(ConfigurationError, match="includes itself"):
        check(str(home / "config"))


@pytest.mark.parametrize(("more", "fine"), [(0, True), (1, False)])
def test_includes_go_only_so_deep(home: Path, more: int, fine: bool) -> None:
    last = DEPTH_MAX + more
    for number in range(last):
        write(home / f"{number}", f'Include "{home}/{number + 1}"\n')
    write(home / f"{last}", "User deep\n")
    if fine:
        assert way_to("a", None, None, str(home / "0")).user == "deep"
        return
    with pytest.raises(ConfigurationError, match="includes itself"):
        check(str(home / "0"))


def test_no_block_stands_in_another(says: Says, home: Path) -> None:
    write(home / ".ssh/blocks", "Host a\nUser x\n")
    for block in ("Host !b *", "Host z", "Match all"):
        with pytest.raises(ConfigurationError, match="Include of Host or Match blocks within a block"):
            says(f"{block}\nInclude blocks\n")


def test_a_block_goes_on_behind_what_it_includes_and_what_is_included_may_be_gone(says: Says, home: Path) -> None:
    write(home / ".ssh/more", "Port 7\n")
    text = "Host b\nInclude more gone\nUser x\nHost *\nInclude blocks\n"
    write(home / ".ssh/blocks", "Host a\nBindAddress 1.2.3.4\n")
    assert (says(text).user, says(text).port, says(text).bind_address) == ("local", 22, "1.2.3.4")
    assert (says(text, host="b").user, says(text, host="b").port) == ("x", 7)


@pytest.mark.parametrize(("path", "base"), [("/etc/ssh/ssh_config", "/etc/ssh"), ("/home/x", "HOME/.ssh")])
def test_a_relative_include_is_beside_the_systems_file_or_the_users(home: Path, monkeypatch, path, base) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(glob, "glob", lambda pattern: asked.append(pattern) or ["2", "1"])
    assert list(module._included('x "y/*"', Path(path))) == [Path("1"), Path("2")] * 2
    folder = base.replace("HOME", str(home))
    assert asked == [f"{folder}/x", f"{folder}/y/*"]
