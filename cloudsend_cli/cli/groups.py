"""Groups of commands: aliases, singular and plural nouns, the help's sections, and a quick way through Typer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from typer.core import TyperCommand, TyperGroup

from cloudsend_cli.errors import UsageError

ALIASES: Final = {
    "ls": "list",
    "ps": "list",
    "rm": "kill",
    "logs": "tail",
    "status": "getstate",
}
NOUNS: Final = ("jobs", "runs", "instances", "providers", "environments")
SECTIONS: Final = {
    "Run": ("run", "wait", "tail", "kill", "fetch"),
    "Look": ("list", "info", "getstate", "explain", "cost"),
    "Machines": ("create", "start", "stop", "terminate", "ssh", "gc", "rebuild"),
    "Set up": ("init", "check", "validate", "config", "aws", "maestro", "shell", "completion", "version"),
}


def plural_of(noun: str) -> str:
    return noun if noun.endswith("s") else noun + "s"


def quicken(parameters: Iterable[Any]) -> None:
    """Take strings as they are, and what was not given as not given.

    WHY: since 0.29 Typer loads pydantic (70 ms) to check even a string, also one that was not given. Options that are
    strings need no check; whatever else was given goes Typer's way.
    """
    for parameter in parameters:
        if hasattr(parameter, "type_descriptor") and not isinstance(parameter.process_value, _Quick):
            vars(parameter)["process_value"] = _Quick(parameter)


class _Quick:
    """`process_value` of a parameter."""

    def __init__(self, parameter: Any) -> None:
        self.takes_text = parameter.type_descriptor.annotation in {str, list[str]} and parameter.callback is None
        self.takes_many = bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1
        self.required = parameter.required
        self.slow = parameter.process_value

    def __call__(self, ctx: Any, value: Any) -> Any:
        if value is None or (self.takes_many and not value):
            # A callback has nothing to do either: ours has none, and `--help` that was not given shows nothing.
            return self.slow(ctx, value) if self.required else value
        if self.takes_text:
            return list(value) if self.takes_many else value
        return self.slow(ctx, value)


class _QuickHelp:
    """A command or group whose `--help` costs nothing when it is not asked for."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            quicken([option])
        return option


class QuickCommand(_QuickHelp, TyperCommand):
    """A command whose strings are taken as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.epilog = self.epilog or "Every command also takes -o FORMAT, --state-dir DIR and --no-color."
        quicken(self.params)


class VerbGroup(_QuickHelp, TyperGroup):
    """The top: verbs, then nouns. `cloudsend jobs list` is answered, not executed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        quicken(self.params)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, ALIASES.get(cmd_name, ""))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if plural_of(word) in NOUNS and self.get_command(ctx, word) is None:
            verb = args[1] if len(args) > 1 else "list"
            verb = ALIASES.get(verb, verb) if self.get_command(ctx, verb) is not None else "list"
            raise UsageError(f"'{word}' is no command", hint=f"did you mean `cloudsend {verb} {word}`?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(90)) for name, command in commands if command])


class NounGroup(_QuickHelp, TyperGroup):
    """A verb whose commands are nouns, in the singular and in the plural."""

    default: ClassVar[str] = ""  # the noun that may be left out

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for name in (cmd_name, plural_of(cmd_name), cmd_name.removesuffix("s")):
            command = super().get_command(ctx, name)
            if command is not None:
                return command
        return None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if self.default and (not args or (args[0].startswith("-") and args[0] not in {"-h", "--help"})):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # `kill ab12cd.3`: an id where a noun is wanted.
        if "." in args[0] or any(letter.isdigit() for letter in args[0]) or args[0].startswith("@"):
            noun = self.list_commands(ctx)[0]
            hint = f"say what it is, such as `{ctx.command_path} {noun} {args[0]}`"
            raise UsageError(f"'{args[0]}' is not a kind of thing", hint=hint)
        return super().resolve_command(ctx, args)


class ListGroup(NounGroup):
    """`list` alone lists jobs."""

    default = "jobs"
