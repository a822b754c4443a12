"""Waiting, with real processes: what wakes it, what does not, and how it ends."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time

import pytest
from conftest import RELAY, SCRIPT
from helpers.tracing import needs_strace

ENDS_WITHIN_S = 20
NO_EVENTS = (
    "strace",
    "-f",
    "-o",
    "/dev/null",
    "-e",
    "trace=inotify_init1",
    "-e",
    "inject=inotify_init1:error=EMFILE",
)


def is_waiting(pid):
    """Whether a process has come to its wait: it watches for events and sleeps in select."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any("inotify" in link for link in links)


def until(condition, what):
    """Returns once the condition holds; fails by name where it never does."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def waiter(stage, author, *words, **more):
    """A waiting process, handed over only once it really waits."""
    child = stage.spawn(author, *words, **more)
    until(lambda: is_waiting(child.pid) or child.poll() is not None, "the wait begins")
    assert child.poll() is None, child.communicate()
    return child


def ended(child):
    out, err = child.communicate(timeout=ENDS_WITHIN_S)
    return child.returncode, out, err


def still_waits(child, seconds=0.3):
    """Whether nothing ends the wait for a while."""
    descriptor = os.pidfd_open(child.pid) if hasattr(os, "pidfd_open") else None
    try:
        return not select.select([descriptor], [], [], seconds)[0]
    finally:
        os.close(descriptor)


def stop(*children):
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


# ---- woken


@pytest.mark.parametrize(
    "words",
    [("next", "--wait", "60"), ("wait", "--timeout", "60"), ("wait", "--no-timeout"), ("wait",)],
    ids=" ".join,
)
def test_a_wait_ends_when_the_peer_publishes(stage, words):
    pair = stage.open_pair()
    child = waiter(stage, "codex", *words)
    stage.send("claude", "plan", "# The plan\n")
    code, out, err = ended(child)
    assert (code, err) == (0, "")
    assert (
        out.startswith("action: reply to 001 plan") and "# The plan" in out
        if words[0] == "next"
        else out == f"{pair}/001-claude-plan.md\n"
    )


@pytest.mark.slow
def test_a_wait_is_woken_by_the_event_and_not_by_the_clock(stage):
    stage.open_pair()
    child = waiter(stage, "codex", "next", "--wait", "60")
    began = time.monotonic()
    stage.send("claude", "plan")
    assert ended(child)[0] == 0
    assert time.monotonic() - began < 1.9


@pytest.mark.skipif(not shutil.which("strace"), reason="strace takes the events away")
@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("next", "--wait", "60"), ("wait", "--timeout", "60")], ids=" ".join
)
def test_without_file_events_the_clock_wakes(stage, words):
    stage.open_pair()
    child = stage.spawn("codex", *words, before=NO_EVENTS)
    assert still_waits(child, 1.0)
    stage.send("claude", "plan")
    code, out, _ = ended(child)
    assert code == 0 and "001" in out


@pytest.mark.parametrize(
    "words",
    [
        "wait --timeout 5 --no-timeout",
        "wait --no-timeout --timeout 0",
        "findings --open --all",
        "issue add --title t --body b --body-file f",
    ],
)
def test_flags_that_contradict_each_other_are_refused(stage, words):
    stage.open_pair()
    done = stage.refused("codex", *words.split())
    hint = done.err.splitlines()[-1].removeprefix("hint: ").split()
    assert stage.ok("codex", *hint[1:]).out.startswith("usage: "), "the hint is a command"


def test_what_is_there_already_ends_a_wait_at_once(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    assert stage.process("codex", "wait", "--no-timeout").code == 0
    assert stage.process("codex", "next", "--wait", "600").out.startswith("action: reply")


def test_several_waiters_of_both_sides_are_all_woken(stage):
    stage.open_pair()
    children = [
        waiter(stage, "codex", "next", "--wait", "60"),
        waiter(stage, "codex", "wait"),
        waiter(stage, "codex", "wait"),
    ]
    claudes = [waiter(stage, "claude", "wait")]
    stage.send("claude", "plan")
    assert [ended(child)[0] for child in children] == [0, 0, 0]
    assert still_waits(claudes[0], 0.1)
    stage.send("codex", "review", "# R\n", "go", "--reply-to", "1")
    assert ended(claudes[0])[0] == 0


# ---- not woken


@pytest.mark.slow
def test_own_writes_drafts_and_reading_wake_nobody(stage):
    stage.open_pair()
    children = [waiter(stage, "codex", "wait"), waiter(stage, "codex", "next", "--wait", "60")]
    stage.send("codex", "question")
    stage.ok("claude", "claim", "--kind", "note")
    stage.ok("claude", "status")
    stage.ok("claude", "next")
    for child in children:
        assert still_waits(child), ended(child)
    stage.send("claude", "plan")
    made = [ended(child) for child in children]
    assert [m[0] for m in made] == [0, 0], made


# ---- its end


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, code",
    [
        (("wait", "--timeout", "0"), 10),
        (("wait", "--timeout", "0.2"), 10),
        (("next", "--wait", "0"), 0),
        (("next", "--wait", "0.2"), 0),
        (("next", "--wait", "0", "--exit-code"), 10),
        (("wait", "--timeout", "0", "--poll", "0"), 10),
        (("wait", "--timeout", "0.2", "--poll", "0.05"), 10),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wait_ends_when_its_time_is_up(stage, words, code):
    stage.open_pair()
    began = time.monotonic()
    assert stage.run("codex", *words).code == code
    assert time.monotonic() - began >= (0.2 if "0.2" in words else 0)


@pytest.mark.parametrize("flag", ["next --wait", "wait --timeout", "wait --poll"])
@pytest.mark.parametrize("reach", ["reply", "wait", "bootstrap"])
def test_a_wait_that_is_no_number_is_refused_whatever_the_action(stage, reach, flag):
    if reach != "bootstrap":
        stage.open_pair()
    if reach == "reply":
        stage.send("claude", "plan")
    for value in ("abc", "-1", "inf", "nan", "1e300", "9" * 30, "1,5", "5s"):
        done = stage.run("codex", *f"{flag}={value}".split())
        assert done.code == 2 and flag.split()[1] in done.err, (value, done)
        assert "expected" in done.err and "could not convert" not in done.err, (value, done)
        assert "hint: " in done.err, (value, done)


@pytest.mark.slow
def test_the_time_to_wait_comes_from_the_environment_too(stage):
    stage.open_pair()
    assert stage.run("codex", "wait", RELAY_WAIT_TIMEOUT="0.1").code == 10
    env = {"RELAY_WAIT_TIMEOUT": "0.1", "RELAY_WAIT_POLL_INTERVAL": "never"}
    done = stage.run("codex", "wait", **env)
    assert done.code == 10 and "RELAY_WAIT_POLL_INTERVAL" in done.err


@pytest.mark.slow
def test_a_wait_that_looks_just_as_the_pair_is_closed_sees_that(stage):
    needs_strace()
    pair = stage.open_pair()
    # Each look for a CLOSED takes a second, so that the close comes between that and the listing.
    late = ("strace", "-f", "-o", "/dev/null", "-P", str(pair / "CLOSED"))
    late += ("-e", "trace=newfstatat,lstat")
    late += ("-e", "inject=newfstatat,lstat:delay_exit=1000000")
    child = stage.spawn("codex", "next", "--wait", "60", before=late)
    marks = stage.shared / "_relay/hook-state"
    until(lambda: [*marks.glob("waiting-*")], "the wait begins")
    time.sleep(3)  # Whatever it still looks at before it sleeps.
    (pair / "odd").touch()
    time.sleep(0.4)
    stage.ok("claude", "close", "--reason", "done", "--no-archive")
    code, out, _ = ended(child)
    assert code == 0 and out.startswith("action: over: closed")


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--no-archive",)], ids=["archived", "left in place"])
def test_close_ends_every_wait_with_12(stage, how):
    stage.open_pair()
    children = [
        waiter(stage, "codex", "wait"),
        waiter(stage, "codex", "next", "--wait", "60", "--exit-code"),
        waiter(stage, "claude", "wait"),
    ]
    stage.process("claude", "close", "--reason", "done", *how)
    results = [ended(child) for child in children]
    assert [code for code, _, _ in results] == [12, 12, 12], "\n".join(
        f"{code}: {out}{err}" for code, out, err in results
    )
    assert results[0][1] == "closed\n" and results[1][1].startswith("action: over")


@pytest.mark.slow
def test_the_move_to_the_archive_never_catches_a_waiter_in_between(stage):
    for count in range(25):
        slug = stage.ok("claude", "bootstrap", "--topic", f"t{count}").out.split()[0]
        stage.ok("codex", "pair", "join", slug)
        children = [
            waiter(stage, "codex", "wait"),
            waiter(stage, "codex", "next", "--wait", "60", "--exit-code"),
        ]
        stage.send("claude", "note", "# Last\n")
        assert [ended(child)[0] for child in children] == [0, 0]
        stage.send("codex", "note", "# R\n", "go", "--reply-to", "1")
        children = [
            waiter(stage, "codex", "wait"),
            waiter(stage, "codex", "next", "--wait", "60", "--exit-code"),
        ]
        stage.process("claude", "close", "--reason", "done")
        results = [ended(child) for child in children]
        assert [code for code, _, _ in results] == [12, 12], "\n".join(
            f"{count}: {code}: {out}{err}" for code, out, err in results
        )


@pytest.mark.slow
def test_last_words_and_a_close_at_once_reach_a_waiter(stage):
    for count in range(25):
        slug = stage.ok("claude", "bootstrap", "--topic", f"t{count}").out.split()[0]
        stage.ok("codex", "pair", "join", slug)
        child = waiter(stage, "codex", "next", "--wait", "60")
        file = stage.file("# Last words\n## Next\nnone\n", f"{count}.md")
        line = f"{SCRIPT} send --kind note --file {file} && {SCRIPT} close --reason done"
        subprocess.run(
            ["sh", "-c", line],
            cwd=stage.project,
            env=stage.env("claude"),
            check=True,
            capture_output=True,
        )
        code, out, err = ended(child)
        assert code == 0 and err == "", (count, out, err)
        assert "# Last words" in out, count


@pytest.mark.slow
def test_damage_ends_a_wait_with_13(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# R\n", "go", "--reply-to", "1")
    child = waiter(stage, "codex", "wait")
    (pair / "001-claude-plan.md.sha256").unlink()
    code, out, err = ended(child)
    assert (code, out) == (13, "") and "001-claude-plan" in err


@pytest.mark.parametrize("words", [("next", "--wait", "60"), ("wait",)], ids=" ".join)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_wait_with_130_and_no_words(stage, words, sent):
    stage.open_pair()
    child = waiter(stage, "codex", *words)
    child.send_signal(sent)
    code, out, err = ended(child)
    assert out == "" and "Traceback" not in err
    assert code == 130 if sent == signal.SIGINT else code in (130, 143, -signal.SIGTERM)
    assert stage.litter() == []


# ---- its parent


@pytest.fixture
def foster():
    """Makes this process the one that inherits orphans, so that an orphan's exit code can be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    set_child_subreaper = 36
    if not hasattr(libc, "prctl") or libc.prctl(set_child_subreaper, 1, 0, 0, 0):
        pytest.skip("no subreaper here")
    yield
    libc.prctl(set_child_subreaper, 0, 0, 0, 0)


def orphaned(stage, *words):
    """A wait whose starting shell is killed under it; its pid."""
    shell = subprocess.Popen(
        ["sh", "-c", f"{SCRIPT} {' '.join(words)} >/dev/null 2>&1 & echo $!; wait"],
        cwd=stage.project,
        env=stage.env("codex"),
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(shell.stdout.readline())
    until(lambda: is_waiting(pid), "the wait begins")
    shell.kill()
    shell.communicate()
    return pid


@pytest.mark.parametrize(
    "words",
    [("next", "--wait", "60"), pytest.param(("wait",), marks=pytest.mark.slow)],
    ids=" ".join,
)
@pytest.mark.slow
def test_a_wait_ends_with_130_when_its_starting_parent_is_gone(stage, foster, words):
    stage.open_pair()
    pid = orphaned(stage, *words)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130


@pytest.mark.parametrize(
    "words",
    [
        ("next", "--wait", "60", "--detach"),
        pytest.param(("wait", "--detach"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_detach_outlives_the_parent(stage, foster, words):
    stage.open_pair()
    pid = orphaned(stage, *words)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    stage.send("claude", "plan")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


# ---- the peer


@pytest.mark.parametrize("whose_turn, code", [("claude", 11), ("codex", 10)])
def test_silence_of_a_peer_ends_with_11_only_while_it_holds_the_turn(stage, whose_turn, code):
    pair = stage.open_pair()
    for path in (stage.shared / "_relay" / "bindings").glob("claude-*.json"):
        path.write_text(re.sub('"last_seen": "[0-9]{4}', '"last_seen": "2020', path.read_text()))
    if whose_turn == "claude":
        old_artifact(pair, 1, "codex", "claude")
    assert stage.run("codex", "wait", "--timeout", "0").code == code


def test_a_peer_that_was_just_handed_the_turn_is_not_silent(stage):
    stage.open_pair()
    for path in (stage.shared / "_relay" / "bindings").glob("claude-*.json"):
        path.write_text(re.sub('"last_seen": "[0-9]{4}', '"last_seen": "2020', path.read_text()))
    stage.send("codex", "question")
    assert stage.run("codex", "wait", "--timeout", "0").code == 10


@pytest.mark.slow
@pytest.mark.parametrize("jump_s", [3 * 3600, -3 * 3600])
def test_a_wait_outlasts_a_machine_that_sleeps_and_a_clock_that_is_set(stage, monkeypatch, jump_s):
    stage.open_pair()
    stage.send("codex", "question")
    now, set_at = time.time, time.monotonic() + 0.5
    clock = lambda: now() + jump_s * (time.monotonic() > set_at)  # noqa: E731
    monkeypatch.setattr(time, "time", clock)
    done = stage.run("codex", "wait", "--timeout", "1", "--poll", "0.1")
    assert time.monotonic() > set_at and done.code == 10, done
    assert stage.run("codex", "wait", "--timeout", "0").code == 11, "as one that begins then"


def old_artifact(pair, seq, author, peer):
    """An artifact of 1.x from years ago."""
    text = (
        f"---\nseq: {seq}\nauthor: {author}\npeer: {peer}\nkind: note\nstatus: ready\ncreated: 2020-01-02T03:04:05+00:00\n"
        "in_reply_to: null\nprompt_for_next: go on\nsync_needed: false\ntouched_paths: []\ncorrects: null\n---\n# Old\n"
    )
    path = pair / f"{seq:03}-{author}-note.md"
    path.write_text(text)
    path.with_name(path.name + ".sha256").write_text(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n"
    )
    path.with_suffix(".ready").touch()


@pytest.mark.slow
def test_a_gone_peer_is_told_with_something_better_to_do_than_to_wait_again(stage):
    stage.open_pair()
    host = subprocess.Popen(["sleep", "60"])
    try:
        _bind_to_process(stage, "claude", host.pid)
        stage.send("codex", "question")
        child = waiter(stage, "codex", "wait")
        later = waiter(stage, "codex", "next", "--wait", "60", "--exit-code")
    finally:
        host.kill()
        host.wait()
    assert ended(child)[0] == 11
    code, out, _ = ended(later)
    assert code == 11 and out.startswith("action: wait") and "ended" in out
    assert "--wait" not in out.rstrip().split("\n")[-1], (
        "waiting for the dead would return at once, for ever"
    )


def _bind_to_process(stage, author, pid):
    """Lets a binding name this process as its host, as it does under a real agent."""
    process = RELAY.process(pid)
    path = next((stage.shared / "_relay" / "bindings").glob(f"{author}-*.json"))
    host = process._asdict()
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": host}))
