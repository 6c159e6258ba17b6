"""Remote commands of every kind around one upload, and what stands on the far side when all are done."""

from unit.upload_lab import CONTENT

from iot.transfer import RemoteCommand, RemoteCommands, Verb

__all__ = ["ALL", "END", "command"]


def command(verb: str, path: str, to: str = "", mode: int = 0) -> RemoteCommand:
    return RemoteCommand(Verb(verb), path, to, mode)


ALL = RemoteCommands(
    before=(command("mkdir", "old"), command("rename", "{path}", "old/{name}"), command("delete", "stale")),
    before_publish=(command("touch", "{folder}/soon"), command("rename", "soon", "sooner")),
    after_success=(
        command("chmod", "{path}", mode=0o640),
        command("rename", "{path}", "done/{name}"),
        command("delete", "sooner"),
        command("touch", "READY"),
    ),
    base="/up",
)
END = {b"/up/old/file": b"old", b"/up/done/file": CONTENT, b"/up/READY": b""}
