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
    ERROR_500 = "error-500", _("HTTP 500 with an HTML page; not taken")
    HTML = "html", _("HTTP 200 with an HTML page; taken")
    NO_BALANCE = "no-balance", _("103, not enough balance; not taken")


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
