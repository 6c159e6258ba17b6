"""What a test needs of the machine is asked in one place (see conditions.py), so that under CI nothing goes missing."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
SKIPS = re.compile(r"pytest\.(?:skip|importorskip)\(|mark\.skip(?:if)?\b")
NOT_OF_THE_MACHINE = {
    "conditions.py": 2,  # the place itself
    "servers/test_collisions.py": 1,  # the rest: a kind of server, or a case, to which the promise does not apply
    "servers/test_contract.py": 2,
    "servers/test_contract_trees.py": 2,
    "servers/test_ftp_transfers.py": 1,
    "unit/test_journal.py": 1,
    "unit/test_package.py": 1,
}


def test_what_the_machine_lacks_fails_under_ci_in_every_test() -> None:
    found = {}
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__) and (count := len(SKIPS.findall(path.read_text(encoding="utf-8")))):
            found[str(path.relative_to(TESTS))] = count
    assert found == NOT_OF_THE_MACHINE, "use conditions.missing, or @pytest.mark.needs"
