"""README.md as PyPI shows it: it stands alone there, so every link is absolute and leads to a file that exists.

The other documents are read in the repository: their links are relative, and lead to a file and a heading of it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]
PAGES = f"{SOURCE}/blob/main/"
PICTURES = SOURCE.replace("github.com", "raw.githubusercontent.com") + "/main/"
CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`]*`", re.MULTILINE | re.DOTALL)
DEFINITION = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
INLINE = re.compile(r"\]\(([^)\s]+)\)")
REFERENCE = re.compile(r"\[([^\]]+)\](?!\()(?:\[([^\]]+)\])?")


DOCUMENTS = sorted([TOP / "CHANGELOG.md", *TOP.glob("deploy/*.md"), *TOP.glob("tests/*/*.md")])


def prose(text: str = README) -> str:
    return CODE.sub("", text)


def anchors(document: Path) -> set[str]:
    """What a link to a heading calls it."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def targets() -> list[str]:
    return [*INLINE.findall(prose()), *(target for _, target in DEFINITION.findall(README))]


def test_every_link_is_absolute_or_leads_within_the_page() -> None:
    assert [target for target in targets() if not target.startswith(("https://", "#"))] == []
    assert len(targets()) > 8


def test_every_name_in_brackets_is_defined_and_used() -> None:
    defined = {name for name, _ in DEFINITION.findall(README)}
    text = DEFINITION.sub("", prose())
    used = {second or first for first, second in REFERENCE.findall(text)}
    assert defined <= used | set(re.findall(r"\]\[([^\]]+)\]", text))
    assert set(re.findall(r"\]\[([^\]]+)\]", text)) <= defined


def test_every_link_to_the_repository_leads_to_a_file_of_it() -> None:
    ours = [target for target in targets() if target.startswith((PAGES, PICTURES, SOURCE))]
    files = [target.removeprefix(PAGES).removeprefix(PICTURES) for target in ours]
    assert len(files) > 5
    missing = [name for name in files if not (TOP / unquote(name.partition("#")[0])).exists()]
    assert missing == []


def test_pictures_are_linked_as_files_and_pages_as_pages() -> None:
    """A picture behind a page of the site is none on PyPI."""
    for name, target in DEFINITION.findall(README):
        wanted = PICTURES if target.endswith((".svg", ".png")) else PAGES
        assert target.startswith(wanted), name


def test_the_package_says_where_it_comes_from() -> None:
    urls = PROJECT["urls"]
    assert set(urls) >= {"Source", "Documentation", "Changelog", "Issues"}
    for name, url in urls.items():
        assert url.startswith(SOURCE), name
        if url.startswith(PAGES):
            assert (TOP / url.removeprefix(PAGES)).is_file(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in INLINE.findall(prose(document.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = (document.parent / name).resolve() if name else document
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
