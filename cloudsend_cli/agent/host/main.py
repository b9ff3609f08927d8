"""cloudsend's agent.

python3 -I -S -B AGENT attach HOME    a pipe to the daemon of HOME, which is started or replaced as needed
python3 -I -S -B AGENT serve HOME     the daemon itself
python3 -I -S -B AGENT version
"""

import os
import sys


def main(argv):
    """Each verb imports what it needs: `attach` runs at each connect, and what is in a zip is compiled each time."""
    if argv[1:] == ["version"]:
        return print_version()
    if len(argv) == 3 and argv[1] == "attach":
        from .attach import attach

        os._exit(attach(argv[2]))
    if len(argv) == 3 and argv[1] == "serve":
        from .daemon import serve

        return serve(argv[2])
    sys.stderr.write(__doc__)
    return 2


def print_version():
    import json

    from .home import own_sha256
    from .protocol import PROTOCOL

    about = {"protocol": PROTOCOL, "sha": own_sha256(), "python": sys.version.split()[0]}
    sys.stdout.write(json.dumps(about) + "\n")
    return 0
