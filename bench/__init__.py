"""Benchmarks: `make bench`, or `python -m bench [jobs] [many] [startup] [latency]`."""
