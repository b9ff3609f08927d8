"""What an attempt leaves: globs, missing outputs, the manifest, the mark of a built environment."""

import os
import re
import stat

from .disk import NO_SPACE
from .files import open_below, sha256_of, split_path
from .texts import to_bytes, to_text


def glob_regex(pattern):
    """A glob over '/'-paths: * and ? stay in a component and skip a leading dot; a directory means all below it."""
    parts = []
    for part in re.sub(r"\*\*+", "**", pattern).split("/"):
        if part != "**":
            parts.append(component_regex(part.replace("**", "*")) + "/")
        elif parts[-1:] != ["(?:[^/]+/)*"]:  # two in a row would mean the same, and backtrack for ever
            parts.append("(?:[^/]+/)*")
    whole = "".join(parts)
    whole = whole[:-1] if whole.endswith("/") else whole + "[^/]+"
    return re.compile(whole + "(?:/.*)?\\Z", re.S)


def component_regex(part):
    text, i = "(?!\\.)" if part[:1] in ("*", "?", "[") else "", 0
    while i < len(part):
        char, close = part[i], part.find("]", i + 2)
        if char == "[" and close > 0:
            inside = part[i + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            text += "[" + ("^/" + inside[1:] if inside[0] in "!^" else inside) + "]"
            i = close
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char)
        i += 1
    return text


def find_outputs(work, patterns):
    """Yields (path, stat, is_link) of the files below work that match; links are named, never followed."""
    regexes = [glob_regex(pattern.strip("/")) for pattern in patterns]
    todo = [(to_bytes(work), "")]
    while todo:
        folder, prefix = todo.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            path = prefix + to_text(entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    todo.append((entry.path, path + "/"))
                elif any(regex.match(path) for regex in regexes):
                    about = entry.stat(follow_symlinks=False)
                    if entry.is_symlink() or stat.S_ISREG(about.st_mode):
                        yield path, about, entry.is_symlink()
            except OSError:
                pass


def missing_outputs(work, outputs):
    missing = []
    for item in outputs:
        if not item.get("optional"):
            pattern = item["pattern"].strip("/")
            if os.path.lexists(os.path.join(to_bytes(work), to_bytes(pattern))):
                continue
            if next(find_outputs(work, [pattern]), None) is None:
                missing.append(item["pattern"])
    return missing


def manifest(work, patterns):
    """Yields each match with its size and digest. What vanishes or changes its kind meanwhile is left out."""
    for path, about, is_link in find_outputs(work, patterns):
        parts = split_path(path)
        try:
            if is_link:
                yield {"path": path, "link": to_text(os.readlink(os.path.join(to_bytes(work), *parts)))}
                continue
            fd = open_below(work, parts, os.O_RDONLY | os.O_NONBLOCK)
            try:
                digest, size = sha256_of(fd)
            finally:
                os.close(fd)
            yield {
                "path": path,
                "size": size,
                "mode": stat.S_IMODE(about.st_mode),
                "mtime_ns": about.st_mtime_ns,
                "sha256": digest,
            }
        except OSError:
            pass


def complete(home, spec, work, status):
    """What follows the end of the processes: outputs are looked for, a built environment is marked, in this order."""
    if spec.get("outputs"):
        missing = missing_outputs(work, spec["outputs"])
        if missing:
            status["missing"] = missing
    if spec.get("kind") == "build" and spec.get("environment") and status["exit_code"] == 0 and not status["cause"]:
        try:
            folder = "%s/envs/%s" % (home, spec["environment"])
            os.makedirs(folder, 0o700, exist_ok=True)
            os.close(os.open(folder + "/.ready", os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError as problem:
            status["cause"] = "disk-full" if problem.errno in NO_SPACE else "environment-unmarked"
