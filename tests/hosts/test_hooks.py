"""Hooks end by themselves, and a relay that is missing, broken or slow changes nothing for its host."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hosts.parts import calls_of

pytestmark = pytest.mark.hosts


def opened(scene, host):
    """The part of an agent that opens or joins a pair, ends its turn, and does nothing that it is asked then."""
    first = "bootstrap --topic t" if host == "claude" else "next"
    return lambda turns: (
        f"{scene.relays[host]} {first}" if not calls_of(turns) else {"say": "I stop."}
    )


@pytest.mark.parametrize("host", ["claude", "codex"])
def test_an_agent_that_ignores_what_waits_is_asked_once_and_may_then_stop(scene, host):
    """Scene 5: relay's own counter ends the loop; Codex has none of its own, Claude Code lets eight go by."""
    scene.relay("init")
    scene.relay("hooks", "install", "--target", host)
    other = {"claude": "codex", "codex": "claude"}[host]
    session = {
        "claude": "11111111-1111-4111-8111-111111111111",
        "codex": "01a00000-0000-7000-8000-000000000001",
    }
    if host == "codex":
        scene.as_agent("claude", "bootstrap", "--topic", "t", session=session["claude"])
    part = opened(scene, host)

    def sends_meanwhile(turns):
        if calls_of(turns) and not list(scene.shared.glob("2*/*.ready")):
            if host == "claude":
                scene.as_agent(other, "next", session=session[other])
            scene.as_agent(
                other,
                "send",
                "--kind",
                "plan",
                "--file",
                scene.file("# Text\n\n## Next\nLook.\n"),
                session=session[other],
            )
        return part(turns)

    begun = time.monotonic()
    done = (
        scene.claude("go", part=sends_meanwhile, seconds=60)
        if host == "claude"
        else scene.codex("go", part=sends_meanwhile, seconds=60)
    )
    assert done.code == 0 and time.monotonic() - begun < 30
    assert "timeout" not in done.err, "Codex takes no more than 3 s for the end of a session"
    said = [
        request
        for request in scene.model.of(host)
        if isinstance(request.step, dict) and "say" in request.step
    ]
    assert len(said) == 2, "stopped, asked once, stopped"
    assert "001 plan by " in said[-1].text and "waits for you. Run: " in said[-1].text
    trail = (scene.shared / "_relay/hook-trail.log").read_text()
    assert trail.count("continues for 001") == 1 and trail.count("may end") == 1


CODEXS = "01a00000-0000-7000-8000-000000000001"


@pytest.mark.parametrize("at_work", ["a wait", "a sub-agent"])
def test_a_turn_ends_while_a_wait_starts_or_a_sub_agent_works_on_what_waits(scene, at_work):
    """Its end brings Claude Code back, and then what is still unanswered is said, once."""
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "claude")
    relay = scene.relays["claude"]
    scene.as_agent("codex", "bootstrap", "--topic", "t", session=CODEXS)
    if at_work == "a sub-agent":
        file = scene.file("# Text\n\n## Next\nLook.\n")
        scene.as_agent("codex", "send", "--kind", "plan", "--file", file, session=CODEXS)
    sub = {"description": "answer", "prompt": "SUBTASK", "subagent_type": "general-purpose"}

    def part(turns):
        calls = calls_of(turns)
        if any("SUBTASK" in turn.text for turn in turns if turn.kind == "user"):
            return {"say": "the sub-agent is done", "delay": 2}
        if not calls:
            return f"{relay} next"
        if len(calls) == 1 and at_work == "a wait":
            return {"sh": f"sleep 1; {relay} next --wait 2", "run_in_background": True}
        if len(calls) == 1:
            return {"tool": "Agent", "input": {**sub, "run_in_background": True}}
        return {"say": "I stop."}

    assert scene.claude("go", part=part, seconds=60).code == 0
    trail = (scene.shared / "_relay/hook-trail.log").read_text().splitlines()
    stops = [line.split(" ", 4)[4] for line in trail if " Stop " in line]
    said = "continues for 000-parked" if at_work == "a wait" else "continues for 001-unanswered"
    assert stops == [f"may end: {at_work} is at work", said, "may end"], trail


OLD = "#!/bin/sh\necho 'usage: relay [-h] {init,claim} ...' >&2\necho \"relay: error: argument command: invalid choice: 'hook'\" >&2\nexit 2\n"


@pytest.mark.parametrize("what", ["missing", "old", "torn", "slow"])
def test_a_relay_that_is_not_well_changes_nothing_for_its_host(scene, what):
    """Scene 5: prompts, edits and the end of turns go through in both hosts, as if there were no hooks."""
    scene.relay("init")
    scene.relay("hooks", "install")
    relay = scene.home / ".agents/skills/agent-relay/bin/relay"
    text = relay.read_text()
    relay.unlink()
    if what != "missing":
        broken = {"old": OLD, "torn": text[:9000], "slow": "#!/bin/sh\nsleep 60\n"}[what]
        relay.write_text(broken)
        relay.chmod(0o755)
    if what == "slow":
        for path in (".claude/settings.json", ".codex/hooks.json"):
            settings = scene.home / path
            shorter = re.sub('"timeout": [35]', '"timeout": 1', settings.read_text())
            settings.write_text(shorter)
            assert shorter.count('"timeout": 1') >= 5

    def goes_through(host):
        made = scene.project / f"made-by-{host}.txt"
        part = [
            {"tool": "Write", "input": {"file_path": str(made), "content": "x"}} if host == "claude"
            else {"patch": f"*** Begin Patch\n*** Add File: {made.name}\n+x\n*** End Patch"},
            {"say": "all is well"},
        ]  # fmt: skip
        run = scene.claude if host == "claude" else scene.codex
        done = run("go", part=part, seconds=80)
        assert done.code == 0 and "all is well" in done.out, done
        assert made.exists()
        shown = scene.model.of(host)[-1].text
        assert "usage: relay" not in shown, "not even its words come through"
        assert scene.model.ended_turns(host) == 1, "no turn goes on"

    with ThreadPoolExecutor() as both:
        list(both.map(goes_through, ("claude", "codex")))


def test_untrusted_codex_hooks_do_not_run_and_are_reported(scene):
    """Scene 5: `codex exec` skips them in silence; preflight and hooks doctor say so, and that they are trusted later."""
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "codex")
    scene.model.parts["codex"] = [{"say": "done"}]
    scene._run("codex", ("exec", "--skip-git-repo-check", "go"), None, 60, {})
    assert not (scene.shared / "_relay/hook-trail.log").exists(), "none has run"
    found = json.loads(scene.relay("hooks", "doctor", "--target", "codex", "--json", code=1))[
        "findings"
    ]
    assert any(row["id"] == "hooks.untrusted" and "/hooks" in row["remedy"] for row in found)
    checks = {
        row["name"]: row
        for row in json.loads(scene.relay("preflight", "--json", code=1, CODEX_THREAD_ID="x"))[
            "checks"
        ]
    }
    assert checks["hooks.codex"]["status"] == "warn" and "trust" in checks["hooks.codex"]["detail"]

    codex = scene.terminal("codex", part=lambda turns: {"say": "done"})
    codex.trust_hooks()
    codex.ask("go")
    assert (
        json.loads(scene.relay("hooks", "doctor", "--target", "codex", "--json"))["findings"] == []
    )
    assert (
        json.loads(scene.relay("preflight", "--json", CODEX_THREAD_ID="x"))["checks"][-1]["status"]
        == "pass"
    )
