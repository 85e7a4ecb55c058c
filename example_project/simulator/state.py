"""All that the simulated gateway remembers, in the memory of one process."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from random import randrange
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from django.utils import timezone

from . import rules
from .behaviour import NORMAL, REFUSALS, Answering, Behaviour
from .conf import Config, get_config

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

VIETNAM = ZoneInfo("Asia/Ho_Chi_Minh")
MAX_MESSAGES = 1_000
MAX_REQUEST_IDS = 10_000
MAX_LOG = 200
WAITING, FINISHED, HANDED_OVER = 2, 5, 7


def now() -> datetime:
    return timezone.now().astimezone(VIETNAM)


@dataclass(slots=True)
class Message:
    """A message that the gateway took, and what became of it."""

    sms_id: str
    phone: str
    brand: str
    content: str
    image_url: str
    button_label: str
    button_url: str
    request_id: str
    callback_url: str
    price: Decimal
    taken_at: datetime
    send_status: int = WAITING
    delivered: bool = False
    arrival: int = 0
    """Its place in the order of arrival on phones; 0 until it arrives."""
    arrived_at: datetime | None = None

    @property
    def finished(self) -> bool:
        return self.send_status == FINISHED


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request that was received, or one callback that was made. Keys are never part of it."""

    what: _StrOrPromise
    result: _StrOrPromise
    request_id: str = ""
    phone: str = ""
    oddities: tuple[_StrOrPromise, ...] = ()
    at: datetime = field(default_factory=now)


class Gateway:
    """The account's messages, balance and RequestIds, behind one lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self.run = uuid.uuid4().hex
            self.balance = get_config().BALANCE
            self.behaviour = NORMAL
            self._messages: deque[Message] = deque(maxlen=MAX_MESSAGES)
            self._log: deque[LogEntry] = deque(maxlen=MAX_LOG)
            self._request_ids: OrderedDict[str, object] = OrderedDict()
            self._arrivals = itertools.count(1)

    # What is asked of it

    def behave(self, behaviour: Behaviour) -> None:
        with self._lock:
            self.behaviour = behaviour

    def top_up(self) -> None:
        with self._lock:
            self.balance += get_config().BALANCE

    def empty(self) -> None:
        """Leave what two messages cost, so that the balance runs out while messages are being sent."""
        with self._lock:
            self.balance = 2 * get_config().PRICE

    def take_behaviour(self) -> Behaviour:
        """How to treat the call that just came in; counts it."""
        with self._lock:
            current = self.behaviour
            if current.remaining is not None:
                left = current.remaining - 1
                self.behaviour = replace(current, remaining=left) if left > 0 else NORMAL
            return current

    def receive(self, values: Mapping[str, str], behaviour: Behaviour = NORMAL) -> tuple[rules.Answer, Message | None]:
        """Judge a send call. The message is None if it was refused, or sent to the sandbox."""
        config = get_config()
        with self._lock:
            problem = rules.find_refusal(values, config) or self._find_refusal(values, config, behaviour)
            if problem is not None:
                return problem, None
            sms_id = f"{uuid.uuid4().hex}{randrange(10**6, 10**7)}"  # noqa: S311 - an id, not a secret
            message = None if values.get("Sandbox") == "1" else self._take(sms_id, values, config)
            return {"CodeResult": "100", "CountRegenerate": 0, "SMSID": sms_id}, message

    def _find_refusal(self, values: Mapping[str, str], config: Config, behaviour: Behaviour) -> rules.Answer | None:
        if self._request_ids.get(values.get("RequestId", "")) == now().date():
            return rules.refusal(124, "Request exist 1")
        if behaviour.answering in REFUSALS:
            return rules.refusal(*REFUSALS[behaviour.answering])
        if self.balance < config.PRICE:
            return rules.refusal(*REFUSALS[Answering.NO_BALANCE])
        return None

    def _take(self, sms_id: str, values: Mapping[str, str], config: Config) -> Message:
        message = Message(
            sms_id=sms_id,
            phone=rules.local_phone(values["Phone"]) or "",
            brand=values["Brandname"],
            content=values.get("Content", ""),
            image_url=values.get("OTTImgUrl", ""),
            button_label=values.get("OTTLabel", ""),
            button_url=values.get("OTTUrl", ""),
            request_id=values.get("RequestId", ""),
            callback_url=values.get("CallbackUrl", ""),
            price=config.PRICE,
            taken_at=now(),
        )
        self.balance -= message.price
        self._messages.append(message)
        if message.request_id:
            self._remember(message.request_id)
        return message

    def _remember(self, request_id: str) -> None:
        self._request_ids[request_id] = now().date()
        while len(self._request_ids) > MAX_REQUEST_IDS:
            self._request_ids.popitem(last=False)

    def hand_over(self, message: Message) -> bool:
        """Sent on to Viber, whose report is awaited. False if the report was faster."""
        with self._lock:
            if message.send_status == WAITING:
                message.send_status = HANDED_OVER
            return message.send_status == HANDED_OVER

    def finish(self, message: Message) -> None:
        """Bring the message to its phone, or give the price back if there is no Viber on it."""
        with self._lock:
            if message.finished:
                return
            message.delivered = message.phone not in get_config().PHONES_WITHOUT_VIBER
            if message.delivered:
                message.arrival, message.arrived_at = next(self._arrivals), now()
            else:
                self.balance, message.price = self.balance + message.price, Decimal("0.0000")
            message.send_status = FINISHED

    def log(self, entry: LogEntry) -> None:
        with self._lock:
            self._log.appendleft(entry)

    # What can be seen of it

    @property
    def entries(self) -> list[LogEntry]:
        """Newest first."""
        with self._lock:
            return list(self._log)

    @property
    def oddities(self) -> list[_StrOrPromise]:
        """Everything in the calls so far that is not what eSMS documents, oldest first."""
        return [oddity for entry in reversed(self.entries) for oddity in entry.oddities]

    @property
    def messages(self) -> list[Message]:
        with self._lock:
            return list(self._messages)

    def find_message(self, sms_id: str) -> Message | None:
        return next((message for message in self.messages if message.sms_id == sms_id), None)

    def arrived(self, phone: str | None = None, after: int = 0) -> list[Message]:
        """Messages on phones, in the order of arrival."""
        found = [m for m in self.messages if m.arrival > after and phone in (None, m.phone)]
        return sorted(found, key=lambda message: message.arrival)


gateway = Gateway()
