"""System checks of the settings, and of what Django must be told for them."""
