"""A peer that dies at any point of its turn is named: at once where its process can be seen, else by its silence; and
no waiter outlives who started it. With real processes and kill -9."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest
from conftest import SCRIPT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to see processes"),
]
WITHIN_S = 2.0
SLACK_S = 1.5  # A loaded machine's, for starting and ending processes.


class Host:
    """A program that relay sees as `claude` or `codex`: a shell under that name, told line by line what to run."""

    def __init__(self, stage, author):
        program = stage.folder / "hosts" / author
        program.parent.mkdir(exist_ok=True)
        if not program.exists():
            shutil.copy(os.path.realpath("/bin/sh"), program)
        self.stage, self.count = stage, 0
        self.child = subprocess.Popen(
            [str(program)],
            cwd=stage.project,
            env=stage.env(author),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def starts(self, *words):
        """Types a line, and goes on."""
        self.child.stdin.write(" ".join(map(str, words)) + "\n")
        self.child.stdin.flush()

    def runs(self, *words):
        """Types a relay command, and waits for its end."""
        self.count += 1
        mark = self.stage.folder / f"done-{self.count}-{id(self)}"
        self.starts(SCRIPT, *words, ";", "echo $? >", mark)
        until(lambda: mark.exists() and mark.read_text().strip(), words)
        assert mark.read_text().strip() == "0", words

    def dies(self):
        self.child.kill()
        self.child.communicate()


@pytest.fixture
def host(stage):
    with contextlib.ExitStack() as ends:

        def started(author):
            made = Host(stage, author)
            ends.callback(made.dies)
            return made

        yield started


def until(condition, what):
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)
    return found


def watches(pid):
    try:
        return any(
            "inotify" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
        )
    except OSError:
        return False


def waiter(stage, author="codex"):
    child = stage.spawn(author, "wait", "--timeout", "60")
    until(lambda: watches(child.pid), "the wait begins")
    return child


def turn_of(stage, host):
    """A pair in which it is claude's move, and claude's host."""
    claude = host("claude")
    claude.runs("bootstrap", "--topic", "demo")
    stage.ok("codex", "next")
    stage.send("codex", "question")
    return claude


def is_named(stage, claude):
    """Kills the host; the peer's wait and its `next` say so in time."""
    child = waiter(stage)
    began = time.monotonic()
    claude.dies()
    out, err = child.communicate(timeout=20)
    took = time.monotonic() - began
    assert child.returncode == 11 and "claude's process has ended" in err, (
        child.returncode,
        out,
        err,
    )
    assert took < WITHIN_S + SLACK_S
    done = stage.run("codex", "next", "--exit-code")
    assert done.code == 11 and "ended" in done.out, done
    child = stage.spawn("codex", "next", "--wait", "60", "--exit-code")
    assert child.wait(timeout=20) == 11, "who comes later is told at once"
    child.communicate()


def test_a_peer_that_dies_after_it_was_handed_the_text(stage, host):
    claude = turn_of(stage, host)
    claude.runs("next")
    is_named(stage, claude)


def test_a_peer_that_dies_before_it_looked(stage, host):
    is_named(stage, turn_of(stage, host))


def test_a_peer_that_dies_with_a_draft(stage, host):
    claude = turn_of(stage, host)
    claude.runs("next")
    claude.runs("claim", "--kind", "note")
    is_named(stage, claude)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace stops a send where it is told to")
@pytest.mark.parametrize(
    "call", ["linkat,link:1", "linkat,link:2", "fsync:1", "fsync:3", "fsync:5"]
)
def test_a_peer_that_dies_in_the_middle_of_its_send(stage, host, call):
    claude = turn_of(stage, host)
    claude.runs("next")
    calls, when = call.split(":")
    body = stage.file("# An answer\n\n## Next\n\nlook\n", "answer.md")
    pid = stage.folder / "pid"
    traced = f"strace -f -o /dev/null -e trace={calls} -e inject={calls}:signal=STOP:when={when}"
    claude.starts(
        f"sh -c 'echo $$ >{pid}.new; mv {pid}.new {pid}; exec {traced} {SCRIPT} send --kind note --reply-to 1 --file {body}' &"
    )
    sender = until(
        lambda: pid.exists() and stopped_below(int(pid.read_text())), f"the send stands at {call}"
    )
    assert sender > 1, "0 would be our own process group"
    child = waiter(stage)
    began = time.monotonic()
    os.kill(int(pid.read_text()), signal.SIGKILL)
    os.kill(sender, signal.SIGKILL)
    claude.dies()
    out, err = child.communicate(timeout=20)
    # Its last words may have come out before: then they are delivered, and its end is told with the next look.
    assert child.returncode == 11 or (child.returncode == 0 and "002-claude-note.md" in out), (
        out,
        err,
    )
    assert time.monotonic() - began < WITHIN_S + SLACK_S
    again = host("claude")
    again.runs("next")
    again.runs("send", "--kind", "note", "--reply-to", "1", "--file", body)
    assert [
        path.name for path in stage.shared.rglob("*-claude-note.md") if path.parent.name != ".draft"
    ] == ["002-claude-note.md"]
    assert stage.litter() == []


def stopped_below(pid):
    """The stopped process that a tracer holds."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, StopIteration):
                told = open(f"/proc/{name}/status").read()
                if (
                    f"TracerPid:\t{pid}\n" in told
                    and re.search(r"State:\s+[tT]", told)
                    and stood(name)
                ):
                    return int(name)
    return 0


def stood(name):
    """Whether it stays so: a tracer stops what it traces at each call, for a moment."""
    first = open(f"/proc/{name}/syscall").read()
    time.sleep(0.2)
    return open(f"/proc/{name}/syscall").read() == first


def test_a_peer_that_dies_while_it_waits_is_named_once_the_turn_is_its_own(stage, host):
    claude = turn_of(stage, host)
    claude.runs("next")
    claude.runs(
        "send",
        "--kind",
        "note",
        "--reply-to",
        "1",
        "--file",
        stage.file("# A\n\n## Next\n\nlook\n"),
    )
    claude.starts(SCRIPT, "wait", "--timeout", "60")
    stage.ok("codex", "next")
    claude.dies()
    stage.send("codex", "note")
    done = stage.run("codex", "wait", "--timeout", "30")
    assert done.code == 11 and "claude's process has ended" in done.err


def test_where_its_process_cannot_be_seen_its_silence_tells(stage, monkeypatch):
    stage.open_pair()
    stage.send("codex", "question")
    real = time.time
    for after, code in ((3500, 10), (3700, 11)):
        monkeypatch.setattr(time, "time", lambda after=after: real() + after)
        assert stage.run("codex", "wait", "--timeout", "0").code == code
    assert stage.run("codex", "next", "--exit-code").code == 11


# ---- a waiter ends when its starting parent does


@pytest.fixture
def foster():
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl") or libc.prctl(36, 1, 0, 0, 0):
        pytest.skip("no subreaper here")
    yield
    libc.prctl(36, 0, 0, 0, 0)


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


STARTED_BY = {
    "a shell": "{relay} & echo $!; wait",
    "a shell, with nohup": "nohup {relay} & echo $!; wait",
    "a shell in a shell": "sh -c '{relay} & echo $!; wait; :'; :",
}


@pytest.mark.parametrize("how", STARTED_BY.values(), ids=STARTED_BY)
@pytest.mark.parametrize("detached", [False, True], ids=["", "detached"])
def test_a_wait_ends_with_who_started_it_unless_it_is_detached(stage, foster, how, detached):
    stage.open_pair()
    line = how.format(
        relay=f"{SCRIPT} wait --timeout 60 {'--detach' if detached else ''} >/dev/null 2>&1"
    )
    starter = subprocess.Popen(
        ["sh", "-c", line],
        cwd=stage.project,
        env=stage.env("codex"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    pid = int(starter.stdout.readline())
    until(lambda: watches(pid), "the wait begins")
    parent = parent_of(pid)
    began = time.monotonic()
    os.kill(parent, signal.SIGKILL)
    if parent != starter.pid:
        starter.kill()
    starter.communicate()
    until(
        lambda: parent_of(pid) == os.getpid(),
        "it is ours: its shell closed its files before it was gone",
    )
    if detached:
        time.sleep(WITHIN_S + 0.5)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it goes on"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert time.monotonic() - began < WITHIN_S + SLACK_S
