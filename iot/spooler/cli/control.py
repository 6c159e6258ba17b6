"""start, stop, suspend, resume and flush: one line to the running agent, and what it has answered."""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iot.spooler.cli.agent_of import poke, settings_in_use
from iot.spooler.cli.output import EX_FAILED, EX_OK, failed, say

if TYPE_CHECKING:
    from iot.spooler.config.settings import Settings

__all__ = ["command", "flush"]

ANSWER_S = 15
ANSWER_MAX = 1 << 20
ALREADY = {"start": "started", "resume": "started", "stop": "stopped", "suspend": "suspended"}
"""What each command makes of an outbox or inbox."""


def command(options: argparse.Namespace) -> int:
    """Ends well if every outbox and inbox is as it was told to be."""
    path = _socket(options)
    if path is None:
        return failed(options, "no agent is running", EX_FAILED)
    return _told(options, path)


def flush(options: argparse.Namespace) -> int:
    """As `command`. An agent that takes no commands gets a signal; a hold that a dead one has left is released."""
    path = _socket(options)
    if path is not None and path.exists():
        return _told(options, path)
    settings, _ = settings_in_use(options)
    if path is None and _released(settings.state_dir):
        print("no agent is running; the hold of an earlier one is released: the next tries at once")
        return EX_OK
    return _signal(options, settings)


def _signal(options: argparse.Namespace, settings: Settings) -> int:
    if options.outbox:
        return failed(options, "the agent takes no commands, so only all outboxes can be flushed", EX_FAILED)
    if not poke(settings, flush=True):
        return EX_FAILED
    print("the agent looks and sends now, whatever the schedule says")
    return EX_OK


def _socket(options: argparse.Namespace) -> Path | None:
    """Where the agent of this configuration takes commands; None where none is running."""
    from iot.spooler.state.lock import holder
    from iot.spooler.state.running import control_of, find, status_path

    asks_here = options.config is None or "IOT_SPOOLER_STATE_DIR" in os.environ
    running = None if asks_here else find(options.config, os.environ)
    if running is None:
        settings, running = settings_in_use(options)
        if running is None:
            live = status_path(options.config, settings.state_dir, os.environ)[0]
            return None if holder(settings.state_dir) is None else control_of(live)
    return control_of(Path(running.status))


def _told(options: argparse.Namespace, path: Path) -> int:
    try:
        answer = _ask(path, {"command": options.command, "outboxes": options.outbox})
    except TimeoutError:
        return failed(options, f"the agent has not answered within {ANSWER_S} s", EX_FAILED)
    except PermissionError:
        return failed(options, f"{path}: not permitted; see control.group in the configuration", EX_FAILED)
    except OSError as error:
        return failed(options, f"{path}: the agent takes no commands: {error.strerror or error}", EX_FAILED)
    if "error" in answer:
        return failed(options, str(answer["error"]), EX_FAILED)
    if options.json:
        print(json.dumps(answer))
    else:
        _say(answer)
    return EX_OK if not options.outbox or all(map(_is_done, _outboxes(answer))) else EX_FAILED


def _ask(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Raises: OSError, where nobody answers; TimeoutError."""
    line = bytearray()
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)  # the path itself may be too long
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", ANSWER_S, 0))
            agent.connect(f"/proc/self/fd/{folder}/{path.name}")  # with settimeout() it would not wait for its turn
            agent.settimeout(ANSWER_S)
            agent.sendall(json.dumps(request).encode("ascii") + b"\n")
            while not line.endswith(b"\n") and len(line) < ANSWER_MAX:
                received = agent.recv(65536)
                if not received:
                    break
                line += received
    except BlockingIOError:
        raise TimeoutError from None
    finally:
        os.close(folder)
    try:
        answer = json.loads(line)
    except ValueError:
        raise ConnectionError("it has closed the connection without an answer") from None
    return answer if isinstance(answer, dict) else {}


def _outboxes(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    inboxes = [{**inbox, "fetches": True} for inbox in answer.get("inboxes", ())]
    return [{**box, "command": answer["command"]} for box in (*answer["outboxes"], *inboxes)]


def _is_done(outbox: Mapping[str, Any]) -> bool:
    return bool(outbox["order"] == ALREADY.get(outbox["command"], "started"))


def _say(answer: Mapping[str, Any]) -> None:
    if answer["command"] == "flush" and answer.get("held"):
        say(f"the server was held: {answer['held']}")
        print("the hold is released: one try now; iot-spooler status tells what came of it")
    for outbox in _outboxes(answer):
        print(f"{outbox['name']}: {_words(outbox)}")


def _words(outbox: Mapping[str, Any]) -> str:
    order, asked = outbox["order"], outbox["command"]
    if not _is_done(outbox):
        undo = "start" if order == "stopped" else "resume"
        return f"stays {order}; `iot-spooler {undo}` ends that"
    if asked == "flush":
        return f"looked at and {'fetched' if outbox.get('fetches') else 'sent'} now, whatever the schedule says"
    was = " already" if outbox["was"] == order else ""
    why = f", but held back: {outbox['reason']}" if outbox.get("reason") else ""
    return f"{order}{was}{why}"


def _released(state_dir: Path) -> bool:
    from iot.spooler.state.held import release

    try:
        return release(state_dir)
    except OSError as error:
        say(f"cannot release the hold in {state_dir}: {error.strerror}")
        return False
