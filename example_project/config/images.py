"""Viber wants images at https URLs. The demo answers by http alone, so its phones fetch some from this site instead."""

from __future__ import annotations

from urllib.parse import urlsplit


def https_url(origin: str, path: str) -> str:
    """The path under the host and port of this site, as the site would be reached by https."""
    return f"https://{urlsplit(origin).netloc}{path}"


def local_images(origin: str) -> dict[str, str]:
    """For the simulator: beginnings of URLs that this site serves itself, and what stands in their place."""
    return {"https://shop.example.vn/static/": "/static/", https_url(origin, "/static/"): "/static/"}
