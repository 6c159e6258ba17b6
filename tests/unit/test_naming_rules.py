"""Rules for names: what each does, in which order, and what none of them can do to a path."""

import signal
import time
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot.spooler.naming import Action, Facts, Naming, Rule, UnsafeName, undoing, useless
from iot.spooler.naming.paths import encoded
from iot.spooler.outbox.names import TookTooLong, within

FACTS = Facts(1_700_000_000 * 10**9, 42, "0badcafe", "deadbeef")
TEXT = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
NO_TEXT = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
"""Bytes that are no UTF-8, as Python shows them in names."""
NAME = st.text(TEXT | NO_TEXT, min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join)
ANY_RULE = st.one_of(
    st.sampled_from([Action.NO_ACTION, Action.ONLY_FILENAME, Action.LOWERCASE]).map(lambda action: Rule("*", action)),
    st.characters(exclude_characters="/\0").map(lambda char: Rule("*", Action.REPLACE_SEPARATOR, char)),
    st.sampled_from(["{seq}-", "{date:%Y/%m}/", "x", "./", "/"]).map(lambda text: Rule("*", Action.PREFIX, text)),
    st.sampled_from([("a", ".."), ("(.)", r"\1\1"), (".", ""), ("_", "/"), ("^", "/"), ("$", "/")]).map(
        lambda pair: Rule("*", Action.REPLACE, pair[1], pair[0])
    ),
)


def named(path, *rules, base="/up", ignore_case=False):
    naming = Naming(base, rules, device_id="gw", outbox="box", ignore_case=ignore_case)
    return naming.destination(path.encode("utf-8", "surrogateescape"), FACTS)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (Rule("*", Action.NO_ACTION), "A/b/C.csv"),
        (Rule("*", Action.ONLY_FILENAME), "C.csv"),
        (Rule("*", Action.LOWERCASE), "a/b/c.csv"),
        (Rule("*", Action.REPLACE_SEPARATOR, "_"), "A_b_C.csv"),
        (Rule("*", Action.PREFIX, "{device_id}-{seq:3}-"), "A/b/gw-042-C.csv"),
        (Rule("*", Action.PREFIX, "{date:%Y/%m}/"), "A/b/2023/11/C.csv"),
        (Rule("*", Action.REPLACE, r"\2/\1", r"(.)/(.)"), "b/A/C.csv"),
    ],
)
def test_what_each_rule_does(rule, name):
    assert named("A/b/C.csv", rule, base="/UP/Base") == f"/UP/Base/{name}"  # the base is never changed


def test_every_rule_that_matches_the_path_is_applied_in_order_to_the_result_of_the_one_before():
    rules = [
        Rule("*.CSV", Action.REPLACE, ".csv", r"\.CSV$"),
        Rule("b/*", Action.LOWERCASE),  # does not match
        Rule("A/*.CSV", Action.REPLACE_SEPARATOR, "-"),  # matches the path in the outbox, which the first has changed
        Rule("*", Action.PREFIX, "x-"),
    ]
    assert named("A/b/C.CSV", *rules) == "/up/x-A-b-C.csv"


def test_a_pattern_ignores_case_where_all_do():
    rule = Rule("*.csv", Action.LOWERCASE)
    assert named("A.CSV", rule, ignore_case=True) == "/up/a.csv"
    with pytest.raises(UnsafeName, match="no rule matches"):
        named("A.CSV", rule)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("a", Rule("*", Action.REPLACE, "", ".*")),
        ("a", Rule("*", Action.REPLACE, "../x", "a")),
        ("a", Rule("*", Action.REPLACE, "/x", "a")),
        ("a/b", Rule("*", Action.REPLACE, "//", "/")),
        ("a", Rule("*", Action.PREFIX, "./")),
    ],
)
def test_a_name_that_would_leave_the_base_or_be_none_is_refused(path, rule):
    with pytest.raises(UnsafeName, match="the rules give it a name that cannot be"):
        named(path, rule)


@settings(max_examples=300)
@given(PATH, st.lists(ANY_RULE, min_size=1, max_size=4))
def test_no_rules_lead_out_of_the_base(path, rules):
    try:
        found = named(path, *rules)
    except UnsafeName:
        return
    assert found.startswith("/up/")
    parts = found.removeprefix("/up/").split("/")
    assert all(part not in ("", ".", "..") and "\0" not in part for part in parts)


@given(PATH, st.sampled_from([Action.NO_ACTION, Action.ONLY_FILENAME, Action.LOWERCASE]))
def test_a_rule_applied_twice_does_what_it_does_once(path, action):
    rule = Rule("*", action)
    assert named(path, rule, rule) == named(path, rule)


@given(PATH, st.characters(exclude_characters="/\0"))
def test_separators_replaced_twice_are_those_replaced_once(path, char):
    rule = Rule("*", Action.REPLACE_SEPARATOR, char)
    assert named(path, rule, rule, base="") == path.replace("/", char)


@given(st.binary(min_size=1).filter(lambda name: not set(name) & set(b"\0/.")))
def test_every_byte_of_a_name_survives_rules_that_do_not_change_it(name):
    found = Naming("/up", [Rule("*", Action.ONLY_FILENAME)], device_id="d", outbox="o").destination(b"a/" + name, FACTS)
    assert found.encode("utf-8", "surrogateescape") == b"/up/" + name


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule("re:(", Action.LOWERCASE), "not a regular expression"),
        (Rule("*", Action.LOWERCASE, "x"), "lowercase takes none"),
        (Rule("*", Action.NO_ACTION, "", "x"), "regex: goes with replace"),
        (Rule("*", Action.REPLACE, "x"), "regex: goes with replace, which must have one"),
        (Rule("*", Action.REPLACE, "x", "("), "not a regular expression"),
        (Rule("*", Action.REPLACE, r"\1", "x"), "invalid group reference"),
        (Rule("*", Action.REPLACE, r"\g<a>", "x"), "unknown group name"),
        (Rule("*", Action.REPLACE_SEPARATOR, "/"), "the one character"),
        (Rule("*", Action.REPLACE_SEPARATOR, ""), "the one character"),
        (Rule("*", Action.REPLACE_SEPARATOR, "ab"), "the one character"),
        (Rule("*", Action.TEMPORARY_SUFFIX, ""), "1 to 32 characters without a slash"),
        (Rule("*", Action.TEMPORARY_SUFFIX, "a/b"), "1 to 32 characters without a slash"),
        (Rule("*", Action.TEMPORARY_SUFFIX, "x" * 33), "1 to 32 characters without a slash"),
        (Rule("*", Action.PREFIX, ""), "the text to put before"),
        (Rule("*", Action.PREFIX, "{date:%Q}"), "unknown %Q"),
        (Rule("*", Action.PREFIX, "a\0"), "NUL"),
        (Rule("*", Action.PREFIX, "../"), r'must not contain "\.\."'),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(rule, reason):
    with pytest.raises(ValueError, match=reason):
        rule.check()


@pytest.mark.parametrize(
    "rule",
    [
        *(Rule("*", action) for action in (Action.NO_ACTION, Action.ONLY_FILENAME, Action.LOWERCASE)),
        Rule("*", Action.REPLACE, "", "x"),
        Rule("re:x", Action.REPLACE, r"\1", "(x)"),
        Rule("*", Action.REPLACE_SEPARATOR, "_"),
        Rule("*", Action.PREFIX, "{seq}/"),
        Rule("*", Action.TEMPORARY_SUFFIX, "."),
        Rule("*", Action.TEMPORARY_SUFFIX, "x" * 32),
    ],
)
def test_what_is_right_with_a_rule_is_accepted(rule):
    rule.check()
    assert rule.action.takes_value is (rule.action.value not in ("no-action", "only-filename", "lowercase"))


@pytest.mark.parametrize(
    ("rules", "pairs"),
    [
        ([Rule("*", Action.REPLACE, "-", "_"), Rule("*", Action.REPLACE, "_", "-")], [(0, 1)]),
        ([Rule("*", Action.REPLACE_SEPARATOR, "%"), Rule("*", Action.REPLACE, "/", "%")], [(0, 1)]),
        (
            [
                Rule("*", Action.PREFIX, "x-"),
                Rule("*", Action.LOWERCASE),
                Rule("*", Action.REPLACE, r"\1", "(^|/)x-"),
            ],
            [(0, 2)],
        ),
        ([Rule("*.a", Action.REPLACE, "-", "_"), Rule("*.b", Action.REPLACE, "_", "-")], []),  # of other files
        ([Rule("*", Action.REPLACE, "_", " "), Rule("*", Action.LOWERCASE)], []),
        ([Rule("*", Action.ONLY_FILENAME), Rule("*", Action.ONLY_FILENAME)], []),
        ([Rule("*", Action.TEMPORARY_SUFFIX, ".a"), Rule("*", Action.TEMPORARY_SUFFIX, ".b")], [(0, 1)]),
        ([Rule("*", Action.REPLACE_SEPARATOR, "_"), Rule("*", Action.REPLACE, "-", "_")], []),
        ([Rule("*", Action.NO_ACTION), Rule("*", Action.NO_ACTION)], []),
    ],
)
def test_rules_that_undo_each_other_are_found(rules, pairs):
    assert list(undoing(rules)) == pairs


def test_rules_of_one_pattern_are_compared_however_it_came_here():
    first, second = ("".join(["*.", "csv"]) for _ in range(2))
    assert first is not second
    rules = [Rule(first, Action.REPLACE, "-", "_"), Rule(second, Action.REPLACE, "_", "-")]
    assert list(undoing(rules)) == [(0, 1)]
    rules = [Rule(first, Action.PREFIX, "x/"), Rule(second, Action.ONLY_FILENAME)]
    assert list(useless(rules)) == [(0, 1)]


def test_a_temporary_suffix_changes_no_name_and_the_last_that_matches_counts():
    rules = [
        Rule("*", Action.TEMPORARY_SUFFIX, ".tmp"),
        Rule("*.csv", Action.TEMPORARY_SUFFIX, ".filepart"),
        Rule("*.txt", Action.LOWERCASE),
    ]
    naming = Naming("/up", rules, device_id="d", outbox="o")
    assert [naming.temporary_suffix(path) for path in (b"a.csv", b"a.txt")] == [".filepart", ".tmp"]
    assert named("a/b.csv", *rules) == "/up/a/b.csv"
    assert Naming("/up", device_id="d", outbox="o").temporary_suffix(b"a") is None


@given(PATH, st.lists(st.sampled_from('\\:*?"<>| _é'), min_size=1).map("".join))
def test_percent_encoding_leaves_none_of_the_characters_and_can_be_read_back(path, characters):
    naming = Naming("/up:*", device_id="d", outbox="o", percent_encode=characters)
    raw = path.encode("utf-8", "surrogateescape")
    found = naming.destination(raw, FACTS).removeprefix("/up:*/")  # the base is not changed
    assert not set(found) & set(characters)
    assert all(ord(each) >= 0x20 for each in found)
    found.encode("utf-8")
    assert unquote_to_bytes(found) == raw
    assert found.count("/") == path.count("/")
    assert naming.decided


def test_what_percent_encoding_gives():
    naming = Naming("/up", device_id="d", outbox="o", percent_encode=':*?"<>|\\')
    assert naming.destination(b"a:b/50%/\xff\n\xc3\xa9.csv", FACTS) == "/up/a%3Ab/50%25/%FF%0Aé.csv"


def test_a_regular_expression_that_would_take_for_ever_is_broken_off():
    naming = Naming("/up", [Rule("*", Action.REPLACE, "x", "(a|a)*b")], device_id="d", outbox="o")
    assert naming.may_take_long
    began = time.process_time()
    with pytest.raises(TookTooLong):
        within(0.05, lambda: naming.destination(b"a" * 4000, FACTS))
    assert time.process_time() - began < 2
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL
    assert within(0.05, lambda: naming.destination(b"aab", FACTS)) == "/up/x"


def test_control_characters_of_both_ranges_are_encoded():
    assert encoded("\x1f\x7f\x85\x9f\xa0", ":") == "%1F%7F%C2%85%C2%9F\xa0"
