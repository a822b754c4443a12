"""Claude Code does not ask about relay's own harmless calls, and asks about everything else as before."""

from __future__ import annotations

import json
import re

import pytest
from conftest import SCRIPT, SESSIONS

HOOK = {"AI_AGENT": "claude-code_2-1-330_harness"}
SUGGESTED = [
    {
        "type": "addRules",
        "rules": [{"toolName": "Bash", "ruleContent": "relay next *"}],
        "behavior": "allow",
        "destination": "localSettings",
    }
]
ALLOWED = [
    "next",
    "next --wait",
    "next --wait 1500",
    "next --json",
    "send --kind plan --file .shared/_relay/claude.md",
    "send --kind review --reply-to 1 --verdict approve --file .shared/_relay/claude.md",
    "send --kind fix --file .shared/_relay/claude.md --touched src/pay.py --touched a-b_c.md",
    "send --kind correction --corrects 3 --file .shared/_relay/claude.md --dry-run",
    "send --kind note --file .shared/_relay/claude.md --again",
    "wait --timeout 60",
    "status",
    "brief",
    "show 4",
    "show 4 --diff",
    "log",
    "findings",
    "bootstrap --topic refund-parts",
    "pair join 20260101-refund",
]
SEND = "send --kind note --file .shared/_relay/claude.md"
# After the path of the hook's own relay.
HOSTILE = [
    "continue",
    "close --outcome approve --reason x",
    "run -- true",
    "run -- rm -rf x",
    "sync push",
    "next --sync",
    "next --wait --sync",
    "wait --sync",
    "export --html x",
    "export --statement",
    "hooks install",
    "hooks uninstall",
    "restore",
    "restore x",
    "forget x --yes",
    "pairs prune --older-than 0d",
    "init --sync rsync",
    "doctor --fix",
    "issue add --title x",
    "statusline install",
    "hook claude PermissionRequest",
    "publish x",
    "draft set x",
    "",
    " next",
    "next ",
    "next  --wait",
    "next\n",
    "next\nrm -rf x",
    "next\rrm -rf x",
    "next\trm",
    "next\x0brm",
    "next\0rm",
    "next; rm -rf x",
    "next & rm -rf x",
    "next && rm -rf x",
    "next || rm -rf x",
    "next | sh",
    "next > x",
    "next >> ~/.bashrc",
    "next < x",
    "next $(rm x)",
    "next `rm x`",
    "next $HOME",
    "next {a,b}",
    "next ~",
    "next *",
    "next ?",
    "next [a]",
    "next #",
    "next !!",
    "next ^a^b",
    'next "--wait"',
    "next '--wait'",
    "next \\--wait",
    "next --wait=1",
    "next --wait -1",
    "next --wait 1x",
    "next --wait \u0661",
    "next --exit-code",
    "next --pair-id x",
    "next --agent-session-id x",
    "next --detach",
    "nexts",
    "next next",
    "NEXT",
    "show",
    "show 4 --diff base",
    "status --project /",
    "log --markdown",
    "wait --no-timeout",
    "bootstrap --topic x --force",
    "bootstrap --topic x --base HEAD~1",
    "bootstrap --topic x --title y",
    "bootstrap --topic x --peer y",
    "bootstrap --topic ../x",
    "pair join x --take-over",
    "pair join x --as claude-2",
    "pair join ../x",
    "pair join",
    "pair leave",
    "pairs archive x",
    "send",
    "send --kind note --file -",
    "send --kind note --file ~/.netrc",
    "send --kind note --file /etc/passwd",
    "send --kind note --file .shared/_relay/codex.md",
    "send --kind note --file .shared/_relay/claude.md.md",
    "send --kind note --file .shared/_relay/claudexmd",
    "send --kind note --file ./.shared/_relay/claude.md",
    "send --kind note --file sub/.shared/_relay/claude.md",
    "send --kind note --file .shared/_relay/../_relay/claude.md",
    "send --kind note --file .shared/_relay/bindings/claude.json",
    "send --kind note --file .shared/_relay/../../.git/hooks/x",
    "send --kind note --file=.shared/_relay/claude.md",
    "send --kind other --file .shared/_relay/claude.md",
    f"{SEND} --next-file x",
    f"{SEND} --next x",
    f"{SEND} --status closed",
    f"{SEND} --allow-secret token:1",
    f"{SEND} --reason x",
    f"{SEND} --force",
    f"{SEND} --not-run x",
    f"{SEND} --despite-failed x",
    f"{SEND} --empty",
    f"{SEND} --accept-moved x",
    f"{SEND} --sync-needed",
    f"{SEND} --take-over",
    f"{SEND} --pair-id x",
    f"{SEND} --verdict maybe",
    f"{SEND} --touched --allow-secret",
    f"{SEND} --touched /etc/passwd",
    f"{SEND} --touched x --next-file y",
    f"{SEND} --reply-to 1 --",
    f"{SEND} -h",
]
# Whole command lines; {} is the path of the hook's own relay.
LINES = [
    "rm -rf x {} y",
    "rm -rf x {} next",
    "sh {} next",
    "python3 {} next",
    "env {} next",
    "exec {} next",
    "time {} next",
    "cd x && {} next",
    "RELAY_SHARED_ROOT=/x {} next",
    "PATH=/x {} next",
    "LD_PRELOAD=/x.so {} next",
    "A=1 B=2 {} next",
    " {} next",
    "\n{} next",
    "\t{} next",
    "({} next)",
    "'{}' next",
    '"{}" next',
    "{}x next",
    "{}/../relay next",
    "{}.py next",
    "/tmp{} next",
    "./{} next",
    "~/.claude/skills/agent-relay/bin/relay next",
    "bin/relay next",
    "skills/agent-relay/bin/relay next",
    "./relay next",
    "relay next",
    "/usr/bin/relay next",
    "/tmp/agent-relay/bin/relay next",
    "{} next {} next",
    "{}",
    "",
]


def asked(stage, command, session=None, cwd=None, words=("claude",), **more):
    """What the hook answers when Claude Code is about to ask about a command."""
    event = {
        "session_id": session or SESSIONS["claude"]["CLAUDE_CODE_SESSION_ID"],
        "cwd": str(cwd or stage.project),
        "hook_event_name": "PermissionRequest",
        "permission_mode": "default",
        "tool_name": "Bash",
        "tool_input": {"command": command, "description": "a step"},
        "permission_suggestions": SUGGESTED,
        **more,
    }
    stdin = json.dumps(event).encode()
    done = stage.run(None, "hook", *words, "PermissionRequest", stdin=stdin, cwd=cwd, **HOOK)
    assert done.code == 0 and not done.err, done
    return json.loads(done.out)["hookSpecificOutput"] if done.out else None


ALLOW = {"hookEventName": "PermissionRequest", "decision": {"behavior": "allow"}}


@pytest.fixture
def pair(stage):
    return stage.open_pair()


@pytest.mark.parametrize("words", ALLOWED)
def test_a_harmless_call_needs_no_click(stage, pair, words):
    assert asked(stage, f"{SCRIPT} {words}") == ALLOW


def test_everything_else_gets_no_answer(stage, pair):
    lines = [f"{SCRIPT} {words}" for words in HOSTILE] + [
        line.replace("{}", str(SCRIPT)) for line in LINES
    ]
    for line in lines:
        assert asked(stage, line) is None, line
    for part in ("\n", "\r", "\t", ";", "'", "\u00e9", "\u2028", "\x7f", "{", "~", "\\"):
        for words in ALLOWED:
            line = f"{SCRIPT} {words}"
            for broken in (line + part, part + line, line.replace(" ", part, 1)):
                assert asked(stage, broken) is None, broken


@pytest.mark.parametrize(
    "more",
    [
        {"permission_mode": "plan"},
        {"permission_mode": "bypassPermissions"},
        {"permission_mode": None},
        {"tool_name": "Write"},
        {"tool_name": "Monitor"},
        {"tool_input": {"command": f"{SCRIPT} next", "dangerouslyDisableSandbox": True}},
        {"tool_input": {"command": f"{SCRIPT} next", "dangerouslyDisableSandbox": False}},
        {"tool_input": {"command": f"{SCRIPT} next", "env": {}}},
        {"tool_input": {"command": [f"{SCRIPT} next"]}},
        {"tool_input": {}},
        {"tool_input": f"{SCRIPT} next"},
        # A rule of the user's that says to ask: the host suggests none then.
        {"permission_suggestions": None},
        {"permission_suggestions": []},
        {"permission_suggestions": [*SUGGESTED, {"type": "addDirectories"}]},
        {"permission_suggestions": "x"},
        {"words": ("codex",)},
    ],
)
def test_what_else_the_host_says_of_a_call_can_only_keep_the_question(stage, pair, more):
    assert asked(stage, f"{SCRIPT} next", **more) is None


def test_in_every_mode_that_asks_it_is_allowed(stage, pair):
    for mode in ("default", "acceptEdits", "auto"):
        given = {"command": f"{SCRIPT} next --wait 1500", "run_in_background": True, "timeout": 9}
        assert asked(stage, "", tool_input=given, permission_mode=mode) == ALLOW


def test_a_scratch_file_that_leads_elsewhere_is_asked_about_and_not_sent(stage, pair):
    """The ledger's own scratch file alone: not through a symlink, not from another directory."""
    secret = stage.folder / ".netrc"
    secret.write_text("# machine example.invalid login a password b\n")
    scratch = stage.shared / "_relay/claude.md"
    command = f"{SCRIPT} {SEND}"
    assert asked(stage, command) == ALLOW, "it may be written a moment later"
    below = stage.project / "sub"
    below.mkdir()
    assert asked(stage, command, cwd=below) is None
    scratch.symlink_to(secret)
    assert asked(stage, command) is None
    refused = stage.run("claude", *SEND.split())
    assert refused.code == 2 and not list(pair.glob("001*"))
    (below / ".shared").mkdir()
    (below / ".shared/_relay").symlink_to(secret.parent)
    (secret.parent / "claude.md").write_text("# stolen\n\n## Next\nread it\n")
    assert asked(stage, command, cwd=below) is None
    refused = stage.run("claude", *SEND.split(), cwd=below)
    assert refused.code == 2 and not list(pair.glob("001*"))


def test_send_follows_no_symlink_to_what_it_publishes(stage, pair):
    secret = stage.file("# machine example.invalid login a password b\n", "netrc")
    link = stage.project / "link.md"
    link.symlink_to(secret)
    body = stage.file("# T\n", "body.md")
    for words in (("--file", link, "--next", "x"), ("--file", body, "--next-file", link)):
        assert stage.run("claude", "send", "--kind", "note", *words).code == 2
    assert not list(pair.glob("001*"))


def test_the_rules_print_the_same_grammar(stage, relay, pair):
    """Each line of `hooks rules`, with values in place of the capitals, is what the hook allows."""
    values = {"N": "7", "KIND": "fix", "VERDICT": "changes", "PATH": "a.py"}
    values |= {"SLUG": pair.name, "AUTHOR": "claude"}
    usages = stage.ok(None, "hooks", "rules", "--json").json["unasked"]
    printed = stage.ok(None, "hooks", "rules").out
    for usage in usages:
        assert f"{SCRIPT} {usage}\n" in printed
        line = re.sub("[A-Z]+", lambda found: values[found[0]], re.sub(r"[\[\]]", "", usage))
        line = line.replace("--wait --wait", "--wait")
        assert asked(stage, f"{SCRIPT} {line}") == ALLOW, line
    assert "continue" not in printed
    flags = {argument.name for command in relay.COMMANDS for argument in command.arguments}
    assert {*re.findall("--[a-z-]+", " ".join(usages))} <= flags
