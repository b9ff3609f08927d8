"""What is said of machines that do not answer, or refuse: since when, and the way out."""

from __future__ import annotations

import pytest

from cloudsend_cli.core.model import HostView
from cloudsend_cli.core.silence import describe_silence
from cloudsend_cli.core.views import silence_of

SILENT = HostView(False, since=90.0, error="timed out")


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (SILENT, "no answer since 00:01:30Z: timed out"),
        (HostView(False, since=90.0), "no answer since 00:01:30Z"),
        (HostView(False, error="not connected yet"), "connecting"),
        (HostView(False, since=1.0, error="no Python", error_code="unfit"),
         "no Python; `cloudsend check lab-a` says what to do"),
        (HostView(False, since=1.0, error="unknown key", error_code="host-key"),
         "unknown key; `cloudsend check lab-a` says what to do"),
        (HostView(False, since=1.0, error_code="auth"), "it refuses; `cloudsend check lab-a` says what to do"),
        (HostView(False, since=1.0, error="in use by eve", error_code="capacity"), "in use by eve; waiting"),
    ],
)  # fmt: skip
def test_words_for_silence(view: HostView, text: str) -> None:
    assert describe_silence("lab-a", view) == text


def test_silence_is_laid_over_running_jobs_only() -> None:
    assert silence_of("running", "lab-a", SILENT)["unknown_since"] == 90.0
    for state, view in (("succeeded", SILENT), ("pending", SILENT), ("running", None), ("running", HostView(True))):
        assert silence_of(state, "lab-a", view) == {"unknown_since": None, "silence": ""}
