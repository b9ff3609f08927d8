"""A maestro with less patience with machines that boot, and with those that are idle while others work.

python scaled_maestro.py BOOT_LIMIT LEAST_IDLE STATE_DIR FD
"""

from __future__ import annotations

import sys
from functools import partial

import pytest

from cloudsend_cli.core.model import Policy
from cloudsend_cli.maestro import local


def main(arguments: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloudsend_cli.maestro.loop.Policy", partial(Policy, boot_limit=float(arguments[0])))
        patch.setattr("cloudsend_cli.core.decide_nodes.LEAST_IDLE", float(arguments[1]))
        return local.main(arguments[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
