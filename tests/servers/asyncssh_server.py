"""asyncssh's SFTP server, in a process of its own: this file is also the program that the process runs."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import sys
from pathlib import Path

from servers.base import ProcessServer

__all__ = ["AsyncSSH"]


class AsyncSSH(ProcessServer):
    """Its sessions are not processes, so cutting them restarts it."""

    name = "asyncssh"
    user = "device"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.password = secrets.token_urlsafe(12)

    def command(self) -> list[str]:
        arguments = [str(self.port), self.user, str(self.root), *map(str, self.keys())]
        return [sys.executable, __file__, *arguments]

    def environment(self) -> dict[str, str]:
        tests = str(Path(__file__).resolve().parents[1])
        return {**os.environ, "ASYNCSSH_PASSWORD": str(self.password), "PYTHONPATH": tests}

    def drop_connections(self) -> None:
        self.kill()
        self.start()


async def serve(port: int, user: str, root: str, keys: list[str]) -> None:
    import asyncssh

    password = os.environ["ASYNCSSH_PASSWORD"]

    class Login(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, given: str) -> bool:
            return username == user and hmac.compare_digest(given.encode(), password.encode())

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
            super().__init__(channel, chroot=root.encode())

    await asyncssh.listen(
        "127.0.0.1", port, server_host_keys=keys, server_factory=Login, sftp_factory=Files, allow_scp=False
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
