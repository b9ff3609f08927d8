"""What is the same environment and what is another; files that become part of the script; every problem at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.core.model import EnvironmentSpec
from cloudsend_cli.environments.render import SCRIPT_LIMIT, render_environment
from cloudsend_cli.errors import ConfigError

BASE: dict[str, Any] = {"apt": ("git", "curl"), "conda": ("numpy", "scipy"), "pip": ("six", "attrs"),
                        "julia": ("CSV", "Plots"), "setup": "echo hi", "vars": (("A", "1"), ("B", "2"))}  # fmt: skip


def render(name: str = "ml", /, **fields: Any) -> Any:
    return render_environment(EnvironmentSpec(name, **fields))


def key(**changes: Any) -> str:
    return str(render(**{**BASE, **changes}).key)


def problems(**fields: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        render(**fields)
    return [problem.message for problem in caught.value.problems]


SAME: dict[str, dict[str, Any]] = {
    "order of apt": {"apt": ("curl", "git")},
    "twice in apt": {"apt": ("git", "curl", "git")},
    "order of conda": {"conda": ("scipy", "numpy")},
    "the default channel, written": {"conda_channels": ("conda-forge",)},
    "order of pip": {"pip": ("attrs", "six")},
    "spaces and comments in pip": {"pip": ("  six # why", "attrs")},
    "order of julia": {"julia": ("Plots", "CSV")},
    "julia with its suffix": {"julia": ("Plots.jl", "CSV")},
    "order of vars": {"vars": (("B", "2"), ("A", "1"))},
}
OTHER: dict[str, dict[str, Any]] = {
    "apt": {"apt": ("git",)},
    "an apt version": {"apt": ("git=1", "curl")},
    "apt that may install": {"allow_system_packages": True},
    "conda": {"conda": ("numpy",)},
    "a channel": {"conda_channels": ("bioconda",)},
    "order of channels": {"conda_channels": ("bioconda", "conda-forge")},
    "channels turned round": {"conda_channels": ("conda-forge", "bioconda")},
    "pip": {"pip": ("six", "attrs>=1")},
    "a pip option": {"pip": ("six", "attrs", "--pre")},
    "julia": {"julia": ("CSV",)},
    "setup": {"setup": "echo ho"},
    "a variable": {"vars": (("A", "1"), ("B", "3"))},
}


@pytest.mark.parametrize("what", SAME)
def test_the_key_stays(what: str) -> None:
    assert key(**SAME[what]) == key()
    assert render(**{**BASE, **SAME[what]}).script == render(**BASE).script


def test_the_key_changes_with_the_content() -> None:
    keys = {what: key(**changes) for what, changes in OTHER.items()} | {"as it was": key()}
    assert len(set(keys.values())) == len(keys), keys


def test_the_name_is_no_part_of_it() -> None:
    one, other = (render_environment(EnvironmentSpec(n, **BASE)) for n in ("one", "another"))
    assert (one.key, one.script) == (other.key, other.script) and one.name != other.name


def test_the_key_is_the_same_in_every_process() -> None:
    assert render(setup="true").key == "8929f2f21044cf0dba75c456c0dbd7ab"


class TestRequirements:
    @pytest.fixture
    def put(self, tmp_path: Path) -> Callable[[str, str], Path]:
        def put(name: str, text: str) -> Path:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return path

        return put

    def test_a_file_is_the_list_that_is_in_it(self, put: Callable[[str, str], Path]) -> None:
        top = put("requirements.txt", "\ufeffsix  # comment\r\n\n-r sub/more.txt\n-r sub/more.txt\n")
        put("sub/more.txt", "attrs \\\n   >=20 \\\n   ; python_version > '3'\n-r ../requirements.txt\n-c limits.txt")
        put("sub/limits.txt", "attrs<99")
        listed = render(pip=("attrs >=20 ; python_version > '3'", "six"))
        filed = render(pip_file=str(top))
        assert "attrs >=20 ; python_version > " in filed.script and "attrs<99" in filed.script
        assert filed.key != listed.key, "the limits count"
        put("sub/limits.txt", "# none")
        assert render(pip_file=str(top)).key == listed.key
        put("sub/more.txt", "attrs>=21")
        assert render(pip_file=str(top)).key != listed.key

    def test_relative_paths_are_those_of_the_file_that_names_them(self, put: Callable[[str, str], Path]) -> None:
        wheel = put("sub/x-1-py3-none-any.whl", "content")
        put("sub/more.txt", "./x-1-py3-none-any.whl\n-f wheels\n")
        top = put("requirements.txt", "-r sub/more.txt")
        build = render(pip_file=str(top))
        assert str(wheel) in build.script and f"--find-links {wheel.parent / 'wheels'}" in build.script
        wheel.write_text("other content")
        assert render(pip_file=str(top)).key != build.key
        in_list = render_environment(EnvironmentSpec("ml", pip=("./x-1-py3-none-any.whl",)), base=str(wheel.parent))
        assert str(wheel) in in_list.script

    @pytest.mark.parametrize(
        "line",
        ["git+https://github.com/a/b@main#egg=b", "x @ https://a.example/x-1-py3-none-any.whl", "x[extra]~=1.0",
         "--index-url=https://u:p@a.example/simple?a=b", "-ihttps://a.example/simple", "--no-binary :all:",
         "-e git+https://github.com/a/b#egg=b", "six --hash=sha256:abc", "--require-hashes"],
    )  # fmt: skip
    def test_what_pip_takes_is_taken(self, line: str) -> None:
        assert render(pip=(line,)).key

    @pytest.mark.parametrize(
        "line",
        ["--install-option=x", "--target=/", "-t /", "--python /x", "--pre yes", "--index-url", "-e .", "-e ./x",
         "six\nattrs", "six\0", "", "  ", "a\\", "--", "-", "--user", "-r", "-r more.txt", "./x.whl",
         "/no/where/x-1.whl", "\x1b[31m", "--find-links 'open"],
    )  # fmt: skip
    def test_what_could_do_harm_or_cannot_work_is_refused(self, line: str) -> None:
        assert len(problems(pip=("six", line))) == 1

    def test_a_problem_in_a_file_has_its_place(self, put: Callable[[str, str], Path]) -> None:
        top = put("requirements.txt", "six\n\n--target=/ \\\n x\n")
        with pytest.raises(ConfigError) as caught:
            render(pip_file=str(top))
        (problem,) = caught.value.problems
        assert (problem.file, problem.line) == (str(top), 3) and "known: --index-url" in problem.hint


class TestConda:
    YML = """
name: mine   # a comment
channels:
  - conda-forge
  - bioconda
dependencies:
  - python=3.11
  - numpy
  - pip:
    - six
    - -r more.txt
prefix: /home/me/miniconda3/envs/mine
"""

    @pytest.fixture
    def yml(self, tmp_path: Path) -> Path:
        (tmp_path / "more.txt").write_text("attrs>=20\n")
        path = tmp_path / "environment.yml"
        path.write_text(self.YML)
        return path

    def test_a_file_stands_alone(self, yml: Path) -> None:
        script = render(conda_file=str(yml)).script
        assert '    - "attrs>=20"' in script and "more.txt" not in script
        assert "miniconda3" not in script and "name: mine" not in script

    def test_names_comments_and_order_make_no_difference_but_channels_do(self, yml: Path) -> None:
        key = render(conda_file=str(yml)).key
        for old, new, same in (
            ("name: mine", "name: yours", True),
            ("# a comment", "", True),
            ("  - python=3.11\n  - numpy\n", "\n  - numpy # first\n  - python=3.11\n", True),
            ("  - conda-forge\n  - bioconda\n", "  - bioconda\n  - conda-forge\n", False),
            ("numpy", "numpy>=2", False),
        ):
            yml.write_text(self.YML.replace(old, new))
            assert (render(conda_file=str(yml)).key == key) is same, (old, new)

    def test_an_exported_list_is_a_list(self, tmp_path: Path) -> None:
        path = tmp_path / "list.txt"
        path.write_text("# platform: linux-64\nnumpy=1.26=py311\nzlib=1.3=h1\n")
        assert render(conda_file=str(path)).key == render(conda=("zlib=1.3=h1", "numpy=1.26=py311")).key
        path.write_text("@EXPLICIT\nhttps://x/y.conda\n")
        assert "is no package" in problems(conda_file=str(path))[0]

    def test_a_directory_is_what_is_installed_in_it(self, tmp_path: Path) -> None:
        meta = tmp_path / "env" / "conda-meta"
        info = tmp_path / "env/lib/python3.11/site-packages/leaf-1.0.dist-info"
        other = info.with_name("numpy-1.26.dist-info")
        for path in (meta, info, other):
            path.mkdir(parents=True)
        channel = "https://conda.anaconda.org/conda-forge/linux-64"
        for name in ("numpy", "python"):
            record = {"name": name, "version": "1.26", "build": "b0", "channel": channel}
            (meta / f"{name}-1.26-b0.json").write_text(json.dumps(record))
        (meta / "history").write_text("==> ignored <==")
        for path, name, installer in ((info, "leaf", "pip"), (other, "numpy", "conda")):
            (path / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n\nName: not this\n")
            (path / "INSTALLER").write_text(f"{installer}\n")
        script = render(conda_directory=str(tmp_path / "env")).script
        assert '  - "conda-forge"' in script and '  - "numpy=1.26=b0"' in script
        assert "leaf==1.0" in script and "numpy==1.0" not in script

    @pytest.mark.parametrize("spec", ["--dry-run", "-c x", "a\nb", "", "a\0"])
    def test_hostile_names_are_refused(self, spec: str) -> None:
        assert problems(conda=(spec,))
        assert problems(conda=("numpy",), conda_channels=(spec,))


class TestVenvDirectory:
    @pytest.fixture
    def venv(self, tmp_path: Path) -> Path:
        place = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
        for name, version in (("Six", "1.16"), ("pip", "24"), ("attrs", "23.1")):
            info = place / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\ntext")
        return tmp_path / "venv"

    def direct(self, venv: Path, **url: object) -> None:
        path = venv / "lib/python3.11/site-packages/Six-1.16.dist-info/direct_url.json"
        path.write_text(json.dumps(url))

    def test_is_its_frozen_list(self, venv: Path) -> None:
        assert render(pip_directory=str(venv)).key == render(pip=("attrs==23.1", "Six==1.16")).key

    def test_repositories_and_archives_keep_their_address(self, venv: Path) -> None:
        self.direct(venv, url="https://a.example/r", vcs_info={"vcs": "git", "commit_id": "abc"})
        assert "Six @ git+https://a.example/r@abc" in render(pip_directory=str(venv)).script
        self.direct(venv, url="https://a.example/six.whl", archive_info={})
        assert "Six @ https://a.example/six.whl" in render(pip_directory=str(venv)).script

    def test_what_was_installed_from_a_directory_is_told(self, venv: Path) -> None:
        self.direct(venv, url="file:///home/me/six", dir_info={"editable": True})
        assert "Six was installed from a directory" in problems(pip_directory=str(venv))[0]

    def test_what_is_no_environment_is_told(self, tmp_path: Path) -> None:
        assert "no Python environment" in problems(pip_directory=str(tmp_path))[0]
        assert "no conda environment" in problems(conda_directory=str(tmp_path))[0]


def test_setup_scripts_run_as_their_first_line_says(tmp_path: Path) -> None:
    path = tmp_path / "setup.sh"
    for first, words in (
        ("#!/bin/bash", "/bin/bash"),
        ("#!/usr/bin/env bash", "/usr/bin/env bash"),
        ("#!/bin/sh; touch x", "'/bin/sh;' 'touch x'"),
        ("echo", "/bin/sh -e"),
        ("#!", "/bin/sh -e"),
    ):
        path.write_text(f"{first}\necho it's\n")
        script = render(setup=str(path), setup_is_file=True).script
        assert f"attempt 'setup: running the command' {words} \"$CLOUDSEND_ENV/setup\"\n" in script
        assert "it'\"'\"'s" in script


def test_all_problems_come_at_once_with_the_environments_name(tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    found = problems(
        apt=("git", "--force-yes", "a b", "$(touch x)"), conda=("-x",), pip=("--target=/",), julia=("a b", '"; run'),
        pip_file=str(tmp_path / "absent.txt"), conda_file=str(tmp_path / "latin1"),
        setup=str(tmp_path / "binary"), setup_is_file=True, vars=(("A B", "1"), ("OK", "\0")),
    )  # fmt: skip
    assert len(found) == 12, "\n".join(found)
    assert all("'ml'" in message for message in found)


def test_a_script_that_the_kernel_would_not_take_is_refused_here() -> None:
    many = tuple(f"package-{n}=={n} --hash=sha256:{'0' * 64}" for n in range(SCRIPT_LIMIT // 90))
    assert "longer than" in problems(pip=many)[0]


def test_nothing_to_install_is_an_environment_all_the_same() -> None:
    assert render(vars=(("A", "1"),)).variables == (("A", "1"),)
    assert render().slots == ()


def test_an_environment_that_is_built_elsewhere_needs_no_relative_path_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "x-1-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "requirements.txt").write_text("./x-1-py3-none-any.whl\n--find-links wheels\nnumpy\n-r more.txt\n")
    (tmp_path / "more.txt").write_text(f"{tmp_path}/x-1-py3-none-any.whl\n")
    spec = EnvironmentSpec("ml", pip_file=str(tmp_path / "requirements.txt"))
    render_environment(spec)
    with pytest.raises(ConfigError) as caught:
        render_environment(spec, elsewhere=True)
    assert [(p.message, p.line) for p in caught.value.problems] == [
        ("environment 'ml': './x-1-py3-none-any.whl' is a path of this machine, and jobs run on others", 1),
        ("environment 'ml': 'wheels' is a path of this machine, and jobs run on others", 2),
    ]
