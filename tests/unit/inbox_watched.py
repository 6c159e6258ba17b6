"""A remote of an inbox whose calls are noted, counted or changed."""

from __future__ import annotations

import os
import sys

__all__ = ["PYTHON", "Wrapped", "counting", "hook"]

PYTHON = sys.executable


class Wrapped:
    """A remote that calls `on_<method>` of a test before its own method."""

    def __init__(self, remote, **hooks):
        self._remote, self._hooks = remote, hooks

    def __getattr__(self, name):
        value = getattr(self._remote, name)
        hook = self._hooks.get(name)
        if hook is None or not callable(value):
            return value

        def call(*words, **named):
            hook(*words)
            return value(*words, **named)

        return call


def counting(lab, calls):
    """Counts the files that are fetched."""

    def wrap(remote):
        class Counting(Wrapped):
            def download_many(self, jobs, **named):
                def counted():
                    for job in jobs:
                        calls.append(os.path.basename(job.source))
                        yield job

                return remote.download_many(counted(), **named)

        return Counting(remote)

    return wrap


def hook(script):
    return [PYTHON, "-c", f"import os, sys; path = os.environ['IOT_PATH']; {script}"]
