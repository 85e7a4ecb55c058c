"""The account's keys: held where no repr, traceback or pickle shows them, and recognised in what comes back."""

from __future__ import annotations

import html
import json
import re
from typing import NoReturn
from urllib.parse import quote, unquote, urlencode

_MOST_DECODINGS = 8
_IGNORED = str.maketrans("", "", " +\\")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\x([0-9a-f]{2})")


class Secret:
    """Bytes that reach the socket and nothing else."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return "<hidden>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret does not pickle")

    def reveal(self) -> bytes:
        """The bytes; to be used within an expression and never bound to a name."""
        return self._value


NOTHING = Secret(b"")


class Keys:
    """`ApiKey` and `SecretKey` in the forms in which they travel."""

    __slots__ = ("_traces", "body", "query")

    def __init__(self, api_key: str, secret_key: str) -> None:
        self.query = Secret(urlencode({"ApiKey": api_key, "SecretKey": secret_key}, quote_via=quote).encode())
        self.body = Secret(json.dumps({"ApiKey": api_key, "SecretKey": secret_key}).encode())
        # A name with its "=" is taken for a repeated query string, even where the key behind it was cut.
        plain = {trace for key in (api_key, secret_key) if (trace := _plain(key))}
        self._traces = (*plain, "apikey=", "secretkey=")

    def __repr__(self) -> str:
        return "<hidden>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys do not pickle")

    def show_in(self, text: str) -> bool:
        """Whether a key, in any encoding or several, stands in the text; a text without end to decode counts."""
        plain = _plain(text)
        return plain is None or any(map(plain.__contains__, self._traces))


def _plain(text: str) -> str | None:
    """The text after every decoding, without case, spaces and what escaping adds; None: nested too deeply."""
    for _ in range(_MOST_DECODINGS):
        decoded = _decode_once(text)
        if decoded == text:
            return text.translate(_IGNORED)
        text = decoded
    return None


def _decode_once(text: str) -> str:
    text = "".join(filter(str.isprintable, text.casefold()))
    # Repeated escaping of the escape character itself is undone in one go, however deep.
    text = re.sub(r"%(?:25)+", "%", text)
    text = re.sub(r"&(?:amp;)+", "&", text)
    text = re.sub(r"\\+", r"\\", text)
    text = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
    return unquote(html.unescape(text))
