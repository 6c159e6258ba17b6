"""Destinations, patterns, and names made safe to show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.spooler.naming import Action, Collision, Facts, Naming, Rule, Template, UnsafeName, shown
from iot.spooler.naming.naming import destination_for
from iot.spooler.patterns import check_pattern, wanted


def dest(path, template="/up", mtime_ns=0):
    naming = Naming(template, device_id="gw-1", outbox="logs")
    assert not naming.decided
    found = destination_for(path, naming.rule, mtime_ns)
    assert naming.destination(path, Facts(mtime_ns)) == found
    return found


def test_the_tree_is_preserved_below_the_destination():
    assert dest(b"a/b c/d", "/up/{device_id}/{outbox}/{date}", 86_400 * 10**9) == "/up/gw-1/logs/1970-01-02/a/b c/d"
    assert dest(b"a", "/") == "/a"
    assert dest(b"a", "rel") == "rel/a"


@pytest.mark.parametrize("path", [b"", b"/etc/passwd", b"a/../b", b"..", b"a//b", b"a/", b"a\0b", b"."])
def test_a_path_that_would_escape_is_refused(path):
    with pytest.raises(UnsafeName):
        dest(path)
    with pytest.raises(UnsafeName):
        Naming("/up", device_id="gw-1", outbox="logs").destination(path, Facts(0))


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name and b"/" not in name and name not in (b".", b"..")))
def test_every_byte_of_a_name_arrives(name):
    assert dest(name).encode("utf-8", "surrogateescape") == b"/up/" + name


@pytest.mark.parametrize(
    ("second", "day"),
    [
        (0, "1970-01-01"),
        (-1, "1969-12-31"),
        (-(2**31), "1901-12-13"),
        (13_569_465_600, "2400-01-01"),
        (15_032_385_535, "2446-05-10"),
        (253_402_300_799, "9999-12-31"),
        (2**63 - 1, "9999-12-31"),
        (-(2**63), "0001-01-01"),
    ],
)
def test_any_file_time_gives_its_day(second, day):
    assert dest(b"x", "{date}", second * 10**9) == f"{day}/x"


def test_a_name_that_reads_like_a_placeholder_is_no_placeholder():
    naming = Naming("/{outbox}", device_id="d", outbox="{date}")
    assert destination_for(b"{date}", naming.rule, 0) == "/{date}/{date}"
    assert naming.destination(b"{seq}", Facts(0)) == "/{date}/{seq}"


@pytest.mark.parametrize("template", ["/up/{user}", "/up/{", "/a/../b", "a\0", "{{device_id}}"])
def test_a_bad_template_is_told(template):
    with pytest.raises(ValueError, match=r".+"):
        Template(template)


@given(st.binary())
def test_shown_names_are_one_harmless_line(name):
    text = shown(name)
    assert text.isprintable()
    assert "\x1b" not in text
    text.encode("utf-8")


def test_patterns_match_the_whole_path_and_star_crosses_folders():
    accepts = wanted(["*.csv", r"re:img/\d+\.jpg"], ["tmp/*"])
    assert accepts("a/b/c.csv")
    assert accepts("img/12.jpg")
    assert not accepts("img/12.jpg.old")
    assert not accepts("tmp/x.csv")
    assert not wanted(["*.csv"], [])("A.CSV")
    assert wanted(["*.csv"], [], ignore_case=True)("A.CSV")
    assert wanted([], [])("anything\nat all")
    with pytest.raises(ValueError, match="regular expression"):
        check_pattern("re:(")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", "a"), ("é", "é"), ("ÿĀ", "ÿĀ"), ("", '""'), ("a b", '"a b"'), ("a=b", '"a=b"'), (' "', r'" \""'),
        ('a"', r'"a\""'), ("a\\b", r'"a\\b"'), ("a\nb", r'"a\x0ab"'), ("\x1f\x7f\x9f", r'"\x1f\x7f\x9f"'),
        ("\xad", r'"\xad"'), ("ĀĀ\u0378", r'"ĀĀ\u0378"'), ("\uffff", r'"\uffff"'), ("\U0001000c", r'"\U0001000c"'),
        (b"\x80\xff", r'"\x80\xff"'), (b"\xc3\xa9", "é"), ("\ud800\udc7f\udd00", r'"\ud800\udc7f\udd00"'),
    ],
)  # fmt: skip
def test_a_shown_name_is_itself_or_in_quotes_with_all_that_is_odd_as_its_number(name, text):
    assert shown(name) == text


def test_what_a_naming_says_of_itself():
    def made(destination="/up", *rules, **more):
        naming = Naming(destination, rules, device_id="d", outbox="o", **more)
        return naming.decided, naming.needs_hash, naming.may_take_long, naming.part_suffixes

    nothing = frozenset()
    assert made() == made("/{device_id}/{outbox}/{date}") == (False, False, False, nothing)
    assert made("/{seq}") == made(percent_encode=":") == made(compression="gzip") == (True, False, False, nothing)
    assert made(more_fields=["hash8"]) == (False, True, False, nothing)
    assert made("/{hash8}") == made("/up", Rule("*", Action.PREFIX, "{hash8}")) == (True, True, False, nothing)
    assert made("/up", Rule("*", Action.REPLACE, "b", "a")) == (True, False, True, nothing)
    assert made("/up", Rule("*", Action.TEMPORARY_SUFFIX, ".tmp")) == (True, False, False, {".tmp"})
    assert made(collision=Collision.TIMESTAMP_ALWAYS) == (True, False, False, nothing)
    assert made(collision=Collision.UNIQUE) == (False, False, False, nothing)


def test_namings_that_give_other_names_have_other_rules():
    rule = Rule("*", Action.LOWERCASE)
    different = [
        Naming("/up", device_id="d", outbox="o"),
        Naming("/{device_id}", device_id="d", outbox="o"),
        Naming("/up", [rule], device_id="d", outbox="o"),
        Naming("/up", [rule], device_id="e", outbox="o"),
        Naming("/up", [rule], device_id="d", outbox="p"),
        Naming("/up", [rule], device_id="d", outbox="o", ignore_case=True),
        Naming("/up", [rule], device_id="d", outbox="o", percent_encode=":"),
        Naming("/up", [rule], device_id="d", outbox="o", compression="gzip"),
        Naming("/up", [rule], Collision.TIMESTAMP_ALWAYS, device_id="d", outbox="o"),
    ]
    assert len({naming.rule for naming in different}) == len(different)
    assert Naming("/up", [rule], Collision.SKIP, device_id="d", outbox="o").rule == different[2].rule
