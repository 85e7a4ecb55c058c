"""Send Viber messages through the eSMS.vn gateway from Django."""

__version__ = "0.1.0"
