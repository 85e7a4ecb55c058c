"""Gateways to eSMS, and stand-ins for it. They know no model."""
