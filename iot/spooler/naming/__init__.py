"""Names: where a file of an outbox goes on the server, and how names are shown. Pure."""

from iot.spooler.naming.collision import Collision, marked
from iot.spooler.naming.commands import CommandTemplate
from iot.spooler.naming.naming import Naming
from iot.spooler.naming.paths import UnsafeName, check_path, is_plain_name, shown
from iot.spooler.naming.rules import MERGING, Action, Rule, undoing, useless
from iot.spooler.naming.template import VARYING, Facts, Template

__all__ = [
    "MERGING",
    "VARYING",
    "Action",
    "Collision",
    "CommandTemplate",
    "Facts",
    "Naming",
    "Rule",
    "Template",
    "UnsafeName",
    "check_path",
    "is_plain_name",
    "marked",
    "shown",
    "undoing",
    "useless",
]
