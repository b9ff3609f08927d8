"""The only code that both reads and changes the world: observe, decide, commit, execute."""
