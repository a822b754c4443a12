"""Writers at once: one number, one artifact; one intent, one artifact; nothing lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import re
import shutil
import time

import pytest
from conftest import MORE, RELAY, SESSIONS, findings, forked, read_tree, write_tree
from helpers.tracing import doctor_is_content, sound

# What touches the disk. A process pauses before some of these calls, so that every order of events
# between processes comes up.
UNSTEADY = ("link", "unlink", "open", "replace", "rename", "listdir", "scandir", "mkdir", "lstat")


def unsteady(name, dice, pause, refuse_links):
    real = getattr(os, name)

    def call(*given, **more):
        if dice.random() < pause:
            time.sleep(dice.random() * 0.003)
        if name == "link" and refuse_links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), given[1])
        return real(*given, **more)

    setattr(os, name, call)


def play(stage, author, turns, env):
    """Types commands as fast as it can; what each printed."""
    done = []

    def typed(*words):
        ended = stage.run(author, *words, **{"RELAY_AUTO_ROUND_CAP": "0", **env})
        done.append([ended.code, ended.out, ended.err])
        return ended

    for words in turns:
        if words[0] != "the 1.x way":
            typed(*words)
            continue
        kind, body, ask = words[1:]
        claimed = typed("claim", "--kind", kind)
        draft = claimed.out.strip()
        if claimed.code == 0:
            typed("draft", "set", draft, "--body-file", body, "--prompt-for-next-file", ask)
            typed("publish", draft)
    return done


def race(stage, plays, pause=0.05, refuse_links=False):
    """Forks one process for each (author or environment, turns), lets them go at once; returns what
    each printed."""
    waiting, go = os.pipe()

    def child(number, author, turns):
        os.close(go)
        for name in UNSTEADY:
            unsteady(name, random.Random(f"{number} {name}"), pause, refuse_links)
        who, env = (None, author) if isinstance(author, dict) else (author, {})
        os.read(waiting, 1)
        return play(stage, who, turns, env)

    children = [forked(child, number, *told) for number, told in enumerate(plays)]
    os.close(go)
    os.close(waiting)
    return [ended() for ended in children]


def all_well(played):
    bad = [
        re.sub(r"/\S*/|[0-9a-f-]{5,}|\d+", "N", step[2])
        for steps in played
        for step in steps
        if step[0] != 0
    ]
    if bad:
        told = "".join(
            f"{bad.count(text)} x {text}" for text in sorted(set(bad), key=bad.count, reverse=True)
        )
        pytest.fail(
            f"{len(bad)} of {sum(map(len, played))} commands failed:\n{told}", pytrace=False
        )


def published(stage):
    return sorted(
        path.name[:-3]
        for path in stage.shared.rglob("[0-9][0-9][0-9]-*.md")
        if path.parent.name != ".draft"
    )


def turns_of(stage, process, count, way):
    """`count` turns, each with a text of its own; every second one the 1.x way where `way` says so."""
    ask = stage.file("go on\n", "ask.md")
    turns = []
    for turn in range(count):
        body = stage.file(f"# Turn\n\ntext {process}.{turn}\n", f"body-{process}-{turn}.md")
        old = way == "both" and (turn + process) % 2
        turns.append(
            ["the 1.x way", "note", body, ask]
            if old
            else ["send", "--kind", "note", "--file", body, "--next", "go on"]
        )
    return turns


def everything_arrived(stage, processes, count):
    stems = published(stage)
    assert len(stems) == processes * count
    assert len({stem[:3] for stem in stems}) == processes * count, "a number was given twice"
    texts = [path.read_text() for path in stage.shared.rglob("[0-9][0-9][0-9]-*.md")]
    for process in range(processes):
        for turn in range(count):
            assert sum(f"\ntext {process}.{turn}\n" in text for text in texts) == 1, (
                f"text {process}.{turn}"
            )
    assert stage.litter() == []
    sound(stage)
    doctor_is_content(stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    "refuse_links",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["links", "links-refused"],
)
def test_sixteen_processes_of_two_authors_publish_400_turns(stage, refuse_links):
    stage.open_pair()
    turns = min(25, 6 * MORE) if refuse_links else 25
    plays = [("claude" if n % 2 else "codex", turns_of(stage, n, turns, "both")) for n in range(16)]
    all_well(race(stage, plays, 0.01, refuse_links))
    everything_arrived(stage, 16, turns)


@pytest.mark.slow
@pytest.mark.parametrize("refuse_links", [False, True], ids=["links", "links-refused"])
def test_four_processes_of_two_authors_take_no_number_twice(stage, refuse_links):
    stage.open_pair()
    plays = [("claude" if n % 2 else "codex", turns_of(stage, n, 6, "both")) for n in range(4)]
    all_well(race(stage, plays, 0.05, refuse_links))
    everything_arrived(stage, 4, 6)


@pytest.mark.parametrize(
    "refuse_links",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["links", "links-refused"],
)
@pytest.mark.parametrize("rounds", [2, pytest.param(8 * MORE, marks=pytest.mark.slow)])
def test_the_same_file_sent_by_eight_processes_at_once_becomes_one_artifact(
    stage, rounds, refuse_links
):
    stage.open_pair()
    files = [stage.file(f"# Round\n\nround {n}.\n", f"round-{n}.md") for n in range(rounds)]
    turns = [["send", "--kind", "note", "--file", file, "--next", "go on"] for file in files]
    played = race(stage, [("claude", turns)] * 8, 0.1, refuse_links)
    texts = [
        path.read_text()
        for path in stage.shared.rglob("[0-9][0-9][0-9]-*.md")
        if path.parent.name != ".draft"
    ]
    assert [sum(f"\nround {n}.\n" in text for text in texts) for n in range(rounds)] == [1] * rounds
    all_well(played)
    assert stage.litter() == []
    sound(stage)
    doctor_is_content(stage)


@pytest.mark.slow
@pytest.mark.parametrize("refuse_links", [False, True], ids=["links", "links-refused"])
def test_a_draft_published_by_six_processes_at_once_becomes_one_artifact(stage, refuse_links):
    stage.open_pair()
    turns = []
    for n in range(5):
        body, ask = (
            stage.file(f"# Draft\n\ndraft {n}.\n", f"draft-{n}.md"),
            stage.file("go on\n", "ask.md"),
        )
        draft = stage.ok("claude", "claim", "--kind", "note").out.strip()
        stage.ok(
            "claude", "draft", "set", draft, "--body-file", body, "--prompt-for-next-file", ask
        )
        turns.append(["publish", draft])
    played = race(stage, [("claude", turns)] * 6, 0.1, refuse_links)
    assert len(published(stage)) == 5
    all_well(played)
    assert stage.litter() == []
    sound(stage)
    doctor_is_content(stage)


@pytest.mark.slow
def test_a_publisher_that_comes_late_changes_nothing_that_was_published(stage, monkeypatch):
    """While it asks git, outside the lock, another process sends the same and the peer reads it."""
    stage.open_pair()
    file = stage.file("# Note\n")
    words = ["send", "--kind", "note", "--file", file, "--next", "read it"]
    real, before = RELAY.tree_now, {}

    def overtaken(*given, **more):
        monkeypatch.setattr(RELAY, "tree_now", real)
        row = real(*given, **more)
        assert stage.process("claude", *words).code == 0
        assert stage.ok("codex", "next").action == "reply"
        before.update({path.name: path.read_bytes() for path in stage.shared.rglob("001-*")})
        return row

    monkeypatch.setattr(RELAY, "tree_now", overtaken)
    assert stage.ok("claude", *words, "--json").json["already"]
    assert len(before) == 4
    assert {path.name: path.read_bytes() for path in stage.shared.rglob("001-*")} == before
    assert published(stage) == ["001-claude-note"]
    assert stage.ok("codex", "next").action == "reply"
    assert stage.litter() == []


@pytest.mark.slow
def test_claims_of_one_session_at_once_get_a_number_each(stage):
    stage.open_pair()
    played = race(stage, [("claude", [["claim", "--kind", "note"]] * 4)] * 4, 0.1)
    all_well(played)
    drafts = {step[1].strip() for steps in played for step in steps}
    assert len(drafts) == 16 and len({path.rpartition("/")[2][:3] for path in drafts}) == 16
    assert drafts == {str(path) for path in stage.shared.rglob(".draft/*.md")}
    assert not list(stage.shared.rglob(".seq/*"))


def test_a_draft_claimed_beside_an_unpublished_one_can_be_published(stage):
    stage.open_pair()
    stage.ok("claude", "claim", "--kind", "note")
    draft = stage.ok("codex", "claim", "--kind", "note").out.strip()
    stage.ok(
        "codex",
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file("# N\n"),
        "--prompt-for-next-file",
        stage.file("go on\n", "ask.md"),
    )
    assert "002-codex-note" in stage.ok("codex", "publish", draft).out


INSTANCES = {"the same agent": 1, "two agents": 2, "six agents": 6}


@pytest.mark.parametrize("topics", [1, 6])
@pytest.mark.parametrize("who", INSTANCES)
@pytest.mark.slow
def test_bootstraps_at_once_leave_whole_pairs_and_no_slot_with_two_holders(stage, who, topics):
    sessions = INSTANCES[who]
    plays = []
    for number in range(6):
        author = "claude" if sessions == 1 or number % 2 == 0 else "codex"
        ident = 0 if sessions <= 2 else number // 2
        env = stage.env(author, **{next(iter(SESSIONS[author])): f"{author}-{ident}"})
        plays.append((env, [["bootstrap", "--topic", f"t{number % topics}"]]))
    played = [step for steps in race(stage, plays, 0.2) for step in steps]
    assert all(
        code == 0 or ("hint: " in err and code == 2 and "Traceback" not in err)
        for code, _, err in played
    ), played
    refused = [err for code, _, err in played if code]
    assert all("relay pair join" in err or "next" in err for err in refused), refused
    pairs = stage.ok("claude", "pairs", "list", "--json").json["pairs"]
    assert pairs and all(pair["category"] == "active" for pair in pairs)
    bindings = [
        json.loads(path.read_text()) for path in (stage.shared / "_relay/bindings").glob("*.json")
    ]
    slots = [(binding["pair_slug"], binding["author"]) for binding in bindings]
    assert len(set(slots)) == len(slots), f"a slot has two holders: {slots}"
    assert {slug for slug, _ in slots} <= {pair["session_id"] for pair in pairs}
    assert [path.name for path in stage.shared.rglob("*.tmp")] == []
    if sessions == 1:
        assert len(pairs) == 1, [pair["session_id"] for pair in pairs]


@pytest.mark.parametrize("archive", [[], ["--no-archive"]], ids=["archived", "in-place"])
@pytest.mark.slow
def test_two_closes_at_once_end_the_pair_once(stage, archive):
    for n in range(4):
        stage.open_pair(f"t{n}")
        words = ["close", "--reason", "done", *archive]
        played = [
            step
            for steps in race(stage, [("claude", [words]), ("codex", [words])], 0.3)
            for step in steps
        ]
        assert all(
            code == 0 or ("hint: " in err and "Traceback" not in err) for code, _, err in played
        ), played
        assert any(code == 0 for code, _, _ in played), played
        closed = list(stage.shared.rglob(f"*-t{n}/CLOSED"))
        assert len(closed) == 1
        session = json.loads((closed[0].parent / "session.json").read_text())
        assert session["state"] == "closed"
        stage.run("claude", "next"), stage.run("codex", "next")
        assert [path.name for path in stage.shared.rglob("*.tmp")] == []


@pytest.mark.slow
def test_two_first_turns_of_the_same_author_do_not_share_a_slot(stage):
    stage.ok("claude", "bootstrap", "--topic", "demo")
    plays = [(stage.env("codex", CODEX_THREAD_ID=f"thread-{n}"), [["next"]]) for n in range(6)]
    race(stage, plays, 0.2)
    bindings = [path.name for path in (stage.shared / "_relay/bindings").glob("codex-*.json")]
    assert len(bindings) == 1, bindings


@pytest.mark.parametrize("refuse_links", [False, True], ids=["links", "links-refused"])
@pytest.mark.slow
def test_runs_and_sends_of_two_authors_at_once_lose_no_evidence_and_carry_none_twice(
    stage, refuse_links
):
    path = stage.open_pair()
    runs = [
        (author, [["run", "--", "true", f"{author}-{n}.{m}"] for m in range(8)])
        for author in ("claude", "codex")
        for n in range(2)
    ]
    sends = [
        (author, turns_of(stage, n, 8, "send")) for n, author in enumerate(("claude", "codex"))
    ]
    all_well(race(stage, [*runs, *sends], 0.1, refuse_links))
    words = ["send", "--kind", "note", "--file", stage.file("# Last\n"), "--next", "go on"]
    for author in ("claude", "codex"):
        stage.ok(author, *words, RELAY_AUTO_ROUND_CAP="0")
    carried = {}
    for file in sorted(path.glob("[0-9][0-9][0-9]-*.json")):
        document = json.loads(file.read_text())
        for row in document["evidence"]:
            assert row["author"] == document["author"] and row["code"] == 0
            carried.setdefault(row["id"], []).append(row["argv"][-1])
    assert all(len(words) == 1 for words in carried.values()), "a run was carried twice"
    assert sorted(words[0] for words in carried.values()) == sorted(
        turn[-1] for _, turns in runs for turn in turns
    )
    assert not list(path.glob(".evidence/*")) and stage.litter() == []
    stage.ok("claude", "verify")


# ---- one that stood still for longer than others wait for its lock


@pytest.fixture
def passed_by(monkeypatch):
    """Nobody waits for a lock, as after LOCK_WAIT_S."""
    monkeypatch.setattr(RELAY, "LOCK_WAIT_S", 0.01)


def once_before(monkeypatch, name, wanted, meanwhile):
    """Does something before the first call of a function with such arguments."""
    real, done = getattr(RELAY, name), []

    def late(*given, **more):
        if not done and wanted(*given):
            done.append(True)
            meanwhile()
        return real(*given, **more)

    monkeypatch.setattr(RELAY, name, late)
    return done


@pytest.mark.parametrize("part", ["-plan.json", "-plan.md", "-plan.md.sha256"])
def test_a_publisher_that_stood_still_changes_nothing_of_what_was_published_meanwhile(
    stage, monkeypatch, passed_by, part
):
    pair = stage.open_pair()
    words = ("send", "--kind", "plan", "--file", stage.file("# P\n"), "--next", "go on")
    held = {}

    def again():
        (stage.project / "new.py").write_text("moved\n")
        stage.ok("claude", *words)
        held.update({path: path.read_bytes() for path in pair.glob("001-*")})

    assert (
        once_before(
            monkeypatch,
            "create",
            lambda path, *_: path.endswith(part) and "/.draft/" not in path,
            again,
        )
        == []
    )
    stage.ok("claude", *words)
    parts = [".json", ".md", ".md.sha256", ".pack", ".ready"]
    assert sorted(path.name.partition("plan")[2] for path in held) == parts
    assert {path: path.read_bytes() for path in pair.glob("001-*")} == held
    assert [path.name[:3] for path in pair.glob("*.ready")] == ["001"] and stage.litter() == []
    stage.ok("codex", "verify")


def test_who_cannot_have_a_lock_is_told_of_which_directory_it_is(relay, tmp_path):
    """By its function, as a command waits for 30 s."""
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(relay.Refusal, match=str(tmp_path)):
            with relay.directory_lock(str(tmp_path), "issue add", wait_s=0):
                pass


LOOKING = ("lstat", "stat", "access", "open", "listdir")
LOOKS = {
    "next": ["next"],
    "wait": ["wait", "--timeout", "0"],
    "status": ["status"],
    "verify": ["verify", "--all"],
    "log": ["log"],
    "show": ["show"],
    "findings": ["findings"],
    "brief": ["brief"],
    "export": ["export", "--sarif"],
    "statusline": ["statusline"],
    "pairs": ["pairs", "list"],
    "doctor": ["doctor", "--json"],
}
MOVES = {
    "close": lambda slug: ["close", "--reason", "done"],
    "archive": lambda slug: ["pairs", "archive", slug, "--force"],
    "restore": lambda slug: ["pairs", "restore", slug],
    "forget": lambda slug: ["forget", slug, "--yes"],
}
DAMAGE = r"damaged|[Mm]issing|is gone|No such file|cannot be read|Traceback|invalid_schema|was changed|meanwhile"


def interrupted(stage, monkeypatch, words, at, move):
    """Types a command, and the move just before its call number `at` below the ledger or its copy; a
    move that would have to wait for a lock comes when that is free. What it printed, and its calls."""
    calls, below = [], (f"{stage.shared}", f"{stage.project}/.git/relay")

    def before(name):
        real = getattr(os, name)

        def call(path, *more, **named):
            if str(path).startswith(below) and not str(path).endswith("/.lock"):
                calls.append(name)
                if len(calls) >= at > 0 and not RELAY.held_locks and move[0]:
                    typed = move.pop(0)
                    move.append(None)
                    assert forked(stage.run, "codex", *typed)().code == 0
            return real(path, *more, **named)

        return call

    with monkeypatch.context() as patch:
        for name in LOOKING:
            patch.setattr(os, name, before(name))
        return stage.run("claude", *words), len(calls)


@pytest.mark.slow
@pytest.mark.parametrize("move", MOVES)
def test_what_looks_at_a_pair_that_moves_sees_it_before_or_after(stage, monkeypatch, move):
    stage.open_pair()
    (stage.project / "a.py").write_text("x = 1\n")
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "review", findings("major a.py:1 wrong"), "mend it", "--verdict", "changes")
    slug = next(stage.shared.rglob("session.json")).parent.name
    if move == "restore":
        stage.ok("codex", "pairs", "archive", slug, "--force")
    kept = {folder: read_tree(folder) for folder in (stage.shared, stage.project / ".git/relay")}
    dice, wrong = random.Random(move), []

    def again():
        for folder, tree in kept.items():
            shutil.rmtree(folder)
            write_tree(folder, tree, 0o077)

    def said(done):
        return done.code, set(re.findall(DAMAGE, done.out + done.err))

    for name, words in LOOKS.items():
        again()
        first, count = interrupted(stage, monkeypatch, words, 0, [None])
        again()
        stage.ok("codex", *MOVES[move](slug))
        truths = said(first), said(stage.run("claude", *words))
        for at in sorted(dice.sample(range(1, count), min(count - 1, 12 * MORE))):
            again()
            done, _ = interrupted(stage, monkeypatch, words, at, [MOVES[move](slug)])
            noted = "could not be recorded as seen" in done.err  # It was delivered before.
            if said(done) not in truths and not noted:
                wrong.append((name, at, said(done), truths, done.err, done.out[-300:]))
    assert not wrong, wrong[:5]
