"""What the library says about its options, in the words of the command line: `--host-key`, not `host_key=`."""

from __future__ import annotations

import re

from iot.sftp.client.environment import ClientSettings

__all__ = ["flag_of", "in_words"]

SHORT = {"key_file": "--key"}
PYTHON_ONLY = ((r", (\w+) or prompts\b", r" or \1"), (r" or prompts\b", ""), (r"\bprompts, (\w+) and ", r"\1 and "))
"""The callback `prompts` cannot be given here."""
FROM_FILE = ("key_passphrase", "password", "proxy_password")
LOGIN = {"sftp_host": "host", "sftp_port": "port", "sftp_user": "user", "sftp_pass": "password"}
ALWAYS = (
    *(name for name in ClientSettings.model_fields if "_" in name and name != "known_hosts"),
    *("allow_empty", "max_remove"),
)
"""Names that are no ordinary words and no usual file names."""
MENTION = r"(?<![\w/.\-])({names})(?![\w/.\-])"


def flag_of(name: str) -> str:
    """The option of a setting."""
    if name in SHORT:
        return SHORT[name]
    return f"--{name.replace('_', '-')}{'-file' if name in FROM_FILE else ''}"


def in_words(text: str) -> str:
    """A message, with each option as it is written on the command line."""
    for pattern, ours in PYTHON_ONLY:
        text = re.sub(pattern, ours, text)
    text = re.sub(rf"(?:^|(?<=; ))({'|'.join(LOGIN)})(?=: )", lambda found: LOGIN[found[1]], text)
    every = "|".join(ClientSettings.model_fields)
    text = re.sub(rf"(?<![\w/.\-])({every})=(?:True\b|'([^']*)'|\"([^\"]*)\")", _with_value, text)
    text = re.sub(rf"^({every}): ", lambda found: f"{flag_of(found[1])}: ", text, flags=re.MULTILINE)
    return re.sub(MENTION.format(names="|".join(ALWAYS)), lambda found: flag_of(found[1]), text)


def _with_value(found: re.Match[str]) -> str:
    value = found[2] or found[3] or ""
    return f"{flag_of(found[1])} {value}".rstrip()
