"""Bounds of what a host can be asked to execute."""

from __future__ import annotations

# Bytes of one argument, or of NAME=value: Linux counts 128 KiB with the NUL (MAX_ARG_STRLEN with pages of 4 KiB).
WORD_MOST = 131_071
# Bytes of one attempt as a request: a frame of the agent's protocol holds 1 MiB. All words together are then below the
# 2 MiB that Linux passes to a program whose stack may grow to 8 MiB, as is usual.
REQUEST_MOST = 900_000
