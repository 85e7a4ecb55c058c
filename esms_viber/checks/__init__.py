"""System checks: what in a project's settings would keep messages, or their results, from arriving."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from ..conf import NAMES, ViberSettings, find_problems, get_settings
from . import callbacks, sending
from .sending import ACCOUNT_HINT, ACCOUNT_KEYS, DEFAULTS

TAG = "esms_viber"


@register(TAG)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """What matters everywhere. Errors stop `migrate` too, so a key that is only missing yet is a warning."""
    return _find_unreadable() or _run(
        sending.check_gateway,
        sending.check_dispatcher,
        sending.check_account,
        sending.check_base_url,
        callbacks.check_origin,
        callbacks.check_urls,
        callbacks.check_languages,
        callbacks.check_allowed_hosts,
        callbacks.check_ssl_redirect,
    )


@register(TAG, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """What matters only where real messages are sent."""
    if _find_unreadable():
        return []
    return _run(
        sending.check_account_in_production,
        sending.check_sandbox,
        callbacks.check_public_origin,
        sending.check_task_backend,
    )


def _run(*checks: Callable[[ViberSettings], Iterable[CheckMessage]]) -> list[CheckMessage]:
    conf = get_settings()
    return [message for check in checks for message in check(conf)]


def _find_unreadable() -> list[CheckMessage]:
    raw = getattr(settings, "ESMS_VIBER", {})
    if not isinstance(raw, Mapping):
        return [Error("The setting ESMS_VIBER must be a dict.", hint=ACCOUNT_HINT, id="esms_viber.E001")]
    return [*_check_names(raw), *_check_types(raw)]


def _check_names(raw: Mapping[str, Any]) -> Iterator[CheckMessage]:
    for name in raw:
        if name not in NAMES:
            nearest = difflib.get_close_matches(str(name).upper(), NAMES, n=1)
            yield Error(
                f"ESMS_VIBER has a key {name!r}, which means nothing.",
                hint=f'Did you mean "{nearest[0]}"?' if nearest else f"The keys are: {', '.join(NAMES)}.",
                id="esms_viber.E002",
            )


def _check_types(raw: Mapping[str, Any]) -> Iterator[CheckMessage]:
    for name, wanted in find_problems(raw).items():
        default = "" if name in ACCOUNT_KEYS else f" Leave it out for the default, {DEFAULTS[name]!r}."
        hint = f"It must be {wanted}.{default}"
        yield Error(f'ESMS_VIBER["{name}"] has the wrong type.', hint=hint, id="esms_viber.E003")
