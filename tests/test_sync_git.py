"""Git as the transport: the ledger in refs of a bare remote, pushed at once, killed, rewound, forged, and over ssh."""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib

import pytest
from conftest import RELAY, dispositions, findings, reseal, sidecar
from helpers.machines import MISSING, Clones, Sshd, published
from helpers.tracing import sound

slow = pytest.mark.slow


MADE: dict[str, Clones] = {}  # What is made once and then copied for each test.


@pytest.fixture(scope="module", autouse=True)
def made(tmp_path_factory):
    yield tmp_path_factory.mktemp("made")
    MADE.clear()


@pytest.fixture
def clones(stage, made, tmp_path):
    if "clones" not in MADE:
        MADE["clones"] = Clones(made / "clones")
    return MADE["clones"].copied(tmp_path / "git")


@pytest.fixture
def turn(stage, made, tmp_path):
    """Two clones and a pair in which 001 of claude and 002 of codex have travelled."""
    if "turn" not in MADE:
        MADE["turn"] = first = Clones(made / "turn")
        first.slug = first.open_pair()
        first.claude.send("claude", "plan")
        first.rows("claude", "push")
        first.codex.ok("codex", "next", "--sync", **first.settings)
        first.codex.send("codex", "review")
        first.rows("codex", "push")
        first.rows("claude", "pull")
    turn = MADE["turn"].copied(tmp_path / "git")
    turn.pairs = [stage.shared / turn.slug for stage in turn.stages.values()]
    turn.ref = f"refs/relay/{turn.slug}/"
    return turn


def stems(pair):
    return sorted(path.name[:-6] for path in pair.glob("*.ready"))


def contents(folder):
    """The files of a pair, by name: what a sync must not change where it refuses."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def as_new_clone(stage):
    """Takes out all that relay has made in a clone."""
    shutil.rmtree(stage.shared)
    shutil.rmtree(stage.project / ".git/relay")


def object_name(content):
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def both_alike(clones, *expected):
    """The published artifacts are the same in every clone; the ledgers are whole."""
    pairs = [stage.shared / clones.slug for stage in clones.stages.values()]
    assert {tuple(stems(pair)) for pair in pairs} == {tuple(sorted(expected))}
    first, *others = map(published, pairs)
    for other in others:
        assert other == first
    for stage in clones.stages.values():
        sound(stage)
        assert not list(stage.shared.rglob("*.tmp"))


# ---------------------------------------------------------------- a turn


def test_a_turn_each_way_touches_no_branch_no_index_and_no_working_tree(clones):
    (clones.claude.project / "code.txt").write_text("changed\n")
    (clones.claude.project / "new.txt").write_text("new\n")
    clones.claude.git("add", "new.txt")
    places = [(s.project, s.project / ".git") for s in clones.stages.values()]
    tracked = [[place / "code.txt", git] for place, git in places]
    before = [clones.claude.snapshot(*each) for each in tracked]
    main = clones.refs()["refs/heads/main"]
    clones.slug = clones.open_pair()
    clones.claude.send("claude", "plan", "# The plan\n")
    assert clones.rows("claude", "push") == [("sent", "001-claude-plan")]
    done = clones.codex.ok("codex", "next", "--sync", **clones.settings)
    assert done.action == "reply" and "# The plan" in done.out
    clones.codex.send("codex", "review")
    assert clones.rows("codex", "push") == [("sent", "002-codex-review")]
    assert clones.rows("claude", "pull") == [("received", "002-codex-review")]
    log = next((clones.claude.shared / clones.slug / ".seen").glob("codex-*.jsonl"))
    assert "001-claude-plan" in log.read_text()
    assert clones.refs().keys() == {
        "refs/heads/main",
        f"refs/relay/{clones.slug}/claude",
        f"refs/relay/{clones.slug}/codex",
    }
    assert clones.refs()["refs/heads/main"] == main
    assert [clones.claude.snapshot(*each) for each in tracked] == before
    clones.rows("claude", "push")
    clones.rows("codex", "pull")
    both_alike(clones, "001-claude-plan", "002-codex-review")
    assert clones.rows("claude", "push") == clones.rows("codex", "pull") == []


@pytest.mark.slow
def test_a_dry_run_says_the_same_and_changes_nothing(turn):
    turn.claude.send("claude", "fix")
    turn.codex.send("codex", "note")
    turn.rows("codex", "push")
    before = turn.claude.snapshot(turn.claude.project, turn.bare)
    told = [turn.rows("claude", way, "--dry-run") for way in ("push", "pull")]
    assert turn.claude.snapshot(turn.claude.project, turn.bare) == before
    assert told == [turn.rows("claude", way) for way in ("push", "pull")]
    assert told == [[("sent", "003-claude-fix")], [("received", "004-codex-note")]]
    turn.codex.ok("codex", "close", "--reason", "done")
    turn.rows("codex", "push")
    assert turn.rows("claude", "push", "--dry-run") == [("received", "CLOSED")]
    assert turn.rows("claude", "pull", "--dry-run") == turn.rows("claude", "pull")
    assert turn.claude.ok("claude", "next").action == "over"


@pytest.mark.slow
def test_a_linked_worktree_syncs_as_the_main_one(turn, tmp_path):
    turn.codex.git("remote", "set-url", "origin", turn.bare)
    turn.codex.git("worktree", "add", "-q", tmp_path / "linked", "-b", "side")
    turn.claude.send("claude", "fix")
    turn.rows("claude", "push")
    for way in ("pull", "push"):
        turn.codex.ok("codex", "sync", way, cwd=tmp_path / "linked", **turn.settings)
    assert "003-claude-fix" in stems(turn.pairs[1])


def test_a_dry_run_finds_what_was_fetched_whatever_the_project_is_called(turn, tmp_path):
    place = tmp_path / 'a:b "c" \\d'
    turn.codex.git("remote", "set-url", "origin", turn.bare)
    turn.codex.project.rename(place)
    tip = turn.refs()[turn.ref + "claude"]
    turn.commit(turn.ref + "claude", *turn.files(tip))
    done = turn.codex.run("codex", "sync", "pull", "--dry-run", cwd=place, **turn.settings)
    assert done.code == 1 and "was rewritten" in done.out, done


@slow
def test_a_dry_run_in_a_clone_without_a_ledger_creates_none(turn):
    as_new_clone(turn.codex)
    assert ("received", "001-claude-plan") in turn.rows("codex", "pull", "--dry-run")
    assert not turn.codex.shared.exists()


@pytest.mark.slow
def test_only_the_ledger_is_carried_and_flags_for_files_are_refused(clones):
    clones.open_pair()
    for flags in (("--only", "code"), ("--delete",), ("--strict-gitignore",)):
        done = clones.sync("claude", "push", *flags)
        assert done.code == 2 and "project's files are git's" in done.err
    assert clones.sync("claude", "push", "--only", "ledger").code == 0


def test_init_says_who_can_read_it_and_wants_a_yes(clones):
    stage = clones.claude
    stage.git("remote", "set-url", "origin", "https://me:hush@example.invalid/x.git")
    before = stage.snapshot()
    done = stage.refused("claude", "init", "--sync", "git", "--remote", "origin")
    assert "everyone who can read it" in done.err and "https://example.invalid/x.git" in done.err
    assert "hush" not in done.err and "--yes" in done.err
    assert stage.snapshot() == before
    assert "no git remote" in stage.refused("claude", "init", "--sync", "git", "--remote", "x").err
    stage.ok("claude", "init", "--sync", "git", "--remote", "origin", "--yes")
    told = subprocess.run(
        ["sh", "-c", '. ./.envrc; echo "$RELAY_SYNC|$RELAY_REMOTE"'],
        cwd=stage.project,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "git|origin\n", told
    assert stage.ok("claude", "init", "--sync", "none").code == 0
    assert "RELAY_SYNC" not in next(stage.project.glob(".envrc.*")).read_text()


@slow
def test_no_setting_comes_from_the_ledger(turn, tmp_path):
    """Configuration, hooks and settings that were planted in a ledger run and change nothing."""
    store = turn.claude.shared / "_relay/git"
    (store / "hooks").mkdir()
    for name in ("pre-push", "reference-transaction", "post-checkout"):
        (store / "hooks" / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/owned\n")
        (store / "hooks" / name).chmod(0o755)
    (store / "config").write_text(
        f"[core]\n\tsshCommand = touch {tmp_path}/owned\n\tfsmonitor = touch {tmp_path}/owned\n"
        f'[remote "origin"]\n\turl = {tmp_path}/elsewhere\n\tuploadpack = touch {tmp_path}/owned\n'
        f'[url "{tmp_path}/elsewhere"]\n\tinsteadOf = {turn.bare}\n'
    )
    (store / "commondir").write_text(f"{tmp_path}\n")
    for name in (".envrc", ".relayrc", "session.json"):
        (turn.claude.shared / name).write_text('export RELAY_REMOTE="elsewhere"\n')
    turn.claude.send("claude", "fix")
    assert turn.rows("claude", "push") == [("sent", "003-claude-fix")]
    assert turn.rows("codex", "pull") == [("received", "003-claude-fix")]
    assert not (tmp_path / "owned").exists() and not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_urls_are_rewritten_once_as_git_does(turn, tmp_path):
    """What a URL was rewritten to may itself begin like one that is to be rewritten."""
    git, url = turn.claude.git, turn.claude.git("config", "remote.origin.url")
    git("config", "remote.origin.url", "short:name")
    git("config", f"url.{url}.insteadOf", "short:name")
    for key in ("insteadOf", "pushInsteadOf"):
        git("config", "--add", f"url.{tmp_path}/elsewhere/.{key}", url[:6])
    git("fetch", "-q", "origin")
    turn.claude.send("claude", "fix")
    assert turn.rows("claude", "push") == [("sent", "003-claude-fix")]
    assert turn.rows("codex", "pull") == [("received", "003-claude-fix")]
    turn.codex.send("codex", "note")
    turn.rows("codex", "push")
    assert turn.rows("claude", "pull") == [("received", "004-codex-note")]


def test_what_a_killed_pull_left_has_a_hint_that_ends_it(turn):
    stage, name = turn.codex, "001-claude-plan"
    for path in (turn.pairs[1] / f"{name}.ready", stage.project / ".git/relay" / turn.slug):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for log in turn.pairs[1].glob(".seen/codex-*"):  # It had not been delivered.
        log.unlink()
    for words in (["verify"], ["doctor"]):
        done = stage.run("codex", *words, **turn.settings)
        hint = done.out.partition("has no .ready\n")[2].split("\n")[0].partition("relay ")[2]
        assert done.code == 1 and hint == "sync pull", done
    stage.ok("codex", *hint.split(), **turn.settings)
    assert stage.ok("codex", "verify", **turn.settings).out.endswith("all well\n")


@pytest.mark.parametrize(
    "name", ["", "--upload-pack=touch owned", "nowhere", "../remote.git", "a b"]
)
def test_a_remote_is_the_name_of_a_remote(clones, name):
    done = clones.sync("claude", "push", RELAY_REMOTE=name or "-x")
    assert done.code == 2 and "no git remote" in done.err, done
    assert not clones.claude.shared.exists()


@pytest.mark.slow
def test_a_branch_in_the_way_of_the_refs_has_a_hint_that_works(clones):
    clones.claude.git("push", "-q", "origin", "HEAD:refs/heads/relay")
    clones.claude.ok("claude", "bootstrap", "--topic", "demo")
    clones.claude.send("claude", "plan")
    done = clones.sync("claude", "push", RELAY_REFS="refs/heads/relay")
    assert done.code == 2 and "refuses the ref refs/heads/relay/" in done.err, done
    refs = done.err.rstrip().rpartition("export RELAY_REFS=")[2]
    assert ("sent", "001-claude-plan") in clones.rows("claude", "push", RELAY_REFS=refs)


@slow
def test_refs_may_be_kept_below_branches_where_a_host_takes_no_others(turn):
    hook = turn.bare / "hooks/update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        "#!/bin/sh\ncase $1 in refs/heads/*) ;; *) echo no such namespace; exit 1 ;; esac\n"
    )
    hook.chmod(0o755)
    turn.claude.send("claude", "fix")
    done = turn.sync("claude", "push")
    assert done.code == 2 and "refuses the ref refs/relay/" in done.err, done
    assert "export RELAY_REFS=refs/heads/relay" in done.err
    for name in ("refs/../x", "refs/relay/*", "heads/relay", "refs/a b"):
        assert turn.sync("claude", "push", RELAY_REFS=name).code == 2
    turn.settings |= {"RELAY_REFS": "refs/heads/relay"}
    turn.rows("claude", "push")
    assert ("received", "003-claude-fix") in turn.rows("codex", "pull")
    assert f"refs/heads/relay/{turn.slug}/claude" in turn.refs()


# ---------------------------------------------------------------- several at once


@slow
def test_two_that_publish_and_push_at_once_lose_nothing(stage, tmp_path):
    clones = Clones(tmp_path / "git", "claude", "codex", "third")
    clones.slug = clones.open_pair()
    for each in clones.stages.values():
        env = each.env
        each.env = lambda author=None, env=env, **more: env(
            author, RELAY_AUTO_ROUND_CAP="0", **more
        )
    for turn in range(4):
        running = []
        for author in ("claude", "codex"):
            each = clones.stages[author]
            each.send(author, "note", f"# {author} {turn}\n")
            running += [each.spawn(author, "sync", "push", **clones.settings) for _ in range(2)]
        for process in running:
            assert process.wait(60) == 0, process.communicate()
    for author in ("claude", "codex", "third"):
        clones.rows(author, "pull", who="codex" if author == "third" else author)
    names = [f"{n:03}-{'claude' if n % 2 else 'codex'}-note" for n in range(1, 9)]
    for author in ("claude", "codex"):
        clones.rows(author, "push")
        clones.rows(author, "pull")
    assert {tuple(stems(each.shared / clones.slug)) for each in clones.stages.values()} == {
        tuple(names)
    }


@slow
def test_one_author_on_two_machines_adds_to_one_ref(stage, tmp_path):
    clones = Clones(tmp_path / "git", "claude", "codex", "again")
    clones.slug = clones.open_pair()
    again = clones.stages["again"]
    again.ok("claude", "next", "--sync", **clones.settings)
    clones.claude.send("claude", "note", "# Here\n")
    clones.rows("claude", "push")
    done = clones.sync("again", "pull", who="claude")
    assert done.code == 0, done
    again.send("claude", "note", "# There\n")
    assert clones.sync("again", "push", who="claude").code == 0
    clones.rows("codex", "pull")
    clones.rows("claude", "pull")
    for each in clones.stages.values():
        assert stems(each.shared / clones.slug) == ["001-claude-note", "003-claude-note"]


@slow
def test_another_artifact_under_one_name_is_named_and_neither_is_written_over(stage, tmp_path):
    """Two machines of one author that were apart: the first that pushed has the name."""
    clones = Clones(tmp_path / "git", "claude", "codex", "again")
    clones.slug = clones.open_pair()
    again = clones.stages["again"]
    again.ok("claude", "next", "--sync", **clones.settings)
    clones.claude.send("claude", "note", "# Here\n")
    again.send("claude", "note", "# There, longer\n")
    clones.rows("claude", "push")
    before = clones.refs()
    for _ in range(2):
        done = clones.sync("again", "push", who="claude")
        assert done.code == 1 and f"conflict  {clones.slug}/001-claude-note" in done.out, done
    assert clones.refs() == before
    assert "# There" in (again.shared / clones.slug / "001-claude-note.md").read_text()
    assert "differs from the one here" in done.out


def exchanged(clones):
    """Both clones have all that either published."""
    for author in ("claude", "codex", "claude", "codex"):
        clones.rows(author, "push")
        clones.rows(author, "pull")


@slow
@pytest.mark.parametrize("kind, status", [("decision", "ready"), ("note", "timed_out")])
def test_what_asks_the_user_still_does_where_the_peers_artifact_crosses(turn, kind, status):
    turn.claude.send("claude", "note")
    turn.codex.ok("codex", "next")
    turn.codex.send("codex", kind, "# Which one?\n", "go on", "--status", status)
    turn.claude.send("claude", "fix", "# Later\n")
    exchanged(turn)
    for author, stage in turn.stages.items():
        assert stage.ok(author, "next").action == "ask_user"
        refused = stage.try_send(author, "note", "# Went on\n")
        assert refused.code == 2 and "004" in refused.err and "the user" in refused.err
    turn.codex.ok("codex", "continue")
    assert turn.codex.ok("codex", "next").action == "reply"


@slow
@pytest.mark.parametrize("first, second", [("claude", "codex"), ("codex", "claude")])
def test_whose_work_came_first_is_decided_by_time_where_it_crossed(turn, first, second):
    numbers = {"claude": 3, "codex": 4}
    for stage in turn.stages.values():
        (stage.project / "code.txt").write_text("2\n")
    turn.stages[first].send(first, "plan", "# Mine\n")
    time.sleep(1.1)
    turn.stages[second].send(second, "fix")
    exchanged(turn)
    for author, peer, code in ((first, second, 2), (second, first, 0)):
        turn.stages[author].ok(author, "next")
        turn.stages[author].ok(author, "run", "--", "true")
        words = ("--verdict", "approve", "--reply-to", numbers[peer])
        done = turn.stages[author].try_send(author, "review", "# Fine\n", *words)
        assert done.code == code and ("did not send first" in done.err) == (code == 2), done


@slow
def test_what_changed_is_listed_where_the_bytes_are_on_the_other_machine(turn):
    claude, codex = turn.claude, turn.codex
    (claude.project / "code.txt").write_text("2\n")
    claude.send("claude", "fix")
    exchanged(turn)
    codex.ok("codex", "next")
    words = ("--verdict", "approve", "--not-run", "read")
    refused = codex.try_send("codex", "review", "# Fine\n", *words)
    hint = re.search(r"hint: \S+ (show .*--diff=now)", refused.err)[1]
    assert "changed code.txt: its bytes are not here" in codex.ok("codex", *hint.split()).out
    codex.send("codex", "review")
    (claude.project / "code.txt").write_text("3\n")
    claude.ok("claude", "next")
    claude.send("claude", "fix")
    exchanged(turn)
    since = codex.ok("codex", "next", "--json").json["since_review"]
    assert "code.txt" in codex.ok("codex", *since["command"].split()[1:]).out


@slow
@pytest.mark.parametrize("first", ["approve", "changes"])
def test_of_two_verdicts_of_one_author_that_cross_the_one_that_asks_for_changes_counts(turn, first):
    other = {"CLAUDE_CODE_SESSION_ID": "on-the-other-machine"}
    claude, codex = turn.claude, turn.codex
    for stage in turn.stages.values():
        (stage.project / "code.txt").write_text("2\n")
    codex.send("codex", "plan")
    turn.rows("codex", "push")
    turn.rows("claude", "pull")
    codex.send("codex", "addendum")
    codex.ok("claude", "pair", "join", turn.slug, **other)
    verdicts = [first, *{"approve", "changes"} - {first}]
    for stage, verdict, env in ((claude, verdicts[0], {}), (codex, verdicts[1], other)):
        stage.ok("claude", "next", **env)
        stage.ok("claude", "run", "--", "true", **env)
        stage.send("claude", "review", "# Read\n", "x", "--verdict", verdict, **env)
    exchanged(turn)
    codex.ok("codex", "next")
    done = codex.run("codex", "close", "--outcome", "approved", "--reason", "done")
    assert done.code == 2 and "asks for changes" in done.err, done


@slow
@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_an_approval_does_not_hold_where_the_pair_was_given_up_meanwhile(turn, status):
    for stage in turn.stages.values():
        (stage.project / "code.txt").write_text("2\n")
    turn.claude.send("claude", "fix")
    exchanged(turn)
    turn.codex.ok("codex", "next")
    approval = ("--verdict", "approve", "--not-run", "read")
    assert turn.codex.try_send("codex", "review", "# Fine\n", *approval).code == 0
    exchanged(turn)
    turn.claude.ok("claude", "next")
    for _ in range(2):
        turn.claude.send("claude", "note")
    turn.codex.send("codex", "note", "# No\n", "stop", "--status", status)
    turn.claude.ok("claude", "close", "--outcome", "approve", "--reason", "done")
    exchanged(turn)
    for author, stage in turn.stages.items():
        closed = stage.ok(author, "log", turn.slug, "--json").json["closed"]
        assert closed["approved_by"] and status in closed["unsupported"], closed
        stage.refused(author, "export", "--statement", "--pair-id", turn.slug)


@slow
def test_an_answer_that_crosses_with_the_finders_word_is_no_contradiction(turn):
    turn.codex.send("codex", "review", findings("blocker code.txt:1 bad"))
    exchanged(turn)
    turn.claude.ok("claude", "next")
    turn.claude.send("claude", "note")
    turn.claude.send("claude", "fix", dispositions("4.1 fixed done"))
    turn.codex.send("codex", "note", dispositions("4.1 withdrawn no"))
    turn.claude.send("claude", "note", "# Unaware\n")
    exchanged(turn)
    for author, stage in turn.stages.items():
        assert "resolved (withdrawn)" in stage.ok(author, "findings", "--all").out
        stage.ok(author, "verify")
    document = sidecar(turn.pairs[0], 7)
    document["dispositions"][0]["verb"] = "accepted"
    reseal(turn.pairs[0], "007-claude-fix", lambda _: document)
    done = turn.claude.run("claude", "verify", "--json")
    assert "finding; yours to say" in str(done.json["pairs"][0]["faults"])


@slow
@pytest.mark.parametrize("kind", ["plan", None])
def test_a_second_session_of_one_vendor_on_another_machine_is_led_to_its_own_side(clones, kind):
    here, there, other = clones.claude, clones.codex, {"CLAUDE_CODE_SESSION_ID": "on-the-other"}
    words = ("bootstrap", "--topic", "demo", "--peer", "claude-2")
    slug = here.ok("claude", *words, **clones.settings).out.split()[0]
    if kind:
        here.send("claude", kind)
    clones.rows("claude", "push")
    led = there.ok("claude", "next", "--sync", **clones.settings, **other)
    assert (led.action, led.next) == ("full", f"pair join {slug} --as claude-2")
    there.ok("claude", *led.next.split(), **other)
    expected = "reply" if kind else "wait"
    assert there.ok("claude", "next", **other).action == expected
    there.send("claude", "note", **other)
    assert clones.sync("codex", "push", who="claude", **other).code == 0
    assert f"refs/relay/{slug}/claude-2" in clones.refs()
    here.ok("claude", "next", "--sync", **clones.settings)
    if kind:  # Who was claude here still is.
        here.ok("claude", "pair", "leave")
        assert here.ok("claude", "next").action == "reply"


@slow
@pytest.mark.parametrize("loss", ["nothing", "the kept objects"])
def test_a_wait_is_woken_by_what_the_other_side_pushes(turn, loss):
    """Also after a `forget` of another pair, which removes what is kept of the remote."""
    turn.claude.ok("claude", "next")
    turn.claude.send("claude", "fix")
    child = turn.claude.spawn("claude", "next", "--wait", "60", "--sync", **turn.settings)
    try:
        end = time.monotonic() + 60
        while "003-claude-fix" not in stems(turn.codex.shared / turn.slug):
            assert time.monotonic() < end
            turn.sync("codex", "pull")
            time.sleep(0.2)
        if loss != "nothing":
            shutil.rmtree(turn.claude.shared / "_relay/git")
        turn.codex.send("codex", "review", "# Second\n")
        turn.rows("codex", "push")
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0 and out.startswith("action: reply") and "# Second" in out, err


@slow
def test_a_pair_closed_on_both_sides_stays_as_each_closed_it_and_a_new_clone_has_it_archived(turn):
    turn.claude.ok("claude", "close", "--reason", "ours", **turn.settings)
    turn.codex.ok("codex", "close", "--reason", "theirs", "--no-archive", **turn.settings)
    for author, way in (
        ("claude", "push"),
        ("codex", "pull"),
        ("codex", "push"),
        ("claude", "pull"),
    ):
        assert turn.sync(author, way).code == 0
    for author, reason in (("claude", "ours"), ("codex", "theirs")):
        told = turn.sync(author, "pull")
        assert told.code == 0 and f"kept      {turn.slug}/CLOSED: was closed there too" in told.out
        assert reason in turn.stages[author].ok(author, "log", "--pair-id", turn.slug).out
    shutil.rmtree(turn.codex.shared)
    shutil.rmtree(turn.codex.project / ".git/relay")
    turn.rows("codex", "pull")
    there = stems(turn.claude.shared / "_archive" / turn.slug)
    copy = turn.codex.project / ".git/relay" / turn.slug  # And it is in the second copy at once.
    assert stems(turn.codex.shared / "_archive" / turn.slug) == stems(copy) == there
    assert (copy / "CLOSED").exists()
    assert not (turn.codex.shared / turn.slug).exists()


@slow
def test_a_pair_that_was_forgotten_does_not_come_back_and_contents_of_files_do_not_travel(turn):
    (turn.claude.project / "code.txt").write_text("changed\n")
    turn.claude.send("claude", "fix")
    assert list(turn.pairs[0].glob("*.pack"))
    turn.rows("claude", "push")
    assert not [row for row in turn.files(turn.ref + "claude") if "pack" in row[1]]
    turn.codex.ok("codex", "forget", turn.slug, "--yes")
    for way in ("pull", "push"):
        done = turn.sync("codex", way)
        assert done.code == 1 and "was forgotten here" in done.out, done
        assert not turn.pairs[1].exists()


@pytest.mark.slow
def test_nothing_of_a_forgotten_pair_stays_and_no_ref_of_it_is_missed(turn):
    secret = b"the value of the thing"
    turn.codex.send("codex", "note", secret.decode())
    turn.rows("codex", "push")
    turn.rows("claude", "pull")
    for ref in turn.refs():
        if ref.startswith(turn.ref):
            turn.claude.git("update-ref", "-d", ref, cwd=turn.bare)
    for author, stage in turn.stages.items():
        stage.ok(author, "forget", turn.slug, "--yes")
        files = [p for p in stage.project.rglob("*") if p.is_file()]
        assert not [p for p in files if secret in inflated(p)]
        assert turn.rows(author, "pull") == turn.rows(author, "push") == []


def inflated(path):
    """What a file holds, as a loose object of git too."""
    try:
        return zlib.decompress(path.read_bytes())
    except zlib.error:
        return path.read_bytes()


@pytest.mark.slow
def test_a_pair_that_is_forgotten_while_it_is_fetched_stays_forgotten(turn, monkeypatch):
    turn.claude.send("claude", "fix")
    turn.rows("claude", "push")
    real = RELAY.GitRemote.fetch

    def fetch(far, *more):
        real(far, *more)
        turn.codex.ok("codex", "forget", turn.slug, "--yes")

    with monkeypatch.context() as patch:
        patch.setattr(RELAY.GitRemote, "fetch", fetch)
        assert turn.sync("codex", "pull").code
    assert not turn.pairs[1].exists()
    assert "was forgotten here" in turn.sync("codex", "pull").out
    assert "all well" in turn.codex.ok("codex", "doctor").out


@pytest.mark.slow
def test_what_a_killed_pull_brought_is_copied_by_the_next(turn):
    turn.claude.send("claude", "fix")
    turn.rows("claude", "push")
    turn.rows("codex", "pull")
    copy = turn.codex.project / ".git/relay" / turn.slug
    kept = contents(copy)
    shutil.rmtree(copy)  # It was killed before that.
    assert turn.sync("codex", "pull", "--dry-run").code == 0 and not copy.exists()
    assert turn.rows("codex", "pull") == [] and contents(copy) == kept


@slow
def test_nobody_elsewhere_can_say_that_the_user_here_has_decided(turn):
    turn.codex.send("codex", "decision", "# Ship it?\n")
    key = RELAY.Identity("claude", "", "another-session", "").key
    line = {"user": "continue", "upto": 999, "accepted": [], "by": "claude:x", "terminal": True}
    tip = turn.refs()[turn.ref + "claude"]
    log = {f"{key}.jsonl": json.dumps(line).encode() + b"\n"}
    turn.rows("codex", "push")
    turn.commit(turn.ref + "claude", *turn.files(tip), parent=tip, **log)
    turn.rows("claude", "pull")
    assert turn.claude.ok("claude", "next").action == "ask_user"


@slow
def test_a_repository_with_long_object_names(stage, tmp_path):
    clones = Clones(tmp_path / "git", init=("--object-format=sha256",))
    clones.slug = clones.open_pair()
    clones.claude.send("claude", "plan")
    clones.rows("claude", "push")
    assert ("received", "001-claude-plan") in clones.rows("codex", "pull")
    assert clones.rows("codex", "pull") == []


# ---------------------------------------------------------------- the user's git is left out


@slow
def test_no_hook_runs_and_no_tag_branch_or_submodule_is_pushed(turn, tmp_path):
    stage = turn.claude
    for line in (
        ("config", "remote.origin.mirror", "true"),
        ("config", "remote.origin.tagOpt", "--tags"),
        ("config", "remote.origin.push", "+refs/*:refs/*"),
        ("tag", "-a", "v1", "-m", "v1"),
        ("tag", "light"),
        ("branch", "private"),
    ):
        stage.git(*line)
    # A remote in a file runs hooks of its own with the global settings: there, none but pre-push.
    for folder, names in (
        (tmp_path / "hooks", ("pre-push",)),
        (stage.project / ".git/hooks", ("pre-push", "reference-transaction", "post-commit")),
    ):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
            (folder / name).chmod(0o755)
    config = tmp_path / "config"
    config.write_text(
        f"[core]\n\thooksPath = {tmp_path}/hooks\n[push]\n\tfollowTags = true\n\tdefault = matching\n"
        "\trecurseSubmodules = on-demand\n\tgpgSign = if-asked\n\tpushOption = ci.skip\n"
        "[fetch]\n\tprune = true\n\tpruneTags = true\n\trecurseSubmodules = true\n"
        "[commit]\n\tgpgSign = true\n[transfer]\n\tfsckObjects = true\n"
    )
    more = {"GIT_CONFIG_GLOBAL": str(config)}
    before = turn.refs(), stage.git("show-ref")
    stage.send("claude", "fix")
    assert turn.rows("claude", "push", **more) == [("sent", "003-claude-fix")]
    assert turn.rows("claude", "pull", **more) == []
    after = turn.refs()
    assert after.pop(turn.ref + "claude") != before[0].pop(turn.ref + "claude")
    assert after == before[0] and stage.git("show-ref") == before[1]
    assert not (tmp_path / "ran").exists()
    identity = stage.git("log", "-1", "--format=%an %ae %cn %s", turn.ref + "claude", cwd=turn.bare)
    assert identity == "relay relay@localhost relay relay"


# ---------------------------------------------------------------- refs that went back


@slow
def test_a_mirror_push_from_elsewhere_loses_nothing_and_the_next_push_brings_it_back(turn):
    kept = [contents(pair) for pair in turn.pairs]
    turn.claude.git("push", "-q", "--mirror", turn.bare, cwd=turn.folder / "seed")
    assert not any(ref.startswith("refs/relay/") for ref in turn.refs())
    for author in ("claude", "codex"):
        done = turn.sync(author, "pull")
        assert done.code == 1 and "is gone" in done.out, done
    assert [contents(pair) for pair in turn.pairs] == kept
    done = turn.sync("claude", "push")
    assert done.code == 1 and re.findall(r"(?m)^refused +\S+ (\w+)", done.out) == ["codex"], done
    assert turn.rows("codex", "push") == []
    assert turn.refs().keys() >= {turn.ref + "claude", turn.ref + "codex"}
    turn.rows("claude", "pull")
    as_new_clone(turn.codex)
    turn.rows("codex", "pull")
    assert stems(turn.pairs[1]) == ["001-claude-plan", "002-codex-review"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("sync", "pull"), ("next", "--sync")], ids=" ".join)
def test_a_pair_that_is_gone_here_is_restored_before_it_is_taken_from_elsewhere(turn, words):
    """What was not sent yet, how it ended and what the user decided are in the second copy alone."""
    turn.claude.send("claude", "fix", "# Not sent yet\n")
    turn.claude.git("clean", "-fdxq")
    command = f"restore {turn.slug}"
    done = turn.claude.run("claude", *words, **turn.settings)
    assert "is gone here" in done.out + done.err and command in done.out, done
    assert not (turn.claude.shared / turn.slug).exists()
    turn.claude.ok("claude", *command.split())
    turn.rows("claude", "pull")
    assert "# Not sent yet" in turn.claude.ok("claude", "show", "3").out
    assert turn.rows("claude", "push") == [("sent", "003-claude-fix")]
    turn.rows("codex", "pull")
    both_alike(turn, "001-claude-plan", "002-codex-review", "003-claude-fix")


@slow
def test_a_rewound_ref_is_refused_deletes_nothing_and_is_brought_forward_by_its_writer(turn):
    old = turn.refs()[turn.ref + "claude"]
    turn.claude.send("claude", "fix")
    turn.rows("claude", "push")
    turn.rows("codex", "pull")
    turn.claude.git("update-ref", turn.ref + "claude", old, cwd=turn.bare)
    kept = [contents(pair) for pair in turn.pairs]
    for _ in range(2):
        done = turn.sync("codex", "pull")
        assert done.code == 1 and "was rewound" in done.out, done
    assert [contents(pair) for pair in turn.pairs] == kept
    turn.rows("claude", "push")
    turn.rows("codex", "pull")
    as_new_clone(turn.codex)
    turn.rows("codex", "pull")
    assert "003-claude-fix" in stems(turn.pairs[1])


@slow
def test_a_rewritten_ref_is_refused_both_ways_until_somebody_removes_it(turn):
    turn.commit(turn.ref + "claude", **{"session.json": b"{}"})
    kept, refs = [contents(pair) for pair in turn.pairs], turn.refs()
    turn.claude.send("claude", "fix")
    kept[0] = contents(turn.pairs[0])
    for author, way in (("codex", "pull"), ("claude", "push")):
        done = turn.sync(author, way)
        assert done.code == 1 and "was rewritten" in done.out, done
    assert [contents(pair) for pair in turn.pairs] == kept and turn.refs() == refs
    turn.claude.git("update-ref", "-d", turn.ref + "claude", cwd=turn.bare)
    turn.rows("claude", "push")
    turn.rows("codex", "pull")
    assert "003-claude-fix" in stems(turn.pairs[1])


# ---------------------------------------------------------------- refs that lie


def outside(turn):
    """Everything in codex's clone but the ledger's own bookkeeping."""
    kept = turn.codex.snapshot(turn.codex.home, turn.codex.project)
    return {
        name: (mode, content)
        for name, (mode, _, content) in kept.items()
        if "/_relay" not in name and "/.git/" not in name
    }


BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
BAD = {
    "link": ("120000", "003-claude-note.md", BLOB),
    "link-as-session": ("120000", "CLOSED", BLOB),
    "submodule": ("160000", "003-claude-note.md", "1" * 40),
    "executable": ("100755", "003-claude-note.md", BLOB),
    "directory": ("40000", ".seen", "4b825dc642cb6eb9a060e54bf8d69288fbee4904"),
    "old-mode": ("100664", "003-claude-note.md", BLOB),
    "up": ("100644", "../owned", BLOB),
    "absolute": ("100644", "/tmp/relay-owned", BLOB),
    "git": ("100644", ".git", BLOB),
    "draft": ("100644", ".draft", BLOB),
    "binding": ("100644", "_relay", BLOB),
    "pack": ("100644", "003-claude-note.pack", BLOB),
    "other-author": ("100644", "002-codex-note.ready", BLOB),
    "other-log": ("100644", f"codex-{'0' * 24}.jsonl", BLOB),
    "twice": ("100644", "session.json", BLOB),
    "gone": ("100644", "003-claude-note.md", "1" * 40),
    "control": ("100644", "003-claude-note\x1b.md", BLOB),
    "bytes": ("100644", "003-cl\u00e4ude-note.md", BLOB),
}


@slow
@pytest.mark.parametrize("bad", BAD)
def test_a_ref_that_holds_anything_else_is_refused_and_nothing_of_it_is_written(turn, bad):
    turn.claude.git("hash-object", "-w", "--stdin", cwd=turn.bare)
    tip = turn.refs()[turn.ref + "claude"]
    turn.claude.send("claude", "fix")
    turn.rows("claude", "push")
    last = turn.refs()[turn.ref + "claude"]
    turn.commit(turn.ref + "claude", *turn.files(last), BAD[bad], parent=tip)
    before, mine = outside(turn), contents(turn.pairs[0])
    done = turn.sync("codex", "pull")
    if bad == "gone":  # Not even git hands over such a ref.
        assert done.code in (1, 2), done
    else:
        assert done.code == 1 and f"refused   {turn.slug}" in done.out, done
    assert outside(turn) == before and not os.path.exists("/tmp/relay-owned")
    assert turn.sync("claude", "push").code in (1, 2) and contents(turn.pairs[0]) == mine


@slow
def test_a_ref_that_is_no_commit_is_refused(turn):
    blob = turn.files(turn.ref + "claude")[0][2]
    turn.claude.git("update-ref", turn.ref + "other", blob, cwd=turn.bare)
    done = turn.sync("codex", "pull")
    assert done.code == 1 and "other: " in done.out, done


@slow
def test_a_huge_entry_is_refused(turn):
    tip = turn.refs()[turn.ref + "claude"]
    huge = {"003-claude-note.md": b"\0" * (2 * RELAY.MAX_ARTIFACT_BYTES + 1)}
    turn.commit(turn.ref + "claude", *turn.files(tip), parent=tip, **huge)
    before = outside(turn)
    done = turn.sync("codex", "pull")
    assert done.code == 1 and f"refused   {turn.slug}" in done.out, done
    assert outside(turn) == before


@slow
def test_a_huge_tree_and_many_large_entries_are_refused(turn):
    tip = turn.refs()[turn.ref + "claude"]
    row = turn.files(tip)[0]
    many = [
        ("100644", f"{n:03}-claude-{'x' * 30}{m}-note.md", row[2])
        for n in range(1, 999)
        for m in range(20)
    ]
    turn.commit(turn.ref + "claude", *turn.files(tip), *many, parent=tip)
    before = outside(turn)
    assert turn.sync("codex", "pull").code == 1
    large = {"003-claude-note.md": b"\0" * RELAY.MAX_ARTIFACT_BYTES}
    commit = turn.commit(turn.ref + "claude", *turn.files(tip), parent=tip, **large)
    blob = next(row[2] for row in turn.files(commit) if row[1] == "003-claude-note.md")
    many = [("100644", f"{n:03}-claude-note.md", blob) for n in range(5, 65)]
    turn.commit(turn.ref + "claude", *turn.files(tip), *many, parent=tip)
    assert turn.sync("codex", "pull").code == 1
    assert outside(turn) == before


@slow
@pytest.mark.parametrize(
    "ref",
    [
        "refs/relay/../../owned/claude",
        "refs/relay/..",
        "refs/relay/_relay/bindings",
        "refs/relay/-x/claude",
        "refs/relay/a/b/c",
        "refs/relay/only",
        "refs/relay/_archive/claude",
        "refs/relay/p/CLAUDE",
    ],
)
def test_a_ref_of_another_name_is_none_of_the_ledger(turn, ref):
    """Also one that git itself would not make."""
    tip = turn.refs()[turn.ref + "claude"]
    with open(turn.bare / "packed-refs", "a") as file:
        file.write(f"{tip} {ref}\n")
    before = outside(turn)
    done = turn.sync("codex", "pull")
    assert done.code in (0, 1, 2), done
    assert outside(turn) == before
    assert not [path for path in turn.folder.rglob("*") if "owned" in path.name]


@slow
def test_a_forged_artifact_is_damage_and_the_sound_ones_are_taken(turn):
    turn.claude.send("claude", "fix")
    turn.claude.send("claude", "note")
    path = turn.pairs[0] / "003-claude-fix.md"
    turn.rows("claude", "push")
    tip = turn.refs()[turn.ref + "claude"]
    rows = [row for row in turn.files(tip) if row[1] != path.name]
    turn.commit(
        turn.ref + "claude", *rows, parent=tip, **{path.name: path.read_bytes() + b"forged\n"}
    )
    for _ in range(2):
        done = turn.sync("codex", "pull")
        assert done.code == 1 and f"damaged   {turn.slug}/003-claude-fix" in done.out, done
    assert stems(turn.pairs[1]) == ["001-claude-plan", "002-codex-review", "005-claude-note"]


@slow
def test_a_ref_of_somebody_who_is_not_in_the_pair_is_refused(turn):
    tip = turn.refs()[turn.ref + "claude"]
    rows = [row for row in turn.files(tip) if row[1] in ("session.json",)]
    note = {"004-mallory-note.md": b"x", "004-mallory-note.ready": b""}
    turn.commit(f"{turn.ref}mallory", *rows, **note)
    done = turn.sync("codex", "pull")
    assert done.code == 1 and "mallory" in done.out, done


@pytest.mark.slow
def test_a_foreign_session_opens_a_pair_for_its_two_authors_only_and_may_lack_anything(turn):
    whole = json.loads((turn.pairs[0] / "session.json").read_text())
    needed = "schema_version", "state", "participants"
    for number, name in enumerate(["title", "mallory", *{*whole} - {*needed, "title"}]):
        slug = f"20200101-{number}"
        session = {key: whole[key] for key in whole if key != name} | {"session_id": slug}
        by = "mallory" if name == "mallory" else "claude"
        content = json.dumps(session).encode()
        turn.commit(f"refs/relay/{slug}/{by}", **{"session.json": content})
    done = turn.sync("codex", "pull")
    assert done.code == 1 and "mallory is not one of its two authors" in done.out, done
    assert (turn.codex.shared / "20200101-0").is_dir()
    assert not (turn.codex.shared / "20200101-1").exists()
    turn.codex.ok("codex", "log", "--pair-id", "20200101-0")


@slow
def test_another_pair_of_that_name_changes_nothing(turn):
    tip = turn.refs()[turn.ref + "claude"]
    told = json.loads((turn.pairs[0] / "session.json").read_text())
    rows = [row for row in turn.files(tip) if row[1] != "session.json"]
    session = json.dumps({**told, "created_at": "2020-01-01T00:00:00+00:00"}).encode()
    turn.commit(turn.ref + "claude", *rows, parent=tip, **{"session.json": session})
    before = contents(turn.pairs[1])
    for _ in range(2):
        done = turn.sync("codex", "pull")
        assert done.code == 1 and "another pair" in done.out, done
    assert contents(turn.pairs[1]) == before


@slow
def test_a_damaged_artifact_and_a_symlink_here_are_not_sent(turn):
    turn.claude.send("claude", "fix")
    path = turn.pairs[0] / "003-claude-fix.md"
    path.chmod(0o600)
    path.write_text(path.read_text() + "forged\n")
    (turn.claude.folder / "secret").write_text("hush\n")
    os.symlink(turn.claude.folder / "secret", turn.pairs[0] / "CLOSED")
    turn.sync("claude", "push")
    names = {row[1] for row in turn.files(turn.ref + "claude")}
    assert "003-claude-fix.md" not in names and "CLOSED" not in names


@pytest.mark.slow
def test_a_pair_with_a_file_that_cannot_be_read_keeps_no_other_pair_back(turn, monkeypatch):
    other = ("bootstrap", "--topic", "other", "--force")
    slug = turn.claude.ok("claude", *other, **turn.settings).out.split()[0]
    turn.claude.send("claude", "plan")
    turn.rows("claude", "push")
    read = RELAY.read_or_empty

    def failing(path, *limit):
        if path == f"{turn.pairs[1]}/001-claude-plan.md":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return read(path, *limit)

    monkeypatch.setattr(RELAY, "read_or_empty", failing)
    done = turn.sync("codex", "pull", "--json")
    rows = {(row["what"], row["pair"]) for row in done.json["ledger"]}
    assert ("refused", turn.slug) in rows and ("received", slug) in rows, done
    assert (turn.codex.shared / slug / "001-claude-plan.ready").exists()


@slow
def test_a_pair_whose_name_cannot_be_a_ref_is_named(turn):
    for slug in ("a..b", "x.lock"):
        shutil.copytree(turn.pairs[0], turn.claude.shared / slug)
        path = turn.claude.shared / slug / "session.json"
        path.chmod(0o600)
        path.write_text(path.read_text().replace(turn.slug, slug))
    turn.claude.send("claude", "fix", "# Text\n", "go on", "--pair-id", turn.slug)
    done = turn.sync("claude", "push")
    assert done.code == 1 and done.out.count("cannot be a git ref") == 2, done
    assert "003-claude-fix.ready" in {row[1] for row in turn.files(turn.ref + "claude")}


# ---------------------------------------------------------------- killed


# In place of git: at one of its calls it kills relay, before or after the real git has done its work.
KILLING = """#!{python}
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("-") and "=" not in word]
here = words[:1] == [{verb!r}] and os.environ.get("GIT_DIR") and not os.path.exists({flag!r})
if here and {when!r} == "before":
    open({flag!r}, "w").close()
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
if not here:
    os.execv({git!r}, ["git", *sys.argv[1:]])
done = subprocess.run([{git!r}, *sys.argv[1:]])
open({flag!r}, "w").close()
os.kill(os.getppid(), signal.SIGKILL)
"""


@slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["fetch", "cat-file", "fast-import", "push"])
def test_what_is_killed_anywhere_is_finished_exactly_once_by_the_next(turn, tmp_path, verb, when):
    turn.claude.send("claude", "fix")
    turn.codex.send("codex", "note")
    (tmp_path / "bin").mkdir()
    for author, way in (
        ("claude", "push"),
        ("codex", "pull"),
        ("codex", "push"),
        ("claude", "pull"),
    ):
        flag, git = tmp_path / f"{author}-{way}", tmp_path / "bin/git"
        git.write_text(
            KILLING.format(
                python=sys.executable, git=shutil.which("git"), verb=verb, flag=str(flag), when=when
            )
        )
        git.chmod(0o755)
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        child = turn.stages[author].spawn(author, "sync", way, PATH=path, **turn.settings)
        child.communicate(timeout=60)
        killed = verb in ("fetch", "cat-file") or way == "push"
        assert (child.returncode == -signal.SIGKILL) == killed
        for stage in turn.stages.values():
            sound(stage)
        assert turn.sync(author, way).code == 0
    names = ["001-claude-plan", "002-codex-review", "003-claude-fix", "004-codex-note"]
    assert stems(turn.pairs[0]) == stems(turn.pairs[1]) == names
    assert turn.sync("claude", "push").code == 0 and turn.rows("codex", "pull") == []
    both_alike(turn, *names)


@slow
@pytest.mark.parametrize("count", range(0, 12, 2))
def test_a_pull_that_stops_between_two_writes_is_finished_by_the_next(turn, monkeypatch, count):
    turn.claude.send("claude", "fix")
    turn.claude.send("claude", "note")
    turn.rows("claude", "push")
    real, left = RELAY.create, [count]

    def create(path, *args, **more):
        left[0] -= "/ledger/in/" not in path
        if left[0] < 0:
            raise KeyboardInterrupt
        real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(RELAY, "create", create)
        assert turn.sync("codex", "pull").code in (0, RELAY.INTERRUPTED)
    sound(turn.codex)
    assert turn.sync("codex", "pull").code == 0
    assert stems(turn.pairs[1]) == [
        *("001-claude-plan", "002-codex-review", "003-claude-fix", "005-claude-note")
    ]


@slow
def test_kept_objects_that_are_gone_or_damaged_are_named_or_fetched_again(turn):
    store = turn.codex.shared / "_relay/git"
    shutil.rmtree(store / "objects")
    turn.claude.send("claude", "fix")
    turn.rows("claude", "push")
    assert turn.rows("codex", "pull") == [("received", "003-claude-fix")]
    shutil.rmtree(store)
    turn.codex.send("codex", "note")
    assert turn.rows("codex", "push") == [("sent", "004-codex-note")]


@pytest.mark.slow
def test_what_nothing_needs_of_the_kept_objects_goes_and_the_rest_is_packed(turn):
    turn.claude.git("init", "-q", "--bare", turn.folder / "other.git")
    turn.claude.git("remote", "add", "other", turn.folder / "other.git")
    turn.rows("claude", "push", RELAY_REMOTE="other")
    store = turn.claude.shared / "_relay/git"
    tips = (store / "packed-refs").read_text()
    assert "refs/remotes/origin/" in tips and "refs/remotes/other/" in tips
    needed = [*(store / "objects").glob("??/*")]
    # Git looks into one directory to know whether there are many.
    named = ((object_name(b"%d" % n), b"%d" % n) for n in itertools.count())
    unneeded = []
    for name, content in itertools.islice((row for row in named if row[0][:2] == "17"), 40):
        path = store / "objects/17" / name[2:]
        unneeded.append(path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(b"blob %d\0%b" % (len(content), content)))
    months_ago = time.time() - 100 * 86400
    for path in (store / "objects").glob("??/*"):
        os.utime(path, (months_ago, months_ago))
    turn.claude.send("claude", "fix")
    assert turn.rows("claude", "push") == [("sent", "003-claude-fix")]
    assert not any(map(os.path.exists, (*unneeded, *needed)))
    (turn.claude.project / ".git/objects/info").mkdir(exist_ok=True)
    (turn.claude.project / ".git/objects/info/alternates").write_text(f"{store}/objects\n")
    for tip in re.findall("(?m)^[0-9a-f]{40}", tips):
        turn.claude.git("cat-file", "-e", tip)
    assert turn.rows("claude", "push", RELAY_REMOTE="other") == [("sent", "003-claude-fix")]


@slow
@pytest.mark.parametrize("how", ["empty", "other", "gone"])
def test_any_kept_object_may_be_damaged_and_the_next_sync_fetches_it_again(turn, tmp_path, how):
    """Nobody is told that the remote is wrong, and what is unsent is sent."""
    turn.claude.send("claude", "fix")
    turn.rows("claude", "push")
    turn.codex.send("codex", "note")
    store = turn.codex.shared / "_relay/git"
    objects = [p.relative_to(turn.folder) for p in store.rglob("*") if p.is_file()]
    for number, name in enumerate(objects):
        copy = turn.copied(tmp_path / f"copy-{number}")
        path = copy.folder / name
        path.unlink()
        if how != "gone":
            path.write_bytes(
                b"0" * 40 + b" refs/remotes/origin/relay/a..b\n" if how == "other" else b""
            )
        done = copy.sync("codex", "pull")
        if done.code:
            assert done.code == 2 and "was damaged" in done.err, (name, done)
            assert copy.sync("codex", "pull", "--dry-run").code == 0
        for way in ("push", "pull"):
            done = copy.sync("codex", way)
            assert done.code == 0, (name, done)
        assert "003-claude-fix" in stems(copy.codex.shared / copy.slug)
        assert "004-codex-note.md" in {row[1] for row in copy.files(turn.ref + "codex")}


def test_a_remote_with_damaged_objects_is_not_taken_for_a_greeting_of_ssh(turn):
    for _, _, blob in turn.files(turn.ref + "claude"):
        path = turn.bare / "objects" / blob[:2] / blob[2:]
        path.chmod(0o600)
        path.write_bytes(b"junk")
    as_new_clone(turn.codex)
    done = turn.sync("codex", "pull")
    assert done.code == 2 and "broke off" in done.err and "greeting" not in done.err, done
    assert "git ls-remote origin" in done.err


# ---------------------------------------------------------------- over ssh


@pytest.fixture
def over_ssh(stage, tmp_path):
    """Two clones whose remote is reached over a real sshd on loopback."""
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}")
    server = Sshd(tmp_path / "sshd")
    clones = Clones(tmp_path / "git", url=f"far:{tmp_path}/git/remote.git")
    for each in clones.stages.values():
        each.git("config", "core.sshCommand", server.shell)
    clones.server = server
    yield clones
    server.stop()


@slow
def test_the_same_over_ssh(over_ssh):
    clones = over_ssh
    clones.slug = clones.open_pair()
    clones.claude.send("claude", "plan")
    clones.rows("claude", "push")
    assert clones.codex.ok("codex", "next", "--sync", **clones.settings).action == "reply"
    clones.codex.send("codex", "review")
    clones.rows("codex", "push")
    assert clones.rows("claude", "pull") == [("received", "002-codex-review")]
    done = clones.claude.run("claude", "doctor", "--sync", "--json", **clones.settings)
    assert "sync.remote" in done.out and "check.refused" not in done.out


@slow
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((" RemoteCommand /bin/true",), "broke off"),
        ((" Port 1",), "Connection refused"),
        ((" NoSuchOption yes",), "nosuchoption"),
        ((" ProxyCommand false",), "broke off"),
    ],
)
def test_ssh_settings_that_do_not_work_are_refused_with_what_helps(over_ssh, lines, said):
    config = over_ssh.server.folder / "config"
    over_ssh.server.configure()
    text = config.read_text()
    config.write_text(text.replace("Host far\n", "Host far\n" + "\n".join(lines) + "\n"))
    done = over_ssh.sync("claude", "push")
    assert done.code == 2 and said in done.err and "hint: " in done.err, done
    assert "git ls-remote origin" in done.err, done


@slow
def test_a_greeting_a_missing_repository_and_a_closed_door_are_named(over_ssh):
    clones = over_ssh
    clones.claude.git("remote", "set-url", "origin", "far:/nowhere.git")
    assert "/nowhere.git" in clones.sync("claude", "push").err
    clones.claude.git("remote", "set-url", "origin", f"far:{clones.bare}")
    shell = clones.server.folder / "greeting"
    shell.write_text(
        '#!/bin/sh\necho Welcome to this machine\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    shell.chmod(0o755)
    key = clones.server.folder / "user.pub"
    text = key.read_text()
    key.write_text(f'command="{shell}" {text}')
    done = clones.sync("claude", "push")
    assert done.code == 2 and "prints text" in done.err, done
    key.write_text("")
    done = clones.sync("claude", "push")
    assert done.code == 2 and "Permission denied" in done.err, done
