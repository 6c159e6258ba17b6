"""Templates of destinations: what each field gives, what is refused, and what no field can do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.spooler.naming import Action, Facts, Naming, Rule, Template

FACTS = Facts(1_700_000_000 * 10**9 + 5, 42, "0badcafe", "deadbeef")
TEMPLATES = (
    "{date}",
    "{date:%Y/%m/%d}",
    "{mtime}",
    "{mtime:%G-W%V_%j %H:%M:%S %y %s %%}",
    "{boot_id}",
    "{seq}",
    "{seq:19}",
    "{hash8}",
    "{device_id}",
    "{outbox}",
)


def named(template, path=b"f", facts=FACTS):
    return Naming(template, device_id="gw-1", outbox="logs").destination(path, facts)


@pytest.mark.parametrize(
    ("template", "folder"),
    [
        ("/up/{date:%Y/%m/%d}", "/up/2023/11/14"),
        ("{mtime}", "20231114T221320Z"),
        ("{mtime:%H%M%S}", "221320"),
        ("{mtime:%G-W%V_%j %y %s %%}", "2023-W46_318 23 1700000000 %"),
        ("{boot_id}-{seq}", "0badcafe-0000000042"),
        ("{seq:1}", "42"),
        ("{seq:4}", "0042"),
        ("{device_id}/{outbox}/{hash8}", "gw-1/logs/deadbeef"),
    ],
)
def test_each_field_gives_what_it_says(template, folder):
    assert named(template, b"a/b") == f"{folder}/a/b"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{user}", r"unknown \{user\}; known are \{device_id\}, .*\{hash8\}"),
        ("{date:%Q}", r"\{date:%Q\}: unknown %Q; known are %Y "),
        ("{mtime:%}", r"\{mtime:%\}: unknown %; known are"),
        ("{mtime:%B}", r"unknown %B"),  # the language of the device must not decide where files go
        ("{seq:x}", r"\{seq:x\}: the format is the least number of digits, 1 to 19"),
        ("{seq:0}", r"1 to 19"),
        ("{seq:20}", r"1 to 19"),
        ("{seq:٣}", r"1 to 19"),
        ("{device_id:%Y}", r"\{device_id\} takes no format"),
        ("{hash8:4}", r"\{hash8\} takes no format"),
        ("{date:../%Y}", r'must not contain "\.\."'),
        ("{date:%Y", r"unpaired"),
        ("/up/{{date}}", r"unpaired"),
    ],
)
def test_what_is_wrong_with_a_template_is_named(template, reason):
    with pytest.raises(ValueError, match=reason):
        Template(template)


@given(
    st.lists(st.sampled_from([*TEMPLATES, "/", "x", " "]), min_size=1).map("".join),
    st.integers(-(2**63) * 10**9, 2**63 * 10**9),
    st.integers(1, 2**62),
)
def test_no_file_time_and_no_number_leads_out_of_the_base(template, mtime_ns, seq):
    found = named(f"/base/{template}", b"a/name", Facts(mtime_ns, seq))
    assert found.startswith("/base/")
    assert found.endswith("/a/name")
    assert ".." not in found.split("/")
    assert "\0" not in found


@given(st.lists(st.integers(1, 10**10 - 1), min_size=2, unique=True))
def test_names_with_a_number_sort_in_the_order_of_the_numbers(numbers):
    names = [named("{seq}", facts=Facts(0, number)) for number in numbers]
    assert [int(name[:10]) for name in sorted(names)] == sorted(numbers)


def test_only_names_that_time_and_path_do_not_give_are_recorded():
    kept = ["/up", "{date}", "/{device_id}/{outbox}"]
    decided = ["{date:%Y}", "{mtime}", "{boot_id}", "{seq}", "{hash8}"]
    assert [Naming(each, device_id="d", outbox="o").decided for each in kept + decided] == [False] * 3 + [True] * 5
    assert [Naming(each, device_id="d", outbox="o").needs_hash for each in decided] == [False] * 4 + [True]


def test_a_prefix_with_the_hash_of_the_content_needs_it():
    rules = [Rule("*", Action.PREFIX, "{hash8}-")]
    assert Naming("up", rules, device_id="d", outbox="o").needs_hash


@pytest.mark.parametrize(
    ("mtime_ns", "shown"), [(-1, "19691231T235959Z"), (1_799_999_999_999_999_999, "20270115T075959Z")]
)
def test_a_second_is_not_begun_before_it_is(mtime_ns, shown):
    assert named("{mtime}", facts=Facts(mtime_ns)) == f"{shown}/f"


def test_another_way_to_encode_names_is_another_naming():
    rules = {Naming("/up", device_id="d", outbox="o", percent_encode=each).rule for each in ("", ":", ":?")}
    assert len(rules) == 3
