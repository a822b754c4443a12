"""A review from bootstrap to close, in two commands a turn."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess

import pytest
from conftest import SCRIPT

BODY = "# Text\n\nSome words.\n\n## Next\nLook at it.\n"


def pasted(stage, author, done, body=BODY):
    """Runs the `next:` line just as it was printed, its FILE replaced by a real one and its VERDICT by a word."""
    stage.pasted = getattr(stage, "pasted", 0) + 1
    file = stage.file(body, f"pasted-{stage.pasted}.md")
    words = shlex.split(done.next)
    return stage.run(
        author, *({"FILE": file, "VERDICT": "changes"}.get(word, word) for word in words)
    )


def artifacts(pair):
    return sorted(path.name for path in pair.glob("*.md") if path.name[:3].isdigit())


def v1_artifact(pair, seq, author, peer, kind="note", status="ready", prompt="go on"):
    """An artifact as 1.x wrote it: no sidecar."""
    text = (
        f"---\nseq: {seq}\nauthor: {author}\npeer: {peer}\nkind: {kind}\nstatus: {status}\ncreated: 2026-01-02T03:04:05+00:00\n"
        f"in_reply_to: null\nprompt_for_next: {prompt}\nsync_needed: false\ntouched_paths: []\ncorrects: null\n---\n# Old\n"
    )
    path = pair / f"{seq:03}-{author}-{kind}.md"
    path.write_text(text)
    sha = hashlib.sha256(text.encode()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha}  {path.name}\n")
    path.with_suffix(".ready").touch()
    return path


def test_a_whole_review_goes_by_next_and_send(stage):
    assert stage.ok("claude", "next").action == "bootstrap"
    stage.ok("claude", "bootstrap", "--topic", "demo")
    assert stage.ok("claude", "next").action == "start"
    assert stage.ok("codex", "next").action == "wait"
    stage.send("claude", "plan")
    told = stage.ok("codex", "next")
    assert told.action == "reply"
    assert told.next == "send --kind review --reply-to 1 --verdict VERDICT --file FILE"
    stage.send("codex", "review", "# No\n", "mend it", "--reply-to", "1")
    assert stage.ok("codex", "next").action == "wait"
    assert stage.ok("claude", "next").next == "send --kind fix --reply-to 2 --file FILE"
    stage.send("claude", "fix")
    stage.send("codex", "review", "# Yes\n")
    closed = stage.ok("claude", "close", "--reason", "done")
    assert "/_archive/" in closed.out
    assert stage.run("codex", "next", "--exit-code").code == 12


# ---- every action: how it is reached by commands, and the code it ends with


def no_pair(stage):
    return "claude", {}


def fresh_mine(stage):
    stage.open_pair()
    return "claude", {}


def fresh_theirs(stage):
    stage.open_pair()
    return "codex", {}


def two_pairs(stage):
    for topic in ("one", "two"):
        stage.ok("claude", "bootstrap", "--topic", topic, "--force")
    return "codex", {}


def held_slot(stage):
    stage.open_pair()
    return "codex", {"CODEX_THREAD_ID": "another-thread"}


def no_lasting_id(stage):
    stage.open_pair()
    return "codex", {"CODEX_THREAD_ID": None, "RELAY_AUTHOR": "codex"}


def plan_sent(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    return "codex", {}


def decision_sent(stage):
    stage.open_pair()
    stage.send("claude", "decision")
    return "codex", {}


def user_asked(stage):
    stage.open_pair()
    stage.send("claude", "question", "# Q\n", "read it\n@user: may we?")
    return "codex", {}


def cap_reached(stage):
    stage.open_pair()
    for _ in range(2):
        stage.send("claude", "plan")
        stage.ok("codex", "next")
        stage.send("codex", "review")
    stage.send("claude", "fix")
    return "codex", {"RELAY_AUTO_ROUND_CAP": "2"}


def paused(stage):
    stage.open_pair()
    stage.send("claude", "note", "# Stuck\n", "ask", "--status", "timed_out")
    return "claude", {}


def resumed(stage):
    paused(stage)
    stage.ok("claude", "continue")
    return "claude", {}


def draft_unfinished(stage):
    stage.open_pair()
    stage.ok("claude", "claim", "--kind", "plan")
    return "claude", {}


def draft_complete(stage):
    stage.open_pair()
    draft = stage.ok("claude", "claim", "--kind", "plan").out.strip()
    stage.ok(
        "claude",
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file("# Plan\n"),
        "--prompt-for-next-file",
        stage.file("go\n", "n"),
    )
    return "claude", {}


def tampered(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    with open(pair / "001-claude-plan.md", "a") as file:
        file.write("forged\n")
    return "codex", {}


def closed(stage):
    stage.open_pair()
    stage.ok("claude", "close", "--reason", "done")
    return "codex", {}


def ended_by_status(stage):
    stage.open_pair()
    stage.send("claude", "note", "# End\n", "none", "--status", "failed")
    return "codex", {}


ACTIONS = [
    (no_pair, "bootstrap", 3),
    (fresh_mine, "start", 0),
    (fresh_theirs, "wait", 10),
    (two_pairs, "choose", 3),
    (held_slot, "full", 3),
    (no_lasting_id, "degraded", 3),
    (plan_sent, "reply", 0),
    (decision_sent, "ask_user", 13),
    (user_asked, "ask_user", 13),
    (cap_reached, "ask_user", 13),
    (paused, "ask_user", 13),
    (resumed, "resume", 0),
    (draft_unfinished, "finish", 0),
    (draft_complete, "finish", 0),
    (tampered, "damaged", 13),
    (closed, "over", 12),
    (ended_by_status, "over", 12),
]


@pytest.mark.parametrize("reach, action, code", ACTIONS, ids=[row[0].__name__ for row in ACTIONS])
def test_next_names_the_action_its_code_and_a_command_that_works(stage, reach, action, code):
    author, more = reach(stage)
    told = stage.ok(author, "next", **more)
    assert told.action == action
    assert told.out.startswith(f"action: {action}")
    assert told.err == ""
    # relay is usually not on PATH: what is advised has the path by which it was typed.
    assert not re.search(r"(?<![/\w-])relay [a-z]", told.out.partition("\n---- ")[0]), told.out
    if reach is closed:  # The end is delivered once.
        return
    assert stage.run(author, "next", "--exit-code", **more).code == code
    made = stage.ok(author, "next", "--json", **more).json
    assert (made["action"], made["code"]) == (action, code)
    same = [re.sub("[0-9a-f]{16}", "ID", text) for text in (made["next"], told.next)]
    assert same[0].endswith(same[1]) and made["author"] == author
    if reach is no_lasting_id:
        line = told.out.rstrip().rpartition("next: ")[2]
        env = stage.env(author, **more)
        done = subprocess.run(("sh", "-c", line), cwd=stage.project, env=env, capture_output=True)
        assert b"action: full" in done.stdout, "the thread before it holds the slot"
        return
    words = ["5" if word == "1500" else word for word in shlex.split(told.next)]
    if "--wait" in words:
        words = ["next", "--wait", "0"]
    file = stage.file(BODY)
    done = stage.run(
        author, *({"FILE": file, "VERDICT": "changes"}.get(word, word) for word in words), **more
    )
    assert done.code in ((1,) if words == ["doctor"] else (0,)), done


def test_an_author_without_a_usual_peer_gets_a_bootstrap_line_that_works(stage):
    told = stage.ok("gemini", "next")
    assert told.action == "bootstrap"
    assert pasted(stage, "gemini", told).code == 0


def test_json_of_next_carries_what_the_text_shows(stage):
    plan_sent(stage)
    made = stage.ok("codex", "next", "--json").json
    assert {"action", "code", "why", "pair", "author", "peer", "artifacts", "next"} <= set(made)
    assert {
        "seq",
        "author",
        "kind",
        "status",
        "created",
        "age_s",
        "path",
        "sha256",
        "prompt",
        "body",
    } <= set(made["artifacts"][0])
    assert made["artifacts"][0]["body"] == "# Text\n"
    assert stage.ok("claude", "next", "--json").json["peer_state"].startswith("001 plan seen")


def test_the_upper_row_of_the_table_wins(stage):
    pair = stage.open_pair()
    assert stage.ok("claude", "next").action == "start"
    stage.send("codex", "question")
    assert stage.ok("claude", "next").action == "reply"
    draft = stage.ok("claude", "claim", "--kind", "note").out.strip()
    assert stage.ok("claude", "next").action == "finish"
    stage.send("codex", "decision")
    assert stage.ok("claude", "next").action == "ask_user"
    path = pair / "001-codex-question.md"
    kept = path.read_bytes()
    path.write_bytes(kept + b"forged\n")
    assert stage.ok("claude", "next").action == "damaged"
    stage.ok("codex", "close", "--reason", "r", "--no-archive")
    assert stage.ok("claude", "next").action == "over"
    (pair / "CLOSED").unlink()
    session = json.loads((pair / "session.json").read_text())
    (pair / "session.json").write_text(json.dumps({**session, "state": "active"}))
    path.write_bytes(kept)
    assert stage.ok("claude", "next").action == "ask_user"
    stage.ok("claude", "continue")
    assert stage.ok("claude", "next").action == "finish"
    (pair / ".draft" / draft.rpartition("/")[2]).unlink()
    assert stage.ok("claude", "next").action == "reply"


def test_the_usual_reply_is_named_for_every_kind(stage):
    stage.open_pair()
    for kind, answer in (
        ("plan", "review"),
        ("review", "fix"),
        ("fix", "review"),
        ("question", "note"),
        ("note", "note"),
    ):
        stage.send("claude", kind)
        told = stage.ok("codex", "next")
        assert told.next.startswith(f"send --kind {answer} --reply-to "), kind
        assert pasted(stage, "codex", told).code == 0
        assert stage.ok("codex", "next").action == "wait"
        stage.ok("claude", "next")


@pytest.mark.parametrize(("kind", "answer"), [("plan", "review"), ("review", "fix")])
def test_who_asked_a_question_is_led_back_to_what_it_asked_about(stage, kind, answer):
    stage.open_pair()
    stage.send("claude", kind)
    stage.ok("codex", "next")
    stage.send("codex", "question", "# Why?\n", "answer")
    told = stage.ok("claude", "next")
    stage.send("claude", "correction", "# Not 5 but 6\n", "read", "--corrects", "1")
    assert stage.ok("codex", "next").next.startswith("send --kind note --reply-to 3 ")
    stage.send("codex", "addendum", "# And why 6?\n", "answer")
    stage.send("codex", "note", "# I am still at it\n", "nothing")
    assert told.next.startswith("send --kind note --reply-to 2 ")
    assert pasted(stage, "claude", told).code == 0
    told = stage.ok("codex", "next")
    assert told.next.startswith(f"send --kind {answer} --reply-to 1 ")
    assert pasted(stage, "codex", told).code == 0
    sent = stage.send("claude", "note", "# By the way\n", "read")
    seq = int(os.path.basename(sent.out.split("\n")[0])[:3])
    assert stage.ok("codex", "next").next.startswith(f"send --kind note --reply-to {seq} ")


def test_a_question_asked_back_leads_both_back_to_what_theirs_was_about(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "question", "# Why?\n", "answer")
    stage.ok("claude", "next")
    stage.send("claude", "question", "# Why what?\n", "answer")
    for author, reply in (("codex", "note"), ("claude", "note"), ("codex", "review")):
        told = stage.ok(author, "next")
        assert told.next.startswith(f"send --kind {reply} "), told
        assert pasted(stage, author, told).code == 0
    assert "--reply-to 1 " in told.next
    sent = stage.send("claude", "note", "# By the way\n", "read", "--reply-to", "2")
    seq = int(os.path.basename(sent.out.split("\n")[0])[:3])
    told = stage.ok("codex", "next")
    assert told.next.startswith(f"send --kind note --reply-to {seq} "), "the review was sent"


def test_an_end_that_was_delivered_hides_no_choice_of_open_pairs(stage):
    stage.open_pair()
    stage.send("claude", "note", "# Done\n", "nothing", "--status", "closed")
    assert stage.ok("codex", "next").action == "over"
    assert stage.ok("codex", "next").action == "over", "nothing else is open"
    for topic in ("one", "two"):
        stage.ok("claude", "bootstrap", "--topic", topic, "--force")
    told = stage.ok("codex", "next")
    assert told.action == "choose"
    assert stage.ok("codex", *told.next.split()).out


def test_every_next_line_of_a_review_works_when_pasted(stage):
    told = stage.ok("claude", "next")
    assert pasted(stage, "claude", told).code == 0  # bootstrap
    told = stage.ok("claude", "next")
    sent = pasted(stage, "claude", told)  # start: a plan
    assert sent.code == 0
    assert sent.next == "next --wait 1500"
    for author in ("codex", "claude", "codex"):
        told = stage.ok(author, "next")
        assert told.action == "reply"
        assert pasted(stage, author, told).code == 0
    assert stage.ok("codex", "next").next == "next --wait"


def test_bootstrap_prints_a_join_line_and_a_next_line_that_work(stage):
    done = stage.ok("claude", "bootstrap", "--topic", "demo")
    join = done.out.split("\n")[1].partition(" pair join ")[2]
    assert stage.run("codex", "pair", "join", join).code == 0
    assert done.next == "send --kind plan --file FILE"
    assert pasted(stage, "claude", done).code == 0


# ---- send


def test_send_run_again_says_so_and_publishes_nothing(stage):
    pair = stage.open_pair()
    file = stage.file(BODY)
    first = stage.ok("claude", "send", "--kind", "plan", "--file", file)
    second = stage.ok("claude", "send", "--kind", "plan", "--file", file)
    assert first.out.split("\n")[0] == second.out.split("\n")[0]
    assert "already published as 001" in second.err and "--again" in second.err
    assert artifacts(pair) == ["001-claude-plan.md"]
    assert stage.litter() == []
    made = stage.ok("claude", "send", "--kind", "plan", "--file", file, "--json").json
    assert (made["seq"], made["already"]) == (1, True)


def test_again_publishes_once_more_each_time(stage):
    pair = stage.open_pair()
    file = stage.file(BODY)
    for _ in range(3):
        stage.ok("claude", "send", "--kind", "plan", "--file", file, "--again")
    assert artifacts(pair) == [f"{n:03}-claude-plan.md" for n in (1, 2, 3)]
    assert (
        "already published as 003"
        in stage.ok("claude", "send", "--kind", "plan", "--file", file).err
    )
    assert stage.litter() == []


@pytest.mark.parametrize(
    "words", [("--kind", "note"), ("--reply-to", "1"), ("--touched", "a.py"), ("--sync-needed",)]
)
def test_another_option_makes_another_artifact(stage, words):
    pair = stage.open_pair()
    stage.send("codex", "question")
    file = stage.file(BODY)
    stage.ok("claude", "send", "--kind", "plan", "--file", file)
    stage.ok("claude", "send", "--kind", "plan", "--file", file, *words)
    assert len(artifacts(pair)) == 3


def test_a_rewritten_file_is_a_new_artifact(stage):
    pair = stage.open_pair()
    for words in ("one", "two"):
        stage.ok(
            "claude", "send", "--kind", "plan", "--file", stage.file(f"# {words}\n## Next\ngo\n")
        )
    assert len(artifacts(pair)) == 2
    file = stage.file(b"# two\n## Next\ngo\n", "other.md")
    stage.ok("claude", "send", "--kind", "plan", "--file", file)
    assert len(artifacts(pair)) == 3, "the same bytes in another file are another artifact"


def test_the_first_line_of_send_is_the_path(stage):
    pair = stage.open_pair()
    done = stage.send("claude", "plan")
    assert done.out.split("\n")[0] == str(pair / "001-claude-plan.md")


def test_send_reads_standard_input(stage):
    pair = stage.open_pair()
    for _ in range(2):
        done = stage.ok(
            "claude", "send", "--kind", "plan", "--file", "-", stdin=b"# Piped\n\n## Next\ngo\n"
        )
        assert done.out.startswith(str(pair / "001-claude-plan.md"))
    assert stage.ok("codex", "next", "--json").json["artifacts"][0]["body"] == "# Piped\n\n"
    stage.ok(
        "claude",
        "send",
        "--kind",
        "plan",
        "--file",
        "-",
        "--again",
        stdin=b"# Piped\n\n## Next\ngo\n",
    )
    assert len(artifacts(pair)) == 2


def test_send_names_every_problem_at_once_and_writes_nothing(stage):
    pair = stage.open_pair()
    done = stage.run(
        "claude",
        "send",
        "--kind",
        "correction",
        "--file",
        stage.file("# No prompt\n"),
        "--reply-to",
        "7",
    )
    assert done.code == 2
    for said in ("prompt", "corrects", "in_reply_to"):
        assert said in done.err
    assert artifacts(pair) == [] and stage.litter() == []
    assert stage.ok("claude", "next").action == "start"


def test_a_file_is_split_at_its_last_next_heading_outside_fences(stage):
    stage.open_pair()
    body = "# B\n## Next\nnot this\n```\n## Next\nnor this\n```\n"
    stage.ok("claude", "send", "--kind", "plan", "--file", stage.file(body + "## Next\nthis\n"))
    made = stage.ok("codex", "next", "--json").json["artifacts"][0]
    assert made["prompt"] == "this\n"
    assert made["body"] == body


# ---- a full pair


def test_a_full_pair_names_its_successor_with_a_command_that_works(stage):
    pair = stage.open_pair()
    v1_artifact(pair, 999, "codex", "claude")
    assert stage.ok("claude", "next").action == "reply"
    before = sorted(path.name for path in pair.rglob("*"))
    for words in (
        ("send", "--kind", "plan", "--file", stage.file(BODY), "--dry-run"),
        ("send", "--kind", "plan", "--file", stage.file(BODY)),
        ("claim", "--kind", "plan"),
    ):
        done = stage.run("claude", *words)
        assert done.code == 2 and done.out == "" and "full" in done.err and "999" in done.err
    assert [n for n in sorted(path.name for path in pair.rglob("*")) if ".jsonl" not in n] == [
        n for n in before if ".jsonl" not in n
    ]
    hint = shlex.split(done.err.partition("hint: ")[2])
    assert hint[1] == "bootstrap"
    stage.ok("claude", *hint[1:])
    assert stage.ok("claude", "next").action == "start"


def test_the_last_number_of_a_pair_can_be_used(stage):
    pair = stage.open_pair()
    v1_artifact(pair, 998, "codex", "claude")
    assert stage.send("claude", "plan").out.split("\n")[0].endswith("/999-claude-plan.md")
    assert stage.run("claude", "status", "--json").json["next_seq"] in (1000, None)


# ---- the user


@pytest.mark.parametrize("asking", ["claude", "codex"])
def test_continue_names_the_terminal_whose_move_it_is_as_status_does(stage, asking):
    stage.open_pair()
    answering = "codex" if asking == "claude" else "claude"
    stage.send(answering, "plan")
    stage.ok(asking, "next")
    stage.send(asking, "question", "# Which?\n", "@user: which one?")
    done = stage.ok(None, "continue")
    assert done.out.split("\n")[1:] == stage.ok(None, "status").out.split("\n")[-2:]
    assert f"in {answering}'s terminal: " in done.out


@pytest.mark.parametrize(
    "reach", [decision_sent, user_asked, cap_reached], ids=lambda f: f.__name__
)
def test_continue_clears_what_waits_for_the_user(stage, reach):
    author, more = reach(stage)
    told = stage.ok(author, "next", **more)
    assert "user" in told.out
    # Only Claude Code can ask its user about the command; else it is the user who types it.
    assert told.next == ("continue" if author == "claude" else "next")
    assert author == "claude" or " continue --pair-id " in told.out
    done = stage.ok(author, "continue", **more)
    assert done.out.endswith(" next\n") and f"in {author}'s terminal: " in done.out
    told = stage.ok(author, "next", **more)
    assert told.action == "reply"
    assert pasted(stage, author, told).code == 0


def test_continue_is_recorded_with_who_ran_it_and_where(stage):
    decision_sent(stage)
    stage.ok("codex", "next")
    made = stage.ok("codex", "continue", "--json").json
    assert made["by"].startswith("codex:") and made["attended"] == "terminal" and made["upto"] == 1
    said = stage.ok("claude", "log", "--json").json["user"]
    assert [(line["by"], line["attended"], line["upto"]) for line in said] == [
        (made["by"], "terminal", 1)
    ]
    assert "the user decided to continue" in stage.ok("claude", "log").out


@pytest.mark.parametrize("author", ["claude", "codex"])
@pytest.mark.parametrize("of", ["the host", "its own"])
@pytest.mark.parametrize("on", ["a pipe", "a terminal"])
def test_an_agent_cannot_continue_for_its_user(stage, author, of, on):
    """Also not in a pseudo-terminal: its shell has the variables of its session."""
    stage.open_pair()
    stage.send("codex" if author == "claude" else "claude", "decision")
    assert stage.ok(author, "next").action == "ask_user"
    own = stage.env(author) if of == "the host" else {"RELAY_AGENT_SESSION_ID": "s"}
    done = stage.run(author, "continue", typed=on == "a terminal", **own)
    assert done.code == 2 and "continue --pair-id" in done.err
    assert stage.ok(author, "log", "--json").json["user"] == []
    assert stage.ok(author, "next").action == "ask_user"


def test_the_command_that_the_user_is_shown_continues_from_any_terminal(stage):
    """Without an author, in no agent's session, for both sides; it is pasted as it is printed."""
    decision_sent(stage)
    told = stage.ok("codex", "next")
    line = next(line.strip() for line in told.out.split("\n") if " continue --pair-id " in line)
    master, slave = os.openpty()
    env = stage.env(None)
    done = subprocess.run(["sh", "-c", line], cwd="/", env=env, stdin=slave, capture_output=True)
    os.close(master), os.close(slave)
    assert done.returncode == 0, done
    assert stage.ok("codex", "next").action == "reply"
    assert stage.ok("claude", "next").action in ("resume", "wait")


def test_what_the_host_has_asked_its_user_about_is_the_users_word_once(stage):
    """Claude Code's permission prompt; a refusal is followed by a prompt of the user's."""

    def hook(event, env=(), **more):
        row = {
            "session_id": stage.env("claude")["CLAUDE_CODE_SESSION_ID"],
            "hook_event_name": event,
        }
        row |= {"cwd": str(stage.project), **more}
        stdin = json.dumps(row).encode()
        assert stage.ok("claude", "hook", "claude", event, stdin=stdin, **dict(env))

    def asked(command, **more):
        tool = {"tool_name": "Bash", "tool_input": {"command": command}}
        hook("PermissionRequest", permission_mode="default", **tool, **more)

    relay_command = f"{SCRIPT} continue"
    stage.open_pair()
    stage.send("codex", "decision")
    assert stage.ok("claude", "next").next == "continue"
    for other in (f"{relay_command}; true", f"env {relay_command}", "/tmp/relay continue"):
        asked(other)
        assert stage.run("claude", "continue", typed=False).code == 2, other
    for nobody in (
        {"agent_id": "a1"},
        {"env": {"CLAUDE_CODE_ENTRYPOINT": "sdk-ts"}},
        {"env": {"CLAUDE_CODE_SESSION_ATTENDED": "0"}},
    ):
        asked(relay_command, **nobody)
        assert stage.run("claude", "continue", typed=False).code == 2, nobody
    asked(relay_command)
    hook("UserPromptSubmit", prompt="no, not yet")
    assert stage.run("claude", "continue", typed=False).code == 2
    asked(relay_command)
    assert stage.run("codex", "continue", typed=False).code == 2, "another session's"
    made = stage.ok("claude", "continue", "--json", typed=False).json
    assert made["attended"] == "prompt" and made["by"].startswith("claude:")
    assert stage.ok("claude", "next").action == "reply"
    stage.send("claude", "note")
    stage.send("codex", "decision")
    stage.ok("claude", "next")
    assert stage.run("claude", "continue", typed=False).code == 2, "once"


@pytest.mark.parametrize("suffix", ["md", "md.sha256", "json"])
def test_after_damage_that_leaves_nothing_sound_it_is_somebodys_move(stage, suffix):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    (pair / f"001-claude-plan.{suffix}").unlink()
    for author in ("claude", "codex"):
        assert stage.ok(author, "next").action == "damaged"
    stage.ok("codex", "continue")
    assert stage.ok("codex", "next").action == "wait"
    assert stage.ok("claude", "next").action == "start"
    stage.send("claude", "plan")
    assert stage.ok("codex", "next").action == "reply"


def test_the_cap_counts_anew_after_continue_and_stops_a_send(stage):
    author, more = cap_reached(stage)
    stage.ok(author, "continue", **more)
    for action in ("reply", "ask_user"):
        path = stage.file(f"# {action}\n", f"{action}.md")
        stage.ok(author, "send", "--kind", "review", "--file", path, "--next", "x", **more)
        stage.send("claude", "fix")
        assert stage.ok(author, "next", **more).action == action
    assert stage.ok(author, "wait", "--timeout", "0", **more).code == 0
    done = stage.run(author, "send", "--kind", "review", "--file", stage.file(BODY), **more)
    hint = done.err.rstrip().split("hint: ")[1]
    user_types = f" {SCRIPT} continue --pair-id "
    assert done.code == 2 and user_types in hint, "Codex cannot ask its user about the command"


def test_a_later_decision_asks_again_after_continue(stage):
    decision_sent(stage)
    stage.ok("codex", "continue")
    stage.ok("codex", "next")
    stage.ok("claude", "continue")
    stage.send("claude", "decision")
    assert stage.ok("codex", "next").action == "ask_user"


def test_a_pause_ends_with_the_next_artifact(stage):
    resumed(stage)
    stage.send("claude", "note")
    told = stage.ok("codex", "next")
    assert told.action == "reply"
    assert [a["seq"] for a in stage.ok("codex", "next", "--json").json["artifacts"]] == [1, 2]
    assert stage.ok("claude", "next").action == "wait"


def test_both_sides_are_asked_while_paused(stage):
    paused(stage)
    assert stage.ok("claude", "next").action == "ask_user"
    assert stage.ok("codex", "next").action == "ask_user"
    stage.ok("codex", "continue")
    assert stage.ok("codex", "next").action == "reply"


@pytest.mark.parametrize("reach", [decision_sent, user_asked, paused], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["correction", "addendum", None])
def test_what_waits_for_the_user_stops_both_sides_until_the_user_has_answered(stage, reach, kind):
    """Corrections and addenda pass, and leave it as it is."""
    reach(stage)
    if kind:
        stage.send("claude", kind, "# More\n", "read this too", "--corrects", 1)
    for author in ("claude", "codex"):
        assert stage.ok(author, "next").action == "ask_user", author
        done = stage.try_send(author, "note")
        assert done.code == 2 and "continue" in done.err, (author, done)
    asked = stage.ok(None, "status", "--json").json["headline"][0]
    assert asked["action"] == "ask_user"
    assert reach is paused or asked["asked"]["seq"] == 1
    stage.ok(None, "continue")
    assert stage.ok(None, "status", "--json").json["headline"][0]["action"] != "ask_user"
    assert stage.ok("codex", "next").action == "reply"
    assert stage.ok("claude", "next").action == ("wait" if reach is user_asked else "resume")
    stage.send("codex", "note")


@pytest.mark.parametrize("reach", [decision_sent, user_asked], ids=lambda f: f.__name__)
@pytest.mark.parametrize("corrected", [False, True])
def test_the_user_answers_what_status_asks_before_the_peer_was_shown_it(stage, reach, corrected):
    reach(stage)
    if corrected:
        stage.send("claude", "correction", "# More\n", "read this too", "--corrects", 1)
    assert stage.ok(None, "status", "--json").json["headline"][0]["action"] == "ask_user"
    stage.ok(None, "continue")
    assert stage.ok("codex", "next").action == "reply"


def test_one_continue_past_damage_serves_both_sides(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "review")
    stage.ok("claude", "next")
    with open(pair / "001-claude-plan.md", "a") as file:
        file.write("forged\n")
    for author in ("claude", "codex"):
        assert stage.ok(author, "next").action == "damaged"
    stage.ok(None, "continue")
    assert stage.ok("claude", "next").action == "reply"
    assert stage.ok("codex", "next").action == "wait"


# ---- corrections and addenda


@pytest.mark.parametrize("kind", ["correction", "addendum"])
def test_corrections_and_addenda_answer_nothing(stage, kind):
    stage.open_pair()
    stage.send("codex", "note")
    stage.send("claude", "plan")
    stage.send("codex", "question")
    stage.ok("claude", "next")
    stage.send("claude", kind, "# Mended\n", "see", "--corrects", "2", "--reply-to", "3")
    told = stage.ok("claude", "next")
    assert told.action == "reply"
    assert [a["seq"] for a in stage.ok("claude", "next", "--json").json["artifacts"]][-1] == 3
    assert kind in stage.ok("codex", "next").out


def test_a_correction_to_an_answered_artifact_is_delivered(stage):
    plan_sent(stage)
    stage.ok("codex", "next")
    stage.send("codex", "review")
    stage.send("claude", "correction", "# Not 5 but 6\n", "read again", "--corrects", "1")
    told = stage.ok("codex", "next")
    assert told.action == "reply" and "003 correction" in told.out
    assert pasted(stage, "codex", told).code == 0


# ---- close


def test_close_leaves_the_unread_to_be_handed_over_once_from_the_archive(stage):
    stage.open_pair()
    stage.send("claude", "note", "# Last words\n")
    stage.ok("claude", "close", "--reason", "enough", "--outcome", "dropped")
    told = stage.ok("codex", "next")
    assert told.action == "over"
    assert "# Last words" in told.out and "not from your user" in told.out
    assert "enough" in told.out and "dropped" in told.out
    again = stage.ok("codex", "next", "--json").json
    assert again["action"] in ("over", "bootstrap") and not again.get("artifacts")
    assert pasted(stage, "codex", told).code == 0


def test_close_twice_says_how_it_ended_and_changes_nothing(stage):
    pair = stage.open_pair()
    stage.ok("claude", "close", "--reason", "first", "--no-archive")
    kept = (pair / "CLOSED").read_bytes()
    done = stage.refused("codex", "close", "--reason", "second", "--no-archive")
    assert "first" in done.err and "second" not in done.err
    assert (pair / "CLOSED").read_bytes() == kept
    assert json.loads((pair / "session.json").read_text())["close_reason"] == "first"


def test_close_by_the_other_side_works_from_the_archive_too(stage):
    stage.open_pair()
    stage.ok("claude", "close", "--reason", "first")
    done = stage.refused("codex", "close", "--reason", "second")
    assert "closed already" in done.err and "first" in done.err


def test_close_run_again_never_ends_another_pair(stage):
    stage.open_pair("one")
    stage.ok("codex", "bootstrap", "--topic", "two", "--force")
    stage.ok("claude", "close", "--reason", "done")
    stage.run("claude", "close", "--reason", "done")
    rows = stage.ok("claude", "pairs", "list", "--json").json["pairs"]
    assert [row["is_active"] for row in rows] == [True]


def test_close_without_archive_leaves_the_pair_in_place_and_says_that_it_is_no_approval(stage):
    pair = stage.open_pair()
    done = stage.ok(
        "claude", "close", "--reason", 'it\'s "done"', "--outcome", "shipped", "--no-archive"
    )
    assert done.out.startswith(f"{pair}\n")
    lines = (pair / "CLOSED").read_text().splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [
        "reason",
        "outcome",
        "closed_by",
        "closed_at",
        "approval",
    ]
    assert lines[4] == 'approval = "none"'
    assert json.loads(lines[0].partition(" = ")[2]) == 'it\'s "done"'
    session = json.loads((pair / "session.json").read_text())
    assert (
        session["state"] == "closed"
        and session["closed_at"]
        and session["close_reason"] == 'it\'s "done"'
    )
    assert stage.ok("codex", "next").action == "over"
    assert not list((stage.shared / "_relay" / "bindings").glob("claude-*"))


def test_after_the_end_bootstrap_opens_another_pair_and_the_peer_comes_along(stage):
    closed(stage)
    assert stage.ok("claude", "next").action == "bootstrap"
    assert stage.ok("codex", "next").action == "over"
    slug = stage.ok("claude", "bootstrap", "--topic", "demo").out.split()[0]
    assert slug.endswith("-demo-2")
    stage.send("claude", "plan")
    told = stage.ok("codex", "next")
    assert told.action == "reply", "an ended pair must not hide the one that follows it"
    assert slug in stage.ok("codex", "next", "--json").json["pair"]


def test_the_one_who_was_told_that_it_is_over_can_open_the_next_pair(stage):
    closed(stage)
    stage.ok("codex", "next")
    stage.ok("codex", "bootstrap", "--topic", "next")
    assert stage.ok("codex", "next").action == "start"
    assert stage.ok("claude", "next").action == "wait"


def test_a_reply_into_a_pair_closed_meanwhile_is_refused_and_nothing_is_lost(stage):
    plan_sent(stage)
    told = stage.ok("codex", "next")
    stage.ok("claude", "close", "--reason", "done")
    file = stage.file(BODY)
    done = stage.run("codex", "send", "--kind", "review", "--reply-to", "1", "--file", file)
    assert done.code == 2 and file.exists()
    hint = shlex.split(done.err.partition("hint: ")[2])
    assert stage.run("codex", *hint[1:]).code == 0
    assert stage.litter() == []
    assert pasted(stage, "codex", told).code == 2


@pytest.mark.parametrize("status", ["closed", "cancelled", "failed"])
def test_a_terminal_status_ends_the_pair_for_both(stage, status):
    stage.open_pair()
    stage.send("claude", "note", "# End\n", "none", "--status", status)
    told = stage.ok("codex", "next")
    assert told.action == "over" and status in told.out and "# End" in told.out
    assert stage.ok("claude", "next").action == "over"
    assert stage.run("codex", "send", "--kind", "note", "--file", stage.file(BODY)).code == 2


# ---- looking between turns


def test_wait_tells_what_the_files_know_of_the_peer(stage):
    stage.ok("claude", "bootstrap", "--topic", "demo")
    stage.send("claude", "plan")
    assert "codex has not joined" in stage.ok("claude", "next").out
    stage.ok("codex", "pair", "ensure")
    assert "not seen" in stage.ok("claude", "next").out.split("\n")[0]
    stage.ok("codex", "next")
    assert "001 plan seen" in stage.ok("claude", "next").out.split("\n")[0]


def test_two_sends_in_a_row_are_both_handed_over_and_both_answered(stage):
    stage.open_pair()
    stage.send("claude", "plan", "# One\n")
    stage.send("claude", "note", "# Two\n")
    told = stage.ok("codex", "next")
    assert told.out.index("# One") < told.out.index("# Two")
    assert pasted(stage, "codex", told).code == 0
    assert stage.ok("codex", "next").action == "wait"


@pytest.mark.parametrize("made", ["unreadable", "crlf"])
def test_the_command_for_a_draft_that_cannot_be_read_mends_it(stage, made):
    draft_unfinished(stage)
    path = next((stage.shared).glob("2*/.draft/*.md"))
    mended = path.read_text().replace("TODO: say what the peer should do next", "go on")
    path.write_bytes(
        path.read_bytes().replace(b"\n", b"\r\n")
        if made == "crlf"
        else b"---\nseq: 1\nseq: 1\n---\n"
    )
    told = stage.ok("claude", "next")
    assert told.action == "finish" and "missing" in told.out
    done = stage.run("claude", "publish", path)
    assert done.code == 2 and "line" in done.err and "correct that" in done.err
    path.write_text(mended)
    assert told.next == f"publish {path}" and pasted(stage, "claude", told).code == 0
