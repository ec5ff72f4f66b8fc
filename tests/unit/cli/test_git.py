"""The history of a Git repository, compared with what Git itself says of every commit."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast_cli.importing.git import Repository, path_text
from holdfast_cli.importing.items import SPLIT_BYTES_MAX, SPLIT_MEMBERS_MAX, Commit, commit_items


class Git:
    """A repository under the test's hands; every commit has the date that it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self("init", "--quiet", "--initial-branch=main")

    def __call__(self, *arguments: str | bytes, at: int = 1_600_000_000) -> str:
        dates = {"GIT_AUTHOR_DATE": f"{at - 50} +0000", "GIT_COMMITTER_DATE": f"{at} +0000"}
        who = {
            "GIT_AUTHOR_NAME": "Ann",
            "GIT_AUTHOR_EMAIL": "ann@example.com",
            "GIT_COMMITTER_NAME": "Bob",
            "GIT_COMMITTER_EMAIL": "bob@example.com",
        }
        command = ["git", "-C", str(self.folder), *arguments]
        done = subprocess.run(command, env={**os.environ, **dates, **who}, capture_output=True, check=True)
        return done.stdout.decode(errors="replace").strip()

    def commit(self, at: int = 1_600_000_000) -> str:
        self("add", "--all")
        self("commit", "--quiet", "--allow-empty", "--message", "changed", at=at)
        return self("rev-parse", "HEAD")

    def write(self, name: str | bytes, text: str) -> None:
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def git(tmp_path):
    return Git(tmp_path / "my repo")


def assert_every_state_is_its_tree(run: Callable[..., tuple[int, str, str]], git: Git, stream: str) -> None:
    """Ask for the state after every commit of the first-parent history, and compare it with the commit's tree."""
    commits = git("log", "--first-parent", "--reverse", "--format=%H").split()
    versions = {
        event["id"].split("/")[0]: event["streamversion"]
        for event in map(json.loads, run("audit", "events", stream, "--json")[1].splitlines())
    }
    assert list(versions) == commits
    for commit in commits:
        state = json.loads(run("audit", "state", stream, "--version", str(versions[commit]), "--json")[1])
        assert state == Repository(git.folder, "x").tree(commit)


def test_every_state_of_a_tangled_history_is_the_tree_that_git_names(run, git):
    git.write("a", "1")
    git.write("folder/b", "2")
    git.commit()
    git.commit()
    git("mv", "a", "renamed")
    git.commit()
    git("checkout", "--quiet", "-b", "side")
    git.write("side", "s")
    git.commit()
    git("checkout", "--quiet", "main")
    git.write("renamed", "changed")
    git.commit()
    git("merge", "--quiet", "--no-ff", "side", "--message", "merged")
    (git.folder / "renamed").chmod(0o755)
    git.commit()
    git("rm", "-r", "--quiet", "folder")
    git.write("folder", "a file where a folder was")
    (git.folder / "link").symlink_to("renamed")
    git.commit()
    (git.folder / "link").unlink()
    git.write("link", "a file where a link was")
    git.commit()
    git("update-index", "--add", "--cacheinfo", f"160000,{'ab' * 20},submodule")
    git("commit", "--quiet", "--message", "a gitlink")

    code, out, _ = run("audit", "import", "--git", git.folder, "--json")

    assert code == 0
    assert json.loads(out)["streams"] == {"my-repo": 9}
    assert_every_state_is_its_tree(run, git, "my-repo")
    assert json.loads(run("audit", "import", "--git", git.folder, "--json")[1])["events_appended"] == 0


def test_odd_names_stay_apart_and_every_state_is_still_the_tree(run, git):
    names: list[str | bytes] = [
        "new\nline", "tab\there", ":000000 100644", "commit abc", '"quoted"', "back\\slash", "ü", "u\u0308", "~", " ",
        b"\xff", b"caf\xe9", b'"\\377"', b'"caf\\351"', "\ufffe", "\ufdd0", "🜁", "-n", "a\rb", "\x01", "\x7f",
    ]  # fmt: skip
    for number, name in enumerate(names):
        git.write(name, str(number))
        git.commit()

    assert run("audit", "import", "--git", git.folder, "--stream", "odd")[0] == 0
    assert_every_state_is_its_tree(run, git, "odd")
    assert len(json.loads(run("audit", "state", "odd", "--json")[1])) == len(names)


def test_a_commit_tells_who_wrote_it_and_when_it_was_committed(run, trail, git):
    git.write("a", "1")
    commit = git.commit(at=1_600_000_000)

    run("audit", "import", "--git", git.folder)

    (event,) = trail.streams["my-repo"]
    assert (event["id"], event["actor"], event["time"]) == (
        commit,
        "Ann <ann@example.com>",
        "2020-09-13T12:26:40.000000Z",
    )
    assert (event["source"], event["subject"]) == ("urn:holdfast:import:my-repo", "my-repo")


def test_dates_that_run_backwards_keep_the_order_of_the_history(run, git):
    for number, at in enumerate([1_600_000_300, 1_600_000_100, 1_600_000_200]):
        git.write("a", str(number))
        git.commit(at=at)

    run("audit", "import", "--git", git.folder)

    assert_every_state_is_its_tree(run, git, "my-repo")


def test_what_a_person_has_configured_changes_nothing(run, git, monkeypatch, tmp_path):
    configuration = tmp_path / "gitconfig"
    configuration.write_text(
        "[diff]\n renames = copies\n noprefix = true\n ignoreSubmodules = all\n relative = true\n"
        "[log]\n showSignature = true\n"
        " showRoot = false\n decorate = full\n date = relative\n diffMerges = combined\n abbrevCommit = true\n"
        "[core]\n quotePath = true\n abbrev = 4\n[color]\n ui = always\n[format]\n pretty = oneline\n notes = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    git.write("a", "the same text\n" * 20)
    git.commit()
    git("mv", "a", "b")
    git("notes", "add", "--message", "a note")
    git.commit()
    for linked in ("ab", "cd"):
        git("update-index", "--add", "--cacheinfo", f"160000,{linked * 20},submodule")
        git("commit", "--quiet", "--allow-empty", "--message", "a gitlink")

    assert run("audit", "import", "--git", git.folder)[0] == 0
    assert_every_state_is_its_tree(run, git, "my-repo")


def test_the_variables_of_a_hook_do_not_lead_to_another_repository(git, tmp_path, monkeypatch):
    git.write("a", "1")
    git.commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))

    assert len(list(Repository.at(git.folder).commits())) == Repository.at(git.folder).count() == 1


def test_a_bare_repository_and_a_folder_inside_one_are_named_after_the_repository(git, tmp_path):
    git.write("folder/a", "1")
    git.commit()
    git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))

    assert Repository.at(tmp_path / "bare.git").name == "bare"
    assert Repository.at(git.folder / "folder").name == "my-repo"


def test_new_commits_are_all_that_a_second_import_appends(run, git):
    git.write("a", "1")
    git.commit()
    run("audit", "import", "--git", git.folder)
    git.write("a", "2")
    git.commit()

    result = json.loads(run("audit", "import", "--git", git.folder, "--json")[1])

    assert (result["events_appended"], result["events_already_there"]) == (1, 1)


def test_a_history_that_was_rewritten_contradicts_what_was_imported(run, git):
    git.write("a", "1")
    git.commit()
    run("audit", "import", "--git", git.folder)
    git("commit", "--amend", "--quiet", "--allow-empty", "--message", "rewritten")

    code, _, err = run("audit", "import", "--git", git.folder)

    assert code == 1
    assert f"commit {git('rev-parse', 'HEAD')} contradicts version 1" in err


@pytest.mark.parametrize("kind", ["missing", "plain", "empty"])
def test_a_folder_without_a_history_is_told_in_words(run, tmp_path, kind):
    folder = tmp_path / "folder"
    if kind == "empty":
        Git(folder)
    elif kind == "plain":
        folder.mkdir()

    code, out, err = run("audit", "import", "--git", folder, "--json")

    assert (code, out) == (1, "")
    assert str(folder) in json.loads(err)["error"]["detail"]


def test_a_commit_that_is_too_much_for_one_event_becomes_several_of_the_same_time():
    values: dict[str, str | None] = {f"path-{number}": "a" * 40 for number in range(SPLIT_MEMBERS_MAX * 2 + 1)}
    items = list(
        commit_items(Commit("c", "2020-01-01T00:00:00Z", "ann", values), where="commit c", stem="s", stream="s")
    )

    assert [item.event["id"] for item in items] == ["c", *(f"c/{part}" for part in range(2, len(items) + 1))]
    assert {item.event["time"] for item in items} == {"2020-01-01T00:00:00Z"}
    assert all(len(item.event["data"]) <= SPLIT_MEMBERS_MAX and item.bytes < SPLIT_BYTES_MAX + 1_000 for item in items)
    together: dict[str, str | None] = {}
    for item in items:
        together |= item.event["data"]
    assert together == values


def test_a_split_commit_is_imported_whole_and_again_appends_nothing(run, git):
    for number in range(1_600):
        git.write(
            f"a-rather-long-name-of-a-folder-that-takes-room/and-a-name-{number:06d}-as-long-as-that", str(number)
        )
    git.commit()

    result = json.loads(run("audit", "import", "--git", git.folder, "--json")[1])

    assert result["events_appended"] == 2
    assert json.loads(run("audit", "import", "--git", git.folder, "--json")[1])["events_already_there"] == 2
    assert_every_state_is_its_tree(run, git, "my-repo")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"plain", "plain"),
        ("ü".encode(), "ü"),
        (b"\xff", '"\\377"'),
        (b'"', '"\\042"'),
        (b'\\"', '\\"'),
        (b"\xff\\", '"\\377\\134"'),
    ],
)
def test_a_path_is_its_text_or_is_quoted_as_git_quotes(path, text):
    assert path_text(path) == text
