"""A whole review between the two real clients, each idle in its terminal in between, each woken by the other's publish."""

import json
import os
import re
import time

import pytest

from hosts.clients import until
from hosts.parts import Agent

pytestmark = pytest.mark.hosts

PLAN = "# Plan\n\nrefund() splits an amount in parts; see pay.py.\n\n## Next\nReview pay.py.\n"
FINDINGS = "# Review\n\nRead pay.py.\n\n```findings\nblocker pay.py:2 A refund in 0 parts divides by zero\n```\n\n## Next\nGuard it.\n"
FIX = "# Fix\n\nparts < 1 raises ValueError.\n\n```dispositions\n2.1 fixed guard in refund()\n```\n\n## Next\nLook at the guard.\n"
FINE = "# Review\n\nThe guard holds.\n\n```dispositions\n2.1 accepted the guard is there\n```\n\n## Next\nShip it.\n"
DECISION = "# Decision\n\nReady.\n\n## Next\n@user: may we close?\n"
CODE = "def refund(amount, parts):\n    return amount / parts\n"


GUARDED = CODE.replace(
    "    return", "    if parts < 1:\n        raise ValueError(parts)\n    return"
)
CHECK = "import pay\ntry:\n    pay.refund(5, 0)\nexcept ValueError:\n    print('refused')\n"


def play_both(scene):
    """Both agents with what they will send; the reviewer runs a check through relay before each verdict."""
    (scene.project / "pay.py").write_text(CODE)
    (scene.project / "check.py").write_text(CHECK)
    guarded = scene.file(GUARDED, "guarded.py")
    check = f"{scene.relays['codex']} run -- python3 -B check.py"
    scene.model.parts = {
        "claude": Agent(
            scene,
            "claude",
            [
                ("plan", PLAN),
                ("fix", FIX, "--touched pay.py", f"cp {guarded} pay.py"),
                ("decision", DECISION),
            ],
        ),
        "codex": Agent(
            scene,
            "codex",
            [
                ("review", FINDINGS, "--verdict changes", check),
                ("review", FINE, "--verdict approve", check),
            ],
        ),
    }


def in_terminals(scene):
    """Both TUIs, each told once what to do; Codex's hooks trusted in its own dialog."""
    claude = scene.terminal("claude")
    claude.see("❯")
    claude.ask("use agent-relay and ask codex to review this")
    codex = scene.terminal("codex")
    codex.trust_hooks()
    codex.ask("use agent-relay and review what claude sends")
    return claude, codex


def published_at(scene):
    return {path.stem: path.stat().st_mtime for path in scene.shared.glob("2*/*.ready")}


def relay_bytes(request_turns):
    """Relay's own words in the results of an agent's calls: without fenced peer text and without paths."""
    total = 0
    for turn in request_turns:
        if turn.kind == "result" and ("action: " in turn.text or "next: " in turn.text):
            own = re.sub(r"(?ms)^---- (\w{4}) .*?^---- \1 end$", "", turn.text)
            own = re.sub(r"(?s)^Chunk ID.*?Output:\n", "", own)
            total += len(re.sub(r"/\S+", "", own).encode())
    return total


def test_a_review_of_two_rounds_needs_no_human_and_each_side_is_woken_once(scene, capsys):
    """Scenes 1 and 2: findings and approval, both idle in between; no wake for own writes, drafts, or a second time."""
    scene.relay("init")
    scene.relay("hooks", "install", "--nudge")
    play_both(scene)
    in_terminals(scene)
    until(
        lambda: "005-claude-decision" in published_at(scene),
        60,
        "the decision that ends the review",
    )
    time.sleep(3)  # What would be woken too often is woken by now.
    ready = published_at(scene)
    assert sorted(ready) == [
        "001-claude-plan",
        "002-codex-review",
        "003-claude-fix",
        "004-codex-review",
        "005-claude-decision",
    ]

    first, second = (
        json.loads(path.read_text()) for path in sorted(scene.shared.glob("2*/*-codex-review.json"))
    )
    assert (first["verdict"], [row["severity"] for row in first["open"]]) == (
        "changes",
        ["blocker"],
    )
    assert (second["verdict"], second["open"]) == ("approve", []) and [
        row["code"] for row in (*first["evidence"], *second["evidence"])
    ] == [1, 0]

    wakes = {"claude": wakes_of(scene, "claude"), "codex": wakes_of(scene, "codex")}
    assert [seq for seq, _ in wakes["claude"]] == [2, 4], (
        "once for each review, never for its own or for drafts"
    )
    assert [seq for seq, _ in wakes["codex"]] == [3], (
        "the decision is the user's and starts no turn"
    )
    late = {
        seq: at - next(when for stem, when in ready.items() if int(stem[:3]) == seq)
        for rows in wakes.values()
        for seq, at in rows
    }
    assert max(late.values()) < 2, late

    turns = {host: scene.model.ended_turns(host) for host in wakes}
    calls = {
        host: sum("bin/relay" in str(request.step) for request in scene.model.of(host))
        for host in wakes
    }
    words = {host: relay_bytes(scene.model.of(host)[-1].turns) for host in wakes}
    assert turns == {"claude": 3, "codex": 2}, "one turn for each prompt and each wake"
    assert (
        json.loads(scene.as_agent("claude", "status", "--json", session="looks on"))["is_active"]
        is True
    )
    with capsys.disabled():
        wakes_ms = ", ".join(
            f"{seq:03} {seconds * 1000:.0f} ms" for seq, seconds in sorted(late.items())
        )
        print(
            f"\ntwo rounds: turns {turns}, relay calls {calls}, relay's own bytes {words}; woken after {wakes_ms}"
        )
    trail = (scene.shared / "_relay/hook-trail.log").read_text()
    assert "the user spoke" not in trail.split("codex Stop")[-1], "a wake is not the user"


def wakes_of(scene, host):
    """The turns that began with relay's own words: which artifact they named, and when. Each request repeats
    what came before, so a wake counts where it is first seen."""
    found, known = [], 0
    for request in scene.model.of(host):
        named = [
            t.text
            for t in request.turns
            if t.kind in ("user", "system") and re.search(r"\d{3}.* waits in .*Run: ", t.text)
        ]
        numbers = [int(re.findall(r"(\d{3})(?: \w+ by \w+)? waits in", text)[-1]) for text in named]
        distinct = list(dict.fromkeys(numbers)) if host == "claude" else numbers
        found += [(number, request.at) for number in distinct[known:]]
        known = max(known, len(distinct))
    return found


def test_a_session_that_opened_before_the_ledger_holds_a_wait_and_is_woken_by_its_end(scene):
    """Claude Code watches what was there when its session began. Else the background wait wakes it, and only that."""
    scene.relay("hooks", "install", "--target", "claude")
    (scene.project / "pay.py").write_text(CODE)
    scene.model.parts["claude"] = Agent(
        scene, "claude", [("plan", PLAN), ("note", "# Note\n\nI see.\n\n## Next\nGo on.\n")]
    )
    claude = scene.terminal("claude")
    claude.see("❯")
    claude.ask("use agent-relay and ask codex to review this")
    assert "next --wait 1500" in str(scene.model.of("claude")[-2].step), "it is told to hold a wait"
    asked = len(scene.model.of("claude"))
    scene.as_agent("codex", "next", session="01a00000-0000-7000-8000-000000000001")
    scene.as_agent(
        "codex", "claim", "--kind", "note", session="01a00000-0000-7000-8000-000000000001"
    )
    time.sleep(1.5)
    assert len(scene.model.of("claude")) == asked, "a draft wakes nobody"
    text = scene.file(FINDINGS)
    scene.as_agent(
        "codex",
        "send",
        "--kind",
        "review",
        "--file",
        text,
        session="01a00000-0000-7000-8000-000000000001",
    )
    published = time.time()
    until(lambda: "004-claude-note" in published_at(scene), 30, "the answer")
    assert scene.model.of("claude")[asked].at - published < 2
    assert not os.path.exists(scene.shared / "_relay/hook-state/fired-claude-FileChanged")


def test_a_publish_in_the_middle_of_a_turn_reaches_the_agent_once(scene):
    scene.relay("init")
    scene.relay("hooks", "install", "--target", "claude")
    steps = [
        f"{scene.relays['claude']} bootstrap --topic t",
        "for i in 1 2 3; do sleep 1; done; echo slept",
        "echo again",
        {"say": "over"},
    ]
    claude = scene.terminal("claude", part=[*steps, {"say": "woken twice"}])
    claude.see("❯")
    claude.type("go")
    until(lambda: len(scene.model.of("claude")) == 2, 20, "the long command")
    session = "01a00000-0000-7000-8000-000000000001"
    scene.as_agent("codex", "next", session=session)
    scene.as_agent(
        "codex",
        "send",
        "--kind",
        "plan",
        "--file",
        scene.file("# T\n\n## Next\nLook.\n"),
        session=session,
    )
    until(lambda: scene.model.ended_turns("claude") == 1, 20, "the end of the turn")
    time.sleep(2)
    requests = scene.model.of("claude")
    assert (
        "001 plan by codex waits in" in requests[2].text
        and "001 plan by codex waits in" not in requests[1].text
    )
    assert len(requests) == 4 and scene.model.ended_turns("claude") == 1, (
        "neither its end nor another wake starts it again"
    )
