"""`cloudsend_cli.SSH`: files both ways, with a real sshd; and with one whose SFTP server lies."""

from __future__ import annotations

import filecmp
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_server import SshServer
from test_ssh_calls import ssh_to

from cloudsend_cli import SSH
from cloudsend_cli.errors import (
    CloudsendError,
    NotFoundError,
    ResultError,
    TransferFailed,
    UnfitError,
    UnreachableError,
    UsageError,
)
from cloudsend_cli.hosts.ssh_sending import TEMPORARY

MakeServer = Callable[..., SshServer]
BIG = 16_000_000
HOSTILE = [
    "-rf",
    "--help",
    "a b",
    "it's",
    'so"so',
    "new\nline",
    "$(id)",
    "`id`",
    "*",
    "~",
    "\\",
    "é",
    "...",
    ".hidden",
]


@pytest.fixture
def ssh(make_server: MakeServer) -> SSH:
    return ssh_to(make_server(Subsystem="sftp internal-sftp"))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the host."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def write(path: Path, data: bytes = b"data", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def same_trees(one: Path, other: Path) -> bool:
    found = filecmp.dircmp(one, other, ignore=[])
    _, mismatch, errors = filecmp.cmpfiles(one, other, found.common_files, shallow=False)
    if found.left_only or found.right_only or found.funny_files or mismatch or errors:
        return False
    return all(same_trees(one / name, other / name) for name in found.common_dirs)


def leftovers(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob(TEMPORARY.decode() + "*")]


# ---- one file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 32 << 10, (32 << 10) + 1, BIG])
def test_a_file_there_and_back(ssh: SSH, here: Path, there: Path, size: int) -> None:
    data = os.urandom(size)
    told: list[tuple[str, int, int]] = []
    assert ssh.put(write(here / "f", data), str(there), progress=lambda *news: told.append(news))
    assert (there / "f").read_bytes() == data
    assert told[-1] == (str(here / "f"), size, size) and [n[1] for n in told] == sorted(n[1] for n in told)
    for mode in (SSH.SCP, SSH.SFTP) if size > 1 << 20 else (SSH.SCP, SSH.SFTP, SSH.STABLE):
        assert ssh.get(str(there / "f"), str(here / "back"), mode=mode)
        assert (here / "back").read_bytes() == data
    assert not leftovers(here, there)


def test_nothing_is_printed_unasked(ssh: SSH, here: Path, there: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ssh.put(write(here / "f"), str(there))
    ssh.get(str(there / "f"), str(here / "back"))
    ssh.get(str(there / "none"), is_raise_err=False)
    assert capfd.readouterr() == ("", "")


def test_the_name_is_that_of_the_destination_or_of_the_file(ssh: SSH, here: Path, there: Path) -> None:
    ssh.put([str(write(here / "a", b"a")), write(here / "b", b"b")], str(there))
    ssh.put(here / "a", str(there / "c"))
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"a": b"a", "b": b"b", "c": b"a"}
    ssh.get([str(there / "a"), str(there / "c")], here)
    ssh.get(str(there / "b"), here / "d")
    assert {path.name for path in here.iterdir()} == {"a", "b", "c", "d"}
    for wrong in (lambda: ssh.put([here / "a", here / "b"], str(there / "new")),
                  lambda: ssh.put(here / "a", str(there / "new") + "/"),
                  lambda: ssh.get([str(there / "a"), str(there / "b")], here / "new")):  # fmt: skip
        with pytest.raises(TransferFailed, match="no directory"):
            wrong()


def test_permissions_follow_the_hosts_umask_unless_they_are_to_be_kept(ssh: SSH, here: Path, there: Path) -> None:
    write(here / "script", mode=0o777)
    write(here / "secret", mode=0o600)
    ssh.put([here / "script", here / "secret"], str(there))
    umask = 0o777 & ~int(ssh.exec_command("umask")[1].read(), 8)
    assert (there / "script").stat().st_mode & 0o777 == umask
    assert (there / "secret").stat().st_mode & 0o777 == 0o600
    os.utime(here / "script", (1_000_000_000, 1_100_000_000))
    ssh.put(here / "script", str(there), preserve_times=True)
    ssh.get(str(there / "script"), here / "back", preserve_times=True)
    for path in (there / "script", here / "back"):
        about = path.stat()
        assert (about.st_mode & 0o777, int(about.st_mtime)) == (0o777, 1_100_000_000)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_names(ssh: SSH, here: Path, there: Path, name: str) -> None:
    data = name.encode()
    assert ssh.put(write(here / name, data), str(there)) and (there / name).read_bytes() == data
    assert ssh.get(str(there / name), here / "one") and (here / "one").read_bytes() == data
    assert ssh.get(str(there), here / "tree", recursive=True) and same_trees(there, here / "tree")


def test_names_need_not_be_text(ssh: SSH, here: Path, there: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    ssh.put(write(here / name), str(there))
    ssh.get(str(there), here / "tree", recursive=True)
    assert os.listdir(os.fsencode(here / "tree")) == [b"caf\xe9"]


def test_what_cannot_be_is_told_and_leaves_all_as_it_was(ssh: SSH, here: Path, there: Path) -> None:
    write(here / "f")
    (there / "folder").mkdir()
    os.mkfifo(there / "pipe")
    os.mkfifo(here / "pipe")
    write(here / "taken" / "f")
    cases: list[tuple[type[CloudsendError], str, Callable[[], object]]] = [
        (NotFoundError, "no .*none on the host", lambda: ssh.get(str(there / "none"), here)),
        (NotFoundError, "none", lambda: ssh.put(here / "none", str(there))),
        (TransferFailed, "is a directory", lambda: ssh.put(here, str(there))),
        (TransferFailed, "is a directory", lambda: ssh.get(str(there), here)),
        (TransferFailed, "is a directory", lambda: ssh.putfo("x", str(there / "folder"))),
        (TransferFailed, "neither", lambda: ssh.put(here / "pipe", str(there))),
        (TransferFailed, "neither", lambda: ssh.get(str(there / "pipe"), here)),
        (TransferFailed, "neither", lambda: ssh.putfo("x", "/dev/null")),
        (TransferFailed, "no such file", lambda: ssh.putfo("x", str(there / "no" / "such" / "place"))),
        (TransferFailed, "No such file", lambda: ssh.get("/etc/passwd", here / "no" / "such")),
        (TransferFailed, "no file here", lambda: ssh.get("/etc/passwd", here / "pipe")),
        (UsageError, "no mode", lambda: ssh.get("/etc/passwd", here, mode="ftp")),
        (UsageError, "neither text", lambda: ssh.putfo(3, str(there / "x"))),
        (UsageError, "permissions", lambda: ssh.putfo("x", str(there / "x"), mode="rw")),
        (TransferFailed, "no directory", lambda: ssh.get("/etc/passwd", f"{here}/new/")),
        (UsageError, "not a path", lambda: ssh.put("", str(there), is_raise_err=False)),
        (UsageError, "an empty list", lambda: ssh.get([], here)),
    ]
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()
    assert Path("/dev/null").is_char_device() and not leftovers(here, there)
    ssh.set_default_is_raise_err(False)
    assert ssh.get(str(there / "none"), here) is False and isinstance(ssh.last_error, NotFoundError)


def test_what_stood_there_stays_until_all_has_come(ssh: SSH, here: Path, there: Path) -> None:
    write(there / "f", b"old")
    big = write(here / "f", os.urandom(4_000_000))

    def give_up(name: str, done: int, size: int) -> None:
        assert (there / "f").read_bytes() == b"old"
        if done > size // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ssh.put(big, str(there), progress=give_up)
    assert (there / "f").read_bytes() == b"old" and not leftovers(there)
    assert ssh.put(big, str(there)) and (there / "f").read_bytes() == big.read_bytes()


def test_a_link_at_the_destination_stays_one(ssh: SSH, here: Path, there: Path) -> None:
    write(there / "real", b"old")
    (there / "link").symlink_to("real")
    ssh.putfo("new", str(there / "link"))
    assert (there / "link").is_symlink() and (there / "real").read_text() == "new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_may_not_be_written(ssh: SSH, there: Path) -> None:
    there.chmod(0o500)
    with pytest.raises(TransferFailed, match="permission denied"):
        ssh.putfo("x", str(there / "f"))


# ---- putfo --------------------------------------------------------------------------------------------------------


def test_text_bytes_and_open_files(ssh: SSH, here: Path, there: Path) -> None:
    write(here / "f", b"0123456789")
    reader, writer = os.pipe()
    os.write(writer, b"piped")
    os.close(writer)
    with (here / "f").open("rb") as binary, (here / "f").open() as text, os.fdopen(reader, "rb") as pipe:
        binary.seek(2)
        cases = {"HI \n" * 20: b"HI \n" * 20, b"\0x": b"\0x", binary: b"23456789", text: b"0123456789",
                 io.BytesIO(b"io"): b"io", io.StringIO("grün"): "grün".encode(), pipe: b"piped"}  # fmt: skip
        for given, data in cases.items():
            assert ssh.putfo(given, str(there / "f"))
            assert (there / "f").read_bytes() == data
        binary.seek(0)
        ssh.putfo(binary, str(there / "f"), mode="0640", size=3)
    assert (there / "f").read_bytes() == b"012" and (there / "f").stat().st_mode & 0o777 == 0o640


def test_the_size_that_was_promised_must_come(ssh: SSH, there: Path) -> None:
    with pytest.raises(TransferFailed, match="became shorter"):
        ssh.putfo(io.BytesIO(b"short"), str(there / "f"), size=10)
    assert not list(there.iterdir())


# ---- trees --------------------------------------------------------------------------------------------------------


def make_tree(top: Path) -> Path:
    for name in HOSTILE:
        write(top / "names" / name, name.encode())
        write(top / f"folder {name}" / name, name.encode())
    write(top / "deep" / "a" / "b" / "c", b"c" * 100_000)
    write(top / "bin" / "run", mode=0o755)
    (top / "empty").mkdir()
    (top / "closed").mkdir(mode=0o700)
    return top


def test_a_tree_there_and_back(ssh: SSH, here: Path, there: Path) -> None:
    top = make_tree(here / "top")
    os.utime(top / "deep" / "a", (1_000_000_000, 1_100_000_000))
    assert ssh.put(top, str(there), recursive=True, preserve_times=True) and same_trees(top, there / "top")
    assert ssh.put(top, str(there / "named"), recursive=True) and same_trees(top, there / "named")
    assert ssh.get(str(there / "top"), here / "back", recursive=True, preserve_times=True)
    assert same_trees(top, here / "back")
    for copy in (there / "top", here / "back"):
        assert int((copy / "deep" / "a").stat().st_mtime) == 1_100_000_000
        assert (copy / "closed").stat().st_mode & 0o777 == 0o700
        assert (copy / "bin" / "run").stat().st_mode & 0o777 == 0o755
    assert ssh.get(str(there / "top"), here / "back", recursive=True)
    assert same_trees(top, here / "back" / "top"), "into a directory that is there"
    assert ssh.left_out == []


def test_links_and_special_files_of_a_tree(ssh: SSH, here: Path, there: Path) -> None:
    for top in (here / "top", there / "tree"):
        write(top / "file", b"content")
        (top / "folder").mkdir()
        (top / "to file").symlink_to("file")
        (top / "to folder").symlink_to("folder")
        (top / "circle").symlink_to(".")
        (top / "nowhere").symlink_to("not here")
        os.mkfifo(top / "pipe")
    ssh.put(here / "top", str(there), recursive=True)
    assert sorted(os.listdir(there / "top")) == ["file", "folder", "to file", "to folder"]
    assert [Path(name).name for name in ssh.left_out] == ["circle", "nowhere", "pipe"]
    ssh.get(str(there / "tree"), here / "back", recursive=True)
    assert sorted(os.listdir(here / "back")) == ["file", "folder", "to file"]
    assert (here / "back" / "to file").read_bytes() == b"content" and not (here / "back" / "to file").is_symlink()
    assert sorted(Path(name).name for name in ssh.left_out) == ["circle", "nowhere", "pipe", "to folder"]


def test_a_link_in_the_destination_is_not_followed(ssh: SSH, here: Path, there: Path, tmp_path: Path) -> None:
    write(there / "tree" / "folder" / "f", b"theirs")
    write(there / "tree" / "g", b"theirs")
    outside = write(tmp_path / "outside" / "f", b"mine").parent
    (here / "back").mkdir()
    (here / "back" / "folder").symlink_to(outside)
    with pytest.raises(ResultError, match="leads through a link"):
        ssh.get(str(there / "tree") + "/.", here / "back", recursive=True)
    assert (outside / "f").read_bytes() == b"mine"
    (here / "back" / "folder").unlink()
    (here / "back" / "g").symlink_to(outside / "f")
    assert ssh.get(str(there / "tree") + "/.", here / "back", recursive=True)
    assert (outside / "f").read_bytes() == b"mine" and (here / "back" / "g").read_bytes() == b"theirs"


# ---- interrupted --------------------------------------------------------------------------------------------------


class Cutter:
    """Ends all sessions of the server once in each of the first `times` connections, each time a part further on."""

    def __init__(self, server: SshServer, times: int = 1) -> None:
        self.server = server
        self.times = times
        self.begins: list[int] = []  # how much was there, in each connection
        self.cuts = 0

    def __call__(self, name: str, done: int, size: int) -> None:
        connection = self.server.logins()
        if connection > len(self.begins):
            self.begins.append(done)
        if self.cuts < connection <= self.times and done > size * connection // (self.times + 1):
            self.cuts += 1
            self.server.kill_sessions()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudsend_cli.api.ssh.BACKOFF_FIRST", 0.01)


@pytest.mark.parametrize("way", ["put", "large_put", "get", "putfo"])
def test_an_interrupted_transfer_goes_on_where_it_was(
    make_server: MakeServer, here: Path, there: Path, quick: None, way: str
) -> None:
    server = make_server(Subsystem="sftp internal-sftp")
    ssh, cutter, data = ssh_to(server), Cutter(server, times=2), os.urandom(BIG)
    if way == "get":
        assert ssh.get(str(write(there / "f", data)), here / "f", progress=cutter)
    elif way == "putfo":
        assert ssh.putfo(io.BytesIO(data), str(there / "f"), progress=cutter)
    else:
        assert getattr(ssh, way)(write(here / "f", data), str(there / "f"), progress=cutter)
    assert ((here if way == "get" else there) / "f").read_bytes() == data
    assert len(cutter.begins) == 3 and 0 == cutter.begins[0] < cutter.begins[1] < cutter.begins[2] < BIG
    assert not leftovers(here, there)


def test_a_transfer_is_given_up_after_its_retries(
    make_server: MakeServer, here: Path, there: Path, quick: None
) -> None:
    server = make_server(Subsystem="sftp internal-sftp")
    write(there / "f", os.urandom(BIG))
    write(here / "f", b"old")
    with pytest.raises(UnreachableError):
        ssh_to(server).get(str(there / "f"), here, retry_count=1, progress=Cutter(server, times=5))
    assert server.logins() == 2 and (here / "f").read_bytes() == b"old" and not leftovers(here)


def test_a_file_that_was_replaced_meanwhile_is_fetched_from_its_beginning(
    make_server: MakeServer, here: Path, there: Path, quick: None
) -> None:
    server = make_server(Subsystem="sftp internal-sftp")
    write(there / "f", b"a" * BIG)
    cutter = Cutter(server)

    def replace(name: str, done: int, size: int) -> None:
        if not cutter.cuts and done > size // 2:
            os.replace(write(there / "g", b"b" * (BIG + 1)), there / "f")
        cutter(name, done, size)

    assert ssh_to(server).get(str(there / "f"), here, progress=replace)
    assert (here / "f").read_bytes() == b"b" * (BIG + 1)


def test_a_tree_goes_on_with_the_file_that_was_cut(
    make_server: MakeServer, here: Path, there: Path, quick: None
) -> None:
    server = make_server(Subsystem="sftp internal-sftp")
    top = make_tree(here / "top")
    write(top / "m", os.urandom(BIG))
    begun: list[str] = []
    cutter = Cutter(server)

    def count(name: str, done: int, size: int) -> None:
        if done == 0:
            begun.append(name)
        if size == BIG:
            cutter(name, done, size)

    assert ssh_to(server).put(top, str(there), recursive=True, progress=count)
    assert same_trees(top, there / "top") and cutter.cuts == 1
    assert len([n for n in begun if not n.endswith("/m")]) == len(set(begun)) - 1, "each of the others once"


def test_a_time_limit_ends_a_transfer(make_server: MakeServer, here: Path) -> None:
    ssh = ssh_to(lying(make_server, "silent")).set_default_timeout(0.5)
    with pytest.raises(TransferFailed, match="not done in the time given"):
        ssh.get("file", here)


# ---- a host that lies ---------------------------------------------------------------------------------------------


def lying(make_server: MakeServer, *words: str) -> SshServer:
    program = Path(__file__).with_name("evil_sftp.py")
    return make_server(Subsystem=f"sftp {sys.executable} {program} {' '.join(words)}")


@pytest.mark.parametrize("name", [b"../evil", b"/tmp/evil", b"a/b", b"", b"a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(
    make_server: MakeServer, here: Path, tmp_path: Path, name: bytes
) -> None:
    server = lying(make_server, "names", name.hex())
    (here / "in").mkdir()
    with pytest.raises(ResultError, match="has a file of the name"):
        ssh_to(server).get("tree", here / "in", recursive=True)
    assert [path for path in tmp_path.rglob("*evil*") if "test_" not in path.name] == []
    assert list((here / "in").rglob("*")) == []


@pytest.mark.parametrize(
    "mode, kind, words",
    [
        ("deep", ResultError, "more than 100 directories"),
        ("long", UnfitError, "a packet of 2147483648 bytes"),
        ("noise", UnfitError, "does not speak SFTP"),
        ("short", TransferFailed, "became shorter"),
    ],
)
def test_an_sftp_server_that_talks_nonsense(
    make_server: MakeServer, here: Path, mode: str, kind: type[CloudsendError], words: str
) -> None:
    ssh = ssh_to(lying(make_server, mode))
    with pytest.raises(kind, match=words):
        ssh.get("file" if mode == "short" else "tree", here, recursive=True)
    assert list(here.iterdir()) == []


def test_a_host_without_sftp_is_told(server: SshServer, here: Path) -> None:
    with pytest.raises(UnfitError, match="offers no SFTP") as caught:
        ssh_to(server).put(write(here / "f"), ".")
    assert "Subsystem sftp" in caught.value.hint
