"""Who keeps calling tick."""
