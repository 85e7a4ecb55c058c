"""The ways in which the simulated gateway can be told to misbehave."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Answering(TextChoices):
    """What a send call gets back."""

    NORMAL = "normal", _("at once, as documented")
    SLOW = "slow", _("slowly: taken, answered after a few seconds")
    TIMEOUT = "timeout", _("too late: taken, answered when the client has given up")
    HANG = "hang", _("never; not taken")
    ERROR_500 = "error-500", _("HTTP 500 with an HTML page; not taken")
    BUSY = "busy", _("HTTP 503 with JSON, but without a code; not taken")
    TOO_MANY = "too-many", _("HTTP 429 with JSON, but without a code; not taken")
    NO_CODE = "no-code", _("HTTP 200 with JSON, but without a code; not taken")
    HTML = "html", _("HTTP 200 with an HTML page; taken")
    NO_BALANCE = "no-balance", _("103, not enough balance; not taken")
    NO_BRAND = "no-brand", _("104, unknown brand name; not taken")
    WRONG_TYPE = "wrong-type", _("118, unsupported type of message; not taken")
    WRONG_DATA = "wrong-data", _("110, which eSMS documents for other services; not taken")
    UNLISTED = "unlisted", _("145, which is not in eSMS's table; not taken")


REFUSALS = {
    Answering.NO_BALANCE: (103, "Balance is not enough"),
    Answering.NO_BRAND: (104, "Brand name code is not exist"),
    Answering.WRONG_TYPE: (118, "SmsType is not supported"),
    Answering.WRONG_DATA: (110, "Data is not valid"),
    Answering.UNLISTED: (145, ""),
}
UNDECIDED = {Answering.BUSY: 503, Answering.TOO_MANY: 429, Answering.NO_CODE: 200}
"""The HTTP status of answers in JSON that have no code."""


class Reporting(TextChoices):
    """What becomes of the callback."""

    NORMAL = "normal", _("once, shortly after the answer")
    TWICE = "twice", _("twice at the same moment")
    IN_STEPS = "in-steps", _("first status 7 (waiting for the report), then 5")
    EARLY = "early", _("before the answer")
    NEVER = "never", _("never")


@dataclass(frozen=True, slots=True)
class Behaviour:
    answering: Answering = Answering.NORMAL
    reporting: Reporting = Reporting.NORMAL
    remaining: int | None = None
    """For so many send calls; None until it is changed."""

    @property
    def is_normal(self) -> bool:
        return (self.answering, self.reporting) == (Answering.NORMAL, Reporting.NORMAL)


NORMAL = Behaviour()
