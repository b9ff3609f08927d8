"""A copied state directory is for readers until it is adopted; a moved one, or one put back, is what it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cloudsend_cli.errors import MaestroError, StateDirError
from cloudsend_cli.maestro.client import ensure_maestro
from cloudsend_cli.store import origin
from cloudsend_cli.store.origin import Origin, is_copy
from cloudsend_cli.store.sqlite import SqliteStore

HERE = Origin("m1", "alpha", "/home/u/.cloudsend/state.db", 7)


@pytest.mark.parametrize(
    ("here", "known_is_there", "copy"),
    [
        (Origin("m1", "alpha", "/data/state.db", 7), False, False),  # moved, or mounted at another place
        (Origin("m2", "beta", "/home/u/.cloudsend/state.db", 7), False, False),  # a volume in another container
        (Origin("m1", "alpha", "/home/u/.cloudsend/state.db", 9), True, False),  # put back from a backup
        (Origin("m1", "alpha", "/data/state.db", 9), False, False),  # moved to another disk
        (Origin("m1", "alpha", "/data/state.db", 9), True, True),
        (Origin("m2", "beta", "/home/u/.cloudsend/state.db", 9), False, True),
        (Origin("m2", "beta", "/data/state.db", 7), True, True),
    ],
)
def test_what_is_a_copy(here: Origin, known_is_there: bool, copy: bool) -> None:
    assert is_copy(HERE, here, known_is_there=known_is_there) is copy


@pytest.fixture
def copied(directory: Path) -> Path:
    SqliteStore.open(directory).close()
    return Path(shutil.copytree(directory, directory.with_name("a copy")))


def test_a_copy_is_for_readers(copied: Path, directory: Path) -> None:
    with SqliteStore.open(copied, readonly=True) as store:
        assert store.list_runs() == []
    with pytest.raises(StateDirError) as refused:
        SqliteStore.open(copied)
    assert f"{copied} is a copy of {directory}:" in refused.value.message
    assert f"`cloudsend --state-dir '{copied}' maestro adopt`" in refused.value.hint
    SqliteStore.open(directory).close()


def test_no_maestro_serves_a_copy_and_it_says_why(copied: Path, directory: Path) -> None:
    with pytest.raises(MaestroError, match="is a copy of") as refused:
        ensure_maestro(copied)
    assert "maestro adopt" in refused.value.hint


def test_an_adopted_copy_is_at_home_and_the_first_one_is_a_copy_then(copied: Path, directory: Path) -> None:
    SqliteStore.open(copied, adopt=True).close()
    SqliteStore.open(copied).close()
    second = Path(shutil.copytree(copied, copied.with_name("second")))
    with pytest.raises(StateDirError, match=r"is a copy of .*a copy: "):
        SqliteStore.open(second)


def test_a_moved_one_and_one_that_was_put_back_are_used_as_before(copied: Path, directory: Path) -> None:
    moved = directory.rename(directory.with_name("moved"))
    SqliteStore.open(moved).close()
    shutil.rmtree(moved)
    copied.rename(moved)
    SqliteStore.open(moved).close()


def test_a_copy_on_another_machine_names_the_first_one(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "_machine_id", lambda: "another")
    with pytest.raises(StateDirError, match=r"is a copy of .*/state on "):
        SqliteStore.open(copied)


def test_a_database_of_before_is_at_home_where_it_is_opened_first(directory: Path) -> None:
    with SqliteStore.open(directory) as store:
        store._db.execute("DELETE FROM meta WHERE name = 'origin'")
    SqliteStore.open(directory).close()
    copied = Path(shutil.copytree(directory, directory.with_name("copy")))
    with pytest.raises(StateDirError, match="is a copy"):
        SqliteStore.open(copied)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"machine": 1}', "null"])
def test_an_origin_that_nobody_can_read_is_written_anew(directory: Path, damage: str) -> None:
    with SqliteStore.open(directory) as store:
        store._db.execute("UPDATE meta SET value = ? WHERE name = 'origin'", (damage,))
    SqliteStore.open(directory).close()
    with SqliteStore.open(directory, readonly=True) as store:
        assert store._db.execute("SELECT value FROM meta WHERE name = 'origin'").fetchone()[0].startswith('{"machine"')
