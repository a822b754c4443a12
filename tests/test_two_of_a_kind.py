"""Two sessions of one vendor review each other: claude and claude-2, each under its own name, hooks and wakes too."""

from __future__ import annotations

import json

import pytest
from conftest import dispositions, findings, sidecar

ONE = {"CLAUDE_CODE_SESSION_ID": "first-session"}
TWO = {"CLAUDE_CODE_SESSION_ID": "second-session"}


def run(stage, session, *words, **env):
    return stage.run(None, *words, **{**session, **env})


def ok(stage, session, *words, **env):
    done = run(stage, session, *words, **env)
    assert done.code == 0, done
    return done


def refused(stage, session, *words, **env):
    done = run(stage, session, *words, **env)
    assert done.code == 2 and "hint: " in done.err, done
    return done


def send(stage, session, kind, text, *more, **env):
    stage.sent += 1
    path = stage.file(text, f"{kind}-{stage.sent}.md")
    return ok(stage, session, "send", "--kind", kind, "--file", path, "--next", "go", *more, **env)


def hook(stage, session, name, **told):
    """One event of Claude Code in one of its sessions: exit code, JSON, wake."""
    event = {"session_id": session["CLAUDE_CODE_SESSION_ID"], "hook_event_name": name, **told}
    env = {"AI_AGENT": "claude-code_2-1-330_harness"}
    done = stage.run(None, "hook", "claude", name, stdin=json.dumps(event).encode(), **env)
    return done.code, json.loads(done.out) if done.out else None, done.err


def changed(stage, session, path):
    return hook(stage, session, "FileChanged", file_path=str(path), event="add")


@pytest.fixture
def slug(stage):
    """A pair of the first session, in which codex was meant and never was."""
    return ok(stage, ONE, "bootstrap", "--topic", "t").out.split()[0]


@pytest.mark.slow
def test_a_whole_review_between_two_sessions_of_one_vendor(stage, slug):
    pair = stage.shared / slug
    (stage.project / "pay.py").write_text("one\n")
    hook(stage, ONE, "SessionStart", source="startup")
    send(stage, ONE, "plan", "# Plan\n")
    hook(stage, TWO, "SessionStart", source="startup", model="claude-opus-5-5")
    offered = ok(stage, TWO, "next")
    assert offered.action == "full" and offered.next == f"pair join {slug} --as claude-2"
    ok(stage, TWO, *offered.next.split())
    assert ok(stage, TWO, "whoami", "--json").json["author"] == "claude-2"
    assert ok(stage, ONE, "whoami", "--json").json["author"] == "claude"
    for session, me in ((ONE, "claude"), (TWO, "claude-2")):  # As Claude Code asks for its line.
        handed = {"session_id": session["CLAUDE_CODE_SESSION_ID"], "workspace": {}}
        line = stage.ok(None, "statusline", "--json", stdin=json.dumps(handed).encode()).json
        assert (line["me"], line["state"]) == (me, "waiting" if session is ONE else "your_move")
    brief = hook(stage, TWO, "SessionStart", source="startup")[1]["hookSpecificOutput"]
    assert "you are claude-2 " in brief["additionalContext"]
    assert "001 plan by claude waits" in brief["additionalContext"]
    code, _, wake = changed(stage, TWO, pair / "001-claude-plan.ready")
    assert code == 2 and "001 plan by claude waits" in wake
    assert changed(stage, ONE, pair / "001-claude-plan.ready")[0] == 0, "its own wakes nobody"
    got = ok(stage, TWO, "next")
    assert got.action == "reply" and "from claude, " in got.out
    (stage.project / "pay.py").write_text("line\n" * 3)
    ok(stage, TWO, "run", "--", "true")
    send(
        stage,
        TWO,
        "review",
        findings("blocker pay.py:2 It divides by zero"),
        "--verdict",
        "changes",
    )
    assert (pair / "002-claude-2-review.ready").exists()
    assert sidecar(pair, 2)["model"] == "claude-opus-5-5"
    assert ok(stage, TWO, "next", "--json").json["woken"], "as its hook said before it had the name"
    code, _, wake = changed(stage, ONE, pair / "002-claude-2-review.ready")
    assert code == 2 and "002 review by claude-2 waits" in wake
    assert changed(stage, TWO, pair / "002-claude-2-review.ready")[0] == 0
    assert "from claude-2, " in ok(stage, ONE, "next").out
    (stage.project / "pay.py").write_text("two\n" * 3)
    send(stage, ONE, "fix", dispositions("2.1 fixed guarded"), "--touched", "pay.py")
    blocked = hook(stage, TWO, "Stop", stop_hook_active=False)[1]
    assert "003 fix by claude waits" in blocked["reason"]
    ok(stage, TWO, "next")
    ok(stage, TWO, "run", "--", "true")
    accepted = dispositions("2.1 accepted it holds")
    send(stage, TWO, "review", accepted, "--reply-to", "3", "--verdict", "approve")
    assert sidecar(pair, 4)["verdict"] == "approve"
    ok(stage, ONE, "next")
    ok(stage, ONE, "close", "--outcome", "approve", "--reason", "done")
    over = ok(stage, TWO, "next")
    assert over.action == "over" and slug in over.out
    assert ok(stage, TWO, "next").action == "bootstrap"
    assert ok(stage, TWO, "whoami", "--json").json["author"] == "claude", (
        "the name ends with the pair"
    )
    assert ok(stage, ONE, "next").action == "bootstrap"
    assert ok(stage, ONE, "verify", slug).code == 0


def test_a_pair_is_opened_for_two_sessions_of_one_vendor(stage):
    opened = ok(stage, ONE, "bootstrap", "--topic", "t", "--peer", "claude-2")
    slug = opened.out.split()[0]
    session = json.loads((stage.shared / slug / "session.json").read_text())
    assert session["participants"] == ["claude", "claude-2"]
    assert f"pair join {slug} --as claude-2" in opened.out
    assert ok(stage, TWO, "next").next == f"pair join {slug} --as claude-2"
    ok(stage, TWO, "pair", "join", slug, "--as", "claude-2")
    assert ok(stage, TWO, "next").action == "wait"
    third = ok(stage, {"CLAUDE_CODE_SESSION_ID": "third"}, "next")
    assert third.action == "full" and "--take-over" in third.next, "both slots are held"


def test_a_second_session_with_a_new_id_is_led_to_its_own_slot_and_not_to_the_firsts(stage, slug):
    """Its process is not seen everywhere, as it is not on macOS."""
    ok(stage, TWO, "pair", "join", slug, "--as", "claude-2")
    path = next((stage.shared / "_relay/bindings").glob("claude-2-*.json"))
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "last_seen": row["bound_at"].replace("+00:00", "+00:01")}))
    cleared = {"CLAUDE_CODE_SESSION_ID": "after-clear"}
    taken = f"pair join {slug} --as claude-2 --take-over"
    assert taken in refused(stage, cleared, "pair", "join", slug, "--as", "claude-2").err
    led = ok(stage, cleared, "next")
    assert led.next == taken and "holds the claude-2 slot" in led.out
    brief = hook(stage, cleared, "SessionStart", source="clear")[1]["hookSpecificOutput"]
    assert brief["additionalContext"].endswith(taken)
    ok(stage, cleared, *led.next.split())
    assert ok(stage, cleared, "next").action == "wait"
    assert ok(stage, ONE, "whoami", "--json").json["bound_pair"] == slug


@pytest.mark.parametrize("second_is_there", [False, True])
def test_a_session_whose_slot_was_taken_over_is_led_back_to_it(stage, slug, second_is_there):
    """And not to the other side's slot, which is free, or whose holder is silent for longer."""
    send(stage, ONE, "plan", "# Plan\n")
    if second_is_there:
        ok(stage, TWO, "pair", "join", slug, "--as", "claude-2")
        path = next((stage.shared / "_relay/bindings").glob("claude-2-*.json"))
        row = json.loads(path.read_text())
        path.write_text(
            json.dumps({**row, "last_seen": row["bound_at"].replace("+00:00", "+00:01")})
        )
    ok(stage, {"CLAUDE_CODE_SESSION_ID": "third"}, "pair", "join", slug, "--take-over")
    led = ok(stage, ONE, "next").next
    assert led == f"pair join {slug} --take-over"
    ok(stage, ONE, *led.split())


def test_a_session_opens_a_pair_under_another_name(stage):
    slug = ok(stage, TWO, "bootstrap", "--topic", "t", "--as", "claude-2").out.split()[0]
    session = json.loads((stage.shared / slug / "session.json").read_text())
    assert session["participants"] == ["claude-2", "codex"]
    assert stage.ok("codex", "next").action == "wait"
    send(stage, TWO, "plan", "# P\n")
    assert "from claude-2, " in stage.ok("codex", "next").out


def test_a_contradicting_relay_author_is_refused(stage, slug):
    join = ("pair", "join", slug, "--as", "claude-2")
    refused(stage, TWO, *join, RELAY_AUTHOR="codex")
    ok(stage, TWO, *join, RELAY_AUTHOR="claude-2")
    for wanted in ("claude", "codex", "claude-3"):
        done = refused(stage, TWO, "next", RELAY_AUTHOR=wanted)
        assert "unset RELAY_AUTHOR" in done.err
    assert ok(stage, TWO, "next", RELAY_AUTHOR="claude-2").action == "wait"


@pytest.mark.parametrize(
    "name", ["codex", "codex-2", "gemini", "claudex", "claude-", "Claude-2", "../x"]
)
def test_another_name_is_one_of_the_same_host(stage, slug, name):
    before = stage.snapshot(stage.shared)
    refused(stage, TWO, "pair", "join", slug, "--as", name)
    refused(stage, TWO, "bootstrap", "--topic", "t", "--force", "--as", name)
    assert stage.snapshot(stage.shared) == before


def test_one_session_is_never_both_sides(stage, slug):
    """Else an agent could approve its own work."""
    refused(stage, ONE, "pair", "join", slug, "--as", "claude-2")
    send(stage, ONE, "plan", "# P\n")
    ok(stage, ONE, "pair", "leave")
    refused(stage, ONE, "pair", "join", slug, "--as", "claude-2")
    assert ok(stage, ONE, "next").action == "wait"


@pytest.mark.parametrize(
    "words",
    [("next",), ("pair", "join"), ("pair", "ensure"), ("send",), ("run",), ("close",)],
    ids=" ".join,
)
def test_who_was_claude_2_in_a_pair_is_not_claude_there_either(stage, slug, words):
    ok(stage, TWO, "pair", "join", slug, "--as", "claude-2")
    send(stage, TWO, "plan", "# P\n")
    for session in (ONE, TWO):
        ok(stage, session, "pair", "leave")
    body = stage.file("# R\n\n## Next\ngo\n")
    more = {"join": [slug], "send": ["--kind", "review", "--file", body, "--pair-id", slug]}
    more |= {"run": ["--pair-id", slug, "true"], "close": ["--pair-id", slug, "--reason", "x"]}
    done = run(stage, TWO, *words, *more.get(words[-1], ()))
    assert done.code == (125 if words == ("run",) else 2)
    assert f"pair join {slug} --as claude-2" in done.err
    ok(stage, TWO, "pair", "join", slug, "--as", "claude-2")
    assert ok(stage, TWO, "next").action == "wait"


def test_a_session_that_left_its_other_name_does_not_answer_itself(stage, slug):
    ok(stage, ONE, "pair", "leave")
    ok(stage, ONE, "pair", "join", slug, "--as", "claude-2")
    send(stage, ONE, "plan", "# P\n")
    ok(stage, ONE, "pair", "leave")
    refused(stage, ONE, "pair", "join", slug)
    hint = refused(stage, ONE, "next").err.partition("hint: ")[2].split()
    ok(stage, ONE, *hint[1:])
    assert ok(stage, ONE, "next").action == "wait"


def test_an_agent_inside_another_hosts_agent_may_review_it(stage):
    """It has that one's session id in its environment."""
    outer = {"RELAY_AUTHOR": "gemini", "RELAY_AGENT_SESSION_ID": "of-gemini"}
    ok(stage, outer, "bootstrap", "--topic", "t", "--peer", "claude")
    send(stage, outer, "plan", "# P\n")
    assert ok(stage, outer | ONE, "next").action == "reply"


@pytest.mark.parametrize("sent", [False, True])
def test_one_session_of_another_agent_is_not_both_sides_either(stage, sent):
    first, second = ({"RELAY_AUTHOR": name, "RELAY_AGENT_SESSION_ID": "1"} for name in ("a", "b"))
    slug = ok(stage, first, "bootstrap", "--topic", "t", "--peer", "b").out.split()[0]
    if sent:
        send(stage, first, "plan", "# P\n")
        ok(stage, first, "pair", "leave")
    for words in (("next",), ("pair", "join", slug)):
        assert "export RELAY_AUTHOR=a" in refused(stage, second, *words).err
    assert run(stage, second, "run", "--pair-id", slug, "--", "true").code == 125
    ok(stage, second, "next", RELAY_AGENT_SESSION_ID="2")


def test_two_agents_without_a_session_id_are_not_one(stage):
    first, second = ({"RELAY_AUTHOR": name, "RELAY_AGENT_SESSION_ID": "1"} for name in ("a", "b"))
    slug = ok(stage, first, "bootstrap", "--topic", "t", "--peer", "b").out.split()[0]
    body = stage.file("# P\n\n## Next\ngo\n")
    for session in (first, second):
        words = ("send", "--kind", "note", "--file", body, "--pair-id", slug)
        ok(stage, session, *words, RELAY_AGENT_SESSION_ID=None)


def test_two_sessions_of_one_minute_are_two(stage):
    """The ids of Codex begin with the time."""
    first, second = ({"CODEX_THREAD_ID": f"0199e1c2-{n}c41-7a52-8f0b-2b6d1c9f5e7a"} for n in "89")
    slug = ok(stage, first, "bootstrap", "--topic", "t", "--peer", "codex-2").out.split()[0]
    send(stage, first, "plan", "# P\n")
    ok(stage, second, "pair", "join", slug, "--as", "codex-2")
    assert ok(stage, second, "next").action == "reply"


@pytest.mark.parametrize("how", ["leave", "join another"])
def test_who_opened_a_pair_that_travels_and_left_it_has_its_own_side_there(stage, how):
    env = {"RELAY_SYNC": "git"}
    words = "bootstrap", "--force", "--peer", "claude-2"
    first = ok(stage, ONE, *words, "--topic", "t", **env).out.split()[0]
    if how == "leave":
        ok(stage, ONE, "pair", "leave", **env)
    else:
        ok(stage, ONE, *words, "--topic", "other", **env)
    assert ok(stage, TWO, "next", **env).out.startswith("action: start"), "it is not elsewhere"
    assert first in ok(stage, TWO, "pair", "show", **env).out


def test_an_agent_that_cannot_have_a_second_name_gets_a_hint_that_works(stage):
    stage.ok("gemini", "bootstrap", "--topic", "t", "--peer", "claude")
    slug = stage.ok("gemini", "pair", "show", "--json").json["pair"]
    done = stage.refused("gemini", "pair", "join", slug, "--as", "gemini-2")
    hint = done.err.splitlines()[-1].removeprefix("hint: ").split()
    assert "--as NAME" in stage.ok("gemini", *hint[1:]).out


def test_a_slot_that_somebody_had_is_not_given_to_a_second_session(stage, slug):
    stage.ok("codex", "next")
    refused(stage, TWO, "pair", "join", slug, "--as", "claude-2")
    assert "--take-over" in ok(stage, TWO, "next").next
    stage.send("codex", "note")
    stage.ok("codex", "pair", "leave")
    refused(stage, TWO, "pair", "join", slug, "--as", "claude-2")


def test_the_name_follows_the_session_through_clear(stage, slug, relay, monkeypatch):
    """/clear gives another id: the host's process is the same."""
    ok(stage, TWO, "pair", "join", slug, "--as", "claude-2")
    path = next((stage.shared / "_relay/bindings").glob("claude-2-*.json"))
    row = json.loads(path.read_text())
    process = relay.Process(7, "start", "1", "boot")
    path.write_text(json.dumps({**row, "host": process._asdict()}))
    monkeypatch.setattr(relay, "host_process", lambda author: process)
    cleared = {"CLAUDE_CODE_SESSION_ID": "after-clear"}
    assert ok(stage, cleared, "next").action == "wait"
    assert ok(stage, cleared, "whoami", "--json").json["author"] == "claude-2"
    assert not path.exists() and len([*path.parent.glob("claude-2-*.json")]) == 1
