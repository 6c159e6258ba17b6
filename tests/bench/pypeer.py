"""The Python libraries among the peers, used as their documentation shows; a program: `pypeer.py LIBRARY KIND ...`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

AT_ONCE = 64


async def with_asyncssh(kind: str, host: str, port: int, user: str, key: str, known: str, local: str, far: str) -> None:
    import asyncssh

    login = {"username": user, "client_keys": [key], "known_hosts": known}
    async with asyncssh.connect(host, port, **login) as connection, connection.start_sftp_client() as sftp:
        if kind == "get":
            await sftp.get(far, local)
        elif kind == "put":
            await sftp.put(local, far)
        else:
            slots = asyncio.Semaphore(AT_ONCE)

            async def send(path: Path) -> None:
                async with slots:
                    await sftp.put(str(path), f"{far}/{path.name}")

            await asyncio.gather(*(send(path) for path in Path(local).iterdir()))


def with_paramiko(kind: str, host: str, port: int, user: str, key: str, known: str, local: str, far: str) -> None:
    import paramiko

    with paramiko.SSHClient() as client:
        client.load_host_keys(known)
        client.connect(host, port, user, key_filename=key, look_for_keys=False, allow_agent=False)
        sftp = client.open_sftp()
        if kind == "get":
            sftp.get(far, local)
        elif kind == "put":
            sftp.put(local, far)
        else:
            for path in Path(local).iterdir():
                sftp.put(str(path), f"{far}/{path.name}")


if __name__ == "__main__":
    library, kind, host, port, user, key, known, local, far = sys.argv[1:]
    if library == "asyncssh":
        asyncio.run(with_asyncssh(kind, host, int(port), user, key, known, local, far))
    else:
        with_paramiko(kind, host, int(port), user, key, known, local, far)
