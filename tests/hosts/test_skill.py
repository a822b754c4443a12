"""What the hosts show of the skill, what their permissions let through, and what Codex's sandbox leaves possible."""

import json
import re

import pytest

pytestmark = pytest.mark.hosts


def description(scene):
    return re.findall(
        r'(?m)^description: "(.*)"$',
        (scene.home / ".agents/skills/agent-relay/SKILL.md").read_text(),
    )[0]


def test_both_hosts_list_the_skill_with_its_description(scene, capsys):
    """Scene 8."""
    scene.claude(part=[{"say": "done"}])
    scene.codex(part=[{"say": "done"}])
    resident = {}
    for host in ("claude", "codex"):
        lines = [
            line
            for turn in scene.model.of(host)[0].turns
            for line in turn.text.split("\n")
            if line.startswith("- agent-relay: ")
        ]
        assert len(lines) == 1 and description(scene) in lines[0], (host, lines)
        resident[host] = len(lines[0])
    with capsys.disabled():
        print(f"\nresident characters of the skill: {resident}")


def test_the_skill_loads_in_both_hosts(scene):
    scene.claude(part=[{"tool": "Skill", "input": {"skill": "agent-relay"}}, {"say": "done"}])
    assert "## Hard rules" in scene.model.of("claude")[-1].text
    scene.codex("use $agent-relay", part=[{"say": "done"}])
    assert "## Hard rules" in scene.model.of("codex")[-1].text


def test_the_rules_let_harmless_commands_through_and_nothing_else(scene):
    """Permission rules as `hooks rules` prints them: in Claude Code no prompt, in Codex no sandbox; `close` still asks."""
    rules = scene.relay("hooks", "rules", "--json")
    told = json.loads(rules)
    scene.settings(
        "claude", {"permissions": {**told["claude"]["permissions"], "defaultMode": "default"}}
    )
    relay = scene.relays["claude"]
    scene.claude(
        part=[
            f"{relay} status",
            f"{relay} close --reason x",
            f"{relay} next; touch {scene.project}/owned",
            {"say": "done"},
        ]
    )
    results = [turn.text for turn in scene.model.of("claude")[-1].turns if turn.kind == "result"]
    assert "no pair" in results[0] or "expected one active pair" in results[0], results[0]
    assert "permission" in results[1].lower() or "approval" in results[1].lower(), results[1]
    assert not (scene.project / "owned").exists(), "a rule does not let a second command through"

    (scene.home / ".codex/rules").mkdir()
    (scene.home / ".codex/rules/relay.rules").write_text(told["codex"]["rule"] + "\n")
    relay = scene.relays["codex"]
    probe = "import os; print('NOFILE' if not os.access(os.path.expanduser('~/.codex'), os.W_OK) else 'OUTSIDE')"
    scene.relay("init")
    scene.codex(
        part=[
            f"{relay} next --json",
            f'python3 -c "{probe}"',
            f"{relay} issue add --title t --body b",
            {"say": "done"},
        ]
    )
    results = [turn.text for turn in scene.model.of("codex")[-1].turns if turn.kind == "result"]
    assert '"action": "bootstrap"' in results[0]
    assert "cannot be written" in results[2], "a command that is not listed stays in the sandbox"
