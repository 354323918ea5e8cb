"""Addresses: what is local, what is refused, and whose data may go where. Nothing is sent anywhere."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from umif.errors import InputError
from umif.language.llm import Item, check_permission, endpoint, restricted
from umif.language.llm.endpoint import Endpoint, is_local


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def lookup(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.mark.parametrize(
    ("addresses", "local"),
    [
        (["127.0.0.1"], True),
        (["::1"], True),
        (["10.1.2.3"], True),
        (["172.31.0.9"], True),
        (["192.168.7.7"], True),
        (["fd00::5"], True),
        (["fe80::1%eth0"], True),
        (["::ffff:10.0.0.1"], True),
        (["172.32.0.1"], False),
        (["8.8.8.8"], False),
        (["169.254.169.254"], False),
        (["100.64.0.1"], False),
        (["0.0.0.0"], False),
        (["::ffff:8.8.8.8"], False),
        (["2001:db8::1"], False),
        (["127.0.0.1", "8.8.8.8"], False),
    ],
)
def test_local_is_what_leads_nowhere_else(monkeypatch: pytest.MonkeyPatch, addresses: list[str], local: bool) -> None:
    resolving(monkeypatch, *addresses)
    assert is_local("some-host") is local


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://127.0.0.1/v1/chat/completions", "http://127.0.0.1:80/v1/chat/completions"),
        ("https://127.0.0.1", "https://127.0.0.1:443/chat/completions"),
    ],
)
def test_addresses_as_people_write_them(url: str, expected: str) -> None:
    assert endpoint(url).url == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://127.0.0.1/", "no address"),
        ("127.0.0.1:80", "no address"),
        ("http://127.0.0.1:99999/v1", "no address"),
        ("http://user:pass@127.0.0.1/v1", "name or password"),
        ("http://127.0.0.1/v1?key=abc", "no address"),
        ("http://8.8.8.8/v1", "not encrypted"),
        ("http://no-such-host.invalid/v1", "cannot be found"),
    ],
)
def test_bad_addresses_are_refused(monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    if "invalid" in url:

        def lookup(*_: Any, **__: Any) -> list[Any]:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(InputError, match=message):
        endpoint(url)


def test_a_key_that_could_break_out_of_its_header_is_refused() -> None:
    with pytest.raises(InputError, match="characters"):
        endpoint("http://127.0.0.1/v1", "abc\r\nX-Other: 1")


def far(local: bool = False) -> Endpoint:
    return Endpoint("api.example.org", 443, "/v1/chat/completions", True, local)


@pytest.mark.parametrize("dataset", [None, "mimic-cxr", "no-such-dataset", "chexpert", "table"])
def test_restricted_or_unknown_data_stay_here_unless_permission_is_stated(dataset: str | None) -> None:
    items = [Item("a", dataset, "x"), Item("b", "covid-chestxray", "x")]
    with pytest.raises(InputError, match="restricted") as caught:
        check_permission(items, far(), permitted=False)
    assert "--i-am-permitted-to-send" in str(caught.value)
    assert (dataset or "names no dataset") in str(caught.value)
    assert "covid" not in str(caught.value)
    assert check_permission(items, far(), permitted=True) == restricted(items)
    assert check_permission(items, far(local=True), permitted=False) == []


def test_open_data_may_go_anywhere() -> None:
    assert check_permission([Item("a", "nih-chestxray14", ""), Item("b", "phantom", "")], far(), permitted=False) == []
