"""The program that executes functions on machines: under each Python that is here, and alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
from function_scripts import run_program, write
from real_stack import Stack

from cloudsend_cli.api.functions.bundle import build_bundle
from cloudsend_cli.api.functions.modules import find_sources
from cloudsend_cli.api.functions.pickling import pickle_value
from cloudsend_cli.api.functions.tasks import show_value
from cloudsend_cli.core.model import JobSpec, ProviderDefinition, RunSpec
from cloudsend_cli.engine.submit import ANY_PYTHON, choose_python

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ROOT = Path(__file__).parents[2]


def find_pythons() -> dict[str, Path]:
    """{version: interpreter} of what pyenv has here, and this one."""
    found = {VERSION: Path(sys.executable)}
    for folder in sorted(Path.home().glob(".pyenv/versions/*")):
        version = ".".join(folder.name.split(".")[:2])
        if (folder / "bin" / "python").exists():
            found.setdefault(version, folder / "bin" / "python")
    return found


PYTHONS = find_pythons()
OTHERS = [version for version in PYTHONS if version != VERSION]
NEW = [version for version in PYTHONS if tuple(map(int, version.split("."))) >= (3, 10)]


def lay_out(folder: Path) -> Path:
    """What a job finds in its run directory."""
    place = folder / ".cloudsend"
    place.mkdir()
    (place / "call.pyz").write_bytes(build_bundle())
    (place / "function").write_bytes(pickle_value(len, "len").data)
    (place / "arguments").write_bytes(pickle_value(((["a", "b"],), {}), "arguments").data)
    return place


def execute(python: Path, folder: Path, version: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), ".cloudsend/call.pyz", version],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def outcome(place: Path) -> dict[str, object]:
    return dict(json.loads((place / "value").read_bytes().split(b"\n", 1)[0]))


@pytest.mark.parametrize("version", OTHERS)
def test_another_python_says_what_it_is_and_what_to_do(tmp_path: Path, version: str) -> None:
    place = lay_out(tmp_path)
    done = execute(PYTHONS[version], tmp_path, VERSION)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the function was sent from Python {VERSION}, and " in done.stderr
    assert f" is Python {version}; give its group an environment" in done.stderr and f"python={VERSION}" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    assert outcome(place)["kind"] == "refused"


@pytest.mark.parametrize("version", OTHERS)
def test_where_no_environment_chooses_the_right_python_is_looked_for(tmp_path: Path, version: str) -> None:
    place = lay_out(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / f"python{VERSION}").symlink_to(os.path.realpath(sys.executable))
    path = f"{tmp_path / 'nothing'}:{tmp_path / 'bin'}"
    done = execute(PYTHONS[version], tmp_path, f"{VERSION}+", PATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert outcome(place)["kind"] == "value"


PICKLED = """
    import functools, sys
    from pathlib import Path
    from cloudsend_cli.api.functions.bundle import build_bundle
    from cloudsend_cli.api.functions.pickling import pickle_value

    class Thing:
        kinds = {"b", "a"}
        def grow(self, by):
            import json
            return json.dumps([by, sorted(self.kinds), by in {"x", "y"}])

    @functools.lru_cache(maxsize=7)
    def count(n):
        return n and 1 + count(n - 1)

    def outer(thing):
        count(len(sys.argv))
        def inner(by):
            try:
                assert count.cache_info() == (0, 0, 7, 0) and count(3) == 3 and count.cache_info().currsize == 4
                return [thing.grow(b) for b in by]
            finally:
                pass
        return inner

    place = Path(".cloudsend")
    place.mkdir()
    pickled = pickle_value(outer(Thing()), "f")
    assert "json" in pickled.modules, pickled.modules
    (place / "call.pyz").write_bytes(build_bundle())
    (place / "function").write_bytes(pickled.data)
    (place / "arguments").write_bytes(pickle_value(([["x", "z"]], {}), "arguments").data)
"""


@pytest.mark.parametrize("version", NEW)
def test_functions_of_each_version_that_we_run_on(tmp_path: Path, version: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "cloudpickle").symlink_to(Path(cloudpickle.__file__).parent)
    script = write(tmp_path / "script.py", PICKLED)
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path / 'site'}", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([str(PYTHONS[version]), str(script)], cwd=tmp_path, env=environ, check=True, timeout=60)
    done = execute(PYTHONS[version], tmp_path, version)
    assert (done.returncode, done.stderr) == (0, "")
    assert outcome(tmp_path / ".cloudsend")["kind"] == "value"
    assert b'["x", ["a", "b"], true]' in (tmp_path / ".cloudsend" / "value").read_bytes()


def test_what_is_sent_is_the_same_to_the_byte_in_each_process(tmp_path: Path) -> None:
    script = write(tmp_path / "script.py", PICKLED.replace("    place.mkdir()\n", "    place.mkdir(exist_ok=True)\n"))
    seen = set()
    for seed in ("0", "1", "2", "3"):
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environ, check=True, timeout=60)
        seen.add(
            tuple((tmp_path / ".cloudsend" / name).read_bytes() for name in ("call.pyz", "function", "arguments"))
        )
    assert len(seen) == 1


def test_what_other_users_see_of_a_call_has_none_of_its_arguments(stack: Stack) -> None:
    source = """
        import subprocess, sys
        from pathlib import Path
        from cloudsend_cli import Client

        def look(password, more=""):
            import os
            shown = [Path("/proc", str(p), "cmdline").read_bytes() for p in (os.getpid(), os.getppid())]
            inherited = subprocess.run(["env"], capture_output=True, check=True).stdout
            return shown, sorted(os.environ), inherited, more

        if __name__ == "__main__":
            client = Client()
            run = client.map(look, [{"password": "geheim"}, {"password": "geheim", "more": "large " * 1000}])
            for value, job in zip(run.values(timeout=60), client.list_jobs(run.run)):
                shown, names, inherited, _ = value
                assert shown[0].split(b"\\0")[1:] == [b".cloudsend/call.pyz", sys.argv[1].encode(), b""], shown
                assert "CLOUDSEND_CALL" not in names and b"CLOUDSEND_CALL" not in inherited, names
                assert job.command.startswith("look(password='geheim'") and len(job.command) < 200, job.command
            again = client.map(look, [{"password": "geheim"}])
            assert client.find_job(again.results()[0].id).hash == client.list_jobs(run.run)[0].hash
            print("unseen")
    """
    assert run_program(stack, source, VERSION) == "unseen\n"


def test_the_wrong_python_of_a_group_is_told_by_its_result(stack: Stack) -> None:
    others = [str(PYTHONS[version]) for version in OTHERS if version.startswith("3.")]
    if not others:
        pytest.skip("no second Python below ~/.pyenv/versions")
    source = """
        import sys
        from cloudsend_cli import Client
        from cloudsend_cli.errors import FunctionError

        def f():
            return 1

        if __name__ == "__main__":
            client = Client()
            (result,) = client.submit_function(f, python=sys.argv[1]).wait(60)
            assert (result.state, result.reason) == ("failed", "exit 1"), result
            assert "the function was sent from Python" in result.error
            try:
                result.value()
            except FunctionError as problem:
                assert "was sent from Python" in str(problem) and "an environment with that Python" in problem.hint
            assert client.submit_function(f, python=sys.executable).value(timeout=60) == 1
            print("good")
    """
    assert run_program(stack, source, others[0]) == "good\n"


def test_a_function_that_cannot_be_unpacked_says_what_is_missing(tmp_path: Path) -> None:
    place = lay_out(tmp_path)
    (place / "function").write_bytes(b"cnot_there_at_all\nfunction\n.")
    done = execute(Path(sys.executable), tmp_path, VERSION)
    assert done.returncode == 1 and "No module named 'not_there_at_all'" in done.stderr
    found = outcome(place)
    assert (found["kind"], found["type"]) == ("unreadable", "ModuleNotFoundError")


def test_only_the_users_own_modules_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine_alone.py", "import json, pytest\nfrom mine_inner.deep import x\n")
    write(tmp_path / "mine_inner" / "__init__.py", "")
    write(tmp_path / "mine_inner" / "deep" / "__init__.py", "x = 1\n")
    write(tmp_path / "mine_inner" / "data.csv", "1")
    write(tmp_path / "mine_inner" / ".hidden" / "a.py", "")
    write(tmp_path / "mine_broken.py", "def (\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(find_sources(["mine_alone", "json", "pytest", "sys", "no_such_module", "__main__"])) == {
        "mine_alone.py",
        "mine_inner/__init__.py",
        "mine_inner/deep/__init__.py",
    }
    assert set(find_sources(["mine_broken"])) == {"mine_broken.py"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"), (1e-3, "0.001"), (True, "True"), (None, "None"), ([1, "a"], "[1, 'a']"),
        ((1, (2.0, None)), "(1, (2.0, None))"), ({"a": 1}, "<dict>"), (object(), "<object>"), ("a\n\0b", "a??b"),
        ("x" * 200, "x" * 117 + "..."),
    ],
)  # fmt: skip
def test_values_are_shown_alike_in_every_process(value: object, text: str) -> None:
    assert show_value(value) == text


@pytest.mark.parametrize(
    ("provider", "environment", "argv"),
    [
        ("local", "", (sys.executable, "p", "3.11")),
        ("local", "e", ("python3", "p", "3.11")),
        ("ssh", "e", ("python3", "p", "3.11")),
        ("ssh", "", ("python3", "p", "3.11+")),
    ],
)
def test_which_python_a_function_is_executed_by(provider: str, environment: str, argv: tuple[str, ...]) -> None:
    call = JobSpec("f", (ANY_PYTHON, "p", "3.11", "a"), "f()", environment=environment)
    chosen = JobSpec("g", ("python3.9", "p", "3.11", "a"), "g()")
    spec = RunSpec("p", "", (call, chosen), providers=(ProviderDefinition("x", provider),))
    assert [job.argv for job in choose_python(spec).jobs] == [(*argv, "a"), chosen.argv]
