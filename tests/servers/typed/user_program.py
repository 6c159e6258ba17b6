"""A program as a user of the library writes it: it passes `mypy --strict`, and it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from iot.folder import FolderClient
from iot.ftp import FTPClient
from iot.sftp.client import (
    AuthenticationError,
    EmbeddedServer,
    Failure,
    IoTSFTPClient,
    NotFound,
    Progress,
    Proof,
    RemoteEntry,
    TransferResult,
    TransientError,
    TreeResult,
    UploadJob,
    Verify,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from iot.sftp.client import ClientKeywords

log = logging.getLogger("user")


def connected(server: EmbeddedServer, **options: Unpack[ClientKeywords]) -> IoTSFTPClient:
    """Options pass through a function of the user's with their types."""
    options.setdefault("host_key", server.host_key)
    options.setdefault("attempts", 2)
    return IoTSFTPClient(server.host, server.port, server.user, server.password, **options)


def told(progress: Progress) -> None:
    log.info("%s: %.0f %%", progress.path, 100 * progress.done_bytes / max(progress.total_bytes, 1))


def send(client: IoTSFTPClient, source: Path) -> TransferResult | None:
    try:
        return client.upload(source, f"/upload/{source.name}", progress=told, sha256=True)
    except TransientError as error:
        log.warning("later: %s", error)
    except AuthenticationError as error:
        log.error("never: %s", error)
    return None


def send_all(client: IoTSFTPClient, sources: list[Path]) -> tuple[int, list[str]]:
    def jobs() -> Iterator[UploadJob]:
        for number, source in enumerate(sources):
            yield UploadJob(source, f"/upload/{source.name}", key=number, priority=number)

    sent_bytes, failed = 0, []
    for outcome in client.upload_many(jobs()):
        if isinstance(outcome, Failure):
            failed.append(f"{outcome.source}: {outcome.error}")
        else:
            sent_bytes += outcome.sent_bytes
    return sent_bytes, failed


def mirror(client: IoTSFTPClient, folder: Path) -> list[str]:
    planned: TreeResult = client.sync(folder, "/mirror", prune=True, dry_run=True)
    done = client.sync(folder, PurePosixPath("/mirror"), prune=True)
    assert len(planned.plan.steps) == len(done.plan.steps)
    return [f"{failed.step.dest}: {failed.error}" for failed in done.failed]


def described(entry: RemoteEntry) -> str:
    return f"{entry.name} {entry.file.size or 0:d} {entry.is_folder}"


def look(client: IoTSFTPClient) -> list[str]:
    names = client.list_files("/upload", "*.csv")
    if names is None:
        raise SystemExit(str(client.last_error))
    try:
        size = client.stat("/upload/missing").size
    except NotFound:
        size = None
    assert size is None
    return [described(entry) for entry in client.scan("/upload")] + names


def elsewhere(folder: Path, state: Path) -> None:
    """Other destinations have the same methods."""
    with FolderClient(folder, state_dir=state, proof="tail", connections=2) as usb:
        if not usb.upload_file(folder / "a.csv", "copy.csv", resume=False):
            raise SystemExit(str(usb.last_error))
        usb.download_file("copy.csv", folder / "back.csv", sha256=True)
    FTPClient("ftp.example.com", 2121, "device", "secret", tls="implicit", certificate="ab" * 32).close()
    FTPClient("ftp.example.com", tls=False, timeout_s=5).close()


def main(folder: Path, state: Path) -> list[str]:
    sources = [folder / "a.csv", folder / "b.csv"]
    for source in sources:
        source.write_text(source.name * 1000)
    with EmbeddedServer(folder / "remote") as server:
        options: ClientKeywords = {
            "proof": "full",
            "verify": Verify.TAIL,
            "state_dir": state,
            "ciphers": ["aes128-ctr"],
        }
        with connected(server, **options) as client:
            result = send(client, sources[0])
            assert result is not None
            assert result.proof is Proof.FULL
            sent_bytes, failed = send_all(client, sources)
            assert sent_bytes >= 0
            assert not failed
            shown = look(client)
            assert mirror(client, folder / "remote" / "upload") == []
    elsewhere(folder, state)
    return shown
