"""A fake FTP server that misbehaves as told: what no real one can be made to do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ScriptedFTP"]

Answer = str | bytes | Callable[["ScriptedFTP", socket.socket], None] | None


class ScriptedFTP:
    """answers: verb -> reply, or what to do; None: silence. Other verbs are answered as an ordinary server does.

    commands: all that was received. stored: what came over data connections.
    """

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.commands: list[str] = []
        self.stored = bytearray()
        self.size = 0
        self.host = "127.0.0.1"
        self._listener = socket.create_server((self.host, 0))
        self._data = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self.data_port: int = self._data.getsockname()[1]
        self._sessions: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for sock in (self._listener, self._data, *self._sessions):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                session, _ = self._listener.accept()
                self._sessions.append(session)
                threading.Thread(target=self._talk, args=(session,), daemon=True).start()

    def _talk(self, session: socket.socket) -> None:
        with contextlib.suppress(OSError), session.makefile("rb") as lines:
            self._answer(session, self.answers.get("welcome", "220 ready"))
            for line in lines:
                command = line.decode("latin-1").rstrip("\r\n")
                self.commands.append(command)
                verb = command.partition(" ")[0].upper()
                self._answer(session, self.answers[verb] if verb in self.answers else self._usual(verb))
        session.close()

    def _answer(self, session: socket.socket, answer: Answer) -> None:
        if callable(answer):
            answer(self, session)
        elif answer is not None:
            session.sendall(answer if isinstance(answer, bytes) else f"{answer}\r\n".encode("latin-1"))

    def _usual(self, verb: str) -> Answer:
        high, low = divmod(self.data_port, 256)
        usual: dict[str, Answer] = {
            "USER": "331 password",
            "PASS": "230 in",
            "FEAT": "211-Features\r\n SIZE\r\n REST STREAM\r\n211 End",
            "TYPE": "200 ok",
            "NOOP": "200 ok",
            "PWD": '257 "/"',
            "CWD": "250 ok",
            "PASV": f"227 Entering Passive Mode (127,0,0,1,{high},{low})",
            "SIZE": f"213 {self.size}",
            "REST": "350 ok",
            "STOR": _store,
            "DELE": "550 No such file",
            "RNFR": "350 ok",
            "RNTO": "250 ok",
        }
        return usual.get(verb, "502 not implemented")


def _store(server: ScriptedFTP, session: socket.socket) -> None:
    session.sendall(b"150 go on\r\n")
    data, _ = server._data.accept()
    with data:
        while block := data.recv(65536):
            server.stored += block
    server.size = len(server.stored)
    session.sendall(b"226 Transfer complete\r\n")
