"""The plan for a folder: carried out on a model, both sides agree, nothing else changes, and the next plan is empty."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.transfer.errors import NameRefused, PermissionDenied
from iot.transfer.trees.local import name_refused
from iot.transfer.trees.model import Act, Kind, Node, Step, Tree
from iot.transfer.trees.planning import Ends, PlanRules, plan_tree, why_not_prune

ENDS = Ends(lambda path: f"/from/{path}", lambda path: f"/to/{path}")
FILE, FOLDER = Kind.FILE, Kind.FOLDER
DENIED = PermissionDenied("denied")


def file(size: int = 1, mtime_s: int | None = 1) -> Node:
    return Node(FILE, size, mtime_s)


def tree(**nodes: Node) -> Tree:
    return Tree({name.replace("__", "/"): node for name, node in nodes.items()})


def plan(source: Tree, dest: Tree, **rules: object) -> dict[str, Step]:
    steps = plan_tree(source, dest, ENDS, PlanRules(**{"update": True, **rules}))
    assert len({step.path for step in steps if step.act is not Act.MAKE_FOLDER}) == len(
        [step for step in steps if step.act is not Act.MAKE_FOLDER]
    )
    return {step.path: step for step in steps}


def acts(steps: dict[str, Step]) -> dict[str, Act]:
    return {path: step.act for path, step in steps.items()}


# -- as a model

names = st.sampled_from(["a", "b", "A", "é", "x.0123abcd.part", "dir", "dir2"])
plain = st.builds(Node, st.sampled_from([FILE]), st.integers(0, 2), st.integers(0, 2))
odd = st.sampled_from([Node(Kind.SPECIAL), Node(Kind.FOLDER_LINK, is_link=True), Node(Kind.DEAD_LINK, is_link=True)])


def _flat(nested: object, prefix: str = "") -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for name, value in sorted(nested.items()):  # type: ignore[attr-defined]
        nodes[prefix + name] = value if isinstance(value, Node) else Node(FOLDER)
        if not isinstance(value, Node):
            nodes |= _flat(value, f"{prefix}{name}/")
    return nodes


nested = st.recursive(
    st.dictionaries(names, plain | odd, max_size=4),
    lambda children: st.dictionaries(names, plain | odd | children, max_size=4),
    max_leaves=12,
)
trees = nested.map(_flat)


def carried_out(source: dict[str, Node], dest: dict[str, Node], steps: Iterable[Step]) -> dict[str, Node]:
    """The destination afterwards. Fails where a step is impossible."""
    after = dict(dest)
    for step in steps:
        folder = posixpath.dirname(step.path)
        if step.act in (Act.MAKE_FOLDER, Act.TRANSFER):
            assert not folder or after[folder].kind is FOLDER
        if step.act is Act.MAKE_FOLDER:
            assert step.path not in after
            after[step.path] = Node(FOLDER)
        elif step.act is Act.TRANSFER:
            assert step.path not in after or after[step.path].kind in (FILE, Kind.DEAD_LINK)
            after[step.path] = source[step.path]
        elif step.act is Act.REMOVE:
            assert after.pop(step.path).kind is not FOLDER
        elif step.act is Act.REMOVE_FOLDER:
            assert after.pop(step.path).kind is FOLDER
            assert not [path for path in after if path.startswith(f"{step.path}/")]
    return after


@given(trees, trees, st.booleans())
def test_carried_out_on_a_model_source_and_destination_agree(source, dest, prune) -> None:
    steps = plan_tree(Tree(source), Tree(dest), ENDS, PlanRules(update=True, prune=prune))
    after = carried_out(source, dest, steps)
    excused = {step.path for step in steps if step.act in (Act.LEAVE_OUT, Act.FAIL)}
    for path, node in source.items():
        if path not in excused:
            assert (after[path].kind, after[path].size, after[path].mtime_s) == (node.kind, node.size, node.mtime_s)
    stays = {step.path for step in steps if step.act is Act.LEAVE}
    for path in set(after) - set(source):
        assert path in dest
        assert not prune or path in stays
    for path, node in dest.items():
        assert prune or path in source or after[path] == node


@given(trees, trees, st.booleans())
def test_the_second_time_nothing_is_left_to_do(source, dest, prune) -> None:
    rules = PlanRules(update=True, prune=prune)
    after = carried_out(source, dest, plan_tree(Tree(source), Tree(dest), ENDS, rules))
    in_order = dict(sorted(after.items(), key=lambda item: item[0].split("/")))
    again = plan_tree(Tree(source), Tree(in_order), ENDS, rules)
    assert not [step for step in again if step.act in (Act.TRANSFER, Act.MAKE_FOLDER)]
    assert carried_out(source, after, again) == after


@given(trees, trees, st.data())
def test_what_could_not_be_listed_is_never_removed(source, dest, data) -> None:
    folders = ["", *(path for path, node in source.items() if node.kind is FOLDER)]
    unlisted = data.draw(st.sampled_from(folders))
    known = {path: node for path, node in source.items() if unlisted and not path.startswith(f"{unlisted}/")}
    steps = plan_tree(Tree(known, {unlisted: DENIED}), Tree(dest), ENDS, PlanRules(update=True, prune=True))
    for step in steps:
        if step.act in (Act.REMOVE, Act.REMOVE_FOLDER):
            assert unlisted
            assert not f"{step.path}/".startswith(f"{unlisted}/")
            assert not f"{unlisted}/".startswith(f"{step.path}/")


# -- case by case


def test_only_size_and_time_decide_what_is_sent_again() -> None:
    source = tree(same=file(), longer=file(2), newer=file(1, 2), older=file(1, 0), new=file(7))
    dest = tree(same=file(), longer=file(), newer=file(), older=file())
    steps = plan(source, dest)
    assert {path: (step.act, step.reason) for path, step in steps.items()} == {
        "same": (Act.LEAVE, "same size and time"),
        "longer": (Act.TRANSFER, "another size"),
        "newer": (Act.TRANSFER, "newer at the source"),
        "older": (Act.TRANSFER, "older at the source"),
        "new": (Act.TRANSFER, "not there yet"),
    }
    assert steps["new"].size == 7
    assert acts(plan(source, dest, update=False))["same"] is Act.TRANSFER


def test_where_times_cannot_be_set_a_file_that_is_not_older_is_the_same() -> None:
    dest = tree(a=file(1, 50))
    assert acts(plan(tree(a=file(1, 40)), dest, keeps_times=False)) == {"a": Act.LEAVE}
    assert acts(plan(tree(a=file(1, 60)), dest, keeps_times=False)) == {"a": Act.TRANSFER}
    assert acts(plan(tree(a=file(2, 40)), dest, keeps_times=False)) == {"a": Act.TRANSFER}


def test_an_unknown_time_is_never_the_same_and_a_tolerance_is_kept() -> None:
    assert plan(tree(a=file()), tree(a=file(1, None)))["a"].reason == "its time is unknown"
    for difference_s, act in ((-1, Act.LEAVE), (1, Act.LEAVE), (2, Act.TRANSFER), (-2, Act.TRANSFER)):
        steps = plan(tree(a=file(1, 10 + difference_s)), tree(a=file(1, 10)), time_tolerance_s=1)
        assert acts(steps) == {"a": act}


def test_links_to_folders_devices_and_parts_are_named_and_left_out() -> None:
    source = Tree(
        {
            "link": Node(Kind.FOLDER_LINK, is_link=True),
            "gone": Node(Kind.DEAD_LINK, is_link=True),
            "pipe": Node(Kind.SPECIAL),
            "f.0123abcd.part": file(),
        }
    )
    reasons = {path: (step.act, step.reason) for path, step in plan(source, Tree(), prune=True).items()}
    assert reasons == {
        "link": (Act.LEAVE_OUT, "a link to a folder"),
        "gone": (Act.LEAVE_OUT, "a link that cannot be followed"),
        "pipe": (Act.LEAVE_OUT, "not a regular file"),
        "f.0123abcd.part": (Act.LEAVE_OUT, "an unfinished part"),
    }


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file_or_a_link() -> None:
    source = tree(a=Node(FOLDER), a__x=file(), b=file(), c=Node(FOLDER), c__x=file())
    dest = tree(a=file(), b=Node(FOLDER), b__y=file(), c=Node(Kind.FOLDER_LINK, is_link=True))
    steps = plan(source, dest, prune=True)
    assert acts(steps) == {
        "a": Act.FAIL,
        "a/x": Act.FAIL,
        "b": Act.FAIL,
        "b/y": Act.LEAVE,
        "c": Act.FAIL,
        "c/x": Act.FAIL,
    }
    assert str(steps["c/x"].error) == "/to/c is a link to a folder, and /from/c is not"


def test_a_name_that_would_leave_the_folder_is_refused_and_so_is_all_below_it() -> None:
    source = Tree({"ok": file(), "..": Node(FOLDER), "../passwd": file(), "nul\0": file()})
    steps = plan(source, Tree(), refused=name_refused)
    assert acts(steps) == {"ok": Act.TRANSFER, "..": Act.FAIL, "../passwd": Act.FAIL, "nul\0": Act.FAIL}
    assert isinstance(steps[".."].error, NameRefused)


@pytest.mark.parametrize("kind", [Kind.DEAD_LINK, Kind.FOLDER_LINK, Kind.SPECIAL])
def test_what_stands_behind_a_link_that_leads_nowhere_today_is_not_removed(kind: Kind) -> None:
    source = tree(b=file(), data=Node(kind, is_link=kind is not Kind.SPECIAL))
    dest = tree(b=file(), data=Node(FOLDER), data__a=file(), other=file())
    steps = plan(source, dest, prune=True)
    assert acts(steps)["data/a"] is Act.LEAVE
    assert acts(steps)["other"] is Act.REMOVE


def test_every_part_of_ours_stays() -> None:
    parts = ["x.csv.0123abcd.part", "x.csv.0123abcd.part.sha256"]
    dest = Tree({name: file() for name in [*parts, "y.part", "y.part.sha256", "z"]})
    assert [path for path, act in acts(plan(tree(b=file()), dest, prune=True)).items() if act is Act.LEAVE] == parts[
        ::-1
    ]
    exact = acts(plan(tree(b=file()), dest, prune=True, exact_parts=True))
    assert {path for path, act in exact.items() if act is Act.REMOVE} == {"z"}


def test_removals_name_the_reason_of_what_stays() -> None:
    source = tree(kept=file(), link=Node(Kind.FOLDER_LINK, is_link=True))
    dest = Tree(
        {
            "kept": file(),
            "kept.sha256": file(),
            "link": Node(FOLDER),
            "link/x": file(),
            "old": Node(FOLDER),
            "old/f": file(),
            "old/f.0123abcd.part": file(),
            "gone": Node(FOLDER),
            "gone/f": file(),
            "secret": Node(FOLDER),
            "pipe": Node(Kind.SPECIAL),
            "way": Node(Kind.FOLDER_LINK, is_link=True),
        },
        {"secret": DENIED},
    )
    steps = plan(source, dest, prune=True, sidecar=True)
    assert {path: step.act for path, step in steps.items() if not step.source} == {
        "way": Act.REMOVE,
        "gone/f": Act.REMOVE,
        "gone": Act.REMOVE_FOLDER,
        "old/f": Act.REMOVE,
        "old/f.0123abcd.part": Act.LEAVE,
        "old": Act.LEAVE,
        "pipe": Act.LEAVE,
        "secret": Act.LEAVE,
        "link/x": Act.LEAVE,
        "kept.sha256": Act.LEAVE,
    }
    assert steps["old"].reason == "not everything in it is removed"
    assert acts(plan(source, dest, prune=True))["kept.sha256"] is Act.REMOVE


def test_names_that_differ_only_in_case_are_marked_with_all_below_them() -> None:
    source = tree(a=file(), A=file(), d=Node(FOLDER), d__x=file(), D=Node(FOLDER), D__y=file(), readme=file())
    steps = plan(source, tree(README=file()), prune=True)
    clashes = {path: step.clash for path, step in steps.items() if step.clash}
    assert clashes == {"A": "a", "D": "d", "D/y": "d", "readme": "README", "README": "readme"}


def test_dots_and_blanks_at_the_end_of_a_name_may_not_count() -> None:
    source = Tree({"a.": file(), "b": file(), "b ": file(), "d.": Node(FOLDER), "d./x": file(), ".c": file()})
    there = Tree({"a": file(), "d": Node(FOLDER), "d/x": file(), "c": file()})
    steps = {step.path: step for step in plan_tree(source, there, ENDS, PlanRules(prune=True))}
    assert {path: steps[path].clash for path in ("a", "b ", "c")} == {"a": "a.", "b ": "b", "c": ""}
    assert [steps[path].act for path in ("a", "c", "d/x", "d")] == [Act.REMOVE, Act.REMOVE, Act.LEAVE, Act.LEAVE]


@pytest.mark.parametrize(
    ("source", "removals", "given", "expected"),
    [
        (tree(), 0, {}, ""),
        (tree(), 1, {}, "the source holds no files, and 1 name would be removed; allow_empty permits that"),
        (
            tree(d=Node(FOLDER)),
            1,
            {},
            "the source holds no files, and 1 name would be removed; allow_empty permits that",
        ),
        (tree(), 1, {"allow_empty": True}, ""),
        (tree(a=file()), 3, {"max_remove": 3}, ""),
        (tree(a=file()), 3, {"max_remove": 2}, "3 names would be removed, and max_remove permits 2"),
    ],
)
def test_a_prune_of_too_much_is_refused(source, removals, given, expected) -> None:
    wish = {"allow_empty": False, "max_remove": None, **given}
    assert why_not_prune(source, removals, **wish) == expected


def test_what_is_not_known_of_either_side_is_never_the_same() -> None:
    unknown = Node(FILE, None, 1), Node(FILE, 1, None)
    dest = tree(size=unknown[0], time=file(), both=file())
    steps = plan(tree(size=unknown[0], time=unknown[1], both=Node(FILE, None, None)), dest)
    assert {path: (step.act, step.reason, step.size) for path, step in steps.items()} == {
        "size": (Act.TRANSFER, "another size", 0),
        "time": (Act.TRANSFER, "its time is unknown", 1),
        "both": (Act.TRANSFER, "another size", 0),
    }


def test_what_is_at_an_unknown_place_is_sent_with_that_as_the_reason() -> None:
    source = tree(d=Node(FOLDER), d__a=file(), e=file())
    steps = plan(source, Tree({"d": Node(FOLDER)}, {"d": DENIED}))
    assert {path: step.reason for path, step in steps.items()} == {
        "d/a": "the destination cannot be listed",
        "e": "not there yet",
    }
    assert plan(tree(a=file()), tree(a=file()), update=False)["a"].reason == "replaced"


def test_a_file_replaces_a_link_that_leads_nowhere_and_a_folder_does_not() -> None:
    dead = Node(Kind.DEAD_LINK, is_link=True)
    steps = plan(tree(a=file(), b=Node(FOLDER)), tree(a=dead, b=dead))
    assert acts(steps) == {"a": Act.TRANSFER, "b": Act.FAIL}


def test_what_was_named_is_never_left_out_silently() -> None:
    source = tree(pipe=Node(Kind.SPECIAL), link=Node(Kind.DEAD_LINK, is_link=True)).nodes | {"x.0123abcd.part": file()}
    steps = plan(Tree(source), Tree({}), named=True)
    assert acts(steps) == {"pipe": Act.FAIL, "link": Act.FAIL, "x.0123abcd.part": Act.TRANSFER}


def test_a_checksum_belongs_to_a_file_of_the_source_or_is_removed() -> None:
    dest = Tree({name: file() for name in ("a", "a.sha256", "gone.sha256")})
    steps = plan(tree(a=file()), dest, prune=True, sidecar=True)
    assert acts(steps) == {"a": Act.LEAVE, "a.sha256": Act.LEAVE, "gone.sha256": Act.REMOVE}
