"""Talk to eSMS, or stand in for it. Knows no model."""
