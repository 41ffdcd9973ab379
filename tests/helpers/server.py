"""A web server on loopback, whose answers a test may cut, refuse or start anew."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What it answers to every path: `content`, of which each of the first `cuts` answers sends `cut` bytes.

    `ranges`: a client may ask for the rest. `status`: an error to answer with instead. `asked` holds the range that
    each request named.
    """

    url: str = ""
    content: bytes = b""
    cut: int = 0
    cuts: int = 0
    ranges: bool = True
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def serving(content: bytes = b"") -> Iterator[Server]:
    state = Server(content=content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if state.status:
                self.send_error(state.status)
                return
            start = int(wanted.split("=")[1].rstrip("-")) if wanted and state.ranges else 0
            if start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            end = len(state.content)
            if state.cuts:
                state.cuts -= 1
                end = start + state.cut
            self.wfile.write(state.content[start:end])

        def log_message(self, *_args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()
