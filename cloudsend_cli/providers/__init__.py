"""Where instances come from: one file for each provider."""
