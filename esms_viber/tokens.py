"""The signed token by which a callback proves which message and which attempt at it it speaks of."""

from __future__ import annotations

from django.core.signing import BadSignature, Signer

# Both separators are characters that no URL encoding touches: the token is part of a URL inside a URL.
_SEPARATOR = "."


def _signer() -> Signer:
    return Signer(sep="~", salt="esms_viber.callback")


def make_token(pk: int, request_id: str) -> str:
    """Does not expire: eSMS documents no limit on when a result may come."""
    return _signer().sign(f"{pk}{_SEPARATOR}{request_id}")


def read_token(token: str) -> tuple[int, str] | None:
    """Primary key and RequestId; None where the signature does not hold (under `SECRET_KEY_FALLBACKS` either)."""
    try:
        pk, _, request_id = _signer().unsign(token).partition(_SEPARATOR)
        return int(pk), request_id
    except (BadSignature, ValueError):
        return None
