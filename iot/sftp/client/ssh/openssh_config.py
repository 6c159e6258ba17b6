"""The user's OpenSSH configuration (ssh_config(5)): where a host is, who logs in there with which keys, and the way.

paramiko's SSHConfig finds the values; `Include`, `%` in values and what is refused are ours. A keyword that would
change where we connect, whom we trust or what is encrypted how, and that we cannot follow, is refused by name.
"""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import paramiko

from iot.sftp.client.ssh.children import environment
from iot.transfer.errors import ConfigurationError

__all__ = ["DEFAULT", "NONE", "SSH_PORT", "Way", "check", "files", "way_to"]

DEFAULT, NONE = "default", "none"
USER_FILE, SYSTEM_FILE = "~/.ssh/config", "/etc/ssh/ssh_config"
IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
SSH_PORT = 22
DEPTH_MAX = 16
REFUSED = frozenset(
    (
        *("hostkeyalias", "knownhostscommand", "revokedhostkeys", "requiredrsasize"),
        *("identityagent", "pkcs11provider", "securitykeyprovider", "proxyusefdpass"),
        *("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms"),
    )
)
"""Ignoring one of these would connect otherwise than the user has laid down."""
CRITERIA = {"all": 0, "canonical": 0, "final": 0, "exec": 1, "host": 1, "originalhost": 1, "user": 1, "localuser": 1}
"""Of Match, and how many words follow; paramiko takes one that it does not know for met."""
KNOWN_HOSTS = {
    "userknownhostsfile": "~/.ssh/known_hosts ~/.ssh/known_hosts2",
    "globalknownhostsfile": "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
}
HARMLESS = ("no", "none", "any", "default")
BLOCK = re.compile(r"\s*(host|match)\b", re.IGNORECASE)
INCLUDE = re.compile(r"\s*include(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
NO_COMMAND = re.compile(r'\s*proxycommand(?:\s*=\s*|\s+)"?none"?\s*', re.IGNORECASE)
SEVERAL = re.compile(r"(\s*(?:user|global)knownhostsfile)(?:\s*=\s*|\s+)(.+?)\s*", re.IGNORECASE)
COMMENT = re.compile(r"\s+#[^\"]*")
RAW = re.compile(r"\s*(?:match|\w+command)\b", re.IGNORECASE)
"""Lines whose rest is for a shell, which has comments of its own."""
VARIABLE = re.compile(r"\$\{(\w+)\}")
SAFE = re.compile(r"[A-Za-z0-9_.:%\[\]@+][A-Za-z0-9_.:%\[\]@+\-]*")
JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:\[\]@]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True, slots=True)
class Way:
    """Where a host is, and how to get and log in there.

    identities: private keys that may be tried; one that is not there is passed over. uses_agent: as well as these.
    certificate: of one of the identities. known_hosts: all count; empty: the default.
    proxy_command: a shell's command whose input and output are the connection.
    via: the host through which this one is reached.
    """

    host: str
    port: int
    user: str
    identities: tuple[Path, ...] = ()
    certificate: Path | None = None
    uses_agent: bool = False
    known_hosts: tuple[Path, ...] = ()
    bind_address: str | None = None
    bind_interface: str | None = None
    proxy_command: str | None = None
    via: Way | None = None


class _Config(paramiko.SSHConfig):  # type: ignore[misc]
    """paramiko's, which leaves the % in values to us: it knows neither %% nor a port or user from elsewhere."""

    TOKENS_BY_CONFIG_KEY: ClassVar[dict[str, list[str]]] = {
        "hostname": ["%h"],
        "match-exec": paramiko.SSHConfig.TOKENS_BY_CONFIG_KEY["match-exec"],
    }

    def _tokenize(self, config: Any, target_hostname: str, key: str, value: str) -> str:
        """paramiko's asks for the name of this process' user first, who need not have one (a container's number)."""
        if key == "hostname":
            return value.replace("%h", target_hostname)
        return str(super()._tokenize(config, target_hostname, key, value))

    def _does_match(
        self, criteria: list[dict[str, Any]], host: str, canonical: bool, final: bool, options: Any
    ) -> Sequence[object]:
        """`exec` is ours: paramiko's way of running it reads our standard input, which may be what is to be sent."""
        plain: list[dict[str, Any]] = []
        for criterion in criteria:
            if criterion["type"] != "exec":
                plain.append(criterion)
                continue
            if plain and not super()._does_match(plain, host, canonical, final, options):
                return ()
            command = self._tokenize(options, host, "match-exec", criterion["param"])
            if self._should_fail(_succeeds(command), criterion):
                return ()
        return super()._does_match(plain, host, canonical, final, options) if plain else criteria


def _succeeds(command: str) -> bool:
    words = ["/bin/sh", "-c", command]
    quiet = subprocess.DEVNULL
    return subprocess.run(words, stdin=quiet, stdout=quiet, check=False, env=environment()).returncode == 0


def way_to(host: str, port: int | None, user: str | None, which: str, *, depth: int = 0) -> Way:
    """What the configuration says of a host; port and user, where given, win.

    which: a file, or "default": the user's, then the system's.

    Raises: ConfigurationError naming keyword and host.
    """
    found = _lookup(host, port, user, which)
    unsupported = sorted(key for key in REFUSED & set(found) if str(found[key]).lower() not in HARMLESS)
    if unsupported:
        raise ConfigurationError(
            f"ssh_config: {', '.join(unsupported)} of host {host!r} cannot be followed here; leave the configuration"
            f" out with ssh_config='{NONE}', and give what is needed as options"
        )
    name, number = str(found["hostname"]), port or _port(found, host)
    login = user or str(found.get("user") or _local_user())
    tokens = {"%": "%", "h": name, "n": host, "p": str(number), "r": login, "u": _local_user(), "d": _home()}
    if not login:
        raise ConfigurationError("user: must be given, since the user of this process has no name")
    command, jumps = _detour(found)
    return Way(
        host=name,
        port=number,
        user=login,
        identities=_identities(found, tokens),
        certificate=_path(found.get("certificatefile"), tokens),
        uses_agent=_uses_agent(found),
        known_hosts=tuple(_known_hosts(found, tokens)),
        bind_address=found.get("bindaddress"),
        bind_interface=found.get("bindinterface"),
        proxy_command=_command(command, tokens) if command else None,
        via=_via(jumps, which, depth) if jumps else None,
    )


def check(which: str) -> None:
    """Raises: ConfigurationError for a file that cannot be read."""
    _read(which)


def files(which: str) -> list[Path]:
    """The files that are read, without those they include."""
    return [_expanded(path) for path in ([USER_FILE, SYSTEM_FILE] if which == DEFAULT else [which])]


# -- what the keywords say


def _port(found: Mapping[str, Any], host: str) -> int:
    value = str(found.get("port", SSH_PORT))
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise ConfigurationError(f"ssh_config: Port {value!r} of host {host!r} is no port")
    return int(value)


def _identities(found: Mapping[str, Any], tokens: Mapping[str, str]) -> tuple[Path, ...]:
    given = [_path(value, tokens) for value in found.get("identityfile", ())]
    named = [path for path in given if path is not None]
    return tuple(named if given else [Path(_home(), ".ssh", name) for name in IDENTITIES])


def _uses_agent(found: Mapping[str, Any]) -> bool:
    only, agent = (str(found.get(key, "")).lower() for key in ("identitiesonly", "identityagent"))
    return only != "yes" and agent != NONE


def _known_hosts(found: Mapping[str, Any], tokens: Mapping[str, str]) -> Iterator[Path]:
    """The user's, then the system's. Of a keyword with `none`, no host is known: not those of the default files."""
    for keyword, defaults in KNOWN_HOSTS.items():
        for word in _words(str(found.get(keyword, defaults))):
            yield _path(word, tokens) or Path(os.devnull)


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ConfigurationError(f"ssh_config: {value!r}: {error}") from None


def _path(value: object, tokens: Mapping[str, str]) -> Path | None:
    if value is None or str(value).lower() == NONE:
        return None
    return _expanded(VARIABLE.sub(_variable, _filled(str(value), tokens)))


def _variable(found: re.Match[str]) -> str:
    try:
        return os.environ[found[1]]
    except KeyError:
        raise ConfigurationError(f"ssh_config: ${{{found[1]}}} is not in the environment") from None


def _command(command: str, tokens: Mapping[str, str]) -> str:
    """A shell reads it: host and user may hold nothing that a shell takes for its own (CVE-2023-51385)."""
    for token in ("h", "n", "r"):
        if f"%{token}" in command and not SAFE.fullmatch(tokens[token]):
            raise ConfigurationError(f"ssh_config: {tokens[token]!r} cannot be passed to a ProxyCommand")
    return _filled(command, tokens)


def _filled(value: str, tokens: Mapping[str, str]) -> str:
    def fill(found: re.Match[str]) -> str:
        if found[1] not in tokens:
            raise ConfigurationError(f"ssh_config: %{found[1]} in {value!r} cannot be followed")
        return tokens[found[1]]

    return re.sub(r"%(.)", fill, value)


def _detour(found: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """ProxyCommand and ProxyJump compete: the first counts. `ProxyCommand none` is one, `ProxyJump none` is not."""
    for key in found:
        value = str(found[key])
        if key == "proxycommand":
            return (None if value.lower() == NONE else value), []
        if key == "proxyjump" and value.lower() != NONE:
            return None, [word.strip() for word in value.split(",")]
    return None, []


def _via(jumps: Sequence[str], which: str, depth: int) -> Way:
    """The first host is reached as its own configuration says, each later one through the one before."""
    if depth >= DEPTH_MAX:
        raise ConfigurationError("ssh_config: ProxyJump leads in a circle")
    way: Way | None = None
    for word in jumps:
        found = JUMP.fullmatch(word)
        if found is None:
            raise ConfigurationError(f"ssh_config: ProxyJump {word!r} is no [user@]host[:port]")
        port = int(found["port"]) if found["port"] else None
        next_way = way_to(found["host"].strip("[]"), port, found["user"], which, depth=depth + 1)
        way = next_way if way is None else _through(next_way, way)
    assert way is not None
    return way


def _through(way: Way, via: Way) -> Way:
    return replace(way, bind_address=None, bind_interface=None, proxy_command=None, via=via)


# -- reading


def _read(which: str) -> list[str]:
    """All lines that count."""
    lines: list[str] = []
    for path in files(which):
        lines += [*_lines(path, must_be=which != DEFAULT), "Host *"]
    return lines


def _lookup(host: str, port: int | None, user: str | None, which: str) -> Mapping[str, Any]:
    """What is given stands in front of all lines, as for ssh: `Match user` and the % of `Match exec` see it, too."""
    lines = _read(which)
    unsafe = [word for word in (host, user or host) if not SAFE.fullmatch(word)]
    if unsafe and any(re.match(r"\s*match\b.*\bexec\b", line, re.IGNORECASE) for line in lines):
        raise ConfigurationError(f"ssh_config: {unsafe[0]!r} cannot be passed to a Match exec")
    given = {"User": (user or "").strip(), "Port": port}
    lines[:0] = [f"{keyword} {value}" for keyword, value in given.items() if value]
    config = _Config()
    try:
        config.parse(lines)
        found: Mapping[str, Any] = config.lookup(host)
    except Exception as error:  # noqa: BLE001 - it raises many kinds for a file that it cannot read
        raise ConfigurationError(f"ssh_config: cannot be read: {error}") from None
    return found


def _lines(path: Path, *, must_be: bool, depth: int = 0) -> Iterator[str]:
    """The lines of a file and of those it includes; behind an included one, the block goes on that it stands in."""
    if depth > DEPTH_MAX:
        raise ConfigurationError(f"ssh_config: {path} includes itself")
    block = "Host *"
    for line in map(_plain, _text(path, must_be=must_be).splitlines()):
        included = INCLUDE.fullmatch(line)
        if included is None:
            if BLOCK.match(line):
                block = line
                _check_match(line, path)
            yield line
            continue
        more = [
            found for name in _included(included[1], path) for found in _lines(name, must_be=False, depth=depth + 1)
        ]
        if block.split() != ["Host", "*"] and any(BLOCK.match(found) for found in more):
            raise ConfigurationError(f"ssh_config: {path}: Include of Host or Match blocks within a block")
        yield from more
        yield block


def _plain(line: str) -> str:
    """Without a comment behind it. What is quoted, paramiko keeps: an unquoted ProxyCommand none is as none at all. It
    takes off the outermost quotes: words that may be quoted each get a pair for it."""
    if NO_COMMAND.fullmatch(line):
        return 'ProxyCommand "none"'
    plain = line if RAW.match(line) else COMMENT.sub("", line)
    several = SEVERAL.fullmatch(plain)
    return plain if several is None else several.expand(r'\1 "\2"')


def _check_match(line: str, path: Path) -> None:
    words = line.replace("=", " ").split()
    if words[0].lower() != "match":
        return
    try:
        words = shlex.split(line.strip()[len("match") :].lstrip(" =\t"))
    except ValueError as error:
        raise ConfigurationError(f"ssh_config: {path}: {line.strip()!r}: {error}") from None
    while words:
        name, *words = words
        if name.lstrip("!").lower() not in CRITERIA:
            raise ConfigurationError(f"ssh_config: {path}: Match {name} cannot be followed here")
        words = words[CRITERIA[name.lstrip("!").lower()] :]


def _included(words: str, path: Path) -> Iterator[Path]:
    base = Path(path.parent if str(path).startswith("/etc/") else os.path.join(_home(), ".ssh"))
    for word in words.replace('"', "").split():
        yield from map(Path, sorted(glob.glob(str(base / _expanded(word)))))


def _text(path: Path, *, must_be: bool) -> str:
    """As for ssh, nobody but its owner or root may have written it: it says what is run."""
    try:
        status = path.stat()
        if os.name != "nt" and (status.st_uid not in (0, os.getuid()) or stat.S_IMODE(status.st_mode) & 0o022):
            raise ConfigurationError(f"ssh_config: {path} may be written by others")
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        if must_be:
            raise ConfigurationError(f"ssh_config: {path} is not there") from None
        return ""
    except (OSError, ValueError) as error:  # ValueError: no path at all
        raise ConfigurationError(f"ssh_config: {str(path)!r}: {getattr(error, 'strerror', error)}") from error


def _local_user() -> str:
    """Empty where this process runs under a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):
        return ""


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))


def _home() -> str:
    return os.path.expanduser("~")
