"""The view ``endpoint``: vectors from a server that speaks OpenAI's ``/v1/embeddings``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.embeddings_client import EmbeddingsClient
from recdistill.views.frozen_view import FrozenView
from recdistill.views.view import Float32Array, ViewContext


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Options of the view. The key is no option: it would be logged."""

    view_endpoint: str = option("http://localhost:8000/v1", "address of a server with OpenAI's /embeddings")
    view_endpoint_model: str = option("", "name of the embedding model there")
    view_endpoint_key: str = option(
        "OPENAI_API_KEY", "environment variable that holds the server's key; none is sent where it is not set",
        role="place",
    )  # fmt: skip
    view_endpoint_batch: int = option(64, "texts of a request", role="place", least=1)
    view_endpoint_retries: int = option(
        6, "tries again after a refusal or silence, each waiting longer", role="place", least=0
    )
    view_endpoint_seconds: float = option(60.0, "most seconds to wait for an answer", role="place", above=0)


@VIEWS.register("endpoint", options=EndpointOptions)
class EndpointView(FrozenView):
    """Vectors of a model behind an address, as the server gives them; kept by text, so that each is asked for once."""

    options: EndpointOptions
    batch_characters = 1 << 20

    def __init__(self, options: EndpointOptions, context: ViewContext) -> None:
        super().__init__(options, context)
        self.batch_texts = options.view_endpoint_batch
        self.client = EmbeddingsClient(
            options.view_endpoint.rstrip("/") + "/embeddings",
            options.view_endpoint_model,
            key_variable=options.view_endpoint_key,
            retries=options.view_endpoint_retries,
            seconds=options.view_endpoint_seconds,
        )

    def check(self) -> None:
        """Raise InputError where the address is none, or no model is named. The server is not asked."""
        check_address(self.options.view_endpoint)
        if not self.options.view_endpoint_model:
            raise InputError("view_endpoint_model=: is empty; give the name of the embedding model at the endpoint")

    def identity(self) -> dict[str, Any]:
        """Address and model; a server says no more of itself."""
        return {"endpoint": self.options.view_endpoint.rstrip("/"), "model": self.options.view_endpoint_model}

    def encode(self, texts: Sequence[str]) -> tuple[Float32Array, NDArray[np.int64]]:
        """Vectors float32 [n, D] and tokens [n], the request's shared out by length. Raises InputError."""
        self.check()
        # Servers refuse an empty input.
        given = [text if text.strip() else " " for text in texts]
        vectors, tokens = self.client.embeddings(given)
        share = np.cumsum([len(text) for text in given]) / sum(map(len, given))
        return vectors, np.diff(np.round(tokens * share), prepend=0).astype(np.int64)


def check_address(address: str) -> None:
    """Raise InputError unless it is a plain http address; one that holds a password or a key is refused unsaid."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        secret = parts.username is not None or parts.password is not None or bool(parts.query)
    except ValueError:
        usable = secret = False
    if secret:
        raise InputError(
            "view_endpoint=…: holds a name, password or query, which would be logged; give the plain address, and the "
            "key in the environment variable that view_endpoint_key names"
        )
    if not usable:
        raise InputError(f"view_endpoint={address}: is no address; write it as http://localhost:8000/v1")
