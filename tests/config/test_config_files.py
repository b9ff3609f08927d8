"""What is sent: words, files, directories, globs, links; and what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cloudsend_cli.config.ignore import parse_ignore


def paths(desk, text: str, **options: object) -> list[str]:
    return [upload.path for upload in desk.job(text, **options).uploads]


@pytest.fixture
def tree(desk):
    for name in ("train.py", "data/a.csv", "data/b.csv", "data/sub/c.csv", "data/sub/d.txt", "data/.hidden", "w/x.py"):
        desk.write(name, name)
    desk.write(".git/config")
    desk.write("data/.git/config")
    desk.write("data/__pycache__/x.pyc")
    return desk


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("python train.py --lr 1", ["train.py"]),
        ("python ./train.py", ["train.py"]),
        ("cat data/a.csv | sort;python train.py>log", ["data/a.csv", "train.py"]),
        ("sort < data/a.csv > data/b.csv", ["data/a.csv"]),
        ("cat 'data/a.csv' nothere data", ["data/a.csv"]),
        ("cat ../x /etc/passwd --file=train.py", []),
        ("cat <<EOF\nit's train.py\nEOF\npython train.py", ["train.py"]),
        ("# don't\ncat data/a.csv", ["data/a.csv"]),
    ],
)
def test_files_that_a_command_names_are_sent(tree, line: str, sent: list[str]) -> None:
    tree.write("config.json", __import__("json").dumps({"jobs": line}))
    (job,) = tree.load(name="config.json").spec.jobs
    assert [u.path for u in job.uploads] == sent


def test_a_word_that_the_job_writes_is_not_sent(tree) -> None:
    assert paths(tree, "jobs: {run: train.py data/a.csv, output: data/a.csv}\n") == ["train.py"]


def test_words_are_looked_up_where_the_job_runs(tree) -> None:
    assert paths(tree, "jobs: {run: python x.py, workdir: w}\n") == ["w/x.py"]
    assert paths(tree, "jobs: {run: python train.py, workdir: w}\n") == []
    assert paths(tree, "jobs: {run: python train.py, workdir: /opt}\n") == []


def test_words_with_parameters(tree) -> None:
    jobs = tree.jobs("jobs: {run: 'cat data/{f}.csv', matrix: {f: [a, b, z]}}\n")
    assert [[u.path for u in j.uploads] for j in jobs] == [["data/a.csv"], ["data/b.csv"], []]


@pytest.mark.parametrize(
    ("upload", "sent"),
    [
        ("data/a.csv", ["data/a.csv"]),
        ("data", ["data/.hidden", "data/a.csv", "data/b.csv", "data/sub/c.csv", "data/sub/d.txt"]),
        ("data/", ["data/.hidden", "data/a.csv", "data/b.csv", "data/sub/c.csv", "data/sub/d.txt"]),
        ("data/*.csv", ["data/a.csv", "data/b.csv"]),
        ("'data/[!a].csv'", ["data/b.csv"]),
        ("data/**/*.csv", ["data/a.csv", "data/b.csv", "data/sub/c.csv"]),
        ("'**/*.txt'", ["data/sub/d.txt"]),
        ("data/s*", ["data/sub/c.csv", "data/sub/d.txt"]),
        ("[train.py, data/*.csv, data/a.csv]", ["data/a.csv", "data/b.csv", "train.py"]),
        ("./data/../train.py", ["train.py"]),
        ("data/.h*", ["data/.hidden"]),
    ],
)
def test_uploads_keep_their_tree(tree, upload: str, sent: list[str]) -> None:
    assert paths(tree, f"jobs: {{run: 'true', upload: {upload}}}\n") == sent


def test_everything_below_the_config_but_not_results_and_repositories(tree) -> None:
    tree.write("results/run/log")
    assert "results/run/log" not in paths(tree, "jobs: {run: 'true', upload: .}\n")
    assert ".git/config" not in paths(tree, "jobs: {run: 'true', upload: .}\n")
    assert "config.yml" in paths(tree, "jobs: {run: 'true', upload: .}\n")


def test_ignored_files_stay_home_unless_named(tree) -> None:
    tree.write(".cloudsendignore", "# mine\n*.txt\n/data/sub/c.csv\n!keep.txt\nw/\n")
    tree.write("data/keep.txt")
    assert paths(tree, "jobs: {run: 'true', upload: [data, '*']}\n") == [
        "config.yml",
        "data/.hidden",
        "data/a.csv",
        "data/b.csv",
        "data/keep.txt",
        "train.py",
    ]
    assert paths(tree, "jobs: {run: 'true', upload: data/sub/d.txt}\n") == ["data/sub/d.txt"]


@pytest.mark.parametrize(
    ("pattern", "path", "directory", "ignored"),
    [
        ("*.pyc", "a/b.pyc", False, True),
        ("build/", "a/build", True, True),
        ("build/", "a/build", False, False),
        ("/build", "a/build", True, False),
        ("a/*.x", "a/b.x", False, True),
        ("a/*.x", "a/b/c.x", False, False),
        ("a/**", "a/b/c.x", False, True),
        ("**/c.x", "c.x", False, True),
        ("[z-a]", "b", False, False),
        ("", "a", False, False),
        ("a?c", "abc", False, True),
    ],
)
def test_ignore_patterns(pattern: str, path: str, directory: bool, ignored: bool) -> None:
    assert bool(parse_ignore([pattern])(path, directory)) is ignored


def test_paths_outside_are_put_under_their_base_name(tree, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "set").mkdir()
    (outside / "set" / "x").write_text("x")
    (outside / "train.py").write_text("other")
    assert paths(tree, f"jobs: {{run: 'true', upload: {outside}/set}}\n") == ["set/x"]
    assert paths(tree, f"jobs: {{run: 'true', upload: ../{tree.folder.name}/train.py}}\n") == ["train.py"]
    assert tree.problems(f"jobs: {{run: 'true', upload: [train.py, {outside}/train.py]}}\n") == (
        "config.yml:1:7: jobs: two files want the place 'train.py' in the run directory | "
        f"{tree.folder}/train.py and {outside}/train.py"
    )
    (outside / "w").write_text("")
    assert "two files want the place 'w'" in tree.problems(f"jobs: {{run: 'true', upload: [w/x.py, {outside}/w]}}\n")


def test_home_is_that_of_the_environment(desk, tmp_path: Path) -> None:
    desk.write("home/data/x")
    desk.environ = {"HOME": str(tmp_path / "home")}
    assert paths(desk, "jobs: {run: 'true', upload: ~/data/x}\n") == ["home/data/x"]


def test_links_are_followed_while_they_stay_inside(tree) -> None:
    (tree.folder / "link.py").symlink_to("train.py")
    (tree.folder / "data/up").symlink_to("../w")
    (upload,) = tree.job("jobs: {run: python link.py}\n").uploads
    assert (upload.path, upload.sha256) == ("link.py", hashlib.sha256(b"train.py").hexdigest())
    assert "data/up/x.py" in paths(tree, "jobs: {run: 'true', upload: data}\n")


def test_links_that_lead_outside_or_around_are_refused(tree) -> None:
    (tree.folder / "out").symlink_to("/etc/hostname")
    assert "'out' is a symbolic link that leads outside, to /etc/hostname" in tree.problems(
        "jobs: {run: 'true', upload: out}\n"
    )
    assert paths(tree, "jobs: cat out\n") == []
    (tree.folder / "data/loop").symlink_to(".")
    assert "'data/loop' is a symbolic link to a directory that contains it" in tree.problems(
        "jobs: {run: 'true', upload: data}\n"
    )
    (tree.folder / "self").symlink_to("self")
    assert "'self' cannot be read: too many levels of symbolic links" in tree.problems(
        "jobs: {run: 'true', upload: self}\n"
    )
    (tree.folder / "gone").symlink_to("nowhere")
    assert "'gone' is a symbolic link to nowhere, which does not exist" in tree.problems(
        "jobs: {run: 'true', upload: gone}\n"
    )


def test_what_is_not_a_file_is_refused(tree) -> None:
    os.mkfifo(tree.folder / "pipe")
    os.mkfifo(tree.folder / "data/pipe")
    assert "'pipe' is a FIFO, not a file or a directory" in tree.problems("jobs: {run: 'true', upload: pipe}\n")
    assert "'data/pipe' is a FIFO, not a file" in tree.problems("jobs: {run: 'true', upload: data}\n")
    assert "'/dev/null' is a device" in tree.problems("jobs: {run: 'true', upload: /dev/null}\n")
    assert paths(tree, "jobs: cat pipe\n") == []


def test_missing_and_unreadable_files(tree) -> None:
    assert "no such file: 'trian.py' | did you mean 'train.py'?" in tree.problems(
        "jobs: {run: 'true', upload: trian.py}\n"
    )
    assert "no such file: 'train.py/x'" in tree.problems("jobs: {run: 'true', upload: train.py/x}\n")
    assert "no file fits 'data/*.bin'" in tree.problems("jobs: {run: 'true', upload: data/*.bin}\n")
    # Readable by nobody, root included.
    assert "cannot be read: input/output error" in tree.problems("jobs: {run: 'true', upload: /proc/self/mem}\n")
    (tree.folder / "empty").mkdir()
    assert "'empty' holds no files to send" in tree.problems("jobs: {run: 'true', upload: empty}\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tree) -> None:
    (tree.folder / "train.py").chmod(0)
    assert "'train.py' cannot be read: permission denied" in tree.problems("jobs: {run: 'true', upload: train.py}\n")


def test_names_of_all_kinds(weird_path: Path, monkeypatch: pytest.MonkeyPatch, desk) -> None:
    desk.folder = weird_path
    monkeypatch.chdir(weird_path)
    for name in ("a b.py", "it's", "new\nline", "é.txt", "-n", "x" * 255, "*.star"):
        desk.write(f"d/{name}", name)
    sent = desk.job("jobs: {run: 'true', upload: d}\n").uploads
    assert {u.path for u in sent} == {
        f"d/{n}" for n in ("a b.py", "it's", "new\nline", "é.txt", "-n", "x" * 255, "*.star")
    }
    assert desk.load().spec.project == "a-b-c-d-e-HOME-f"
    assert desk.load(name=str(weird_path / "config.yml")).spec.config_path == str(weird_path / "config.yml")
    assert paths(desk, "jobs: {run: 'true', upload: 'd/*.star'}\n") == ["d/*.star"]
    os.rename(weird_path / "d/-n", os.fsencode(weird_path / "d") + b"/\xff")
    assert "the file name 'd/\\udcff' is not valid UTF-8 | rename it" in desk.problems(
        "jobs: {run: 'true', upload: d}\n"
    )


def test_names_that_are_too_long_for_the_system(desk) -> None:
    assert "cannot be read: file name too long" in desk.problems(f"jobs: {{run: 'true', upload: {'x' * 300}}}\n")
    assert desk.job(f"jobs: cat {'x' * 300}\n").uploads == ()


def test_deep_directories_end_in_an_error(desk) -> None:
    path = desk.folder / "d"
    for _ in range(120):
        path = path / "d"
    path.mkdir(parents=True)
    assert "is nested deeper than 100 directories" in desk.problems("jobs: {run: 'true', upload: d}\n")


def test_snapshots_and_the_cache_of_hashes(tree) -> None:
    old = 1_600_000_000
    os.utime(tree.folder / "train.py", (old, old))
    cache: dict[tuple[str, int, int, int], str] = {}
    kept: list[tuple[Path, str]] = []

    def snapshot(path: Path, sha256: str) -> str:
        kept.append((path, sha256))
        return f"/state/{sha256}"

    text = "jobs: [python train.py, python3 train.py]\n"
    context = tree.context(snapshot=snapshot, hash_cache=cache)
    first, second = tree.jobs(text, context=context)
    assert first.uploads[0].source == f"/state/{first.uploads[0].sha256}"
    assert first.uploads is second.uploads
    assert kept == [(tree.folder / "train.py", hashlib.sha256(b"train.py").hexdigest())]
    assert list(cache.values()) == [hashlib.sha256(b"train.py").hexdigest()]
    for key in cache:
        cache[key] = "0" * 64
    assert tree.jobs(text, context=context)[0].uploads[0].sha256 == "0" * 64
    cache.clear()
    tree.write("train.py", "new")  # changed just now: its clock tick may not be over
    tree.jobs(text, context=context)
    assert cache == {}


def test_a_snapshot_that_fails_is_a_problem(tree) -> None:
    def snapshot(path: Path, sha256: str) -> str:
        raise OSError(28, "No space left on device")

    assert "'train.py' cannot be read: no space left on device" in tree.problems(
        "jobs: python train.py\n", context=tree.context(snapshot=snapshot)
    )
