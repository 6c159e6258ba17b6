"""Who the server is: nothing but a listed or pinned key passes, and every refusal says what to do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from iot.sftp.client.ssh import hostkeys
from iot.sftp.client.ssh.hostkeys import KnownHosts, Pinned, fingerprint
from iot.transfer.errors import ConfigurationError, HostKeyMismatch, HostKeyUnknown


@dataclass(frozen=True)
class Key:
    path: Path
    kind: str
    text: str

    @property
    def blob(self) -> bytes:
        return base64.b64decode(self.text)

    @property
    def line(self) -> str:
        return f"{self.kind} {self.text}"


def read(path: Path) -> Key:
    kind, text, *_ = path.read_text().split()
    return Key(path, kind, text)


def keygen(*arguments: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def make_key(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Key]:
    folder = tmp_path_factory.mktemp("keys")

    def make(name: str, kind: str = "ed25519") -> Key:
        path = folder / name
        if not path.exists():
            keygen("-t", kind, "-N", "", "-C", f"comment of {name}", "-f", str(path))
        return read(path.with_suffix(".pub"))

    return make


@pytest.fixture
def key(make_key: Callable[..., Key]) -> Key:
    return make_key("server")


@pytest.fixture
def other(make_key: Callable[..., Key]) -> Key:
    return make_key("other")


@pytest.fixture
def authority(make_key: Callable[..., Key]) -> Key:
    return make_key("authority")


def known(tmp_path: Path, *lines: str) -> KnownHosts:
    path = tmp_path / "known_hosts"
    path.write_text("\n".join(lines) + "\n")
    return KnownHosts(path)


def passes(hosts: KnownHosts, key: Key, host: str = "gw.example.com", port: int = 22) -> bool:
    try:
        hosts.check(host, port, key.kind, key.blob)
    except (HostKeyUnknown, HostKeyMismatch):
        return False
    return True


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("names", "host", "port", "expected"),
    [
        ("gw.example.com", "gw.example.com", 22, True),
        ("gw.example.com", "GW.Example.COM", 22, True),
        ("GW.example.com", "gw.example.com", 22, True),
        ("gw.example.com", "gw.example.com", 2222, False),
        ("[gw.example.com]:2222", "gw.example.com", 2222, True),
        ("[gw.example.com]:2222", "gw.example.com", 22, False),
        ("[gw.example.com]:2222", "gw.example.com", 2223, False),
        ("a,gw.example.com,b", "gw.example.com", 22, True),
        ("*.example.com", "gw.example.com", 22, True),
        ("*.example.com", "example.com", 22, False),
        ("g?.example.com", "gw.example.com", 22, True),
        ("g?.example.com", "gateway.example.com", 22, False),
        ("[*.example.com]:2222", "gw.example.com", 2222, True),
        ("*.example.com,!gw.example.com", "gw.example.com", 22, False),
        ("!gw.example.com,*.example.com", "gw.example.com", 22, False),
        ("*.example.com,!gw.example.com", "g2.example.com", 22, True),
        ("!other.example.com", "gw.example.com", 22, False),
        ("192.0.2.7", "192.0.2.7", 22, True),
        ("2001:db8::7", "2001:db8::7", 22, True),
        ("[2001:db8::7]:2222", "2001:db8::7", 2222, True),
        ("gw[12].example.com", "gw1.example.com", 22, False),
        ("gw.example.com.evil.org", "gw.example.com", 22, False),
        (hashed("gw.example.com"), "gw.example.com", 22, True),
        (hashed("gw.example.com"), "GW.example.com", 22, True),
        (hashed("gw.example.com"), "g2.example.com", 22, False),
        (hashed("[gw.example.com]:2222"), "gw.example.com", 2222, True),
        (hashed("gw.example.com"), "gw.example.com", 2222, False),
        ("|1|not base64|x", "gw.example.com", 22, False),
        ("|1|a", "gw.example.com", 22, False),
    ],
)
def test_a_line_stands_for_the_hosts_and_ports_it_names(
    tmp_path: Path, key: Key, names: str, host: str, port: int, expected: bool
) -> None:
    hosts = known(tmp_path, f"{names} {key.line} a comment")
    assert passes(hosts, key, host, port) is expected
    assert hosts.key_types(host, port) == ([key.kind] if expected else [])


def test_lines_that_ssh_keygen_hashed_are_found(tmp_path: Path, key: Key) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"gw.example.com {key.line}\n[gw.example.com]:2222 {key.line}\n")
    keygen("-H", "-f", str(path))
    assert "gw.example.com" not in path.read_text()
    hosts = KnownHosts(path)
    assert passes(hosts, key)
    assert passes(hosts, key, port=2222)
    assert not passes(hosts, key, port=2223)


def test_any_of_several_keys_of_a_host_passes_and_their_types_are_asked_for(
    tmp_path: Path, make_key: Callable[..., Key]
) -> None:
    keys = [make_key("one"), make_key("ec", "ecdsa"), make_key("rsa", "rsa")]
    hosts = known(tmp_path, *[f"gw.example.com {item.line}" for item in keys])
    assert all(passes(hosts, item) for item in keys)
    assert hosts.key_types("gw.example.com", 22) == [item.kind for item in keys]


def test_lines_that_cannot_be_read_are_passed_over(tmp_path: Path, key: Key) -> None:
    junk = ["# comment", "", "gw.example.com", "gw.example.com ssh-ed25519 !!!", "@marker", "\x00\xff"]
    assert passes(known(tmp_path, *junk, f"gw.example.com {key.line}"), key)


@pytest.mark.parametrize("letter", ["!", "\N{SNOWMAN}", "="])
def test_a_key_with_a_letter_that_belongs_to_none_is_unreadable(tmp_path: Path, key: Key, letter: str) -> None:
    """A lenient decoder leaves such letters out, and would find the key."""
    assert not passes(known(tmp_path, f"gw.example.com {key.kind} {key.text[:20]}{letter}{key.text[20:]}"), key)


def test_an_unknown_host_fails_closed_and_says_how_to_add_it(tmp_path: Path, key: Key) -> None:
    hosts = KnownHosts(tmp_path / "not there")
    assert hosts.key_types("gw.example.com", 2222) == []
    with pytest.raises(HostKeyUnknown) as told:
        hosts.check("gw.example.com", 2222, key.kind, key.blob)
    said = str(told.value)
    assert f"host_key='{fingerprint(key.blob)}'" in said
    assert f"ssh-keyscan -p 2222 gw.example.com >> {tmp_path / 'not there'}" in said


def test_several_files_all_count_and_each_line_is_told_with_its_own(tmp_path: Path, key: Key, other: Key) -> None:
    user, system = tmp_path / "user", tmp_path / "system"
    system.write_text(f"gw.example.com {key.line}\n")
    hosts = KnownHosts(user, tmp_path / "missing", system)
    hosts.check("gw.example.com", 22, key.kind, key.blob)
    with pytest.raises(HostKeyMismatch, match=f"not the key that {system} lists.* -f {system} -R"):
        hosts.check("gw.example.com", 22, other.kind, other.blob)
    with pytest.raises(HostKeyUnknown, match=f"is not in {user} or {system}; .* >> {user}$"):
        hosts.check("box.example.com", 22, key.kind, key.blob)
    user.write_text(f"@revoked * {key.line}\n")
    with pytest.raises(HostKeyMismatch, match=f"@revoked in {user}"):
        KnownHosts(user, system).check("gw.example.com", 22, key.kind, key.blob)


@pytest.mark.parametrize(("port", "name"), [(22, "gw.example.com"), (2222, "[gw.example.com]:2222")])
def test_a_changed_key_is_refused_and_says_how_to_replace_it(
    tmp_path: Path, key: Key, other: Key, port: int, name: str
) -> None:
    hosts = known(tmp_path, f"{name} {key.line}")
    with pytest.raises(HostKeyMismatch) as told:
        hosts.check("gw.example.com", port, other.kind, other.blob)
    said = str(told.value)
    assert fingerprint(other.blob) in said
    assert f"ssh-keygen -f {tmp_path / 'known_hosts'} -R '{name}'" in said


def test_a_key_of_another_type_than_listed_is_a_mismatch_and_not_unknown(
    tmp_path: Path, key: Key, make_key: Callable[..., Key]
) -> None:
    rsa = make_key("rsa", "rsa")
    with pytest.raises(HostKeyMismatch):
        known(tmp_path, f"gw.example.com {key.line}").check("gw.example.com", 22, rsa.kind, rsa.blob)


def test_a_file_that_cannot_be_read_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="known_hosts: cannot read"):
        KnownHosts(tmp_path)


# -- revoked


def test_a_revoked_key_is_refused_even_where_it_is_listed(tmp_path: Path, key: Key, other: Key) -> None:
    hosts = known(tmp_path, f"@revoked * {key.line}", f"gw.example.com {key.line}", f"gw.example.com {other.line}")
    with pytest.raises(HostKeyMismatch, match="@revoked"):
        hosts.check("gw.example.com", 22, key.kind, key.blob)
    assert passes(hosts, other)


def test_a_key_that_is_only_revoked_is_not_known(tmp_path: Path, key: Key, other: Key) -> None:
    hosts = known(tmp_path, f"@revoked * {key.line}")
    assert hosts.key_types("gw.example.com", 22) == []
    with pytest.raises(HostKeyUnknown):
        hosts.check("gw.example.com", 22, other.kind, other.blob)


# -- certificates, made by ssh-keygen itself


@pytest.fixture
def certify(authority: Key, key: Key, tmp_path: Path) -> Callable[..., Key]:
    def certify(*options: str, by: Key = authority, host: bool = True) -> Key:
        copy = tmp_path / "signed.pub"
        copy.write_text(key.path.read_text())
        kind = ["-h"] if host else []
        keygen("-s", str(by.path.with_suffix("")), "-I", "test", *kind, *options, str(copy))
        return read(tmp_path / "signed-cert.pub")

    return certify


def test_a_host_certificate_of_a_listed_authority_passes(
    tmp_path: Path, authority: Key, certify: Callable[..., Key]
) -> None:
    hosts = known(tmp_path, f"@cert-authority *.example.com {authority.line}")
    assert hosts.key_types("gw.example.com", 22)[0] == "ssh-ed25519-cert-v01@openssh.com"
    assert passes(hosts, certify("-n", "gw.example.com,g2.example.com"))
    assert passes(hosts, certify("-n", "gw.example.com"), host="GW.example.com")
    assert passes(hosts, certify())  # for any host
    with_port = known(tmp_path, f"@cert-authority [*.example.com]:2222 {authority.line}")
    assert passes(with_port, certify("-n", "gw.example.com"), port=2222)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-n", "other.example.com"), "is for other.example.com"),
        (("-n", "gw.example.com", "-V", "20200101:20200102"), "not valid now"),
        (("-n", "gw.example.com", "-V", "20990101:20990102"), "clock"),
    ],
)
def test_a_certificate_for_another_host_or_time_is_refused(
    tmp_path: Path, authority: Key, certify: Callable[..., Key], options: tuple[str, ...], said: str
) -> None:
    shown = certify(*options)
    with pytest.raises(HostKeyMismatch, match=said):
        known(tmp_path, f"@cert-authority * {authority.line}").check("gw.example.com", 22, shown.kind, shown.blob)


@pytest.mark.parametrize(("edge", "later_s", "valid"), [(0, -1, False), (0, 0, True), (1, -1, True), (1, 0, False)])
def test_a_certificate_is_valid_from_its_first_second_to_the_one_before_its_end(
    tmp_path: Path, monkeypatch, authority: Key, certify: Callable[..., Key], edge: int, later_s: int, valid: bool
) -> None:
    shown = certify("-n", "gw.example.com", "-V", "20250101:20250102")
    certificate = hostkeys._certificate(shown.blob)
    assert certificate is not None
    at = (certificate.valid_after, certificate.valid_before)[edge] + later_s
    monkeypatch.setattr(hostkeys.time, "time", lambda: float(at))
    assert passes(known(tmp_path, f"@cert-authority * {authority.line}"), shown) is valid


def test_a_certificate_with_a_condition_that_we_do_not_know_is_refused(
    tmp_path: Path, authority: Key, certify: Callable[..., Key]
) -> None:
    shown = certify("-n", "gw.example.com", "-O", "critical:only-on-sundays@example.com=yes")
    with pytest.raises(HostKeyMismatch, match="critical options"):
        known(tmp_path, f"@cert-authority * {authority.line}").check("gw.example.com", 22, shown.kind, shown.blob)


def test_a_users_certificate_is_no_host_certificate(
    tmp_path: Path, authority: Key, certify: Callable[..., Key]
) -> None:
    shown = certify("-n", "gw.example.com", host=False)
    with pytest.raises(HostKeyMismatch, match="not a host certificate"):
        known(tmp_path, f"@cert-authority * {authority.line}").check("gw.example.com", 22, shown.kind, shown.blob)


def test_a_certificate_of_another_authority_is_refused(
    tmp_path: Path, authority: Key, other: Key, certify: Callable[..., Key]
) -> None:
    shown = certify("-n", "gw.example.com", by=other)
    with pytest.raises(HostKeyMismatch, match="not signed by any listed @cert-authority"):
        known(tmp_path, f"@cert-authority * {authority.line}").check("gw.example.com", 22, shown.kind, shown.blob)
    # an authority for other hosts, and the authority's key listed as a plain one, are none for this host
    assert not passes(known(tmp_path, f"@cert-authority *.org {other.line}"), shown)
    assert not passes(known(tmp_path, f"gw.example.com {other.line}"), shown)


def test_a_certificate_that_was_tampered_with_is_refused(
    tmp_path: Path, authority: Key, certify: Callable[..., Key]
) -> None:
    shown = certify("-n", "gw.example.com")
    hosts = known(tmp_path, f"@cert-authority * {authority.line}")
    for at in range(0, len(shown.blob), 7):
        blob = bytearray(shown.blob)
        blob[at] ^= 1
        with pytest.raises(HostKeyMismatch):
            hosts.check("gw.example.com", 22, shown.kind, bytes(blob))


def test_an_authoritys_own_key_is_not_a_host_key(tmp_path: Path, authority: Key) -> None:
    assert not passes(known(tmp_path, f"@cert-authority * {authority.line}"), authority)


def test_a_marker_that_we_do_not_know_makes_no_authority(
    tmp_path: Path, authority: Key, certify: Callable[..., Key]
) -> None:
    shown = certify("-n", "gw.example.com")
    for marker in ("@zone-authority", "@authority", "@cert-authority2"):
        assert not passes(known(tmp_path, f"{marker} * {authority.line}"), shown)
        assert not passes(known(tmp_path, f"{marker} * {shown.line}"), shown)


def test_a_key_of_an_unlisted_host_is_unknown_also_beside_an_authority(
    tmp_path: Path, authority: Key, key: Key, certify: Callable[..., Key]
) -> None:
    with pytest.raises(HostKeyUnknown):
        known(tmp_path, f"@cert-authority * {authority.line}").check("gw.example.com", 22, key.kind, key.blob)
    shown = certify("-n", "gw.example.com")
    with pytest.raises(HostKeyUnknown):  # nothing is listed for this host that could have signed
        known(tmp_path, f"@cert-authority *.org {authority.line}").check("gw.example.com", 22, shown.kind, shown.blob)


def test_a_file_that_cannot_be_opened_is_told_and_one_that_is_missing_lists_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="known_hosts: cannot read"):
        KnownHosts(tmp_path)
    assert KnownHosts(tmp_path / "missing").key_types("gw.example.com", 22) == []


def test_a_line_needs_hosts_kind_and_key(tmp_path: Path, key: Key) -> None:
    short = known(tmp_path, "gw.example.com", f"gw.example.com {key.kind}", f"@revoked gw.example.com {key.kind}")
    assert short.key_types("gw.example.com", 22) == []
    assert passes(known(tmp_path, f"gw.example.com {key.line}"), key)  # and no comment


def test_a_revoked_authority_or_host_key_makes_its_certificate_worthless(
    tmp_path: Path, authority: Key, key: Key, certify: Callable[..., Key]
) -> None:
    shown = certify("-n", "gw.example.com")
    for revoked in (authority, key, shown):
        hosts = known(tmp_path, f"@revoked * {revoked.line}", f"@cert-authority * {authority.line}")
        with pytest.raises(HostKeyMismatch, match="@revoked"):
            hosts.check("gw.example.com", 22, shown.kind, shown.blob)


# -- pin


def test_a_fingerprint_is_what_ssh_keygen_prints(key: Key) -> None:
    printed = subprocess.run(["ssh-keygen", "-lf", str(key.path)], check=True, capture_output=True, text=True).stdout
    assert fingerprint(key.blob) == printed.split()[1]


def test_a_pin_lets_that_key_pass_and_no_other(key: Key, other: Key) -> None:
    for pin in (fingerprint(key.blob), fingerprint(key.blob) + "="):
        Pinned(pin).check("anything", 22, key.kind, key.blob)
        with pytest.raises(HostKeyMismatch) as told:
            Pinned(pin).check("anything", 22, other.kind, other.blob)
        assert fingerprint(other.blob) in str(told.value)
        assert "pin the new one" in str(told.value)
    assert Pinned("SHA256:x").key_types("anything", 22) == []


@pytest.mark.parametrize("pin", ["SHA256:", "SHA256:é", "", "SHA256:" + "A" * 43])
def test_a_pin_that_is_none_lets_nothing_pass(key: Key, pin: str) -> None:
    with pytest.raises(HostKeyMismatch):
        Pinned(pin).check("anything", 22, key.kind, key.blob)
