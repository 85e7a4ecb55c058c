"""System checks of the settings, and of the Django settings that they depend on."""
