"""The callback's address, and the signed token in it that proves which message and attempt it speaks of."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from contextlib import suppress
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit
from weakref import WeakKeyDictionary

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.middleware.locale import LocaleMiddleware
from django.urls import NoReverseMatch, URLResolver, get_resolver, get_script_prefix, reverse, set_script_prefix
from django.utils import translation
from django.utils.encoding import force_bytes
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from .conf import ViberSettings

LARGEST_PK = 2**63 - 1
URLCONF_LINE = 'path("esms-viber/", include("esms_viber.urls"))'

_SEGMENT = r"(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+"
_ORIGIN = re.compile(rf"https?://[A-Za-z0-9.:\[\]-]+(?:/{_SEGMENT})*/?")


@lru_cache(maxsize=8)
def split_origin(origin: str | None) -> SplitResult | None:
    """Split a scheme, a host and the path under which the site is mounted; None for anything else."""
    try:
        parts = urlsplit(origin or "")
        fits = bool(parts.hostname) and (parts.port is None or parts.port >= 0)
    except ValueError:  # a port that is none, an IPv6 address without its bracket
        return None
    return parts if fits and _ORIGIN.fullmatch(origin or "") else None


def not_an_origin() -> str:
    return _(
        'ESMS_VIBER["CALLBACK_ORIGIN"] must be a scheme and a host (and a port, if need be) and, where the site is '
        "mounted under one, a path; and nothing else."
    )


def callback_url(pk: int, request_id: str, conf: ViberSettings) -> str:
    """Empty without `CALLBACK_ORIGIN`. Holds no `?`: how eSMS adds to an existing query string is not documented.

    Raises `ImproperlyConfigured` where there is none to be had.
    """
    if not conf.CALLBACK_ORIGIN:
        return ""
    if split_origin(conf.CALLBACK_ORIGIN) is None:
        raise ImproperlyConfigured(not_an_origin())
    # Before the URLconf is looked at: without SECRET_KEY, Django's own error names it.
    token = make_token(pk, request_id)
    try:
        path = callback_path(token)
    except NoReverseMatch:
        sentence = _(
            'ESMS_VIBER["CALLBACK_ORIGIN"] is set, but nothing answers there. Add to your root URLconf: %(line)s'
        )
        raise ImproperlyConfigured(sentence % {"line": URLCONF_LINE}) from None
    except Exception as error:
        # Importing the URLconf runs the site's own code, which may raise anything.
        sentence = _('ESMS_VIBER["CALLBACK_ORIGIN"] is set, but the root URLconf cannot be loaded: %(problem)s.')
        raise ImproperlyConfigured(sentence % {"problem": type(error).__name__}) from error
    return conf.CALLBACK_ORIGIN.rstrip("/") + path


def callback_path(token: str) -> str:
    """The callback's path below the place where the site is mounted.

    The same from every request, thread, worker and command: neither the URLconf of the request, nor the path that the
    web server mounts the site under, nor the active language changes it.
    """
    if not _PLAIN_TOKEN.fullmatch(token):
        return _reverse(token)
    # The resolver is Django's own cache of the URLconf, and another one after `clear_url_caches()`.
    paths = _paths.setdefault(get_resolver(settings.ROOT_URLCONF), {})
    languages = site_language(), settings.LANGUAGE_CODE
    if languages not in paths:
        before, _, after = _reverse(_EXAMPLE).partition(_EXAMPLE)
        paths[languages] = before, after
    return token.join(paths[languages])


_PLAIN_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
"""What `reverse()` leaves as it is."""
_EXAMPLE = "esms-viber-token"
_paths: WeakKeyDictionary[URLResolver, dict[tuple[str, str], tuple[str, str]]] = WeakKeyDictionary()
"""Beginning and end of the path, by the language. Reversing takes ten times as long as all the rest of an address."""


def _reverse(token: str) -> str:
    prefix = get_script_prefix()
    set_script_prefix("/")
    try:
        with translation.override(site_language()):
            return reverse("esms_viber:callback", urlconf=settings.ROOT_URLCONF, args=[token])
    finally:
        set_script_prefix(prefix)


def site_language() -> str:
    """The language of a request that asks for none, as eSMS's do."""
    if _has_locale_middleware(tuple(settings.MIDDLEWARE)):
        try:
            # It answers in "en" where LANGUAGE_CODE is "en-us" and LANGUAGES has "en" only.
            return translation.get_supported_language_variant(settings.LANGUAGE_CODE)
        except LookupError:
            pass
    return settings.LANGUAGE_CODE


@lru_cache(maxsize=8)
def _has_locale_middleware(paths: tuple[str, ...]) -> bool:
    """Is one of these Django's `LocaleMiddleware`, or a subclass of it?"""
    for path in paths:
        with suppress(Exception):  # it fails when Django loads it, and says why
            found = import_string(path)
            if isinstance(found, type) and issubclass(found, LocaleMiddleware):
                return True
    return False


# Both separators are characters that no URL encoding touches, because the token is part of a URL inside a URL.
_SEPARATOR = "."
_SIGNATURE, _SALT = "~", "esms_viber.callback"
_TOKEN = re.compile(r"(([0-9]{1,19})\.([!-}]{0,50}))~([A-Za-z0-9_-]{43})")


def make_token(pk: int, request_id: str) -> str:
    """Does not expire: eSMS documents no limit on when a result may come."""
    signed = f"{pk}{_SEPARATOR}{request_id}"
    return f"{signed}{_SIGNATURE}{_signature(signed, settings.SECRET_KEY)}"


def read_token(token: str) -> tuple[int, str] | None:
    """Primary key and RequestId; None where the signature does not hold (under `SECRET_KEY_FALLBACKS` either)."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    signed, pk, request_id, signature = match.groups()
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        if hmac.compare_digest(signature, _signature(signed, secret)):
            return int(pk), request_id
    return None


def _signature(signed: str, secret: str | bytes) -> str:
    """The signature of Django's `Signer`, which would derive its key anew for each request that anybody makes."""
    keyed = _keyed(secret).copy()
    keyed.update(signed.encode())
    return urlsafe_b64encode(keyed.digest())[:-1].decode()  # without the one "=" that ends 32 bytes


@lru_cache(maxsize=8)
def _keyed(secret: str | bytes) -> hmac.HMAC:
    """To be copied, which takes two thirds of what it takes to give a new one its key."""
    key = hashlib.sha256(force_bytes(f"{_SALT}signer") + force_bytes(secret)).digest()
    return hmac.new(key, digestmod="sha256")
