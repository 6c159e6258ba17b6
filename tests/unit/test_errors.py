"""The error tree is what is drawn at its top, and what the package exports."""

from __future__ import annotations

import inspect
import pickle
import re

import iot.sftp.client
from iot.transfer import errors


def drawn() -> dict[str, str]:
    """name -> name of the parent, from the indentation; ProtocolError's line says what it is a kind of."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( *)([A-Z][A-Za-z]+)(  +|$)(.*)", line)
        if not match:
            continue
        depth, name = len(match[1]), match[2]
        while above and above[-1][0] >= depth:
            above.pop()
        kind = re.search(r"\(an? (\w+)\)", match[4])
        parents[name] = kind[1] if kind else above[-1][1] if above else "Exception"
        above.append((depth, name))
    return parents


def real() -> dict[str, str]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {
        name: kind.__mro__[1].__name__
        for name, kind in classes
        if kind.__module__ == errors.__name__ and kind.__name__ == name
    }


def test_the_tree_is_as_drawn() -> None:
    assert drawn() == real()


def test_every_error_is_exported_with_its_promise() -> None:
    assert set(errors.__all__) == {*real(), "SFTPError", "is_gone"}
    for name in errors.__all__:
        assert getattr(iot.sftp.client, name) is getattr(errors, name)
        assert getattr(errors, name).__doc__


def test_programs_that_catch_sftperror_catch_every_error() -> None:
    """The name under which 0.1.0 exported the root."""
    assert iot.sftp.client.SFTPError is errors.TransferError


def test_errors_can_be_sent_between_processes() -> None:
    for name in real():
        error = getattr(errors, name)("what and where")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), "what and where")


def test_only_transient_errors_are_worth_a_try_on_the_spot() -> None:
    lasting = {errors.PermanentError, errors.AuthenticationError, errors.LocalStateError, errors.ConfigurationError}
    for kind in lasting:
        assert not issubclass(kind, errors.TransientError)
        assert issubclass(kind, errors.TransferError)
