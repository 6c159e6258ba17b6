"""What is wrong with a host, a port, a user or a password: in words that never repeat a secret."""

from __future__ import annotations

import pytest

from iot.transfer.address import host_problems, port_problems, text_problems

NO_NAME = "host: must be a name or an address (got "
NOT_ALONE = "host: must be a name or an address alone, without user, port, path or space"


@pytest.mark.parametrize(
    "host", ["h", "files.example.com", "192.0.2.1", "2001:db8::1", "[2001:db8::1]", "bücher.example"]
)
def test_a_name_or_an_address_is_a_host(host: str) -> None:
    assert list(host_problems("host", host)) == []


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("", NO_NAME + "'')"),
        (" \t", NO_NAME + "' \\t')"),
        (None, NO_NAME + "None)"),
        (7, NO_NAME + "7)"),
        (0.5, NO_NAME + "0.5)"),
        (b"secret", NO_NAME + "bytes)"),
        (["secret"], NO_NAME + "list)"),
        *((host, NOT_ALONE) for host in ("u@h", "h/path", "h:22", "two words", "h\t", "h\n", "h\r", "h\0", "h\u00a0x")),
    ],
)
def test_what_is_no_host_is_told_without_what_may_be_a_secret(host: object, problem: str) -> None:
    assert list(host_problems("host", host)) == [problem]


@pytest.mark.parametrize("port", [None, 1, 22, 65535])
def test_a_port_is_a_number_that_tcp_has_or_none(port: int | None) -> None:
    assert list(port_problems("port", port)) == []


@pytest.mark.parametrize(
    ("port", "shown"),
    [(0, "0"), (-1, "-1"), (65536, "65536"), (True, "True"), (22.0, "22.0"), ("22", "str"), ("", "''"), ([], "list")],
)
def test_what_is_no_port_is_told_with_its_value_where_that_is_harmless(port: object, shown: str) -> None:
    assert list(port_problems("port", port)) == [f"port: must be a whole number from 1 to 65535 (got {shown})"]


@pytest.mark.parametrize("text", ["", "user", "pass word", "pässword\t"])
def test_any_text_on_one_line_will_do_for_a_user_or_a_password(text: str) -> None:
    assert list(text_problems("password", text)) == []


@pytest.mark.parametrize("text", ["a\n", "\ra", "a\0b"])
def test_what_would_end_the_line_of_a_protocol_is_refused_and_not_repeated(text: str) -> None:
    assert list(text_problems("password", text)) == ["password: must not contain a line end or NUL"]


def test_what_is_no_text_is_told_by_its_type_alone() -> None:
    assert list(text_problems("user", 5)) == ["user: must be text (got int)"]
    assert list(text_problems("user", None)) == ["user: must be text (got NoneType)"]
