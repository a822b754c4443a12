"""Ledgers of 1.x open as they are, can be continued, and stay readable to a 1.x reader."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import time

import pytest
from helpers import v1_ledgers as v1
from helpers import v1_reader

CATEGORIES = {
    "fresh": "active",
    "active": "active",
    "paused": "terminal",
    "ended": "terminal",
    "cancelled": "terminal",
    "failed": "terminal",
    "closed": "closed",
    "inactive": "inactive",
    "future": "unsupported_schema",
    "older": "unsupported_schema",
    "broken-missing": "invalid_schema",
    "broken-word": "invalid_schema",
    "broken-bool": "invalid_schema",
    "broken-null": "invalid_schema",
    "broken-list": "invalid_schema",
    "broken-text": "invalid_schema",
    "broken-bytes": "invalid_schema",
}
OVER = {"ended": "closed", "cancelled": "cancelled", "failed": "failed"}


def opened(stage, *names):
    return v1.ledger(stage.shared, *names)


# ---- what is there is read


def test_the_reader_and_the_writer_of_1_x_agree_on_every_ledger(stage):
    for name in v1.PAIRS:
        folder = opened(stage, name)
        told = v1.PAIRS[name].get("artifacts", ())
        for meta, read in zip(told, v1_reader.artifacts(folder).values(), strict=True):
            assert {key: read[key] for key in meta} == meta


def test_every_artifact_of_1_x_means_to_relay_what_it_meant_to_1_x(stage, relay):
    folders = [opened(stage, name) for name in v1.PAIRS]
    count = 0
    for folder in folders:
        for stem, meta in v1_reader.artifacts(folder).items():
            assert relay.parse_artifact((folder / f"{stem}.md").read_text())[0] == meta
            count += 1
    assert count > 50


def test_an_archived_pair_is_found_by_looking_and_by_no_scan(stage):
    opened(stage, "archived")
    slug = v1.slug_of("archived")
    assert stage.ok("claude", "pairs", "list", "--json").json["pairs"] == []
    (row,) = stage.ok("claude", "pairs", "list", "--archived", "--json").json["pairs"]
    assert (row["session_id"], row["category"], row["archived"]) == (slug, "closed", True)
    assert stage.run("claude", "pair", "ensure", "--json").json["action"] == "bootstrap"
    for words in (("log",), ("show", "2"), ("status",), ("log", "--json"), ("status", "--json")):
        assert stage.ok("claude", *words, "--pair-id", slug).out
    before = v1.snapshot(stage.shared / "_archive" / slug)
    stage.ok("claude", "pairs", "restore", slug)
    assert v1.snapshot(stage.shared / slug) == before
    assert stage.ok("claude", "pairs", "list", "--json").json["pairs"][0]["category"] == "closed"
    stage.ok("claude", "pairs", "archive", slug)
    assert v1.snapshot(stage.shared / "_archive" / slug) == before


@pytest.mark.parametrize("name", [name for name in v1.PAIRS if name not in v1.REFUSED])
def test_looking_changes_no_byte_of_a_pair(stage, name):
    folder = opened(stage, name)
    before = v1.snapshot(folder)
    slug = folder.name
    for words in (
        ("status",),
        ("status", "--json"),
        ("status", "--last", "2"),
        ("log",),
        ("log", "--json"),
    ):
        stage.ok("claude", *words, "--pair-id", slug)
    for words in (("doctor",), ("doctor", "--json")):
        stage.run("claude", *words)
    if v1.PAIRS[name].get("artifacts"):
        assert "verified" in stage.ok("claude", "show", "1", "--pair-id", slug).out
        files = b"".join(path.read_bytes() for path in sorted(folder.glob("001-*.md")))
        shown = stage.ok("claude", "show", "1", "--json", "--pair-id", slug).json["artifacts"]
        assert shown and all(row["body"].encode() in files for row in shown)
    assert v1.snapshot(folder) == before


@pytest.mark.slow
def test_status_tells_each_state_of_activity(stage):
    opened(stage, *v1.PAIRS)
    told = {}
    for name in CATEGORIES:
        row = stage.ok("claude", "status", "--json", "--pair-id", v1.slug_of(name)).json
        told[name] = (row["is_active"], row["resumable"])
    running = {"fresh": (True, False), "active": (True, False), "paused": (False, True)}
    assert told == {name: running.get(name, (False, False)) for name in CATEGORIES}


# ---- wait and next


def test_where_no_pair_is_active_the_hint_lists_those_that_ended(stage):
    opened(stage, "ended")
    hint = stage.refused("claude", "wait", "--timeout", "0").err.partition("hint: ")[2]
    assert v1.slug_of("ended") in stage.ok("claude", *hint.split()[1:]).out


def waited_out(stage, name):
    """The end of a wait, behind all that was still to be handed over."""
    for _ in range(4):
        done = stage.run("claude", "wait", "--timeout", "0", "--pair-id", v1.slug_of(name))
        if done.code:
            return done.code, done.out.strip()
    return done.code, "handed over again and again"


@pytest.mark.parametrize(
    "name, word",
    [*OVER.items(), ("paused", "timed_out"), ("closed", "closed"), ("inactive", "closed")],
)
def test_a_wait_ends_with_12_and_the_word(stage, name, word):
    opened(stage, name)
    assert waited_out(stage, name) == (12, word)


def test_a_wait_prints_the_path_of_what_1_x_left_for_me(stage):
    folder = opened(stage, "active")
    assert stage.ok("claude", "wait", "--timeout", "0").out == f"{folder}/003-codex-fix.md\n"
    assert stage.run("codex", "wait", "--timeout", "0").code == 10


def test_a_wait_for_a_1_x_peer_long_silent_ends_with_11(stage):
    opened(stage, "active")
    v1.bind(stage.shared, "claude", "of-1-x", "active")
    assert stage.run("codex", "wait", "--timeout", "0").code == 11


def test_a_1_x_heartbeat_shows_that_its_author_lives(stage):
    folder = opened(stage, "active")
    v1.bind(stage.shared, "claude", "of-1-x", "active")
    v1.draft(folder, ("codex", "claude"), seq=4, author="claude", kind="review")
    assert stage.run("codex", "wait", "--timeout", "0").code == 10
    assert stage.ok("codex", "next").action == "wait"
    (row,) = stage.run("codex", "doctor", "--json").json["sessions"]
    assert row["heartbeat_pidfile"] == "004-claude-review.pid"
    assert row["heartbeat_sidecars"] == ["004-claude-review.heartbeat"]
    assert [draft["name"] for draft in row["drafts"]] == ["004-claude-review.md"]


def test_a_heartbeat_is_not_taken_for_that_of_an_author_with_a_shorter_name(stage):
    folder = opened(stage, "dashes")
    v1.bind(stage.shared, "agent", "of-1-x", "dashes")
    v1.draft(folder, ("my-agent", "agent"), seq=3, author="my-agent", kind="fix")
    assert stage.run("my-agent", "wait", "--timeout", "0").code == 0
    stage.ok("my-agent", "pair", "join", folder.name)
    stage.send("my-agent", "note")
    os.utime(folder / ".draft" / "003-my-agent-fix.heartbeat", (time.time(), time.time()))
    row = stage.ok("my-agent", "status", "--json").json["moves"]["my-agent"]
    assert row["peer_state"].endswith(" d ago"), row


NEXT = {
    "fresh": ("start", "start"),
    "active": ("reply", "wait"),
    "paused": ("ask_user", "ask_user"),
    "ended": ("over", "over"),
    "cancelled": ("over", "over"),
    "failed": ("over", "over"),
    "closed": ("over", "over"),
    "inactive": ("over", "over"),
    "worktree": ("reply", "wait"),
    "corrected": ("reply", "reply"),
}


@pytest.mark.parametrize("name", NEXT)
def test_next_knows_whose_move_it_is(stage, name):
    opened(stage, name)
    words = NEXT[name] if name != "fresh" else ("start", "wait")
    v1.bind(stage.shared, "claude", "session-of-claude", name)
    v1.bind(stage.shared, "codex", "thread-of-codex", name, bound_at="2024-05-02T10:00:00+02:00")
    assert (stage.ok("claude", "next").action, stage.ok("codex", "next").action) == words


@pytest.mark.slow
def test_next_lists_what_an_approval_of_what_1_x_wrote_lacks_and_the_review_can_be_finished(stage):
    opened(stage, "active")
    (stage.project / "src").mkdir()
    (stage.project / "src" / "pay.py").write_text("1\n")
    told = stage.ok("claude", "next")
    assert (
        "approve still lacks:\n  the working tree was not recorded with 003: relay 1.x" in told.out
    )
    assert told.next.startswith("send --kind review --reply-to 3 --verdict VERDICT")
    approve = ("send", "--kind", "review", "--verdict", "approve", "--not-run", "r", "--next", "x")
    done = stage.run("claude", *approve, "--file", stage.file("# Fine\n"))
    assert done.code == 2 and "relay 1.x" in done.err
    stage.send("claude", "review", "# Once more\n", "send it again", "--verdict", "changes")
    stage.ok("codex", "next")
    stage.send("codex", "fix")
    stage.ok("claude", "next")
    stage.ok("claude", *approve, "--file", stage.file("# Fine now\n"))
    stage.ok("codex", "next")
    stage.ok("codex", "close", "--outcome", "approve", "--reason", "done")


def test_an_artifact_of_1_x_answers_everything_lower(stage, relay):
    folder = opened(stage, "active")
    v1.publish(folder, ("codex", "claude"), seq=5, author="claude", kind="note", in_reply_to=1)
    assert stage.ok("claude", "next").action == "wait"
    v1.publish(folder, ("codex", "claude"), seq=4, author="codex", kind="note")
    assert stage.ok("claude", "next").action == "wait"
    v1.publish(folder, ("codex", "claude"), seq=6, author="codex", kind="note")
    assert stage.ok("claude", "next").out.count("note, ") == 1


@pytest.mark.parametrize("kind", ["correction", "addendum"])
def test_a_correction_of_1_x_answers_nothing(stage, kind):
    folder = opened(stage, "active")
    v1.publish(folder, ("codex", "claude"), seq=4, author="claude", kind=kind, corrects=2)
    told = stage.ok("claude", "next")
    assert told.action == "reply" and "003 fix" in told.out


def test_a_2_x_answer_and_a_1_x_one_after_it_take_turns(stage):
    folder = opened(stage, "active")
    stage.ok("claude", "next")
    stage.send("claude", "review")
    v1.publish(folder, ("codex", "claude"), seq=5, author="codex", kind="fix", in_reply_to=4)
    assert "005 fix" in stage.ok("claude", "next").out
    v1.publish(folder, ("codex", "claude"), seq=6, author="claude", kind="note", in_reply_to=5)
    assert stage.ok("claude", "next").action == "wait"
    assert "006 note" in stage.ok("codex", "next").out
    assert [row["seq"] for row in stage.ok("codex", "log", "--json").json["artifacts"]] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_two_artifacts_of_one_number_are_both_handed_over_answered_and_named(stage):
    folder = opened(stage, "doubled")
    assert "002 note" in stage.ok("claude", "next").out
    assert "002 review" in stage.ok("codex", "next").out
    both = stage.ok("claude", "show", "2").out
    assert "002 review by claude" in both and "002 note by codex" in both
    assert [row["seq"] for row in stage.ok("claude", "log", "--json").json["artifacts"]] == [
        1,
        2,
        2,
    ]
    assert "each shares its number" in stage.ok("claude", "verify").out
    stage.send("claude", "fix")
    assert stage.ok("claude", "next").action == "wait"
    told = stage.ok("codex", "next").out
    assert "002 review" in told and "003 fix" in told
    assert len(v1_reader.artifacts(folder)) == 4


def test_a_log_of_one_author_is_not_taken_for_that_of_an_author_with_a_shorter_name(stage):
    v1.pair(stage.shared, "prefix", v1.STORY[:0], authors=("my", "my-agent"))
    v1.ledger(stage.shared, "closed")
    slug = v1.slug_of("prefix")
    v1.publish(stage.shared / slug, ("my", "my-agent"), seq=1, author="my", kind="decision")
    stage.ok("my-agent", "next")
    stage.ok("my-agent", "continue")
    stage.ok("my", "next")
    by = [line["by"] for line in stage.ok("my", "log", "--json").json["user"]]
    assert [who.partition(":")[0] for who in by] == ["my-agent"]
    stage.ok("my-agent", "next")
    stage.send("my-agent", "note", "# ok\n", "go on")
    stage.send("my-agent", "decision", "# choose\n", "choose")
    assert stage.ok("my", "next").action == "ask_user"
    stage.ok("my-agent", "continue")
    assert stage.ok("my", "next").action == "reply", "one user, one answer"


# ---- what is continued


def continued_by_send(stage, slug):
    stage.ok("claude", "pair", "join", slug)
    body, prompt = (
        stage.file("# Seen\n\n---\nseq: 9\n", "b.md"),
        stage.file("---\nseq: 9\nstatus: closed\n", "p.md"),
    )
    return stage.ok("claude", "send", "--kind", "review", "--file", body, "--next-file", prompt)


def continued_by_steps(stage, slug):
    stage.ok("claude", "pair", "join", slug)
    draft = stage.ok("claude", "claim", "--kind", "review").out.strip()
    body, prompt = stage.file("# Seen\n", "b.md"), stage.file("look\n", "p.md")
    stage.ok(
        "claude",
        "draft",
        "set",
        draft,
        "--body-file",
        body,
        "--prompt-for-next-file",
        prompt,
        "--touched-path",
        "a: b",
        "--sync-needed",
    )
    return stage.ok("claude", "publish", draft)


@pytest.mark.parametrize("continued", [continued_by_send, continued_by_steps])
@pytest.mark.parametrize("name", ["active", "corrected", "worktree", "doubled", "fresh"])
def test_a_pair_of_1_x_is_continued_and_1_x_reads_what_was_added(stage, relay, name, continued):
    folder = opened(stage, name)
    before = {path: state for path, state in v1.snapshot(folder).items() if state[0] is not None}
    path = pathlib.Path(continued(stage, folder.name).out.split("\n")[0])
    added, text = v1_reader.artifacts(folder)[path.stem], path.read_text()
    assert added == relay.parse_artifact(text)[0]
    more = {"sidecar_sha256", "changeset", "base_commit", "head_commit"}
    assert added.keys() - set(v1.KEYS) <= more
    known = [meta["seq"] for meta in v1.PAIRS[name].get("artifacts", ())]
    assert added["seq"] == max(known, default=0) + 1 and added["kind"] == "review"
    assert (
        path.with_suffix(".md.sha256")
        .read_text()
        .startswith(hashlib.sha256(text.encode()).hexdigest())
    )
    after = v1.snapshot(folder)
    assert {path: after.get(path) for path in before} == before
    stage.ok("codex", "pair", "join", folder.name)
    assert f"{added['seq']:03} review" in stage.ok("codex", "next").out
    assert stage.litter() == []


def test_a_draft_that_1_x_claimed_is_filled_and_published(stage):
    folder = opened(stage, "active")
    meta = {"seq": 4, "author": "claude", "kind": "review", "in_reply_to": 3}
    draft = v1.draft(folder, ("codex", "claude"), **meta, prompt_for_next="TODO: say it\n")
    v1.bind(stage.shared, "claude", "session-of-claude", "active")
    assert stage.ok("claude", "next").action == "reply", "what was not read comes first"
    assert stage.ok("claude", "next").action == "finish"
    assert stage.run("claude", "publish", draft).code == 2
    prompt, body = stage.file("mend 3\n"), stage.file("# b\n", "b.md")
    words = ("--prompt-for-next-file", prompt, "--body-file", body)
    stage.ok("claude", "draft", "set", draft, *words)
    path = stage.ok("claude", "publish", draft).out.strip()
    assert v1_reader.artifacts(folder)["004-claude-review"]["prompt_for_next"] == "mend 3\n"
    assert path == f"{folder}/004-claude-review.md" and not draft.exists()


def test_claim_takes_no_number_that_a_1_x_draft_holds(stage):
    folder = opened(stage, "active")
    v1.draft(folder, ("codex", "claude"), seq=4, author="codex", kind="note")
    stage.ok("claude", "pair", "join", folder.name)
    assert "/005-claude-note.md" in stage.ok("claude", "claim", "--kind", "note").out


def test_a_paused_pair_is_joined_ensured_and_answered(stage):
    folder = opened(stage, "paused")
    assert stage.ok("claude", "pair", "ensure", "--json").json["action"] == "joined"
    assert stage.ok("claude", "next", "--json").json["action"] == "ask_user"
    stage.ok("claude", "continue")
    assert stage.ok("claude", "next").action in ("resume", "reply")
    stage.send("claude", "note")
    assert stage.ok("claude", "status", "--json").json["is_active"]
    assert stage.ok("codex", "next").action == "reply"
    assert len(v1_reader.artifacts(folder)) == 5


@pytest.mark.parametrize("name", [*OVER, "closed", "inactive"])
def test_an_ended_pair_takes_nothing_more_but_a_forced_note(stage, name):
    folder = opened(stage, name)
    before = v1.snapshot(folder)
    slug = folder.name
    file = stage.file("# x\n")
    for words in (
        ("claim", "--kind", "note", "--pair-id", slug),
        ("send", "--kind", "note", "--file", file, "--next", "x", "--pair-id", slug),
        ("pair", "join", slug),
    ):
        assert stage.run("claude", *words).code == 2, words
    assert stage.run("claude", "pair", "ensure", "--json").json["action"] == "bootstrap"
    assert v1.snapshot(folder) == before
    draft = v1.draft(folder, ("codex", "claude"), seq=8, author="claude", kind="note")
    assert stage.run("claude", "publish", draft).code == 2
    assert stage.run("claude", "publish", draft, "--force", "--force-reason", "x").code == 2
    stage.ok(
        "claude", "publish", draft, "--status", "failed", "--force", "--force-reason", "as: agreed"
    )
    assert v1_reader.artifacts(folder)["008-claude-note"]["force_reason"] == "as: agreed"


@pytest.mark.parametrize("name", ["active", "paused", "ended", "fresh"])
def test_closing_writes_what_1_x_reads(stage, name):
    folder = opened(stage, name)
    stage.ok(
        "claude", "close", "--pair-id", folder.name, "--reason", 'say "hi"', "--outcome", "dropped"
    )
    moved = stage.shared / "_archive" / folder.name
    assert not folder.exists()
    rows = dict(line.split(" = ") for line in (moved / "CLOSED").read_text().splitlines())
    assert [*rows] == ["reason", "outcome", "closed_by", "closed_at", "approval"]
    assert json.loads(rows["reason"]) == 'say "hi"' and json.loads(rows["closed_by"]) == "claude"
    session = json.loads((moved / "session.json").read_text())
    assert (session["state"], session["close_reason"], session["closed_at"]) == (
        "closed",
        'say "hi"',
        json.loads(rows["closed_at"]),
    )
    assert list(session)[:9] == [
        "schema_version",
        "project",
        "session_id",
        "title",
        "state",
        "created_at",
        "closed_at",
        "close_reason",
        "participants",
    ]


def test_what_1_x_said_on_closing_is_told(stage):
    folder = opened(stage, "closed")
    told = stage.ok("claude", "log", "--pair-id", folder.name).out
    assert "outcome" in stage.ok("claude", "status", "--pair-id", folder.name).out
    assert all(v1.CLOSED[key] in told for key in ("reason", "outcome", "closed_by"))
    assert v1.CLOSED["closed_at"][:16].replace("T", " ") in told


def test_terminated_pairs_are_archived_together_and_others_stay(stage):
    opened(stage, *v1.PAIRS)
    stage.ok("claude", "pairs", "archive", "--terminated")
    archived = {
        path.name.removeprefix(f"{v1.DAY}-") for path in (stage.shared / "_archive").iterdir()
    }
    assert archived == {"archived", "closed", "inactive", *OVER}


# ---- what is refused stays as it is


def refused_ledger(stage, name):
    """A pair that 2.x may only look at, with all that tempts a repair: litter, reservations, drafts, stale bindings."""
    folder = opened(stage, name)
    draft = v1.draft(folder, ("codex", "claude"), seq=4, author="claude", kind="note")
    v1.put(
        folder / ".draft" / "003-claude-note.md",
        v1.artifact(("codex", "claude"), seq=3, author="claude", kind="note", status="draft"),
    )
    for suffix in (".md", ".ready", ".md.sha256"):
        v1.put(folder / f"003-claude-note{suffix}", "")
    old = [
        v1.put(folder / base, "x\n")
        for base in (
            ".CLOSED.1-1-1-1.tmp",
            ".seq/009",
            ".draft/.x.md.1-1-1-1.tmp",
            "005-codex-fix.md",
        )
    ]
    for path in old:
        os.utime(path, (86400, 86400))
    return folder, draft


@pytest.mark.parametrize("name", v1.REFUSED)
def test_a_pair_of_another_schema_takes_nothing(stage, name):
    folder, draft = refused_ledger(stage, name)
    slug, file, here = folder.name, stage.file("# x\n"), ("--pair-id", folder.name)
    before = v1.snapshot(folder)
    for words in (
        ("next", *here),
        ("claim", "--kind", "note", *here),
        ("send", "--kind", "note", "--file", file, "--next", "x", *here),
        ("wait", "--timeout", "0", *here),
        ("close", "--reason", "x", *here),
        ("continue", *here),
        ("pair", "join", slug),
        ("draft", "set", draft, "--body-file", file),
        ("publish", draft),
        ("pairs", "archive", slug),
        ("publish", draft, "--status", "failed", "--force", "--force-reason", "x"),
    ):
        done = stage.run("claude", *words)
        assert done.code == 2 and CATEGORIES[name] in done.err, (words, done)
        assert v1.snapshot(folder) == before, words


def test_a_published_draft_in_a_pair_of_another_schema_stays(stage):
    folder, _ = refused_ledger(stage, "future")
    before = v1.snapshot(folder)
    assert stage.run("claude", "publish", folder / ".draft" / "003-claude-note.md").code == 2
    assert v1.snapshot(folder) == before


LOOKING = (
    ("status", "PAIR"),
    ("status", "--json", "PAIR"),
    ("log", "PAIR"),
    ("show", "PAIR"),
    ("show", "1", "PAIR"),
    ("next",),
    ("brief",),
    ("pairs", "list"),
    ("pairs", "list", "--json"),
    ("pair", "ensure"),
    ("pair", "show"),
    ("whoami",),
    ("preflight",),
    ("doctor",),
    ("doctor", "--json"),
    ("doctor", "--fix", "--older-than", "0s"),
    ("pairs", "archive", "--terminated"),
    ("heartbeat", "tick"),
)


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_looking_at_a_pair_of_another_schema_changes_nothing(stage, words):
    for name in ("future", "broken-text", "broken-null"):
        folder, _ = refused_ledger(stage, name)
        before = v1.snapshot(folder)
        v1.bind(stage.shared, "claude", "session-of-claude", name)
        done = stage.run(
            "claude",
            *[word for word in words if word != "PAIR"],
            *(("--pair-id", folder.name) if "PAIR" in words else ()),
        )
        assert done.code in (0, 1, 2, 3, 13), done
        assert v1.snapshot(folder) == before


@pytest.mark.parametrize("name", v1.REFUSED)
def test_a_pair_of_another_schema_is_reported(stage, name):
    folder = opened(stage, name)
    word = CATEGORIES[name]
    done = stage.ok("claude", "status", "--json", "--pair-id", folder.name)
    assert done.json["category"] == word
    (row,) = stage.run("claude", "doctor", "--json").json["sessions"]
    assert row["schema_error"] == word and stage.run("claude", "doctor").code == 1


def test_a_refused_pair_hinders_no_other(stage):
    opened(stage, "active", *v1.REFUSED)
    assert stage.ok("claude", "pair", "ensure", "--json").json == {
        "action": "joined",
        "pair": v1.slug_of("active"),
        "instance_id": "claude:session-",
    }
    assert stage.ok("claude", "next").action == "reply"


# ---- doctor


def test_doctor_is_clean_on_every_sound_ledger(stage):
    opened(stage, *[name for name in v1.PAIRS if name not in v1.REFUSED and name != "doubled"])
    done = stage.ok("claude", "doctor", "--json")
    assert done.json["findings_count"] == 0


def test_doctor_names_an_old_mark_and_leaves_what_it_does_not_know(stage):
    opened(stage, "active")
    mark = v1.put(stage.shared / ".active-session", v1.slug_of("active"))
    strange = v1.bind(stage.shared, "codex", "later", "active", schema_version=2)
    stale = v1.bind(stage.shared, "claude", "gone", "nowhere")
    done = stage.run("claude", "doctor", "--json")
    assert done.code == 1 and done.json["legacy_active_session"] == str(mark)
    assert (done.json["stale_bindings"], done.json["unsupported_bindings"]) == (
        [stale.name],
        [strange.name],
    )
    assert stale.exists()
    fixed = stage.run("claude", "doctor", "--fix", "--json").json
    assert strange.exists() and mark.exists() and not stale.exists() and len(fixed["actions"]) == 1
    assert stage.ok("claude", "pair", "ensure", "--json").json["action"] == "joined"


def test_doctor_names_half_an_artifact_of_1_x(stage):
    folder = opened(stage, "active")
    half = v1.put(folder / "004-codex-note.md", "---\n")
    os.utime(half, (86400, 86400))
    assert stage.ok("claude", "next").action == "reply"
    row = stage.run("claude", "doctor", "--json").json["sessions"][0]
    assert row["incomplete_triads"][0]["stem"] == "004-codex-note" and half.exists()


# ---- bindings


def test_a_binding_of_1_x_is_used(stage):
    opened(stage, "active", "fresh")
    v1.bind(stage.shared, "claude", "session-of-claude", "active")
    assert stage.ok("claude", "pair", "ensure", "--json").json["action"] == "use"
    assert stage.ok("claude", "whoami", "--json").json["bound_pair"] == v1.slug_of("active")


@pytest.mark.parametrize("last_seen, code", [(v1.AT, 0), ("now", 2), ("not a time", 0)])
def test_a_slot_is_free_once_its_1_x_holder_fell_silent(stage, relay, last_seen, code):
    opened(stage, "active")
    v1.bind(
        stage.shared,
        "claude",
        "another",
        "active",
        relay.iso(time.time()) if last_seen == "now" else last_seen,
    )
    assert stage.run("claude", "pair", "join", v1.slug_of("active")).code == code


@pytest.mark.parametrize(
    "name, action", [("closed", "bootstrap"), ("ended", "bootstrap"), ("paused", "use")]
)
def test_a_binding_to_a_dead_pair_is_dropped_and_to_a_paused_one_kept(stage, name, action):
    opened(stage, name)
    path = v1.bind(stage.shared, "claude", "session-of-claude", name)
    assert stage.run("claude", "pair", "ensure", "--json").json["action"] == action
    assert path.exists() == (action == "use")


# ---- the JSON that scripts of 1.x read


PAIR_KEYS = set(
    "session_id project title state category is_active bound_instances authors open_slots closed_sentinel next_seq latest path archived".split()
)
STATUS_KEYS = set(
    "session session_dir is_active resumable next_seq published drafts closed_sentinel bound_pair".split()
)
PUBLISHED_KEYS = set(
    "seq author peer kind status created in_reply_to sync_needed corrects worktree_root path first_line".split()
)
DOCTOR_KEYS = set(
    "shared_root author sessions actions stale_bindings unsupported_bindings legacy_active_session findings_count".split()
)
SESSION_KEYS = set(
    "session_id is_active drafts heartbeat_pidfile heartbeat_sidecars incomplete_triads".split()
)
CHECKS = (
    "identity.author identity.session_id identity.peer env.RELAY_SYNC shared_root.location mount.sentinel pair.binding "
    "fs.posix_mode"
).split()
ISSUE_KEYS = set(
    "id created reporter project pair severity area title status resolved_at resolution".split()
)


def test_pairs_list_has_the_keys_of_1_x(stage):
    folder = opened(stage, "active", "future")
    v1.bind(stage.shared, "codex", "thread-of-codex", "active")
    told = stage.ok("claude", "pairs", "list", "--json").json
    assert {"shared_root", "archived", "pairs"} <= set(told) and told["archived"] is False
    active, future = told["pairs"]
    assert (
        set(active) >= PAIR_KEYS
        and "schema_error" not in active
        and set(future) >= PAIR_KEYS | {"schema_error"}
    )
    assert active["latest"] == v1_reader.artifacts(folder)["003-codex-fix"]
    assert (active["bound_instances"], active["authors"], active["open_slots"]) == (
        ["codex:thread-o"],
        ["codex", "claude"],
        1,
    )


def test_status_has_the_keys_of_1_x(stage):
    folder = opened(stage, "active")
    v1.draft(folder, ("codex", "claude"), seq=4, author="claude", kind="note")
    told = stage.ok("claude", "status", "--json").json
    assert set(told) >= STATUS_KEYS and told["session"] == json.loads(
        (folder / "session.json").read_text()
    )
    assert all(set(row) >= PUBLISHED_KEYS for row in told["published"])
    assert (
        told["published"][2]["first_line"] == "# fix 3"
        and told["next_seq"] == 5
        and len(told["drafts"]) == 1
    )
    assert [
        row["seq"]
        for row in stage.ok("claude", "status", "--json", "--last", "1").json["published"]
    ] == [3]


def test_an_unbound_strict_status_prints_nulls(stage):
    opened(stage, "active")
    told = stage.ok("claude", "status", "--json", "--require-binding").json
    assert set(told) >= STATUS_KEYS and told["session"] is None and told["bound_pair"] is None
    assert stage.run("claude", "wait", "--require-binding", "--timeout", "0").code == 2
    assert stage.run("claude", "claim", "--kind", "note").code == 2


@pytest.mark.parametrize(
    "names, others, action, code, keys",
    [
        (["active"], [], "joined", 0, {"pair", "instance_id"}),
        (["active", "fresh"], [], "choose", 3, {"candidates"}),
        (["closed"], [], "bootstrap", 3, set()),
        (["active"], ["another"], "full", 3, {"pairs", "detail"}),
    ],
)
def test_pair_ensure_has_the_actions_of_1_x(stage, relay, names, others, action, code, keys):
    opened(stage, *names)
    for other in others:
        v1.bind(stage.shared, "claude", other, names[0], relay.iso(time.time()))
    done = stage.run("claude", "pair", "ensure", "--json")
    assert (done.code, done.json["action"]) == (code, action) and keys <= set(done.json)


def test_pair_ensure_without_a_lasting_id_is_degraded_and_without_an_author_an_error(stage):
    opened(stage, "active")
    done = stage.run(
        "me", "pair", "ensure", "--json", RELAY_AGENT_SESSION_ID=None, RELAY_AUTHOR="claude"
    )
    assert (done.code, done.json["action"]) == (3, "degraded")
    done = stage.run(None, "pair", "ensure", "--json")
    assert (done.code, done.json["action"]) == (2, "error") and done.json["detail"] in done.err
    assert stage.refused(None, "pair", "ensure")


def test_whoami_and_version_have_the_keys_of_1_x(stage, relay):
    opened(stage, "active")
    told = stage.ok("claude", "whoami", "--json").json
    assert (
        told["author"],
        told["agent_session_id"],
        told["instance_id"],
        told["peer"],
        told["diagnostics"],
    ) == ("claude", "session-of-claude", "claude:session-", "codex", [])
    assert {"author_source", "agent_session_id_source", "bound_pair"} <= set(told)
    told = stage.ok("claude", "version", "--json").json
    assert (told["version"], told["session_schema"], told["binding_schema"]) == (
        relay.VERSION,
        3,
        1,
    )
    assert (
        "package" in told
        and "git_revision" in told
        and relay.VERSION in stage.ok("claude", "--version").out
    )


def test_doctor_has_the_keys_of_1_x(stage):
    folder = opened(stage, "active", "future")
    v1.draft(folder, ("codex", "claude"), seq=4, author="claude", kind="note")
    told = stage.run("claude", "doctor", "--json").json
    assert (
        set(told) >= DOCTOR_KEYS
        and told["author"] == "claude"
        and told["shared_root"] == str(stage.shared)
    )
    active, future = told["sessions"]
    assert set(active) >= SESSION_KEYS and set(active["drafts"][0]) == {"name", "age_seconds"}
    assert set(future) >= SESSION_KEYS | {"schema_error"}


def test_issues_have_the_keys_of_1_x_and_unreadable_ones_are_listed(stage):
    words = ("--title", "null", "--severity", "major", "--area", "cli", "--body", "# it\n")
    path = pathlib.Path(stage.ok("claude", "issue", "add", *words).out.split("\n")[-2])
    assert path.parent == pathlib.Path(stage.home) / ".agent-ledger/relay-issues"
    meta = v1_reader.frontmatter(path.read_text())
    assert meta.keys() == ISSUE_KEYS
    assert (meta["title"], meta["status"], meta["resolution"]) == ("null", "open", None)
    told = stage.ok("claude", "issue", "list", "--json").json
    assert told.keys() == {"issues", "unreadable"} and told["issues"][0].keys() >= ISSUE_KEYS
    shown = stage.ok("claude", "issue", "show", meta["id"][:10], "--json").json
    assert (shown["frontmatter"], shown["body"].strip()) == (meta, "# it")
    stage.ok("claude", "issue", "resolve", meta["id"], "--note", "12")
    again = v1_reader.frontmatter(path.read_text())
    assert (again["status"], again["resolution"]) == ("resolved", "12") and again["resolved_at"]
    assert stage.ok("claude", "issue", "list", "--status", "open", "--json").json["issues"] == []
    v1.put(f"{path.parent}/20240501T100000-0badf00d.md", b"\xff")
    done = stage.run("claude", "issue", "list", "--status", "all", "--json")
    assert done.code == 1 and len(done.json["unreadable"]) == 1 and len(done.json["issues"]) == 1
