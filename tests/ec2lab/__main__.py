"""A cloud for hands-on use: says what to export, and lives until Ctrl-C. On a terminal it gives a Python prompt."""

from __future__ import annotations

import code
import contextlib
import shlex
import signal
import sys

from sshlab import NotHere

from .cloud import Cloud

WORDS = """
# In another terminal of this machine (the same network namespace):
{exports}
# Here: `ec2` is the cloud. help(ec2lab) says what it can do: ec2.calls, ec2.notice(id, 20), ec2.leaks(), ec2.bill()
"""


def main() -> int:
    # A shell may have started us with SIGINT ignored; and a SIGTERM is to leave nothing behind either.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        cloud = Cloud()
    except NotHere as reason:
        print(f"no lab here: {reason}", file=sys.stderr)
        return 1
    with contextlib.suppress(KeyboardInterrupt), cloud as ec2:
        environ = {**ec2.environ, "CLOUDSEND_CALLER_CIDR": f"{ec2.client_address}/32"}
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environ.items())
        print(WORDS.format(exports=exports), flush=True)
        if sys.stdin.isatty():
            import ec2lab

            code.interact(banner="", exitmsg="", local={"ec2": ec2, "ec2lab": ec2lab})
        else:
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
