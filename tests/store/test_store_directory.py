"""The state directory is private, local and ours, or is refused with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudsend_cli.errors import StateDirError
from cloudsend_cli.store.directory import (
    NETWORK_TYPES,
    file_system_of,
    is_network_type,
    open_state_dir,
    parse_mountinfo,
)
from cloudsend_cli.store.sqlite import SqliteStore

LOCAL = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")


def test_it_is_created_private_with_its_parents(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = open_state_dir(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    assert made == tmp_path / "a" / "b"
    assert [p.stat().st_mode & 0o777 for p in (made, made.parent)] == [0o700, 0o700]
    assert open_state_dir(made) == made


def test_odd_names_are_fine(weird_path: Path) -> None:
    weird_path.chmod(0o755)
    assert open_state_dir(weird_path / "state") == weird_path / "state"
    with SqliteStore.open(weird_path / "state") as store:
        assert store.list_runs() == []


@pytest.mark.parametrize("mode", [0o710, 0o750, 0o701, 0o755, 0o777, 0o770, 0o740, 0o1777])
def test_open_to_others_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "it's"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(StateDirError) as caught:
        open_state_dir(path)
    assert f"{mode:04o}" in caught.value.message
    assert os.system(caught.value.hint) == 0
    assert open_state_dir(path) == path


@needs_root
def test_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)
    with pytest.raises(StateDirError, match="belongs to user 12345"):
        open_state_dir(path)


@needs_root
def test_through_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    assert open_state_dir(link) == target
    os.lchown(link, 12345, -1)
    with pytest.raises(StateDirError, match="link that belongs to user 12345"):
        open_state_dir(link)


def test_below_a_directory_that_all_may_change_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "state").mkdir(parents=True, mode=0o700)
    (shared / "state").chmod(0o700)
    shared.chmod(0o777)
    with pytest.raises(StateDirError, match="writable by all") as caught:
        open_state_dir(shared / "state")
    assert str(shared) in caught.value.hint
    shared.chmod(0o1777)
    assert open_state_dir(shared / "state") == shared / "state"


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "file/below", "loop", "dangling", "x" * 300, "nul\0"):
        with pytest.raises(StateDirError) as caught:
            open_state_dir(tmp_path / name)
        assert caught.value.hint


@pytest.mark.parametrize("kind", [*sorted(NETWORK_TYPES), "fuse", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"])
def test_network_file_systems_are_refused_with_advice(directory: Path, kind: str) -> None:
    mounts = LOCAL + f"30 22 0:40 / {directory.parent} rw shared:2 master:1 - {kind} server:/x rw\n"
    with pytest.raises(StateDirError) as caught:
        open_state_dir(directory, mountinfo=mounts)
    assert f"({kind})" in caught.value.message and "--state-dir" in caught.value.hint


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "f2fs", "virtiofs"])
def test_local_file_systems_are_taken(directory: Path, kind: str) -> None:
    assert not is_network_type(kind)
    assert open_state_dir(directory, mountinfo=LOCAL.replace("ext4", kind)) == directory


MOUNTS = (
    LOCAL
    + r"""30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 8:1 / /home/a\040b rw shared:1 - xfs /dev/sda1 rw
32 22 0:41 / /scratch rw - lustre mds:/s rw
33 22 0:42 / /two rw - ext4 /dev/sdb rw
34 33 0:43 / /two rw - nfs server:/two rw
35 22 0:44 / /wei\134rd\011tab rw - cifs //s/x rw
a broken line
36 22
"""
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/etc/x", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/.cloudsend", "nfs4"),
        ("/homeless", "ext4"),
        ("/home/a b/state", "xfs"),
        ("/home/a bc", "nfs4"),
        ("/scratch/x/y", "lustre"),
        ("/two/x", "nfs"),
        ("/wei\\rd\ttab/x", "cifs"),
    ],
)
def test_the_mount_that_holds_a_path(path: str, kind: str) -> None:
    assert file_system_of(path, MOUNTS) == kind


def test_broken_mount_tables_are_read_as_far_as_they_go() -> None:
    assert parse_mountinfo("") == [] and file_system_of("/x", "") == ""
    assert len(parse_mountinfo(MOUNTS)) == 7


def test_the_table_of_this_machine_is_understood(directory: Path) -> None:
    text = Path("/proc/self/mountinfo").read_text()
    assert file_system_of(str(directory), text) not in {"", *NETWORK_TYPES}


def test_a_reader_refuses_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(StateDirError, match="is not a directory"):
        SqliteStore.open(place, readonly=True)
