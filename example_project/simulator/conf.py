"""What the simulated gateway is like: its one account, its prices, its pace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from django.conf import settings


@dataclass(frozen=True, slots=True)
class Config:
    """Defaults; `settings.SIMULATOR` replaces any of them."""

    API_KEY: str = field(default="demo-api-key", repr=False)
    SECRET_KEY: str = field(default="demo-secret-key", repr=False)
    BRANDNAMES: tuple[str, ...] = ("DEMO",)
    OTHER_BRANDNAMES: tuple[str, ...] = ("CARE",)
    """Names of the account that are not for Viber."""
    BALANCE: Decimal = Decimal(1_000_000)
    PRICE: Decimal = Decimal("470.0000")
    BLOCKED_PHONES: tuple[str, ...] = ("0900000099",)
    PHONES_WITHOUT_VIBER: tuple[str, ...] = ("0900000000",)
    LOCAL_IMAGES: Mapping[str, str] = field(default_factory=dict)
    """URL prefixes of images that this site serves itself, each with the local prefix in its place."""

    REPORT_SECONDS: float = 1.5
    """From taking a message to the report of what became of it."""
    INDEXING_SECONDS: float = 1.0
    """For so long GetSendStatus does not know a message that was just taken."""
    SLOW_SECONDS: float = 3
    HOLD_SECONDS: float = 12
    """How long an answer is held back; make it longer than the client's read time-out."""
    CALLBACK_TIMEOUT: float = 10
    CALLBACK_RETRIES: int = 5
    """Repeats of a callback that timed out. Any answer at all ends the matter."""
    MAX_QUERY_LENGTH: int = 2048


def get_config() -> Config:
    return Config(**getattr(settings, "SIMULATOR", {}))
