"""Patterns of paths, and names that tell whether a file is complete."""

from __future__ import annotations

import pytest

from iot.spooler.patterns import MarkerName, check_pattern, is_unfinished, matcher, wanted


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "sub/a.csv", True),
        ("*.csv", "a.csv.gz", False),
        ("a?c", "a/c", True),
        ("a?c", "ac", False),
        ("[ab].c", "b.c", True),
        ("a", "A", False),
        ("a", "sub/a", False),
        ("*", "a\nb", True),
        ("re:a.b", "a\nb", True),
        ("re:a|b", "ab", False),
        ("re:a", "ab", False),
        ("re:.*/x", "y/x", True),
        ("re", "re", True),
    ],
)
def test_a_pattern_matches_the_whole_path(pattern: str, path: str, matches: bool) -> None:
    assert matcher([pattern])(path) is matches


def test_any_of_several_patterns_is_enough_and_without_one_nothing_matches() -> None:
    assert matcher(["a", "b"])("b")
    assert not matcher([])("")
    assert not matcher([])("a")


@pytest.mark.parametrize("pattern", ["a*", "re:a.*"])
def test_case_counts_unless_it_is_ignored(pattern: str) -> None:
    assert not matcher([pattern])("AB")
    assert matcher([pattern], ignore_case=True)("AB")
    assert matcher(["*"], ignore_case=True)("A\nB")


@pytest.mark.parametrize(
    ("include", "exclude", "sent"),
    [
        ([], [], ["a.csv", "b.csv", "c.txt"]),
        (["*.csv"], [], ["a.csv", "b.csv"]),
        ([], ["a*"], ["b.csv", "c.txt"]),
        (["*.csv"], ["a*"], ["b.csv"]),
        (["none"], [], []),
    ],
)
def test_what_is_included_and_not_excluded_is_sent(include: list[str], exclude: list[str], sent: list[str]) -> None:
    is_sent = wanted(include, exclude)
    assert [path for path in ("a.csv", "b.csv", "c.txt") if is_sent(path)] == sent


def test_case_is_ignored_in_what_is_included_and_in_what_is_excluded() -> None:
    is_sent = wanted(["*.csv"], ["a*"], ignore_case=True)
    assert [path for path in ("A.csv", "b.CSV", "c.txt") if is_sent(path)] == ["b.CSV"]


def test_only_what_can_be_understood_is_a_pattern() -> None:
    for good in ("*", "[", "re:a+", ""):
        check_pattern(good)
    with pytest.raises(ValueError, match=r"^not a regular expression: "):
        check_pattern("re:(")


@pytest.mark.parametrize(
    ("path", "unfinished"),
    [
        ("a.csv", False),
        ("a.tmp", True),
        ("a.PART", True),
        ("a.tmp.csv", False),
        (".a", True),
        (".sub/a", True),
        ("sub/.a", True),
        ("sub/a.b", False),
    ],
)
def test_names_of_what_is_not_finished(path: str, unfinished: bool) -> None:
    assert is_unfinished(path) is unfinished


# -- markers


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("a/{name}", "must be a name"),
        ("a\0", "must be a name"),
        ("{name}{name}", "must be a name"),
        ("{name}.{stem}", "must be a name"),
        ("", "must differ"),
        (".", "must differ"),
        ("..", "must differ"),
        ("{name}", "must differ"),
        ("{stem}", "must differ"),
    ],
)
def test_what_names_no_other_file_is_no_marker(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MarkerName(template)


@pytest.mark.parametrize(
    ("template", "marker", "file"),
    [
        ("{name}.done", "sub/a.csv.done", "sub/a.csv"),
        ("done.{name}", "sub/done.a.csv", "sub/a.csv"),
        ("x{name}y", "sub/xa.csvy", "sub/a.csv"),
        ("{stem}.done", "sub/a.done", None),
        ("READY", "sub/READY", None),
    ],
)
def test_a_marker_lies_beside_its_file_and_by_its_whole_name_tells_which_that_is(
    template: str, marker: str, file: str | None
) -> None:
    name = MarkerName(template)
    assert name.of("sub/a.csv") == marker
    assert name.is_marker(marker)
    assert name.file(marker) == file
    assert name.is_of_one_file is (template != "READY")


@pytest.mark.parametrize(
    ("template", "path", "is_one"),
    [
        ("{name}.done", ".done", False),
        ("{name}.done", "a.done", True),
        ("{name}.done", "a.done.x", False),
        ("x{name}y", "xy", False),
        ("x{name}y", "xzy", True),
        ("x{name}y", "azy", False),
        ("READY", "READY", True),
        ("READY", "READY.x", False),
        ("READY", "sub/READY", True),
    ],
)
def test_only_a_name_that_a_file_could_have_given_is_a_marker(template: str, path: str, is_one: bool) -> None:
    assert MarkerName(template).is_marker(path) is is_one
