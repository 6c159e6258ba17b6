"""What is taken from an OpenSSH configuration, and what is refused, compared with `ssh -G` where that is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from servers.base import program

from iot.sftp.client import ConfigurationError, IoTSFTPClient, LinkLost
from iot.sftp.client.ssh.openssh_config import way_to

CONFIG = """\
# by hand
Host box b-*
    HostName real.example
    User=device
    Port 2222
    IdentityFile ~/.ssh/box
    IdentityFile "~/.ssh/box two"
    CertificateFile ~/.ssh/box-cert.pub
    BindAddress 127.0.0.1
    IdentitiesOnly yes
Host inner
    ProxyJump box,admin@gate:2200
Host cmd
    ProxyCommand nc -X connect %h %p %r %%
Host !nobody *
    User everybody
    SendEnv LANG
    HashKnownHosts yes
"""
SYSTEM_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    path = tmp_path / ".ssh/config"
    path.write_text(CONFIG)
    path.chmod(0o600)
    return path


def test_an_alias_gives_host_user_port_keys_and_certificate(config: Path, tmp_path: Path) -> None:
    way = way_to("box", None, None, str(config))
    assert (way.host, way.port, way.user) == ("real.example", 2222, "device")
    assert way.identities == (tmp_path / ".ssh/box", tmp_path / ".ssh/box two")
    assert way.certificate == tmp_path / ".ssh/box-cert.pub"
    assert (way.bind_address, way.uses_agent) == ("127.0.0.1", False)
    assert way_to("b-7", None, None, "default").host == "real.example"


def test_what_is_given_wins_and_what_is_not_configured_stays(config: Path, tmp_path: Path) -> None:
    way = way_to("box", 22, "me", str(config))
    assert (way.host, way.port, way.user) == ("real.example", 22, "me")
    way = way_to("other", None, None, str(config))
    assert (way.host, way.port, way.user, way.uses_agent) == ("other", 22, "everybody", True)
    assert way.identities[0] == tmp_path / ".ssh/id_ed25519"


def test_several_jumps_are_a_chain_each_with_its_own_configuration(config: Path) -> None:
    way = way_to("inner", None, None, str(config))
    assert way.via is not None
    assert (way.via.host, way.via.port, way.via.user) == ("gate", 2200, "admin")
    assert way.via.via is not None
    assert (way.via.via.host, way.via.via.port, way.via.via.user) == ("real.example", 2222, "device")
    assert way.via.via.via is None


def test_a_circle_of_jumps_is_refused(config: Path) -> None:
    config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(ConfigurationError, match="circle"):
        way_to("a", None, None, str(config))


def test_a_proxy_command_gets_what_is_really_used(config: Path) -> None:
    assert way_to("cmd", 99, "me", str(config)).proxy_command == "nc -X connect cmd 99 me %"


@pytest.mark.parametrize(
    ("host", "user"), [("x;reboot", None), ("-oProxyCommand=x", None), ("x", "$(reboot)"), ("`x`", None)]
)
def test_nothing_of_a_host_or_user_is_code_for_the_shell_of_a_proxy_command(
    config: Path, host: str, user: str | None
) -> None:
    config.write_text("Host *\n ProxyCommand nc %h %r\n")
    with pytest.raises(ConfigurationError, match="cannot be passed to a ProxyCommand"):
        way_to(host, None, user, str(config))


@pytest.mark.parametrize(
    "keyword", ["HostKeyAlias x", "Ciphers +aes128-cbc", "IdentityAgent ~/x", "KnownHostsCommand y"]
)
def test_a_keyword_that_matters_and_cannot_be_followed_is_refused_by_name(config: Path, keyword: str) -> None:
    config.write_text(f"Host a\n  {keyword}\nHost b\n  User u\n")
    with pytest.raises(ConfigurationError, match=keyword.split(maxsplit=1)[0].lower()):
        way_to("a", None, None, str(config))
    assert way_to("b", None, None, str(config)).user == "u"


def test_includes_are_read_where_they_stand(config: Path) -> None:
    (config.parent / "conf.d").mkdir()
    (config.parent / "conf.d/1").write_text("Host one\n  User first\n")
    (config.parent / "conf.d/1").chmod(0o600)
    (config.parent / "port").write_text("Port 77\n")
    (config.parent / "port").chmod(0o600)
    config.write_text("Include conf.d/*\nUser later\nHost two\n  Include port\nHost three\n  Port 3\n")
    assert way_to("one", None, None, str(config)).user == "first"
    assert [way_to(name, None, None, str(config)).port for name in ("one", "two", "three")] == [22, 77, 3]
    assert way_to("two", None, None, str(config)).user == "later"
    config.write_text("Host two\n  Include conf.d/*\n")
    with pytest.raises(ConfigurationError, match="Include of Host"):
        way_to("two", None, None, str(config))


def test_a_file_that_others_may_write_or_that_is_missing_is_refused(config: Path) -> None:
    config.chmod(0o666)
    with pytest.raises(ConfigurationError, match="may be written by others"):
        way_to("box", None, None, str(config))
    with pytest.raises(ConfigurationError, match="is not there"):
        way_to("box", None, None, str(config) + "x")
    config.unlink()
    assert way_to("box", None, "me", "default").host == "box"


@pytest.mark.parametrize(
    "text", ["Host a\n  Port x\n", "nonsense\n", "Match maybe a\n  User x\n", "Host a\n Port 70000\n"]
)
def test_what_makes_no_sense_is_a_configuration_error(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigurationError, match="ssh_config"):
        way_to("a", None, None, str(config))


@pytest.mark.parametrize("host", ["box", "b-1", "cmd", "other"])
def test_ssh_finds_the_same(config: Path, host: str) -> None:
    told = subprocess.run(
        [program("ssh", "openssh-client"), "-G", "-F", str(config), host], capture_output=True, text=True, check=True
    ).stdout
    theirs = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
    ours = way_to(host, None, None, str(config))
    assert (ours.host, str(ours.port), ours.user) == (theirs["hostname"], theirs["port"], theirs["user"])
    assert ours.bind_address == theirs.get("bindaddress")


COMPETING = """\
Host jump-first
    ProxyJump gate
Host no-command
    ProxyCommand none
Host no-jump
    ProxyJump none
Host inner # of the lab
    User bob # by hand
Match user alice
    ProxyJump alices
Host *
    ProxyCommand nc %h
    ProxyJump other
"""


@pytest.mark.parametrize("user", ["me", "alice"])
@pytest.mark.parametrize("host", ["jump-first", "no-command", "no-jump", "inner"])
def test_the_way_is_the_one_that_ssh_takes(config: Path, host: str, user: str) -> None:
    config.write_text(COMPETING.replace("ProxyJump other\n", ""))
    words = [program("ssh", "openssh-client"), "-G", "-F", str(config), "-l", user, host]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    theirs = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
    ours = way_to(host, None, user, str(config))
    assert (ours.via.host if ours.via else None) == theirs.get("proxyjump")
    assert ours.proxy_command == (theirs["proxycommand"].replace("%h", host) if "proxycommand" in theirs else None)


def test_comments_none_and_variables_mean_what_they_mean_for_ssh(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(COMPETING + "IdentityAgent none\nUserKnownHostsFile none\nIdentityFile ${KEYS}/a # mine\n")
    monkeypatch.setenv("KEYS", str(tmp_path))
    way = way_to("inner", None, None, str(config))
    assert (way.user, way.uses_agent, way.known_hosts) == ("bob", False, (Path("/dev/null"), *SYSTEM_KNOWN_HOSTS))
    assert way.identities == (tmp_path / "a",)
    monkeypatch.delenv("KEYS")
    with pytest.raises(ConfigurationError, match="KEYS"):
        way_to("inner", None, None, str(config))


def test_the_command_of_a_match_reads_nothing_of_our_input(config: Path) -> None:
    config.write_text('Match host a exec "! grep -q x"\n  Port 77\nMatch host b exec "touch ~/ran"\n  Port 78\n')
    program = f"import sys; from {way_to.__module__} import way_to; print(way_to('a', None, 'u', {str(config)!r}).port,"
    words = [sys.executable, "-c", program + " len(sys.stdin.read()))"]
    told = subprocess.run(words, input=b"x" * 100_000, capture_output=True, check=True, timeout=30)
    assert told.stdout.split() == [b"77", b"100000"]
    assert not (config.parent.parent / "ran").exists()


def test_a_given_user_is_no_code_for_the_shell_of_a_match(config: Path) -> None:
    config.write_text('Match exec "test %r = bob"\n  Port 77\n')
    assert way_to("a", None, "bob", str(config)).port == 77
    with pytest.raises(ConfigurationError, match="Match exec"):
        way_to("a", None, "$(id)", str(config))


def test_the_library_follows_it_on_request_only(config: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert "real.example" not in repr(IoTSFTPClient("box", sftp_user="me", sftp_pass="x", state_dir=state))
    asked = IoTSFTPClient("box", sftp_pass="x", state_dir=state, ssh_config="default")
    assert "device@real.example:2222" in repr(asked)
    with pytest.raises(ConfigurationError, match="sftp_port"):
        IoTSFTPClient("box", 0, sftp_pass="x", ssh_config="default")


def test_a_given_proxy_wins_over_a_proxy_command(config: Path, tmp_path: Path) -> None:
    config.write_text(f"Host *\n  ProxyCommand touch {tmp_path}/ran; false\n")
    given = {"proxy": "socks5://127.0.0.1:1", "host_key": "SHA256:" + "A" * 43, "attempts": 1}
    client = IoTSFTPClient("h", 22, "u", "p", ssh_config=str(config), state_dir=tmp_path / "state", **given)
    with pytest.raises(LinkLost, match=r"127\.0\.0\.1"):
        client.connect()
    client.close()
    assert not (tmp_path / "ran").exists()


def test_all_known_hosts_files_are_read_in_their_order_quoted_or_not(config: Path) -> None:
    config.write_text(
        'Host *\n  UserKnownHostsFile ~/a "/my hosts/%h" /c # mine\n  GlobalKnownHostsFile="/only one"\n'
        "  BindInterface wwan0\n"
    )
    way = way_to("box", None, "me", str(config))
    assert way.known_hosts == (Path("~/a").expanduser(), Path("/my hosts/box"), Path("/c"), Path("/only one"))
    assert way.bind_interface == "wwan0"


def test_without_a_word_the_files_of_ssh_are_read(config: Path) -> None:
    config.write_text("")
    user = (Path("~/.ssh/known_hosts").expanduser(), Path("~/.ssh/known_hosts2").expanduser())
    assert way_to("box", None, "me", str(config)).known_hosts == user + SYSTEM_KNOWN_HOSTS


@pytest.mark.parametrize("value", ["/a /b", '"/a b"', '/a "/b c"', "none", '"/a b" "/c d"'])
def test_known_hosts_are_those_that_ssh_reads(value: str, config: Path) -> None:
    config.write_text(f"Host *\n  UserKnownHostsFile {value}\n  GlobalKnownHostsFile {value}\n")
    words = ["ssh", "-G", "-F", str(config), "box"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    theirs = dict(line.split(" ", 1) for line in told.splitlines() if "knownhostsfile" in line)
    ours = [str(path) for path in way_to("box", None, "me", str(config)).known_hosts]
    named = [" ".join(ours[: len(ours) // 2]), " ".join(ours[len(ours) // 2 :])]
    assert named == [theirs[key].replace("none", "/dev/null") for key in ("userknownhostsfile", "globalknownhostsfile")]
