"""An FTP server in memory."""

from __future__ import annotations

from typing import Any

from iot.transfer.errors import LinkLost, NotFound
from iot.transfer.model import RemoteFile

__all__ = ["FILE", "FOLDER", "Data", "Server"]

FOLDER, FILE = 0o040000, 0o100000


class Server:
    """Files, folders and what is refused; every command is noted."""

    def __init__(self) -> None:
        self.files: dict[bytes, bytearray] = {}
        self.folders = {b"/up"}
        self.features: dict[str, str] = {}
        self.refuse: dict[str, str] = {}
        self.asked: list[str] = []
        self.data: Any = None
        self.waited_s: float | None = None
        self.address = type("Address", (), {"timeout_s": 60.0})
        self.loses: BaseException | None = None

    # -- as a connection

    def open(self) -> None: ...

    def abort(self) -> None:
        self.asked.append("abort")

    def goodbye(self) -> None:
        self.asked.append("goodbye")

    def described(self) -> str:
        return "in memory"

    def ask(self, command: str, path: bytes = b"") -> tuple[bool, str]:
        self.asked.append(f"{command} {path.decode()}".strip())
        refused = self.refuse.get(self.asked[-1]) or self.refuse.get(command)
        if refused is not None:
            return refused[0] in "123", refused
        if command == "DELE":
            return (True, "250") if self.files.pop(path, None) is not None else (False, "550 No such file")
        if command == "MKD":
            self.folders.add(path)
        if command == "RNTO":
            self.files[path] = self.files.pop(self.source)
        if command == "RNFR":
            self.source = path
        return True, "250 ok"

    def command(self, command: str, path: bytes = b"") -> str:
        return self.ask(command, path)[1]

    def timeout_for(self, seconds: float) -> None:
        self.waited_s = seconds

    def transfer(self, command: str, path: bytes, start: int = 0) -> Any:
        self.asked.append(f"{command} {path.decode()} {start}")
        if self.loses is not None:
            raise self.loses
        self.data = Data(self, command, path, start)
        return self.data

    # -- as its paths

    def size(self, path: bytes) -> int | None:
        return len(self.files[path]) if path in self.files else None

    def is_folder(self, path: bytes) -> bool:
        return path in self.folders

    def stat(self, path: bytes) -> RemoteFile | None:
        if path in self.folders:
            return RemoteFile(None, mode=FOLDER)
        return RemoteFile(len(self.files[path]), mode=FILE) if path in self.files else None

    def refusal(self, path: bytes, reply: str, what: str) -> Exception:
        return NotFound(f"{what}: {reply}")


class Data:
    def __init__(self, server: Server, command: str, path: bytes, start: int) -> None:
        self.server, self.broken, self.ended, self.fails = server, 0, 0, None
        if command == "STOR":
            content = server.files.setdefault(path, bytearray())
            del content[start:]
        self.content, self.at = server.files.get(path, bytearray()), start

    def send(self, block: bytes) -> None:
        if self.server.refuse.get("send"):
            raise LinkLost("cut")
        self.content += block

    def receive(self) -> bytes:
        block = bytes(self.content[self.at : self.at + 4])
        self.at += len(block)
        return block

    def done(self) -> str:
        self.ended += 1
        return "226"

    def break_off(self) -> None:
        self.broken += 1
