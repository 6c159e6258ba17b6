"""A server that drops dots and blanks at the end of names, as Windows and FAT do."""

from __future__ import annotations

from pathlib import Path

from servers.quirks import Misbehaving, Quirk

from iot.sftp.client import IoTSFTPClient


class DropsEndings(Quirk):
    def local(self, path: bytes, *, itself: bool = False) -> bytes:
        names = [name if name in (b".", b"..") else name.rstrip(b". ") for name in path.split(b"/")]
        return super().local(b"/".join(names), itself=itself)


def test_pruning_never_removes_what_just_arrived_under_a_shorter_name(tmp_path: Path) -> None:
    here, root = tmp_path / "here", tmp_path / "root"
    for path in ("a.", "folder ./b", "c"):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(path)
    with (
        Misbehaving(root, DropsEndings) as server,
        IoTSFTPClient(**server.login(), state_dir=tmp_path / "state", attempts=1) as client,
    ):
        client.sync(here, "/far", prune=True).raise_first()
        (root / "far/old").touch()
        for _ in range(2):
            result = client.sync(here, "/far", prune=True)
            assert {step.step.dest for step in result.failed} == {"/far/a"}
            assert (root / "far/a").read_text() == "a."
            assert (root / "far/folder/b").read_text() == "folder ./b"
        assert not (root / "far/old").exists()
