"""What relay answers to the hosts' events: silence wherever there is nothing to say, and never a block by accident."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from conftest import SCRIPT

IDS = {"claude": "session-of-claude", "codex": "thread-of-codex"}
EVENTS = ("SessionStart", "UserPromptSubmit", "PreToolUse", "Stop", "SessionEnd", "FileChanged")
WATCHES = {"AI_AGENT": "claude-code_2-1-330_harness"}


def hook(stage, agent, name, cwd=None, raw=None, env=None, **told):
    """One event, as a host hands it over; what relay answered, as JSON, or None for silence."""
    given = (
        raw
        if raw is not None
        else json.dumps({"session_id": IDS[agent], "hook_event_name": name, **told}).encode()
    )
    done = stage.run(
        None,
        "hook",
        agent,
        name,
        stdin=given,
        cwd=cwd,
        **{**(WATCHES if agent == "claude" else {}), **(env or {})},
    )
    assert done.code in (0, 2), done
    assert done.code == 0 or (name == "FileChanged" and done.err.startswith("[relay-action] ")), (
        "2 only for a wake that is meant"
    )
    done.told = json.loads(done.out) if done.out else None
    return done


def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def context(done):
    return done.told["hookSpecificOutput"]["additionalContext"] if done.told else ""


def changed(stage, name, pair, agent="claude", event="add", **more):
    return hook(stage, agent, "FileChanged", file_path=str(pair / name), event=event, **more)


@pytest.fixture
def pair(stage):
    return stage.open_pair()


def test_the_brief_names_pair_move_and_command_and_no_word_of_the_peer(stage, pair):
    stage.send("codex", "plan", "# PEERWORD\n", "PEERPROMPT")
    for source in ("startup", "resume", "clear", "compact", "fork"):
        text = context(hook(stage, "claude", "SessionStart", source=source))
        assert pair.name in text and "action: reply; 001 plan by codex waits for you" in text
        assert text.endswith(f"[relay-action] {SCRIPT} next") and len(text.encode()) < 2048
        assert "PEER" not in text


def test_claude_code_is_told_to_watch_the_ledger_and_needs_no_wait_then(stage, pair):
    done = hook(stage, "claude", "SessionStart", source="startup")
    assert done.told["hookSpecificOutput"]["watchPaths"] == [str(stage.shared)]
    sent = stage.send("claude", "plan")
    assert "you are woken" in sent.out and "--wait" not in sent.out
    waiting = stage.ok("claude", "next")
    assert waiting.action == "wait" and waiting.next == "next" and "end your turn" in waiting.out
    assert "watchPaths" not in json.dumps(
        hook(stage, "codex", "SessionStart", source="startup").told
    ), "Codex watches nothing"


@pytest.mark.parametrize(
    "agent", ["", "claude-code_2-1-9_harness", "other", "claude-code_x_harness"]
)
def test_a_claude_code_that_is_not_known_to_watch_is_told_to_hold_a_wait(stage, pair, agent):
    hook(stage, "claude", "SessionStart", source="startup", env={"AI_AGENT": agent})
    assert "next --wait 1500" in stage.send("claude", "plan").out


@pytest.mark.parametrize(
    "env", [{"CLAUDE_CODE_ENTRYPOINT": "sdk-cli"}, {"CLAUDE_CODE_SESSION_ATTENDED": "0"}]
)
def test_a_session_that_nobody_sits_at_is_not_woken_and_its_prompts_are_no_users(stage, pair, env):
    assert "watchPaths" not in json.dumps(
        hook(stage, "claude", "SessionStart", source="startup", env=env).told
    )
    assert "next --wait 1500" in stage.send("claude", "plan").out
    hook(stage, "claude", "UserPromptSubmit", prompt="go on", env=env)
    assert not list(pair.glob(".seen/claude-*"))


def test_a_codex_exec_is_neither_nudged_nor_told_that_it_will_be(relay, stage, monkeypatch):
    stage.link_skill()
    stage.ok(None, "hooks", "install", "--target", "codex", "--nudge")
    around = [(7, "codex", ["/bin/codex", "exec", "resume", "--last"])]
    monkeypatch.setattr(relay, "_ancestors", lambda: iter(around))
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.ok("codex", "next", CODEX_THREAD_ID=UUID)
    thread = {"RELAY_AGENT_SESSION_ID": UUID}
    hook(stage, "codex", "SessionStart", env=thread)
    assert "next --wait" in stage.ok("codex", "next", CODEX_THREAD_ID=UUID).next
    stage.ok(
        "claude",
        "send",
        "--kind",
        "plan",
        "--file",
        stage.file("# T\n\n## Next\nLook.\n"),
        **codex_on_path(stage),
    )
    assert "nudge" not in (stage.shared / "_relay/hook-trail.log").read_text()
    around[0] = (7, "codex", ["/bin/codex", "app-server", "--listen", "unix://"])
    hook(stage, "codex", "SessionStart", env=thread)
    assert stage.ok("codex", "next", CODEX_THREAD_ID=UUID).action == "reply"
    answer = stage.file("# R\n\n## Next\nGo on.\n", "r.md")
    assert (
        "you are woken"
        in stage.ok("codex", "send", "--kind", "note", "--file", answer, CODEX_THREAD_ID=UUID).out
    )


def test_a_codex_that_inherited_claude_codes_project_is_in_its_own(stage):
    stage.ok("claude", "bootstrap", "--topic", "t")
    other = stage.folder / "other"
    other.mkdir()
    stage.git("init", "-q", cwd=other)
    env = {"CLAUDE_PROJECT_DIR": str(stage.project)}
    assert not context(hook(stage, "codex", "SessionStart", cwd=other, env=env))
    assert "[relay-state]" in context(hook(stage, "claude", "SessionStart", cwd=other, env=env))


def test_an_instance_without_a_pair_is_told_which_one_waits_for_it_or_who_stands_in_its_place(
    stage,
):
    slug = stage.ok("claude", "bootstrap", "--topic", "t").out.split()[0]
    assert f"{slug} is open and has a free slot for codex" in context(
        hook(stage, "codex", "SessionStart")
    )
    stage.ok("codex", "next")
    told = context(hook(stage, "codex", "SessionStart", env={"RELAY_AGENT_SESSION_ID": "another"}))
    assert "codex:thread-o holds the codex slot" in told and told.endswith(
        f"pair join {slug} --take-over"
    )
    moved = stage.ok("codex", "pair", "join", slug, "--take-over", CODEX_THREAD_ID="another")
    assert "codex:another" in moved.out, "one command moves the binding"


def test_only_the_users_own_prompts_reset_the_cap_and_nothing_but_the_cap(stage, pair):
    for _ in range(5):
        stage.send("claude", "note")
        stage.ok("codex", "next")
        stage.send("codex", "note")
        stage.ok("claude", "next")
    assert stage.ok("claude", "next").action == "ask_user"
    for prompt in (
        "<task-notification>\n<task-id>b</task-id>",
        "<system-reminder>\n[SYSTEM NOTIFICATION",
        "relay: 004 waits in x. Run: y next",
        "[relay-action] 004 review",
        '<hook_prompt hook_run_id="stop:1">go</hook_prompt>',
        "<event>line</event>",
    ):
        hook(stage, "claude", "UserPromptSubmit", prompt=prompt)
        assert stage.ok("claude", "next").action == "ask_user", prompt
    hook(stage, "claude", "UserPromptSubmit", prompt="<div> in the page is wrong, go on")
    assert stage.ok("claude", "next").action == "reply"
    stage.send("codex", "decision")
    hook(stage, "claude", "UserPromptSubmit", prompt="what is new?")
    assert stage.ok("claude", "next").action == "ask_user", (
        "a decision is cleared by relay continue alone"
    )
    stage.ok("claude", "continue")
    assert stage.ok("claude", "next").action != "ask_user"


def test_a_prompt_is_written_down_once_for_what_was_sent_since(stage, pair):
    hook(stage, "claude", "UserPromptSubmit", prompt="hello")
    assert not list(pair.glob(".seen/claude-*")), "nothing was sent yet: there is no count to reset"
    stage.send("claude", "plan")
    for _ in range(3):
        hook(stage, "claude", "UserPromptSubmit", prompt="hello")
    lines = [
        json.loads(line)
        for path in pair.glob(".seen/claude-*")
        for line in path.read_text().split("\n")
        if line
    ]
    assert [(line["prompt"], line["upto"]) for line in lines] == [("user", 1)]


def test_what_waits_unread_is_named_with_the_users_prompt(stage, pair):
    stage.send("codex", "plan")
    assert "001 plan by codex waits for you" in context(
        hook(stage, "claude", "UserPromptSubmit", prompt="hi")
    )
    stage.ok("claude", "next")
    assert hook(stage, "claude", "UserPromptSubmit", prompt="hi").told is None


def test_a_turn_goes_on_once_for_each_artifact(stage, pair):
    stage.send("claude", "plan")
    first = hook(stage, "codex", "Stop")
    assert (
        first.told["decision"] == "block"
        and first.told["reason"]
        == f"[relay-action] 001 plan by claude waits for you. Run: {SCRIPT} next"
    )
    assert hook(stage, "codex", "Stop", stop_hook_active=True).told is None
    stage.send("claude", "note")
    assert "002 note" in hook(stage, "codex", "Stop").told["reason"]
    assert hook(stage, "codex", "Stop").told is None
    stage.ok("codex", "next")
    again = hook(stage, "codex", "Stop").told["reason"]
    assert "002 note by claude is read and not answered" in again and "--reply-to 2" in again
    assert hook(stage, "codex", "Stop").told is None


def test_a_turn_that_ends_with_nothing_to_wake_it_is_told_so_once(stage, pair):
    stage.send("claude", "plan")
    told = hook(stage, "claude", "Stop").told["reason"]
    assert f"Hold a wait in the background: {SCRIPT} next --wait 1500" in told
    assert hook(stage, "claude", "Stop").told is None
    hook(stage, "claude", "SessionStart")
    stage.send("claude", "note")
    assert hook(stage, "claude", "Stop").told is None, "its host watches the ledger"


def task(command, **more):
    """A command in the background, as Claude Code reports it at the end of a turn."""
    return {"id": "b1", "type": "shell", "status": "running", "command": command, **more}


SUBAGENT = {"id": "a1", "type": "subagent", "status": "running", "agent_type": "general-purpose"}


@pytest.mark.parametrize("move", ["unread", "read", "wait"])
@pytest.mark.parametrize(
    "at_work",
    [
        task(f"{SCRIPT} next --wait 1500"),
        task(f"{SCRIPT} wait --timeout 600", status="pending"),
        task(f"python3 '{SCRIPT}' next --pair-id x --wait"),
        task(f"cd x && {SCRIPT} next --wait; echo woken"),
        SUBAGENT,
    ],
    ids=["next", "wait", "python", "compound", "subagent"],
)
def test_a_turn_may_end_while_a_wait_or_a_sub_agent_is_at_work(stage, pair, move, at_work):
    """Its end wakes Claude Code. It counts before it holds its lock; said is only what it leaves."""
    stage.send("claude" if move == "wait" else "codex", "plan")
    if move == "read":
        stage.ok("claude", "next")
    for _ in range(2):
        tasks = [task("make watch"), at_work]
        assert hook(stage, "claude", "Stop", background_tasks=tasks).told is None
    left = hook(stage, "claude", "Stop", background_tasks=[]).told
    assert left and left["decision"] == "block", "no token was taken meanwhile"


@pytest.mark.parametrize(
    "tasks",
    [
        [task("make watch")],
        [task(f"{SCRIPT} next")],
        [task(f"{SCRIPT} send --kind note --file wait --next 'do not --wait'")],
        [task(f"{SCRIPT} next; other --wait")],
        [task(f"{SCRIPT} statusline --watch")],
        [{"type": "shell"}, {"type": ["subagent"]}, "subagent", None, 5],
        {"type": "subagent"},
        "subagent",
        None,
    ],
)
def test_other_work_in_the_background_keeps_no_turn_from_going_on(stage, pair, tasks):
    stage.send("codex", "plan")
    told = hook(stage, "claude", "Stop", background_tasks=tasks).told
    assert "001 plan by codex waits for you" in told["reason"]


def test_the_end_of_a_command_wakes_no_codex_whatever_it_reports(stage, pair):
    stage.send("claude", "plan")
    assert hook(stage, "codex", "Stop", background_tasks=[SUBAGENT]).told["decision"] == "block"


@pytest.mark.slow
def test_a_held_wait_wakes_by_its_end_and_hooks_leave_it_to_it(stage, pair):
    stage.send("claude", "plan")
    waiting = stage.spawn("claude", "next", "--wait", "20")
    state = stage.shared / "_relay/hook-state"
    while not (
        list(state.glob("waiting-*-claude-*"))
        and stage.ok("claude", "next").out.count("you are woken")
    ):
        assert waiting.poll() is None
        time.sleep(0.01)
    assert hook(stage, "claude", "Stop").told is None
    second = stage.ok("claude", "next", "--wait", "20")
    assert second.action == "wait" and "you are woken" in second.out, (
        "a second wait would wake it twice"
    )
    stage.ok("codex", "next")
    stage.send("codex", "review")
    assert "action: reply to 002" in waiting.communicate(timeout=20)[0]
    assert changed(stage, "002-codex-review.ready", pair).code == 0, "woken already, and read"


@pytest.mark.slow
def test_a_pair_that_has_the_name_of_one_that_was_removed_wakes_anew(stage):
    slugs = set()
    for _ in range(2):
        pair = stage.shared / stage.ok("claude", "bootstrap", "--topic", "t").out.split()[0]
        slugs.add(pair.name)
        stage.ok("codex", "next")
        stage.send("codex", "plan")
        assert changed(stage, "001-codex-plan.ready", pair).code == 2
        assert changed(stage, "001-codex-plan.ready", pair).code == 0
        stage.ok("claude", "next")
        stage.ok("claude", "close", "--reason", "r")
        stage.ok("codex", "next")
        time.sleep(1.1)
        stage.ok("claude", "pairs", "prune", "--older-than", "0s")
    assert len(slugs) == 1


def test_what_waits_unread_is_named_after_the_clock_was_set_back(stage, pair):
    hook(stage, "claude", "SessionStart", source="startup")
    ahead = time.time() + 7200
    os.utime(stage.shared / "_relay/hook-state/fired-claude-SessionStart", (ahead, ahead))
    stage.send("codex", "plan")
    assert "001 plan" in context(hook(stage, "claude", "UserPromptSubmit", prompt="go on"))


def test_a_peers_ready_wakes_once_and_nothing_else_does(stage, pair):
    stage.send("codex", "plan")
    before = stage.snapshot(stage.shared)
    stage.send("claude", "note")
    for name, event in (
        ("001-codex-plan.md", "add"),
        ("001-codex-plan.json", "add"),
        ("002-claude-note.ready", "add"),
        ("001-codex-plan.ready", "unlink"),
        (".draft/001-codex-plan.ready", "add"),
        ("009-codex-plan.ready", "add"),
        ("../x/001-codex-plan.ready", "add"),
        ("", "add"),
    ):
        before = stage.snapshot(stage.shared)
        assert changed(stage, name, pair, event=event).code == 0, name
        assert stage.snapshot(stage.shared) == before, (
            f"{name}: what relay writes comes back as an event"
        )
    woken = changed(stage, "001-codex-plan.ready", pair)
    assert (
        (woken.code, woken.out) == (2, "")
        and woken.err
        == f"[relay-action] 001 plan by codex waits in {pair.name}. Run: {SCRIPT} next\n"
    )
    assert changed(stage, "001-codex-plan.ready", pair).code == 0
    assert hook(stage, "claude", "Stop").told is None, "one token for each artifact, whoever wakes"


def test_what_was_read_and_what_is_the_users_wakes_nobody(stage, pair):
    stage.send("codex", "plan")
    stage.ok("claude", "next")
    assert changed(stage, "001-codex-plan.ready", pair).code == 0
    stage.send("codex", "decision")
    assert changed(stage, "002-codex-decision.ready", pair).code == 0


@pytest.mark.slow
def test_a_wait_that_is_held_in_one_pair_wakes_for_no_other(stage, pair):
    """A session that opened another pair meanwhile is told to wait there, and woken there."""
    stage.send("claude", "plan")
    held = stage.spawn("claude", "next", "--wait", "60")
    until(lambda: "you are woken" in stage.ok("claude", "next").out)
    second = stage.ok("claude", "bootstrap", "--topic", "second", "--force").out.split()[0]
    stage.ok("codex", "pair", "join", second)
    stage.send("claude", "plan")
    assert stage.ok("claude", "next").next == "next --wait 1500"
    stage.send("codex", "note")
    event = changed(stage, "002-codex-note.ready", stage.shared / second)
    assert event.code == 2 and held.poll() is None
    stage.ok("claude", "close", "--reason", "done", "--pair-id", pair.name)
    held.communicate(timeout=30)


@pytest.mark.parametrize("words", ["next", "wait --timeout 5", "next --wait 5"])
def test_what_a_session_without_the_slot_reads_wakes_the_one_that_has_it_all_the_same(
    stage, pair, words
):
    """A wait that is still held by the session whose slot was taken over, too."""
    stage.ok("claude", "next")
    other = {"CLAUDE_CODE_SESSION_ID": "another-session"}
    stage.ok("claude", "pair", "join", pair.name, "--take-over", **other)
    stage.send("codex", "note")
    read = stage.ok("claude", *words.split(), "--pair-id", pair.name)
    assert "001" in read.out
    event = {"session_id": "another-session", "hook_event_name": "FileChanged", "event": "add"}
    event["file_path"] = str(pair / "001-codex-note.ready")
    assert hook(stage, "claude", "FileChanged", raw=json.dumps(event).encode()).code == 2
    assert "not seen" in stage.ok("codex", "next").out
    stage.ok("claude", "next", **other)
    assert "not seen" not in stage.ok("codex", "next").out


@pytest.mark.slow
def test_of_many_wakers_one_wins(stage, pair):
    stage.send("codex", "plan")
    event = json.dumps(
        {
            "session_id": IDS["claude"],
            "file_path": str(pair / "001-codex-plan.ready"),
            "event": "add",
        }
    )
    runs = [
        subprocess.Popen(
            [SCRIPT, "hook", "claude", "FileChanged"],
            cwd=stage.project,
            env=stage.env(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    codes = [run.communicate(event, timeout=30) and run.returncode for run in runs]
    assert sorted(codes) == [0, 0, 0, 0, 0, 2]


GUARDED = (
    "{pair}/001-claude-plan.md",
    "{pair}/001-claude-plan.json",
    "{pair}/001-claude-plan.md.sha256",
    "{pair}/001-claude-plan.ready",
    "{pair}/001-claude-plan.pack",
    "{pair}/002-codex-note.md",
    "{pair}/session.json",
    "{pair}/CLOSED",
    "{pair}/.seq/002",
    "{pair}/.seen/claude-x.jsonl",
    "{pair}/.sent/codex.jsonl",
    "{pair}/.evidence/codex-001.json",
    "_relay/bindings/claude-x.json",
    "_relay/hook-state/nudge-codex",
    "_relay/.sentinel",
    "_archive/{pair}/001-claude-plan.md",
)
FREE = (
    "{pair}/.draft/002-codex-note.md",
    "_relay/codex.md",
    "{pair}/notes.md",
    "../code.py",
    "../.shared-not/x/001-claude-plan.md",
    "x",
)


def test_editing_what_relay_keeps_is_denied_with_the_way_out(stage, pair):
    stage.send("claude", "plan")
    for inside in (*GUARDED, *FREE):
        path = f"{stage.shared}/{inside.format(pair=pair.name)}"
        patch = (
            f"*** Begin Patch\n*** Update File: {{}}{os.path.relpath(path, stage.project)}\n@@\n"
        )
        for agent, given in (
            ("claude", {"file_path": path}),
            ("claude", {"notebook_path": path}),
            ("codex", {"command": patch.format("")}),
            ("codex", {"command": patch.format("a.py\n*** Move to: ")}),
            # Codex trims these lines.
            ("codex", {"command": patch.format("a.py\n@@\n-a\n+b\n \t*** Update File: ")}),
        ):
            told = hook(
                stage, agent, "PreToolUse", cwd=stage.project, tool_name="any", tool_input=given
            ).told
            assert (told is None) == (inside in FREE), (inside, given)
            if told:
                answer = told["hookSpecificOutput"]
                assert (
                    answer["permissionDecision"] == "deny"
                    and f"{SCRIPT} " in answer["permissionDecisionReason"]
                )


@pytest.mark.parametrize("tool", ["Edit", "Write", "MultiEdit", "NotebookEdit", "apply_patch"])
def test_every_tool_that_edits_files_is_asked_about(tool):
    groups = json.loads((SCRIPT.parent.parent / "hooks" / "hooks.json").read_text())["hooks"][
        "PreToolUse"
    ]
    assert any(tool in group["matcher"].split("|") for group in groups)


def test_links_do_not_get_around_the_fence(stage, pair):
    stage.send("claude", "plan")
    (stage.project / "folder").symlink_to(pair)
    (stage.project / "file").symlink_to(pair / "001-claude-plan.md")
    for path in ("folder/001-claude-plan.md", "file"):
        assert hook(
            stage, "claude", "PreToolUse", tool_input={"file_path": str(stage.project / path)}
        ).told, path


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"session_id": 5}',
        b'{"session_id": ""}',
        b"[" * 5000,
    ],
)
def test_whatever_stands_on_standard_input_a_hook_ends_with_0(stage, pair, raw):
    stage.send("codex", "plan")
    for event in EVENTS:
        for agent in ("claude", "codex"):
            assert hook(stage, agent, event, raw=raw).code == 0, (event, agent)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("claude",),
        ("claude", "Nothing"),
        ("gemini", "Stop"),
        ("claude", "Stop", "more"),
        ("plugin", "Stop"),
    ],
)
def test_unknown_events_and_hosts_are_silent(stage, pair, words):
    done = stage.run(None, "hook", *words, stdin=b'{"session_id": "x"}')
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_ledger_that_cannot_be_read_or_written_is_silent(stage, pair):
    stage.send("codex", "plan")
    (pair / "session.json").write_text("{")
    (stage.shared / "_relay/hook-state").write_text("in the way")
    for event in EVENTS:
        assert (
            hook(
                stage,
                "claude",
                event,
                prompt="x",
                file_path=str(pair / "001-codex-plan.ready"),
                event="add",
            ).code
            == 0
        )
    (stage.shared / "_relay/bindings").rename(stage.shared / "_relay/gone")
    for event in EVENTS:
        assert hook(stage, "claude", event).code == 0


def test_a_bad_setting_or_a_folder_that_is_gone_blocks_nothing(stage, pair, tmp_path):
    stage.send("codex", "plan")
    for event in EVENTS:
        hook(stage, "claude", event, env={"RELAY_AUTO_ROUND_CAP": "many"})
        hook(stage, "claude", event, env={"RELAY_SHARED_ROOT": "relative"})
    gone = tmp_path / "gone"
    gone.mkdir()
    command = (
        f'cd "{gone}" && rmdir "{gone}" && RELAY_SHARED_ROOT=/x exec "{SCRIPT}" hook claude Stop'
    )
    done = subprocess.run(
        ("sh", "-c", command),
        env=stage.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (0, b"") and b"relay" not in done.stderr


def on_an_open_pipe(stage, text):
    """What a Stop hook of codex answers where its standard input is not closed behind this text."""
    child = subprocess.Popen(
        [SCRIPT, "hook", "codex", "Stop"],
        cwd=stage.project,
        env=stage.env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child.stdin.write(text)
    child.stdin.flush()
    assert child.wait(timeout=20) == 0
    child.stdin.close()
    return child.stdout.read()


def test_whole_json_on_a_pipe_that_stays_open_is_answered(stage, pair):
    stage.send("claude", "plan")
    assert (
        json.loads(on_an_open_pipe(stage, json.dumps({"session_id": IDS["codex"]})))["decision"]
        == "block"
    )


@pytest.mark.slow
def test_torn_json_on_a_pipe_that_stays_open_ends_with_the_deadline_in_silence(stage, pair):
    stage.send("claude", "plan")
    assert on_an_open_pipe(stage, '{"session_id":') == ""


def test_the_end_of_a_session_frees_the_slot_at_once_and_coming_back_takes_that_back(stage, pair):
    stage.send("claude", "plan")
    hook(stage, "codex", "SessionEnd", reason="other")
    waiting = stage.run("claude", "next", "--exit-code")
    assert waiting.code == 11 and "codex has left" in waiting.out
    assert stage.run("claude", "wait", "--timeout", "5").code == 11
    hook(stage, "codex", "SessionStart", source="resume")
    assert stage.run("claude", "next", "--exit-code").code == 10
    hook(stage, "codex", "SessionEnd", reason="clear")
    assert stage.run("claude", "next", "--exit-code").code == 10, (
        "after /clear it goes on under another id"
    )
    hook(stage, "codex", "SessionEnd", reason="other")
    assert "joined" in stage.ok("codex", "pair", "ensure", CODEX_THREAD_ID="next").out, (
        "its slot is free"
    )


@pytest.mark.parametrize("how", ["has left", "is silent"])
def test_a_session_that_comes_back_does_not_share_the_slot_that_another_one_has_now(
    stage, pair, how
):
    """Else neither could send: each would hold the slot against the other."""
    stage.send("claude", "plan")
    if how == "has left":
        hook(stage, "codex", "SessionEnd", reason="other")
    else:
        (binding,) = (stage.shared / "_relay/bindings").glob("codex-*")
        seen = json.loads(binding.read_text())["last_seen"]
        binding.write_text(binding.read_text().replace(seen, "2020-01-01T00:00:00+00:00"))
    other = {"CODEX_THREAD_ID": "another-thread"}
    assert stage.ok("codex", "next", **other).action == "reply"
    assert "codex:another-" in context(hook(stage, "codex", "SessionStart", source="resume"))
    hook(stage, "codex", "UserPromptSubmit", prompt="go on")
    assert stage.ok("codex", "next").action == "full"
    stage.refused("codex", "send", "--kind", "note", "--pair-id", pair.name, "--next", "go")
    stage.send("codex", "note", **other)


def test_a_session_in_a_nested_repository_keeps_the_hooks_of_its_review(stage, pair):
    """Also where that has a ledger of its own; Codex says who it is on standard input alone."""
    nested = stage.project / "nested"
    nested.mkdir()
    stage.git("init", "-q", cwd=nested)
    here = {"CLAUDE_PROJECT_DIR": str(stage.project)}
    stage.send("claude", "plan")
    stage.send("codex", "note")
    for third in (False, True):
        if third:
            stage.ok("gemini", "bootstrap", "--topic", "other", "--peer", "codex", cwd=nested)
        at = {"cwd": nested, "env": here}
        assert pair.name in context(hook(stage, "claude", "SessionStart", **at))
        edit = {"tool_name": "Edit", "tool_input": {"file_path": f"{pair}/002-codex-note.md"}}
        denied = hook(stage, "claude", "PreToolUse", **at, **edit).told
        assert denied["hookSpecificOutput"]["permissionDecision"] == "deny"
        assert pair.name in context(hook(stage, "codex", "SessionStart", cwd=nested)) or third
    assert changed(stage, "002-codex-note.ready", pair, cwd=nested, env=here).code == 2


def test_the_trail_is_bounded_and_the_stamps_say_what_fired(relay, stage, pair):
    for _ in range(3):
        hook(stage, "claude", "SessionStart", source="startup")
    trail = stage.shared / "_relay/hook-trail.log"
    assert trail.read_text().count("claude SessionStart claude:session- startup") == 3
    trail.write_text("old line\n" * 40_000)
    hook(stage, "claude", "SessionStart", source="startup")
    assert trail.stat().st_size < 64 * 1024 and "SessionStart" in trail.read_text()[-200:]
    assert (stage.shared / "_relay/hook-state/fired-claude-SessionStart").exists()


def test_outside_a_ledger_no_python_is_started(stage, tmp_path):
    """The launcher answers by itself; a ledger named by the environment, and a linked worktree, are looked at."""

    def traced(cwd, **env):
        done = subprocess.run(
            ("sh", "-x", SCRIPT, "hook", "claude", "Stop"),
            cwd=cwd,
            env=stage.env(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "")
        return "+ exec " in done.stderr

    bare = tmp_path / "bare"
    bare.mkdir()
    assert not traced(bare) and not traced(stage.project), "no ledger here"
    assert traced(bare, RELAY_SHARED_ROOT=str(tmp_path / "x"))
    stage.open_pair()
    (stage.project / "sub").mkdir()
    assert (
        traced(stage.project)
        and traced(stage.project / "sub")
        and traced(bare, CLAUDE_PROJECT_DIR=str(stage.project))
    )
    stage.git("worktree", "add", "-q", str(tmp_path / "linked"))
    assert traced(tmp_path / "linked")


def codex_on_path(
    stage, text='printf "%s\\n" "$@" >"$HOME/asked.tmp"; mv "$HOME/asked.tmp" "$HOME/asked"'
):
    """A `codex` that writes down what it was asked."""
    program = stage.folder / "bin/codex"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


UUID = "01a21406-f878-7192-9b67-6db031977ab3"


def nudged(stage, env, kind="plan", **codex):
    """Opens a pair with this Codex, publishes as claude, and says what the codex program was asked, if it was."""
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.ok("codex", "next", **codex)
    stage.ok(
        "claude", "send", "--kind", kind, "--file", stage.file("# T\n\n## Next\nLook.\n"), **env
    )
    asked = stage.home / "asked"
    for _ in range(40 if (stage.shared / "_relay/hook-trail.log").exists() else 5):
        if asked.exists():
            return asked.read_text().split("\n")
        time.sleep(0.05)
    return None


def test_a_publish_nudges_an_idle_codex_where_the_user_has_switched_that_on(stage):
    relay = stage.link_skill()["codex"]
    stage.ok(None, "hooks", "install", "--target", "codex", "--nudge")
    told = nudged(stage, codex_on_path(stage), CODEX_THREAD_ID=UUID)
    slug = next(stage.shared.glob("2*")).name
    assert (
        told[:4] == ["queue", "--thread", UUID, "--message"]
        and told[4] == f"relay: 001 waits in {slug}. Run: {relay} next"
    )
    stage.ok("codex", "next", CODEX_THREAD_ID=UUID)
    hook(stage, "codex", "SessionStart", env={"RELAY_AGENT_SESSION_ID": UUID})
    answer = stage.file("# R\n\n## Next\nGo on.\n", "r.md")
    assert (
        "you are woken"
        in stage.ok("codex", "send", "--kind", "review", "--file", answer, CODEX_THREAD_ID=UUID).out
    )
    stage.ok(None, "hooks", "uninstall", "--target", "codex")
    assert not list(stage.home.rglob("nudge-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "why",
    [
        "not switched on",
        "no codex",
        "sandboxed",
        "no uuid",
        "a decision",
        "has left",
        "waits in its turn",
    ],
)
def test_nobody_is_nudged_without_need_or_leave(stage, why):
    stage.link_skill()
    stage.ok(
        None,
        "hooks",
        "install",
        "--target",
        "codex",
        *([] if why == "not switched on" else ["--nudge"]),
    )
    env = codex_on_path(stage)
    env |= (
        {"PATH": "/usr/bin:/bin"}
        if why == "no codex"
        else {"CODEX_SANDBOX_NETWORK_DISABLED": "1"}
        if why == "sandboxed"
        else {}
    )
    thread = "thread" if why == "no uuid" else UUID
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.ok("codex", "next", CODEX_THREAD_ID=thread)
    waiting = None
    if why == "has left":
        hook(stage, "codex", "SessionEnd", reason="other", env={"RELAY_AGENT_SESSION_ID": UUID})
    if why == "waits in its turn":
        waiting = stage.spawn("codex", "next", "--wait", "20", CODEX_THREAD_ID=UUID)
        while not list((stage.shared / "_relay/hook-state").glob("waiting-*-codex-*")):
            time.sleep(0.01)
        time.sleep(0.1)
    stage.ok(
        "claude",
        "send",
        "--kind",
        "decision" if why == "a decision" else "plan",
        "--file",
        stage.file("# T\n\n## Next\nLook.\n"),
        **env,
    )
    if waiting:
        assert "action: reply" in waiting.communicate(timeout=20)[0]
    trail = stage.shared / "_relay/hook-trail.log"
    assert not trail.exists() or "nudge" not in trail.read_text()


@pytest.mark.parametrize("why", ["no codex", "queue fails"])
def test_a_nudge_that_could_not_reach_codex_lets_it_hold_waits_again(stage, why):
    stage.link_skill()
    stage.ok(None, "hooks", "install", "--target", "codex", "--nudge")
    missed = stage.shared / "_relay/hook-state/nudge-missed"
    env = {"PATH": "/usr/bin:/bin"} if why == "no codex" else codex_on_path(stage, "exit 1")
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.ok("codex", "next", CODEX_THREAD_ID=UUID)
    hook(stage, "codex", "SessionStart", env={"RELAY_AGENT_SESSION_ID": UUID})
    assert stage.ok("codex", "next", CODEX_THREAD_ID=UUID).next == "next"
    stage.ok(
        "claude", "send", "--kind", "plan", "--file", stage.file("# T\n\n## Next\nLook.\n"), **env
    )
    until(missed.exists)
    assert any(
        "did not reach Codex" in row["why"]
        for row in stage.run(None, "hooks", "doctor", "--json").json["findings"]
    )
    stage.ok("codex", "next", CODEX_THREAD_ID=UUID)
    answer = stage.file("# R\n\n## Next\nGo on.\n", "r.md")
    assert (
        "next --wait"
        in stage.ok("codex", "send", "--kind", "note", "--file", answer, CODEX_THREAD_ID=UUID).next
    )
    stage.ok("claude", "next")
    stage.ok(
        "claude",
        "send",
        "--kind",
        "note",
        "--file",
        stage.file("# T2\n\n## Next\nLook.\n", "t2.md"),
        **codex_on_path(stage),
    )
    until(lambda: not missed.exists())


@pytest.mark.slow
def test_a_codex_whose_turn_ended_is_nudged_though_a_wait_of_it_still_runs(stage):
    stage.link_skill()
    stage.ok(None, "hooks", "install", "--target", "codex", "--nudge")
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.ok("codex", "next", CODEX_THREAD_ID=UUID)
    waiting = stage.spawn("codex", "next", "--wait", "20", CODEX_THREAD_ID=UUID)
    while not list((stage.shared / "_relay/hook-state").glob("waiting-*-codex-*")):
        time.sleep(0.01)
    for _ in range(2):
        hook(stage, "codex", "Stop", env={"RELAY_AGENT_SESSION_ID": UUID})
    stage.ok(
        "claude",
        "send",
        "--kind",
        "plan",
        "--file",
        stage.file("# T\n\n## Next\nLook.\n"),
        **codex_on_path(stage),
    )
    waiting.communicate(timeout=20)
    assert "nudge codex" in (stage.shared / "_relay/hook-trail.log").read_text()


def test_the_end_of_a_wait_whose_turn_ended_takes_no_token(stage):
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.ok("codex", "next", CODEX_THREAD_ID=UUID)
    state = stage.shared / "_relay/hook-state"
    waiting = stage.spawn("codex", "next", "--wait", "20", CODEX_THREAD_ID=UUID)
    while not list(state.glob("waiting-*-codex-*")):
        time.sleep(0.01)
    for _ in range(2):
        hook(stage, "codex", "Stop", env={"RELAY_AGENT_SESSION_ID": UUID})
    assert list(state.glob("idle-codex-*"))
    stage.ok("claude", "send", "--kind", "plan", "--file", stage.file("# T\n\n## Next\nLook.\n"))
    assert "001" in waiting.communicate(timeout=20)[0]
    assert not list(state.glob("woken-codex-*-001")), sorted(state.iterdir())
