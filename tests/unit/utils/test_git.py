"""Commits by name, their order, what was changed, and checkouts beside the user's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from commit_history import commit_file, new_repository, run_git

from bench.errors import UserError
from bench.utils.git import changes, checkout_of, fingerprint, is_shallow, line_of, resolve, worktree


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
    assert resolve(root, "HEAD").subject == "Second\\twith a tab"
    assert checkout_of(root) == root


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v1.1", "did you mean 'v1.0'?"),
        ("mian", "did you mean 'main'?"),
        ("--all", "no commit, tag or branch '--all'"),
        ("", "no commit, tag or branch ''"),
        ("ffffffff", "no commit, tag or branch 'ffffffff'"),
        ("main~1..main", "'main~1..main' is a range of commits; name one commit, tag or branch"),
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
    assert sorted(changes(root)) == ["a.py", "c.py", "d.py"]
    assert fingerprint(root, changes(root))


def test_a_merged_branch_is_one_step_of_the_line(root: Path) -> None:
    run_git(root, "checkout", "--quiet", "-b", "side")
    commit_file(root, "side.py", "s = 1\n", "On the side")
    run_git(root, "checkout", "--quiet", "main")
    run_git(root, "merge", "--quiet", "--no-ff", "-m", "Merge the side", "side")
    assert [each.subject for each in line_of(root, "main")] == ["First", "Second\\twith a tab", "Merge the side"]


def test_another_checkout_leaves_the_users_alone(root: Path) -> None:
    (root / "a.py").write_text("a = 'being edited'\n")
    with worktree(root, resolve(root, "v1.0").sha) as folder:
        assert (folder / "a.py").read_text() == "a = 1\n"
    assert not folder.exists()
    assert (root / "a.py").read_text() == "a = 'being edited'\n"
    assert len(run_git(root, "worktree", "list").splitlines()) == 1


# ---- whatever people's settings, names and messages are -------------------------------------------------------------


def commit_bytes(root: Path, message: bytes) -> None:
    subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "--quiet",
         "--allow-empty", "--allow-empty-message", "--cleanup=verbatim", "-F", "-"],
        input=message, check=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        (b"", "(no subject)"),
        ("line\u2028separator".encode(), "line\\u2028separator"),
        (b"form\x0cfeed and\x0bvertical tab", "form\\x0cfeed and\\x0bvertical tab"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"caf\xe9", "caf\u00e9"),  # git takes what is no UTF-8 for Latin-1
        ("right to left \u202e!".encode(), "right to left \\u202e!"),
        ("as it is: \u00e9 \u4e2d \U0001f600".encode(), "as it is: \u00e9 \u4e2d \U0001f600"),
        (b"two\nlines of one paragraph", "two lines of one paragraph"),
    ],
)
def test_any_subject_is_one_line_that_shows_what_it_holds(root: Path, message: bytes, subject: str) -> None:
    before = resolve(root, "HEAD")
    commit_bytes(root, message)
    assert [each.subject for each in line_of(root, "HEAD")] == ["First", before.subject, subject]
    subject.encode()  # no surrogates are left: it can be written anywhere


HOSTILE = {
    "log.showSignature": "true", "color.ui": "always", "color.status": "always", "core.pager": "false",
    "status.renames": "copies", "diff.renames": "copies", "log.date": "relative", "status.short": "true",
    "status.branch": "true", "status.relativePaths": "true", "core.quotePath": "true", "log.decorate": "full",
    "format.pretty": "fuller", "diff.ignoreSubmodules": "all", "status.showUntrackedFiles": "no",
    "log.abbrevCommit": "true", "core.abbrev": "4", "i18n.logOutputEncoding": "ISO-8859-1", "log.mailmap": "true",
}  # fmt: skip


def test_no_setting_of_the_users_changes_what_is_found(root: Path) -> None:
    commit_file(root, "b.py", "b = 1\n" * 40, "A subject with \u00e9")
    (root / "b.py").rename(root / "c \u00e9.py")
    (root / "a.py").write_text("a = 3\n")
    plain = line_of(root, "HEAD"), changes(root), fingerprint(root, changes(root))
    for name, value in HOSTILE.items():
        run_git(root, "config", name, value)
    assert (line_of(root, "HEAD"), changes(root), fingerprint(root, changes(root))) == plain
    assert plain[1] == ["a.py", "b.py", "c \u00e9.py"]


def test_an_untracked_file_whose_name_is_in_no_encoding_counts(root: Path) -> None:
    with open(os.fsencode(root) + b"/caf\xe9.py", "wb") as file:  # noqa: PTH123 - Path takes no bytes
        file.write(b"x = 1\n")
    (found,) = changes(root)
    first = fingerprint(root, [found])
    with open(os.fsencode(root) + b"/caf\xe9.py", "wb") as file:  # noqa: PTH123
        file.write(b"x = 2\n")
    assert fingerprint(root, [found]) != first


@pytest.fixture
def with_submodule(root: Path, tmp_path: Path) -> Path:
    inner = new_repository(tmp_path / "inner")
    commit_file(inner, "code.py", "x = 1\n", "Inner")
    run_git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    run_git(root, "commit", "--quiet", "-m", "With a submodule")
    assert changes(root) == []
    return root


@pytest.mark.parametrize("ignore", ["none", "all"])
def test_a_changed_submodule_is_a_change_and_two_changes_are_two_trees(with_submodule: Path, ignore: str) -> None:
    run_git(with_submodule, "config", "submodule.sub.ignore", ignore)
    trees = set()
    for value in (2, 3):
        (with_submodule / "sub" / "code.py").write_text(f"x = {value}\n")
        assert changes(with_submodule) == ["sub"]
        trees.add(fingerprint(with_submodule, ["sub"]))
    commit_file(with_submodule / "sub", "code.py", "x = 3\n", "Another commit inside")
    assert changes(with_submodule) == ["sub"]
    trees.add(fingerprint(with_submodule, ["sub"]))
    assert len(trees) == 3


def test_a_clone_inside_the_checkout_is_part_of_the_tree(root: Path) -> None:
    inner = new_repository(root / "nested")
    commit_file(inner, "code.py", "x = 1\n", "Inner")
    assert changes(root) == ["nested/"]
    first = fingerprint(root, changes(root))
    (inner / "code.py").write_text("x = 2\n")
    assert fingerprint(root, changes(root)) != first


def test_a_repository_with_sha256_is_one_like_any_other(tmp_path: Path) -> None:
    made = tmp_path / "repo"
    made.mkdir()
    run_git(made, "init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    found = commit_file(made, "a.py", "a = 1\n", "First")
    assert len(found.sha) == 64
    assert line_of(made, "main") == [found]
    with worktree(made, found.sha) as folder:
        assert (folder / "a.py").read_text() == "a = 1\n"


def test_a_shallow_clone_says_where_its_history_ends(root: Path, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{root}", "clone")
    clone = tmp_path / "clone"
    assert is_shallow(clone)
    assert not is_shallow(root)
    assert len(line_of(clone, "HEAD")) == 1
    with pytest.raises(UserError, match=r"no commit, tag or branch 'HEAD~1'.*git fetch --unshallow"):
        resolve(clone, "HEAD~1")


def test_a_repository_of_another_owner_is_refused_in_gits_own_words(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"dubious ownership.*its remedy: `git config --global --add safe\.directory"):
        checkout_of(root)


def test_hooks_do_not_run_and_a_checkout_that_fails_leaves_nothing_behind(root: Path) -> None:
    hook = root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with worktree(root, resolve(root, "HEAD").sha) as folder:
        assert (folder / "a.py").is_file()
    with pytest.raises(UserError, match="git cannot check out 0000000"), worktree(root, "0" * 40):
        pass
    assert len(run_git(root, "worktree", "list").splitlines()) == 1
