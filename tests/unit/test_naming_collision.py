"""Other names for a file whose name is taken: the same for a version at any time, and never out of its folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot.spooler.naming import Collision, Facts, Naming
from iot.spooler.naming.collision import marked
from iot.transfer import Fingerprint, IfExists

VERSION = Fingerprint(10, 1_700_000_000 * 10**9, 5, 7)
NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=300)


def others(collision, path=b"a/b.csv", version=VERSION, device="gw", outbox="box"):
    naming = Naming("/up", (), collision, device_id=device, outbox=outbox)
    return naming.alternatives(path, naming.destination(path, Facts(version.mtime_ns)), version)


def test_which_names_are_tried_instead():
    (digits,) = others(Collision.UNIQUE)
    digits = digits.removeprefix("/up/a/b-").removesuffix(".csv")
    assert len(digits) == 8
    assert others(Collision.TIMESTAMP) == (
        "/up/a/b-20231114T221320Z.csv",
        f"/up/a/b-20231114T221320Z-{digits}.csv",
    )
    assert others(Collision.TIMESTAMP_ALWAYS) == (f"/up/a/b-20231114T221320Z-{digits}.csv",)
    assert [others(each) for each in (Collision.OVERWRITE, Collision.SKIP, Collision.FAIL)] == [(), (), ()]


def test_timestamp_always_is_part_of_every_name_and_recorded():
    naming = Naming("/up", (), Collision.TIMESTAMP_ALWAYS, device_id="d", outbox="o")
    assert naming.destination(b"a/b.csv", Facts(VERSION.mtime_ns)) == "/up/a/b-20231114T221320Z.csv"
    assert naming.decided
    assert naming.rule != Naming("/up", (), device_id="d", outbox="o").rule


def test_the_digits_belong_to_device_outbox_path_and_version():
    found = [
        others(Collision.UNIQUE),
        others(Collision.UNIQUE, device="gw2"),
        others(Collision.UNIQUE, outbox="box2"),
        others(Collision.UNIQUE, version=VERSION._replace(size=11)),
        others(Collision.UNIQUE, version=VERSION._replace(mtime_ns=VERSION.mtime_ns + 1)),
    ]
    assert len(set(found)) == len(found)
    touched = VERSION._replace(ctime_ns=6, inode=8)  # a remount, a chmod: the same version
    assert others(Collision.UNIQUE, version=touched) == found[0]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/up/a.csv", "/up/a-M.csv"),
        ("a", "a-M"),
        ("a.b/c", "a.b/c-M"),
        ("a/.hidden", "a/.hidden-M"),
        ("a/x.tar.gz", "a/x.tar-M.gz"),
        ("a/x.", "a/x-M."),
    ],
)
def test_the_mark_comes_before_the_ending(path, name):
    assert marked(path, "M") == name


@given(st.lists(NAME, min_size=1, max_size=3).map("/".join), st.sampled_from(["20231114T221320Z", "0badcafe"]))
def test_a_marked_name_stays_in_its_folder_and_fits(path, mark):
    found = marked(path, mark)
    assert found.rpartition("/")[0] == path.rpartition("/")[0]
    name, was = found.rpartition("/")[2], path.rpartition("/")[2]
    assert f"-{mark}" in name
    ending = was.rpartition(".")[2].encode("utf-8", "surrogateescape")
    if len(ending) < 200:
        assert len(name.encode("utf-8", "surrogateescape")) <= 255
    assert name not in ("", ".", "..", was)


def test_what_each_policy_asks_of_a_transfer():
    assert {each.value: each.if_exists for each in Collision} == {
        "overwrite": IfExists.OVERWRITE,
        "skip": IfExists.SKIP,
        "fail": IfExists.FAIL,
        "timestamp": IfExists.RENAME,
        "timestamp-always": IfExists.RENAME,
        "unique": IfExists.RENAME,
    }


def test_a_name_is_cut_by_no_more_than_it_must_and_to_255_bytes():
    for length in range(240, 256):
        name = marked("é" * (length // 2) + "x" * (length % 2), "M")
        assert 254 <= len(name.encode()) <= 255 or length + 2 < 254


def test_a_name_that_just_fits_is_not_cut_and_the_mark_and_the_ending_never_are():
    assert marked("a/" + "x" * 249 + ".csv", "M") == "a/" + "x" * 249 + "-M.csv"
    assert marked("a/" + "x" * 250 + ".csv", "M") == "a/" + "x" * 249 + "-M.csv"
    assert marked("x.csv", "M" * 300) == f"-{'M' * 300}.csv"


def test_the_digits_of_two_names_that_are_one_when_written_together_differ():
    assert others(Collision.UNIQUE, device="ab", outbox="c") != others(Collision.UNIQUE, device="a", outbox="bc")
