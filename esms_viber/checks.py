"""System checks: what in a project's settings would keep messages, or their results, from arriving."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, register
from django.core.checks import Warning as CheckWarning
from django.http.request import split_domain_port, validate_host
from django.urls import NoReverseMatch, reverse
from django.utils import translation
from django.utils.module_loading import import_string

from .conf import NAMES, ViberSettings, find_problems, get_settings
from .gateways.base import BaseGateway

TAG = "esms_viber"

_ACCOUNT_KEYS = ("API_KEY", "SECRET_KEY", "BRANDNAME")
_DEFAULTS = {name: getattr(ViberSettings(), name) for name in NAMES}

_EXAMPLE_ORIGIN = '"CALLBACK_ORIGIN": "https://shop.example.vn"'
_EXAMPLE_URLS = 'path("esms-viber/", include("esms_viber.urls"))'
_ACCOUNT_HINT = (
    'ESMS_VIBER = {"API_KEY": env("ESMS_API_KEY"), "SECRET_KEY": env("ESMS_SECRET_KEY"), '
    '"BRANDNAME": "the Viber brand name registered with eSMS"}. To try without an account: '
    '"GATEWAY": "esms_viber.gateways.console.ConsoleGateway".'
)
_LOCAL_TOP_LEVELS = {"example", "internal", "invalid", "lan", "local", "localhost", "test"}
# Any two languages will do: a path under i18n_patterns() begins with the active one.
_TWO_LANGUAGES = ("en", "vi")


@register(TAG)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """What matters everywhere. Errors stop `migrate` too, so a key that is only missing yet is a warning."""
    return _find_unreadable() or _run(
        _check_gateway,
        _check_dispatcher,
        _check_account,
        _check_base_url,
        _check_origin,
        _check_urls,
        _check_languages,
        _check_allowed_hosts,
        _check_ssl_redirect,
    )


@register(TAG, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """What matters only where real messages are sent."""
    if _find_unreadable():
        return []
    return _run(_check_account_in_production, _check_sandbox, _check_public_origin)


def _run(*checks: Callable[[ViberSettings], Iterable[CheckMessage]]) -> list[CheckMessage]:
    conf = get_settings()
    return [message for check in checks for message in check(conf)]


def _find_unreadable() -> list[CheckMessage]:
    raw = getattr(settings, "ESMS_VIBER", {})
    if not isinstance(raw, Mapping):
        return [Error("The setting ESMS_VIBER must be a dict.", hint=_ACCOUNT_HINT, id="esms_viber.E001")]
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
        default = "" if name in _ACCOUNT_KEYS else f" Leave it out for the default, {_DEFAULTS[name]!r}."
        hint = f"It must be {wanted}.{default}"
        yield Error(f'ESMS_VIBER["{name}"] has the wrong type.', hint=hint, id="esms_viber.E003")


def _check_gateway(conf: ViberSettings) -> Iterator[CheckMessage]:
    gateway, problem = _import(conf.GATEWAY)
    if not problem and not _is_subclass(gateway, BaseGateway):
        problem = "it is not a subclass of esms_viber.gateways.base.BaseGateway"
    if problem:
        yield _unusable("GATEWAY", problem, "esms_viber.E004")


def _import(path: str) -> tuple[object, str]:
    """What a dotted path leads to, or why it leads nowhere."""
    try:
        return import_string(path), ""
    except (ImportError, TypeError, ValueError) as error:
        return None, str(error)


def _unusable(name: str, problem: str, check_id: str) -> CheckMessage:
    return Error(f'ESMS_VIBER["{name}"] cannot be used: {problem}.', hint=f'"{name}": "{_DEFAULTS[name]}"', id=check_id)


def _is_subclass(found: object, kind: object) -> bool:
    return isinstance(found, type) and isinstance(kind, type) and issubclass(found, kind)


def _check_dispatcher(conf: ViberSettings) -> Iterator[CheckMessage]:
    wanted = conf.DISPATCHER
    dispatcher, problem = _import(wanted) if isinstance(wanted, str) else (wanted, "")
    if not problem and not callable(dispatcher):
        problem = "it is not callable"
    if problem:
        yield _unusable("DISPATCHER", problem, "esms_viber.E005")


def _check_account(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = f"Nothing can be sent yet. Missing in ESMS_VIBER: {missing}."
        yield CheckWarning(message, hint=_ACCOUNT_HINT, id="esms_viber.W001")


def _check_account_in_production(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = f"This deployment cannot send. Missing in ESMS_VIBER: {missing}."
        yield Error(message, hint=_ACCOUNT_HINT, id="esms_viber.E006")


def _missing_account_keys(conf: ViberSettings) -> str:
    gateway, esms_gateway = _import(conf.GATEWAY)[0], _import(_DEFAULTS["GATEWAY"])[0]
    if not _is_subclass(gateway, esms_gateway):
        return ""
    return ", ".join(name for name in _ACCOUNT_KEYS if not getattr(conf, name).strip())


def _check_base_url(conf: ViberSettings) -> Iterator[CheckMessage]:
    parts = _split(conf.BASE_URL)
    if parts is not None and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield CheckWarning(
            'ESMS_VIBER["BASE_URL"] is not https: the API key and the secret key travel unencrypted.',
            hint=f'"BASE_URL": "{_DEFAULTS["BASE_URL"]}"',
            id="esms_viber.W002",
        )


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_origin(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.CALLBACK_ORIGIN and _origin(conf) is None:
        yield Error(
            'ESMS_VIBER["CALLBACK_ORIGIN"] must be a scheme and a host (and a port, if need be), and nothing else.',
            hint=f"{_EXAMPLE_ORIGIN}; a host name with other letters than a to z in its xn-- form.",
            id="esms_viber.E007",
        )


def _origin(conf: ViberSettings) -> SplitResult | None:
    """None where it is not set or not an origin."""
    origin = (conf.CALLBACK_ORIGIN or "").removesuffix("/")
    parts = _split(origin)
    if parts is None or not parts.hostname or not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+", origin):
        return None
    return parts


def _check_urls(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.CALLBACK_ORIGIN and _callback_path() is None:
        yield Error(
            'ESMS_VIBER["CALLBACK_ORIGIN"] is set, but the URLs of esms_viber are not included in the URLconf.',
            hint=f"Add to urlpatterns: {_EXAMPLE_URLS}",
            id="esms_viber.E008",
        )


def _callback_path() -> str | None:
    try:
        return reverse("esms_viber:callback", args=["token"])
    except NoReverseMatch:
        return None


def _check_languages(conf: ViberSettings) -> Iterator[CheckMessage]:
    paths = set()
    for language in _TWO_LANGUAGES:
        with translation.override(language):
            paths.add(_callback_path())
    if conf.CALLBACK_ORIGIN and len(paths) > 1:
        yield CheckWarning(
            "The callback's path depends on the active language: a result may be sent to a path that is not there.",
            hint=f"Take this line out of i18n_patterns() and put it into urlpatterns itself: {_EXAMPLE_URLS}",
            id="esms_viber.W003",
        )


def _check_allowed_hosts(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin = _origin(conf)
    # As Django does where nothing is set.
    allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    if origin is None or validate_host(split_domain_port(origin.netloc)[0], allowed):
        return
    # Django lets the local names in by itself only while the list is empty.
    others = "..." if settings.ALLOWED_HOSTS else '"localhost", "127.0.0.1"'
    yield CheckWarning(
        f'Django would refuse callbacks: {origin.hostname}, the host of ESMS_VIBER["CALLBACK_ORIGIN"], is not in '
        "ALLOWED_HOSTS.",
        hint=f'ALLOWED_HOSTS = [{others}, "{origin.hostname}"]',
        id="esms_viber.W004",
    )


def _check_ssl_redirect(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin, path = _origin(conf), _callback_path()
    if origin is None or path is None or not _redirects_to_https(path):
        return
    if origin.scheme == "http":
        hint = "Write the origin with https: " + _EXAMPLE_ORIGIN
    elif settings.SECURE_PROXY_SSL_HEADER is None:
        hint = (
            'Behind a proxy that sets it: SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https"); '
            f'or SECURE_REDIRECT_EXEMPT = [r"^{re.escape(path.lstrip("/").removesuffix("token/"))}"]'
        )
    else:
        return
    yield CheckWarning(
        "SECURE_SSL_REDIRECT may answer callbacks with a redirect, which eSMS is not known to follow.",
        hint=hint,
        id="esms_viber.W005",
    )


def _redirects_to_https(path: str) -> bool:
    return (
        settings.SECURE_SSL_REDIRECT
        and "django.middleware.security.SecurityMiddleware" in settings.MIDDLEWARE
        and not any(re.search(exempt, path.lstrip("/")) for exempt in settings.SECURE_REDIRECT_EXEMPT)
    )


def _check_sandbox(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.SANDBOX:
        yield CheckWarning(
            'ESMS_VIBER["SANDBOX"] is on: eSMS delivers nothing.',
            hint='"SANDBOX": False; or, on a staging site, add "esms_viber.W006" to SILENCED_SYSTEM_CHECKS.',
            id="esms_viber.W006",
        )


def _check_public_origin(conf: ViberSettings) -> Iterator[CheckMessage]:
    origin = _origin(conf)
    if not conf.CALLBACK_ORIGIN:
        yield Info(
            'ESMS_VIBER["CALLBACK_ORIGIN"] is not set: results come only by polling.',
            hint=f"Ask for results in the admin or by refresh_viber_messages(), or set {_EXAMPLE_ORIGIN}",
            id="esms_viber.I001",
        )
    elif origin is not None and not _is_public(origin.hostname or ""):
        yield CheckWarning(
            f'eSMS cannot reach {origin.hostname}, the host of ESMS_VIBER["CALLBACK_ORIGIN"].',
            hint="Name a host that the internet can reach: " + _EXAMPLE_ORIGIN,
            id="esms_viber.W007",
        )
    elif origin is not None and origin.scheme != "https":
        yield CheckWarning(
            'ESMS_VIBER["CALLBACK_ORIGIN"] is not https: phone numbers and results travel unencrypted.',
            hint=_EXAMPLE_ORIGIN,
            id="esms_viber.W008",
        )


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        name, _, top_level = host.rstrip(".").rpartition(".")
        return bool(name) and not top_level.isdigit() and top_level not in _LOCAL_TOP_LEVELS
