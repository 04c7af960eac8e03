"""Requests under faults, and answers on disk."""

import email.utils
import socket
import time
from types import SimpleNamespace

import pytest
from fake_server import KEY, serving

from recdistill.errors import InputError
from recdistill.teachers.endpoint import client as module
from recdistill.teachers.endpoint.client import AnswerCache, Server, checked_address, seconds_asked_for

BODY = {"model": "m", "messages": [{"role": "user", "content": "[1] A\n[2] B"}]}


def server_of(fake, **changes):
    options = {"key_variable": "SOME_KEY", "timeout": 1.0, "tries": 4, "wait": 0.01} | changes
    return Server(fake.address, **options)


def ask(server):
    return server.post("/chat/completions", BODY, "choices")


@pytest.mark.parametrize(
    "fault", [408, 429, 500, 503, 504, 520, 529, "slow", "half", "nonsense", "hang up", "no choices"]
)
def test_a_passing_fault_is_tried_again(fault):
    with serving() as fake:
        fake.faults = [fault, fault]
        assert ask(server_of(fake))["choices"][0]["message"]["content"] == "[2] > [1]"
        assert len(fake.heads) == 3


def test_it_waits_as_long_as_the_server_asks(monkeypatch):
    waits = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waits.append, time=time.time))
    with serving() as fake:
        fake.faults, fake.retry_after = [429, 429, 503], "7"
        ask(server_of(fake, wait=1.0))
    assert waits[:2] == [7, 7]
    assert 4 <= waits[2] <= 5


def test_waits_double_and_end(monkeypatch):
    waits = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=waits.append, time=time.time))
    with serving() as fake:
        fake.faults = [503] * 12
        with pytest.raises(InputError, match="no whole answer after 12 tries"):
            ask(server_of(fake, wait=1.0, tries=12))
    assert len(waits) == 11
    assert all(2**number <= wait <= 1.25 * 2**number for number, wait in enumerate(waits[:5]))
    assert max(waits) <= 60


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404])
def test_a_refusal_is_one_line_at_once(status):
    with serving() as fake:
        fake.faults = [status] * 9
        with pytest.raises(InputError, match=f"refuses the request .HTTP {status}") as caught:
            ask(server_of(fake))
        assert len(fake.heads) == 1
    assert "\n" not in str(caught.value)


def test_a_dead_server_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}/v1", "", 1.0, 2, 0.01)
    with pytest.raises(InputError, match=r"no whole answer after 2 tries \(.*refused.*\); what was answered") as caught:
        ask(server)
    assert "\n" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch):
    with serving() as fake:
        fake.needs_key = True
        with pytest.raises(InputError, match=r"wrong key.*environment variable SOME_KEY"):
            ask(server_of(fake))
        monkeypatch.setenv("SOME_KEY", "sk-another")
        with pytest.raises(InputError) as caught:
            ask(server_of(fake))
        assert "sk-another" not in str(caught.value)
        monkeypatch.setenv("SOME_KEY", KEY)
        assert ask(server_of(fake))["choices"]
        fake.faults = [302]
        with pytest.raises(InputError) as caught:
            ask(server_of(fake))
        assert KEY not in str(caught.value) + repr(server_of(fake))


def test_what_a_server_asks_to_wait():
    assert seconds_asked_for("3.5") == 3.5
    assert seconds_asked_for("-1") == 0
    assert seconds_asked_for(None) == seconds_asked_for("soon") == 0
    assert 8 < seconds_asked_for(email.utils.formatdate(time.time() + 10)) <= 10


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("https://example.org/openai/v1", "https://example.org/openai/v1"),
    ],
)
def test_addresses(address, found):
    assert checked_address(address) == found


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "is empty"),
        ("localhost:8000", "is no address"),
        ("file:///etc/passwd", "is no address"),
        ("http://user:secret@host/v1", "an address is logged"),
        ("http://host/v1?key=secret", "an address is logged"),
    ],
)
def test_what_is_no_address_is_refused(address, said):
    with pytest.raises(InputError, match=said) as caught:
        checked_address(address)
    assert "secret" not in str(caught.value)


def test_an_answer_is_kept_by_what_was_asked(tmp_path):
    cache, calls = AnswerCache(tmp_path / "kept"), []

    def answer():
        calls.append(1)
        return {"choices": [len(calls)]}

    assert cache.kept(BODY, answer) == ({"choices": [1]}, True)
    assert cache.kept(dict(reversed(BODY.items())), answer) == ({"choices": [1]}, False)
    assert cache.kept(BODY | {"model": "other"}, answer) == ({"choices": [2]}, True)
    cache.path(BODY).write_text('{"choices": [')
    assert cache.kept(BODY, answer) == ({"choices": [3]}, True)
    assert not list((tmp_path / "kept").rglob("*.part"))
