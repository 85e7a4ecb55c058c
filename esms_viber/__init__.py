"""Send Viber messages through the eSMS.vn gateway from Django."""

from __future__ import annotations

__version__ = "0.1.0"
