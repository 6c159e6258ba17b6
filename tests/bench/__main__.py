"""The benchmark beside the peers: `sh tests/run bench [WORK...] [--rounds N] [--peers NAME,...]`.

Every work is done by ours and by every peer in turn, round by round, each on a fresh link and a fresh server; what
arrived is compared byte by byte. `bench device` and `bench scale` are about the service alone; `bench screen` takes the
picture of the demo.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.peers import PEERS, Peer
from bench.report import save, table
from bench.trial import Row, make_files, trial
from bench.works import WORKS, Work
from conditions import why_not


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # links, servers and folders are cleared away then, too
    if argv[:1] in (["device"], ["scale"], ["screen"]):
        module = importlib.import_module(f"bench.{argv[0]}")
        return int(module.main(argv[1:]))
    arguments = _arguments(argv)
    reason = why_not("tun")
    print(
        f"link: a proxy on loopback, because {reason}" if reason else "link: IP level, between two namespaces",
        flush=True,
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for work in arguments.works:
            rows += _campaign(work, arguments, Path(folder))
            save(rows, arguments.out)
    print(table(rows))
    print("written:", *map(str, save(rows, arguments.out)))
    return 0


def _campaign(work: Work, arguments: argparse.Namespace, folder: Path) -> list[Row]:
    """All rounds of one work; a peer that was not done within the limit is not asked again."""
    files = make_files(work, folder / "files")
    rows: list[Row] = []
    for number in range(arguments.rounds):
        given_up = {row.peer for row in rows if row.wall_s is None}
        peers = (peer for peer in arguments.peers if peer.name not in given_up)
        rows += _round(work, peers, files, folder / f"round-{number}")
    shutil.rmtree(files)
    return rows


def _round(work: Work, peers: Iterator[Peer], files: Path, folder: Path) -> Iterator[Row]:
    for peer in peers:
        place = folder / peer.name.replace(" ", "")
        place.mkdir(parents=True)
        row = trial(work, peer, files, place)
        shutil.rmtree(place)
        if row is None:
            print(f"{work.name:20} {peer.name:14} cannot do this", flush=True)
            continue
        wall = f"{row.wall_s:8.2f} s" if row.wall_s is not None else row.error
        wire = row.wire_bytes / row.payload_bytes
        print(f"{work.name:20} {peer.name:14} {wall} cpu {row.cpu_s:.2f} s wire x {wire:.3f}", flush=True)
        yield row


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sh tests/run bench", description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"all, or: {' '.join(work.name for work in WORKS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="", metavar="NAME,...", help="only these; `peers`: all but ours")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="a lower limit for every run")
    parser.add_argument("--out", type=Path, default=Path("../.test-bench"), help="folder for the JSON, table and plot")
    arguments = parser.parse_args(argv)
    arguments.works = [_limited(work, arguments.limit) for work in _chosen_works(parser, arguments.works)]
    arguments.peers = _chosen_peers(parser, arguments.peers)
    return arguments


def _limited(work: Work, limit_s: float | None) -> Work:
    return replace(work, limit_s=min(work.limit_s, limit_s)) if limit_s else work


def _chosen_works(parser: argparse.ArgumentParser, names: list[str]) -> list[Work]:
    known = {work.name: work for work in WORKS}
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown work: {', '.join(unknown)}")
    return [known[name] for name in names] or list(WORKS)


def _chosen_peers(parser: argparse.ArgumentParser, text: str) -> list[Peer]:
    if text == "peers":
        wanted = [peer for peer in PEERS if not peer.ours]
    else:
        names = [name for name in text.split(",") if name]
        if unknown := set(names) - {peer.name for peer in PEERS}:
            parser.error(f"unknown peer: {', '.join(sorted(unknown))}; one of {', '.join(p.name for p in PEERS)}")
        wanted = [peer for peer in PEERS if not names or peer.name in names]
    missing = {program for peer in wanted for program in peer.programs if shutil.which(program) is None}
    for program in sorted(missing):
        print(f"left out, because it is not installed: {program}", flush=True)
    return [peer for peer in wanted if not missing.intersection(peer.programs)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
