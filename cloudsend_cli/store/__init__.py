"""What is remembered: one SQLite file in the state directory."""
