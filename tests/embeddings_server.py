"""A small server of ``/v1/embeddings`` with faults, for tests."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SIZE = 6


def vector_of(text: str) -> list[float]:
    """A vector that the text alone decides."""
    return [byte / 255 for byte in hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:SIZE]]


@dataclass
class Server:
    """What the server does, and what it has seen.

    Attributes:
        faults: of the first requests, one each: a status, ``slow``, ``half``, ``few``, ``nan``, ``sizes`` or ``drop``.
        forever: the last fault comes again and again.
        retry_after: header of a status.
        words: body of a status; ``{key}`` is the key that came.
        shuffled: embeddings come in another order, with their index.
        seen: bodies of all requests.
        keys: their Authorization headers.
    """

    faults: list[Any] = field(default_factory=list)
    forever: bool = False
    retry_after: str = ""
    words: str = '{"error": "no"}'
    shuffled: bool = True
    location: str = ""
    seen: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def next_fault(self) -> Any:
        """The fault of this request, None for none."""
        if not self.faults:
            return None
        return self.faults[0] if self.forever and len(self.faults) == 1 else self.faults.pop(0)


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Address of the running server, as ``endpoint`` takes it."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Prints nothing."""

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.seen.append(json.loads(body or b"{}"))
            server.keys.append(self.headers.get("Authorization"))
            server.paths.append(self.path)
            answer(self, server, server.seen[-1], server.next_fault())

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1"
    finally:
        running.shutdown()
        running.server_close()


def answer(handler: BaseHTTPRequestHandler, server: Server, asked: dict, fault: Any) -> None:
    """Send the embeddings, or the fault."""
    if isinstance(fault, int):
        words = server.words.replace("{key}", str(server.keys[-1])).encode()
        handler.send_response(fault)
        if server.retry_after:
            handler.send_header("Retry-After", server.retry_after)
        if server.location:
            handler.send_header("Location", server.location)
        handler.send_header("Content-Length", str(len(words)))
        handler.end_headers()
        handler.wfile.write(words)
        return
    if fault == "drop":
        handler.close_connection = True
        return
    if fault == "slow":
        time.sleep(0.6)
    texts = asked["input"]
    data = [{"index": place, "embedding": vector_of(text)} for place, text in enumerate(texts)]
    if fault == "few":
        data = data[:-1]
    if fault == "nan":
        data[0]["embedding"][0] = float("nan")
    if fault == "sizes":
        data[0]["embedding"] = data[0]["embedding"][:-1]
    if server.shuffled:
        data = data[::-1]
    body = json.dumps({"data": data, "usage": {"prompt_tokens": sum(map(len, texts))}}).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    try:
        handler.wfile.write(body[: len(body) // 2] if fault == "half" else body)
    except OSError:  # who asked has gone
        handler.close_connection = True
    if fault == "half":
        handler.close_connection = True
