"""Who is asking, and how an agent comes back: nested clients, leaked ids, /clear, resume, compaction."""

import json
import re
import time

import pytest

from hosts.clients import until
from hosts.parts import AsSkillSays
from hosts.test_review import FINDINGS, FIX, GUARDED, PLAN, published_at

pytestmark = pytest.mark.hosts


def authors(text):
    return re.findall(r'"author": "(\w+)"', text.replace('\\"', '"'))


def test_codex_inside_claude_code_and_the_other_way_round(scene):
    """Scene 4: both ids are set; the nearest host around decides."""
    scene.codex_config(top='sandbox_mode = "danger-full-access"\napproval_policy = "never"')
    who = f"{scene.relays['codex']} whoami --json"
    scene.model.parts["codex"] = [who, {"say": "inner codex is done"}]
    done = scene.claude(
        part=[f"{who}; codex exec --skip-git-repo-check go </dev/null; {who}", {"say": "done"}]
    )
    assert done.code == 0
    inner = next(
        t.text for request in scene.model.of("codex") for t in request.turns if t.kind == "result"
    )
    outer = scene.model.of("claude")[-1].turns[-1].text
    assert authors(inner) == ["codex"] and '"author_source": "ancestor"' in inner
    assert [authors(outer)[0], authors(outer)[-1]] == ["claude", "claude"]

    scene.model.requests.clear()
    scene.model.parts["claude"] = [who, {"say": "inner claude is done"}]
    done = scene.codex(
        part=[
            {"sh": f"{scene.home}/bin/claude -p go </dev/null", "yield_time_ms": 20000},
            {"say": "done"},
        ]
    )
    assert done.code == 0
    inner = next(
        t.text for request in scene.model.of("claude") for t in request.turns if t.kind == "result"
    )
    assert authors(inner) == ["claude"] and '"author_source": "ancestor"' in inner


def test_an_id_leaked_by_the_codex_daemon_does_not_make_codex_claude(scene):
    """Scene 4: the daemon keeps the environment of the first TUI, a dead Claude Code session's id with it."""
    who = f"{scene.relays['codex']} whoami --json"
    codex = scene.terminal(
        "codex", part=[who, {"say": "done"}], CLAUDE_CODE_SESSION_ID="stale", CLAUDECODE="1"
    )
    codex.see("Ask Codex")
    codex.ask("go")
    told = next(
        t.text for request in scene.model.of("codex") for t in request.turns if t.kind == "result"
    )
    assert authors(told) == ["codex"], told


def briefs(scene, host):
    """The texts of relay's own that stand in the newest conversation."""
    last = scene.model.of(host)[-1]
    return [
        turn.text
        for turn in last.turns
        if turn.kind in ("system", "user") and "[relay-state]" in turn.text
    ]


def test_after_clear_and_compaction_claude_code_is_briefed_and_goes_on(scene):
    """Scene 6, Claude Code: the brief comes with every kind of session start; /clear moves the binding by itself."""
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "claude")
    relay = scene.relays["claude"]
    claude = scene.terminal(
        "claude",
        part=[
            f"{relay} bootstrap --topic t",
            {"say": "opened"},
            f"{relay} brief --json",
            {"say": "told"},
        ],
    )
    claude.see("❯")
    claude.ask("open")
    claude.type("/clear")
    time.sleep(1.5)
    scene.model.parts["claude"] = [f"{relay} next --json", {"say": "told"}]
    claude.ask("go on")
    assert "in 2" in briefs(scene, "claude")[-1] and "action: start" in briefs(scene, "claude")[-1]
    shown = scene.model.of("claude")[-1].turns
    told = [turn.text for turn in shown if turn.kind == "result"][-1]
    assert json.loads(told)["action"] == "start", (
        "the same pair under the new id, without a command"
    )
    assert len(list(scene.shared.glob("_relay/bindings/claude-*.json"))) == 1

    asked = len(scene.model.requests)
    claude.type("/compact")
    until(
        lambda: "compact: " in (scene.shared / "_relay/hook-trail.log").read_text(),
        30,
        "the hook after compaction",
    )
    claude.ask("and on")
    assert len(scene.model.requests) > asked and "action: start" in briefs(scene, "claude")[-1]


def test_resumed_sessions_keep_their_binding_and_a_new_one_takes_one_command(scene):
    """Scene 6: resume in both hosts; a new Codex thread is told the one command that moves the binding."""
    scene.relay("init")
    scene.relay("hooks", "install")
    relays = scene.relays
    scene.claude("go", part=[f"{relays['claude']} bootstrap --topic t", {"say": "opened"}])
    scene.claude("go", "-c", part=lambda turns: {"say": "back"})
    assert "action: start" in briefs(scene, "claude")[-1], "claude -c"

    scene.codex("go", part=[f"{relays['codex']} next", {"say": "joined"}])
    scene.codex("go", "resume", "--last", part=lambda turns: {"say": "back"})
    assert "you are codex" in briefs(scene, "codex")[-1], "codex exec resume"

    scene.codex("go", part=[f"{relays['codex']} next", {"say": "moved"}])
    told = [turn.text for turn in scene.model.of("codex")[-1].turns if turn.kind == "result"][-1]
    assert "action: wait for claude" in told, "the first thread has left: its place is free"


def test_a_new_thread_in_the_same_codex_moves_the_binding_by_the_command_it_is_told(scene):
    """Scene 6, Codex: /new gives a new id while the old thread has not ended; the brief names the one command."""
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "codex")
    scene.as_agent(
        "claude", "bootstrap", "--topic", "t", session="11111111-1111-4111-8111-111111111111"
    )
    relay = scene.relays["codex"]
    codex = scene.terminal(
        "codex", "--dangerously-bypass-hook-trust", part=[f"{relay} next", {"say": "joined"}]
    )
    codex.see("Ask Codex")
    codex.ask("join")
    codex.type("/new")
    codex.see("Where should the new conversation run?")
    codex.keys("Enter")
    codex.see("Ask Codex")

    def moves(turns):
        told = next(turn.text for turn in turns if "[relay-action]" in turn.text)
        command = re.findall(r"(/\S+/relay (?:pair join \S+ --take-over|next))", told)[-1]
        return command if not any(turn.kind == "call" for turn in turns) else {"say": "moved"}

    scene.model.parts["codex"] = moves
    codex.ask("go on")
    assert "--take-over" in briefs(scene, "codex")[-1] or "free slot" in briefs(scene, "codex")[-1]
    bindings = [
        json.loads(path.read_text()) for path in scene.shared.glob("_relay/bindings/codex-*.json")
    ]
    assert len(bindings) == 1
    scene.model.parts["codex"] = lambda turns: (
        f"{relay} next" if turns[-1].kind != "result" else {"say": "done"}
    )
    codex.ask("and on")
    assert (
        "action: wait for claude"
        in [turn.text for turn in scene.model.of("codex")[-1].turns if turn.kind == "result"][-1]
    )


class Second(AsSkillSays):
    """A second Claude Code, whose user wants it to be the other side."""

    def _file(self, sent):
        return ".shared/_relay/claude-2.md"

    def _follow(self, shown, sent):
        if "action: full" in shown:
            assert re.search(r"(?m)^next: .* --as claude-2$", shown), shown
            return re.findall(r"(?m)^next: (.*)$", shown)[-1]
        if "you are claude-2:" in shown:
            return f"{self.relay} next"
        return super()._follow(shown, sent)


def test_two_sessions_of_claude_code_review_each_other_and_each_is_woken_by_its_name(scene):
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "claude")
    (scene.project / "pay.py").write_text(GUARDED)
    first = AsSkillSays(scene, "claude", [("plan", PLAN), ("fix", FIX)])
    second = Second(scene, "claude", [("review", FINDINGS, "--verdict changes --not-run READ")])
    one = scene.terminal(
        "claude",
        part=lambda turns: (second if "the second" in str(turns) else first)(turns),
    )
    one.see("❯")
    one.ask("use agent-relay, you are the first")
    two = scene.terminal("claude")
    two.see("❯")
    two.type("use agent-relay, you are the second")
    until(
        lambda: "003-claude-fix" in published_at(scene),
        60,
        "the fix of the first, woken by the second",
    )
    assert sorted(published_at(scene)) == [
        "001-claude-plan",
        "002-claude-2-review",
        "003-claude-fix",
    ]
    trail = scene.shared / "_relay/hook-trail.log"
    for name, stem in (("claude", "002-claude-2-review"), ("claude-2", "003-claude-fix")):
        woke = rf"FileChanged {name}:\S+ woke for {stem}"
        until(lambda woke=woke: re.search(woke, trail.read_text()), 30, woke)


def test_codex_exec_in_an_untrusted_project_is_told_once_what_to_do(scene):
    """There the ledger is read-only: nothing can be bound or sent."""
    scene.relay("init")
    scene.as_agent(
        "claude", "bootstrap", "--topic", "t", session="11111111-1111-4111-8111-111111111111"
    )
    scene.codex_config(trusted=False)
    relay, text = scene.relays["codex"], scene.file("# N\n\n## Next\ngo\n")
    commands = [f"{relay} next", f"{relay} send --kind note --file {text}", {"say": "done"}]
    scene.codex(part=commands)
    told = [t.text for t in scene.model.of("codex")[-1].turns if t.kind == "result"]
    assert len(told) == 2
    for each in told:
        assert f"{scene.shared} is read-only here" in each, each
        assert "--sandbox workspace-write" in each and "bin/relay next" not in each, each
    scene.codex("go", "--sandbox", "workspace-write", part=commands)
    assert list(scene.shared.glob("2*/001-codex-note.ready")), "the way out works"


def test_a_second_codex_in_its_sandbox_does_not_take_the_place_of_a_live_one(scene):
    """Each command there has a PID namespace of its own."""
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "codex")
    relay = scene.relays["codex"]
    scene.as_agent(
        "claude", "bootstrap", "--topic", "t", session="11111111-1111-4111-8111-111111111111"
    )
    first = scene.terminal("codex", part=[f"{relay} next", {"say": "joined"}])
    first.trust_hooks()
    first.ask("join")
    (bound,) = [path.name for path in scene.shared.glob("_relay/bindings/codex-*.json")]
    for _ in range(3):
        scene.model.requests.clear()
        done = scene.codex("go", part=[f"{relay} next", {"say": "done"}])
        shown = [t.text for t in scene.model.of("codex")[-1].turns if t.kind == "result"][-1]
        assert done.code == 0 and "action: full" in shown, shown
        assert [path.name for path in scene.shared.glob("_relay/bindings/codex-*.json")] == [bound]
