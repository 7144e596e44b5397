"""HTTP: what is read of a request, who is turned away and how, and what an answer looks like on the wire."""

from __future__ import annotations

import contextlib
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.service.listener import Answer, Request, as_json, objection, parse, plain, render

from ...support.cases import each


def _request(path: str = "/metrics", method: str = "GET", **headers: str) -> Request:
    return Request(method, path, headers)


def _status(request: Request) -> HTTPStatus:
    answer = objection(request)
    return HTTPStatus.OK if answer is None else answer.status


def test_a_request_is_its_method_its_path_and_its_headers() -> None:
    head = b"GET /metrics?name=x HTTP/1.1\r\nHost: localhost:9464\r\nACCEPT:text/plain \r\n\r\n"
    assert parse(head) == Request("GET", "/metrics", {"host": "localhost:9464", "accept": "text/plain"})


def test_a_request_as_proxies_make_it_has_the_same_path() -> None:
    assert parse(b"GET http://localhost:9464/readyz HTTP/1.1\r\n\r\n").path == "/readyz"


def test_a_request_of_http_1_0_without_headers_is_one() -> None:
    assert parse(b"GET /healthz HTTP/1.0\r\n\r\n") == Request("GET", "/healthz", {})


@each(
    "head",
    [
        b"\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET http://[/metrics HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # which one says nothing more
        parse(head)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: b"GET /metrics HTTP/1.1\r\n" + rest))
def test_no_bytes_raise_anything_but_value_error(head: bytes) -> None:
    with contextlib.suppress(ValueError):
        objection(parse(head))


@each("path", ["/metrics", "/healthz", "/readyz"])
@each("method", ["GET", "HEAD"])
def test_every_path_may_be_read(path: str, method: str) -> None:
    assert _status(_request(path, method)) == HTTPStatus.OK


@each("path", ["/", "", "*", "/metrics/", "/Metrics", "/favicon.ico", "/metrics%00"])
def test_an_unknown_path_is_told_which_there_are(path: str) -> None:
    answer = objection(_request(path))
    assert answer is not None
    assert answer.status == HTTPStatus.NOT_FOUND
    assert b"/metrics, /healthz, /readyz" in answer.body


@each("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_nothing_may_be_written(method: str) -> None:
    answer = objection(_request(method=method))
    assert answer is not None
    assert answer.status == HTTPStatus.METHOD_NOT_ALLOWED
    assert ("Allow", "GET, HEAD") in answer.headers


@each("host", ["127.0.0.1:9464", "127.8.9.1", "localhost", "LOCALHOST:80", "[::1]:9464", "[::1]"])
def test_a_host_of_this_machine_is_answered(host: str) -> None:
    assert _status(_request(host=host)) == HTTPStatus.OK


@each("host", ["example.org", "example.org:9464", "127.0.0.1.example.org", "10.0.0.1", "", "[::1", "[::2]", "0.0.0.0"])
def test_another_host_is_refused_whatever_it_asks(host: str) -> None:
    """A page may have bound its own name to this machine."""
    assert _status(_request("/nothing", "POST", host=host)) == HTTPStatus.FORBIDDEN


def test_an_answer_says_how_long_it_is_and_that_it_is_the_last() -> None:
    lines = render(as_json(HTTPStatus.OK, {"status": "ok"})).split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert lines[-2:] == [b"", b'{"status":"ok"}\n']
    assert {b"Content-Length: 16", b"Connection: close", b"Cache-Control: no-store"} < set(lines)


def test_head_is_the_answer_without_its_body() -> None:
    answer = plain(HTTPStatus.NOT_FOUND, "nothing")
    assert render(answer) == render(answer, with_body=False) + answer.body


@given(st.binary())
def test_a_body_is_sent_as_it_is(body: bytes) -> None:
    assert render(Answer(HTTPStatus.OK, [], body)).endswith(b"\r\n\r\n" + body)
