"""Identify the server: by a pinned fingerprint, or by a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

paramiko's own reader fails on a file with a marker (@revoked, @cert-authority) and supports neither patterns nor
negation. A policy in this module answers only two questions: which key types to ask for, and whether this key is the
server's.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateType,
    SSHCertPublicKeyTypes,
    load_ssh_public_identity,
)
from cryptography.hazmat.primitives.serialization.ssh import SSHCertificate

from iot.transfer.errors import ConfigurationError, HostKeyMismatch, HostKeyUnknown
from iot.transfer.givenfile import check_readable


class HostKeyPolicy(Protocol):
    def key_types(self, host: str, port: int) -> list[str]:
        """Acceptable key types, preferred ones first; empty: any."""

    def check(self, host: str, port: int, key_type: str, blob: bytes) -> None:
        """Raises: HostKeyUnknown, HostKeyMismatch."""


def fingerprint(blob: bytes) -> str:
    """In the format of ssh-keygen -lf: SHA256:<base64 without padding>."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Pinned:
    """Trusts one fingerprint and nothing else."""

    pin: str

    def key_types(self, host: str, port: int) -> list[str]:
        return []

    def check(self, host: str, port: int, key_type: str, blob: bytes) -> None:
        shown = fingerprint(blob)
        if not hmac.compare_digest(shown.encode(), self.pin.rstrip("=").encode()):
            raise HostKeyMismatch(
                f"{host} port {port} presented {key_type} {shown}, but host_key pins {self.pin}. Somebody may be"
                " intercepting the connection; if the server's key really changed, pin the new one"
            )


@dataclass(frozen=True, slots=True)
class Line:
    """One line of known_hosts, and the file it is from. marker is empty, "@revoked" or "@cert-authority"."""

    file: Path
    marker: str
    patterns: tuple[str, ...]
    key_type: str
    blob: bytes

    def matches(self, name: str) -> bool:
        hit = False
        for pattern in self.patterns:
            if _pattern_matches(pattern.removeprefix("!"), name):
                if pattern.startswith("!"):
                    return False
                hit = True
        return hit


class KnownHosts:
    """The lines of known_hosts files, all of which count; a missing one counts as empty. The first is the user's."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._lines = [line for file in files for line in _parse(file)]

    def key_types(self, host: str, port: int) -> list[str]:
        lines = [line for line in self._matching(host, port) if line.marker != "@revoked"]
        types = [line.key_type for line in lines if not line.marker]
        if any(line.marker for line in lines):
            types = [*_CERTIFICATE_TYPES, *types]
        return list(dict.fromkeys(types))

    def check(self, host: str, port: int, key_type: str, blob: bytes) -> None:
        lines = self._matching(host, port)
        for line in lines:
            if line.marker == "@revoked" and line.blob in _keys_of(blob):
                raise HostKeyMismatch(
                    f"{host} port {port} presented a key marked @revoked in {line.file}: do not connect"
                )
        if any(not line.marker and hmac.compare_digest(line.blob, blob) for line in lines):
            return
        authorities = [line.blob for line in lines if line.marker == "@cert-authority"]
        if "-cert-" in key_type and authorities:
            _check_certificate(blob, authorities, host, port)
            return
        self._refuse(host, port, key_type, blob, next((line.file for line in lines if not line.marker), None))

    def _matching(self, host: str, port: int) -> list[Line]:
        name = host.lower() if port == 22 else f"[{host.lower()}]:{port}"
        return [line for line in self._lines if line.matches(name)]

    def _refuse(self, host: str, port: int, key_type: str, blob: bytes, known_in: Path | None) -> None:
        shown = f"{key_type} {fingerprint(blob)}"
        if known_in is not None:
            raise HostKeyMismatch(
                f"{host} port {port} presented {shown}, which is not the key that {known_in} lists. Somebody may be"
                f" intercepting the connection; if the server's key really changed, remove the old one:"
                f" ssh-keygen -f {known_in} -R '{host if port == 22 else f'[{host}]:{port}'}'"
            )
        files = " or ".join(str(file) for file in self._files if file == self._files[0] or file.exists())
        raise HostKeyUnknown(
            f"{host} port {port} is not in {files}; it presented {shown}. Compare that with what the server's"
            f" operator tells you, then either pin it, host_key={fingerprint(blob)!r}, or add it:"
            f" ssh-keyscan -p {port} {host} >> {self._files[0]}"
        )


_CERTIFICATE_TYPES = (
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
)


def _parse(file: Path) -> Iterator[Line]:
    """Raises: ConfigurationError for a file that cannot be read."""
    for raw in _text(file).splitlines():
        fields = raw.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if len(fields) < 3:
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except (binascii.Error, ValueError):
            continue  # like OpenSSH, skip unreadable lines
        patterns = tuple(part if part.startswith("|") else part.lower() for part in fields[0].split(","))
        yield Line(file, marker, patterns, fields[1], blob)


def _text(file: Path) -> str:
    try:
        check_readable(file)
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigurationError(f"known_hosts: cannot read {file}: {error.strerror}") from error


def _pattern_matches(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        try:
            _, _, salt, digest = pattern.split("|")
            wanted = base64.b64decode(digest)
            key = base64.b64decode(salt)
        except (ValueError, binascii.Error):
            return False
        return hmac.compare_digest(hmac.new(key, name.encode(), hashlib.sha1).digest(), wanted)
    escaped = pattern.replace("[", "[[]")  # only * and ? are special in known_hosts
    return fnmatch.fnmatchcase(name, escaped)


def _certificate(blob: bytes) -> SSHCertificate | None:
    size = int.from_bytes(blob[:4], "big")
    try:
        identity = load_ssh_public_identity(blob[4 : 4 + size] + b" " + base64.b64encode(blob))
    except Exception:  # noqa: BLE001 - cryptography raises a dozen kinds; an unreadable blob is not a certificate
        return None
    return identity if isinstance(identity, SSHCertificate) else None


def _keys_of(blob: bytes) -> tuple[bytes, ...]:
    """What a revocation may list: the key; for a certificate also the key in it and the key that signed it."""
    certificate = _certificate(blob)
    return (blob, _blob(certificate.public_key()), _blob(certificate.signature_key())) if certificate else (blob,)


def _blob(key: SSHCertPublicKeyTypes) -> bytes:
    text = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(text.split()[1])


def _check_certificate(blob: bytes, authorities: list[bytes], host: str, port: int) -> None:
    """Check a host certificate: signed by a listed authority, for this host, valid now. Raises: HostKeyMismatch."""
    certificate = _certificate(blob)
    reason = "cannot be read"
    if certificate is not None:
        reason = _certificate_fault(certificate, authorities, host)
    if reason:
        raise HostKeyMismatch(f"{host} port {port} presented a host certificate that {reason}")


def _certificate_fault(certificate: SSHCertificate, authorities: list[bytes], host: str) -> str:
    try:
        certificate.verify_cert_signature()
    except InvalidSignature:
        return "has an invalid signature"
    if _blob(certificate.signature_key()) not in authorities:
        return "is not signed by any listed @cert-authority"
    if certificate.type is not SSHCertificateType.HOST:
        return "is not a host certificate"
    if not certificate.valid_after <= time.time() < certificate.valid_before:
        return "is not valid now (is this device's clock correct?)"
    principals = [name.decode("utf-8", "replace").lower() for name in certificate.valid_principals]
    if principals and not any(fnmatch.fnmatchcase(host.lower(), name) for name in principals):
        return f"is for {', '.join(principals)}"
    return "has critical options" if certificate.critical_options else ""
