"""The endpoint's vectors are asked for once, and what has come before a fault is kept."""

import numpy as np
import pytest
from embeddings_server import Server, serving, vector_of

from recdistill.errors import InputError
from recdistill.views import frozen_view
from recdistill.views.build import build_view
from recdistill.views.endpoint import EndpointOptions, check_address

TEXTS = [f"film {place}" for place in range(10)]


def view_of(address: str, **more):
    return build_view(
        "endpoint", EndpointOptions(view_endpoint=address, view_endpoint_model="m", view_endpoint_retries=0, **more)
    )


def test_each_text_is_asked_for_once_in_batches() -> None:
    server = Server()
    with serving(server) as address:
        found = view_of(address, view_endpoint_batch=4).vectors([*TEXTS, *TEXTS])
        again = view_of(f"{address}/", view_endpoint_batch=3).vectors(TEXTS)
    np.testing.assert_allclose(found, [vector_of(text) for text in TEXTS] * 2, rtol=1e-6)
    np.testing.assert_array_equal(again, found[:10])
    assert [len(one["input"]) for one in server.seen] == [4, 4, 2]


def test_what_came_before_a_fault_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_view, "KEEP_SECONDS", 0.0)
    server = Server(faults=[None, None, 503])
    with serving(server) as address:
        with pytest.raises(InputError, match="status 503"):
            view_of(address, view_endpoint_batch=3).vectors(TEXTS)
        view_of(address, view_endpoint_batch=3).vectors(TEXTS)
    assert [len(one["input"]) for one in server.seen] == [3, 3, 3, 3, 1]


def test_a_blank_text_is_not_sent_empty_and_tokens_are_shared_out() -> None:
    server = Server()
    with serving(server) as address:
        view = view_of(address)
        view.vectors(["", "abc", "abcdef"])
        assert "" not in server.seen[0]["input"]
        assert view.cost(["", "abc", "abcdef"]).tokens == 10
        assert view.cost(["abcdef"]).tokens == 6


def test_another_model_is_another_identity() -> None:
    one, other = (build_view("endpoint", EndpointOptions(view_endpoint_model=name)) for name in ("a", "b"))
    assert one.identity() != other.identity()


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://host/v1", "http://", "/v1", "http://[::1/v1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InputError, match="is no address; write it as http://localhost:8000/v1"):
        check_address(address)


@pytest.mark.parametrize("address", ["http://me:secret@host/v1", "https://host/v1?key=secret", "http://secret@host"])
def test_a_secret_in_an_address_is_refused_and_not_said(address: str) -> None:
    with pytest.raises(InputError, match="in the environment variable that view_endpoint_key names") as caught:
        check_address(address)
    assert "secret" not in str(caught.value)


def test_a_model_must_be_named() -> None:
    with pytest.raises(InputError, match=r"^view_endpoint_model=: is empty"):
        build_view("endpoint").check()
