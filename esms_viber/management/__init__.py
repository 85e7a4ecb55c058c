"""Management commands, and the signals and progress that they share."""
