"""What was reviewed is what is there: nothing that git can be told to overlook gets past an approval."""

from __future__ import annotations

import hashlib
import os
import pathlib
import random
import shutil
import stat
import subprocess
import sys
import time

import pytest
from conftest import RELAY, Stage, copy_tree, seeds, sidecar

pytestmark = pytest.mark.usefixtures("real_snapshots")
APPROVING = ("--outcome", "approve", "--reason", "done")
NOT_UTF8 = b"caf\xe9.txt"


def variants(*first, slow=()):
    """Parameters of which some are left to the slow run."""
    return [
        *first,
        *(
            pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.slow)
            for each in slow
        ),
    ]


# ---- a review that was approved, made once and laid out anew for each trap


def scan(stage, base="", cwd=None):
    """The change set of the working tree at hand, as relay computes it."""
    kept, env, here = dict(os.environ), stage.env("claude"), os.getcwd()
    umask = os.umask(0o022)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd or stage.project)
    try:
        return RELAY.change_set(RELAY.Context("relay"), base)
    finally:
        os.chdir(here)
        os.umask(umask)
        os.environ.clear()
        os.environ.update(kept)


def told(stage, author="codex", **more):
    """How `status` says the tree stands to the latest change set."""
    return stage.ok(author, "status", "--json", **more).json["changeset"]


def approve(stage, *more, **env):
    return stage.run(
        "codex",
        "send",
        "--kind",
        "review",
        "--file",
        stage.file(f"# Yes {time.monotonic_ns()}\n"),
        "--next",
        "ship it",
        "--reply-to",
        "1",
        "--verdict",
        "approve",
        "--not-run",
        "read only",
        "--dry-run",
        *more,
        **env,
    )


def close(stage, *more, **env):
    return stage.run("claude", "close", "--reason", "done", "--outcome", "approve", *more, **env)


def write(stage, path, content):
    full = os.path.join(os.fsencode(stage.project), os.fsencode(path))
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def plain_project(stage):
    """Files of every kind at the base."""
    for path, content in {
        "app.py": "print(1)\n",
        "keep.py": "keep\n",
        "gone.py": "gone\n",
        "d/inner.py": "inner\n",
        "run.sh": "#!/bin/sh\n",
        ".gitignore": "*.log\n/build\n",
        "build/tracked.py": "built\n",
        "build/work.py": "to do\n",
    }.items():
        write(stage, path, content)
    os.symlink("keep.py", stage.project / "link")
    stage.git("add", "-f", ".")
    stage.git("commit", "-qm", "base")


def plain_fix(stage):
    """A fix that is partly staged, partly not, partly untracked."""
    write(stage, "app.py", "print(2)\n")
    write(stage, "new.py", "new\n")
    write(stage, "d/inner.py", "inner, mended\n")
    (stage.project / "gone.py").unlink()
    os.symlink("d/inner.py", stage.project / "newlink")
    write(stage, "build/work.py", "done\n")
    stage.git("add", "-u", "d", "build")


# The pointer as git-lfs makes it, from standard input.
FAKE_LFS = """t=$(mktemp); cat >$t; set -- $(sha256sum <$t || shasum -a 256 <$t) $(wc -c <$t); rm $t
printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%s\\nsize %s\\n' $1 $3"""
LONG_AGO = (1_500_000_000, 1_500_000_000)


def filtered_project(stage):
    """Files that go through filters, of which each leaves a mark when it is run."""
    for name, clean in (("lfs", FAKE_LFS), ("mark", "tr a-z n-za-m")):
        stage.git(
            "config", f"filter.{name}.clean", f"echo {name} >> {stage.folder}/filter-ran; {clean}"
        )
        stage.git(
            "config",
            f"filter.{name}.smudge",
            f"echo {name} >> {stage.folder}/filter-ran; tr a-z n-za-m",
        )
        stage.git("config", f"filter.{name}.required", "true")
    write(stage, ".gitattributes", "*.big filter=lfs\n*.enc filter=mark\n")
    for path in ("kept.big", "kept.enc", "plain.py", "work.enc", "work.big"):
        write(stage, path, f"{path}\n")
        os.utime(
            stage.project / path, LONG_AGO
        )  # As young as the index, git would read it again each time.
    stage.git("add", ".")
    stage.git("commit", "-qm", "base")


def filtered_fix(stage):
    write(stage, "plain.py", "mended\n")
    for path in ("new.big", "new.enc", "work.enc", "work.big"):
        write(stage, path, f"new {path}\n")
        os.utime(stage.project / path, LONG_AGO)


def submodule_project(stage):
    """A submodule, and beside it a plain file."""
    other = stage.folder / "library"
    other.mkdir()
    stage.git("init", "-q", "-b", "main", "--template=", cwd=other)
    for number in (1, 2):
        (other / "lib.py").write_text(f"version {number}\n")
        stage.git("add", ".", cwd=other)
        stage.git("commit", "-qm", f"library {number}", cwd=other)
    write(stage, "app.py", "print(1)\n")
    stage.git("-c", "init.templateDir=", "submodule", "--quiet", "add", str(other), "sub")
    stage.git("add", ".")
    stage.git("commit", "-qm", "base")


def small_fix(stage):
    write(stage, "app.py", "print(2)\n")


def loose_project(stage):
    write(stage, "app.py", "print(1)\n")
    stage.git("add", ".")
    stage.git("commit", "-qm", "base")


def loose_fix(stage):
    """Repositories within the tree, with and without a commit, and a linked worktree of this one."""
    write(stage, "app.py", "print(2)\n")
    write(stage, "vendored/v.py", "v\n")
    stage.git("init", "-q", "--template=", cwd=stage.project / "vendored")
    stage.git("add", ".", cwd=stage.project / "vendored")
    stage.git("commit", "-qm", "v", cwd=stage.project / "vendored")
    write(stage, "young/y.py", "y\n")
    stage.git("init", "-q", "--template=", cwd=stage.project / "young")
    stage.git("worktree", "add", "-q", "--detach", str(stage.project / "wt"))


@pytest.fixture(scope="module")
def kits(tmp_path_factory, template):
    """By name, a stage whose pair codex approved, and the folder that holds a copy of it."""
    made = {}

    def kit(name, project, fix):
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", lambda handle: None)
                folder = tmp_path_factory.mktemp(name)
                stage = Stage(folder / "at")
                project(stage)
                stage.pair = stage.open_pair()
                fix(stage)
                filter_ran(stage)
                stage.send("claude", "fix")
                stage.ok("codex", "next")
                assert approve(stage).code == 0, approve(stage)
                stage.send(
                    "codex",
                    "review",
                    "# Yes\n",
                    "ship it",
                    "--verdict",
                    "approve",
                    "--not-run",
                    "read only",
                )
                stage.ok("claude", "next")
                assert not filter_ran(stage)
            copy_tree(folder / "at", folder / "kept")
            made[name] = stage, folder / "kept"
        stage, kept = made[name]
        shutil.rmtree(stage.folder)
        copy_tree(kept, stage.folder)
        return stage

    return kit


@pytest.fixture
def approved(kits, stage):
    return kits("plain", plain_project, plain_fix)


@pytest.fixture
def filtered(kits, stage):
    laid_out = kits("filtered", filtered_project, filtered_fix)
    laid_out.git("update-index", "-q", "--refresh")
    filter_ran(laid_out)
    return laid_out


@pytest.fixture
def submodule(kits, stage):
    return kits("submodule", submodule_project, small_fix)


@pytest.fixture
def loose(kits, stage):
    return kits("loose", loose_project, loose_fix)


def filter_ran(stage):
    """The filters that were run since this was last asked."""
    mark = stage.folder / "filter-ran"
    ran = mark.read_text() if mark.exists() else ""
    mark.unlink(missing_ok=True)
    return ran


def refused(stage, *named, **env):
    """An edit since the approval: neither can it be approved again nor closed on, and the edited paths are named."""
    again, closed = approve(stage, **env), close(stage, **env)
    for done in (again, closed):
        assert done.code == 2, done
        for path in named:
            assert path in done.err, (path, done.err)
    assert stage.pair.is_dir() and not (stage.pair / "CLOSED").exists()


def close_refused(stage, *named, **env):
    """What is not part of the reviewed files is for the close to see."""
    closed = close(stage, **env)
    assert closed.code == 2, closed
    for path in named:
        assert path in closed.err, (path, closed.err)


def close_names(stage, *named, **env):
    """New files that git does not track pass, and are named: by `next`'s comparison and by the close."""
    assert {*named} <= {*told(stage, **env)["outside"]}, told(stage, **env)
    closed = close(stage, **env)
    assert closed.code == 0, closed
    assert all(path in closed.err for path in named), closed
    archived = next(stage.shared.rglob("CLOSED"))
    assert {*named} <= {*RELAY.parse_closed(archived.read_bytes())["new_files"]}


def holds(stage, **env):
    row = told(stage, **env)
    assert row["holds"] is True and not row["moved"] and not row["outside"] and not row["staged"], (
        row
    )
    return row


def test_without_an_edit_an_approved_pair_closes(approved):
    assert approve(approved).code == 0
    assert close(approved).code == 0


@pytest.mark.slow
def test_without_an_edit_one_with_a_submodule_closes(submodule):
    assert approve(submodule).code == 0
    assert close(submodule).code == 0


@pytest.mark.slow
def test_without_an_edit_one_with_repositories_within_closes(loose):
    assert approve(loose).code == 0
    assert close(loose).code == 0


# ---- ways to hide an edit from git


def edit_app(stage):
    write(stage, "app.py", "print(3)\n")


FLAGS = ("assume-unchanged", "skip-worktree")


@pytest.mark.parametrize("flag", FLAGS)
def test_an_edit_of_a_file_that_git_was_told_to_overlook_is_seen(approved, flag):
    approved.git("update-index", f"--{flag}", "app.py", "keep.py")
    holds(approved)
    write(approved, "app.py", "print(3)\n")
    write(approved, "keep.py", "kept?\n")
    refused(approved, "app.py")
    close_refused(approved, "app.py", "keep.py")


def test_a_mode_set_on_a_file_that_git_was_told_to_overlook_is_seen(approved):
    for flag, path in zip(FLAGS, ("app.py", "d/inner.py")):
        approved.git("update-index", f"--{flag}", path)
        (approved.project / path).chmod(0o755)
    refused(approved, "app.py", "d/inner.py")


def test_a_deletion_of_a_file_that_git_was_told_to_assume_unchanged_is_seen(approved):
    approved.git("update-index", "--assume-unchanged", "app.py")
    (approved.project / "app.py").unlink()
    refused(approved, "app.py")


@pytest.mark.parametrize("index", variants("", slow=("--sparse-index",)))
def test_what_a_sparse_checkout_leaves_out_is_no_deletion_and_an_edit_within_it_is_one(
    approved, index
):
    approved.git("add", "-A")
    approved.git("commit", "-qm", "fix")
    before = scan(approved, approved.git("rev-parse", "HEAD~")).digest
    approved.git("sparse-checkout", "set", "--cone", *([index] if index else []), "build")
    assert not (approved.project / "d").exists()
    assert scan(approved, approved.git("rev-parse", "HEAD~")).digest == before
    write(approved, "d/inner.py", "sneaked in\n")
    assert "d/inner.py" in told(approved)["moved"]


def test_a_monitor_that_lies_is_not_asked(approved):
    mark = approved.folder / "monitor-ran"
    monitor = approved.file(f"#!/bin/sh\necho ran >> {mark}\nprintf 'token\\0'\n", "monitor")
    monitor.chmod(0o755)
    approved.git("config", "core.fsmonitor", str(monitor))
    approved.git("config", "core.fsmonitorHookVersion", "2")
    approved.git("status")
    assert mark.exists()
    mark.unlink()
    edit_app(approved)
    write(approved, "keep.py", "kept?\n")
    refused(approved, "app.py")
    close_refused(approved, "keep.py")
    assert not mark.exists(), "the monitor was run"


def test_no_hook_is_run(approved):
    mark = approved.folder / "hook-ran"
    hooks = approved.project / ".git" / "hooks"
    hooks.mkdir()
    for name in (
        "post-index-change",
        "pre-commit",
        "post-checkout",
        "reference-transaction",
        "fsmonitor-watchman",
    ):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {mark}\n")
        (hooks / name).chmod(0o755)
    approved.git("config", "core.hooksPath", str(hooks))
    edit_app(approved)
    refused(approved, "app.py")
    assert not mark.exists()


def lax(stage):
    stage.git("config", "core.trustctime", "false")
    stage.git("config", "core.checkStat", "minimal")


def test_an_edit_of_the_same_size_and_time_is_seen_however_lax_git_is_told_to_look(approved):
    lax(approved)
    file = approved.project / "keep.py"
    os.utime(file, LONG_AGO)
    approved.git("update-index", "keep.py")
    write(approved, "edited", "KEEP\n")
    (approved.project / "edited").rename(file)
    os.utime(file, LONG_AGO)
    assert approved.git("diff-files", "--name-only", "keep.py") == "", (
        "git sees it: the trap is none"
    )
    close_refused(approved, "keep.py")


def staged_and_edited_at_once(stage):
    """A file staged and edited within one second, its time and size as before; False where git saw it."""
    for path, content in (("old.py", "cccc\n"), ("old.py", "dddd\n")):
        write(stage, path, content)
        os.utime(stage.project / path, LONG_AGO)
        if content.startswith("c"):
            stage.git("add", path)
    return stage.git("diff-files", "--name-only", "old.py") == ""


def test_an_edit_of_the_same_size_and_time_in_the_second_of_the_staging_is_seen(approved):
    """Git compares whole seconds; a file staged and changed within one, its time put back, looks unchanged."""
    if not any(staged_and_edited_at_once(approved) for _ in range(5)):
        pytest.skip("this git sees it")
    assert scan(approved).files["old.py"].split()[1] == blob(b"dddd\n")


def test_an_untracked_file_is_seen_whatever_the_cache_of_untracked_files_says(approved):
    approved.git("config", "core.untrackedCache", "true")
    approved.git("update-index", "--force-untracked-cache")
    approved.git("status")
    folder = approved.project / "d"
    before = folder.stat()
    write(approved, "d/sneaked.py", "x\n")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    close_names(approved, "d/sneaked.py")


def committed_otherwise(stage, path):
    """First something else is committed, then the reviewed content is put back into the tree and the index."""
    (stage.project / path).rename(stage.folder / "aside")
    write(stage, path, "something else\n")
    stage.git("add", "-A")
    stage.git("commit", "-qm", "fix")
    (stage.project / path).unlink()
    (stage.folder / "aside").rename(stage.project / path)
    stage.git("add", "-A")


@pytest.mark.parametrize(
    "path", variants("app.py", "newlink", slow=("new.py", "d/inner.py", "keep.py"))
)
def test_a_commit_of_something_else_than_the_tree_holds_is_refused(approved, path):
    committed_otherwise(approved, path)
    close_refused(approved, path)


def test_what_a_commit_leaves_out_is_refused(approved):
    approved.git("add", "-A")
    approved.git("reset", "-q", "--", "new.py")
    approved.git("commit", "-qm", "fix")
    close_refused(approved, "new.py")


def test_a_whole_commit_of_what_was_reviewed_closes(approved):
    approved.git("add", "-A")
    approved.git("commit", "-qm", "fix")
    holds(approved)
    done = close(approved)
    assert done.code == 0, done


def test_something_else_in_the_index_is_refused(approved):
    write(approved, "app.py", "print('evil')\n")
    approved.git("add", "app.py")
    write(approved, "app.py", "print(2)\n")
    assert told(approved)["staged"] == ["app.py"]
    assert told(approved)["holds"] is True
    close_refused(approved, "app.py")


def test_a_file_that_only_the_index_lost_is_refused(approved):
    approved.git("rm", "-q", "--cached", "keep.py")
    close_refused(approved, "keep.py")


def test_a_file_that_the_index_lost_and_an_ignore_rule_hides_is_refused(approved):
    approved.git("rm", "-q", "--cached", "build/tracked.py")
    close_refused(approved, "build/tracked.py")


def test_an_edit_of_a_tracked_file_in_an_ignored_folder_is_seen(approved):
    write(approved, "build/tracked.py", "rebuilt\n")
    close_refused(approved, "build/tracked.py")


def test_intent_to_add_changes_nothing_and_hides_nothing(approved):
    approved.git("add", "-N", "new.py")
    row = told(approved)
    assert row["holds"] and not row["outside"]
    write(approved, "new.py", "newer\n")
    refused(approved, "new.py")


def test_intent_to_add_is_not_an_index_that_holds_something_else(approved):
    approved.git("add", "-N", "new.py")
    holds(approved)


@pytest.mark.parametrize("marked", variants("keep.py", slow=("app.py",)))
def test_an_unmerged_path_is_seen(approved, marked):
    oid = approved.git("rev-parse", "HEAD:app.py")
    listed = "".join(f"100644 {oid} {stage}\t{marked}\n" for stage in (1, 2, 3))
    approved.git("rm", "-q", "--cached", "-f", marked)
    unmerged = subprocess.run(
        ("git", "update-index", "--index-info"),
        cwd=approved.project,
        input=listed.encode(),
        check=True,
    )
    assert unmerged.returncode == 0
    close_refused(approved, marked)
    write(approved, marked, "<<<<<<<\n")
    close_refused(approved, marked)


def test_the_target_of_a_link_is_part_of_what_was_reviewed(approved):
    (approved.project / "newlink").unlink()
    os.symlink("keep.py", approved.project / "newlink")
    refused(approved, "newlink")


def test_a_file_that_became_a_link_to_the_same_content_is_seen(approved):
    approved.file("print(2)\n", "app.py")
    (approved.project / "app.py").unlink()
    os.symlink(approved.folder / "app.py", approved.project / "app.py")
    refused(approved, "app.py")


def test_a_mode_is_part_of_what_was_reviewed(approved):
    (approved.project / "app.py").chmod(0o755)
    (approved.project / "run.sh").chmod(0o755)
    refused(approved, "app.py")
    close_refused(approved, "run.sh")


def test_where_modes_do_not_count_a_mode_that_is_staged_does(approved):
    approved.git("config", "core.fileMode", "false")
    (approved.project / "app.py").chmod(0o755)
    (approved.project / "new.py").chmod(0o755)
    holds(approved)
    approved.git("update-index", "--chmod=+x", "keep.py")
    close_refused(approved, "keep.py")


def test_a_replaced_object_does_not_stand_for_the_base(approved):
    """With `git replace` the base can be made to look like the edited tree."""
    base = approved.git("rev-parse", "HEAD")
    write(approved, "keep.py", "kept?\n")
    approved.git("add", "keep.py")
    tree = approved.git("write-tree")
    other = approved.git("commit-tree", "-m", "other base", tree)
    approved.git("replace", base, other)
    close_refused(approved, "keep.py")


def test_git_variables_of_the_environment_do_not_point_elsewhere(approved):
    """Each would show git a tree, an index or settings in which nothing was edited."""
    clean = approved.folder / "clean"
    copy_tree(approved.project, clean)
    edit_app(approved)
    for more in (
        {"GIT_DIR": str(clean / ".git"), "GIT_WORK_TREE": str(clean)},
        {"GIT_WORK_TREE": str(clean)},
        {"GIT_INDEX_FILE": str(clean / ".git" / "index")},
        {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.worktree",
            "GIT_CONFIG_VALUE_0": str(clean),
        },
        {"GIT_CONFIG_PARAMETERS": f"'core.worktree'='{clean}'"},
        {
            "GIT_OBJECT_DIRECTORY": str(clean / "none"),
            "GIT_NAMESPACE": "x",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_DEFAULT_HASH": "sha256",
        },
    ):
        close_refused(approved, "app.py", **more)


@pytest.mark.parametrize("entry", ["{}", "{}/bin", "{}/linked", "bin", ""])
def test_a_git_that_the_project_brings_is_not_asked(approved, entry):
    """It could say that nothing was edited."""
    asked = approved.folder / "asked"
    for path in ("bin/git", "git"):
        write(approved, path, f"#!/bin/sh\n: >'{asked}'\nexec '{shutil.which('git')}' \"$@\"\n")
        (approved.project / path).chmod(0o755)
    (approved.project / "linked").symlink_to("bin")
    edit_app(approved)
    path = f"{entry.format(approved.project)}:{os.environ['PATH']}"
    close_refused(approved, "app.py", PATH=path)
    assert not asked.exists()


def test_a_worktree_in_the_settings_does_not_point_elsewhere(approved):
    clean = approved.folder / "clean"
    copy_tree(approved.project, clean)
    approved.git("config", "core.worktree", str(clean))
    approved.git("update-index", "-q", "--refresh")
    edit_app(approved)
    write(approved, "keep.py", "kept?\n")
    close_refused(approved, "app.py", "keep.py", RELAY_SHARED_ROOT=str(approved.shared))


def test_what_a_gitignore_of_the_tree_hides_is_not_looked_at(approved):
    write(approved, "a.log", "x\n")
    write(approved, "d/deep/b.log", "x\n")
    write(approved, "build/out.py", "x\n")
    holds(approved)
    assert close(approved).code == 0


def test_a_change_of_the_gitignore_itself_is_seen(approved):
    write(approved, ".gitignore", "*.log\n/build/\n/extra.py\n")
    write(approved, "extra.py", "x\n")
    close_refused(approved, ".gitignore")


def test_a_name_that_differs_only_in_case_is_another_file(approved):
    if (approved.project / "APP.PY").exists():
        pytest.skip("names that differ in case are one here")
    approved.git("config", "core.ignoreCase", "true")
    write(approved, "APP.py", "x\n")
    write(approved, "D/sneaked.py", "x\n")
    close_names(approved, "APP.py", "D/sneaked.py")


ODD_NAMES = (
    b"a\nb.py",
    b"tab\there.py",
    b'"quoted".py',
    b"--upload-pack=x",
    b"-",
    b" lead and trail ",
    NOT_UTF8,
    b"back\\slash",
    "h\u00e9 \u200b\u2028.py".encode(),
    b"cr\r",
    b"?*[x]",
    b":(top)x",
    b"\x01\x7f",
    b"%s {0}",
    b"#x",
    b"'",
    b"deep/-/\n/x",
)


@pytest.mark.slow
def test_no_name_is_too_odd_for_an_approval_or_for_a_refusal(stage):
    for name in ODD_NAMES:
        write(stage, name, b"one\n")
    stage.pair = stage.open_pair()
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.send(
        "codex", "review", "# Yes\n", "ship it", "--verdict", "approve", "--not-run", "read only"
    )
    row = told(stage)
    assert row["holds"] is True and row["reviewed"] == len(ODD_NAMES)
    for name in ODD_NAMES:
        write(stage, name, b"two\n")
        assert [os.fsencode(path) for path in told(stage)["moved"]] == [name]
        write(stage, name, b"one\n")
    stage.git("add", "-A")
    stage.git("commit", "-qm", "fix")
    assert scan(stage, stage.git("rev-parse", "HEAD~")).digest == row["recorded"]
    write(stage, NOT_UTF8, b"two\n")
    refused(stage, r"caf\351.txt")
    write(stage, NOT_UTF8, b"one\n")
    assert close(stage).code == 0


def test_two_change_sets_never_share_the_text_that_is_hashed(relay):
    one = relay.change_set_digest({"unfiltered x": "100644 " + "a" * 40})
    other = relay.change_set_digest({"x": "100644 " + "a" * 40 + " unfiltered"})
    assert one != other


def test_a_file_that_became_a_folder_and_a_folder_that_became_a_file_are_seen(approved):
    (approved.project / "app.py").unlink()
    write(approved, "app.py/app.py", "print(2)\n")
    shutil.rmtree(approved.project / "d")
    write(approved, "d", "inner, mended\n")
    refused(approved, "app.py", "d/inner.py")
    assert told(approved)["outside"] == ["app.py/app.py", "d"]


def test_a_file_that_became_a_repository_is_seen(approved):
    (approved.project / "keep.py").unlink()
    write(approved, "keep.py/x", "x\n")
    approved.git("init", "-q", "--template=", cwd=approved.project / "keep.py")
    approved.git("add", ".", cwd=approved.project / "keep.py")
    approved.git("commit", "-qm", "x", cwd=approved.project / "keep.py")
    close_refused(approved, "keep.py")


def test_a_pipe_in_the_place_of_a_file_is_seen_and_does_not_hang(approved):
    for name in ("app.py", "keep.py", "loose"):
        (approved.project / name).unlink(missing_ok=True)
        os.mkfifo(approved.project / name)
    refused(approved, "app.py")
    close_refused(approved, "keep.py")


def test_a_tracked_ledger_does_not_count(stage):
    stage.ok("claude", "init")
    write(stage, ".shared/notes.md", "one\n")
    write(stage, "sub/.shared/mine.py", "one\n")
    stage.git("add", "-f", ".")
    stage.git("commit", "-qm", "base")
    stage.open_pair()
    write(stage, "app.py", "x\n")
    before = scan(stage)
    assert list(before.files) == ["app.py"]
    write(stage, ".shared/notes.md", "two\n")
    stage.git("add", "-A", "-f")
    stage.git("commit", "-qm", "ledger too")
    after = scan(stage, before.base)
    assert after.digest == before.digest and not after.staged
    write(stage, "sub/.shared/mine.py", "two\n")
    assert sorted(scan(stage, before.base).files) == ["app.py", "sub/.shared/mine.py"]


def test_a_ledger_elsewhere_in_the_tree_does_not_count_and_hides_nothing_beside_it(stage):
    root = stage.project / "docs" / "ledger"
    root.mkdir(parents=True)
    here = {"RELAY_SHARED_ROOT": str(root)}
    stage.ok("claude", "bootstrap", "--topic", "demo", **here)
    stage.ok("codex", "next", **here)
    write(stage, "docs/a.md", "a\n")
    stage.ok(
        "claude", "send", "--kind", "fix", "--file", stage.file("# Fix\n"), "--next", "look", **here
    )
    row = told(stage, **here)
    assert row["holds"] and row["reviewed"] == 1
    stage.git("add", "-f", "docs/ledger")
    stage.ok("codex", "next", **here)
    row = told(stage, **here)
    assert row["recorded"] == row["now"] and not row["staged"]
    write(stage, "docs/ledger-of-mine.md", "x\n")
    assert told(stage, **here)["outside"] == ["docs/ledger-of-mine.md"]


def test_the_file_that_is_sent_hides_nothing_that_was_reviewed(approved):
    """An input file that lies in the tree is no part of what is sent, but a reviewed file stays one."""
    again = (
        "send",
        "--kind",
        "review",
        "--next",
        "ship it",
        "--reply-to",
        "1",
        "--verdict",
        "approve",
        "--not-run",
        "read only",
    )
    write(approved, "new.py", "newer\n")
    done = approved.run("codex", *again, "--file", approved.project / "new.py")
    assert done.code == 2 and "new.py" in done.err
    close_refused(approved, "new.py")


# ---- repositories within the tree


def test_an_edit_within_a_submodule_is_seen_by_its_path(submodule):
    write(submodule, "sub/lib.py", "evil\n")
    close_refused(submodule, "sub/lib.py")


def test_a_new_file_within_a_submodule_is_seen(submodule):
    write(submodule, "sub/more.py", "evil\n")
    close_names(submodule, "sub/more.py")


@pytest.mark.parametrize("ignore", variants("all", slow=("dirty", "untracked")))
def test_a_submodule_that_settings_say_to_ignore_is_looked_at(submodule, ignore):
    submodule.git("config", "submodule.sub.ignore", ignore)
    submodule.git("config", "diff.ignoreSubmodules", ignore)
    write(submodule, "sub/lib.py", "evil\n")
    close_refused(submodule, "sub/lib.py")
    submodule.git("checkout", "-q", "-f", "HEAD~", cwd=submodule.project / "sub")
    submodule.git("update-index", "sub")
    assert scan(submodule).files["sub"].startswith("160000 ")


def test_a_submodule_moved_to_another_commit_is_seen(submodule):
    submodule.git("checkout", "-q", "-f", "HEAD~", cwd=submodule.project / "sub")
    write(submodule, "sub/lib.py", "version 2\n")
    close_refused(submodule, "sub")


def test_a_submodule_whose_move_is_only_staged_is_seen(submodule):
    inner = submodule.project / "sub"
    new = submodule.git("rev-parse", "HEAD", cwd=inner)
    submodule.git(
        "update-index",
        "--cacheinfo",
        f"160000,{submodule.git('rev-parse', 'HEAD~', cwd=inner)},sub",
    )
    assert submodule.git("rev-parse", "HEAD", cwd=inner) == new
    close_refused(submodule, "sub")


def test_an_unfilled_submodule_is_no_deletion(submodule):
    submodule.git("submodule", "--quiet", "deinit", "-f", "sub")
    assert list((submodule.project / "sub").iterdir()) == []
    holds(submodule)


def test_a_submodule_whose_folder_became_a_link_is_seen(submodule):
    write(submodule, "sub/.git", f"gitdir: {submodule.project}/.git/modules/sub\n")
    (submodule.project / "sub").rename(submodule.folder / "sub")
    os.symlink(submodule.folder / "sub", submodule.project / "sub")
    assert scan(submodule).files["sub"].startswith("120000 ")
    close_refused(submodule, "sub")


@pytest.mark.slow
def test_an_edit_within_a_repository_that_lies_loose_is_seen_by_its_path(loose):
    write(loose, "vendored/v.py", "evil\n")
    write(loose, "young/y.py", "evil\n")
    close_refused(loose, "vendored/v.py", "young/y.py")


def test_a_commit_within_a_repository_that_lies_loose_is_seen(loose):
    write(loose, "vendored/v.py", "evil\n")
    loose.git("commit", "-qam", "evil", cwd=loose.project / "vendored")
    refused(loose, "vendored")


def test_a_worktree_in_the_settings_of_a_repository_within_does_not_point_elsewhere(loose):
    clean = loose.folder / "clean"
    shutil.copytree(loose.project / "vendored", clean, symlinks=True)
    loose.git("config", "core.worktree", str(clean), cwd=loose.project / "vendored")
    loose.git("update-index", "-q", "--refresh", cwd=loose.project / "vendored")
    write(loose, "vendored/v.py", "evil\n")
    close_refused(loose, "vendored/v.py")


def test_another_worktree_of_the_repository_that_lies_in_the_tree_does_not_count(loose):
    write(loose, "wt/app.py", "other work\n")
    write(loose, "wt/more.py", "other work\n")
    holds(loose)


def test_a_folder_that_claims_to_be_another_worktree_hides_nothing(loose):
    write(loose, "fake/evil.py", "evil\n")
    write(loose, "fake/.git", f"gitdir: {loose.project}/.git\n")
    close_refused(loose, "fake")


# ---- the same content, the same digest


def blob(content, algorithm="sha1"):
    return hashlib.new(algorithm, b"blob %d\0" % len(content) + content).hexdigest()


def based(stage, **files):
    """A base commit with some files; its id."""
    for path, content in (files or {"a.txt": "a\n", "b.txt": "b\n", "d/c.txt": "c\n"}).items():
        write(stage, path, content)
    stage.git("add", "-A")
    stage.git("commit", "-qm", "base")
    return stage.git("rev-parse", "HEAD")


def work(stage):
    write(stage, "a.txt", "changed\n")
    write(stage, "new/e.txt", "new\n")
    (stage.project / "b.txt").unlink()
    (stage.project / "d/c.txt").chmod(0o755)
    os.symlink("a.txt", stage.project / "l")


@pytest.mark.slow
def test_the_digest_is_the_same_however_the_content_is_staged_and_committed(stage):
    base = based(stage)
    work(stage)
    made = {scan(stage, base).digest}
    stage.git("add", "a.txt", "new")
    made.add(scan(stage, base).digest)
    stage.git("add", "-A")
    made.add(scan(stage, base).digest)
    stage.git("stash", "-q")
    assert scan(stage, base).total == 0
    stage.git("stash", "pop", "-q", "--index")
    made.add(scan(stage, base).digest)
    stage.git("commit", "-qm", "one")
    made.add(scan(stage, base).digest)
    stage.git("commit", "-q", "--amend", "-m", "another")
    made.add(scan(stage, base).digest)
    stage.git("reset", "-q", "--mixed", base)
    made.add(scan(stage, base).digest)
    stage.git("add", "a.txt")
    stage.git("commit", "-qm", "in two")
    stage.git("add", "-A")
    stage.git("commit", "-qm", "in two")
    made.add(scan(stage, base).digest)
    stage.git("checkout", "-q", "--orphan", "elsewhere")
    made.add(scan(stage, base).digest)
    stage.git("rm", "-rq", "--cached", ".")
    made.add(scan(stage, base).digest)
    assert len(made) == 1, made


@pytest.mark.parametrize(
    "setting",
    variants(
        "core.autocrlf=true", slow=("core.autocrlf=input", "core.eol=crlf", "core.symlinks=true")
    ),
)
def test_the_digest_is_the_same_checked_out_elsewhere_with_other_line_ends(stage, setting):
    base = based(
        stage,
        **{
            ".gitattributes": "*.txt text=auto\n*.id ident\n*.crlf text eol=crlf\n*.u16 working-tree-encoding=UTF-16LE\n",
            "a.txt": "a\nb\n",
            "c.crlf": "c\nd\n",
            "e.id": "$Id$\n",
        },
    )
    for path, content in {
        "a.txt": "changed\nmore\n",
        "n.txt": "new\nlines\n",
        "n.id": "$Id$ x\n",
    }.items():
        write(stage, path, content)
    write(stage, "c.crlf", b"changed\r\n")
    write(stage, "n.u16", "wide\n".encode("utf-16-le"))
    made = scan(stage, base)
    assert made.files["c.crlf"] == f"100644 {blob(b'changed' + bytes([10]))}"
    assert made.files["n.u16"] == f"100644 {blob(b'wide' + bytes([10]))}"
    stage.git("checkout", "-qb", "work")
    stage.git("add", "-A")
    stage.git("commit", "-qm", "work")
    clone = stage.folder / "clone"
    stage.git(
        "clone", "-q", "-c", setting, "-b", "work", str(stage.project), str(clone), cwd=stage.folder
    )
    assert scan(stage, base, clone).digest == made.digest
    for path in clone.glob("*.*"):
        os.utime(path)  # Git must now read each to know that it is unchanged.
    assert scan(stage, base, clone).digest == made.digest
    stage.git("reset", "-q", base, cwd=clone)
    assert scan(stage, base, clone).digest == made.digest


@pytest.mark.parametrize("setting", variants("core.autocrlf=true", slow=("core.autocrlf=input",)))
def test_line_ends_that_were_committed_as_they_are_stay_so(stage, setting):
    """Git leaves a file alone that has CRLF in the index, whatever core.autocrlf says; so does the digest."""
    base = based(stage, **{"dos.bat": "one\r\ntwo\r\n", "keep.bat": "one\r\n"})
    stage.git("config", *setting.split("="))
    os.utime(stage.project / "keep.bat", (1, 1))
    assert scan(stage, base).total == 0
    write(stage, "dos.bat", "one\r\n2\r\n")
    made = scan(stage, base)
    stage.git("add", "-A")
    assert scan(stage, base).files == made.files


def test_the_digest_is_the_same_after_a_rebase_onto_the_same_base(stage):
    base = based(stage)
    work(stage)
    stage.git("add", "-A")
    stage.git("commit", "-qm", "one")
    write(stage, "z.txt", "z\n")
    stage.git("add", "-A")
    stage.git("commit", "-qm", "two")
    before = scan(stage, base).digest
    stage.git("rebase", "-q", "--no-ff", base)
    stage.git("reset", "-q", "--soft", base)
    stage.git("commit", "-qm", "squashed")
    assert scan(stage, base).digest == before


@pytest.mark.slow
def test_a_rebase_or_a_merge_that_is_under_way_is_looked_at_like_any_tree(stage):
    base = based(stage)
    stage.git("checkout", "-qb", "other")
    write(stage, "a.txt", "theirs\n")
    stage.git("commit", "-qam", "theirs")
    stage.git("checkout", "-q", "main")
    write(stage, "a.txt", "ours\n")
    write(stage, "b.txt", "ours\n")
    stage.git("commit", "-qam", "ours")
    for words in (("merge", "-q", "other"), ("rebase", "-q", "other")):
        with pytest.raises(subprocess.CalledProcessError):
            stage.git(*words)
        found = scan(stage, base)
        lying = (stage.project / "a.txt").read_bytes()
        assert lying.startswith(b"<<<<<<<") and found.files["a.txt"] == f"100644 {blob(lying)}"
        write(stage, "a.txt", "both\n")
        resolved = scan(stage, base)
        stage.git("add", "a.txt")
        assert scan(stage, base).digest == resolved.digest
        stage.git("reset", "-q", "--", "a.txt")
        write(stage, "a.txt", lying)
        stage.git(words[0], "--abort") if words[0] == "rebase" else stage.git(
            "reset", "-q", "--hard"
        )


def test_a_conflict_resolved_to_what_the_base_holds_is_no_change_before_and_after_it_is_staged(
    stage,
):
    base = based(stage)
    stage.git("checkout", "-qb", "other")
    write(stage, "a.txt", "theirs\n")
    stage.git("commit", "-qam", "theirs")
    stage.git("checkout", "-q", "main")
    write(stage, "a.txt", "ours\n")
    stage.git("commit", "-qam", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        stage.git("merge", "-q", "other")
    write(stage, "a.txt", "a\n")
    before = scan(stage, base).digest
    stage.git("add", "a.txt")
    assert scan(stage, base).digest == before


def one_byte(stage):
    write(stage, "a.txt", "changeD\n")


def one_byte_untracked(stage):
    write(stage, "new/e.txt", "neW\n")


def other_mode(stage):
    (stage.project / "new/e.txt").chmod(0o755)


def mode_back(stage):
    (stage.project / "d/c.txt").chmod(0o644)


def other_target(stage):
    (stage.project / "l").unlink()
    os.symlink("b.txt", stage.project / "l")


def file_for_link(stage):
    (stage.project / "l").unlink()
    write(stage, "l", "a.txt")


def other_name(stage):
    (stage.project / "new/e.txt").rename(stage.project / "new/f.txt")


def tracked_renamed(stage):
    (stage.project / "d/c.txt").rename(stage.project / "d/C.txt")


def one_deleted(stage):
    (stage.project / "d/C.txt").unlink()


def undeleted(stage):
    write(stage, "b.txt", "b\n")


def one_added_empty(stage):
    write(stage, "empty", "")


@pytest.mark.slow
def test_the_digest_differs_where_one_thing_differs(stage):
    base = based(stage)
    work(stage)
    digests = [scan(stage, base).digest]
    for change in (
        one_byte,
        one_byte_untracked,
        other_mode,
        mode_back,
        other_target,
        file_for_link,
        other_name,
        tracked_renamed,
        one_deleted,
        undeleted,
        one_added_empty,
    ):
        change(stage)
        digests.append(scan(stage, base).digest)
        assert digests[-1] not in digests[:-1], change.__name__
    stage.git("add", "-A")
    assert scan(stage, base).digest == digests[-1]


def test_the_digest_is_the_same_in_a_repository_that_cannot_be_written(stage):
    base = based(stage)
    work(stage)
    stage.git("add", "a.txt")
    stage.git("config", "core.splitIndex", "true")
    before = scan(stage, base).digest
    mount = f"mount --bind {stage.project}/.git {stage.project}/.git && mount -o remount,bind,ro {stage.project}/.git"
    script = f'{mount} && if touch {stage.project}/.git/x 2>/dev/null; then exit 9; fi; exec "$@"'
    before_it = ("unshare", "-m", "sh", "-c", script, "sh")
    slug = stage.open_pair().name
    child = stage.spawn(
        "claude",
        "send",
        "--kind",
        "fix",
        "--file",
        stage.file("# Fix\n"),
        "--next",
        "look",
        before=before_it,
    )
    _, err = child.communicate(timeout=30)
    if child.returncode in (1, 9, 32, 127) or "unshare" in err or "mount" in err:
        pytest.skip(f"nothing can be mounted here: {err}")
    assert child.returncode == 0, err
    assert told(stage, "claude")["recorded"] == before == told(stage, "claude")["now"], slug


# ---- where it cannot be told


def whole_round(stage, **env):
    """A fix and a review of it; what an approval is refused with, and that a pair can go on and end
    without one."""
    file = stage.file("# Fix\n", "untold.md")
    sent = stage.ok("claude", "send", "--kind", "fix", "--file", file, "--next", "look", **env)
    assert "warning: no change set is recorded" in sent.out
    stage.ok("codex", "next", **env)
    ran = stage.process("codex", "run", "--", "true", **env)
    assert ran.code == 0 and "on an unknown working tree" in ran.err, ran
    review = ("send", "--kind", "review", "--file", stage.file("# Yes\n", "yes.md"), "--next", "go")
    refused = stage.refused("codex", *review, "--verdict", "approve", "--not-run", "no", **env)
    stage.ok("codex", *review, "--verdict", "changes", **env)
    done = close(stage, **env)
    assert done.code == 2 and "--force" in done.err, done
    why = told(stage, **env)["why"]
    stage.ok("claude", "close", "--reason", "said so", "--outcome", "approve", "--force", **env)
    closed = RELAY.parse_closed(next(stage.folder.rglob("CLOSED")).read_bytes())
    assert closed["approval"] == "overridden" and "approved_by" not in closed
    return f"{why}\n{refused.err}"


def test_without_git_all_goes_on_and_nothing_can_be_approved(tmp_path, stage):
    root = stage.folder / "plain" / ".shared"
    root.parent.mkdir()
    here = {"RELAY_SHARED_ROOT": str(root), "cwd": root.parent}
    stage.ok("claude", "bootstrap", "--topic", "demo", **here)
    stage.ok("codex", "next", **here)
    assert "not in git" in whole_round(stage, **here)


def test_where_git_is_not_installed_all_goes_on_and_nothing_can_be_approved(stage):
    tools = stage.folder / "tools"
    tools.mkdir()
    for name, real in (
        ("sh", "/bin/sh"),
        ("true", shutil.which("true")),
        ("python3", sys.executable),
    ):
        os.symlink(os.path.realpath(real), tools / name)
    here = {"PATH": str(tools)}
    stage.open_pair()
    assert "git is not installed" in whole_round(stage, **here)


@pytest.mark.skipif(not shutil.which("git", path=os.defpath), reason="git is elsewhere")
def test_without_a_path_git_is_where_the_system_looks_for_programs(stage):
    stage.open_pair()
    assert stage.ok("claude", "doctor", PATH=None).out.count("git: a change set") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_somebody_else_is_said_plainly(stage):
    stage.open_pair()
    os.chown(stage.project, 12345, 12345)
    os.chown(stage.project / ".git", 12345, 12345)
    assert "safe.directory" in whole_round(stage)


@pytest.mark.slow
def test_a_base_that_was_rewritten_and_swept_away_is_said_plainly(stage):
    based(stage)
    write(stage, "a.txt", "soon gone\n")
    stage.git("commit", "-qam", "base that goes")
    pair = stage.open_pair()
    stage.git("reset", "-q", "--hard", "HEAD~")
    stage.git("reflog", "expire", "--expire=now", "--all")
    stage.git("gc", "-q", "--prune=now")
    stage.pair = pair
    assert "is not in this repository" in whole_round(stage)


def test_a_base_that_a_shallow_clone_lacks_is_said_plainly(stage):
    base = based(stage)
    write(stage, "a.txt", "later\n")
    stage.git("commit", "-qam", "later")
    clone = stage.folder / "clone"
    stage.git("clone", "-q", "--depth=1", f"file://{stage.project}", str(clone), cwd=stage.folder)
    with pytest.raises(RELAY.TreeUnknown, match="not in this repository") as unknown:
        scan(stage, base, clone)
    assert unknown.value.remedy == "git fetch --unshallow"
    stage.open_pair()
    stage.send("claude", "fix")


def test_nothing_is_fetched_to_find_the_base(stage):
    """A clone without all trees asks its remote for what it lacks: a network, and a write into the repository."""
    base = based(stage)
    write(stage, "d/c.txt", "later\n")
    stage.git("commit", "-qam", "later")
    stage.git("config", "uploadpack.allowFilter", "true")
    stage.git("config", "uploadpack.allowAnySHA1InWant", "true")
    clone = stage.folder / "clone"
    stage.git(
        "clone", "-q", "--filter=tree:0", f"file://{stage.project}", str(clone), cwd=stage.folder
    )
    before = stage.snapshot(clone / ".git")
    with pytest.raises(RELAY.TreeUnknown):
        scan(stage, base, clone)
    assert stage.snapshot(clone / ".git") == before


def test_before_the_first_commit_everything_is_new(tmp_path, stage):
    shutil.rmtree(stage.project / ".git")
    stage.git("init", "-q", "-b", "main", "--template=")
    write(stage, "a.txt", "a\n")
    stage.pair = stage.open_pair()
    stage.send("claude", "fix")
    row = holds(stage)
    assert row["reviewed"] == 1
    stage.git("add", "-A")
    holds(stage)
    stage.git("commit", "-qm", "first")
    assert holds(stage)["now"] == row["now"]
    write(stage, "a.txt", "b\n")
    assert told(stage)["moved"] == ["a.txt"]


@pytest.mark.slow
def test_a_repository_that_names_objects_by_sha256_is_reviewed_alike(stage):
    shutil.rmtree(stage.project / ".git")
    stage.git("init", "-q", "-b", "main", "--template=", "--object-format=sha256")
    assert scan(stage).total == 0
    base = based(stage)
    assert len(base) == 64
    stage.pair = stage.open_pair()
    work(stage)
    made = scan(stage, base)
    assert made.files["a.txt"] == f"100644 {blob(b'changed' + bytes([10]), 'sha256')}"
    assert made.files["l"] == f"120000 {blob(b'a.txt', 'sha256')}"
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# Yes\n", "ship", "--verdict", "approve", "--not-run", "no")
    stage.git("add", "-A")
    stage.git("commit", "-qm", "fix")
    assert scan(stage, base).digest == made.digest
    write(stage, "a.txt", "other\n")
    close_refused(stage, "a.txt")
    write(stage, "a.txt", "changed\n")
    assert close(stage).code == 0


@pytest.mark.parametrize(
    "base",
    variants(
        "--output={mark}", "HEAD", 7, slow=("--ext-diff", "HEAD~0", "main", "0" * 40, "f" * 12)
    ),
)
def test_a_base_in_session_json_that_is_no_commit_id_is_never_handed_to_git(stage, base):
    import json

    pair = stage.open_pair()
    mark = stage.folder / "written-by-git"
    session = json.loads((pair / "session.json").read_text())
    session["base_commit"] = base.format(mark=mark) if isinstance(base, str) else base
    (pair / "session.json").write_text(json.dumps(session))
    write(stage, "a.txt", "a\n")
    stage.send("claude", "fix")
    row = told(stage)
    assert not mark.exists() and not list(stage.project.glob("written*"))
    assert row["why"] or row["holds"], row
    if not row["why"]:
        write(stage, "a.txt", "b\n")
        assert told(stage)["moved"] == ["a.txt"]


# ---- nothing is written


def commands_of_a_round(stage):
    stage.send("claude", "fix")
    yield "send"
    stage.ok("codex", "next")
    yield "next"
    stage.ok("codex", "status")
    stage.ok("codex", "log")
    stage.ok("codex", "findings")
    stage.ok("codex", "verify")
    yield "looking"
    assert stage.process("codex", "run", "--", "true").code == 0
    yield "run"
    stage.send("codex", "review", "# Yes\n", "ship it", "--verdict", "approve")
    yield "review"
    assert close(stage).code == 0
    yield "close"


def under_git(stage):
    """All that lies under .git, with the time of its last write; but of a shared index git renews the time whenever it reads it."""
    found = stage.snapshot(stage.project / ".git")
    return {
        path: row if "/sharedindex." not in path else (row[0], row[2])
        for path, row in found.items()
    }


@pytest.mark.slow
def test_nothing_under_git_changes_and_no_lock_stops_it(stage):
    """With all that tempts git to write: a stale index, a split one, a cache of untracked files, packs, large files."""
    based(stage)
    write(stage, "big.bin", b"x" * 20_000)
    stage.open_pair()
    stage.git("gc", "-q")
    for setting in (
        "core.bigFileThreshold=1k",
        "core.splitIndex=true",
        "core.untrackedCache=true",
        "gc.auto=1",
        "core.preloadIndex=true",
    ):
        stage.git("config", *setting.split("="))
    stage.git("update-index", "--split-index", "--force-untracked-cache")
    assert list((stage.project / ".git").glob("sharedindex.*"))
    write(stage, "a.txt", "changed\n")
    os.utime(stage.project / "b.txt")  # Git would like to write down that it is unchanged.
    write(stage, ".git/index.lock", "held")
    before = under_git(stage)
    for what in commands_of_a_round(stage):
        assert under_git(stage) == before, what


def test_a_held_lock_does_not_keep_an_edit_from_being_seen(approved):
    write(approved, ".git/index.lock", "held")
    holds(approved)
    edit_app(approved)
    refused(approved, "app.py")


@pytest.mark.slow
def test_nothing_under_git_is_even_opened_for_writing(stage):
    """By its system calls: no create, no rename, no utime, no open for writing below .git."""
    if not shutil.which("strace"):
        pytest.skip("there is no strace")
    based(stage)
    stage.open_pair()
    write(stage, "a.txt", "changed\n")
    trace = stage.folder / "trace"
    before = ("strace", "-f", "-y", "-qq", "-o", str(trace), "-e", "trace=%file,%desc")
    child = stage.spawn(
        "claude",
        "send",
        "--kind",
        "fix",
        "--file",
        stage.file("# Fix\n"),
        "--next",
        "look",
        before=before,
    )
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    writing = (
        "O_WRONLY",
        "O_RDWR",
        "O_CREAT",
        "rename",
        "unlink",
        "utime",
        "mkdir",
        "link(",
        "linkat",
        "chmod",
        "truncate",
    )
    lines = [
        line
        for line in trace.read_text(errors="replace").splitlines()
        if (f"{stage.project}/.git/" in line or '".git/' in line) and ".git/relay" not in line
    ]
    assert lines
    assert not [line for line in lines if any(word in line for word in writing)]


# ---- any edits at all


def from_scratch(stage, base):
    """The change set by another way: every file that is there, hashed, against every file of the base."""
    before = {}
    for row in filter(None, stage_bytes(stage, "ls-tree", "-rz", base).split(b"\0")):
        about, _, path = row.partition(b"\t")
        mode, _, oid = about.decode().split()
        before[path] = f"{mode} {oid}"
    top = os.fsencode(stage.project)
    now = {}
    tracked = set(filter(None, stage_bytes(stage, "ls-files", "-z").split(b"\0")))
    for folder, folders, files in os.walk(top):
        folders[:] = [
            name for name in folders if not (folder == top and name in (b".git", b".shared"))
        ]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in (*files, *links):
            path = os.path.relpath(os.path.join(folder, name), top)
            status = os.lstat(os.path.join(folder, name))
            if path.endswith(b".log") and path not in tracked:
                continue
            if stat.S_ISLNK(status.st_mode):
                now[path] = f"120000 {blob(os.readlink(os.path.join(folder, name)))}"
            else:
                mode = "100755" if status.st_mode & 0o100 else "100644"
                oid = stage_bytes(
                    stage,
                    "hash-object",
                    "--no-filters",
                    "--stdin",
                    given=pathlib.Path(os.fsdecode(top), os.fsdecode(path)).read_bytes(),
                )
                now[path] = f"{mode} {oid.decode().strip()}"
    # A tracked path that an ignore rule covers and that is gone, or any other, counts as what it is now.
    rows = {
        path: now.get(path, "deleted")
        for path in {*before, *now}
        if now.get(path) != before.get(path)
    }
    return {os.fsdecode(path): state for path, state in rows.items()}


def stage_bytes(stage, *words, given=b""):
    env = {
        "HOME": str(stage.home),
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
    }
    return subprocess.run(
        ("git", *words), cwd=stage.project, env=env, check=True, capture_output=True, input=given
    ).stdout


def random_edit(stage, dice):
    names = (
        "a.txt",
        "b.txt",
        "d/c.txt",
        "d/e.txt",
        "n\nl",
        "-x",
        "caf\udce9",
        "d2/f",
        "x.log",
        "sp ace/\ttab",
    )
    path = dice.choice(names)
    full = stage.project / path
    what = dice.choice(
        (
            "write",
            "write",
            "delete",
            "rename",
            "chmod",
            "link",
            "stage",
            "stage all",
            "commit",
            "reset",
            "flag",
            "touch",
            "mixed",
        )
    )
    if what == "write":
        if any(
            parent.is_symlink() or parent.is_file()
            for parent in full.parents
            if parent != stage.project and stage.project in parent.parents
        ):
            return "nothing"
        if full.is_symlink():
            full.unlink()
        write(stage, path, dice.choice(("x\n", "y\n", "long\n" * 3, "", "a\n")))
    elif what == "delete" and os.path.lexists(full):
        full.unlink()
    elif what == "rename" and os.path.lexists(full):
        target = stage.project / dice.choice(names)
        target.parent.mkdir(parents=True, exist_ok=True)
        full.rename(target)
    elif what == "chmod" and full.is_file() and not full.is_symlink():
        full.chmod(dice.choice((0o644, 0o755)))
    elif what == "link":
        if os.path.lexists(full):
            full.unlink()
        full.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(dice.choice(("a.txt", "nowhere", "d")), full)
    elif what == "touch" and full.is_file() and not full.is_symlink():
        os.utime(full, (dice.randrange(10**9), dice.randrange(10**9)))
    elif what == "stage" and os.path.lexists(full):
        stage.git("add", "--", ":(literal)" + path) if not path.endswith(".log") else stage.git(
            "add", "-f", "--", path
        )
    elif what == "stage all":
        stage.git("add", "-A", "--", ".", ":!.shared")
    elif what == "commit":
        stage.git("commit", "-q", "--allow-empty", "-m", "x")
    elif what == "reset":
        stage.git("reset", "-q", "--mixed")
    elif what == "mixed":
        stage.git("reset", "-q", "--soft", "HEAD~", "--") if stage.git(
            "rev-list", "--count", "HEAD"
        ) > "3" else None
    elif what == "flag":
        tracked = [name for name in stage_bytes(stage, "ls-files", "-z").split(b"\0") if name]
        if tracked:
            stage.git("update-index", "--assume-unchanged", "--", os.fsdecode(dice.choice(tracked)))
    return f"{what} {path!r}"


def compare_with_scratch(stage, seed, edits):
    dice = random.Random(seed)
    base = based(
        stage,
        **{
            ".gitignore": "*.log\n",
            "a.txt": "a\n",
            "b.txt": "b\n",
            "d/c.txt": "c\n",
            "t.log": "tracked?\n",
        },
    )
    history = []
    for _ in range(edits):
        history.append(random_edit(stage, dice))
        found, wanted = scan(stage, base), from_scratch(stage, base)
        assert dict(found.files) == wanted, (seed, history)
        assert found.digest == RELAY.change_set_digest(wanted) and found.total == len(wanted)


def test_the_change_set_is_what_a_walk_over_all_files_finds(stage):
    compare_with_scratch(stage, 1, 12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(2, 5))
def test_the_change_set_is_what_a_walk_over_all_files_finds_after_any_edits(stage, seed):
    compare_with_scratch(stage, seed, 60)


# ---- what is recorded can be read again, however much there is


@pytest.mark.slow
def test_many_files_with_long_names_are_counted_and_not_listed(stage):
    """A sidecar that listed them all would be too large to be read: the artifact would be damaged."""
    pair = stage.open_pair()
    directory = stage.project / "/".join(letter * 200 for letter in "abcd")
    directory.mkdir(parents=True)
    for number in range(11_000):
        (directory / f"{number}").touch()
    stage.send("claude", "fix")
    assert stage.ok("codex", "next").action == "reply"
    assert stage.ok("codex", "verify").code == 0 and told(stage)["holds"]
    recorded = sidecar(pair, 1)["changeset"]
    assert recorded["count"] == 11_000 and not recorded["files"]
    stage.send("codex", "review", "# Fine\n", "go on", "--verdict", "approve", "--not-run", "read")
    (directory / "0").write_text("evil")
    assert "too many files" in stage.run("claude", "close", *APPROVING).err


def test_of_what_is_staged_differently_only_some_is_listed_and_conflicts_first(stage, monkeypatch):
    monkeypatch.setattr(RELAY, "MAX_STAGED", 3)
    pair = stage.open_pair()
    for text in ("base", "other", "ours"):
        if text != "base":
            stage.git("checkout", "-qb", text, "main")
        (stage.project / "z").write_text(text)
        stage.git("add", "-A")
        stage.git("commit", "-qm", text)
    with pytest.raises(subprocess.CalledProcessError):
        stage.git("merge", "other")
    for name in "abcdef":
        (stage.project / name).write_text("staged")
    stage.git("add", *"abcdef")
    for name in "abcdef":
        (stage.project / name).write_text("there")
    stage.send("claude", "fix")
    recorded = sidecar(pair, 1)["changeset"]
    assert [*recorded["staged"]] == ["z", "a", "b"] and recorded["count"] == 7
    stage.ok("codex", "next")
    assert "merge conflicts: z" in approve(stage).err


def test_a_pack_that_could_not_be_read_is_not_kept(stage, monkeypatch):
    monkeypatch.setattr(RELAY, "MAX_PACK_BYTES", 1000)
    pair = stage.open_pair()
    (stage.project / "large").write_bytes(random.Random(1).randbytes(2000))
    stage.send("claude", "fix")
    assert not [*pair.glob("*.pack")] and stage.ok("codex", "verify").code == 0
    (stage.project / "large").write_text("small")
    stage.send("claude", "fix")
    assert len([*pair.glob("*.pack")]) == 1 and stage.ok("codex", "verify").code == 0
