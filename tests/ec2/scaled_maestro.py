"""A maestro whose patience with a machine that boots is shorter: `python scaled_maestro.py SECONDS STATE_DIR FD`."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from cloudsend_cli.core.model import Policy
from cloudsend_cli.maestro import local


def main(arguments: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudsend_cli.maestro.loop.Policy", partial(Policy, boot_limit=float(arguments[0])))
        return local.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
