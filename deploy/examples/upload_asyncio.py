"""Uploads in an asyncio program. The client blocks, so each call runs in a thread, and the event loop goes on.

python upload_asyncio.py today.csv yesterday.csv
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from iot.sftp.client import IoTSFTPClient, TransferError

T = TypeVar("T")


async def in_thread(client: IoTSFTPClient, call: Callable[[], T]) -> T:
    """Run a call of this client. Cancelling the task cancels the call, and returns when its thread has ended.

    One call at a time for each client: `cancel` ends whatever call the client is carrying out.
    """
    work = asyncio.create_task(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        client.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise


async def upload_all(client: IoTSFTPClient, sources: list[Path], folder: str, limit_s: float) -> list[Path]:
    """Send files one after the other, each within `limit_s` seconds; returns those that were not sent.

    What was sent of these is kept: the same call goes on from there.
    """
    left: list[Path] = []
    for source in sources:
        upload = in_thread(client, partial(client.upload, source, f"{folder}/{source.name}"))
        try:
            result = await asyncio.wait_for(upload, limit_s)
        except (TransferError, asyncio.TimeoutError) as error:
            print(f"{source}: {str(error) or 'too slow'}")
            left.append(source)
        else:
            print(f"{source}: {result.size} bytes, resumed at {result.resumed_at}")
    return left


async def main(sources: list[Path]) -> None:
    client = IoTSFTPClient("sftp.example.com", sftp_user="device", key_file="/etc/device/id_ed25519")
    try:
        await upload_all(client, sources, "/upload", limit_s=60)
    finally:
        await asyncio.to_thread(client.close)


if __name__ == "__main__":
    asyncio.run(main([Path(name) for name in sys.argv[1:]]))
