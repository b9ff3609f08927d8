"""What could come next on a command line: for the shell of cloudsend, and for bash, zsh and fish."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from .sanitise import one_line
from .settings import OUTPUTS

Candidate = tuple[str, str]  # what is put on the line, and a word of help
Ask = Callable[[str, str], Iterable[Candidate]]  # Client.complete: (kind, prefix)

# Only such texts are ever put on a command line: a job's name may not smuggle `$(…)` into a shell.
_HARMLESS = re.compile(r"[A-Za-z0-9@%+=:,./_-]+")
_EVERYWHERE: Final = {
    "--output": "table, wide, json, yaml, csv or name",
    "-o": "",
    "--state-dir": "where the state is",
    "--wide": "the same as -o wide",
    "--no-color": "no colours",
    "--help": "what there is",
}
_KINDS: Final = {
    "JOB": "jobs",
    "RUN": "runs",
    "INSTANCE": "instances",
    "HOST": "hosts",
    "PROVIDER": "providers",
    "P": "providers",
}
_STATE_WORDS: Final = ("pending", "running", "succeeded", "failed", "cancelled", "UNKNOWN", "WAIT", "QUEUE", "DONE")


def complete(words: Sequence[str], prefix: str, ask: Ask, *, files: bool = False) -> list[Candidate]:
    """Candidates for the word `prefix` after `words`, from the tree of commands itself.

    `files`: also offer files where a config is wanted; other shells do that by themselves.
    """
    from .execute import command_tree

    spot = _Spot(command_tree())
    for word in words:
        spot.pass_word(word)
    if spot.lost:
        return []
    found = spot.candidates(prefix, ask, files)
    return [(text, one_line(help_)) for text, help_ in found if text.startswith(prefix) and _HARMLESS.fullmatch(text)]


class _Spot:
    """Where in the tree of commands a line has arrived."""

    def __init__(self, tree: Any) -> None:
        self.node = tree
        self.awaited = ""  # the metavar of the option whose value comes next
        self.passed = 0  # arguments of the command so far
        self.lost = False

    @property
    def is_group(self) -> bool:
        return hasattr(self.node, "list_commands")

    def pass_word(self, word: str) -> None:
        if self.awaited:
            self.awaited = ""
        elif word in {"-o", "--output"}:
            self.awaited = "OUTPUT"
        elif word == "--state-dir":
            self.awaited = "DIR"
        elif word == "--":
            self.lost = True  # what follows is the user's own command
        elif word.startswith("-") and len(word) > 1:
            self._enter_default()
            option = next((p for p in self.node.params if word in getattr(p, "opts", ())), None)
            if option is not None and not getattr(option, "is_flag", False):
                self.awaited = option.metavar or option.name
        elif self.is_group:
            self.node = self.node.get_command(None, word)
            self.lost = self.lost or self.node is None
        else:
            self.passed += 1

    def _enter_default(self) -> None:
        default = getattr(self.node, "default", "")
        if self.is_group and default:
            self.node = self.node.get_command(None, default)

    def candidates(self, prefix: str, ask: Ask, files: bool) -> Iterable[Candidate]:
        if self.awaited:
            return _values(self.awaited, prefix, ask, files)
        if prefix.startswith("-"):
            self._enter_default()
            return self._options()
        if self.is_group:
            return self._commands()
        arguments = [p for p in self.node.params if p.param_type_name == "argument"]
        if self.passed >= len(arguments) and not (arguments and arguments[-1].nargs == -1):
            return ()
        argument = arguments[min(self.passed, len(arguments) - 1)]
        return _values(argument.metavar or argument.name, prefix, ask, files)

    def _commands(self) -> Iterator[Candidate]:
        for name in self.node.list_commands(None):
            command = self.node.get_command(None, name)
            if command is not None and not command.hidden:
                yield name, command.get_short_help_str(60)

    def _options(self) -> Iterator[Candidate]:
        for parameter in self.node.params:
            if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
                for text in parameter.opts:
                    yield text, getattr(parameter, "help", "") or ""
        yield from ((text, help_) for text, help_ in _EVERYWHERE.items() if text.startswith("--"))


def _values(metavar: str, prefix: str, ask: Ask, files: bool) -> Iterator[Candidate]:
    for word in metavar.replace("…", "").split("|"):
        if word == "OUTPUT":
            yield from ((name, "") for name in OUTPUTS)
        elif word == "S":
            yield from ((name, "") for name in _STATE_WORDS)
        elif word in _KINDS:
            yield from ask(_KINDS[word], prefix)
        elif word in {"bash", "zsh", "fish"}:
            yield word, ""
        elif word.startswith(("CONFIG", "DIR")) and files:
            yield from _files(prefix, only_folders=word == "DIR")


def _files(prefix: str, *, only_folders: bool) -> Iterator[Candidate]:
    folder, _, start = prefix.rpartition("/")
    shown = folder + "/" if "/" in prefix else ""
    try:
        with os.scandir(shown or ".") as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
                    continue
                if entry.is_dir():
                    yield f"{shown}{entry.name}/", ""
                elif not only_folders and entry.name.endswith((".yml", ".yaml", ".json", ".py")):
                    yield f"{shown}{entry.name}", ""
    except OSError:
        return


def main(argv: Sequence[str]) -> int:
    """`cloudsend __complete WORD… PREFIX`, as the scripts below call it: a line per candidate, text and help."""
    from cloudsend_cli.api import Client
    from cloudsend_cli.errors import CloudsendError

    words, prefix = list(argv[:-1]), argv[-1] if argv else ""
    state_dir = next((words[i + 1] for i, word in enumerate(words[:-1]) if word == "--state-dir"), None)

    def ask(kind: str, start: str) -> list[Candidate]:
        client = Client(state_dir)
        try:
            return client.complete(kind, start)
        finally:
            client.close()

    try:
        found = complete(words, prefix, ask)
    except (CloudsendError, OSError):
        return 1  # there is no good place to say why
    sys.stdout.write("".join(f"{text}\t{help_}\n" for text, help_ in found))
    return 0


_BASH = """\
# cloudsend for bash: eval "$(cloudsend completion bash)"
_cloudsend() {
    local program=${COMP_WORDS[0]/#\\~/$HOME} line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <("$program" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _cloudsend cloudsend
"""
_ZSH = """\
#compdef cloudsend
# cloudsend for zsh: eval "$(cloudsend completion zsh)"
_cloudsend() {
    local -a found
    local text help
    while IFS=$'\\t' read -r text help; do
        found+=("${text//:/\\\\:}:$help")
    done < <("${words[1]/#\\~/$HOME}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#found} )); then
        _describe cloudsend found
    else
        _files
    fi
}
compdef _cloudsend cloudsend
"""
_FISH = """\
# cloudsend for fish: cloudsend completion fish | source
function __cloudsend_complete
    set -l words (commandline -opc)
    $words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c cloudsend -a '(__cloudsend_complete)'
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
