"""`cloudsend_cli.SSH`: logging in and commands, with a real sshd."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_server import SshServer, free_port, make_key, user_name

import cloudsend_cli
from cloudsend_cli import SSH
from cloudsend_cli.errors import AuthError, CommandFailed, HostKeyError, UnreachableError, UsageError

MakeServer = Callable[..., SshServer]
Open = Callable[..., SSH]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once."""
    monkeypatch.setattr("cloudsend_cli.api.ssh.BACKOFF_FIRST", 0.01)


def ssh_to(server: SshServer, **options: object) -> SSH:
    given: dict[str, object] = {"key": server.login_key, "host_key": server.lines["ed25519"], "stream": io.StringIO()}
    given.update(options)
    return SSH("127.0.0.1", port=server.port, **given).set_default_is_raise_err(True)  # type: ignore[arg-type]


@pytest.fixture
def ssh(server: SshServer) -> SSH:
    return ssh_to(server)


# ---- logging in ---------------------------------------------------------------------------------------------------


def test_setters_chain_and_constants_are_those_of_the_seed(server: SshServer) -> None:
    ssh = SSH("h").set_default_is_raise_err(True).set_default_retry_count(1).set_default_timeout(9)
    ssh = ssh.set_default_cmd_retry_count(0)
    assert (ssh.default_is_raise_err, ssh.default_retry_count, ssh.default_timeout) == (True, 1, 9)
    assert (SSH.SCP, SSH.SFTP, SSH.STABLE) == ("scp", "SFTP", "stable")
    assert cloudsend_cli.SSH is SSH


@pytest.mark.parametrize("wrong", [{"port": "x"}, {"port": 70000}])
def test_arguments_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SSH("h", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        SSH("h").set_default_retry_count(-1)
    with pytest.raises(UsageError):
        SSH("h").set_default_timeout(0)


def test_a_stranger_is_refused_with_what_to_do(server: SshServer, tmp_path: Path) -> None:
    line = server.lines["ed25519"]
    (tmp_path / "none").touch()
    with pytest.raises(HostKeyError, match="is not known") as caught:
        ssh_to(server, host_key=None, known_hosts=tmp_path / "none").connect()
    assert f"{server.name} {line}" in caught.value.hint and f"host_key='{line}'" in caught.value.hint
    assert not server.saw_login()


def test_the_users_known_hosts_count(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "user_known_hosts").write_text(server.known_line + "\n")
    assert ssh_to(server, host_key=None).connect()


def test_only_the_file_that_is_named_counts(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "user_known_hosts").write_text(server.known_line + "\n")
    (tmp_path / "mine").write_text("")
    with pytest.raises(HostKeyError):
        ssh_to(server, host_key=None, known_hosts=tmp_path / "mine").connect()
    (tmp_path / "mine").write_text(server.known_line + "\n")
    assert ssh_to(server, host_key=None, known_hosts=tmp_path / "mine").connect()


def test_a_wrong_host_key_is_refused_and_not_tried_again(server: SshServer, tmp_path: Path) -> None:
    ssh = ssh_to(server, host_key=make_key(tmp_path / "other")).set_default_is_raise_err(False)
    assert ssh.connect(retry_count=5) is False
    assert isinstance(ssh.last_error, HostKeyError) and not server.saw_login()
    assert server.log().count("Connection from") == 1


def test_a_wrong_key_is_refused_and_not_tried_again(server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "wrong")
    ssh = ssh_to(server, key=tmp_path / "wrong")
    with pytest.raises(AuthError, match="does not let"):
        ssh.connect(retry_count=5)
    assert server.log().count("Connection from") == 1


def test_the_users_configuration_says_port_and_key(server: SshServer, ssh_config: Path) -> None:
    with ssh_config.open("a") as writer:
        writer.write(f"Host box\n HostName 127.0.0.1\n Port {server.port}\n IdentityFile {server.login_key}\n")
    ssh = SSH("box", host_key=server.lines["ed25519"], stream=io.StringIO())
    assert ssh.exec_command("true")[3] and ssh.last_error is None


def test_a_machine_in_between(make_server: MakeServer, ssh_config: Path, tmp_path: Path) -> None:
    bastion, inner = make_server(), make_server()
    with ssh_config.open("a") as writer:
        writer.write(f"IdentityFile {bastion.login_key}\n")
    (tmp_path / "user_known_hosts").write_text(f"{bastion.known_line}\n{inner.known_line}\n")
    ssh = ssh_to(inner, host_key=None, jump=f"{user_name()}@127.0.0.1:{bastion.port}")
    assert ssh.exec_command("echo through")[1].read() == b"through\n"
    assert bastion.logins() == 1


def test_a_host_that_refuses_is_given_up_after_its_retries(quick: None) -> None:
    """The seed called itself until Python's limit."""
    port = free_port()
    ssh = SSH("127.0.0.1", port=port)
    assert ssh.connect(retry_count=3) is False
    assert isinstance(ssh.last_error, UnreachableError)
    with pytest.raises(UnreachableError):
        ssh.reconnect(retry_count=1, is_raise_err=True)
    *streams, ok = ssh.exec_command("true", retry_count=1)
    assert not ok and streams[1].channel.recv_exit_status() == -1 and streams[1].read() == b""
    assert ssh.put(__file__, retry_count=0) is False and ssh.get("x", retry_count=0) is False
    assert ssh.close() and not ssh.is_active()


def test_attempts_are_one_more_than_retries(quick: None) -> None:
    """Counted by who hangs up."""
    attempts = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    attempts.append(peer)
                    peer.close()

        threading.Thread(target=hang_up, daemon=True).start()
        ssh = SSH("127.0.0.1", port=listener.getsockname()[1])
        assert ssh.connect(retry_count=2) is False
        assert len(attempts) == 3
        listener.shutdown(socket.SHUT_RDWR)


def test_reconnect_and_close(server: SshServer, ssh: SSH) -> None:
    assert not ssh.is_active() and ssh.connect() and ssh.is_active()
    assert ssh.reconnect() and ssh.is_active() and server.logins() == 2
    assert ssh.close() and not ssh.is_active()
    assert ssh.exec_command("true")[3], "a later call connects again"
    with ssh:
        assert ssh.is_active()
    assert not ssh.is_active()


def test_the_password_is_in_no_text(server: SshServer) -> None:
    ssh = ssh_to(server, password="hunter2", key=None)
    with pytest.raises(AuthError) as caught:
        ssh.connect()
    assert "hunter2" not in f"{ssh!r}{caught.value.message}{caught.value.hint}" and not hasattr(ssh, "password")


# ---- commands -----------------------------------------------------------------------------------------------------


def test_streams_can_be_read_and_are_shown(ssh: SSH) -> None:
    shown = io.StringIO()
    ssh._stream = shown
    stdin, stdout, stderr, ok = ssh.exec_command("echo one; echo two; echo grün >&2")
    assert ok and list(stdout) == ["one\n", "two\n"] and stderr.read() == "grün\n".encode()
    stdout.seek(0)
    assert stdout.readline() == "one\n" and stdout.readlines() == ["two\n"]
    assert sorted(shown.getvalue().split()) == ["grün", "one", "two"]
    with pytest.raises(ValueError, match="input"):
        stdin.write("too late")
    ssh.exec_command("echo hidden", is_show_result=False)
    assert "hidden" not in shown.getvalue()


def test_output_goes_to_stdout_where_no_stream_is_given(server: SshServer, capsys: pytest.CaptureFixture[str]) -> None:
    ssh_to(server, stream=None).exec_command("echo here")
    assert capsys.readouterr().out == "here\n"


def test_words_on_stderr_are_no_failure(ssh: SSH, tmp_path: Path) -> None:
    """The seed ran it three times, and said that it had failed."""
    assert ssh.exec_command(f"echo ran >>{tmp_path}/count; echo warning >&2")[3]
    assert (tmp_path / "count").read_text() == "ran\n"


def test_another_exit_status_is_a_failure_without_words(ssh: SSH, tmp_path: Path) -> None:
    """The seed called it a success."""
    ssh.set_default_is_raise_err(False)
    *_, stdout, _, ok = ssh.exec_command(f"echo ran >>{tmp_path}/count; exit 3")
    assert not ok and stdout.channel.recv_exit_status() == 3
    assert (tmp_path / "count").read_text() == "ran\n" * 3, "twice again, as cmd_retry_count says by default"
    assert isinstance(ssh.last_error, CommandFailed) and "exit status 3, 3 times" in ssh.last_error.message
    with pytest.raises(CommandFailed) as caught:
        ssh.exec_command("echo why >&2; exit 4", cmd_retry_count=0, is_raise_err=True)
    assert caught.value.context == "why\n"
    assert ssh.exec_command("true")[3] and ssh.last_error is None


def test_a_redo_that_succeeds_is_a_success_and_not_done_again(ssh: SSH, tmp_path: Path) -> None:
    """The seed reported it as failed and went on."""
    command = f"echo ran >>{tmp_path}/count; test $(wc -l <{tmp_path}/count) = 2"
    assert ssh.exec_command(command)[3]
    assert (tmp_path / "count").read_text() == "ran\n" * 2


def test_a_command_that_is_lost_runs_again_only_if_that_is_allowed(
    server: SshServer, ssh: SSH, tmp_path: Path, quick: None
) -> None:
    count = tmp_path / "count"
    command = f"echo ran >>{count}; test -e {tmp_path}/second && exit 0; kill -9 $PPID; sleep 5"
    ssh.connect()
    with pytest.raises(CommandFailed, match=r"the connection was lost .* it may have run"):
        ssh.exec_command(command, cmd_retry_count=0)
    assert count.read_text() == "ran\n"
    assert not ssh.is_active()
    command = command.replace("kill", f"touch {tmp_path}/second; kill")
    assert ssh.exec_command(command, cmd_retry_count=1)[3]
    assert count.read_text() == "ran\n" * 3


def test_a_command_that_takes_too_long_is_ended(ssh: SSH, tmp_path: Path) -> None:
    if user_name() == "root":
        pytest.skip("sshd sends no signals for root: tests/real/test_ssh_faults.py has it")
    with pytest.raises(CommandFailed, match=r"did not end within 0\.5 s"):
        ssh.exec_command("exec sleep 600", timeout=0.5, cmd_retry_count=0)


def test_a_flood_does_not_outlast_the_time_limit(ssh: SSH, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudsend_cli.hosts.ssh_commands.GRACE", 0.2)
    with pytest.raises(CommandFailed, match=r"did not end within 0\.5 s"):
        ssh.exec_command("yes", timeout=0.5, cmd_retry_count=0, is_show_result=False)
    assert ssh.exec_command("echo on")[1].read() == b"on\n"


def test_what_may_still_run_is_not_executed_again(ssh: SSH, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudsend_cli.hosts.ssh_commands.GRACE", 0.2)
    command = f"trap '' TERM; echo ran >>{tmp_path}/count; while ! test -e {tmp_path}/end; do sleep 0.05; done"
    try:
        if user_name() != "root":
            pytest.skip("sshd sends KILL as well")
        with pytest.raises(CommandFailed, match="whether it has is not known"):
            ssh.exec_command(command, timeout=0.5, cmd_retry_count=2)
        assert (tmp_path / "count").read_text() == "ran\n"
    finally:
        (tmp_path / "end").touch()


def test_a_signal_is_a_failure(ssh: SSH) -> None:
    with pytest.raises(CommandFailed, match="ended by a signal"):
        ssh.exec_command("kill -9 $$", cmd_retry_count=0)
    assert ssh.is_active()


VALUES = {
    "PLAIN": "x",
    "QUOTES": """it's "so" `id` $(id) $HOME \\ !! %s %d""",
    "LINES": "one\ntwo\n\n",
    "GREEN": "grün",
    "EMPTY": "",
    "NUMBER": 3,
}


@pytest.mark.parametrize("get_pty", [False, True])
def test_variables_arrive_as_they_are_whatever_the_host_accepts(
    make_server: MakeServer, tmp_path: Path, get_pty: bool
) -> None:
    server = make_server(AcceptEnv="none")
    script = f"import json,os; print(json.dumps({{k: os.environ.get(k) for k in {list(VALUES)}}}))"
    (tmp_path / "show.py").write_text(script)
    ssh = ssh_to(server)
    stdout = ssh.exec_command(f"python3 {tmp_path}/show.py", environment=VALUES, get_pty=get_pty)[1]
    assert json.loads(stdout.read()) == {name: str(value) for name, value in VALUES.items()}


def test_variables_are_not_in_the_list_of_processes(ssh: SSH) -> None:
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sesa[m]e\\|\\\\163\\\\145\\\\163' || true"
    assert ssh.exec_command(look, environment={"TOKEN": "sesame"})[1].read().strip() == b"0"


@pytest.mark.parametrize("name", ["A B", "A;id", "", "1A", "A=B"])
def test_a_name_that_is_none_is_refused(ssh: SSH, name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        ssh.exec_command("true", environment={name: "x"})


def test_input_is_given_and_ends(ssh: SSH) -> None:
    data = bytes(range(256)) * 8192
    assert ssh.exec_command("cat", input=data, is_show_result=False)[1].read() == data
    assert ssh.exec_command("read x; echo $x$Y", input="in\n", environment={"Y": "out"})[1].read() == b"inout\n"
    assert ssh.exec_command("cat; exec <&-; true")[3], "without any it is empty"
    assert ssh.exec_command("true", input=data)[3], "what nobody reads is not waited for"


def test_a_terminal(ssh: SSH) -> None:
    assert ssh.exec_command("test -t 1 && echo yes; echo merged >&2", get_pty=True)[1].read() == b"yes\r\nmerged\r\n"
    assert ssh.exec_command("python3", get_pty=True)[3], "the seed's page starts an interpreter: its input is empty"
    answer = ssh.exec_command("read x; echo got $x", get_pty=True, input="typed\n")[1].read()
    assert b"got typed" in answer


def test_a_host_that_gives_no_terminal(make_server: MakeServer) -> None:
    ssh = ssh_to(make_server(PermitTTY="no")).set_default_is_raise_err(False)
    assert not ssh.exec_command("true", get_pty=True)[3]
    assert ssh.last_error is not None and "refuses a terminal" in ssh.last_error.message
    assert ssh.exec_command("true")[3]


def test_large_output_comes_whole(ssh: SSH) -> None:
    stdout = ssh.exec_command("head -c 20000000 /dev/zero | tr '\\0' x", is_show_result=False)[1]
    assert stdout.read().count(b"x") == 20_000_000


def test_what_a_command_leaves_running_is_not_waited_for(ssh: SSH, tmp_path: Path) -> None:
    """It holds the output open."""
    started = f"while ! test -e {tmp_path}/end; do sleep 0.05; done & echo started"
    assert ssh.exec_command(started)[1].read() == b"started\n"
    (tmp_path / "end").touch()


def test_calls_of_several_threads_wait_for_one_another(server: SshServer, ssh: SSH) -> None:
    found: list[bytes] = []

    def ask(number: int) -> None:
        found.append(ssh.exec_command(f"echo {number}", is_show_result=False)[1].read())

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [b"%d\n" % n for n in range(8)] and server.logins() == 1


def test_one_channel_at_a_time_is_enough(make_server: MakeServer, tmp_path: Path) -> None:
    ssh = ssh_to(make_server(MaxSessions="1", Subsystem="sftp internal-sftp"))
    for _ in range(2):
        assert ssh.exec_command("true")[3] and ssh.putfo("x", str(tmp_path / "x"))
