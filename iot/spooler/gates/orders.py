"""What a command has told an outbox or inbox to do: `stop`, `start`, `suspend`, `resume`. It outlives the process.

A stopped outbox is neither scanned nor sent, a suspended one is scanned and not sent; an upload in flight is suspended
at its offset. Of a suspended inbox nothing is fetched, but what has been fetched is published; nothing is done for a
stopped one. The record is a file in the state directory, written before anything is changed. It goes by the path of
the outbox, of an inbox also by its remote folder, so that one with another name, or with a new journal, stays as it was
told. `enabled = false` in the configuration comes before all of this: such a one has no agent that could start it.
"""

from __future__ import annotations

import enum
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from iot.spooler.gates.gates import FREE, Gates, Held
from iot.spooler.naming import shown
from iot.spooler.queue.policy import Admission
from iot.transfer.beneath import DIRECTORY, opener

__all__ = ["Command", "Order", "Orders", "order_after"]

log = logging.getLogger(__name__)

FILE = "orders.json"
OUTBOXES, INBOXES = "outboxes", "inboxes"
FRESH = "orders.new"
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
MAX_BYTES = 1 << 20
Key = tuple[str, str]
"""Outbox or inbox, and which."""


class Order(str, enum.Enum):
    """STARTED: none, or it was undone."""

    STARTED = "started"
    SUSPENDED = "suspended"
    STOPPED = "stopped"


class Command(str, enum.Enum):
    """The word on the command line."""

    START = "start"
    STOP = "stop"
    SUSPEND = "suspend"
    RESUME = "resume"
    FLUSH = "flush"


ORDERS: dict[tuple[Order, Command], Order] = {
    (Order.STARTED, Command.STOP): Order.STOPPED,
    (Order.STARTED, Command.SUSPEND): Order.SUSPENDED,
    (Order.STARTED, Command.START): Order.STARTED,
    (Order.STARTED, Command.RESUME): Order.STARTED,
    (Order.SUSPENDED, Command.STOP): Order.STOPPED,
    (Order.SUSPENDED, Command.SUSPEND): Order.SUSPENDED,
    (Order.SUSPENDED, Command.START): Order.STARTED,
    (Order.SUSPENDED, Command.RESUME): Order.STARTED,
    (Order.STOPPED, Command.STOP): Order.STOPPED,
    (Order.STOPPED, Command.SUSPEND): Order.STOPPED,
    (Order.STOPPED, Command.START): Order.STARTED,
    (Order.STOPPED, Command.RESUME): Order.STOPPED,
}
"""What is stopped is started by `start` alone."""


def order_after(order: Order, command: Command) -> Order:
    """The order that counts after a command. Raises: ValueError for a command that is none."""
    try:
        return ORDERS[order, command]
    except KeyError:
        raise ValueError(f"{command.value} is no order") from None


class Box(Protocol):
    """An outbox or an inbox. `start` after `stop` looks at everything anew."""

    number: int
    stopped: bool

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Orders:
    """The orders of an agent's outboxes and inboxes, and the gate that follows them.

    outboxes: the path of each, by number. inboxes: what tells them apart, by number.
    """

    def __init__(self, state_dir: Path, outboxes: Mapping[int, Path], inboxes: Mapping[int, str] | None = None) -> None:
        self._path = state_dir / FILE
        self._keys: dict[int, Key] = {number: (OUTBOXES, str(path)) for number, path in outboxes.items()}
        self._keys |= {number: (INBOXES, words) for number, words in (inboxes or {}).items()}
        self._orders = self._read()

    def order(self, number: int) -> Order:
        return self._orders.get(self._keys[number], Order.STARTED)

    def take(self, command: Command, numbers: list[int]) -> None:
        """Durable when it returns. Raises: OSError; then nothing has changed."""
        orders = dict(self._orders)
        for number in numbers:
            orders[self._keys[number]] = order_after(self.order(number), command)
        orders = {key: order for key, order in orders.items() if order is not Order.STARTED}
        if orders != self._orders:
            self._write(orders)
            self._orders = orders

    def none_for(self) -> list[int]:
        """The outboxes and inboxes without an order."""
        return [number for number in self._keys if self.order(number) is Order.STARTED]

    def follow(self, boxes: Sequence[Box], gates: Gates) -> None:
        """Stop and start them; what has an order is not flushed any more. Raises: LocalStateError."""
        for box in boxes:
            order = self.order(box.number)
            if order is not Order.STARTED:
                gates.end_flush(box.number)
            if order is not Order.STOPPED:
                box.start()
            elif not box.stopped:
                box.stop()

    # -- as a gate

    def look(self, wall: float, now: float) -> float:
        return float("inf")  # a command does not come unseen

    def of(self, number: int, *, flushed: bool) -> Held:
        """A flush does not overrule it."""
        order = self.order(number)
        return FREE if order is Order.STARTED else Held(Admission.NONE, f"{order.value} by command")

    def close(self) -> None:
        pass  # it is written already

    # -- inside

    def _read(self) -> dict[Key, Order]:
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read(MAX_BYTES))
            kinds = {OUTBOXES: found[OUTBOXES], INBOXES: found.get(INBOXES, {})}
            return {(kind, path): Order(order) for kind, orders in kinds.items() for path, order in orders.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning(
                "orders cannot be read, all is started path=%s error=%s",
                shown(str(self._path)),
                shown(str(error)),
            )
            return {}

    def _write(self, orders: Mapping[Key, Order]) -> None:
        kinds: dict[str, dict[str, str]] = {OUTBOXES: {}, INBOXES: {}}
        for (kind, words), order in orders.items():
            kinds[kind][words] = order.value
        content = json.dumps(kinds, indent=1)
        folder = os.open(self._path.parent, DIRECTORY)
        try:
            with suppress(FileNotFoundError):
                os.unlink(FRESH, dir_fd=folder)
            with open(FRESH, "w", opener=opener(folder, CREATE)) as file:
                file.write(content + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(FRESH, self._path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)
