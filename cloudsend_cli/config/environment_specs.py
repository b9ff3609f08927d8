"""`environments:` to EnvironmentSpecs: names, files or lists, variables."""

from __future__ import annotations

import os
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass

from cloudsend_cli.core.model import EnvironmentSpec

from .check import Report, check_mapping, clip, list_value, word_value
from .document import SHORTER, Node, Place, Scalar, describe_long, is_null, items_of
from .given import Given, Values, list_pairs, text_of, value_of
from .schema import ENVIRONMENT, INSTANCE, JOB, TOP

NO_ENVIRONMENT = "none"
DEFAULT_NAME = "default"
_FILE_ENDINGS = (".txt", ".yml", ".yaml", ".toml", ".lock", ".in")


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment and where it stands; `secrets` are taken from the user's shell when a job starts."""

    spec: EnvironmentSpec
    secrets: tuple[str, ...]
    place: Place
    path: str
    keys: AbstractMapping[str, Place]


class EnvironmentReader:
    """Reads the list; paths are relative to `folder`, variables without a value come from `environ`."""

    def __init__(self, report: Report, folder: str, environ: AbstractMapping[str, str], system: bool) -> None:
        self.report = report
        self.folder = folder
        self.environ = environ
        self.system = system

    def read(self, node: Node | None) -> list[Environment]:
        """Every environment that could be read, each with a name of its own."""
        if node is None or is_null(node):
            return []
        nodes = items_of(node)
        found: list[Environment] = []
        names: dict[str, Place] = {}
        for index, item in enumerate(nodes):
            path = f"environments[{index}]"
            before = len(self.report.problems)
            values = check_mapping(self.report, item, ENVIRONMENT, path, (TOP, INSTANCE, JOB))
            environment = self._build(values, item, path, len(nodes))
            if environment is None:
                continue
            name = environment.spec.name
            place = values["name"].node.place if "name" in values else item.place
            if name in names:
                message = f"{path}: a second environment is called {clip(name)}"
                self.report.error(message, place, names[name].first_given, path)
                continue
            names[name] = place
            if len(self.report.problems) == before or name:
                found.append(environment)
        return found

    def _build(self, values: Values, node: Node, path: str, count: int) -> Environment | None:
        name = text_of(values, "name")
        if not name:
            if count > 1:
                self.report.error(f"{path}: one of several environments needs a name", node.place, path=path)
                return None
            name = DEFAULT_NAME
        if name == NO_ENVIRONMENT:
            message = f"{path}: an environment may not be called {name!r}"
            self.report.error(message, values["name"].node.place, f"'env: {name}' means none at all", path)
            return None
        pip, pip_file, pip_directory = self._source(values.get("pip"))
        conda, conda_file, conda_directory = self._source(values.get("conda"))
        setup, setup_is_file = self._setup(values.get("setup"))
        pairs, secrets = read_vars(self.report, values.get("vars"), self.environ)
        self._check_long(values.get("vars"))
        allow = value_of(values, "allow_system_packages")
        spec = EnvironmentSpec(
            name=name,
            apt=tuple(w for text in _list_texts(values, "apt") for w in text.split()),
            conda=conda,
            conda_file=conda_file,
            conda_directory=conda_directory,
            conda_channels=_list_texts(values, "conda_channels"),
            pip=pip,
            pip_file=pip_file,
            pip_directory=pip_directory,
            julia=tuple(w for text in _list_texts(values, "julia") for w in text.split()),
            setup=setup,
            setup_is_file=setup_is_file,
            vars=pairs,
            allow_system_packages=self.system if allow is None else allow is True,
        )
        keys = {key: given.node.place for key, given in values.items()}
        return Environment(spec, secrets, node.place, path, keys)

    def _check_long(self, given: Given | None) -> None:
        for name, text, node in given.value if given is not None and isinstance(given.value, list) else ():
            long = describe_long(text or "", name)
            if given is not None and long:
                message = f"{given.path}: the variable {name} {long}"
                self.report.error(message, node.place, SHORTER, given.path)

    def _source(self, given: Given | None) -> tuple[tuple[str, ...], str, str]:
        """(packages, file, directory): a list is packages, one text is a path when it looks like one or exists."""
        if given is None:
            return (), "", ""
        node = given.node
        if isinstance(node, Scalar):
            text = word_value(self.report, node, given.path)
            if text is None:
                return (), "", ""
            absolute = os.path.normpath(os.path.join(self.folder, os.path.expanduser(text)))
            if os.path.isdir(absolute):
                return (), "", absolute
            if os.path.isfile(absolute):
                return (), absolute, ""
            if text.endswith(_FILE_ENDINGS) or text.startswith((".", "/", "~")) or text.endswith("/"):
                hint = f"looked in {self.folder}; relative paths start at the config's directory"
                self.report.error(f"{given.path}: no such file: {clip(text)}", node.place, hint, given.path)
                return (), "", ""
            return (text,), "", ""
        pairs = list_value(word_value)(self.report, node, given.path)
        packages = []
        for text, item in pairs if isinstance(pairs, list) else []:
            if text.endswith(_FILE_ENDINGS[:3]) and "=" not in text and "/" not in text[:1]:
                hint = f"write {given.key.text}: {text} (one file, no list)"
                message = f"{given.path}: {clip(text)} is a file, not a package"
                self.report.error(message, item.place, hint, given.path)
            else:
                packages.append(text)
        return tuple(packages), "", ""

    def _setup(self, given: Given | None) -> tuple[str, bool]:
        if given is None or not isinstance(given.value, str):
            return "", False
        text = given.value.strip()
        if not text:
            return "", False
        if "\n" in text:
            return given.value, False
        first = text.split()[0]
        absolute = os.path.normpath(os.path.join(self.folder, os.path.expanduser(text)))
        if os.path.isfile(absolute):
            return absolute, True
        if os.path.isdir(absolute):
            self.report.error(f"{given.path}: {clip(text)} is a directory", given.node.place, path=given.path)
        elif first == text and text.endswith((".sh", ".bash")):
            hint = f"looked in {self.folder}; relative paths start at the config's directory"
            self.report.error(f"{given.path}: no such file: {clip(text)}", given.node.place, hint, given.path)
        elif os.path.isfile(os.path.join(self.folder, first)):
            message = f"{given.path}: a script here takes no arguments"
            hint = "put them into the script, or write the shell text itself"
            self.report.error(message, given.node.place, hint, given.path)
        return given.value, False


def read_vars(
    report: Report, given: Given | None, environ: AbstractMapping[str, str]
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """(pairs, names taken from the user's shell). The values of the latter are looked at, never kept."""
    pairs: list[tuple[str, str]] = []
    secrets: list[str] = []
    if given is None or not isinstance(given.value, list):
        return (), ()
    for name, text, node in given.value:
        if text is not None:
            pairs.append((name, text))
        elif name in environ:
            secrets.append(name)
            long = describe_long(environ[name], name)
            if long:
                report.error(f"{given.path}: {name} of your shell {long}", node.place, SHORTER, given.path)
        else:
            message = f"{given.path}: {name} has no value here and is not set in your shell"
            report.error(message, node.place, f"export {name}=… and try again, or give a value", given.path)
    return tuple(pairs), tuple(secrets)


def _list_texts(values: Values, name: str) -> tuple[str, ...]:
    return tuple(text for text, _ in list_pairs(values, name))
