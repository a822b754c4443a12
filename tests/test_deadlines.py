"""Nothing hangs: each place where relay could stand for ever has a deadline, and an end that is told in a sentence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import RELAY, SCRIPT, Done

SFTP = "/usr/lib/openssh/sftp-server"


@pytest.fixture
def dead_mount(stage):
    """Mounts a folder by sshfs and lets its server stand still; gives the two of them back afterwards."""
    if not (shutil.which("sshfs") and os.path.exists(SFTP) and os.access("/dev/fuse", os.W_OK)):
        pytest.skip("needs sshfs, an sftp-server and /dev/fuse")
    with contextlib.ExitStack() as ends:

        def mount(folder):
            behind, server, pid = (
                stage.folder / "behind",
                stage.folder / "server",
                stage.folder / "server.pid",
            )
            behind.mkdir()
            folder.mkdir(exist_ok=True)
            server.write_text(f"#!/bin/sh\necho $$ >{pid}\nexec {SFTP}\n")
            server.chmod(0o755)
            command = [
                "sshfs",
                "-o",
                f"ssh_command={server},dir_cache=no",
                f"x:{behind}",
                str(folder),
            ]
            if subprocess.run(command, capture_output=True, timeout=20).returncode:
                pytest.skip("sshfs may not mount here")
            number = int(pid.read_text())
            ends.callback(lambda: subprocess.run(["fusermount", "-uz", str(folder)], timeout=20))
            ends.callback(lambda: os.kill(number, signal.SIGCONT))
            return lambda: os.kill(number, signal.SIGSTOP)

        yield mount


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


# ---- a disk that does not answer


@pytest.mark.slow
@pytest.mark.parametrize(
    "event", ["Stop", "SessionStart", "PreToolUse", "FileChanged", "SessionEnd"]
)
def test_a_hook_at_a_dead_mount_is_silent_in_time(stage, dead_mount, event):
    stop = dead_mount(stage.shared)
    stage.open_pair()
    stop()
    child = piped(stage, "claude", "hook", "claude", event)
    done, took = ended_within(
        child,
        10,
        json.dumps(
            {
                "session_id": "session-of-claude",
                "tool_input": {"file_path": str(stage.shared / "x")},
            }
        ),
    )
    assert (done.code, done.out, done.err) == (0, "", "")
    assert 2 < took < 4.5, "the mount is dead, and the time a host gives is kept"


@pytest.mark.slow
def test_a_command_at_a_dead_mount_says_which_path_does_not_answer(stage, dead_mount):
    stop = dead_mount(stage.shared)
    stage.open_pair()
    stop()
    script = quick(stage, STALLED_AFTER_S=2.0, _LOOK_S=0.5)
    with open(stage.folder / "err", "w") as err:
        child = subprocess.Popen(
            [script, "status"],
            cwd=stage.project,
            env=stage.env("claude"),
            stdout=subprocess.DEVNULL,
            stderr=err,
        )
    deadline = time.monotonic() + 15
    while "hint: " not in (stage.folder / "err").read_text():
        assert time.monotonic() < deadline, "never told"
        time.sleep(0.05)
    told = (stage.folder / "err").read_text()
    assert told.startswith(f"relay: {stage.shared}") and "has not answered for 2 s" in told
    child.kill()


@pytest.mark.slow
def test_a_run_that_is_busy_or_waits_is_no_dead_disk(stage):
    stage.open_pair()
    script = quick(stage, STALLED_AFTER_S=0.2, _LOOK_S=0.05)
    done, _ = ended_within(piped(stage, "codex", "wait", "--timeout", "1", script=script), 20)
    assert done.code == 10, done


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
            pair / ".seen" / f"{RELAY.binding_key('codex', 'thread-of-codex')}.jsonl",
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
    monkeypatch.setattr(RELAY, "ENDS_WITHIN_S", 0.3)
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
def test_a_stopped_holder_of_the_lock_is_passed_by(stage):
    pair = stage.open_pair()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, time\nh = os.open(sys.argv[1], 0)\nfcntl.flock(h, 2)\nprint(flush=True)\ntime.sleep(600)",
            pair,
        ],
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    try:
        child = stage.spawn(
            "claude", "send", "--kind", "plan", "--file", stage.file("# P\n"), "--next", "look"
        )
        done, _ = ended_within(child, 30)
        assert done.code == 0 and stage.litter() == [], done
    finally:
        holder.kill()
        holder.communicate()


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
