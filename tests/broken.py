"""A module that fails while it is imported, as a site's own may."""

from __future__ import annotations

raise LookupError("some words of its own")
