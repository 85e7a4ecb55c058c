"""What would keep eSMS's reports from arriving."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import SplitResult

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as CheckWarning
from django.http.request import split_domain_port, validate_host
from django.urls import NoReverseMatch, reverse
from django.utils import translation
from django.utils.translation import gettext as _

from ..conf import ViberSettings
from ..outgoing import URLCONF_LINE
from .addresses import is_public, split

_EXAMPLE_ORIGIN = '"CALLBACK_ORIGIN": "https://shop.example.vn"'
# Any two languages will do: a path under i18n_patterns() begins with the active one.
_TWO_LANGUAGES = ("en", "vi")


def check_origin(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.CALLBACK_ORIGIN and _origin(conf) is None:
        yield Error(
            _('ESMS_VIBER["CALLBACK_ORIGIN"] must be a scheme and a host (and a port, if need be), and nothing else.'),
            hint=_("%(line)s; a host name with other letters than a to z in its xn-- form.")
            % {"line": _EXAMPLE_ORIGIN},
            id="esms_viber.E007",
        )


def _origin(conf: ViberSettings) -> SplitResult | None:
    """None where it is not set or not an origin."""
    origin = (conf.CALLBACK_ORIGIN or "").removesuffix("/")
    parts = split(origin)
    if parts is None or not parts.hostname or not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", origin):
        return None
    return parts


def check_urls(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.CALLBACK_ORIGIN and _callback_path() is None:
        yield Error(
            _('ESMS_VIBER["CALLBACK_ORIGIN"] is set, but the URLs of esms_viber are not included in the URLconf.'),
            hint=_("Add to urlpatterns: %(line)s") % {"line": URLCONF_LINE},
            id="esms_viber.E008",
        )


def _callback_path() -> str | None:
    try:
        return reverse("esms_viber:callback", args=["token"])
    except NoReverseMatch:
        return None


def check_languages(conf: ViberSettings) -> Iterator[CheckMessage]:
    paths = set()
    for language in _TWO_LANGUAGES:
        with translation.override(language):
            paths.add(_callback_path())
    if conf.CALLBACK_ORIGIN and len(paths) > 1:
        yield CheckWarning(
            _("The callback's path depends on the active language: a result may be sent to a path that is not there."),
            hint=_("Take this line out of i18n_patterns() and put it into urlpatterns itself: %(line)s")
            % {"line": URLCONF_LINE},
            id="esms_viber.W003",
        )


def check_allowed_hosts(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin = _origin(conf)
    # As Django does where nothing is set.
    allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    if origin is None or validate_host(split_domain_port(origin.netloc)[0], allowed):
        return
    # Django lets the local names in by itself only while the list is empty.
    others = "..." if settings.ALLOWED_HOSTS else '"localhost", "127.0.0.1"'
    yield CheckWarning(
        _(
            'Django would refuse callbacks: %(host)s, the host of ESMS_VIBER["CALLBACK_ORIGIN"], is not in '
            "ALLOWED_HOSTS."
        )
        % {"host": origin.hostname},
        hint=f'ALLOWED_HOSTS = [{others}, "{origin.hostname}"]',
        id="esms_viber.W004",
    )


def check_ssl_redirect(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin, path = _origin(conf), _callback_path()
    if origin is None or path is None or not _redirects_to_https(path):
        return
    if origin.scheme == "http":
        hint = _("Write the origin with https: %(line)s") % {"line": _EXAMPLE_ORIGIN}
    elif settings.SECURE_PROXY_SSL_HEADER is None:
        hint = _how_to_spare(path)
    else:
        return
    yield CheckWarning(
        _("SECURE_SSL_REDIRECT may answer callbacks with a redirect, which eSMS is not known to follow."),
        hint=hint,
        id="esms_viber.W005",
    )


def _how_to_spare(path: str) -> str:
    exempt = re.escape(path.lstrip("/").removesuffix("token/"))
    return _("Behind a proxy that sets it: %(header)s; or %(exempt)s") % {
        "header": 'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
        "exempt": f'SECURE_REDIRECT_EXEMPT = [r"^{exempt}"]',
    }


def _redirects_to_https(path: str) -> bool:
    return (
        settings.SECURE_SSL_REDIRECT
        and "django.middleware.security.SecurityMiddleware" in settings.MIDDLEWARE
        and not any(re.search(exempt, path.lstrip("/")) for exempt in settings.SECURE_REDIRECT_EXEMPT)
    )


def check_public_origin(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin = _origin(conf)
    if not conf.CALLBACK_ORIGIN:
        yield Info(
            _('ESMS_VIBER["CALLBACK_ORIGIN"] is not set: results come only by polling.'),
            hint=_("Ask for results in the admin or by refresh_viber_messages(), or set %(line)s")
            % {"line": _EXAMPLE_ORIGIN},
            id="esms_viber.I001",
        )
    elif origin is not None and not is_public(origin.hostname or ""):
        yield CheckWarning(
            _('eSMS cannot reach %(host)s, the host of ESMS_VIBER["CALLBACK_ORIGIN"].') % {"host": origin.hostname},
            hint=_("Name a host that the internet can reach: %(line)s") % {"line": _EXAMPLE_ORIGIN},
            id="esms_viber.W007",
        )
    elif origin is not None and origin.scheme != "https":
        yield CheckWarning(
            _('ESMS_VIBER["CALLBACK_ORIGIN"] is not https: phone numbers and results travel unencrypted.'),
            hint=_EXAMPLE_ORIGIN,
            id="esms_viber.W008",
        )
