"""Reachable machines: one file for each kind of connection."""
