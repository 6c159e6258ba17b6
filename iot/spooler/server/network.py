"""When this device gets an address, or a cable gets a carrier again: what the kernel says over rtnetlink(7).

A try of the server is worth it then, so it need not wait for the end of its backoff. Only what is new counts: routers
announce an address again every few minutes, and a wireless interface reports its figures all the time.

Source: rtnetlink(7), netlink(7), linux/if_addr.h, linux/if_link.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

__all__ = ["AddressWatch"]

GROUP_LINK, GROUP_IPV4, GROUP_IPV6 = 0x1, 0x10, 0x100
NEW_LINK, DELETED_LINK, NEW_ADDRESS, DELETED_ADDRESS = 16, 17, 20, 21
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
OF_ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index of the interface."""
OF_LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change mask."""
ATTRIBUTE = struct.Struct("=HH")
"""struct rtattr: length, type."""
ADDRESS, LOCAL = 1, 2
LINK_SCOPE = 253
"""RT_SCOPE_LINK; RT_SCOPE_HOST is above it. Neither leads to a server elsewhere."""
TENTATIVE = 0x40
"""IFA_F_TENTATIVE: cannot be used yet; the kernel says so once it can."""
CARRIER = 0x10000
"""IFF_LOWER_UP."""
READ_BYTES = 64 * 1024
READS_MAX = 64
KNOWN_MAX = 4096
NETLINK_ROUTE = 0

Known = tuple[int, int, bytes]


class AddressWatch:
    """descriptor: readable when the kernel says something. Raises: OSError where this system has no such socket."""

    def __init__(self) -> None:
        if not hasattr(socket, "AF_NETLINK"):
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, NETLINK_ROUTE)
        try:
            self._socket.bind((0, GROUP_LINK | GROUP_IPV4 | GROUP_IPV6))
        except BaseException:
            self._socket.close()
            raise
        self.descriptor = self._socket.fileno()
        self._known: set[Known] = set()
        self._carriers: dict[int, bool] = {}

    def news(self) -> bool:
        """Read what is there -> whether a try is worth it now."""
        worth_it = False
        for _ in range(READS_MAX):
            try:
                data, sender = self._socket.recvfrom(READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._known.clear()  # messages were lost, and with them what is known
                self._carriers.clear()
                worth_it = True
                continue
            if sender[0] == 0:  # the kernel; another process may send to this socket, too
                worth_it = self._read(data) or worth_it
        return worth_it

    def close(self) -> None:
        self._socket.close()

    # -- inside

    def _read(self, data: bytes) -> bool:
        worth_it = False
        with contextlib.suppress(struct.error):  # cut short: no kernel sends that
            for kind, body in _messages(data):
                if kind in (NEW_ADDRESS, DELETED_ADDRESS):
                    worth_it = self._address(body, gone=kind == DELETED_ADDRESS) or worth_it
                elif kind in (NEW_LINK, DELETED_LINK):
                    worth_it = self._link(body, gone=kind == DELETED_LINK) or worth_it
        return worth_it

    def _address(self, body: bytes, *, gone: bool) -> bool:
        family, _, flags, scope, index = OF_ADDRESS.unpack_from(body)
        if scope >= LINK_SCOPE or flags & TENTATIVE:
            return False
        attributes = dict(_attributes(body[OF_ADDRESS.size :]))
        address = (index, family, attributes.get(LOCAL) or attributes.get(ADDRESS, b""))
        if gone:
            self._known.discard(address)
            return False
        if address in self._known:
            return False
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(address)
        return True

    def _link(self, body: bytes, *, gone: bool) -> bool:
        """A carrier that was seen to go has come back: an address that was configured by hand stays meanwhile."""
        family, _, index, flags, _ = OF_LINK.unpack_from(body)
        if family != socket.AF_UNSPEC:
            return False
        if gone:
            self._carriers.pop(index, None)
            return False
        carrier = bool(flags & CARRIER)
        before = self._carriers.get(index)
        self._carriers[index] = carrier
        return carrier and before is False


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield kind, data[at + HEADER.size : at + length]
        at += _aligned(length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            return
        yield kind, data[at + ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
