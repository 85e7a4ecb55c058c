"""The registered system checks, and the checks of names and types in `ESMS_VIBER`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.utils.translation import gettext as _

from ..conf import NAMES, ViberSettings, find_problems, get_settings, is_dict, names_given, not_a_dict, wrong_type
from . import callbacks, databases, sending
from .sending import ACCOUNT_KEYS, DEFAULTS, account_hint

TAG = "esms_viber"


@register(TAG)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Check what matters everywhere. Errors stop `migrate` too, so a key that is only missing yet is a warning."""
    return _find_unreadable() or _run(
        sending.check_gateway,
        sending.check_dispatcher,
        sending.check_account,
        sending.check_query_length,
        sending.check_base_url,
        callbacks.check_origin,
        callbacks.check_path_of_origin,
        callbacks.check_urls,
        callbacks.check_languages,
    )


@register(TAG, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Check what depends on the host and matters only where real messages are sent."""
    if _find_unreadable():
        return []
    return _run(
        sending.check_account_in_production,
        sending.check_stand_in,
        sending.check_sandbox,
        sending.check_hours,
        sending.check_base_url_in_production,
        sending.check_task_backend,
        databases.check_sqlite,
        callbacks.check_public_origin,
        callbacks.check_allowed_hosts,
        callbacks.check_script_name,
        callbacks.check_ssl_redirect,
        callbacks.check_redirects,
    )


def _run(*checks: Callable[[ViberSettings], Iterable[CheckMessage]]) -> list[CheckMessage]:
    conf = get_settings()
    return [message for check in checks for message in check(conf)]


def _find_unreadable() -> list[CheckMessage]:
    if not is_dict():
        return [Error(not_a_dict(), hint=account_hint(), id="esms_viber.E001")]
    found: list[CheckMessage] = []
    for given in names_given():
        if given in NAMES:
            continue
        if nearest := difflib.get_close_matches(str(given).upper(), NAMES, n=1):
            hint = _('Did you mean "%(name)s"?') % {"name": nearest[0]}
        else:
            hint = _("The keys are: %(names)s.") % {"names": ", ".join(NAMES)}
        sentence = _("ESMS_VIBER has an unknown key: %(name)s.") % {"name": repr(given)}
        found.append(Error(sentence, hint=hint, id="esms_viber.E002"))
    for name, rule in find_problems().items():
        default = _("Leave it out for the default, %(default)s.") % {"default": repr(DEFAULTS[name])}
        hint = str(rule) if name in ACCOUNT_KEYS else f"{rule} {default}"
        found.append(Error(wrong_type(name), hint=hint, id="esms_viber.E003"))
    return found
