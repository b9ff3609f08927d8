"""A directory to write configs in, and the loader with everything that a caller gives it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudsend_cli.config.aws_entry import implicit_aws
from cloudsend_cli.config.load import LoadContext, Loaded, LoadOptions, ProviderInfo, load_config, load_mapping
from cloudsend_cli.core.model import EnvironmentBuild, EnvironmentSpec, JobGroup, JobSpec, Resources, RunSpec
from cloudsend_cli.errors import ConfigError

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/home/me", "TOKEN": "s3cret", "LC_ALL": "C.UTF-8", "EDITOR": "vi"}
MACHINE = Resources(8, 32_000_000_000, 1)
LATER = "provider type 'slurm' arrives in a later version"


def render_environment(spec: EnvironmentSpec, folder: Path, elsewhere: bool) -> EnvironmentBuild:
    return EnvironmentBuild(f"key-{spec.name}", spec.name, f"# {folder}")


def context(**changes: object) -> LoadContext:
    values: dict[str, object] = {
        "providers": {
            "local": ProviderInfo("local", "local", {}, MACHINE),
            "cluster": ProviderInfo("cluster", "slurm", {}, None, unavailable=LATER),
            "google": ProviderInfo("google", "gcp", {}, None, unavailable=LATER.replace("slurm", "gcp")),
            "aws": implicit_aws({}),
        },
        "render_environment": render_environment,
    }
    return LoadContext(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class Desk:
    """Writes a config and loads it."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(ENVIRON))

    def context(self, **changes: object) -> LoadContext:
        return context(**changes)

    def options(self, **changes: object) -> LoadOptions:
        return LoadOptions(**{"environ": self.environ, "context": context(), **changes})  # type: ignore[arg-type]

    def write(self, name: str, text: str | bytes = "x\n") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, text: str | bytes | None = None, name: str = "config.yml", **options: object) -> Loaded:
        if text is not None:
            self.write(name, text)
        if "project" in options:
            options["name"] = options.pop("project")
        return load_config(name, self.options(**options))

    def load_data(self, config: dict[str, object], **changes: object) -> RunSpec:
        """A config of Python data, in a context with these changes."""
        return load_mapping(config, self.options(context=context(**changes)), folder=self.folder).spec

    def group(self, keys: dict[str, object], **changes: object) -> tuple[tuple[JobSpec, ...], JobGroup]:
        """Of the only group of the only section: its tasks and itself."""
        spec = self.load_data({"sections": {"S": {"G": keys}}}, **changes)
        return spec.jobs, spec.groups[0]

    def words_of(self, argv: Sequence[str]) -> list[str]:
        """What a command that shows its arguments is given, by the words that a real shell hands to it."""
        done = subprocess.run(argv, check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
        return done.stdout.decode().split("\0")[:-1]

    def jobs(self, text: str, **options: object) -> tuple[JobSpec, ...]:
        return self.load(text, **options).spec.jobs

    def job(self, text: str, **options: object) -> JobSpec:
        (job,) = self.jobs(text, **options)
        return job

    def problems(self, text: str | bytes | None = None, name: str = "config.yml", **options: object) -> str:
        """Each problem as `place: message | hint`, a line each."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, name, **options)
        return "\n".join(f"{p.place}: {p.message}" + (f" | {p.hint}" if p.hint else "") for p in caught.value.problems)

    def warnings(self, text: str, **options: object) -> str:
        return "\n".join(f"{w.place}: {w.message}" for w in self.load(text, **options).warnings)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)
