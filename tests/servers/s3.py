"""An SFTP gateway to an object store: rclone's SFTP server over moto's S3 server, both on loopback.

Without cache it is what S3-backed services are: a file is written once from its start; a write elsewhere is refused.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from servers.base import HOST, START_S, STOP_S, free_port
from servers.guard import Guard
from servers.rclone import Rclone

__all__ = ["S3Gateway"]

BUCKET = "device-uploads"
KEY = "testing"


class S3Gateway(Rclone):
    """cache: "off" refuses resume, "writes" takes any write into a local file first."""

    name = "s3"

    def __init__(self, root: Path, *, cache: str = "off") -> None:
        super().__init__(root, cache=cache)
        self.store_port = free_port()
        self.store: subprocess.Popen[bytes] | None = None
        self._store_guard: Guard | None = None

    def remote(self) -> str:
        return f"store:{BUCKET}"

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.store_port}"

    def environment(self) -> dict[str, str]:
        store = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": self.endpoint,
            "ACCESS_KEY_ID": KEY,
            "SECRET_ACCESS_KEY": KEY,
            "REGION": "us-east-1",
            "FORCE_PATH_STYLE": "true",
        }
        settings = {f"RCLONE_CONFIG_STORE_{name}": value for name, value in store.items()}
        settings["RCLONE_STREAMING_UPLOAD_CUTOFF"] = "16Mi"  # moto refuses streamed multipart; held in memory per file
        return super().environment() | settings

    def start(self) -> None:
        if self.store is None:
            self._start_store()
        super().start()

    def _start_store(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.store_port)]
        with (self.state / "store.log").open("ab") as log:
            self.store = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=super().environment()
            )
        self._store_guard = Guard(self.store.pid)
        end = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if time.monotonic() > end or self.store.poll() is not None:
                    raise
            time.sleep(0.05)
        self._client().create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        super().stop()
        store, self.store = self.store, None
        if store is not None and self._store_guard is not None:
            self._store_guard.dismiss()
            store.kill()
            store.wait(STOP_S)

    def _client(self) -> Any:
        import boto3  # type: ignore[import-untyped,unused-ignore]

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=KEY,
        )

    def content(self, relative: str) -> bytes | None:
        client = self._client()
        try:
            return bytes(client.get_object(Bucket=BUCKET, Key=relative)["Body"].read())
        except client.exceptions.NoSuchKey:
            return None

    def names(self) -> list[str]:
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))
