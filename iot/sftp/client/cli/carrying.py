"""A plan for files and folders on the command line: what it would do, or what comes of it, line by line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from iot.sftp.client.cli.output import exit_code_of, print_names, result_line, say, say_error
from iot.sftp.client.cli.parser import UsageError
from iot.sftp.client.cli.progress import Display, display
from iot.transfer.model import Direction, TransferResult
from iot.transfer.terminal import human_bytes
from iot.transfer.trees.model import Act, StepResult, TreePlan

if TYPE_CHECKING:
    from argparse import Namespace

    from iot.sftp.client.client import IoTSFTPClient

__all__ = ["carry", "report"]


def carry(
    client: IoTSFTPClient,
    plan: TreePlan,
    arguments: Namespace,
    *,
    expected: str | None = None,
    adopt_partial: str | None = None,
) -> list[int]:
    """Do what a plan says, or with --dry-run only tell it -> the exit codes of what failed.

    expected: what the content of the only file must hash to. adopt_partial: see UploadJob.
    Raises: UsageError if two files would go to one destination; what concerns more than one file, such as a lost link.
    """
    if plan.twice is not None:
        word = "sent" if plan.direction is Direction.UPLOAD else "fetched"
        raise UsageError(f"two files would go to {plan.twice}: one would replace the other. Nothing was {word}")
    for step in plan.of(Act.LEAVE_OUT):
        say(f"left out, {step.reason}: {step.source}")
    if arguments.dry_run:
        return _tell(plan)
    codes: list[int] = []
    transfers = plan.transfers
    name = os.path.basename(transfers[0].source) if transfers else ""
    with display(plan.total_bytes, len(transfers), name, quiet=arguments.quiet) as shown:
        for done in client.carry_out(
            plan,
            resume=not arguments.restart,
            sha256=expected or arguments.sha256,
            progress=lambda step: shown.of(step, step.size),
            adopt_partial=adopt_partial,
        ):
            code = _report_step(done, shown, arguments)
            codes += [code] if code else []
    return codes


def _tell(plan: TreePlan) -> list[int]:
    """What would be done, for programs and people; what would fail, on standard error."""
    word = "send" if plan.direction is Direction.UPLOAD else "fetch"
    print_names(f"would {word} {s.source} -> {s.dest} ({human_bytes(s.size)})" for s in plan.transfers)
    if plan.prune_refused:
        from iot.sftp.client.cli.wording import in_words

        say(f"nothing would be removed: {in_words(plan.prune_refused)}")
    else:
        print_names(f"would remove {step.dest}" for step in plan.removals)
    failures = [step.error for step in plan.of(Act.FAIL) if step.error is not None]
    for error in failures:
        say_error(error)
    return [exit_code_of(error) for error in failures]


def _report_step(done: StepResult, shown: Display, arguments: Namespace) -> int:
    if done.error is not None:
        if done.step.act is Act.TRANSFER:
            shown.meter.finished(done.step, 0)
        shown.clear()
        say_error(done.error)
        return exit_code_of(done.error)
    if done.result is not None:
        shown.meter.finished(done.step, done.result.size)
        report(done.result, shown, arguments)
    elif done.step.act in (Act.REMOVE, Act.REMOVE_FOLDER):
        shown.say(f"removed {done.step.dest}")
    return 0


def report(result: TransferResult, shown: Display, arguments: Namespace) -> None:
    """A line for a file that was transferred, and its checksum if that is wanted."""
    shown.say(result_line(result))
    if arguments.sha256 and result.sha256 is not None:
        print_names([f"{result.sha256}  {result.dest}"])
