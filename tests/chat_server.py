"""A chat endpoint on the loopback that answers by a script: rightly, wrongly, late, in part, or not at all."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A stall ends when the server is closed, or after this long.
LONGEST_STALL_S = 30.0


@dataclass(slots=True)
class Reply:
    """What the server does with one request.

    Attributes:
        text: The answer's content.
        raw: The body instead of a chat answer.
        cut: Bytes that are left off the end, while the header still counts them.
        stall: Send nothing, ever. `drip`: send a byte now and then, for ever.
        close: Close the connection without a word.
    """

    text: str = ""
    status: int = 200
    finish: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: int = 0
    stall: bool = False
    drip: bool = False
    close: bool = False
    usage: bool = True


@dataclass(slots=True)
class Seen:
    """What the server has met: requests in order, headers, and how often each body was answered whole."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    delivered: Counter[str] = field(default_factory=Counter)
    stalls: int = 0
    at_once: int = 0
    most_at_once: int = 0


class ChatServer(ThreadingHTTPServer):
    """Serves `script(body, n)`, n counting the earlier requests with the same body."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script: Callable[[dict[str, Any], int], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.seen = Seen()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.counts: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        key = json.dumps(body, sort_keys=True)
        server = self.server
        with server.lock:
            number = server.counts[key]
            server.counts[key] += 1
            server.seen.bodies.append(body)
            server.seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.seen.at_once += 1
            server.seen.most_at_once = max(server.seen.most_at_once, server.seen.at_once)
        try:
            self._reply(server.script(body, number), body, key)
        except OSError:
            self.close_connection = True
        finally:
            with server.lock:
                server.seen.at_once -= 1

    def _reply(self, reply: Reply, body: dict[str, Any], key: str) -> None:
        if reply.close:
            self.close_connection = True
            return
        if reply.stall:
            with self.server.lock:
                self.server.seen.stalls += 1
            self.server.closing.wait(LONGEST_STALL_S)
            self.close_connection = True
            return
        data = chat_body(reply, body) if reply.raw is None else reply.raw
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if reply.drip:
            for byte in data:
                self.wfile.write(bytes([byte]))
                if self.server.closing.wait(0.05):
                    return
        whole = reply.status == 200 and not reply.cut and reply.raw is None
        if whole:  # counted before it is sent, so that nothing that was received is missed
            with self.server.lock:
                self.server.seen.delivered[key] += 1
        self.wfile.write(data[: len(data) - reply.cut])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def chat_body(reply: Reply, body: dict[str, Any]) -> bytes:
    answer: dict[str, Any] = {
        "object": "chat.completion",
        "model": body["model"],
        "choices": [{"message": {"role": "assistant", "content": reply.text}, "finish_reason": reply.finish}],
    }
    if reply.usage:
        answer["usage"] = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps(answer).encode()


def told(text: str) -> str:
    """A text as the prompts ask for it."""
    return json.dumps({"text": text})


@contextmanager
def serving(script: Callable[[dict[str, Any], int], Reply]) -> Iterator[ChatServer]:
    """Serve on a free port of the loopback until the block ends."""
    server = ChatServer(script)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
