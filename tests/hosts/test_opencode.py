"""OpenCode, which has no session id of its own, reviews with Claude Code."""

import json
import re
import threading

import pytest

from hosts.clients import until
from hosts.parts import Agent, AsSkillSays
from hosts.test_review import CHECK, CODE, FINDINGS, FINE, FIX, GUARDED, PLAN, published_at

pytestmark = pytest.mark.hosts
OVER = "# Note\n\nThank you.\n\n## Next\nNothing.\n"


def test_opencode_and_claude_code_review_each_other(scene):
    """The export line that its first `next` prints is all that OpenCode needs."""
    (scene.project / "pay.py").write_text(CODE)
    (scene.project / "check.py").write_text(CHECK)
    (scene.project / "guarded.txt").write_text(GUARDED)
    relay, check = scene.relays["opencode"], f"{scene.relays['claude']} run -- python3 -B check.py"
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "claude")
    scene.opencode(part=[f"{relay} next", {"say": "over"}])
    shown = [t.text for t in scene.model.of("opencode")[-1].turns if t.kind == "result"][-1]
    env = dict(re.findall(r"export (\w+)=(\w+);", shown))
    assert env["RELAY_AUTHOR"] == "opencode" and len(env) == 2, shown

    words = f"{relay} bootstrap --topic refund --peer claude"
    scene.opencode(part=[words, {"say": "opened"}], **env)
    fix = ("fix", FIX, "--touched pay.py", "cp guarded.txt pay.py")
    plays = AsSkillSays(scene, "opencode", [("plan", PLAN), fix, ("decision", OVER)])
    scene.model.parts["claude"] = Agent(
        scene,
        "claude",
        [
            ("review", FINDINGS, "--verdict changes", check),
            ("review", FINE, "--verdict approve", check),
        ],
    )
    ended = []
    part = threading.Thread(
        target=lambda: ended.append(scene.opencode(part=plays, seconds=200, **env))
    )
    part.start()
    until(lambda: "001-opencode-plan" in published_at(scene), 60, "the plan")
    claude = scene.terminal("claude")
    claude.see("❯")
    claude.ask("use agent-relay and review what opencode sends")
    until(lambda: "005-opencode-decision" in published_at(scene), 120, claude.screen)
    part.join(120)
    assert ended and ended[0].code == 0
    assert sorted(published_at(scene)) == [
        "001-opencode-plan",
        "002-claude-review",
        "003-opencode-fix",
        "004-claude-review",
        "005-opencode-decision",
    ]
    scene.relay("verify")
    (binding,) = scene.shared.glob("_relay/bindings/opencode-*.json")
    assert json.loads(binding.read_text())["agent_session_id"] == env["RELAY_AGENT_SESSION_ID"]
    log = scene.relay("log", "--json")
    assert '"approve"' in log
