"""What a host can be asked to execute fits into what carries it."""

from __future__ import annotations

from cloudsend_cli.agent.client import MAX_LINE
from cloudsend_cli.core.limits import REQUEST_MOST, WORD_MOST


def test_a_request_is_a_frame_and_a_word_is_a_part_of_one() -> None:
    assert WORD_MOST + 1 == 128 << 10
    assert WORD_MOST < REQUEST_MOST < MAX_LINE
