"""Commits by name, their order, what was changed, and checkouts beside the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from commit_history import commit_file, new_repository, run_git

from bench.errors import UserError
from bench.utils.git import changes, checkout_of, fingerprint, line_of, resolve, worktree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = new_repository(tmp_path / "repo")
    commit_file(made, "a.py", "a = 1\n", "First")
    run_git(made, "tag", "v1.0")
    commit_file(made, "a.py", "a = 2\n", "Second\twith a tab")
    return made


def test_a_commit_has_many_names(root: Path) -> None:
    first = resolve(root, "v1.0")
    assert first.subject == "First"
    assert resolve(root, "main~1") == resolve(root, first.sha[:10]) == first
    assert resolve(root, "HEAD").subject == "Second\twith a tab"
    assert checkout_of(root) == root


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v1.1", "did you mean 'v1.0'?"),
        ("mian", "did you mean 'main'?"),
        ("--all", "no commit, tag or branch '--all'"),
        ("", "no commit, tag or branch ''"),
        ("ffffffff", "no commit, tag or branch 'ffffffff'"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(root: Path, name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(root, name)
    assert said in str(error.value)


def test_a_name_of_two_things_is_told(root: Path) -> None:
    run_git(root, "branch", "twice", "main~1")
    run_git(root, "tag", "twice")
    with pytest.raises(UserError, match=r"ambiguous.*refs/heads/twice, refs/tags/twice"):
        resolve(root, "twice")


def test_outside_a_checkout_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not in a git checkout.*--repo"):
        checkout_of(tmp_path)


def test_what_could_change_a_number_is_a_change(root: Path) -> None:
    assert changes(root) == []
    (root / "notes.txt").write_text("not code\n")
    (root / "filed").mkdir()
    (root / "filed" / "study.yaml").write_text("name: filed\n")
    assert changes(root, apart_from=root / "filed") == []
    (root / "a.py").write_text("a = 3\n")
    (root / "ü b.py").write_text("b = 1\n")
    found = changes(root, apart_from=root / "filed")
    assert found == ["a.py", "ü b.py"]
    before = fingerprint(root, found)
    (root / "a.py").write_text("a = 4\n")
    assert fingerprint(root, found) != before


def test_a_renamed_and_a_deleted_file_are_changes(root: Path) -> None:
    commit_file(root, "c.py", "c = 1\n" * 50, "Third")
    run_git(root, "mv", "c.py", "d.py")
    (root / "a.py").unlink()
    assert sorted(changes(root)) == ["a.py", "d.py"]
    assert fingerprint(root, changes(root))


def test_a_merged_branch_is_one_step_of_the_line(root: Path) -> None:
    run_git(root, "checkout", "--quiet", "-b", "side")
    commit_file(root, "side.py", "s = 1\n", "On the side")
    run_git(root, "checkout", "--quiet", "main")
    run_git(root, "merge", "--quiet", "--no-ff", "-m", "Merge the side", "side")
    assert [each.subject for each in line_of(root, "main")] == ["First", "Second\twith a tab", "Merge the side"]


def test_another_checkout_leaves_the_users_alone(root: Path) -> None:
    (root / "a.py").write_text("a = 'being edited'\n")
    with worktree(root, resolve(root, "v1.0").sha) as folder:
        assert (folder / "a.py").read_text() == "a = 1\n"
    assert not folder.exists()
    assert (root / "a.py").read_text() == "a = 'being edited'\n"
    assert len(run_git(root, "worktree", "list").splitlines()) == 1
