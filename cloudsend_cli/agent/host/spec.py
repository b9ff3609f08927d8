"""What an attempt is to be: the check of a spec from a client, and the spec as it is kept."""

import hashlib
import os

from .disk import read_file, remove, write_new
from .encoding import compact, encode_json, encode_sorted, parse
from .files import split_path
from .outputs import glob_regex
from .protocol import ID, SHA
from .records import folder_of, is_claimed
from .texts import to_bytes

MAX_ABOUT = 8192


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e18


def is_names(value):
    """Strings that can be arguments of exec: no NUL, and bytes again when encoded."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return False
    return "\0" not in "".join(value) and to_bytes("".join(value)) is not None


def need(good, what):
    if not good:
        raise ValueError(what)


def check_spec(spec):
    """Raises ValueError with what is wrong. What passes here can be run without looking at types again."""
    get = spec.get
    need(is_names(get("argv")) and get("argv") and get("argv")[0], "argv")
    for name in ("env", "secrets"):
        table = get(name) or {}
        need(isinstance(table, dict) and is_names(list(table)) and is_names(list(table.values())), name)
        need(all(key and "=" not in key for key in table), name)
    check_limits(get)
    cwd = get("cwd")
    if cwd is not None:
        need(isinstance(cwd, str) and cwd and is_names([cwd]), "cwd")
        need(cwd[0] in "/~" or ".." not in cwd.split("/"), "cwd leaves the work directory")
    key = get("environment")
    need(key is None or (isinstance(key, str) and ID.match(key)), "environment")
    check_files(get)
    check_leaving(get)
    need(get("kind", "job") in ("job", "build"), "kind")
    about = get("about")
    need(about is None or (isinstance(about, dict) and len(encode_json(about)) <= MAX_ABOUT), "about")
    for name in ("private_files", "keep_children"):
        need(isinstance(get(name, False), bool), name)


def check_limits(get):
    for name in ("cpus", "memory", "gpus", "grace"):
        need(is_number(get(name, 0)), name)
    need(get("gpus", 0) == int(get("gpus", 0)), "gpus")
    need(get("timeout") is None or (is_number(get("timeout")) and 0 < get("timeout") < 1e9), "timeout")
    slots = get("slots") or []
    need(is_names(slots) and len(set(slots)) == len(slots), "slots")


def check_leaving(get):
    hook, resume = get("on_preempt"), get("resume_dir")
    need(hook is None or (is_names([hook]) and hook), "on_preempt")
    need(resume is None or isinstance(resume, str), "resume_dir")
    if resume is not None:
        split_path(resume)


def check_files(get):
    for item in get("files") or []:
        need(isinstance(item, dict) and isinstance(item.get("path"), str), "files")
        split_path(item["path"])
        if "link" in item:
            need(is_names([item["link"]]) and item["link"], "files: link")
        else:
            need(isinstance(item.get("sha256"), str) and SHA.match(item["sha256"]), "files: sha256")
            need(is_number(item.get("mode", 0)) and isinstance(item.get("mode", 0), int), "files: mode")
    for item in get("outputs") or []:
        need(isinstance(item, dict) and isinstance(item.get("pattern"), str), "outputs")
        split_path(item["pattern"].strip("/"))
        glob_regex(item["pattern"].strip("/"))
    need(isinstance(get("files") or [], list) and isinstance(get("outputs") or [], list), "files, outputs")


def shape_of(spec):
    """(milli-cpus, bytes, gpus, slots): whole numbers, so that releasing gives back exactly what was taken."""
    return (
        int(round(spec.get("cpus", 1) * 1000)),  # noqa: RUF046
        int(spec.get("memory", 0)),
        int(spec.get("gpus", 0)),
        tuple(spec.get("slots") or ()),
    )


def without_secrets(spec):
    """(JSON of the spec as it is kept, digest of what is to be executed). Secrets are kept in a file of their own."""
    order = {name: value for name, value in spec.items() if name != "about"}
    body = encode_sorted(order)
    digest = hashlib.sha256(body.encode("ascii")).hexdigest()
    if spec.get("secrets"):
        body = encode_json(dict(spec, secrets=None, has_secrets=True))
    elif "has_secrets" in spec:
        raise ValueError("has_secrets")
    elif "about" in spec:
        body = '%s,"about":%s}' % (body[:-1], encode_json(spec["about"]))
    return body, digest


def write_spec(base, secrets, kept):
    """spec.json comes last: half a spec was never accepted."""
    if secrets:
        write_new(base + "/secrets", compact(secrets))
    write_new(base + "/spec.json", kept)


def read_spec(home, ident):
    """{digest, boot, owner, seq, spec} of what was accepted; None where it was not written whole."""
    kept = parse(read_file("%s/attempts/%s/spec.json" % (home, ident)))
    return kept if isinstance(kept, dict) and "spec" in kept else None


def forget_torn(home, ident):
    """A directory whose spec was not written whole was never accepted: nobody was told so."""
    base = folder_of(home, ident)
    if not is_claimed(home, ident):
        remove(base + "/secrets")
        remove(base + "/spec.json")
        try:
            os.rmdir(base)
        except OSError:
            pass
