"""A server at the loopback address that gives the files of a folder, for tests that read by URL."""

import contextlib
import functools
import http.server
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path


class _Handler(http.server.SimpleHTTPRequestHandler):
    asked: Counter
    answer: Callable[[str], int | None]

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked[self.path] += 1
        status = self.answer(self.path)
        if status is None:
            super().do_GET()
        elif status:
            self.send_error(status)
        else:  # half an answer
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])


@contextlib.contextmanager
def served(folder: Path, answer: Callable[[str], int | None] = lambda path: None) -> Iterator[tuple[str, Counter]]:
    """The address of a server of `folder`, and how often each path was asked for.

    answer: of a path, the status to give; None: the file; 0: half of the file.
    """
    asked: Counter = Counter()
    handler = type("Handler", (_Handler,), {"asked": asked, "answer": staticmethod(answer)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
