"""What can pass is tried again, what cannot is one line, and the key is said to nobody else."""

import threading
import time

import numpy as np
import pytest
from embeddings_server import SIZE, Server, serving, vector_of

from recdistill.errors import InputError
from recdistill.views.embeddings_client import EmbeddingsClient, PassingFault, vectors_of, wait_asked

TEXTS = ["one", "two", "ünï 🙂"]
KEY = "sk-very-secret-0123456789"


def client(address: str, **more) -> EmbeddingsClient:
    settings = {"key_variable": "A_KEY", "retries": 4, "seconds": 5.0, "first_wait": 0.01}
    return EmbeddingsClient(f"{address}/embeddings", "some-model", **(settings | more))


def test_vectors_in_the_order_of_the_texts() -> None:
    server = Server(shuffled=True)
    with serving(server) as address:
        vectors, tokens = client(address).embeddings(TEXTS)
    np.testing.assert_allclose(vectors, [vector_of(text) for text in TEXTS], rtol=1e-6)
    assert (vectors.dtype, vectors.shape, tokens) == (np.float32, (3, SIZE), sum(map(len, TEXTS)))
    assert server.seen == [{"model": "some-model", "input": TEXTS, "encoding_format": "float"}]
    assert (server.paths, server.keys) == (["/v1/embeddings"], [None])


@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, 504, "half", "few", "nan", "sizes", "drop", "slow"])
def test_what_can_pass_is_tried_again(fault: object) -> None:
    server = Server(faults=[fault, fault])
    with serving(server) as address:
        vectors, _ = client(address, seconds=0.3).embeddings(TEXTS)
    np.testing.assert_allclose(vectors, [vector_of(text) for text in TEXTS], rtol=1e-6)
    assert len(server.seen) == 3


@pytest.mark.parametrize("fault", [429, "half", "drop"])
def test_in_the_end_it_is_given_up_in_one_line(fault: object) -> None:
    server = Server(faults=[fault], forever=True)
    with (
        serving(server) as address,
        pytest.raises(InputError, match=r"^view_endpoint=http://127.*, 3 times; ") as caught,
    ):
        client(address, retries=2).embeddings(TEXTS)
    assert len(server.seen) == 3
    assert "\n" not in str(caught.value)


def test_nobody_there() -> None:
    with serving(Server()) as address:
        pass
    with pytest.raises(InputError, match=r"no answer \(.*\), 2 times; see whether the server runs"):
        client(address, retries=1).embeddings(TEXTS)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_cannot_pass_is_said_at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    server = Server(faults=[status], words="Incorrect key: {key}\nsee sk-ver**** 6789", forever=True)
    with serving(server) as address, pytest.raises(InputError, match=f"status {status} ") as caught:
        client(address).embeddings(TEXTS)
    said = str(caught.value)
    assert len(server.seen) == 1
    assert "\n" not in said
    # A port may have the key's last digits.
    assert not [part for part in (KEY, KEY[:6], KEY[-4:]) if part in said.replace(address, "")]
    assert server.keys == [f"Bearer {KEY}"]
    assert "A_KEY" in said


def test_the_key_follows_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    other = Server()
    with serving(other) as elsewhere:
        server = Server(faults=[307, 302], location=f"{elsewhere}/embeddings")
        with serving(server) as address:
            for status in (307, 302):
                with pytest.raises(InputError, match=f"status {status}"):
                    client(address).embeddings(TEXTS)
    assert (other.seen, other.keys) == ([], [])


def test_a_key_that_is_no_header_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-secret\nX: y")
    with serving(Server()) as address, pytest.raises(InputError, match="see that A_KEY holds a plain key") as caught:
        client(address).embeddings(TEXTS)
    assert "secret" not in str(caught.value)


def test_the_key_is_in_nothing_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    assert KEY not in repr(client("http://localhost"))


def test_waits_are_longer_each_time_and_as_the_server_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with serving(Server(faults=[503, 503, 503, 503])) as address:
        client(address, first_wait=1.0).embeddings(TEXTS)
    assert all(2**place / 2 <= wait <= 2**place for place, wait in enumerate(waits))
    assert len(waits) == 4
    del waits[:]
    with serving(Server(faults=[429, 429], retry_after="7")) as address:
        client(address).embeddings(TEXTS)
    assert waits == [7.0, 7.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", None), (None, None), ("inf", None)],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert wait_asked(header) == seconds


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b'{"data": null}', b'{"data": []}', b'{"data": [{"embedding": "AAAA"}]}',
        b'{"data": [{"embedding": []}]}', b'{"data": [{"index": 4, "embedding": [1.0]}]}', b'{"data": [3]}',
        b'{"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}', b'{"data": [{"embedding": [null]}]}', b"\xff",
    ],
)  # fmt: skip
def test_answers_that_are_none(body: bytes) -> None:
    with pytest.raises(PassingFault):
        vectors_of(body, 1)


def test_answers_without_index_or_usage_count() -> None:
    vectors, tokens = vectors_of(b'{"data": [{"embedding": [1]}, {"embedding": [2]}], "usage": null}', 2)
    assert (vectors.tolist(), tokens) == ([[1.0], [2.0]], 0)


def test_the_server_of_these_tests_ends() -> None:
    with serving(Server()):
        pass
    assert not [one for one in threading.enumerate() if "serve_forever" in one.name]
