"""Functions as jobs: pickled by value, executed by a program of ours, their values and exceptions brought home."""

FOLDER = ".cloudsend"  # in the run directory; globs of outputs do not match its name
VALUE = f"{FOLDER}/value"
