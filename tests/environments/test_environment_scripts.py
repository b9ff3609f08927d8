"""The scripts, run by real shells on hosts with fake tools, and by the real pip from a local wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaigns import pick
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudsend_cli.core.model import EnvironmentBuild, EnvironmentSpec
from cloudsend_cli.environments.activate import wrap_command
from cloudsend_cli.environments.render import render_environment
from cloudsend_cli.errors import ConfigError

from .conftest import SHELLS, FakeHost

FAKE_CONDA = """
while [ $# -gt 0 ]; do case $1 in --prefix) prefix=$2; shift ;; esac; shift; done
mkdir -p "$prefix/bin" "$prefix/etc/conda/activate.d"
cp_python() { printf '#!/bin/sh\\nprintf "%%s\\\\0" conda-python "$@" >>"$CALLS"; printf "\\\\n\\\\0" >>"$CALLS"\\n'; }
cp_python >"$prefix/bin/python"; chmod +x "$prefix/bin/python"
echo 'export FROM_HOOK=yes' >"$prefix/etc/conda/activate.d/good.sh"
echo 'if then fi (' >"$prefix/etc/conda/activate.d/broken.sh"
"""
FAKE_UV = """
[ "$2" = venv ] || exit 0
mkdir -p "$3/bin"; echo '#!/bin/sh' >"$3/bin/python"; chmod +x "$3/bin/python"
"""
shells = pytest.mark.parametrize("shell", SHELLS, ids=lambda words: Path(words[0]).name)


def render(**fields: Any) -> EnvironmentBuild:
    return render_environment(EnvironmentSpec("ml", **fields))


@shells
class TestEveryShell:
    def test_setup_and_variables(self, host: FakeHost, shell: list[str]) -> None:
        nasty = "a b'c\"d;e$HOME `touch x` $(touch x) \\ é\nsecond"
        build = render(setup='echo "building $COLOUR"\necho made >made', vars=(("COLOUR", "red"), ("NASTY", nasty)))
        done = host.build(build, shell)
        assert (done.returncode, host.ready) == (0, True), done.stderr
        assert done.stdout.splitlines() == [
            "[environment] setup: running the command", "building red", "[environment] ready",
        ]  # fmt: skip
        assert host.run("sh", "-c", 'printf "%s|" "$COLOUR" "$NASTY"').stdout == f"red|{nasty}|"
        assert not (host.root / "x").exists() and not (host.env_dir / "x").exists()

    def test_a_ready_environment_is_left_alone(self, host: FakeHost, shell: list[str]) -> None:
        build = render(setup="echo once >>count")
        for _ in range(3):
            assert host.build(build, shell).returncode == 0
        assert (host.env_dir / "count").read_text() == "once\n"

    def test_a_remnant_is_built_anew(self, host: FakeHost, shell: list[str]) -> None:
        build = render(setup='echo partial >partial; mkdir -p deep/er; chmod a-w deep; [ -e "$HOME/second" ]')
        assert host.build(build, shell).returncode == 1
        assert not host.ready and (host.env_dir / "partial").exists()
        (host.root / "second").touch()
        (host.env_dir / "stale").touch()
        done = host.build(build, shell)
        assert done.returncode == 0 and host.ready, done.stderr
        assert "interrupted" in done.stdout and not (host.env_dir / "stale").exists()

    def test_what_is_not_ours_is_never_removed(self, host: FakeHost, shell: list[str]) -> None:
        host.env_dir.mkdir(parents=True)
        build = render(setup="true")
        (host.env_dir / "thesis.tex").touch()
        done = host.build(build, shell)
        assert done.returncode == 2 and "not ours" in done.stderr
        assert os.listdir(host.env_dir) == ["thesis.tex"]
        (host.env_dir / "thesis.tex").unlink()
        assert host.build(build, shell).returncode == 0, "an empty directory is as good as none"

    @pytest.mark.parametrize("place", ["", "relative", "/"])
    def test_a_wrong_directory_is_refused(self, host: FakeHost, shell: list[str], place: str) -> None:
        host.environment["CLOUDSEND_ENV"] = place
        assert host.build(render(setup="true"), shell).returncode == 2

    def test_failures_keep_their_exit_code_and_leave_no_marker(self, host: FakeHost, shell: list[str]) -> None:
        done = host.build(render(setup="echo to the log; exit 77"), shell)
        assert done.returncode == 77 and not host.ready
        assert "to the log" in done.stdout
        assert "setup: running the command: failed with exit status 77" in done.stderr
        assert not (host.env_dir / "activate").exists()

    def test_each_line_of_an_inline_setup_must_work(self, host: FakeHost, shell: list[str]) -> None:
        assert host.build(render(setup="false\ntrue"), shell).returncode == 1

    def test_conda_with_pip_inside(self, host: FakeHost, shell: list[str]) -> None:
        host.add("micromamba", FAKE_CONDA)
        host.add("conda", "exit 99")
        build = render(conda=("numpy >=1.2", "x'; touch x"), conda_channels=("bioconda",), pip=("six",))
        assert build.slots == ("tool-conda",)
        done = host.build(build, shell)
        assert done.returncode == 0, done.stderr
        first, second = host.calls()
        prefix = str(host.env_dir / "conda")
        assert first == ["micromamba", "create", "--yes", "--prefix", prefix, "--file",
                         str(host.env_dir / "environment.yml")]  # fmt: skip
        assert second[:4] == ["conda-python", "-m", "pip", "install"]
        assert (host.env_dir / "environment.yml").read_text() == (
            'channels:\n  - "bioconda"\ndependencies:\n  - "numpy >=1.2"\n  - "pip"\n  - "python"\n'
            '  - "x\'; touch x"\n'
        )
        seen = host.run("sh", "-c", 'echo "$CONDA_PREFIX"; echo "$PATH"; echo "$FROM_HOOK"').stdout
        assert seen.startswith(f"{prefix}\n{prefix}/bin:{host.tools}\n") and seen.endswith("yes\n")

    @pytest.mark.parametrize("tool", ["mamba", "conda"])
    def test_other_condas(self, host: FakeHost, shell: list[str], tool: str) -> None:
        host.add(tool, FAKE_CONDA)
        assert host.build(render(conda=("numpy",)), shell).returncode == 0
        assert host.calls()[0][:3] == [tool, "env", "create"]

    def test_uv_is_preferred(self, host: FakeHost, shell: list[str]) -> None:
        host.add("uv", FAKE_UV)
        host.add("python3", "exit 99")
        build = render(pip=("six", "--pre", "--index-url https://pip.example/simple", "--trusted-host a.example"))
        done = host.build(build, shell)
        assert done.returncode == 0, done.stderr
        venv = str(host.env_dir / "venv")
        assert host.calls() == [
            ["uv", "--no-progress", "venv", venv],
            ["uv", "--no-progress", "pip", "install", "--python", f"{venv}/bin/python", "--prerelease", "allow",
             "--allow-insecure-host", "a.example", "-r", str(host.env_dir / "requirements.txt")],
        ]  # fmt: skip
        text = (host.env_dir / "requirements.txt").read_text()
        assert text == "--index-url https://pip.example/simple\nsix\n"
        assert "[environment] pip: installing 1 requirement\n" in done.stdout

    def test_hostile_names_reach_no_shell(self, host: FakeHost, shell: list[str]) -> None:
        host.add("uv", FAKE_UV)
        nasty = '$(touch a) `touch b`; touch c\' "touch d" && touch e'
        assert host.build(render(pip=(nasty,)), shell).returncode == 0
        assert (host.env_dir / "requirements.txt").read_text() == nasty + "\n"
        for directory in (host.root, host.env_dir, Path("/")):
            assert not {"a", "b", "c", "d", "e"} & set(os.listdir(directory))

    def test_julia(self, host: FakeHost, shell: list[str]) -> None:
        host.add("julia")
        done = host.build(render(julia=("DataFrames@1.6", "CSV.jl", "https://github.com/a/B.jl")), shell)
        assert done.returncode == 0, done.stderr
        (call,) = host.calls()
        assert call[:5] == ["julia", "--startup-file=no", "--history-file=no",
                            f"--project={host.env_dir / 'julia'}", "-e"]  # fmt: skip
        assert call[5] == (
            'using Pkg; Pkg.add([PackageSpec(name="CSV"), PackageSpec(name="DataFrames", version="1.6"), '
            'PackageSpec(url="https://github.com/a/B.jl")]); Pkg.precompile()'
        )
        assert host.run("sh", "-c", 'echo "$JULIA_PROJECT"').stdout == f"{host.env_dir / 'julia'}\n"


class TestApt:
    STATUS = """
    case $4$5 in
        --git) echo 'ii  1:2.39' ;; --libgl1) echo 'ii  1.6' ;; --gone) echo 'rc  3' ;; *) exit 1 ;;
    esac
    """

    @pytest.fixture
    def debian(self, host: FakeHost) -> FakeHost:
        host.add("dpkg-query", self.STATUS)
        host.add("apt-get")
        (host.tools / "id").unlink()
        host.add("id", "echo 0")
        return host

    def apt_calls(self, host: FakeHost) -> list[list[str]]:
        return [call for call in host.calls() if call[0] == "apt-get"]

    def test_what_is_installed_is_enough(self, debian: FakeHost) -> None:
        done = debian.build(render(apt=("libgl1", "git")))
        assert done.returncode == 0 and not self.apt_calls(debian), done.stderr

    def test_what_is_missing_is_named_with_the_key_that_allows_it(self, debian: FakeHost) -> None:
        done = debian.build(render(apt=("git", "gone", "nowhere")))
        assert (done.returncode, debian.ready) == (3, False)
        assert "not installed on this machine: gone nowhere" in done.stderr
        assert "allow_system_packages: true" in done.stderr and not self.apt_calls(debian)

    def test_missing_ones_are_installed_when_allowed(self, debian: FakeHost) -> None:
        build = render(apt=("git", "nowhere", "git=9"), allow_system_packages=True)
        assert build.slots == ("tool-apt",)
        done = debian.build(build)
        assert done.returncode == 0, done.stderr
        options = ["-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"]
        assert self.apt_calls(debian) == [
            ["apt-get", *options, "update"],
            ["apt-get", *options, "install", "-y", "--", "git=9", "nowhere"],
        ]

    def test_a_failing_apt_get_fails_the_environment(self, debian: FakeHost) -> None:
        debian.add("apt-get", "exit 100")
        assert debian.build(render(apt=("nowhere",), allow_system_packages=True)).returncode == 100
        assert not debian.ready

    def test_without_root_sudo_is_asked_without_a_password(self, debian: FakeHost) -> None:
        debian.add("id", "echo 1000")
        debian.add("sudo", 'shift; exec "$@"')
        debian.add("true")
        assert debian.build(render(apt=("nowhere",), allow_system_packages=True)).returncode == 0
        sudo = [call for call in debian.calls() if call[0] == "sudo"]
        assert sudo[0] == ["sudo", "-n", "true"]
        assert sudo[1][:5] == ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]

    def test_sudo_with_a_password_is_told(self, debian: FakeHost) -> None:
        debian.add("id", "echo 1000")
        debian.add("sudo", "exit 1")
        done = debian.build(render(apt=("nowhere",), allow_system_packages=True))
        assert done.returncode == 3 and "needs root" in done.stderr


class TestMissingTools:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"conda": ("numpy",)}, "neither micromamba nor mamba nor conda"),
            ({"pip": ("six",)}, "neither uv nor python3"),
            ({"julia": ("CSV",)}, "julia: it is not on PATH"),
            ({"apt": ("git",)}, "no dpkg-query"),
        ],
    )
    def test_is_told_with_what_to_do(self, host: FakeHost, fields: dict[str, Any], words: str) -> None:
        done = host.build(render(**fields))
        assert (done.returncode, host.ready) == (3, False) and words in done.stderr

    def test_a_python_without_venv(self, host: FakeHost) -> None:
        host.add("python3", "exit 1")
        done = host.build(render(pip=("six",)))
        assert done.returncode == 3 and "apt-get install python3-venv" in done.stderr

    def test_a_conda_environment_without_python(self, host: FakeHost, tmp_path: Path) -> None:
        host.add("conda", 'mkdir -p "$4/bin"')
        yml = tmp_path / "environment.yml"
        yml.write_text("dependencies:\n  - zlib\n")
        done = host.build(render(conda_file=str(yml), pip=("six",)))
        assert done.returncode == 3 and "has no python" in done.stderr


@pytest.fixture
def python_host(host: FakeHost) -> FakeHost:
    real = os.path.realpath(sys.executable)
    (host.tools / "python3").write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
    (host.tools / "python3").chmod(0o755)
    return host


@pytest.fixture
def plain_host(tmp_path: Path, python_host: FakeHost) -> FakeHost:
    """The same with a name without a newline: a virtual environment's own scripts cannot have one."""
    plain = FakeHost(tmp_path / "it's $HOME; plain")
    python_host.root.rename(plain.root)
    return plain


@pytest.fixture
def quick_host(plain_host: FakeHost) -> FakeHost:
    """The same, whose virtual environments see the pip of its Python, where that has one: a copy takes 4 s of CPU."""
    real = os.path.realpath(sys.executable)
    if subprocess.run([real, "-I", "-c", "import pip"], capture_output=True, check=False).returncode == 0:
        more = "--system-site-packages --without-pip"
        (plain_host.tools / "python3").write_text(
            f'#!/bin/sh\n[ "$1 $2" != "-m venv" ] || {{ shift 2; set -- -m venv {more} "$@"; }}\nexec "{real}" "$@"\n'
        )
    return plain_host


class TestRealPip:
    def test_a_wheel_is_installed_and_used(self, plain_host: FakeHost, wheelhouse: Callable[..., Path]) -> None:
        wheelhouse("leaf", "1.0")
        wheelhouse("leaf", "2.0")
        houses = wheelhouse("tree", "1.0", ("leaf",))
        listing = plain_host.root / "requirements.txt"
        listing.write_text(
            f"# offline\n--no-index\n--find-links '{houses}'  # here\n-r more/tree.txt\n-c limits.txt\n"
        )
        (plain_host.root / "more").mkdir()
        (plain_host.root / "more" / "tree.txt").write_text("tree \\\n  >= 1.0\n-r ../requirements.txt\n")
        (plain_host.root / "limits.txt").write_text("leaf<2\n")
        done = plain_host.build(render(pip_file=str(listing), vars=(("A", "1"),)))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "[environment] pip: creating a virtual environment\n" in done.stdout
        shutil.rmtree(plain_host.root / "more")
        seen = plain_host.run("python", "-c", "import sys, leaf; print(leaf.VERSION, sys.prefix)").stdout
        assert seen == f"1.0 {plain_host.env_dir / 'venv'}\n"
        assert plain_host.run("sh", "-c", 'echo "$VIRTUAL_ENV" $A').stdout == f"{plain_host.env_dir / 'venv'} 1\n"
        # What is installed can be taken over into another environment.
        frozen = render_environment(
            EnvironmentSpec("copy", pip_directory=str(plain_host.env_dir / "venv"), pip=("--no-index",))
        )
        assert "leaf==1.0" in frozen.script and "tree==1.0" in frozen.script and "pip==" not in frozen.script

    def test_a_package_that_is_not_there(self, quick_host: FakeHost, wheelhouse: Callable[..., Path]) -> None:
        done = quick_host.build(render(pip=("--no-index", f"--find-links {wheelhouse()}", "nowhere")))
        assert done.returncode == 1 and not quick_host.ready
        assert "No matching distribution found for nowhere" in done.stderr
        assert "pip: installing 1 requirement: failed with exit status 1" in done.stderr

    def test_a_local_wheel_by_its_path(self, quick_host: FakeHost, wheelhouse: Callable[..., Path]) -> None:
        wheel = next(wheelhouse().iterdir())
        done = quick_host.build(render(pip=("--no-index", str(wheel))))
        assert done.returncode == 0, done.stderr
        assert quick_host.run("python", "-m", "leaf").returncode == 0


@pytest.mark.skipif(not shutil.which("uv"), reason="uv is not installed")
def test_the_real_uv(plain_host: FakeHost, wheelhouse: Callable[..., Path]) -> None:
    (plain_host.tools / "uv").symlink_to(shutil.which("uv") or "")
    done = plain_host.build(render(pip=("--no-index", f"--find-links {wheelhouse()}", "leaf")))
    assert done.returncode == 0, done.stderr
    assert plain_host.run("python", "-c", "import leaf; print(leaf.VERSION)").stdout == "1.0\n"


def test_a_command_is_wrapped_without_a_change_to_its_words(host: FakeHost) -> None:
    assert wrap_command(["a", "b c"], False) == ("a", "b c")
    host.build(render(setup="true"))
    words = ["-n", "a b", "$(touch x)", "'", "\n", ""]
    done = host.run("sh", "-c", 'printf "%s|" "$@"', "name", *words)
    assert done.stdout == "".join(f"{word}|" for word in words)


def test_a_job_without_its_environment_does_not_run(host: FakeHost) -> None:
    assert host.run("touch", "ran").returncode != 0
    assert not (host.root / "ran").exists()


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.mark.campaign("scripts of environments")
@settings(max_examples=pick(60, 150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.fixed_dictionaries({
        "apt": st.lists(st.sampled_from(["git", "libgl1", "g++=4:12"]), max_size=2).map(tuple),
        "conda": st.lists(st.just("numpy >=1") | WORDS, max_size=2).map(tuple),
        "conda_channels": st.lists(WORDS, max_size=1).map(tuple),
        "pip": st.lists(st.just("six") | st.just("--pre") | WORDS, max_size=3).map(tuple),
        "julia": st.lists(st.sampled_from(["CSV", "A@1.2"]), max_size=2).map(tuple),
        "setup": st.just("") | WORDS,
        "vars": st.lists(st.tuples(st.sampled_from(["A", "_b"]), WORDS), max_size=2).map(tuple),
        "allow_system_packages": st.booleans(),
    })
)  # fmt: skip
def test_every_script_is_one_that_a_shell_reads(tmp_path: Path, fields: dict[str, Any]) -> None:
    try:
        build = render(**fields)
    except ConfigError as error:
        assert error.problems
        return
    for shell in SHELLS:
        done = subprocess.run(
            [*shell, "-n", "/dev/stdin"], input=build.script.encode(), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode() + build.script
