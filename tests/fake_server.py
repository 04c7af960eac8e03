"""An OpenAI-compatible server of the test's own: it answers from a rule, and fails on demand."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789abcdef"


def reversed_order(text: str) -> str:
    """The numbered candidates of a question, the last one first."""
    numbers = re.findall(r"^\[(\d+)\] ", text, re.M)
    return " > ".join(f"[{number}]" for number in reversed(numbers))


class FakeServer(ThreadingHTTPServer):
    """Counts what it is asked; see `serving`.

    Attributes:
        answer: text of a question to text of an answer.
        faults: what becomes of the next requests, before any is answered: a status, or one of ``slow``, ``half``,
            ``nonsense``, ``hang up``, ``no choices``.
        asked: questions that were answered.
        heads: headers of all requests.
        at_once: most requests under way at a time.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[str], str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.faults: list[int | str] = []
        self.retry_after = ""
        self.asked: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.needs_key = False
        self.usage = True
        self.pause = 0.0
        self.at_once = self.under_way = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, status: int, body: bytes, claimed: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        if status == 429 and self.server.retry_after:
            self.send_header("Retry-After", self.server.retry_after)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/v1/chat/completions")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.heads.append(dict(self.headers))
            fault = server.faults.pop(0) if server.faults else None
            server.under_way += 1
            server.at_once = max(server.at_once, server.under_way)
        try:
            time.sleep(server.pause)
            self.answer(asked, fault)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with server.lock:
                server.under_way -= 1

    def answer(self, asked: dict[str, Any], fault: int | str | None) -> None:
        server = self.server
        if server.needs_key and self.headers.get("Authorization") != f"Bearer {KEY}":
            return self.send(401, json.dumps({"error": {"message": "wrong key"}}).encode())
        if isinstance(fault, int):
            return self.send(fault, json.dumps({"error": {"message": f"fault {fault}"}}).encode())
        if fault == "slow":
            time.sleep(1.5)
        if fault == "hang up":
            return self.connection.close()
        if fault == "nonsense":
            return self.send(200, b"<html>busy</html>")
        if fault == "no choices":
            return self.send(200, b'{"error": "try later"}')
        body = json.dumps(self.answered(asked)).encode()
        if fault == "half":
            return self.send(200, body[: len(body) // 2], claimed=len(body))
        return self.send(200, body)

    def answered(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.path == "/v1/embeddings":
            rows = [{"index": i, "embedding": [len(text), i, 1.0]} for i, text in enumerate(asked["input"])]
            return {"data": rows[::-1]}
        chat = self.path == "/v1/chat/completions"
        text = asked["messages"][0]["content"] if chat else asked["prompt"]
        with self.server.lock:
            self.server.asked.append(text)
        written = self.server.answer(text)
        choice = {"message": {"content": written}} if chat else {"text": written}
        usage = {"usage": {"prompt_tokens": 100, "completion_tokens": 10}} if self.server.usage else {}
        return {"choices": [choice]} | usage


@contextmanager
def serving(answer: Callable[[str], str] = reversed_order) -> Iterator[FakeServer]:
    """A server on a free port, gone afterwards."""
    server = FakeServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
