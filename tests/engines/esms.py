"""What eSMS does at the other end of the socket."""

from __future__ import annotations

import threading
from collections import Counter

from esms_viber.phones import normalize_phone
from tests.fake_gateway import Answer, FakeGateway, Received, accepted, refused


class Esms:
    """Takes a RequestId once, and refuses it from then on. Can be slow to answer."""

    def __init__(self, server: FakeGateway) -> None:
        self.taken: Counter[str] = Counter()
        """How often it took a message to this phone."""
        self.repeats = 0
        """How many calls came with a RequestId that it had taken before."""
        self.held = 0
        """How many calls wait for their answer."""
        self._server = server
        self._request_ids: set[str] = set()
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._seconds: float | None = 0
        server.answer_all(self._answer)

    @property
    def calls(self) -> Counter[str]:
        """How many calls came in about this phone."""
        return Counter(_phone(request) for request in list(self._server.requests))

    def hold(self, seconds: float | None = None) -> None:
        """From now on, take messages as before, and answer after so many seconds, or else after `release()`."""
        self._seconds = seconds

    def release(self) -> None:
        self._released.set()

    def _answer(self, request: Received) -> Answer:
        with self._lock:
            again = request["RequestId"] in self._request_ids
            self._request_ids.add(request["RequestId"])
            if again:
                self.repeats += 1
            else:
                self.taken[_phone(request)] += 1
            self.held += 1
        self._released.wait(self._seconds)
        with self._lock:
            self.held -= 1
        return refused("124", "Request exist 1") if again else accepted()


def _phone(request: Received) -> str:
    return normalize_phone(request["Phone"])
