"""The process in which moto's server runs; it ends when its stdin is closed, so also when the tests are killed.

usage: moto_process.py      prints the port
"""

from __future__ import annotations

import functools
import itertools
import logging
import sys


def keep_addresses_unreal() -> None:
    """moto makes up public addresses that exist: nobody may ever try to reach one."""
    from moto.ec2.models import elastic_ip_addresses, elastic_network_interfaces

    numbers = itertools.count()

    def made_for_documentation() -> str:
        return f"203.0.113.{next(numbers) % 254 + 1}"

    elastic_ip_addresses.random_ip = made_for_documentation
    elastic_network_interfaces.random_public_ip = made_for_documentation


def share_key() -> None:
    """moto makes an RSA key for the disks of each region, which nothing is ever encrypted with: one is as good."""
    from moto.kms import utils

    utils.generate_private_key = functools.cache(utils.generate_private_key)


def main() -> None:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    keep_addresses_unreal()
    share_key()
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
