"""Checks for everything that would keep delivery reports from arriving."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as CheckWarning
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.request import split_domain_port, validate_host
from django.urls import Resolver404, resolve, reverse
from django.utils import translation
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import ViberSettings
from ..tokens import URLCONF_LINE, callback_path, not_an_origin, site_language, split_origin
from .addresses import is_public

_EXAMPLE_ORIGIN = '"CALLBACK_ORIGIN": "https://shop.example.vn"'
_EXAMPLE_UNDER_A_PATH = '"CALLBACK_ORIGIN": "https://shop.example.vn/shop"'
# Any two languages show it, because a path under i18n_patterns() begins with the active one.
_TWO_LANGUAGES = ("en", "vi")
_SECURITY = "django.middleware.security.SecurityMiddleware"
_LOCALE = "django.middleware.locale.LocaleMiddleware"
_OTHERS = {
    _LOCALE,
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
}


# -- mistakes on every host --------------------------------------------------------------------------------------------


def check_origin(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.CALLBACK_ORIGIN and split_origin(conf.CALLBACK_ORIGIN) is None:
        yield Error(
            not_an_origin(),
            hint=_(
                "%(line)s. Write a host name that has other letters than a to z in its xn-- form. For a site mounted "
                "under a path: %(path)s. Leave out user, query, fragment, and the part of the path that urlpatterns "
                "adds."
            )
            % {"line": _EXAMPLE_ORIGIN, "path": _EXAMPLE_UNDER_A_PATH},
            id="esms_viber.E007",
        )


def check_urls(conf: ViberSettings) -> Iterator[CheckMessage]:
    if not conf.CALLBACK_ORIGIN:
        return
    path = _callback_path()
    if path is None:
        yield Error(
            _('ESMS_VIBER["CALLBACK_ORIGIN"] is set, but the URLs of esms_viber are not included in the URLconf.'),
            hint=_("Add to urlpatterns: %(line)s") % {"line": URLCONF_LINE},
            id="esms_viber.E008",
        )
        return
    with translation.override(site_language()):
        try:
            apps = resolve(unquote(path), settings.ROOT_URLCONF).app_names
        except Resolver404:
            apps = []
    if apps[-1:] != ["esms_viber"]:
        yield Error(
            _("Another line of the URLconf answers under the callback's path, %(path)s, so that reports are lost.")
            % {"path": path},
            hint=_("Put this line before those that match any path: %(line)s") % {"line": URLCONF_LINE},
            id="esms_viber.E010",
        )


def _callback_path() -> str | None:
    try:
        return callback_path("token")
    except Exception:  # noqa: BLE001 - Django's own check reports a URLconf that cannot be loaded
        return None


def check_languages(conf: ViberSettings) -> Iterator[CheckMessage]:
    if not conf.CALLBACK_ORIGIN or _callback_path() is None:
        return
    paths = set()
    for language in _TWO_LANGUAGES:
        with translation.override(language):
            paths.add(reverse("esms_viber:callback", urlconf=settings.ROOT_URLCONF, args=["token"]))
    if len(paths) > 1:
        yield CheckWarning(
            _("The callback's path depends on the language: once LANGUAGE_CODE changes, reports to come are lost."),
            hint=_("Take this line out of i18n_patterns() and put it into urlpatterns itself: %(line)s")
            % {"line": URLCONF_LINE},
            id="esms_viber.W003",
        )


def check_path_of_origin(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin, path = split_origin(conf.CALLBACK_ORIGIN), _callback_path()
    added = unquote(path or "").removesuffix("callback/token/").rstrip("/")
    if origin is not None and added and unquote(origin.path).rstrip("/").endswith(added):
        yield CheckWarning(
            _('ESMS_VIBER["CALLBACK_ORIGIN"] ends in %(path)s, which urlpatterns adds once more.') % {"path": added},
            hint=_origin_line(origin, unquote(origin.path).rstrip("/").removesuffix(added)),
            id="esms_viber.W014",
        )


def _origin_line(origin: SplitResult, path: str) -> str:
    return f'"CALLBACK_ORIGIN": "{origin.scheme}://{origin.netloc}{quote(path).rstrip("/")}"'


# -- mistakes where the site is deployed -------------------------------------------------------------------------------


def check_allowed_hosts(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin = split_origin(conf.CALLBACK_ORIGIN)
    # Django allows the same hosts while nothing is set.
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


def check_script_name(conf: ViberSettings) -> Iterator[CheckMessage]:
    """Compare with `FORCE_SCRIPT_NAME`. The admin finds a path that only the web server knows: it is served there."""
    origin, mounted = split_origin(conf.CALLBACK_ORIGIN), (settings.FORCE_SCRIPT_NAME or "").strip("/")
    # Only the end is compared, because a proxy may put a path of its own before it.
    if origin is not None and mounted and not unquote(origin.path).rstrip("/").endswith(f"/{mounted}"):
        yield CheckWarning(
            _('FORCE_SCRIPT_NAME mounts the site under /%(path)s, which ESMS_VIBER["CALLBACK_ORIGIN"] does not name.')
            % {"path": mounted},
            hint=_origin_line(origin, f"/{mounted}"),
            id="esms_viber.W011",
        )


def check_ssl_redirect(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin, path = split_origin(conf.CALLBACK_ORIGIN), _callback_path()
    if origin is None or path is None:
        return
    # The request counts as http without SECURE_PROXY_SSL_HEADER, because only that setting tells of a proxy for TLS.
    is_secure = origin.scheme == "https" and settings.SECURE_PROXY_SSL_HEADER is not None
    request = _make_request(origin, path, scheme="https" if is_secure else "http")
    for middleware in _middleware({_SECURITY}):
        location = _redirect(middleware, request)
        if not location:
            continue
        if origin.scheme == "https":
            exempt = re.escape(request.path.lstrip("/").removesuffix("token/"))
            hint = _("Behind a proxy that sets it: %(header)s; or %(exempt)s") % {
                "header": 'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
                "exempt": f'SECURE_REDIRECT_EXEMPT = [r"^{exempt}"]',
            }
        else:
            hint = _how_to_write(origin, location)
        yield CheckWarning(
            _("SECURE_SSL_REDIRECT may answer callbacks with a redirect, which eSMS is not known to follow."),
            hint=hint,
            id="esms_viber.W005",
        )


def _how_to_write(origin: SplitResult, location: str) -> str:
    return _("Write the origin as it redirects: %(line)s") % {"line": _origin_line(urlsplit(location), origin.path)}


def check_redirects(conf: ViberSettings) -> Iterator[CheckMessage]:
    """Warn of redirects by `PREPEND_WWW`, `APPEND_SLASH`, languages and logging in."""
    origin, path = split_origin(conf.CALLBACK_ORIGIN), _callback_path()
    if origin is None or path is None:
        return
    request = _make_request(origin, path, scheme=origin.scheme)
    for middleware in _middleware(_OTHERS):
        if not (location := _redirect(middleware, request)):
            continue
        if urlsplit(location).netloc and unquote(urlsplit(location).path) == request.path:
            hint = _how_to_write(origin, location)
        elif _LOCALE in _names(middleware):
            hint = _("Take this line out of i18n_patterns() and put it into urlpatterns itself: %(line)s")
            hint %= {"line": URLCONF_LINE}
        else:
            hint = _("Have it let requests to %(path)s through.") % {"path": request.path.removesuffix("token/")}
        yield CheckWarning(
            _("%(name)s answers callbacks with a redirect to %(location)s, which eSMS is not known to follow.")
            % {"name": middleware.__name__, "location": location},
            hint=hint,
            id="esms_viber.W010",
        )


def _middleware(kinds: set[str]) -> Iterator[type]:
    """Yield the site's middleware of these kinds of Django's. A check should not run a site's own middleware."""
    for path in settings.MIDDLEWARE:
        try:
            found = import_string(path)
        except Exception:  # noqa: BLE001, S112 - Django reports it when it starts
            continue
        if isinstance(found, type) and kinds.intersection(_names(found)):
            yield found


def _names(kind: type) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]


def _make_request(origin: SplitResult, path: str, *, scheme: str) -> WSGIRequest:
    """Make a callback as eSMS sends it."""
    return WSGIRequest(
        {
            "REQUEST_METHOD": "GET",
            # WSGI wants each byte as a character of its own.
            "SCRIPT_NAME": unquote_to_bytes(origin.path.rstrip("/")).decode("latin-1"),
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "HTTP_HOST": origin.netloc,
            "SERVER_NAME": origin.hostname or "",
            "SERVER_PORT": str(origin.port or {"http": 80}.get(scheme, 443)),
            "wsgi.url_scheme": scheme,
            "wsgi.input": BytesIO(),
        }
    )


class _Nobody:
    is_authenticated = False


def _redirect(kind: type, request: WSGIRequest) -> str:
    """Return where the middleware redirects a callback; empty if it does not, or fails without a server."""

    def respond(request: HttpRequest) -> HttpResponseBase:
        try:
            match = resolve(request.path_info, settings.ROOT_URLCONF)
        except Resolver404:
            return HttpResponse(status=404)
        before_view = getattr(middleware, "process_view", None)
        answer = before_view(request, match.func, match.args, match.kwargs) if before_view else None
        return answer or HttpResponse()

    request.user = _Nobody()  # type: ignore[assignment] # eSMS is not logged in
    with translation.override(site_language()):
        try:
            middleware: Any = kind(respond)
            response = middleware(request)
        except Exception:  # noqa: BLE001 - a middleware may need more than a check has
            return ""
    is_redirect = 300 <= response.status_code < 400
    return response.headers.get("Location", "") if is_redirect else ""


def check_public_origin(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin = split_origin(conf.CALLBACK_ORIGIN)
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
