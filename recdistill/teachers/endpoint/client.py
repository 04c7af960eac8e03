"""Requests to an OpenAI-compatible server: several at once, tried again with backoff, each answer kept on disk.

An answer is kept by the digest of what was asked (model and text), so that none is paid for twice, whatever killed the
process that asked. The key is read from the environment, sent in a header, and stands nowhere else.
"""

import email.utils
import hashlib
import http.client
import json
import os
import random
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.errors import InputError, one_line

#: HTTP statuses after which it is asked again, beside those from `FAULTS` on.
AGAIN = (408, 409, 425, 429)
FAULTS = 500
FIRST_WAIT, MOST_WAIT = 0.5, 60.0
SHOWN = 200


@dataclass(frozen=True)
class Server:
    """A server and how it is asked.

    Attributes:
        address: as ``http://localhost:8000/v1``, without a slash at its end.
        key_variable: environment variable of its key; a server without keys needs none.
        timeout: seconds to wait for an answer.
        tries: of a request, before it is given up.
        wait: seconds before the second try; doubled for each further one.
    """

    address: str
    key_variable: str
    timeout: float
    tries: int
    wait: float = FIRST_WAIT

    def post(self, path: str, body: dict[str, Any], holds: str) -> dict[str, Any]:
        """The JSON object, with a list ``holds``, that the server answers to a request.

        After a time-out, 429 and the like, and half an answer, it is tried again. Raises InputError, one line, where
        it refuses the request, or no try has a whole answer.
        """
        reason = ""
        for number in range(self.tries):
            asked_wait = 0.0
            try:
                return self._once(path, body, holds)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {said(error)}"
                if error.code not in AGAIN and error.code < FAULTS:
                    raise InputError(self.refusal(path, reason)) from None
                asked_wait = seconds_asked_for(error.headers.get("Retry-After"))
            except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
                reason = one_line(getattr(error, "reason", None) or error) or type(error).__name__
            if number + 1 < self.tries:
                # Some chance, that queries at once do not come back at once.
                backoff = self.wait * 2**number * random.uniform(1, 1.25)
                time.sleep(min(MOST_WAIT, max(backoff, asked_wait)))
        raise InputError(
            f"endpoint={self.address}: {path} has no whole answer after {self.tries} tries ({reason}); what was "
            "answered before is kept: give the same command again when the server is there"
        )

    def _once(self, path: str, body: dict[str, Any], holds: str) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(self.key_variable, "") if self.key_variable else ""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.address}{path}", json.dumps(body).encode(), headers)
        with _opener.open(request, timeout=self.timeout) as answer:
            found = json.loads(answer.read())
        if not isinstance(found, dict) or not isinstance(found.get(holds), list):
            raise ValueError(f"an answer without {holds}")
        return found

    def refusal(self, path: str, reason: str) -> str:
        """The message of a request that is not tried again."""
        what = "give endpoint, endpoint_model and endpoint_form as the server has them"
        if reason.startswith(("HTTP 401", "HTTP 403")):
            what = (
                f"put its key into the environment variable {self.key_variable or 'that endpoint_key_variable names'}"
            )
        return f"endpoint={self.address}: {path} refuses the request ({reason}); {what}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirection would send the key to a server that nobody named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def said(error: urllib.error.HTTPError) -> str:
    """What a server says about an error, in one line, cut short."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    try:
        found = json.loads(text)
        inner = found.get("error", found.get("detail", text)) if isinstance(found, dict) else text
        text = inner.get("message", text) if isinstance(inner, dict) else str(inner)
    except ValueError:
        pass
    return one_line(text, SHOWN) or str(error.reason)


def seconds_asked_for(text: str | None) -> float:
    """Seconds that a ``Retry-After`` header asks to wait: a number, or a date; 0 where it is neither."""
    if not text:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def checked_address(address: str) -> str:
    """The address as requests are made of it. Raises InputError where it is none, or holds what must not be logged."""
    parts = urllib.parse.urlsplit(address)
    if not address:
        raise InputError("endpoint=: is empty; give the server's address, as http://localhost:8000/v1")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"endpoint={address}: is no address; give one as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "endpoint: holds a user, a password or a query, and an address is logged; put the key into the "
            "environment variable that endpoint_key_variable names"
        )
    path = parts.path.rstrip("/") or "/v1"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


@dataclass(frozen=True)
class AnswerCache:
    """Answers on disk, a JSON file each, by the digest of what was asked."""

    folder: Path

    def path(self, asked: dict[str, Any]) -> Path:
        """Where the answer to a request lies."""
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json"

    def read(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The answer kept, or None; a file that cannot be read is none."""
        try:
            found = json.loads(self.path(asked).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, asked: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keep an answer; it appears only whole."""
        path = self.path(asked)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(answer, file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def kept(self, asked: dict[str, Any], ask: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """The answer kept, or else that of ``ask``, which is then kept; and whether it was asked for now."""
        found = self.read(asked)
        if found is not None:
            return found, False
        answer = ask()
        self.write(asked, answer)
        return answer, True
