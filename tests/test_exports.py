"""The record for others: a review for GitHub, SARIF, and a statement that any clone can be checked
against by git alone."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import textwrap

import pytest
from conftest import ROOT, SCRIPT, Stage, copy_tree, dispositions, findings, reseal
from helpers.github import GitHub, problems
from hosts.clients import BASE

HOSTILE = (
    "@octocat <img src=x onerror=alert(1)> #1 GH-2 https://evil.example [go](javascript:x) `code`"
    " {0} \u202etxt.exe www.evil.example <!-- --> **bold** ~~gone~~ $x$"
)


def write(stage, name, text, cwd=None):
    path = os.path.join(os.fsencode(cwd or stage.project), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def commit(stage, message="work", cwd=None, more=()):
    stage.git("add", "-A", cwd=cwd)
    stage.git("commit", "-q", "--allow-empty", "-m", message, *more, cwd=cwd)
    return stage.git("rev-parse", "HEAD", cwd=cwd)


def numbered(changed=()):
    """Forty lines, some of them changed."""
    return "".join(f"line {n}{' changed' if n in changed else ''}\n" for n in range(1, 41))


def before(stage):
    """What main has before the change."""
    write(stage, "kept.py", "kept\n")
    write(stage, "long.py", numbered())
    write(stage, "gone.py", "gone\n")
    write(stage, "tool", "#!/bin/sh\n")
    write(stage, "old name.py", numbered())


def change(stage):
    """What is reviewed: an edit, a new file, a deletion, a mode, a rename, a symlink, strange names."""
    write(stage, "long.py", numbered((20,)))
    write(stage, "new.py", "new\n")
    os.unlink(stage.project / "gone.py")
    os.chmod(stage.project / "tool", 0o755)
    os.rename(stage.project / "old name.py", stage.project / 'new "name".py')
    write(stage, 'new "name".py', numbered((30,)))
    os.symlink("long.py", stage.project / "link")
    write(stage, b"caf\xe9.txt", "latin\n")
    write(stage, "a\nb\t%41.txt", "odd\n")


class Review:
    """A pair on the branch `work`, approved by codex; its statement, committed with the change."""

    def __init__(self, stage, before=before, change=change, title="demo", texts=(), ship=commit):
        self.stage = stage
        before(stage)
        self.base = commit(stage, "base")
        stage.git("checkout", "-q", "-b", "work")
        self.slug = stage.ok(
            "claude", "bootstrap", "--topic", "demo", "--title", title
        ).out.split()[0]
        stage.ok("codex", "next")
        change(stage)
        stage.send("claude", "fix")
        stage.ok("codex", "next")
        for each in texts:
            if callable(each):
                each(stage)
                continue
            stage.send(*each)
            stage.ok("codex" if each[0] == "claude" else "claude", "next")
        stage.ok("codex", "run", "--", "true")
        stage.send("codex", "review", "# Fine\n", "close it", "--verdict", "approve")
        self.statement = stage.ok("claude", "export", "--statement").json
        self.file = stage.folder / f"{self.slug}.json"
        self.save(self.statement)
        self.path = f"reviews/{self.slug}.json"
        write(stage, self.path, self.file.read_bytes())
        self.commit = ship(stage)

    def save(self, statement):
        self.file.write_text(json.dumps(statement))
        return self.file

    def clone(self, *more, name="clone"):
        url = f"file://{self.stage.project}"
        self.stage.git("clone", "-q", "--branch", "work", *more, url, self.stage.folder / name)
        self.cloned = self.stage.folder / name
        return self.cloned

    def verify(self, commit="HEAD", onto="origin/main", file="", cwd=None, **more):
        cwd = cwd or self.cloned
        words = ("--statement", file or cwd / self.path, "--commit", commit, "--onto", onto)
        return self.stage.run(None, "verify", *words, cwd=cwd, **more)

    def differ(self, *more, **named):
        """The paths that differ from what was approved."""
        done = self.verify(*more, **named)
        lines = re.findall("(?m)^differs from what was approved: (.*)$", done.out)
        assert done.code == (1 if lines else 0) and "unsigned" in done.out, done
        return lines


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """One review, made once; each test works on a copy."""
    made = Review(Stage(tmp_path_factory.mktemp("first")))
    made.clone()
    made.stage.git("remote", "set-url", "origin", "../project", cwd=made.cloned)
    return made


@pytest.fixture
def review(stage, first):
    copy = Review.__new__(Review)
    copy.__dict__ |= first.__dict__ | {"stage": stage, "cloned": stage.folder / "clone"}
    copy.file = stage.folder / first.file.name
    shutil.rmtree(stage.project)
    copy_tree(first.stage.folder, stage.folder)
    return copy


# ---- the statement and the commit


@pytest.mark.slow
def test_the_commit_of_what_was_approved_is_equal_in_a_clone_without_a_ledger(review):
    assert not (review.cloned / ".shared").exists()
    assert review.differ() == []
    assert review.differ(onto=review.base, cwd=review.stage.project) == []


@pytest.mark.slow
def test_only_the_statement_that_was_read_may_be_in_the_commit_unreviewed(review):
    assert review.differ(file=review.file) == [review.path], "FILE is outside the repository"
    write(review.stage, review.path, json.dumps(review.statement) + "\n", review.cloned)
    assert review.differ() == [], "other blanks"
    other = predicate(title="Other")(review.statement)
    write(review.stage, review.path, json.dumps(other), review.cloned)
    assert review.differ() == [review.path], "FILE is not that of the commit"
    os.chmod(review.cloned / review.path, 0o755)
    write(review.stage, review.path, json.dumps(review.statement), review.cloned)
    commit(review.stage, cwd=review.cloned)
    assert review.differ() == [review.path], "it is executable"


def test_a_statement_that_is_something_else_too_is_none(review):
    scripts = review.statement | {"scripts": {"postinstall": "evil"}}
    assert review.verify(file=review.save(scripts)).code == 2


def amended(review):
    review.stage.git("commit", "-q", "--amend", "-m", "another message", cwd=review.cloned)
    return "HEAD", "origin/main"


def squashed(review):
    git = review.stage.git
    git("checkout", "-q", "-b", "landed", "origin/main", cwd=review.cloned)
    git("merge", "-q", "--squash", "work", cwd=review.cloned)
    git("commit", "-q", "-m", "squashed", cwd=review.cloned)
    return "HEAD", "HEAD^1"


def upstream(review, name="upstream.py", text="upstream\n"):
    """Main moves, in the clone."""
    review.stage.git("checkout", "-q", "-b", "moved", "origin/main", cwd=review.cloned)
    write(review.stage, name, text, review.cloned)
    commit(review.stage, "upstream", cwd=review.cloned)


def moved_beside(review):
    upstream(review)
    return "work", "moved"


def rebased(review):
    upstream(review)
    review.stage.git("rebase", "-q", "moved", "work", cwd=review.cloned)
    return "work", "moved"


def merged(review):
    upstream(review)
    review.stage.git("merge", "-q", "--no-ff", "-m", "merged", "work", cwd=review.cloned)
    return "HEAD", "HEAD^1"


def main_merged_into_it(review):
    upstream(review)
    review.stage.git("checkout", "-q", "work", cwd=review.cloned)
    review.stage.git("merge", "-q", "-m", "caught up", "moved", cwd=review.cloned)
    return "work", "moved"


def squashed_after_main_moved(review):
    upstream(review)
    review.stage.git("merge", "-q", "--squash", "work", cwd=review.cloned)
    review.stage.git("commit", "-q", "-m", "squashed", cwd=review.cloned)
    return "HEAD", "HEAD^1"


ROADS = [amended, squashed, moved_beside, rebased, merged, main_merged_into_it]


@pytest.mark.parametrize("road", [*ROADS, squashed_after_main_moved], ids=lambda f: f.__name__)
def test_what_was_approved_is_equal_however_it_came_there(review, road):
    commit, onto = road(review)
    if road in (merged, squashed, squashed_after_main_moved):
        assert (review.cloned / review.path).exists()
    else:
        review.stage.git("checkout", "-q", commit, cwd=review.cloned)
    assert review.differ(commit, onto) == []


@pytest.mark.parametrize("way", ["rebase", "merge"])
def test_a_reviewed_file_that_upstream_changed_too_differs(review, way):
    upstream(review, "long.py", numbered((2,)))
    if way == "rebase":
        review.stage.git("rebase", "-q", "moved", "work", cwd=review.cloned)
        assert review.differ("work", "moved") == ["long.py"]
    else:
        review.stage.git("merge", "-q", "--no-ff", "-m", "merged", "work", cwd=review.cloned)
        assert review.differ("HEAD", "HEAD^1") == ["long.py"]


def test_a_reviewed_change_that_upstream_made_too_differs(review):
    upstream(review, "new.py", "new\n")
    review.stage.git("rebase", "-q", "moved", "work", cwd=review.cloned)
    assert review.differ("work", "moved") == ["new.py"]


def remove(review, name):
    os.unlink(os.path.join(os.fsencode(review.cloned), os.fsencode(name)))


def write_cloned(review, name, text):
    write(review.stage, name, text, review.cloned)


CHANGES = {
    "an edit of a reviewed file": (lambda r: write_cloned(r, "new.py", "evil\n"), ["new.py"]),
    "an edit of another": (lambda r: write_cloned(r, "kept.py", "evil\n"), ["kept.py"]),
    "another file": (lambda r: write_cloned(r, "evil.py", "evil\n"), ["evil.py"]),
    "a deletion of another": (lambda r: remove(r, "kept.py"), ["kept.py"]),
    "a deletion of a reviewed file": (lambda r: remove(r, "new.py"), ["new.py"]),
    "a deletion undone": (lambda r: write_cloned(r, "gone.py", "gone\n"), ["gone.py"]),
    "an edit undone": (lambda r: write_cloned(r, "long.py", numbered()), ["long.py"]),
    "a mode undone": (lambda r: os.chmod(r.cloned / "tool", 0o644), ["tool"]),
    "a mode of another": (lambda r: os.chmod(r.cloned / "kept.py", 0o755), ["kept.py"]),
    "another target": (
        lambda r: (remove(r, "link"), os.symlink("kept.py", r.cloned / "link")),
        ["link"],
    ),
    "a file for a symlink": (
        lambda r: (remove(r, "link"), write_cloned(r, "link", "long.py")),
        ["link"],
    ),
    "a symlink for a file": (
        lambda r: (remove(r, "new.py"), os.symlink("new\n", r.cloned / "new.py")),
        ["new.py"],
    ),
    "bytes that are no UTF-8": (
        lambda r: write_cloned(r, b"caf\xe9.txt", "evil\n"),
        ['"caf\\351.txt"'],
    ),
    "their twin in UTF-8": (lambda r: write_cloned(r, "café.txt", "latin\n"), ['"café.txt"']),
    "a twin in percents": (lambda r: write_cloned(r, "a%0Ab", "x\n"), ["a%0Ab"]),
    "a ledger": (lambda r: write_cloned(r, ".shared/x", "x\n"), [".shared/x"]),
    "another statement": (lambda r: write_cloned(r, "reviews/x.json", "{}\n"), ["reviews/x.json"]),
    "attributes": (lambda r: write_cloned(r, ".gitattributes", "* -diff\n"), [".gitattributes"]),
}


@pytest.mark.slow
def test_a_commit_with_more_or_less_than_was_approved_differs(review):
    found = {}
    for name, (edit, _) in CHANGES.items():
        edit(review)
        review.stage.git("add", "-A", "-f", cwd=review.cloned)
        review.stage.git("commit", "-q", "-m", "work", cwd=review.cloned)
        found[name] = review.differ()
        review.stage.git("reset", "-q", "--hard", "HEAD^", cwd=review.cloned)
    assert found == {name: paths for name, (_, paths) in CHANGES.items()}


def test_the_paths_that_differ_are_in_the_json(review):
    write_cloned(review, b"caf\xe9.txt", "evil\n")
    commit(review.stage, cwd=review.cloned)
    words = (
        "--statement",
        review.cloned / review.path,
        "--commit",
        "HEAD",
        "--onto",
        "origin/main",
    )
    done = review.stage.run(None, "verify", *words, "--json", cwd=review.cloned)
    assert done.code == 1 and not done.json["equal"] and done.json["differ"] == ["caf\udce9.txt"]


# ---- what cannot be decided


@pytest.mark.slow
def test_a_clone_without_the_history_cannot_tell(review):
    shallow = review.clone("--depth", "1", name="shallow")
    assert review.verify(onto="origin/main").code == 2
    assert review.verify(onto="HEAD^1").code == 2
    assert "hint: git fetch --unshallow" in review.verify(onto="HEAD^1").err
    review.stage.git(
        "fetch", "-q", "--depth", "1", "origin", "main:refs/remotes/origin/main", cwd=shallow
    )
    assert review.verify(onto="origin/main").code == 2
    review.stage.git("fetch", "-q", "--unshallow", cwd=shallow)
    assert review.differ() == []


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["blob:none", "tree:0"])
def test_a_partial_clone_cannot_tell_until_git_has_fetched_what_it_lacks(review, lacking):
    git = review.stage.git
    armor = "-----BEGIN SSH SIGNATURE-----\nYWJj\n-----END SSH SIGNATURE-----\n"
    write(review.stage, f"{review.path}.sig", armor)
    commit(review.stage, "signed")
    git("config", "uploadpack.allowFilter", "true")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    url = f"file://{review.stage.project}"
    review.cloned = review.stage.folder / "partial"
    git("clone", "-q", "--branch", "main", "--filter", lacking, url, review.cloned)
    write(review.stage, review.path, review.file.read_bytes(), review.cloned)
    done = review.verify("origin/work", "origin/main")
    assert done.code == 2 and done.out == "", done
    hint = done.err.split("hint: ")[1].split()
    assert hint[:2] == ["git", "diff"]
    git(*hint[1:], cwd=review.cloned)
    assert review.differ("origin/work", "origin/main") == []


def test_of_a_squashed_commit_and_the_one_before_it_a_shallow_clone_knows_enough(review):
    squashed(review)
    url = f"file://{review.cloned}"
    shallow = review.stage.folder / "shallow"
    review.stage.git("clone", "-q", "--depth", "2", "--branch", "landed", url, shallow)
    assert review.differ("HEAD", "HEAD^1", cwd=shallow) == []


def test_a_shallow_clone_may_not_see_the_nearest_place_where_the_commit_left_its_base(review):
    upstream(review)
    shallow, url = review.stage.folder / "shallow", f"file://{review.cloned}"
    words = ("clone", "-q", "--depth", "2", "--no-single-branch", "--branch", "work")
    review.stage.git(*words, url, shallow)
    assert review.stage.git("merge-base", "HEAD", "origin/moved", cwd=shallow)
    assert review.verify(onto="origin/moved", cwd=shallow).code == 2
    review.stage.git("fetch", "-q", "--unshallow", cwd=shallow)
    assert review.differ(onto="origin/moved", cwd=shallow) == []


def test_two_places_where_the_commit_left_its_base_are_none(review):
    git = review.stage.git
    upstream(review)
    git("checkout", "-q", "work", cwd=review.cloned)
    git("merge", "-q", "-m", "one", "moved", cwd=review.cloned)
    git("checkout", "-q", "moved", cwd=review.cloned)
    git("merge", "-q", "--no-ff", "-m", "two", "work^1", cwd=review.cloned)
    git("checkout", "-q", "work", cwd=review.cloned)
    assert review.verify("work", "moved").code == 2


def test_a_commit_that_its_base_has_already_differs_with_a_hint(review):
    done = review.verify("HEAD", "HEAD")
    assert done.code == 1 and "hint: " in done.err and "REV^1" in done.err


@pytest.mark.parametrize(
    "words", ["--commit nothing", "--onto nothing", "--onto -x", "--commit HEAD^{tree}"]
)
def test_a_revision_that_is_no_commit_is_refused(review, words):
    flag, revision = words.split()
    done = review.verify(**{flag[2:]: revision})
    assert done.code == 2 and done.out == "" and "hint: " in done.err


@pytest.mark.parametrize("missing", ["--statement", "--commit", "--onto"])
def test_the_three_flags_go_together(review, missing):
    words = {"--statement": str(review.file), "--commit": "HEAD", "--onto": "origin/main"}
    del words[missing]
    flags = [word for pair in words.items() for word in pair]
    assert review.stage.run(None, "verify", *flags, cwd=review.cloned).code == 2


def predicate(**changed):
    return lambda s: s | {"predicate": s["predicate"] | changed}


def listed(change):
    return lambda s: predicate(files=change(s["predicate"]["files"]))(s)


FORGED = {
    "a file less": listed(lambda files: files[1:]),
    "a file more": listed(
        lambda files: [*files, {"path": "evil.py", "state": "100644 " + "0" * 40}]
    ),
    "a file twice": listed(lambda files: [*files, files[0]]),
    "a file twice, spelled in two ways": listed(
        lambda files: [*files, {"path": "%6Eew.py", "state": "deleted"}]
    ),
    "another blob": listed(
        lambda files: [f | {"state": re.sub("[0-9a-f]{40}", "1" * 40, f["state"])} for f in files]
    ),
    "another mode": listed(
        lambda files: [f | {"state": f["state"].replace("100644", "100755")} for f in files]
    ),
    "no files": predicate(files=[]),
    "files that are none": predicate(files={"new.py": "deleted"}),
    "rows that are none": predicate(files=["new.py"]),
    "half a character in a path": listed(
        lambda files: [*files, {"path": "\ud800", "state": "deleted"}]
    ),
    "half a character in a state": listed(lambda files: [*files, {"path": "x", "state": "\ud800"}]),
    "numbers for texts": listed(lambda files: [{"path": 1, "state": 2} for _ in files]),
    "another verdict": lambda s: predicate(
        verdict=s["predicate"]["verdict"] | {"value": "changes"}
    )(s),
    "no verdict": predicate(verdict=None),
    "a verdict that is a word": predicate(verdict="approve"),
    "a digest that is not theirs": predicate(changeset="0" * 64),
    "no base": predicate(base=None),
    "a base that is a flag": predicate(base="--help"),
    "another type": lambda s: s | {"predicateType": "https://slsa.dev/provenance/v1"},
    "no in-toto statement": lambda s: s | {"_type": "https://in-toto.io/Statement/v0.1"},
    "no subject": lambda s: s | {"subject": None},
    "an empty subject": lambda s: s | {"subject": []},
    "another tree": lambda s: s | {"subject": [{"name": "x", "digest": {"gitTree": "0" * 40}}]},
    "no predicate": lambda s: s | {"predicate": []},
    "a list": lambda s: [s],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGED)
def test_a_statement_that_contradicts_itself_is_refused(review, name):
    done = review.verify(file=review.save(FORGED[name](review.statement)))
    assert done.code == 2 and done.out == "" and "hint: " in done.err, done


def test_a_statement_is_compared_with_no_pair(review):
    words = ("--statement", review.file, "--commit", "HEAD", "--onto", "HEAD")
    for pair in ((review.slug,), ("--all",), ("--pair-id", review.slug)):
        done = review.stage.refused("claude", "verify", *words, *pair)
        assert "no pair" in done.err and done.err.rstrip().endswith("relay help verify")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 10000, b'{"a": 1, "a": 2}', None]
)
def test_a_file_that_is_no_statement_is_refused(review, content):
    text = review.file.read_bytes()
    review.file.write_bytes(text[: len(text) // 2] if content is None else content)
    assert review.verify(file=review.file).code == 2
    assert review.verify(file=review.stage.folder / "missing.json").code == 2


# ---- tricks


TRICKS = {
    "attributes of the project": lambda r: write_cloned(
        r, ".gitattributes", "* -diff filter=evil\n"
    ),
    "attributes of the clone": lambda r: write_cloned(r, ".git/info/attributes", "* -diff -text\n"),
    "settings": lambda r: [
        r.stage.git("config", key, value, cwd=r.cloned)
        for key, value in {
            "core.fileMode": "false",
            "core.ignoreCase": "true",
            "core.quotePath": "false",
            "core.precomposeUnicode": "true",
            "core.attributesFile": "/dev/null",
            "core.worktree": "/",
            "diff.renames": "copies",
            "diff.orderFile": "/dev/null",
            "diff.external": "true",
            "diff.relative": "true",
            "diff.ignoreSubmodules": "all",
            "diff.noprefix": "true",
            "alias.diff-tree": "!true",
        }.items()
    ],
    "a hidden file": lambda r: r.stage.git(
        "update-index", "--assume-unchanged", "evil.py", cwd=r.cloned
    ),
    "a sparse checkout": lambda r: r.stage.git("sparse-checkout", "set", "reviews", cwd=r.cloned),
}


@pytest.mark.parametrize("name", TRICKS)
def test_nothing_in_the_clone_hides_a_file(review, name):
    write_cloned(review, "evil.py", "evil\n")
    commit(review.stage, cwd=review.cloned)
    TRICKS[name](review)
    assert review.differ() == ["evil.py"]


def test_no_replacement_hides_a_commit(review):
    good = review.stage.git("rev-parse", "HEAD", cwd=review.cloned)
    write_cloned(review, "evil.py", "evil\n")
    bad = commit(review.stage, cwd=review.cloned)
    review.stage.git("replace", bad, good, cwd=review.cloned)
    assert review.differ() == ["evil.py"]
    graft = f"{good} {bad}\n{bad}\n"
    write_cloned(review, ".git/info/grafts", graft)
    assert review.verify("HEAD", "origin/main").code != 0


def test_a_variable_leads_to_no_other_repository(review):
    write_cloned(review, "evil.py", "evil\n")
    commit(review.stage, cwd=review.cloned)
    done = review.verify("HEAD", "origin/main", GIT_DIR=str(review.stage.project / ".git"))
    assert done.code == 1 and "evil.py" in done.out


def test_it_works_below_the_top_and_in_a_bare_clone_and_not_outside(review):
    below = review.cloned / "reviews"
    words = ("--commit", "HEAD", "--onto", "origin/main")
    file = f"{review.slug}.json"
    assert review.stage.run(None, "verify", "--statement", file, *words, cwd=below).code == 0
    bare = review.stage.folder / "bare"
    review.stage.git("clone", "-q", "--bare", review.stage.project, bare)
    assert review.differ("work", "main", cwd=bare, file=review.file) == [review.path]
    outside = review.verify(cwd=review.stage.folder, file=review.file)
    assert outside.code == 2 and "hint: " in outside.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a clone away")
def test_a_clone_of_another_user_is_refused_with_the_line_that_helps(review):
    for path in (review.cloned, review.cloned / ".git"):
        os.chown(path, 12345, 12345)
    done = review.verify()
    assert done.code == 2 and "safe.directory" in done.err


@pytest.mark.slow
def test_a_repository_that_names_objects_by_sha256_has_statements(stage):
    shutil.rmtree(stage.project / ".git")
    stage.git("init", "-q", "-b", "main", "--template=", "--object-format=sha256")
    made = Review(stage)
    made.clone()
    assert made.differ() == [] and len(made.statement["subject"][0]["digest"]["gitTree"]) == 64
    assert schema_problems(made.statement, SCHEMA, SCHEMA) == []
    stage.ok("claude", "export", "--github")


def test_a_reviewer_in_another_worktree_exports_the_same_statement(review):
    """Of an archived pair too."""
    stage, other = review.stage, review.stage.folder / "other"
    stage.git("worktree", "add", "-q", "--detach", other, "main")
    done = stage.ok("codex", "export", "--statement", "--pair-id", review.slug, cwd=other)
    assert done.json == review.statement
    shutil.rmtree(stage.project / "reviews")
    stage.git("reset", "-q", "--soft", "main")
    stage.git("rm", "-q", "-r", "--cached", "reviews")
    stage.ok("claude", "close", "--outcome", "approve", "--reason", "done")
    done = stage.ok("codex", "export", "--statement", "--pair-id", review.slug, cwd=other)
    assert done.json["predicate"]["files"] == review.statement["predicate"]["files"]


def test_an_empty_change_that_was_approved_as_empty_fits_an_empty_commit(stage):
    stage.open_pair()
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.ok("codex", "run", "--", "true")
    stage.send(
        "codex", "review", "# Fine", "close", "--verdict", "approve", "--empty", "--reason", "x"
    )
    file = stage.file(stage.ok("claude", "export", "--statement").out, "statement.json")
    head = commit(stage, "empty")
    words = ("verify", "--statement", file, "--commit", head, "--onto", f"{head}^1")
    assert stage.run(None, *words).code == 0
    write(stage, "evil.py", "evil\n")
    words = (*words[:4], commit(stage), *words[5:])
    assert stage.run(None, *words).code == 1


def test_before_the_first_commit_all_of_it_is_the_change(stage):
    stage.git("update-ref", "-d", "HEAD")
    stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.ok("codex", "run", "--", "true")
    stage.send("codex", "review", "# Fine", "close it", "--verdict", "approve")
    statement = stage.ok("claude", "export", "--statement").json
    assert schema_problems(statement, SCHEMA, SCHEMA) == []
    assert trailer_of(stage.ok("claude", "close", "--outcome", "approve", "--reason", "done"))
    commit(stage)
    tree = stage.git("rev-parse", "HEAD^{tree}")
    assert statement["subject"][0]["digest"]["gitTree"] == tree


# ---- repositories within


def module_before(stage):
    """A submodule whose changes git is told to ignore."""
    before(stage)
    other = stage.folder / "other"
    other.mkdir()
    stage.git("init", "-q", "-b", "main", "--template=", cwd=other)
    write(stage, "lib.py", "lib\n", other)
    commit(stage, "lib", cwd=other)
    stage.git("submodule", "--quiet", "add", other, "sub")
    with open(stage.project / ".gitmodules", "a") as file:
        file.write("\tignore = all\n")


def bump(stage, text="more\n"):
    write(stage, "lib.py", text, stage.project / "sub")
    return commit(stage, "bump", cwd=stage.project / "sub")


@pytest.mark.slow
def test_a_submodule_is_approved_at_its_commit(stage):
    made = Review(stage, before=module_before, change=bump)
    clone = made.clone()
    assert {f["path"] for f in made.statement["predicate"]["files"]} == {"sub"}
    assert made.differ() == []
    bump(stage, "evil\n")
    stage.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub", cwd=clone)
    stage.git("commit", "-q", "-m", "bump", cwd=clone)
    assert made.differ() == ["sub"]


@pytest.mark.slow
@pytest.mark.parametrize("bumped", [True, False])
def test_a_submodule_with_uncommitted_changes_has_no_statement(stage, bumped):
    def dirty(stage):
        bump(stage) if bumped else None
        write(stage, "lib.py", "uncommitted\n", stage.project / "sub")

    with pytest.raises(AssertionError, match="a repository within"):
        Review(stage, before=module_before, change=dirty)


# ---- what was approved, and the trailer


@pytest.mark.slow
def test_a_stray_file_of_the_approved_tree_is_named_at_the_close_and_missed_by_a_commit(stage):
    def stray(stage):
        write(stage, "long.py", numbered((3,)))
        write(stage, "stray.txt", "notes\n")

    made = Review(stage, change=stray, ship=lambda stage: "")
    done = stage.ok("claude", "close", "--outcome", "approve", "--reason", "done")
    assert re.search("(?m)^closed with approved files that .*: stray.txt$", done.err), done
    stage.git("add", "long.py", "reviews")
    stage.git("commit", "-q", "-m", "without it")
    made.clone()
    assert made.differ() == ["stray.txt"]


@pytest.mark.slow
def test_a_file_that_was_not_in_the_request_is_in_no_statement_and_no_trailer(stage):
    def slipped_in(stage):
        write(stage, "slipped.py", "nobody was asked\n")

    made = Review(stage, texts=[slipped_in], ship=lambda stage: "")
    assert "slipped.py" not in [f["path"] for f in made.statement["predicate"]["files"]]
    commit(stage, "all of it")
    made.clone()
    assert made.differ() == ["slipped.py"]
    stage.git("reset", "-q", "HEAD~1")
    done = stage.ok("claude", "close", "--outcome", "approve", "--reason", "done")
    assert trailer_of(done)[1] == made.statement["subject"][0]["digest"]["gitTree"]
    assert re.search("nobody reviewed: .*slipped.py", done.err)


def trailer_of(done):
    found = re.findall(r"(?m)^Reviewed-with: relay (\S+) approve ([0-9a-f]{40})$", done.out)
    assert len(found) == 1, done
    return found[0]


def test_close_prints_a_trailer_with_the_tree_that_the_statement_names(review):
    """The commit is that tree with the statement added to it."""
    stage, statement = review.stage, review.statement
    tree = statement["subject"][0]["digest"]["gitTree"]
    stage.git("rm", "-q", "--cached", review.path)
    assert stage.git("write-tree") == tree


@pytest.mark.slow
def test_git_takes_the_trailer(stage):
    made = Review(stage, ship=lambda stage: "")
    done = stage.ok("claude", "close", "--outcome", "approve", "--reason", "done")
    slug, tree = trailer_of(done)
    assert slug == made.slug
    assert tree == made.statement["subject"][0]["digest"]["gitTree"]
    line = next(line for line in done.out.split("\n") if line.startswith("Reviewed-with: "))
    commit(stage, "work\n\nWhy.", more=("--trailer", line))
    parsed = stage.git("log", "-1", "--format=%(trailers:key=Reviewed-with,valueonly)")
    assert parsed == line.removeprefix("Reviewed-with: ")
    words = ["git", "interpret-trailers", "--parse"]
    message = stage.git("log", "-1", "--format=%B")
    read = subprocess.run(words, input=message, capture_output=True, text=True, cwd=stage.project)
    assert read.stdout.strip() == line


@pytest.mark.parametrize("flags", [("--outcome", "abandoned"), ("--outcome", "approve", "--force")])
def test_a_close_without_an_approval_prints_no_trailer(stage, flags):
    stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    done = stage.ok("claude", "close", *flags, "--reason", "enough")
    assert "Reviewed-with" not in done.out + done.err


def test_an_approval_that_is_damaged_or_not_borne_out_has_no_statement(stage):
    made = Review(stage)
    pair = stage.shared / made.slug
    reseal(pair, "002-codex-review", lambda s: s | {"evidence": []})
    done = stage.refused("claude", "export", "--statement")
    assert "002-codex-review" in done.err
    (pair / "002-codex-review.md").chmod(0o600)
    (pair / "002-codex-review.md").write_text("else\n")
    assert "damaged" in stage.refused("claude", "export", "--statement").err


@pytest.mark.slow
def test_an_approval_with_an_override_and_a_base_that_moved_has_a_statement_that_says_so(stage):
    before(stage)
    commit(stage, "base")
    stage.git("checkout", "-q", "-b", "work")
    stage.ok("claude", "bootstrap", "--topic", "demo", "--base", "main")
    stage.ok("codex", "next")
    write(stage, "new.py", "new\n")
    write(stage, "long.py", numbered((20,)))
    commit(stage)
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.git("checkout", "-q", "main")
    write(stage, "upstream.py", "upstream\n")
    commit(stage, "upstream")
    stage.git("rebase", "-q", "main", "work")
    write(stage, "long.py", numbered((20, 21)))
    commit(stage)
    more = ("--verdict", "approve", "--accept-moved", "long.py", "--reason", "a comment")
    stage.send("codex", "review", "# Fine\n", "close it", *more, "--not-run", "docs only")
    statement = stage.ok("claude", "export", "--statement").json
    assert len(statement["predicate"]["overrides"]) == 2
    assert schema_problems(statement, SCHEMA, SCHEMA) == []
    assert [f["path"] for f in statement["predicate"]["files"]] == ["long.py", "new.py"]
    file = stage.file(json.dumps(statement), "statement.json")
    words = ("verify", "--statement", file, "--commit", "work", "--onto", "main")
    assert stage.run(None, *words).code == 0


def test_no_approval_no_statement(stage):
    stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    stage.refused("claude", "export", "--statement")
    stage.ok("codex", "next")
    stage.send("codex", "review", findings("major new.py:1 wrong"))
    stage.refused("claude", "export", "--statement")


def test_what_came_after_an_approval_takes_its_statement_away(stage):
    made = Review(stage)
    stage.send("codex", "review", findings("blocker long.py:1 wrong after all"))
    assert "3.1" in stage.refused("claude", "export", "--statement").err
    for author, verb in (("claude", "refuted"), ("codex", "accepted")):
        stage.refused("claude", "export", "--statement")
        stage.send(author, "note", dispositions(f"3.1 {verb} it is meant so"))
    assert stage.ok("claude", "export", "--statement").json["predicate"]["pair"] == made.slug


LATE = {
    "changes": ("review", findings("major new.py:1 wrong"), "--verdict", "changes"),
    "a correction": ("correction", "# I take it back\n", "--corrects", "2"),
    "a finding": ("review", findings("blocker new.py:1 wrong after all")),
    "a note": ("note", "# Well done\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("late", LATE)
def test_what_arrives_after_an_approved_close_is_said_wherever_the_approval_is(stage, late):
    """As it does by sync, from a machine where the end was not known yet."""
    pair = stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# Fine\n", "x", "--verdict", "approve", "--not-run", "x")
    stage.ok("claude", "next")
    there = stage.folder / "there"
    there.mkdir()
    copy_tree(stage.project, there)
    stage.ok("claude", "close", "--outcome", "approve", "--reason", "done")
    kind, text, *more = LATE[late]
    words = ("send", "--kind", kind, "--file", stage.file(text), "--next", "x", *more)
    stage.ok("codex", *words, cwd=there)
    ended = stage.shared / "_archive" / pair.name
    for part in (there / ".shared" / pair.name).glob("003-*"):
        shutil.copy(part, ended)
    holds = late == "a note"
    named = ("--pair-id", pair.name)
    assert stage.run("claude", "export", "--statement", *named).code == (0 if holds else 2)
    looks = [("log",), ("log", "--markdown"), ("export", "--html", "-"), ("export", "--github")]
    looks += [("status",), ("next",)]
    for words in (*((*look, *named) for look in looks), ("pairs", "list", "--archived")):
        out = stage.run("claude", *words).out
        line = re.search("(?i)approved in 002-codex-review(.*)", out)[1]
        assert ("which the record does not support: " in line) != holds, words


@pytest.mark.parametrize("end", ["gone", "unreadable", "of another approval"])
def test_where_the_end_of_a_pair_is_not_known_it_has_no_statement(review, end):
    stage = review.stage
    stage.ok("claude", "close", "--outcome", "dropped", "--reason", "x")
    closed = stage.shared / "_archive" / review.slug / "CLOSED"
    closed.unlink()
    if end == "unreadable":
        closed.mkdir()
    if end == "of another approval":
        closed.write_text('outcome = "approve"\napproved_by = "009-codex-review"\n')
    done = stage.refused("claude", "export", "--statement", "--pair-id", review.slug)
    assert "no approval is on record" in done.err


def test_changes_asked_for_under_a_number_taken_early_have_no_statement(stage):
    stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    stage.ok("codex", "draft", "set", draft, "--prompt-for-next-file", stage.file("go\n", "p"))
    stage.send("codex", "review", "# Fine\n", "x", "--verdict", "approve", "--not-run", "x")
    stage.ok("claude", "export", "--statement")
    stage.ok("codex", "publish", draft, "--verdict", "changes")
    assert "no approval" in stage.refused("claude", "export", "--statement").err


# ---- a pull request


FINDINGS = (
    "major long.py:20 in a hunk",
    "minor long.py:18-22 a range in a hunk",
    "minor long.py:15-22 a range that begins before the hunk",
    "nit long.py:1 outside of the diff",
    "minor new.py:1 in a new file",
    "nit new.py of a whole file",
    "nit kept.py:1 of a file that is not in the diff",
    "nit stale.py:1 of a file that was mended since",
    r'nit "new \"name\".py":30 in a renamed file',
    r'nit "new \"name\".py":2 in a renamed file, beside what changed',
    r'nit "caf\351.txt":1 of a name that is no UTF-8',
    r'nit "a\nb\t%41.txt":1 of an odd name',
    "nit link:1 of a symlink",
    f"nit - {HOSTILE}",
    f"nit long.py:21 {HOSTILE}",
    r'nit "<img src=x> @octocat [x](y).py":1 of a hostile name',
)
INLINE = {"2.1", "2.2", "2.5", "2.9", "2.12", "2.13", "2.15", "2.16"}


def change_more(stage):
    change(stage)
    write(stage, "stale.py", "stale\n")
    write(stage, "<img src=x> @octocat [x](y).py", "hostile\n")


def mend(stage):
    write(stage, "stale.py", "mended\n")


def found(stage, rows=FINDINGS, change=change_more, mend=mend, **more):
    answer = dispositions("2.1 fixed " + HOSTILE)
    texts = [("codex", "review", findings(*rows)), mend, ("claude", "fix", answer)]
    return Review(stage, change=change, texts=texts, title=HOSTILE, **more)


@pytest.fixture(scope="module")
def pull(tmp_path_factory):
    """A pull request with findings of every kind; what is read of it changes nothing."""
    stage = Stage(tmp_path_factory.mktemp("pull"))
    return found(stage, ship=commit_and_push)


def commit_and_push(stage):
    """With a moved main, as most have."""
    head = commit(stage)
    stage.git("checkout", "-q", "main")
    write(stage, "upstream.py", "upstream\n")
    write(stage, "long.py", "upstream\n" * 3 + numbered())
    commit(stage, "upstream")
    stage.git("checkout", "-q", "work")
    return head


def ids(payload):
    return {re.match(r"\*\*\w+\*\* (\S+):", each["body"])[1] for each in payload["comments"]}


def test_github_takes_the_review_and_findings_are_inline_where_they_are_in_the_diff(pull):
    payload = pull.stage.ok("claude", "export", "--github").json
    assert problems(payload, pull.stage.project, "main") == []
    assert payload["commit_id"] == pull.commit and ids(payload) == INLINE
    lines = {i: (c["path"], c.get("start_line"), c["line"]) for i, c in by_id(payload).items()}
    assert lines["2.1"] == ("long.py", None, 20) and lines["2.2"] == ("long.py", 18, 22)
    for number in range(1, len(FINDINGS) + 1):
        assert re.search(rf"\n- \w+ 2\.{number} ", payload["body"]), "the body has every finding"


def test_a_review_on_github_says_where_its_commit_is_not_what_was_approved(review):
    def body():
        return review.stage.ok("claude", "export", "--github", "--pair-id", review.slug).json[
            "body"
        ]

    assert "is not what was approved" not in body(), "but for the statement itself"
    review.stage.ok("claude", "close", "--outcome", "approve", "--force", "--reason", "done")
    write(review.stage, "slipped.py", "evil\n")
    write(review.stage, "slipped.json", json.dumps(review.statement | {"scripts": {}}))
    commit(review.stage, "more")
    words = re.search(r"is not what was approved: (.*)", body())[1]
    assert words == "slipped.json, slipped.py"


def by_id(payload):
    return {re.match(r"\*\*\w+\*\* (\S+):", c["body"])[1]: c for c in payload["comments"]}


def test_without_inline_comments_everything_is_in_the_body(pull):
    payload = pull.stage.ok("claude", "export", "--github", "--no-inline").json
    assert payload["comments"] == [] and problems(payload, pull.stage.project, "main") == []
    for number in range(1, len(FINDINGS) + 1):
        assert re.search(rf"\n- \w+ 2\.{number} ", payload["body"])


@pytest.mark.slow
def test_a_review_of_the_last_commit_is_inline_only_in_the_diff_of_the_pull_request(stage):
    """The commit undoes a line that an earlier one of the same pull request had changed."""

    def earlier(stage):
        before(stage)
        commit(stage, "main")
        stage.git("checkout", "-q", "-b", "main-stays")
        write(stage, "long.py", numbered((5, 35)))

    def undo(stage):
        write(stage, "long.py", numbered((35,)))

    rows = ("minor long.py:5 undone", "minor long.py:35 untouched by this commit")
    texts = [("codex", "review", findings(*rows))]
    Review(stage, before=earlier, change=undo, texts=texts)
    stage.git("branch", "-q", "-f", "target", "main-stays~1")
    alone = stage.ok("claude", "export", "--github").json
    assert ids(alone) == {"2.1"}, "compared with the base of the pair"
    asked = stage.ok("claude", "export", "--github", "--onto", "target").json
    assert ids(asked) == {"2.2"} and problems(asked, stage.project, "target") == []
    assert "hint: " in stage.refused("claude", "export", "--github", "--onto", "nothing").err


SETTINGS = {
    "diff.context": "30",
    "diff.interHunkContext": "30",
    "diff.renames": "false",
    "diff.algorithm": "patience",
    "diff.external": "false",
    "diff.noprefix": "true",
    "diff.relative": "true",
    "color.ui": "always",
    "core.quotePath": "false",
}


def test_no_setting_puts_a_comment_outside_of_the_diff(pull):
    stage = pull.stage
    more = {f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(SETTINGS)}
    more |= {f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(SETTINGS.values())}
    more["GIT_CONFIG_COUNT"] = str(len(SETTINGS))
    below = stage.project / "reviews"
    payload = stage.ok("claude", "export", "--github", cwd=below, **more).json
    assert ids(payload) == INLINE


LIVE = (
    r"@octocat|#1|GH-2|https?://|www\.|<img|<!--|(?<!\\)[`*\[]code|(?<!\\)\*\*bold|(?<!\\)~~gone"
    r"|(?<!\\)\[(?:go|x)|(?<!\\)\$x|\u202e"
)


def test_the_words_of_others_are_nothing_but_text_on_github(pull):
    payload = pull.stage.ok("claude", "export", "--github").json
    for text in (payload["body"], *(each["body"] for each in payload["comments"])):
        assert not re.search(LIVE, text), re.search(LIVE, text)
        assert "octocat" not in text or "@&#8203;octocat" in text
    assert re.search(LIVE, HOSTILE) and "octocat" in payload["body"]


def test_nothing_that_is_printed_drives_a_terminal(pull):
    for form in ("--github", "--sarif", "--statement"):
        out = pull.stage.ok("claude", "export", form).out
        assert "\u202e" not in out and json.loads(out), form


@pytest.mark.parametrize("words", [("log", "--markdown"), ("export", "--github")])
def test_a_long_record_is_cut_to_what_github_takes(stage, words):
    rows = [f"nit - {n} {'<&' * 150}" for n in range(120)]
    stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.send("codex", "review", findings(*rows))
    done = stage.ok("claude", *words)
    text = done.out if "log" in words else done.json["body"]
    assert 60_000 < len(text) <= 65_536 and "2.1 nit" in text
    assert re.search("Cut here.*65,536 characters", text.rstrip("\n").split("\n")[-1])


def test_before_the_first_commit_there_is_nothing_to_review_on_github(tmp_path):
    stage = Stage(tmp_path)
    stage.git("update-ref", "-d", "HEAD")
    stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    stage.refused("claude", "export", "--github")


def test_outside_git_an_export_for_github_is_refused_with_what_git_says(stage):
    place = stage.folder / "plain"
    place.mkdir()
    more = {"cwd": place, "RELAY_SHARED_ROOT": str(place / ".shared")}
    stage.ok("claude", "bootstrap", "--topic", "demo", **more)
    refused = stage.refused("claude", "export", "--github", **more)
    assert "not a git repository" in refused.err


@pytest.mark.parametrize(
    "words", ["", "--github --sarif", "--sarif --statement", "--html x --sarif"]
)
def test_one_form_at_a_time(pull, words):
    pull.stage.refused("claude", "export", *words.split())


@pytest.mark.slow
def test_a_damaged_artifact_is_named_and_left_out_but_for_the_findings_that_others_carry(stage):
    made = found(stage)
    artifact = stage.shared / made.slug / "002-codex-review.md"
    artifact.chmod(0o600)
    artifact.write_text("else\n")
    for form in ("--github", "--sarif"):
        done = stage.run("claude", "export", form)
        assert done.code == 1 and "002-codex-review" in done.err and done.json, done
        assert "in a renamed file" in done.out


# ---- SARIF


def test_every_sarif_result_has_a_place_and_the_others_are_notifications(pull):
    run = pull.stage.ok("claude", "export", "--sarif").json["runs"][0]
    for result in run["results"]:
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    uris = [
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]
    ]
    assert {"long.py", "caf%E9.txt", "a%0Ab%09%2541.txt", "new%20%22name%22.py"} <= {*uris}
    assert all(re.fullmatch("[A-Za-z0-9%._~/-]+", uri) for uri in uris)
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert len(run["results"]) + len(notes) == len(FINDINGS) and len(notes) == 1
    assert [r["exitCode"] for r in run["invocations"][1:]] == [0]
    region = run["results"][1]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 18, "endLine": 22}


def test_the_words_of_others_make_no_link_and_no_placeholder_in_sarif(pull):
    run = pull.stage.ok("claude", "export", "--sarif").json["runs"][0]
    notes = run["invocations"][0]["toolExecutionNotifications"]
    texts = [each["message"]["text"] for each in (*run["results"], *notes)]
    assert sum("octocat" in text for text in texts) == 2
    for text in texts:
        assert not re.search(r"(?<!\\)[\[\]]|(?<!{){(?!{)|\u202e", text)


def test_a_finding_of_a_ledger_from_elsewhere_has_a_sound_place_or_none(stage):
    made = found(stage)
    hostile = ["/etc/passwd", "../up.py", "a//b", "", "C:x\ud800.py", "a\0b"]

    def change(sidecar):
        for row, path in zip(sidecar["findings"], hostile, strict=False):
            row["path"], row["line"] = path, "9-3"
        sidecar["findings"][5]["line"] = "0"
        return sidecar

    reseal(stage.shared / made.slug, "002-codex-review", change)
    done = stage.run("claude", "export", "--sarif")
    for run in done.json["runs"]:
        for result in run["results"]:
            place = result["locations"][0]["physicalLocation"]
            region = place.get("region", {"startLine": 1, "endLine": 1})
            assert 0 < region["startLine"] <= region["endLine"]
            assert not re.search(r"\A/|\.\.|//|:", place["artifactLocation"]["uri"])
    assert problems(stage.run("claude", "export", "--github").json, stage.project, "main") == []


def test_a_run_that_was_to_fail_and_did_has_succeeded(stage):
    stage.open_pair()
    write(stage, "new.py", "new\n")
    stage.run("claude", "run", "--expect-fail", "--", "false")
    stage.run("claude", "run", "--", "false")
    stage.send("claude", "fix")
    run = stage.ok("claude", "export", "--sarif").json["runs"][0]
    assert [each["executionSuccessful"] for each in run["invocations"]] == [True, True, False]
    assert run["results"] == []


# ---- the schema, and the page about CI


def schema_problems(value, schema, root, where="$"):
    """Where a value breaks a schema; of JSON Schema, what docs/statement.schema.json uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]] | {
            key: part for key, part in schema.items() if key != "$ref"
        }
    known = {"description", "title", "$schema", "$id", "$defs", "$ref", "type", "const", "enum"}
    known |= {"pattern", "required", "properties", "additionalProperties", "items"}
    assert schema.keys() <= known | {"minItems", "maxItems"}, where
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    kinds["null"] = type(None)
    allowed = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", kinds)
    if not any(type(value) is kinds[each] for each in allowed):
        return [f"{where} is no {allowed}"]
    bad = value not in schema.get("enum", [value]) or value != schema.get("const", value)
    bad |= type(value) is str and not re.search(schema.get("pattern", ""), value)
    found = [f"{where}: {value}"] if bad else []
    if type(value) is list:
        size = len(value)
        if not schema.get("minItems", 0) <= size <= schema.get("maxItems", size):
            found.append(f"{where} has {size} items")
        for at, each in enumerate(value):
            found += schema_problems(each, schema["items"], root, f"{where}[{at}]")
    if type(value) is dict:
        found += [
            f"{where}.{key} is missing" for key in schema.get("required", ()) if key not in value
        ]
        for key, each in value.items():
            part = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            if part is False:
                found.append(f"{where}.{key}")
            else:
                found += schema_problems(each, part, root, f"{where}.{key}")
    return found


SCHEMA = json.loads((ROOT / "docs" / "statement.schema.json").read_text())


def test_statements_fit_the_schema(pull, review):
    for statement in (pull.statement, review.statement):
        assert schema_problems(statement, SCHEMA, SCHEMA) == []
        assert statement["predicateType"] == SCHEMA["$id"]
    assert pull.statement["predicate"]["findings"] and pull.statement["predicate"]["runs"]
    states = {f["state"].split()[0] for f in pull.statement["predicate"]["files"]}
    assert states == {"deleted", "100644", "100755", "120000"}


@pytest.mark.parametrize(
    "change",
    [
        predicate(base="main"),
        predicate(more=1),
        predicate(files=[{"path": "a b", "state": "deleted"}]),
        predicate(files=[{"path": "a", "state": "100644"}]),
        predicate(verdict={"value": "changes", "reviewer": "codex", "artifact": "x"}),
        lambda s: s | {"more": 1},
        lambda s: s | {"subject": []},
    ],
)
def test_the_schema_refuses_what_is_no_statement(review, change):
    assert schema_problems(change(review.statement), SCHEMA, SCHEMA)


def test_a_schema_checker_agrees(pull):
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert list(validator.iter_errors(pull.statement)) == []


CI = (ROOT / "docs" / "ci.md").read_text()
JOBS = [textwrap.dedent(job) for job in re.findall(r"(?ms)^ +- (?:run: )?\|\n(.*?)^```", CI)]
RECIPE = re.search(r"(?ms)^```sh\n(.*?)^```", CI)[1]


def test_the_page_about_ci_is_short_and_both_jobs_run_the_same_ten_lines():
    assert len(CI.split("\n")) - 1 <= 80
    assert len(JOBS) == 2 and JOBS[0] == JOBS[1] and JOBS[0].count("\n") == 10


class Job:
    """The ten lines of docs/ci.md in a clone of the base branch, with a real key."""

    def __init__(self, stage):
        self.stage = stage
        self.key = self.new_key("key")
        words = "reviewer@example.invalid " + (self.key.with_suffix(".pub")).read_text()

        def with_signers(stage):
            before(stage)
            write(stage, "reviews/allowed_signers", words)

        self.review = Review(stage, before=with_signers, ship=lambda stage: "")
        done = stage.ok("claude", "close", "--outcome", "approve", "--reason", "done")
        self.trailer = re.search("(?m)^Reviewed-with: .*$", done.out)[0]
        self.pin = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()

    def new_key(self, name):
        path = self.stage.folder / name
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)
        subprocess.run(words, check=True)
        return path

    def sh(self, text, cwd, **more):
        env = self.stage.env(None, TMPDIR=str(self.stage.folder), **more)
        for role in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{role}_NAME": "t", f"GIT_{role}_EMAIL": "t@example.invalid"}
        words = ["sh", "-c", text]
        return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)

    def ship(self, key=None):
        """Signs and commits by the recipe."""
        os.makedirs(self.stage.home / ".ssh", exist_ok=True)
        shutil.copy(key or self.key, self.stage.home / ".ssh" / "id_ed25519")
        more = {"file": self.review.path, "trailer": self.trailer}
        done = self.sh("set -e\n" + RECIPE, self.stage.project, **more)
        assert done.returncode == 0, done

    def run(self, **more):
        clone = self.stage.folder / "ci"
        shutil.rmtree(clone, ignore_errors=True)
        self.stage.git("clone", "-q", "--branch", "main", f"file://{self.stage.project}", clone)
        env = {"RELAY_URL": f"file://{SCRIPT}", "RELAY_SHA256": self.pin, "TARGET": "main"}
        env["REV"] = self.stage.git("rev-parse", "work")
        return self.sh(JOBS[0], clone, **(env | more))


needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("ssh-keygen", "curl", "sha256sum"))),
    reason="needs ssh-keygen, curl and sha256sum",
)


@pytest.mark.slow
@needs_tools
def test_the_job_and_the_signing_recipe_of_the_page_run_as_they_are(stage):
    job = Job(stage)
    job.ship()
    assert job.trailer in stage.git("log", "-1", "--format=%(trailers)").split("\n")
    done = job.run()
    assert done.returncode == 0 and "equal to what was approved" in done.stdout, done
    pinned = job.run(RELAY_SHA256="0" * 64)
    assert pinned.returncode != 0 and "equal" not in pinned.stdout
    write(stage, "evil.py", "evil\n")
    commit(stage)
    done = job.run()
    assert done.returncode == 1 and "evil.py" in done.stdout, done


def own_signer(job):
    other = job.new_key("other")
    words = "reviewer@example.invalid " + other.with_suffix(".pub").read_text()
    write(job.stage, "reviews/allowed_signers", words)
    job.ship(other)


def own_relay(job):
    write(job.stage, "skills/agent-relay/bin/relay", "#!/bin/sh\necho equal\nexit 0\n")
    write(job.stage, "relay", "#!/bin/sh\necho equal\nexit 0\n")
    job.ship()


def not_signed(job):
    commit(job.stage)


def changed_after_signing(job):
    job.ship()
    statement = job.stage.project / job.review.path
    statement.write_text(statement.read_text().replace('"codex"', '"nobody"'))
    commit(job.stage)


def none(job):
    shutil.rmtree(job.stage.project / "reviews")
    commit(job.stage)


def two(job):
    write(job.stage, "reviews/other.json", json.dumps(job.review.statement))
    job.ship()


def signature_that_is_a_program(job):
    job.ship()
    path = f"{job.review.path}.sig"
    text = (job.stage.project / path).read_text()
    write(job.stage, path, f"{text}#!/bin/sh\n")
    commit(job.stage)


BREAKS = [own_signer, own_relay, not_signed, changed_after_signing, none, two]
BREAKS.append(signature_that_is_a_program)


@needs_tools
@pytest.mark.slow
@pytest.mark.parametrize("broken", BREAKS, ids=lambda f: f.__name__)
def test_the_job_of_the_page_fails_for(stage, broken):
    job = Job(stage)
    broken(job)
    done = job.run()
    assert done.returncode != 0 and "equal to" not in done.stdout, done


# ---- the tools that read it


NPM = ("@octokit/openapi@23.0.2", "@microsoft/sarif-multitool@5.7.0")


@pytest.fixture(scope="session")
def packages():
    """GitHub's own description of its API and Microsoft's checker of SARIF, from npm, once."""
    folder = os.environ.get("RELAY_TEST_EXPORT_TOOLS") or os.path.join(BASE, "export-tools")
    modules = os.path.join(folder, "node_modules")
    if not all(os.path.isdir(f"{modules}/{each.rpartition('@')[0]}") for each in NPM):
        if not shutil.which("npm"):
            pytest.skip("there is no npm, so neither GitHub's description nor Microsoft's checker")
        os.makedirs(folder, exist_ok=True)
        words = (
            "npm",
            "install",
            "--loglevel=error",
            "--no-audit",
            "--no-fund",
            "--prefix",
            folder,
        )
        done = subprocess.run([*words, *NPM], capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"npm could not bring the packages: {done.stderr.strip()[-200:]}")
    return modules


@pytest.fixture(scope="session")
def description(packages):
    with open(f"{packages}/@octokit/openapi/generated/api.github.com.json") as file:
        return json.load(file)


@pytest.mark.hosts
def test_the_real_gh_hands_the_review_to_what_github_describes(pull, description, tmp_path):
    if not shutil.which("gh"):
        pytest.skip("there is no gh (apt-get install gh)")
    socket = tmp_path / "socket"
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "GH_TOKEN": "none"}
    env |= {"GH_CONFIG_DIR": str(tmp_path / "gh"), "NO_COLOR": "1"}

    def gh(*words, stdin=""):
        words = ["gh", *words]
        return subprocess.run(
            words, env=env, input=stdin, capture_output=True, text=True, timeout=60
        )

    assert gh("config", "set", "http_unix_socket", str(socket)).returncode == 0
    review = pull.stage.ok("claude", "export", "--github").out
    with GitHub(socket, description, pull.stage.project, "main") as github:
        words = ("api", "repos/o/r/pulls/1/reviews", "--input", "-")
        done = gh(*words, stdin=review)
        assert done.returncode == 0 and json.loads(done.stdout) == {"id": 1}, done
        assert github.taken == [json.loads(review)]
        payload = json.loads(review)
        payload["comments"][0]["line"] = 1
        assert gh(*words, stdin=json.dumps(payload)).returncode != 0
        assert gh(*words, stdin=json.dumps(payload | {"comments": [{"body": 1}]})).returncode != 0
        assert len(github.refused) == 2, "the stand-in refuses what GitHub refuses"


@pytest.mark.hosts
def test_microsofts_checker_finds_no_error_in_the_sarif(pull, packages, tmp_path):
    found = glob.glob(f"{packages}/@microsoft/sarif-multitool-*/Sarif.Multitool")
    if not found:
        pytest.skip("npm brought no checker for this system")
    os.chmod(found[0], 0o755)
    file, report = tmp_path / "review.sarif", tmp_path / "report.sarif"

    def errors(text):
        file.write_text(text)
        words = (found[0], "validate", file, "--output", report, "--log", "ForceOverwrite")
        rules = ("--rule-kind", "Sarif;Ghas", "--level", "Error;Warning", "--kind", "Fail")
        env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        env["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "1"
        done = subprocess.run(
            [*words, *rules], env=env, capture_output=True, text=True, timeout=120
        )
        assert report.exists(), done
        run = json.loads(report.read_text(encoding="utf-8-sig"))["runs"][0]
        rows = [r["ruleId"] for r in run.get("results", ()) if r.get("level") == "error"]
        for each in run["invocations"]:
            notes = each.get("toolConfigurationNotifications", [])
            notes += each.get("toolExecutionNotifications", [])
            rows += [n["descriptor"]["id"] for n in notes if n.get("level") == "error"]
        return sorted({*rows})

    text = pull.stage.ok("claude", "export", "--sarif").out
    assert errors(text) == []
    document = json.loads(text)
    del document["runs"][0]["results"][0]["locations"]
    assert errors(json.dumps(document)), "it finds a result without a place"
