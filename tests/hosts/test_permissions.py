"""What Claude Code asks its user about in its terminal: not relay's own calls, not its scratch file, but all else."""

import json
import time

import pytest

from hosts.clients import until
from hosts.parts import AsSkillSays
from hosts.test_review import CODE, DECISION, FINDINGS, FINE, FIX, GUARDED, PLAN, published_at

pytestmark = pytest.mark.hosts
CODEX = "01a00000-0000-7000-8000-000000000001"


def permitted(scene, mode="default", **rules):
    """Hooks are installed in settings that allow nothing else."""
    scene.settings("claude", {"permissions": {"defaultMode": mode, **rules}})
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "claude")
    (scene.project / "pay.py").write_text(CODE)


def answer(scene, stem, text, verdict, number):
    """Codex reviews, as soon as Claude Code has published what it asks for."""
    until(lambda: stem in published_at(scene), 60, stem)
    scene.as_agent("codex", "next", session=CODEX)
    scene.as_agent("codex", "run", "--", "true", session=CODEX)
    if verdict == "changes":  # What the fix is to have changed; it is asked for in a moment.
        (scene.project / "pay.py").write_text(GUARDED)
    words = ("--reply-to", number, "--verdict", verdict, "--file", scene.file(text, f"{number}.md"))
    scene.as_agent("codex", "send", "--kind", "review", *words, session=CODEX)


@pytest.mark.parametrize("mode", ["default", "acceptEdits"])
def test_a_review_of_two_rounds_needs_no_click(scene, mode):
    """Nobody presses a key after the prompt: one question, and the review would stand still."""
    permitted(scene, mode)
    texts = [("plan", PLAN), ("fix", FIX, "--touched pay.py"), ("decision", DECISION)]
    claude = scene.terminal("claude", part=AsSkillSays(scene, "claude", texts))
    claude.see("❯")
    claude.ask("use agent-relay and ask codex to review this")
    answer(scene, "001-claude-plan", FINDINGS, "changes", "1")
    until(lambda: "003-claude-fix" in published_at(scene), 60, claude.screen)
    answer(scene, "003-claude-fix", FINE, "approve", "3")
    until(lambda: "005-claude-decision" in published_at(scene), 60, claude.screen)
    trail = (scene.shared / "_relay/hook-trail.log").read_text()
    assert trail.count(" PermissionRequest ") >= 7, trail


def test_the_users_click_makes_continue_count(scene):
    """The host asks about `continue`, whatever hooks are there; without the question it is refused."""
    permitted(scene)
    relay = scene.relays["claude"]
    scene.as_agent("codex", "bootstrap", "--topic", "t", session=CODEX)
    words = ("send", "--kind", "decision", "--file", scene.file(DECISION))
    scene.as_agent("codex", *words, session=CODEX)
    claude = scene.terminal("claude", part=[f"{relay} next", f"{relay} continue", {"say": "done"}])
    claude.see("❯")
    claude.type("go")
    claude.see("bin/relay continue")  # While a hook thinks, its call is asked about, too.
    claude.see("Do you want to proceed?")
    time.sleep(2)
    assert "ask_user" in scene.relay("status", "--json")
    claude.keys("Enter")
    until(lambda: scene.model.ended_turns("claude"), 30, claude.screen)
    said = json.loads(scene.relay("log", "--json"))["user"]
    assert [line["attended"] for line in said] == ["prompt"]
    scene.as_agent("codex", *words, session=CODEX)

    scene.settings("claude", {"permissions": {"allow": ["Bash"]}})
    scene.relay("hooks", "install", "--target", "claude")
    claude.close()
    done = scene.claude("go", part=[f"{relay} next", f"{relay} continue", {"say": "done"}])
    assert done.code == 0
    shown = [t.text for t in scene.model.of("claude")[-1].turns if t.kind == "result"][-1]
    assert "nothing was recorded" in shown
    assert len(json.loads(scene.relay("log", "--json"))["user"]) == 1


@pytest.mark.parametrize("mode", ["plan", "auto"])
def test_in_plan_mode_and_in_auto_mode_the_host_decides(scene, mode):
    """Auto mode's check needs the host's own server: without it, its user is asked about each call."""
    permitted(scene, mode)
    claude = scene.terminal("claude", part=[f"{scene.relays['claude']} next", {"say": "over"}])
    claude.see("❯")
    until(lambda: scene.model.of("claude") or claude.urge("go"), 60, "the prompt")
    asks = "Enter to stay in auto mode" if mode == "auto" else "Do you want to"
    ended = lambda: scene.model.ended_turns("claude")
    until(lambda: asks in claude.screen or ended(), 30, "the host's answer")
    time.sleep(2)
    trail = scene.shared / "_relay/hook-trail.log"
    assert not trail.exists() or " PermissionRequest " not in trail.read_text(), claude.screen


def test_what_is_not_relays_own_is_asked_about(scene):
    permitted(scene)
    for line in (
        f"touch x {scene.relays['claude']} next",
        f"{scene.relays['claude']} run -- touch x",
        f"{scene.relays['claude']} continue",
        f"{scene.relays['codex']} next",
    ):
        claude = scene.terminal("claude", part=[line])
        claude.see("❯")
        claude.type("go")
        claude.see("Do you want to proceed?")
        time.sleep(3)
        assert "Do you want to proceed?" in claude.screen and not (scene.project / "x").exists()
        claude.close()
    assert " allowed " not in (scene.shared / "_relay/hook-trail.log").read_text()


@pytest.mark.parametrize("kind", ["ask", "deny"])
@pytest.mark.parametrize(
    "rule", ["Bash(*relay next*)", "Bash({} next)", "Edit(.shared/_relay/claude.md)"]
)
def test_the_users_own_rules_win(scene, kind, rule):
    permitted(scene, **{kind: [rule.format(scene.relays["claude"])]})
    scratch = scene.shared / "_relay/claude.md"
    step = f"{scene.relays['claude']} next"
    if rule.startswith("Edit"):
        step = {"tool": "Write", "input": {"file_path": str(scratch), "content": "# T\n"}}
    claude = scene.terminal("claude", part=[step, {"say": "over"}])
    claude.see("❯")
    claude.type("go")
    if kind == "ask":
        claude.see("Do you want to")
        time.sleep(3)
        assert "Do you want to" in claude.screen and not scene.model.ended_turns("claude")
    else:
        until(lambda: scene.model.ended_turns("claude"), 30, "the end of the turn")
        assert "denied" in json.dumps([t.text for t in scene.model.of("claude")[-1].turns])
    assert not scratch.exists()


def test_through_a_symlink_the_scratch_file_is_not_written(scene):
    """The host refuses a symlink in its place, and asks where its directory is one."""
    permitted(scene)
    victim, scratch = scene.home / "victim", scene.shared / "_relay/claude.md"
    victim.write_text("old\n")
    scratch.symlink_to(victim)
    steps = [
        {"tool": "Read", "input": {"file_path": str(scratch)}},
        {"tool": "Write", "input": {"file_path": str(scratch), "content": "# T\n"}},
        {"say": "over"},
    ]
    claude = scene.terminal("claude", part=steps)
    claude.see("❯")
    claude.type("go")
    time.sleep(8)
    assert victim.read_text() == "old\n" and scratch.is_symlink()
