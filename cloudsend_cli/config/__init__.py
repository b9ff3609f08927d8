"""From the user's files to a `RunSpec`: documents with places, checks, sweeps, uploads. Import from the modules."""
