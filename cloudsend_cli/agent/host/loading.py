"""The modules of this package as Python has compiled them, where whoever starts us has put them beside the zip.

What is in a zip is compiled at each start otherwise, which takes longer than all else that a daemon does then. The
file is used only if its sha256 is the one that we were told, and only by the Python that it was made by.
"""

import hashlib
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

VARIABLE = "CLOUDSEND_AGENT_COMPILED"  # from attach to the daemon as well; jobs do not get it


class Compiled:
    """Finds and loads modules of the zip, as its own importer would."""

    def __init__(self, agent, modules):
        self.agent, self.modules = agent, modules

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules:
            return None
        spec = ModuleSpec(name, self, origin="%s/%s.py" % (self.agent, name.replace(".", "/")))
        spec.has_location = True  # modules ask for __file__
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(marshal.loads(self.modules.pop(module.__name__)), module.__dict__)  # noqa: S102, S302


def load_compiled():
    """From now on modules come from there; nothing changes if that file is not as it is to be."""
    agent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = os.environ.get(VARIABLE, "")
    try:
        with open("%s-%s.code" % (os.path.splitext(agent)[0], digest[:16]), "rb") as reader:
            raw = reader.read()
    except OSError:
        return
    if hashlib.sha256(raw).hexdigest() != digest:
        return
    tag, _, rest = raw.partition(b"\n")
    if tag.decode("ascii", "replace") == "%s %s" % (sys.implementation.cache_tag, MAGIC_NUMBER.hex()):
        sys.meta_path.insert(0, Compiled(agent, marshal.loads(rest)))  # noqa: S302
