"""Nothing hangs: wherever relay could wait for ever it has a deadline, and one sentence says that it passed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import RELAY, SCRIPT, Done


def program(stage, name, script):
    """A program on PATH; the PATH with it in front."""
    folder = stage.folder / "programs"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def ended_within(child, seconds, given=None):
    """How a process ended; it fails by name where it goes on."""
    began = time.monotonic()
    try:
        out, err = child.communicate(given, timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        raise AssertionError(f"still there after {seconds} s: {child.args}") from None
    return Done(child.returncode, out, err), time.monotonic() - began


def quick(stage, **limits):
    """The program with shorter limits."""
    text = SCRIPT.read_text()
    for name, limit in limits.items():
        text, count = re.subn(rf"(?m)^{name} = [\d.]+$", f"{name} = {limit}", text)
        assert count == 1, name
    path = stage.folder / "relay"
    path.write_text(text)
    path.chmod(0o755)
    return path


def piped(stage, author, *words, script=SCRIPT, **more):
    """A command whose standard input stays open with nobody writing to it."""
    return subprocess.Popen(
        [str(script), *map(str, words)],
        cwd=stage.project,
        env=stage.env(author, **more),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# ---- standard input


@pytest.mark.slow
@pytest.mark.parametrize("event", ["Stop", "SessionStart"])
def test_a_hook_whose_input_never_ends_is_silent_in_time(stage, event):
    stage.open_pair()
    child = piped(stage, "claude", "hook", "claude", event)
    began = time.monotonic()
    assert (child.wait(timeout=10), child.stdout.read(), child.stderr.read()) == (0, "", "")
    assert time.monotonic() - began < 4.5
    child.stdin.close()


# ---- a file that would never end


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        "session.json",
        "001-claude-plan.md",
        "001-claude-plan.md.sha256",
        "001-claude-plan.json",
        ".seen",
        "CLOSED",
    ],
)
def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(stage, what):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    path = (
        next(
            (pair / what).glob("*"),
            pair / ".seen" / f"{RELAY.Identity('codex', '', 'thread-of-codex', '').key}.jsonl",
        )
        if what == ".seen"
        else pair / what
    )
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    child = stage.spawn("codex", "next")
    done, _ = ended_within(child, 20)
    assert "Traceback" not in done.err, done


# ---- programs


SLEEPS = {
    "git itself": "#!/bin/sh\nexec sleep 600\n",
    "a child of git that keeps its streams": "#!/bin/sh\nsleep 600\n",
    "git that ignores being asked to end": "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SLEEPS.values(), ids=SLEEPS)
def test_git_that_hangs_is_stopped_and_the_send_goes_on_without_a_tree(stage, monkeypatch, script):
    stage.open_pair()
    monkeypatch.setattr(RELAY, "GIT_TIMEOUT_S", 0.5)
    path = program(stage, "git", script)
    began = time.monotonic()
    done = stage.run(
        "claude",
        "send",
        "--kind",
        "plan",
        "--file",
        stage.file("# P\n"),
        "--next",
        "look",
        PATH=path,
    )
    assert time.monotonic() - began < 15
    assert done.code == 0, done
    sidecar = json.loads(next(stage.shared.rglob("001-claude-plan.json")).read_text())
    assert "git took longer than" in json.dumps(sidecar), sidecar
    assert not subprocess.run(
        ["pgrep", "-f", f"{stage.folder}/programs/git"], capture_output=True
    ).stdout, "none is left"


# ---- locks, standard output


@pytest.mark.slow
def test_a_stopped_holder_of_the_lock_is_waited_for_and_then_named(stage):
    pair, script = stage.open_pair(), quick(stage, LOCK_WAIT_S=1.0)
    hold = (
        "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], 66), 2); print(flush=True)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; time.sleep(600)", pair / ".lock"], stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    words = ("send", "--kind", "plan", "--file", stage.file("# P\n"), "--next", "look")
    try:
        done, took = ended_within(piped(stage, "claude", *words, script=script), 30)
        assert done.code == 2 and "hint: " in done.err and took > 1, done
        assert not list(pair.glob("001-*")), "nobody writes beside the holder of the lock"
    finally:
        holder.kill()
        holder.communicate()
    stage.ok("claude", *words)
    assert len(list(pair.glob("*.ready"))) == 1 and stage.litter() == []


def test_a_pager_that_went_away_ends_the_output_in_order(stage):
    stage.open_pair()
    stage.send("claude", "plan", "# Long\n" + "line\n" * 20_000)
    child = stage.spawn("codex", "show", "1")
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=20) == 0 and child.stderr.read() == ""


def test_git_s_lock_on_its_index_is_not_waited_for(stage):
    stage.open_pair()
    (stage.project / ".git" / "index.lock").touch()
    done = stage.send("claude", "plan")
    assert done.code == 0
