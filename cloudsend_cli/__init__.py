"""cloudsend runs any script on any machine its user can reach."""

__version__ = "0.1.0"
