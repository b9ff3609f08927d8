"""Fails with an exception, as programs do."""

measurements = {"monday": 3.1, "tuesday": 2.7}
print("reading", measurements["wednesday"])
