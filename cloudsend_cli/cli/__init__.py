"""The command line: a skin over `cloudsend_cli.api.Client`. Parse, ask the client, render."""
