"""The account's keys: no repr, traceback or pickle shows them, and an answer that repeats them is recognised."""

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
        """Return the bytes. Use them within an expression, and never bind them to a name."""
        return self._value


NOTHING = Secret(b"")


class Keys:
    """`ApiKey` and `SecretKey` in the forms in which they travel."""

    __slots__ = ("_traces", "body", "path", "query")

    def __init__(self, api_key: str, secret_key: str) -> None:
        self.query = Secret(urlencode({"ApiKey": api_key, "SecretKey": secret_key}, quote_via=quote).encode())
        self.body = Secret(json.dumps({"ApiKey": api_key, "SecretKey": secret_key}).encode())
        self.path = Secret(f"/{quote(api_key, safe='')}/{quote(secret_key, safe='')}".encode())
        # A name with its "=" counts as a repeated query string, because the key behind it may have been cut. So does
        # the name of the one operation that has the keys in its path, with the slash after it.
        plain = {trace for key in (api_key, secret_key) if (trace := _plain(key))}
        self._traces = (*plain, "apikey=", "secretkey=", "getlistbrandname/")

    def body_with(self, **fields: str | int) -> Secret:
        """Return a JSON body that has these fields beside the keys."""
        return Secret(self.body.reveal()[:-1] + b", " + json.dumps(fields)[1:].encode())

    def __repr__(self) -> str:
        return "<hidden>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys do not pickle")

    def show_in(self, text: str) -> bool:
        """Does the text hold a key, encoded in whatever way? A text that is nested too deeply to decode counts too."""
        plain = _plain(text)
        return plain is None or any(map(plain.__contains__, self._traces))


def _plain(text: str) -> str | None:
    """Decode the text until it stays the same, without case, spaces and backslashes; None if nested too deeply."""
    for _ in range(_MOST_DECODINGS):
        before = text
        text = "".join(filter(str.isprintable, text.casefold()))
        # An escape character that was itself escaped many times is restored in one go, so that depth costs no rounds.
        text = re.sub(r"%(?:25)+", "%", text)
        text = re.sub(r"&(?:amp;)+", "&", text)
        text = re.sub(r"\\+", r"\\", text)
        text = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
        text = unquote(html.unescape(text))
        if text == before:
            return text.translate(_IGNORED)
    return None
