"""Which server a command is for: the one that its words name, else the one of -H, else that of SFTP_HOST."""

from __future__ import annotations

import argparse
import os

from iot.sftp.client.cli.address import Place, Server, host_from, one_server, place_from
from iot.sftp.client.cli.parser import UsageError

__all__ = ["locate"]

Arguments = argparse.Namespace


def locate(arguments: Arguments) -> None:
    """Take the server out of the words, which leaves paths.

    arguments.remote: which arguments are remote paths: None, a word, or a list of words. Afterwards `host`, `user` and
    `port` are set where a word or -H names them, and `addressed` tells whether a word did.

    Raises: UsageError where they contradict each other, ConfigurationError for an --env-file that is wrong.
    """
    given = _given_host(arguments)
    named = one_server(_places(arguments, host_known=given is not None))
    arguments.addressed = named is not None
    if named is not None and hasattr(arguments, "host") and given != named:
        raise UsageError(f"one server at a time: {named} or that of --host")
    server = named or given
    if server is None:
        return
    arguments.host = server.host
    _take_over(arguments, "user", server.user)
    _take_over(arguments, "port", server.port)


def _given_host(arguments: Arguments) -> Server | None:
    """From -H, else from the environment, else from an --env-file; None where none of them says. Raises:
    ConfigurationError for a file that is wrong."""
    if hasattr(arguments, "host"):
        return host_from(arguments.host)
    host = os.environ.get("SFTP_HOST", "")
    if not host and hasattr(arguments, "env_file"):
        from iot.sftp.client.environment import named_env_file

        host = named_env_file(arguments.env_file).get("SFTP_HOST", "")
    return host_from(host) if host else None


def _places(arguments: Arguments, *, host_known: bool) -> list[Place]:
    places: list[Place] = []
    for name in arguments.remote:
        value = getattr(arguments, name)
        if value is None:
            continue
        words = [value] if isinstance(value, str) else value
        found = [place_from(word, host_known=host_known) for word in words]
        paths = [place.path for place in found]
        setattr(arguments, name, paths[0] if isinstance(value, str) else paths)
        places += found
    return places


def _take_over(arguments: Arguments, name: str, value: str | int | None) -> None:
    """-u and -P say the same, or what the address leaves open."""
    if value is None:
        return
    if str(getattr(arguments, name, value)) != str(value):
        raise UsageError(f"--{name} {getattr(arguments, name)}, but the address says {value}")
    setattr(arguments, name, value)
