"""What a job executes: shell lines and scripts to argument vectors, the files that they name, and default names."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from .check import clip
from .templates import Template, parse_template

INTERPRETERS = {".py": "python3", ".R": "Rscript", ".r": "Rscript", ".jl": "julia", ".sh": "sh", ".bash": "bash"}
_SHELLS = frozenset({"sh", "bash", "dash", "ksh", "zsh", "ash"})
_RUNS_A_FILE = re.compile(r"(python[0-9.]*|pypy[0-9.]*|bash|sh|dash|zsh|Rscript|julia|perl|ruby|node)")
_PASSES_ON = frozenset({"env", "exec", "nice", "nohup", "time", "timeout", "stdbuf", "sudo", "then", "do"})


@dataclass(frozen=True, slots=True)
class Command:
    """A job's command before its parameters are filled in."""

    argv: tuple[Template, ...]
    display: Template
    words: tuple[Template, ...]  # may name files to send
    name: str  # the default name of its job


def render_shell_line(line: str, names: Sequence[str]) -> Command:
    """`run:` as the shell gets it. Parameters are quoted for the place where they stand."""
    shell = parse_template(line, names, quoted=True)
    split = split_words(line)
    words = tuple(parse_template(word, names) for word in read_words(split))
    fixed = (Template(("/bin/sh",)), Template(("-c",)))
    return Command((*fixed, shell), shell, words, default_name(split))


def read_words(split: Sequence[str]) -> list[str]:
    """Those of a shell line's words that it may read as files: not what a redirection writes to."""
    words: list[str] = []
    writes = False
    for word in split:
        if word and set(word) <= set("();<>|&"):
            writes = ">" in word
            continue
        if not writes:
            words.append(word)
        writes = False
    return list(dict.fromkeys(words))


def split_words(line: str) -> list[str]:
    """Words as a shell reads them, operators apart. Where quotes do not match (a here-document): split at spaces."""
    if len(line) > 100_000:
        return []
    try:
        return _split(line)
    except ValueError:
        words: list[str] = []
        for part in line.splitlines():
            try:
                words += _split(part)
            except ValueError:
                words += part.split()
        return words


_QUOTING = re.compile(r"[\"'\\]")
_WORD = re.compile(r"[();<>|&]+|[^ \t\r\n();<>|&]+")


def _split(text: str) -> list[str]:
    if not _QUOTING.search(text):
        return _WORD.findall(text)  # the same, a hundred times faster
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.commenters = ""
    lexer.whitespace_split = True
    return list(lexer)


class ScriptProblem(ValueError):
    """A script that cannot be started: what is wrong, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def split_script(text: str) -> list[str]:
    """The script's path and its arguments. Raises ScriptProblem when quotes do not match."""
    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise ScriptProblem(f"{clip(text)} cannot be split into words: {problem}", "check its quotes") from None
    if not words or not words[0]:
        raise ScriptProblem("names no script", "write script: train.py --lr 0.1")
    return words


def render_script(words: Sequence[str], absolute: str, place: str, names: Sequence[str]) -> Command:
    """`script:` as an argument vector; `place` is the script's path as seen from where the job runs."""
    start = [*list_interpreter(absolute, words[0]), place]
    if len(start) == 1 and "/" not in place:
        start = ["./" + place]
    elif place.startswith("-"):
        start[-1] = "./" + place
    arguments = tuple(parse_template(word, names) for word in words[1:])
    argv = (*(Template((word,)) for word in start), *arguments)
    display = parse_template(shlex.join(words) if not names else " ".join(map(_show_word, words)), names)
    return Command(argv, display, arguments, stem(words[0]))


def _show_word(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z0-9@%+=:,./_{}-]+", word) else shlex.quote(word)


def list_interpreter(absolute: str, shown: str) -> list[str]:
    """The words before the script: none when it can be executed itself. Reads its first line."""
    shebang = fetch_shebang(absolute)
    if shebang and os.access(absolute, os.X_OK):
        return []
    known = INTERPRETERS.get(os.path.splitext(absolute)[1])
    if known in _SHELLS:
        own = os.path.basename(shebang[-1]) if shebang else ""
        return [own if own in _SHELLS else known]
    if known:
        return [known]
    if shebang:
        return shebang
    raise ScriptProblem(
        f"cannot tell what runs {clip(shown)}",
        "use a name that ends in .py, .jl, .sh or .R, begin the file with #!, or use run",
    )


def fetch_shebang(absolute: str) -> list[str]:
    """The words after `#!` in the file's first line, [] when there are none or it cannot be read."""
    try:
        with open(absolute, "rb") as file:
            first = file.read(256).split(b"\n", 1)[0]
    except OSError:
        return []
    if not first.startswith(b"#!"):
        return []
    return first[2:].decode("utf-8", "replace").replace("\r", "").replace("\0", "").split(None, 1)[:2]


def default_name(words: Sequence[str]) -> str:
    """The program's name, or that of the script which an interpreter runs."""
    program = ""
    for word in words:
        base = os.path.basename(word.rstrip("/"))
        if set(word) <= set("();<>|&"):
            if program:
                break
        elif program:
            if word == "-m":
                continue
            if word.startswith("-"):
                if word == "-c":
                    break
                continue
            return stem(word)
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", word, re.DOTALL) or base in _PASSES_ON:
            continue
        elif _RUNS_A_FILE.fullmatch(base):
            program = base
        else:
            return stem(base) if base.endswith(tuple(INTERPRETERS)) else plain_name(base)
    return plain_name(program)


def stem(path: str) -> str:
    return plain_name(os.path.splitext(os.path.basename(path.rstrip("/")))[0])


def plain_name(text: str, empty: str = "job") -> str:
    """`text` as a name that any place can show and any file system can hold."""
    plain = re.sub(r"[^A-Za-z0-9._+=,@%-]+", "-", text).strip("-.")[:80]
    return plain or empty
