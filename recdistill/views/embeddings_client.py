"""Requests to an OpenAI-compatible ``/embeddings``: what can pass is tried again, what cannot is told in one line."""

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recdistill.errors import InputError, one_line
from recdistill.views.view import Float32Array

#: HTTP statuses after which a later try may do better, beside those from `FAULTS` on.
PASSING = {408, 409, 425, 429}
FAULTS = 500
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds
SHOWN = 150  # characters of a server's words in a message


class PassingFault(Exception):  # noqa: N818
    """A request failed in a way that a later one may not; ``wait`` is what the server asks for, in seconds."""

    def __init__(self, said: str, wait: float | None = None) -> None:
        super().__init__(said)
        self.wait = wait


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for the address that the user gave."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """None, which makes of a redirect an error."""


@dataclass(frozen=True)
class EmbeddingsClient:
    """A server's address and how it is asked.

    Attributes:
        address: of ``/embeddings``.
        model: its name there.
        key_variable: environment variable that holds the key, read at each request and kept nowhere; '' for none.
        retries: tries after the first.
        seconds: most to wait for an answer.
        first_wait: seconds before the second try; each wait is twice the one before, at most a minute.
    """

    address: str
    model: str
    key_variable: str = ""
    retries: int = 6
    seconds: float = 60.0
    first_wait: float = FIRST_WAIT

    def embeddings(self, texts: Sequence[str]) -> tuple[Float32Array, int]:
        """Vectors float32 [n, D] in the order of the texts, and tokens as the server counts them, 0 where it does not.

        Raises InputError, one line, where the server refuses for good or still fails after all tries.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._asked(texts)
            except PassingFault as fault:
                if attempt == self.retries:
                    raise InputError(
                        f"view_endpoint={self.address}: {fault}, {attempt + 1} times; see whether the server runs, or "
                        "raise view_endpoint_retries or view_endpoint_seconds"
                    ) from None
                self._wait(attempt, fault.wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, attempt: int, asked: float | None) -> None:
        """What the server asks for, else twice as long as before, with a random share, so that clients spread."""
        longest = min(LONGEST_WAIT, self.first_wait * 2**attempt)
        spread = random.Random(os.getpid() + attempt).uniform(0.5, 1.0)
        time.sleep(min(LONGEST_WAIT, asked) if asked is not None else longest * spread)

    def _asked(self, texts: Sequence[str]) -> tuple[Float32Array, int]:
        """One request. Raises PassingFault or InputError."""
        body = json.dumps({"model": self.model, "input": list(texts), "encoding_format": "float"}).encode()
        request = urllib.request.Request(self.address, data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        if key:
            # Unredirected: it is never sent to another address.
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=self.seconds) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise self._refusal(error, key) from None
        except (OSError, http.client.HTTPException) as error:  # no connection, a broken one, no answer in time
            reason = getattr(error, "reason", None) or error
            raise PassingFault(f"no answer ({one_line(reason, SHOWN) or type(error).__name__})") from None
        except ValueError:  # what urllib says of a header may hold the key
            raise InputError(
                f"view_endpoint={self.address}: the request cannot be made; see that {self.key_variable} holds a "
                "plain key"
            ) from None
        return vectors_of(text, len(texts))

    def _refusal(self, error: urllib.error.HTTPError, key: str) -> Exception:
        """What a status that is no success means; the server's words without the key, should it repeat it."""
        try:
            words = error.read(4096).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            words = ""
        if key:
            words = words.replace(key, "…")
            # Some servers repeat the first and last characters.
            words = words.replace(key[:6], "…").replace(key[-4:], "…") if len(key) >= 12 else words
        said = f"status {error.code}" + (f" ({one_line(words, SHOWN)})" if words.strip() else "")
        if error.code in PASSING or error.code >= FAULTS:
            return PassingFault(said, wait_asked(error.headers.get("Retry-After")))
        advice = (
            f"see the address, view_endpoint_model={self.model} and the key in "
            f"{self.key_variable or 'view_endpoint_key'}"
        )
        if error.code in (401, 403):
            variable = self.key_variable or "that view_endpoint_key names"
            advice = f"set the environment variable {variable} to a key that it takes"
        return InputError(f"view_endpoint={self.address}: {said}; {advice}")


def wait_asked(header: str | None) -> float | None:
    """Seconds of a ``Retry-After`` in seconds; None where there is none or it is a date."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return max(0.0, seconds) if np.isfinite(seconds) else None


def vectors_of(text: bytes, number: int) -> tuple[Float32Array, int]:
    """Vectors [n, D] in the order of the request, and tokens, of an answer's body.

    Raises PassingFault where it is cut off or has not ``number`` vectors of one size.
    """
    try:
        answer = json.loads(text)
        entries = answer["data"]
        placed = {int(one.get("index", place)): one["embedding"] for place, one in enumerate(entries)}
        vectors = np.array([placed[place] for place in range(number)], dtype=np.float32)
        tokens = int((answer.get("usage") or {}).get("prompt_tokens") or 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PassingFault(f"an answer that is cut off or no list of embeddings ({type(error).__name__})") from None
    if len(entries) != number or vectors.ndim != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
        raise PassingFault(f"{len(entries)} embeddings of shape {list(vectors.shape)} for {number} texts")
    return vectors, tokens
