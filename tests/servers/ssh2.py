"""A server on the ssh2 library for node: the classic open modes alone, answers out of order, no extension at all."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import tarfile
import urllib.request
from functools import lru_cache
from pathlib import Path

from conditions import missing
from servers.base import ProcessServer, program

__all__ = ["Ssh2"]

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / ".test-node"
FETCH_S = 60.0
PINNED = {
    "ssh2/-/ssh2-1.17.0.tgz": (
        "wPldCk3asibAjQ/kziWQQt1Wh3PgDFpC0XpwclzKcdT1vql6KeYxf5LIt4nlFkUeR8WuphYMKqUA56X4rjbfgQ=="
    ),
    "asn1/-/asn1-0.2.6.tgz": (
        "ix/FxPn0MDjeyJ7i/yoHGFt/EX6LyNbxSEhPPXODPL+KB0VPk86UYfL0lMdy+KCnv+fmvIzySwaK5COwqVbWTQ=="
    ),
    "safer-buffer/-/safer-buffer-2.1.2.tgz": (
        "YZo3K82SD7Riyi0E1EQPojLz7kpepnSQI9IyPbHHg1XXXevb5dJI7tpyN2ADxGcQbHG7vcyRHk0cbwqcQriUtg=="
    ),
    "bcrypt-pbkdf/-/bcrypt-pbkdf-1.0.2.tgz": (
        "qeFIXtP4MSoi6NLqO12WfqARWWuCKi2Rn/9hJLEmtB5yTNr9DqFWkJRCf2qShWzPeAMRnOgCrq0sg/KLv5ES9w=="
    ),
    "tweetnacl/-/tweetnacl-1.0.3.tgz": (
        "6rt+RN7aOi1nGMyC4Xa5DdYiukl2UWCbcJft7YhxReBGQD7OAM8Pbxw6YMo4r2diNEA8FEmu32YOn9rhaiE5yw=="
    ),
}
"""The library and what it needs, by their address at the registry, with the SHA-512 of each."""


@lru_cache(maxsize=1)
def modules() -> Path:
    """The folder of the library; fetched once for this checkout, without npm, which brings hundreds of packages."""
    folder = PACKAGES / "node_modules"
    PACKAGES.mkdir(exist_ok=True)
    with (PACKAGES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for address, digest in PINNED.items():
            place = folder / address.partition("/")[0]
            if not (place / "package.json").exists():
                unpack(fetch(address, digest), place)
    return folder


def fetch(address: str, digest: str) -> bytes:
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    try:
        with urllib.request.urlopen(f"{registry}/{address}", timeout=FETCH_S) as answer:
            content: bytes = answer.read()
    except OSError as error:
        missing(f"{address} cannot be fetched from {registry}: {error}")
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    assert found == digest, f"{address} from {registry} is another one: SHA-512 {found}"
    return content


def unpack(content: bytes, place: Path) -> None:
    """Without the folder that everything in it lies in, under its own name only when it is whole."""
    fresh = place.with_name(f"{place.name}.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            target = fresh / member.name.partition("/")[2]
            assert fresh in target.parents or target == fresh, member.name
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read())
    fresh.rename(place)


class Ssh2(ProcessServer):
    """Its sessions are not processes, so cutting them restarts it."""

    name = "ssh2"
    user = "device"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.password = secrets.token_urlsafe(12)
        self._program = program("node", "nodejs")
        self._modules = modules()

    def command(self) -> list[str]:
        keys = [str(key) for key in self.keys()]
        script = str(HERE / "ssh2_server.js")
        return [self._program, script, str(self.root), self.host, str(self.port), self.user, *keys]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "NODE_PATH": str(self._modules), "SFTP_PASSWORD": str(self.password)}

    def drop_connections(self) -> None:
        self.kill()
        self.start()
