"""The whole site on one port of this machine: pages, static files, admin and the simulated gateway.

Threaded, because a request may wait for a call that the site makes to itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

HOST = "127.0.0.1"


class QuietHandler(WSGIRequestHandler):
    """Writes no line per request: a phone asks once a second, and a send call has the keys in its query string."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
        pass


class Server(ThreadedWSGIServer):
    request_queue_size = 128


def bind(port: int) -> Server:
    """Take the port, or any free one for 0, before anything is answered on it. Raises `OSError` if it is taken."""
    return Server((HOST, port), QuietHandler)


def origin(server: Server) -> str:
    return f"http://{HOST}:{server.server_port}"


@contextmanager
def serving(server: Server) -> Iterator[None]:
    server.set_app(StaticFilesHandler(WSGIHandler()))
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="demo-server", daemon=True
    ).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
