"""The record survives the working tree: what is published is in the git directory too, and comes back."""

import errno
import os
import shutil
import subprocess

import pytest
from conftest import IDENTITY, RELAY, reseal


def copy_of(stage, slug):
    return stage.project / ".git" / "relay" / slug


@pytest.fixture
def asked(stage):
    """A pair with a request that codex has read."""
    (stage.project / "app.py").write_text("x = 2\n")
    stage.pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    return stage


def files_of(pair):
    """The published files and the logs of a pair, with their bytes."""
    paths = [*pair.glob("0*"), pair / "session.json", *pair.glob(".seen/*"), *pair.glob(".sent/*")]
    return {str(p.relative_to(pair)): p.read_bytes() for p in paths if p.suffix != ".pack"}


def test_what_is_published_is_in_the_git_directory_with_inodes_of_its_own(asked):
    copy = copy_of(asked, asked.pair.name)
    assert files_of(copy).keys() == files_of(asked.pair).keys()
    assert files_of(copy) == files_of(asked.pair)
    for path in copy.glob("0*"):
        assert path.stat().st_nlink == 1 and path.stat().st_mode & 0o777 == 0o400
    assert not list(copy.rglob("*.pack")) and not (copy / ".draft").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [
        ("git", "clean", "-fdx"),
        ("git", "clean", "-fdX"),
        ("git", *IDENTITY, "stash", "--all"),
        ("rm", "-r", ".shared"),
    ],
    ids=lambda loss: " ".join(loss[-2:]),
)
def test_a_ledger_that_was_swept_away_is_named_and_comes_back(asked, loss):
    before = files_of(asked.pair)
    subprocess.run(loss, cwd=asked.project, env=asked.env(), check=True, capture_output=True)
    done = asked.ok("claude", "next")
    assert done.action == "restore" and done.next == f"restore {asked.pair.name}"
    assert f"restore {asked.pair.name}" in asked.run("claude", "status").err
    assert "restore" in asked.refused("claude", "bootstrap", "--topic", "demo").err
    assert f"restore {asked.pair.name}" in asked.run("claude", "doctor").out
    dry = asked.ok("claude", "restore", "--dry-run")
    assert "would be restored" in dry.out and not asked.pair.exists()
    asked.ok("claude", "restore")
    assert files_of(asked.pair) == before
    assert asked.ok("claude", "verify", asked.pair.name).code == 0
    assert asked.ok("codex", "next").action == "reply"
    asked.send("codex", "note")
    assert asked.ok("claude", "next").action == "reply"
    assert asked.ok("claude", "restore").out.startswith("nothing is missing")


@pytest.mark.parametrize("logged", [True, False])
def test_a_number_that_was_published_is_never_given_again(asked, logged):
    """Also where nothing but the second copy knows of it any more."""
    asked.send("claude", "note", "# The first of its number\n")
    for path in asked.pair.glob("002-*"):
        path.unlink()
    for path in [] if logged else [*asked.pair.glob(".sent/*"), *asked.pair.glob(".seen/*")]:
        path.unlink()
    asked.send("claude", "note", "# After it\n")
    assert sorted(path.name[:3] for path in asked.pair.glob("*.ready")) == ["001", "003"]
    for author, words in (("claude", ["next"]), ("codex", ["next"]), ("claude", ["status"])):
        done = asked.ok(author, *words)
        assert "002-claude-note: was published and is gone" in done.out
        assert done.next == f"restore {asked.pair.name}"
    assert "002-claude-note" in asked.run("claude", "verify").out
    assert "002-claude-note" in asked.run("claude", "doctor").out
    asked.ok("claude", "restore")
    assert "# The first of its number" in asked.ok("codex", "next").out
    assert asked.ok("claude", "verify").code == 0


def test_a_copy_that_was_torn_is_made_again(asked):
    """As a power loss may leave it: it is not synced."""
    copy = copy_of(asked, asked.pair.name)
    (copy / "001-claude-plan.ready").unlink()
    (copy / "001-claude-plan.md").unlink()
    (copy / "001-claude-plan.md").write_bytes(b"")
    asked.ok("claude", "next")
    assert files_of(copy) == files_of(asked.pair)
    for log in (*copy.glob(".seen/*"), *copy.glob(".sent/*")):
        log.write_bytes(log.read_bytes()[:20] + bytes(40))
    asked.send("codex", "review")
    asked.ok("claude", "next")
    assert files_of(copy) == files_of(asked.pair)


@pytest.mark.parametrize(
    "name", ["001-claude-plan.md", "001-claude-plan.json", "session.json", "CLOSED", "all"]
)
@pytest.mark.parametrize("as_zeros", [False, True])
def test_what_is_torn_or_missing_in_the_copy_is_named_and_copied_again(asked, name, as_zeros):
    """Also of a pair in the archive, as after a power loss or in a new clone; what is sound in the
    ledger stays as it is."""
    slug, copy = asked.pair.name, copy_of(asked, asked.pair.name)
    asked.ok("claude", "close", "--reason", "done")
    archived = asked.shared / "_archive" / slug
    before, closed = files_of(archived), (archived / "CLOSED").read_bytes()
    if name == "all":
        shutil.rmtree(copy)
    else:
        (copy / name).chmod(0o600)
        (copy / name).write_bytes(bytes((copy / name).stat().st_size * as_zeros))
    assert asked.run("claude", "restore").code == (name == "session.json")
    assert files_of(archived) == before and (archived / "CLOSED").read_bytes() == closed
    (row,) = [r for r in asked.run("claude", "doctor", "--json").json["infos"] if slug in r["why"]]
    assert row["id"] == "pair.uncopied" and (
        name.partition(".")[0] in row["why"] or name in ("session.json", "all")
    )
    assert "all well" in asked.ok(None, *row["remedy"].split()[1:]).out
    assert not asked.run("claude", "doctor", "--json").json["infos"]
    shutil.rmtree(asked.shared)
    asked.ok("claude", "restore")
    assert files_of(archived) == before and (archived / "CLOSED").read_bytes() == closed


@pytest.mark.parametrize("suffix", ["md", "json", "md.sha256", "ready"])
@pytest.mark.parametrize("how", ["edited", "gone"])
def test_one_damaged_or_missing_file_comes_back(asked, suffix, how):
    before = files_of(asked.pair)
    path = asked.pair / f"001-claude-plan.{suffix}"
    if how == "gone":
        path.unlink()
    elif suffix == "ready":
        pytest.skip("its content means nothing")
    else:
        path.chmod(0o600)
        path.write_text("other\n")
    assert asked.ok("codex", "next").next == f"restore {asked.pair.name}"
    for author in ("claude", "codex", None):
        done = asked.ok(author, "status")
        assert "second copy" in done.out and f"restore {asked.pair.name}" in done.out, done
    asked.ok("codex", "restore", asked.pair.name)
    assert files_of(asked.pair) == before
    assert asked.ok("codex", "next").action == "reply"


def test_what_was_rewritten_with_all_its_hashes_after_it_was_delivered_comes_back(asked):
    before = files_of(asked.pair)
    reseal(asked.pair, "001-claude-plan", text=lambda text: text.replace("# Text", "# Other"))
    assert asked.ok("codex", "next").next == f"restore {asked.pair.name}"
    asked.ok("codex", "restore", asked.pair.name)
    assert files_of(asked.pair) == before and asked.ok("codex", "next").action == "reply"


def test_no_restore_is_offered_for_what_the_copy_has_as_it_is_here(asked):
    reseal(asked.pair, "001-claude-plan", lambda sidecar: sidecar | {"findings": "none"})
    shutil.rmtree(copy_of(asked, asked.pair.name))
    asked.ok("codex", "status")
    faults = asked.run("codex", "verify", "--json").json["pairs"][0]["faults"]
    assert faults and "restore it from a backup" in faults[0]["remedy"]


def test_what_fails_its_hash_in_the_copy_is_not_restored(asked):
    part = copy_of(asked, asked.pair.name) / "001-claude-plan.md"
    part.chmod(0o600)
    part.write_text("forged\n")
    damaged = asked.pair / "001-claude-plan.md"
    damaged.chmod(0o600)
    damaged.write_text("broken\n")
    done = asked.run("codex", "restore", asked.pair.name)
    assert done.code == 1 and "001-claude-plan" in done.out
    assert damaged.read_text() == "broken\n"


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink", "large"])
@pytest.mark.parametrize("name", [".seen/codex-0.jsonl", ".sent/claude.jsonl", "CLOSED"])
def test_what_cannot_be_read_in_the_copy_keeps_nothing_else_from_coming_back(asked, name, kind):
    path = copy_of(asked, asked.pair.name) / name
    path.unlink(missing_ok=True)
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to("/etc/passwd")
    else:
        with path.open("wb") as file:
            file.truncate(40 << 20)
    before = files_of(asked.pair)
    shutil.rmtree(asked.shared)
    done = asked.run("claude", "restore")
    assert done.code == 1 and f"damaged in the copy too: {name}" in done.out, done
    pair = next(asked.shared.rglob(asked.pair.name))
    after = {**before, **files_of(pair)}
    assert after == before and "001-claude-plan.ready" in files_of(pair)


def test_a_good_file_is_never_replaced_and_a_newer_pair_of_that_name_is_left_alone(asked):
    good = (asked.pair / "001-claude-plan.md").read_bytes()
    copy = copy_of(asked, asked.pair.name)
    for path in copy.glob("001*"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes() + b"x")
    asked.run("codex", "restore", asked.pair.name)
    assert (asked.pair / "001-claude-plan.md").read_bytes() == good
    session = asked.pair / "session.json"
    session.write_text(session.read_text().replace('"created_at": "2', '"created_at": "1'))
    before = asked.snapshot(asked.shared)
    asked.refused("codex", "restore", asked.pair.name)
    assert asked.snapshot(asked.shared) == before
    before = files_of(copy)
    asked.run("codex", "verify", asked.pair.name)
    asked.send("codex", "review")
    assert files_of(copy) == before


def test_a_pair_that_is_opened_after_the_loss_gets_a_name_of_its_own(asked):
    shutil.rmtree(asked.shared)
    slug = asked.ok("claude", "bootstrap", "--topic", "demo", "--force").out.split()[0]
    assert slug != asked.pair.name
    asked.ok("claude", "restore")
    assert asked.pair.is_dir()


def test_a_closed_pair_and_what_the_user_decided_are_in_the_copy(asked):
    asked.send("codex", "decision", "# Ship?\n", "@user: ship it?")
    asked.ok("claude", "next")
    asked.ok("claude", "continue")
    asked.ok("claude", "close", "--reason", "done")
    assert "restore" not in asked.ok("claude", "pairs", "list").out
    copy = copy_of(asked, asked.pair.name)
    assert (copy / "CLOSED").read_bytes() == (
        asked.shared / "_archive" / asked.pair.name / "CLOSED"
    ).read_bytes()
    shutil.rmtree(asked.shared)
    for words in (("status",), ("doctor",), ("pairs", "list")):  # An ended one is missed, too.
        done = asked.run("claude", *words)
        assert f"restore {asked.pair.name}" in done.out + done.err, done
    assert asked.ok("claude", "next").action == "bootstrap"
    asked.ok("claude", "restore", asked.pair.name)
    archived = asked.shared / "_archive" / asked.pair.name
    assert '"user": "continue"' in " ".join(
        p.read_text() for p in archived.glob(".seen/*")
    ).replace('":"', '": "')
    assert "closed" in asked.ok("claude", "log", asked.pair.name).out


@pytest.mark.parametrize("ended", [True, False])
def test_a_pair_in_the_archive_comes_back_into_the_archive(asked, ended):
    """Also one that nobody closed."""
    slug, status = asked.pair.name, ("--status", "closed") if ended else ()
    asked.send("codex", "note", "# Note\n", "read", *status)
    words = ("--terminated",) if ended else (slug, "--force")
    asked.ok("claude", "pairs", "archive", *words)
    before = files_of(asked.shared / "_archive" / slug)
    for loss in ("_archive", "."):
        shutil.rmtree(asked.shared / loss)
        for author in ("claude", "codex"):
            assert asked.ok(author, "next").action == "bootstrap"
        asked.ok("codex", "restore")
        assert files_of(asked.shared / "_archive" / slug) == before and not asked.pair.exists()
    asked.ok("claude", "pairs", "restore", slug)
    shutil.rmtree(asked.shared)
    assert asked.ok("claude", "next").action == ("bootstrap" if ended else "restore")
    asked.ok("claude", "restore")
    assert files_of(asked.pair) == before


def test_forget_removes_both_and_leaves_a_tombstone(asked):
    slug = asked.pair.name
    assert "would remove" in asked.ok("claude", "forget", slug, "--dry-run").out
    asked.refused("claude", "forget", slug)
    assert asked.pair.is_dir()
    asked.ok("claude", "forget", slug, "--yes")
    assert not asked.pair.exists()
    assert [p.name for p in copy_of(asked, slug).iterdir()] == ["FORGOTTEN"]
    assert asked.ok("claude", "next").action == "bootstrap"
    asked.refused("claude", "restore", slug)
    assert asked.ok("claude", "bootstrap", "--topic", "demo").out.split()[0] != slug


def test_a_forgotten_pair_is_remembered_where_there_is_no_git_directory(stage, tmp_path):
    (tmp_path / "plain").mkdir()
    place = {"cwd": tmp_path / "plain", "RELAY_SHARED_ROOT": str(tmp_path / "plain/.shared")}
    slug = stage.ok("claude", "bootstrap", "--topic", "demo", **place).out.split()[0]
    stage.ok("claude", "forget", slug, "--yes", **place)
    assert stage.ok("claude", "bootstrap", "--topic", "demo", **place).out.split()[0] == f"{slug}-2"


def test_a_tombstone_in_the_ledger_alone_hides_no_copy(asked):
    """Who can write the ledger and not the git directory cannot say what was forgotten."""
    slug = asked.pair.name
    (asked.shared / "_relay/forgotten" / slug).mkdir(parents=True)
    (asked.shared / "_relay/forgotten" / slug / "FORGOTTEN").touch()
    asked.send("claude", "note", "# More\n")
    before = files_of(asked.pair)
    assert "forget" not in asked.run("claude", "doctor").out
    shutil.rmtree(asked.pair)
    assert asked.ok("claude", "next").next == f"restore {slug}"
    asked.ok("claude", "restore", slug)
    assert files_of(asked.pair) == before


def test_a_forgotten_pair_that_is_back_is_named(asked):
    """By a backup, or where a forget was killed: nothing of it is copied any more."""
    slug = asked.pair.name
    kept = shutil.copytree(asked.pair, asked.folder / "kept")
    asked.ok("claude", "forget", slug, "--yes")
    shutil.copytree(kept, asked.pair)
    rows = asked.run("claude", "doctor", "--json").json["findings"]
    (row,) = [row for row in rows if row["id"] == "pair.forgotten"]
    asked.ok("claude", *row["remedy"].split()[1:])
    assert not asked.pair.exists() and "forgotten" not in asked.run("claude", "doctor").out


def test_forget_says_what_cannot_go_and_leaves_alone_what_a_symlink_names(asked, monkeypatch):
    outside, slug = asked.folder / "outside", "20200101-elsewhere"
    outside.mkdir()
    (outside / "mine").write_text("x")
    for path in (asked.shared / slug, asked.shared / f"{slug}-2"):
        path.symlink_to(outside) if path.name == slug else path.write_text("x")
        asked.ok("claude", "forget", path.name, "--yes")
        assert not os.path.lexists(path) and os.listdir(outside) == ["mine"]
    slug, real = asked.pair.name, os.unlink

    def unlink(path, *more, **named):
        if str(path).endswith("001-claude-plan.md"):
            raise PermissionError(1, "Operation not permitted", str(path))
        real(path, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        assert "not permitted" in asked.refused("claude", "forget", slug, "--yes").err
    asked.ok("claude", "forget", slug, "--yes")
    assert not list(asked.project.rglob("001-claude-plan*"))


@pytest.mark.parametrize("name", ["CLOSED", "001-claude-plan.md", ".seen/codex-0.jsonl", ".lock"])
def test_forget_waits_for_nothing_that_is_in_a_files_place(asked, name):
    for root in (asked.pair, copy_of(asked, asked.pair.name)):
        path = root / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    done = asked.process("codex", "forget", asked.pair.name, "--yes", timeout=20)
    if name == ".lock":  # It is named, with the way out.
        assert done.code == 2 and "not a regular file" in done.err, done
    else:
        assert done.code == 0 and not asked.pair.exists(), done


def test_what_is_removed_is_locked_no_more_as_nfs_would_keep_the_file(asked, monkeypatch):
    slug, real, locks = asked.pair.name, RELAY.remove_tree, []

    def remove_tree(path):
        lock = f"{path}/{slug}/.lock"
        locks.extend([RELAY.is_held(lock)] if os.path.exists(lock) else [])
        real(path)

    monkeypatch.setattr(RELAY, "remove_tree", remove_tree)
    asked.ok("codex", "forget", slug, "--yes")
    assert locks == [False]


def test_a_pair_in_the_lower_layer_of_an_overlay_has_a_hint_that_works(asked, monkeypatch):
    real, slug = os.rename, asked.pair.name
    layer = os.stat(asked.pair).st_ino

    def rename(source, target):
        if os.stat(source).st_ino == layer:  # As rename(2) does there; mv copies it.
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source, None, target)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    for words in (("pairs", "archive", slug, "--force"), ("forget", slug, "--yes")):
        hint = asked.refused("claude", *words).err.split("hint: ")[1]
    command = hint.partition("; then ")[0]
    command = command.replace("mv ", "cp -r ", 1).replace(" && ", f" && rm -r {asked.pair} && ")
    subprocess.run(["sh", "-c", command], check=True)
    asked.ok("claude", "forget", slug, "--yes")
    assert not asked.pair.exists()


def test_a_copy_that_is_being_made_does_not_outlive_a_forget(asked, monkeypatch):
    """Another command has seen what is to be copied, and waits, while the pair is forgotten."""
    slug, real = asked.pair.name, RELAY.directory_lock
    shutil.rmtree(copy_of(asked, slug))
    kept = shutil.copytree(asked.pair, asked.folder / "kept")

    def late(directory, command, *more, **named):
        if command == "copy":
            monkeypatch.setattr(RELAY, "directory_lock", real)
            asked.ok("codex", "forget", slug, "--yes")
            shutil.copytree(kept, asked.pair)  # As far as it was read.
        return real(directory, command, *more, **named)

    monkeypatch.setattr(RELAY, "directory_lock", late)
    asked.run("claude", "next")
    assert {p.name for p in copy_of(asked, slug).iterdir()} <= {"FORGOTTEN", ".lock"}
    assert RELAY.directory_lock is real


@pytest.mark.parametrize("how", ["archived", "forgotten"])
def test_a_restore_beside_another_command_makes_no_second_pair_and_none_again(
    asked, monkeypatch, how
):
    """Another command had the ledger's lock first, and moved the pair away."""
    slug, real = asked.pair.name, RELAY.Ledger.lock
    words = (
        ("pairs", "archive", slug, "--force") if how == "archived" else ("forget", slug, "--yes")
    )

    def late(ledger, command, *more, **named):
        if command == "restore":
            monkeypatch.setattr(RELAY.Ledger, "lock", real)
            asked.ok("codex", *words)
        return real(ledger, command, *more, **named)

    monkeypatch.setattr(RELAY.Ledger, "lock", late)
    for path in asked.pair.glob("001-*"):
        path.unlink()
    done = asked.run("claude", "restore", slug)
    assert RELAY.Ledger.lock is real and not asked.pair.exists()
    assert done.code == (0 if how == "archived" else 2), done
    assert (asked.shared / "_archive" / slug).exists() == (how == "archived")
    assert asked.ok("claude", "doctor", "--json").json["findings"] == []


@pytest.mark.parametrize("name", [".seen/other.jsonl", ".seen/other-0.jsonl", "CLOSED"])
@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_what_cannot_be_read_beside_the_artifacts_keeps_none_from_being_copied(asked, name, kind):
    path = asked.pair / name
    path.mkdir() if kind == "directory" else path.symlink_to("/dev/null")
    if kind == "fifo":
        path.unlink()
        os.mkfifo(path)
    before = files_of(copy_of(asked, asked.pair.name))
    for author in ("codex", "claude") if name != "CLOSED" else ():
        asked.send(author, "note")
    if name == "CLOSED":  # Nothing is published any more; what there is is copied.
        shutil.rmtree(copy_of(asked, asked.pair.name))
        asked.run("claude", "status")
    copied = files_of(copy_of(asked, asked.pair.name))
    assert len([n for n in copied if n.endswith(".ready")]) == (1 if name == "CLOSED" else 3)
    assert before.keys() <= copied.keys()


def test_a_file_that_is_no_artifact_takes_no_number(asked):
    for name in ("999-foo", "002-notes.txt", "003-", "998-codex-plan-of-mine.md"):
        (asked.pair / name).write_text("x")
    asked.send("codex", "review")
    asked.send("claude", "fix")
    names = sorted(path.stem for path in asked.pair.glob("*.ready"))
    assert names == ["001-claude-plan", "002-codex-review", "003-claude-fix"]


def test_prune_removes_what_was_closed_long_ago_on_request_only(asked):
    asked.ok("claude", "close", "--reason", "done")
    slug = asked.pair.name
    assert slug not in asked.ok("claude", "pairs", "prune", "--older-than", "30d").out
    for closed in (asked.shared / "_archive" / slug / "CLOSED", copy_of(asked, slug) / "CLOSED"):
        closed.chmod(0o600)
        closed.write_text(closed.read_text().replace('closed_at = "2', 'closed_at = "1'))
    assert slug in asked.ok("claude", "pairs", "prune", "--older-than", "30d", "--dry-run").out
    assert (asked.shared / "_archive" / slug).is_dir()
    asked.ok("claude", "pairs", "prune", "--older-than", "30d")
    assert not (asked.shared / "_archive" / slug).exists() and not copy_of(asked, slug).exists()


def test_the_worktree_that_held_the_ledger_may_be_removed(stage, tmp_path):
    """Bare clones have their ledger in a linked worktree."""
    (stage.project / "a").write_text("1\n")
    stage.git("add", "a")
    stage.git("commit", "-qm", "a")
    bare = tmp_path / "bare.git"
    stage.git("clone", "-q", "--bare", stage.project, bare)
    one, two = tmp_path / "one", tmp_path / "two"
    stage.git("worktree", "add", "-q", one, "-b", "one", cwd=bare)
    stage.git("worktree", "add", "-q", two, "-b", "two", cwd=bare)
    slug = stage.ok("claude", "bootstrap", "--topic", "demo", cwd=one).out.split()[0]
    file = stage.file("# Plan\n\n## Next\n\nlook\n")
    stage.ok("claude", "send", "--kind", "plan", "--file", file, cwd=one)
    assert slug in stage.ok("claude", "next", cwd=two).out  # Found by the binding.
    stage.git("worktree", "remove", "--force", one, cwd=bare)
    assert stage.ok("claude", "next", cwd=two).next == f"restore {slug}"
    stage.ok("claude", "restore", cwd=two)
    assert stage.ok("codex", "next", cwd=two).action == "reply"


def test_what_the_ledger_of_another_worktree_has_is_not_gone(stage, tmp_path):
    """Worktrees of a bare clone have a ledger each, and one directory of copies."""
    bare, one, two = tmp_path / "bare.git", tmp_path / "one", tmp_path / "two"
    stage.git("clone", "-q", "--bare", stage.project, bare)
    stage.git("worktree", "add", "-q", one, "-b", "one", cwd=bare)
    stage.git("worktree", "add", "-q", two, "-b", "two", cwd=bare)
    slug = stage.ok("claude", "bootstrap", "--topic", "demo", cwd=one).out.split()[0]
    file = stage.file("# Plan\n\n## Next\n\nlook\n")
    stage.ok("claude", "send", "--kind", "plan", "--file", file, cwd=one)
    told = stage.ok("codex", "next", cwd=two)
    assert told.action == "bootstrap" and f"{one}/.shared" in told.out
    for words in (("status",), ("doctor",), ("pairs", "list"), ("restore",)):
        done = stage.run("codex", *words, cwd=two)
        assert slug not in done.out + done.err, done
    assert "in another ledger" in stage.refused("codex", "restore", slug, cwd=two).err
    assert not (two / ".shared" / slug).exists()
    stage.ok("claude", "close", "--reason", "r", cwd=one)  # In its archive.
    assert slug not in stage.ok("codex", "pairs", "list", cwd=two).out
    # What is removed here stays there, with its copy.
    assert "in another ledger" in stage.refused("codex", "forget", slug, "--yes", cwd=two).err
    assert slug not in stage.ok("codex", "pairs", "prune", "--older-than", "0s", cwd=two).out
    assert (bare / "relay" / slug / "001-claude-plan.ready").exists()


@pytest.mark.parametrize("below, mode", [("", 0o500), ("relay", 0)])
def test_where_the_git_directory_cannot_be_used_everything_else_works(asked, below, mode):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    directory = asked.project / ".git" / below
    directory.chmod(mode)
    try:
        asked.send("codex", "note")
        assert asked.ok("claude", "next").action == "reply"
        asked.ok("claude", "verify")
    finally:
        directory.chmod(0o700)


def test_a_directory_that_is_no_ledger_is_refused_with_the_way_out(stage):
    stage.shared.mkdir()
    (stage.shared / "notes.txt").write_text("mine\n")
    before = stage.snapshot(stage.shared)
    done = stage.refused("claude", "bootstrap", "--topic", "demo")
    assert "RELAY_SHARED_ROOT" in done.err and "notes.txt" in done.err
    for words in (("init",), ("next",), ("status",), ("pair", "ensure")):
        assert "RELAY_SHARED_ROOT" in stage.refused("claude", *words).err
    for words in (("preflight",), ("doctor",)):
        done = stage.run("claude", *words)
        assert "notes.txt" in done.out and "relay init" not in done.out, done
    assert stage.snapshot(stage.shared) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nested", "submodule"])
def test_a_bound_instance_finds_its_ledger_from_another_repository_within(asked, kind):
    inner = asked.project / "inner"
    if kind == "nested":
        inner.mkdir()
        asked.git("init", "-q", cwd=inner)
    else:
        other = asked.folder / "other"
        other.mkdir()
        asked.git("init", "-q", cwd=other)
        asked.git("commit", "-q", "--allow-empty", "-m", "x", cwd=other)
        asked.git("submodule", "--quiet", "add", other, "inner")
    assert asked.pair.name in asked.ok("codex", "next", cwd=inner).out
    assert asked.pair.name in asked.ok("codex", "status", cwd=inner).out


def test_core_bare_set_by_a_host_moves_no_ledger(asked):
    linked = asked.folder / "linked"
    asked.git("worktree", "add", "-q", linked, "-b", "side")
    asked.git("config", "core.bare", "true")
    assert asked.pair.name in asked.ok("codex", "next", cwd=linked).out


@pytest.mark.slow
def test_a_copy_or_a_restore_that_is_killed_anywhere_is_finished_by_the_next(asked, tmp_path):
    calls = (
        "openat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,write,pwrite64"
    )
    before, slug = files_of(asked.pair), asked.pair.name
    for words, sweep in ((("restore",), asked.shared), (("next",), copy_of(asked, slug).parent)):
        for number in range(1, 400, 7):
            shutil.rmtree(sweep, ignore_errors=True)
            kill = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}")
            kill += ("-e", f"inject={calls}:signal=KILL:when={number}")
            child = asked.spawn("codex", *words, before=kill)
            child.communicate(timeout=60)
            if child.returncode == 0:
                break
            asked.ok("codex", *words)
            assert files_of(asked.pair) == before
            asked.ok("codex", "next")
            copied = files_of(copy_of(asked, slug))
            assert {name: copied.get(name) for name in before if name[0] == "0"} == {
                name: content for name, content in before.items() if name[0] == "0"
            }
            assert not list(copy_of(asked, slug).glob(".0*")) and not asked.litter()


def rewritten(root, old, new):
    """What `sed -i` over a project does, hidden files and logs included."""
    for path in (p for p in root.rglob("*") if p.is_file() and p.name != ".lock"):
        content = path.read_bytes()
        if old in content and path.suffix != ".pack":
            path.chmod(0o600)
            path.write_bytes(content.replace(old, new))


def test_a_rewrite_of_the_whole_ledger_is_undone_with_its_logs(asked):
    asked.send("codex", "decision", "# Ship?\n", "@user: ship it?")
    asked.ok("claude", "next")
    asked.ok("claude", "continue")
    before = files_of(asked.pair)
    rewritten(asked.shared, b"plan", b"goal")
    assert asked.ok("codex", "next").next == f"restore {asked.pair.name}"
    asked.ok("codex", "restore", asked.pair.name)
    assert files_of(asked.pair) == before
    assert asked.run("claude", "verify").code == 0
    assert asked.ok("claude", "next").action == "reply"


def test_a_log_that_was_lost_and_begun_anew_gets_back_what_it_held(asked):
    log = next((asked.pair / ".seen").glob("codex-*"))
    old, new = (
        log.read_bytes(),
        b'{"user": "continue", "upto": 1, "at": "2001-01-01T00:00:00+00:00"}\n',
    )
    log.write_bytes(new)
    asked.ok("codex", "restore")
    assert log.read_bytes() == old + new
    log.write_bytes(old + new + new)
    assert asked.ok("codex", "restore").out.startswith("nothing is missing")


@pytest.mark.parametrize("change", [(b"done", b"well"), (b'"done"', b'"done and approved"'), ()])
def test_how_a_pair_ended_is_copied_once_and_its_change_or_loss_is_named(asked, change):
    asked.ok("claude", "close", "--reason", "done")
    archived = asked.shared / "_archive" / asked.pair.name
    closed = archived / "CLOSED"
    before = closed.read_bytes()
    if change:
        rewritten(archived, *change)
        assert closed.read_bytes() != before
    else:
        closed.unlink()
    assert f"restore {asked.pair.name}" in asked.run("codex", "doctor").out
    done = asked.run("codex", "verify", asked.pair.name)
    assert done.code == 1 and f"restore {asked.pair.name}" in done.out
    asked.ok("codex", "restore", asked.pair.name)
    assert closed.read_bytes() == before
    assert asked.run("codex", "verify", asked.pair.name).code == 0


def test_commands_in_a_ledger_that_is_gone_lead_to_the_copy(asked):
    shutil.rmtree(asked.shared)
    for words in (("run", "--", "true"), ("close", "--reason", "done"), ("pair", "leave")):
        done = asked.run("codex", *words)
        assert "read-only" not in done.err, done
    assert asked.refused("codex", "close", "--reason", "x").err.rstrip().endswith(" next")
    assert asked.ok("codex", "next").action == "restore"


def test_a_session_that_was_rewritten_into_nonsense_comes_back(asked):
    session = asked.pair / "session.json"
    before = session.read_bytes()
    rewritten(asked.pair, b'"codex"', b'"co dex"')
    hint = asked.refused("codex", "next").err.partition("hint: ")[2].split()
    asked.ok("codex", *hint[1:])
    assert session.read_bytes() == before and asked.ok("codex", "next").action == "reply"


def test_beside_a_pair_of_another_version_another_can_be_opened(asked):
    asked.send("claude", "note")
    rewritten(asked.pair, b'"schema_version": 3', b'"schema_version": 9')
    assert " log --pair-id " in asked.refused("codex", "next").err
    asked.ok("codex", "bootstrap", "--topic", "other")


@pytest.mark.parametrize("word", [b'"codex"', b'"schema_version": 3', b"{"])
def test_a_session_that_cannot_be_used_has_a_hint_that_leads_on(asked, word):
    shutil.rmtree(asked.project / ".git" / "relay")
    rewritten(asked.pair, word, word.replace(b"3", b"9").replace(b"c", b"C ").replace(b"{", b"["))
    for words in (("next",), ("status",), ("doctor",), ("verify", asked.pair.name)):
        done = asked.run("codex", *words)
        hints = [h for h in (done.out + done.err).splitlines() if "hint: " in h]
        assert not any(h.endswith(" doctor") for h in hints), done
    last = asked.refused("codex", "next").err.rpartition("relay ")[2].replace("TOPIC", "again")
    assert asked.run("codex", *last.split()).code == 0


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_second_copy_that_cannot_be_read_hides_nothing_else(asked, kind):
    copies = copy_of(asked, asked.pair.name).parent
    copies.rename(kept := asked.folder / "kept")
    if kind == "file":
        copies.write_text("x")
    else:
        copies.symlink_to(kept)
    assert asked.pair.name in asked.ok("claude", "pairs", "list").out
    done = asked.run("claude", "doctor", "--json").json
    assert [row["id"] for row in done["findings"]] == ["fs.refused"]
    assert {"ledger.write", "wait"} <= {row["name"] for row in done["passed"]}


@pytest.mark.parametrize("who", ["claude", "gemini", None])
def test_a_pair_in_the_ledger_that_an_environment_names_is_not_gone_without_it(stage, who):
    """Who is bound there works there; anybody else is led there, and no second pair of that name."""
    place = {"RELAY_SHARED_ROOT": str(stage.folder / "led ger")}
    slug = stage.ok("claude", "bootstrap", "--topic", "t", **place).out.split()[0]
    stage.send("claude", "plan", **place)
    assert "is gone" not in stage.run(who, "pairs", "list").out
    done = stage.run(who, "status")
    if who == "claude":
        assert slug in done.out
        assert stage.ok("claude", "next").action == "wait"
    else:
        assert f"export RELAY_SHARED_ROOT='{place['RELAY_SHARED_ROOT']}'" in done.err
        assert "is in another ledger" in stage.refused(who, "restore", slug).err
    stage.ok(who, "restore")
    assert not stage.shared.exists()
    shutil.rmtree(place["RELAY_SHARED_ROOT"])
    stage.ok(who, "restore", slug)  # Now it is.
    assert (stage.shared / slug / "001-claude-plan.ready").exists()
