"""The demo's screen as a picture: `sh tests/run bench screen` plays the demo and writes results/demo.svg."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "results" / "demo.svg"
COLUMNS = 80
DEMO_LIMIT_S = 300


def main(argv: Sequence[str]) -> int:
    """argv: the file to write, results/demo.svg without it."""
    done = subprocess.run(
        ["iot-spooler", "demo"], check=True, capture_output=True, text=True, errors="replace", timeout=DEMO_LIMIT_S
    )
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ sh deploy/demo\n" + done.stdout.rstrip()))
    path = Path(argv[0]) if argv else PICTURE
    path.write_text(console.export_svg(title="iot-spooler demo"), encoding="utf-8")
    print("written:", path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
