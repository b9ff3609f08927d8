"""The one command line through real login shells, as sshd gives it to them: `SHELL -c COMMAND`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_hello import ask_hello
from real_stack import find_processes

from cloudsend_cli.agent.client import agent_sha256, agent_source
from cloudsend_cli.agent.compiled import COMPILED, agent_compiled
from cloudsend_cli.errors import CloudsendError, UnfitError, UnreachableError
from cloudsend_cli.hosts.bootstrap import COMMAND, ROOT_COMMAND, first_words, one_argument, opening
from cloudsend_cli.hosts.stage_talk import StageTalk

SHELLS = ("sh", "dash", "bash", "zsh", "csh", "tcsh", "fish", "busybox")
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
PYTHONS = ["3.6", *(v for n in range(7, 17) if list(PYENV.glob(f"{(v := f'3.{n}')}.*")))]


def shell_command(name: str, line: str) -> list[str]:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} here: apt-get install {name}")
    return [path, *(["sh"] if name == "busybox" else []), "-c", line]


class ProcessStream:
    """A process as a channel to a host: its standard streams, and its status at the end."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._sock, theirs = socket.socketpair()
        self._sock.setblocking(False)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stream
        self._early = b""
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=self._errors, env=environ, start_new_session=True
            )

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        with contextlib.suppress(ConnectionResetError):
            return self._sock.recv(size)
        return b""

    def send(self, data: bytes) -> int:
        return self._sock.send(data)

    def unread(self, data: bytes) -> None:
        self._early = data + self._early

    @property
    def stderr(self) -> bytes:
        return os.pread(self._errors.fileno(), 4096, 0)

    def exit_status(self, limit: float) -> int | None:
        status = self._process.wait(limit)
        return status if status >= 0 else None

    def close(self) -> None:
        self._sock.close()
        self._errors.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


Start = Callable[..., ProcessStream]


@pytest.fixture
def start(state_dir: Path) -> Iterator[Start]:
    """`start("bash")`: the command line in that shell, of a user whose home is `state_dir`."""
    streams: list[ProcessStream] = []

    def start(shell: str = "sh", *, line: str = COMMAND, **environ: str) -> ProcessStream:
        given = {"HOME": str(state_dir), "PATH": "/usr/bin:/bin", "CLOUDSEND_AGENT_IDLE": "30", **environ}
        stream = ProcessStream(shell_command(shell, line), {k: v for k, v in given.items() if v})
        streams.append(stream)
        return stream

    yield start
    for stream in streams:
        stream.close()
    while found := find_processes(state_dir):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def attach(stream: ProcessStream, home: Path | str, python: str = "") -> None:
    StageTalk(stream, "gpu", python).attach(str(home), agent_source(), agent_sha256())


def attach_and_greet(stream: ProcessStream, home: Path | str, python: str = "") -> dict[str, object]:
    attach(stream, home, python)
    return dict(ask_hello(stream))


# ---- shells --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [COMMAND, ROOT_COMMAND])
def test_the_command_line_has_nothing_that_a_shell_could_change(line: str) -> None:
    text = line.removeprefix("exec /bin/sh -c '").removesuffix("'")
    assert not set(text) & set("'!\\\n\t`") and text.isascii()
    assert len(line) < 1000  # old csh takes words of 1024 bytes


@pytest.mark.parametrize("shell", SHELLS)
def test_every_login_shell_starts_the_agent(start: Start, state_dir: Path, shell: str) -> None:
    home = state_dir / "agent"
    assert attach_and_greet(start(shell), home)["home"] == str(home)
    assert attach_and_greet(start(shell), home)["home"] == str(home)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_arrives_as_it_was_given(shell: str) -> None:
    given = [
        "printf",
        "<%s>",
        "a b",
        "",
        "-n",
        "'",
        '"',
        "$HOME",
        "`id`",
        "!!",
        "!x",
        "a\nb",
        "\\",
        "\\\\n",
        "%d",
        "*",
        "é~",
    ]
    done = subprocess.run(shell_command(shell, one_argument(given)), capture_output=True, check=True)
    assert done.stdout == "".join(f"<{a}>" for a in given[2:]).encode()
    assert done.stderr == b""


@pytest.mark.parametrize("shell", SHELLS)
def test_any_bytes_arrive_as_they_were_given(shell: str) -> None:
    """10 x 8 arguments of all bytes but NUL, by a fixed seed."""
    source = random.Random(shell)
    letters = [*range(1, 256), *b"'\"\\$`!\n%&;|<>()*?[]{}~#^ " * 8]
    environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    for _ in range(10):
        given = [os.fsdecode(bytes(source.choices(letters, k=source.randrange(12)))) for _ in range(8)]
        line = shell_command(shell, one_argument(["printf", "%s\\n--\\n", *given]))
        done = subprocess.run(line, capture_output=True, check=True, env=environ)
        assert done.stdout == b"".join(os.fsencode(a) + b"\n--\n" for a in given), given


# ---- Pythons -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", PYTHONS)
def test_each_python_runs_the_stage(start: Start, state_dir: Path, version: str) -> None:
    found = sorted(PYENV.glob(f"{version}.*/bin/python3")) if PYENV.is_dir() else []
    if not found:
        pytest.skip(f"no Python {version} here: pyenv install {version}")
    python = str(found[-1])
    reply = attach_and_greet(start(PATH="/nonexistent"), state_dir / "agent", python)
    assert str(reply["python"]).startswith(f"{version}.")
    talk = StageTalk(start(PATH="/nonexistent"), "gpu", python)
    talk.begin({"verb": "probe", "home": ""})
    facts = talk.next_word()["facts"]
    assert facts["python"].startswith(f"{version}.") and facts["home"].startswith(f"{state_dir}/.cloudsend/agent/")


def put_program(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


@pytest.mark.parametrize(
    "broken",
    [
        "echo 'error while loading shared libraries' >&2; exit 127",
        "exit 0",
        "echo Python 2.7.18; exit 2",
        "echo /no/such/python",
        "kill -9 $$",
    ],
)
def test_a_broken_python_that_comes_first_is_skipped(start: Start, state_dir: Path, broken: str) -> None:
    put_program(state_dir / "bin", "python3", broken)
    (state_dir / "bin" / "python3.9").symlink_to(shutil.which("python3", path="/usr/bin:/bin") or "/usr/bin/python3")
    reply = attach_and_greet(start(PATH=str(state_dir / "bin")), state_dir / "agent")
    assert reply["ok"] is True


def test_a_wrapper_that_takes_its_input_does_not_take_ours(start: Start, state_dir: Path) -> None:
    real = shutil.which("python3", path="/usr/bin:/bin")
    put_program(state_dir / "bin", "python3", f'cat >/dev/null; exec {real} "$@"')
    assert attach_and_greet(start(PATH=f"{state_dir}/bin:/usr/bin:/bin"), state_dir / "agent")["ok"] is True


def refusal(stream: ProcessStream, home: Path | str, python: str = "") -> UnfitError:
    with pytest.raises(UnfitError) as caught:
        attach(stream, home, python)
    return caught.value


def test_no_python_is_unfit_and_says_what_to_do(start: Start, state_dir: Path) -> None:
    error = refusal(start(PATH="/nonexistent"), state_dir / "agent")
    assert error.message == "no Python 3.6 or later on gpu"
    assert "python:" in error.hint
    assert not (state_dir / "agent").exists()


def test_an_old_python_alone_is_named(start: Start, state_dir: Path) -> None:
    put_program(state_dir / "bin", "python", "echo 'Unknown option: -I' >&2; exit 2")
    error = refusal(start(PATH=str(state_dir / "bin")), state_dir / "agent")
    assert error.message == "no Python 3.6 or later on gpu; python there is older or does not start"


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/true", "-c", "a b; touch /tmp/x"])
def test_a_configured_python_that_does_not_fit_is_named(start: Start, state_dir: Path, python: str) -> None:
    error = refusal(start(), state_dir / "agent", python)
    assert f"{python} on gpu does not start, or is older" in error.message


def test_a_configured_python_may_have_any_name(start: Start, state_dir: Path, weird_path: Path) -> None:
    path = Path(str(weird_path).replace("\n", ""))
    path.mkdir()
    (path / "py").symlink_to(shutil.which("python3", path="/usr/bin:/bin") or "/usr/bin/python3")
    assert attach_and_greet(start("csh" if shutil.which("csh") else "sh"), state_dir / "agent", str(path / "py"))["ok"]


def test_a_python_with_a_newline_is_refused() -> None:
    with pytest.raises(ValueError, match="newline"):
        opening("00", "a\nb", {})


# ---- homes ---------------------------------------------------------------------------------------------------------


def test_the_home_may_have_any_name(start: Start, state_dir: Path) -> None:
    home = state_dir / "a b'c\"d;e$HOME\nf*é"
    assert attach_and_greet(start("csh" if shutil.which("csh") else "sh"), home)["home"] == str(home)


@pytest.mark.parametrize(("wish", "path"), [("~/agent", "agent"), ("deep/er", "deep/er"), ("", ".cloudsend/agent/*")])
def test_a_home_is_below_that_of_the_user(start: Start, state_dir: Path, wish: str, path: str) -> None:
    attach(start(), wish)
    (found,) = state_dir.glob(path)
    assert (found / f"agent-{agent_sha256()[:16]}.pyz").read_bytes() == agent_source()


def test_without_home_in_the_environment_the_password_file_says_it(start: Start) -> None:
    talk = StageTalk(start(HOME=""), "gpu", "")
    talk.begin({"verb": "probe", "home": ""})
    assert talk.next_word()["facts"]["home"].startswith(pwd.getpwuid(os.geteuid()).pw_dir)


def test_a_link_to_another_disk_is_a_home(start: Start, state_dir: Path) -> None:
    (state_dir / "disk").mkdir(mode=0o700)
    (state_dir / "agent").symlink_to(state_dir / "disk")
    attach(start(), state_dir / "agent")
    assert list((state_dir / "disk").glob("agent-*.pyz"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make what is another user's")
def test_a_home_of_another_user_is_refused(start: Start, state_dir: Path) -> None:
    """As in /tmp, where anybody may have made the name first."""
    (state_dir / "agent").mkdir(mode=0o700)
    os.chown(state_dir / "agent", 12345, 12345)
    error = refusal(start(), state_dir / "agent")
    assert "belongs to another user" in error.message and "home:" in error.hint
    assert list((state_dir / "agent").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize(
    ("options", "words", "advice"),
    [
        ("size=64k,mode=700", "No space left", "free some space"),
        ("nr_inodes=1,mode=700", "No space left", "free some space"),
        ("size=8m,mode=700,ro", "Read-only file system", "read-only"),
        ("size=8m,mode=700,noexec", "", ""),
    ],
)
def test_a_full_or_closed_disk_is_told_and_noexec_works(
    start: Start, state_dir: Path, options: str, words: str, advice: str
) -> None:
    disk = state_dir / "disk"
    disk.mkdir()
    line = f"mount -t tmpfs -o {options} none {disk} && {COMMAND}"
    stream = ProcessStream(["unshare", "-m", "/bin/sh", "-c", line], {"PATH": os.environ["PATH"], "HOME": str(disk)})
    try:
        if words:
            error = refusal(stream, disk)
            assert words in error.message and advice in error.hint
        else:
            attach(stream, disk)
    finally:
        stream.close()


# ---- what a host says ----------------------------------------------------------------------------------------------


def test_noise_around_the_lines_is_skipped(start: Start, state_dir: Path) -> None:
    noise = "printf 'cloudsend-stage %s ' x; head -c 1048576 /dev/urandom; printf 'no end of line'"
    assert attach_and_greet(start(line=f"{noise}; {COMMAND}"), state_dir / "agent")["ok"] is True


def test_noise_without_end_is_given_up(start: Start, state_dir: Path) -> None:
    assert "prints without end" in refusal(start(line="cat /dev/zero"), state_dir / "agent").message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("read n; echo cloudsend-stage $n '{\"ready\": 1}'; sleep 60", "did not ask"),
        ("read n; echo cloudsend-stage $n '[1]'; sleep 60", "did not ask"),
        ("read n; echo cloudsend-stage $n nonsense; sleep 60", "did not ask"),
        (
            "read n; printf \"cloudsend-stage $n \"; head -c 99999 /dev/zero | tr '\\0' x; sleep 60",
            "a line without end",
        ),
        ('read n; echo cloudsend-stage $n \'{"error": "x", "message": "\\u001b[2J evil"}\'; sleep 60', "?[2J evil"),
    ],
)
def test_a_host_that_answers_nonsense_is_unfit(start: Start, state_dir: Path, line: str, words: str) -> None:
    assert words in refusal(start(line=line), state_dir / "agent").message


def test_a_lost_connection_says_nothing_about_the_host(start: Start, state_dir: Path) -> None:
    with pytest.raises(UnreachableError, match="was lost"):
        attach(start(line="kill -9 $$"), state_dir / "agent")


def test_an_agent_that_arrives_damaged_is_not_kept(start: Start, state_dir: Path) -> None:
    with pytest.raises(UnfitError, match="arrived damaged"):
        StageTalk(start(), "gpu", "").attach(str(state_dir / "agent"), agent_source()[:-1] + b"x", agent_sha256())
    assert list((state_dir / "agent").iterdir()) == []


def test_a_refusal_in_the_middle_of_what_is_sent_is_told(start: Start, state_dir: Path) -> None:
    """Seen: of a full disk sometimes no more was told than that the command had ended."""
    source = bytes(8 << 20)
    talk = StageTalk(start(line=f"ulimit -f 8; {COMMAND}"), "gpu", "")
    with pytest.raises(UnfitError, match="File too large"):
        talk.attach(str(state_dir / "agent"), source, hashlib.sha256(source).hexdigest())
    assert list((state_dir / "agent").iterdir()) == []


def test_an_agent_that_is_cut_off_leaves_nothing(start: Start, state_dir: Path) -> None:
    stream = start()
    talk = StageTalk(stream, "gpu", "")
    header = {"verb": "attach", "home": str(state_dir / "agent"), "size": 1 << 20, "sha256": "0" * 64}
    talk.begin(header)
    assert talk.next_word() == {"need": True}
    stream.send(b"x" * 1000)
    stream._sock.shutdown(socket.SHUT_WR)
    with pytest.raises(CloudsendError):
        while True:
            talk.next_word()
    assert list((state_dir / "agent").iterdir()) == []


def test_parts_of_killed_stages_are_removed_by_a_later_one(start: Start, state_dir: Path) -> None:
    (state_dir / "agent").mkdir(mode=0o700)
    old, young = (state_dir / "agent" / f".agent-{n}-x" for n in (1, 2))
    for part in (old, young):
        part.write_bytes(b"x")
    os.utime(old, (0, 0))
    attach(start(), state_dir / "agent")
    assert not old.exists() and young.exists()


@pytest.mark.parametrize(
    ("noise", "shown"),
    [
        (b"", ""),
        (b"one\n\n two \r\nthree\n", "one\ntwo\nthree"),
        (b"\x1b[31mred\x07\x9b", "?[31mred?\ufffd"),
        ("a\u202eb\u2066".encode(), "a?b?"),
        (b"\n".join([b"x" * 400] * 9), "\n".join(["x" * 160] * 5)),
    ],
)
def test_words_of_a_host_are_shown_without_what_a_terminal_obeys(noise: bytes, shown: str) -> None:
    assert first_words(noise) == shown


# ---- compiled modules ----------------------------------------------------------------------------------------------


def attach_compiled(stream: ProcessStream, home: Path, compiled: bytes) -> dict[str, object]:
    StageTalk(stream, "gpu", sys.executable).attach(str(home), agent_source(), agent_sha256(), compiled)
    return dict(ask_hello(stream))


def uses(about: dict[str, object]) -> bool:
    return f"{COMPILED}=".encode() in Path(f"/proc/{about['pid']}/environ").read_bytes()


def test_compiled_modules_are_sent_once_to_a_host_of_the_same_python(start: Start, state_dir: Path) -> None:
    compiled, home = agent_compiled(), state_dir / "agent"
    assert uses(attach_compiled(start(), home, compiled))
    (kept,) = home.glob("*.code")
    assert kept.read_bytes() == compiled and kept.stat().st_mode & 0o777 == 0o600
    before = kept.stat()
    attach_compiled(start(), home, compiled)
    assert kept.stat().st_mtime_ns == before.st_mtime_ns
    kept.write_bytes(compiled[:-1])
    attach_compiled(start(), home, compiled)
    assert kept.read_bytes() == compiled
    os.utime(kept, (0, 0))
    other = compiled + b"\0"
    assert attach_compiled(start(), home, other)["ok"] is True
    assert [path.read_bytes() for path in home.glob("*.code")] == [other]


def test_a_host_of_another_python_gets_the_agent_alone(start: Start, state_dir: Path) -> None:
    _, _, modules = agent_compiled().partition(b"\n")
    assert not uses(attach_compiled(start(), state_dir / "agent", b"cpython-311 00000000\n" + modules))
    assert list((state_dir / "agent").glob("*.code")) == []


def test_a_place_where_it_cannot_be_kept_is_served(start: Start, state_dir: Path) -> None:
    compiled = agent_compiled()
    (state_dir / "agent").mkdir(mode=0o700)
    name = f"agent-{agent_sha256()[:16]}-{hashlib.sha256(compiled).hexdigest()[:16]}.code"
    (state_dir / "agent" / name).mkdir()
    assert not uses(attach_compiled(start(), state_dir / "agent", compiled))
