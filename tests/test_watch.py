"""`relay watch` follows what others publish, in a terminal and in a pipe, and writes nothing;
`relay demo` plays a whole review."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import unicodedata

import pytest
from conftest import SCRIPT

HOSTILE = "\u202eevil\u2066 \u6f22\u5b57\u6f22\u5b57 e\u0301 " + "long " * 40


def watched(stage, *words):
    return stage.run(None, "watch", *words)


def test_without_a_terminal_it_prints_once_says_so_and_writes_nothing(stage):
    pair = stage.open_pair()
    stage.send("claude", "review", "# R\n\n```findings\nblocker a.py:2 Boom\n```\n")
    before = stage.snapshot(stage.shared)
    done = watched(stage)
    assert done.code == 0 and "watch needs a terminal" in done.err and done.err.count("\n") == 1
    assert pair.name in done.out and "codex's move" in done.out and "1 blocker" in done.out
    assert "\x1b" not in done.out
    assert stage.snapshot(stage.shared) == before


def test_every_state_of_a_pair_is_named(stage):
    pair = stage.open_pair()
    assert "claude's move: send the first" in watched(stage).out
    stage.send("claude", "plan")
    assert "codex's move" in watched(stage).out
    stage.send("codex", "decision", "# Which?\n", "@user: which one?")
    assert "YOUR MOVE" in watched(stage).out
    body = next(pair.glob("001*.md"))
    kept = body.read_bytes()
    body.chmod(0o600)
    body.write_bytes(kept + b"x")
    assert "do not match" in watched(stage).out
    body.write_bytes(kept)
    stage.ok("claude", "close", "--reason", "r", "--outcome", "done", "--no-archive")
    assert "ended" in watched(stage).out
    stage.ok("claude", "pairs", "archive", pair.name)
    assert pair.name not in watched(stage).out and "no active pair" in watched(stage).out
    assert pair.name in watched(stage, "--all").out


def test_what_needs_the_person_comes_first_and_a_broken_pair_does_not_stop_the_view(stage):
    for topic in ("started", "asked"):
        stage.ok("claude", "bootstrap", "--force", "--topic", topic)
    stage.send("claude", "decision", "# Which?\n", "@user: which one?")
    bad = shutil.copytree(next(stage.shared.glob("*-started")), stage.shared / "20260101-bad")
    (bad / "session.json").write_text("{")
    shown = re.findall(r"(?m)^\S+-(started|asked|bad)\b", watched(stage).out)
    assert {*shown[:2]} == {"asked", "bad"} and shown[2] == "started"


# ---- in a real terminal


class Tmux:
    """One terminal of a fixed size, with a server of its own."""

    def __init__(self, stage, columns=80, lines=24, **more):
        self.name = f"relay-{os.getpid()}-{time.monotonic_ns()}"
        env = {**stage.env(**more), "TERM": "screen-256color", "PS1": "$ "}
        size = "-x", str(columns), "-y", str(lines), "-c", str(stage.project)
        shell = "env", "-i", *(f"{key}={value}" for key, value in env.items()), "bash", "--norc"
        self.do("-f", "/dev/null", "new-session", "-d", *size, *shell, "--noprofile", env=env)

    def do(self, *words, env=None):
        env = {**os.environ, **(env or {})}
        command = "tmux", "-L", self.name, *words
        return subprocess.run(command, check=False, capture_output=True, text=True, env=env).stdout

    def screen(self, *flags):
        return self.do("capture-pane", "-p", *flags)

    def until(self, wanted, seconds=20):
        """The screen as soon as it shows this."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = self.screen()
            if wanted(screen) if callable(wanted) else wanted in screen:
                return screen
            time.sleep(0.05)
        raise AssertionError(f"{wanted!r} did not come:\n{self.screen()}")

    def watch(self, before="", until="pair"):
        self.do("send-keys", f"clear; {before} '{SCRIPT}' watch", "Enter")
        return self.until(until)

    def watcher(self):
        """The process id of what runs in the terminal."""
        shell = self.do("display-message", "-p", "#{pane_pid}").strip()
        return int(subprocess.check_output(("pgrep", "-P", shell), text=True).split()[0])

    def is_usable(self):
        """Whether the shell is back, echoes what is typed, and the cursor is shown."""
        self.do("send-keys", "echo back; stty -a | grep -o ' .*icanon\\| .*echo '", "Enter")
        screen = self.until(lambda text: "\nback\n" in text)
        flags = self.do("display-message", "-p", "#{cursor_flag} #{alternate_on} #{wrap_flag}")
        return flags.split() == ["1", "0", "1"] and not re.search("-icanon|-echo ", screen)


@pytest.fixture
def tmux(stage):
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    terminals = []

    def start(**size):
        terminals.append(Tmux(stage, **size))
        return terminals[-1]

    yield start
    for each in terminals:
        each.do("kill-server")


def width(line):
    seen = [c for c in line if not unicodedata.combining(c)]
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in seen)


@pytest.mark.slow
def test_it_follows_what_another_process_publishes_and_writes_nothing(stage, tmux):
    pair = stage.open_pair()
    terminal = tmux()
    terminal.watch(until="send the first")
    review = stage.file("# R\n\n```findings\nblocker pay.py:2 A refund of 0\n```\n", "review.md")
    words = "send", "--kind", "review", "--file", review, "--next", "go"
    (stage.project / "pay.py").write_text("one\ntwo\n")
    assert stage.process("claude", *words).code == 0
    screen = terminal.until("1 blocker open")
    assert "codex's move" in screen and pair.name in screen
    assert screen.count(pair.name) == 1 and "send the first" not in screen
    before = stage.snapshot(stage.shared)
    terminal.do("resize-window", "-x", "40", "-y", "10")
    terminal.until(lambda text: "codex's move" in text and len(text.split("\n")) == 11)
    time.sleep(2.5)
    assert all(width(line) <= 40 for line in terminal.screen().split("\n"))
    assert stage.snapshot(stage.shared) == before
    stage.ok("claude", "close", "--reason", "r")
    terminal.until("no active pair")
    stage.ok("claude", "bootstrap", "--topic", "second")
    terminal.until("-second")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 4)])
def test_a_frame_is_no_larger_than_the_terminal_whatever_is_in_it(stage, tmux, size):
    pair = stage.open_pair()
    session = json.loads((pair / "session.json").read_text())
    session["title"] = HOSTILE
    (pair / "session.json").write_text(json.dumps(session))
    stage.send("claude", "decision", f"# {HOSTILE}\n", f"@user: {HOSTILE}")
    terminal = tmux(columns=size[0], lines=size[1])
    terminal.watch(until=lambda text: text.startswith("project: 1"))
    lines = terminal.screen().rstrip("\n").split("\n")
    assert len(lines) <= size[1]
    assert [line for line in lines if width(line) > size[0]] == []
    assert not re.search("[\u202e\u2066\x1b]", "".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (40, 60)])
def test_a_command_wider_than_the_terminal_is_copied_whole(stage, tmux, size):
    pairs = [stage.open_pair("first").name]
    pairs += stage.ok("claude", "bootstrap", "--topic", "second", "--force").out.split()[:1]
    terminal = tmux(columns=size[0], lines=size[1])
    terminal.watch(until=lambda text: text.startswith("project: 2"))
    lines = terminal.screen("-J").split("\n")
    typed = [line.rpartition("relay ")[2].strip() for line in lines if "'s terminal: " in line]
    assert {*typed} == {f"next --pair-id {name}" for name in pairs}, lines


@pytest.mark.slow
@pytest.mark.parametrize("end", ["C-c", signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_the_terminal_is_usable_however_it_ends(stage, tmux, end):
    stage.open_pair()
    terminal = tmux()
    terminal.watch(until="send the first")
    if end == "C-c":
        terminal.do("send-keys", end)
    else:
        os.kill(terminal.watcher(), end)
    assert terminal.is_usable()


@pytest.mark.slow
def test_it_can_be_stopped_and_continued(stage, tmux):
    stage.open_pair()
    terminal = tmux()
    terminal.watch(until="send the first")
    terminal.do("send-keys", "C-z")
    terminal.until("Stopped")
    assert terminal.is_usable()
    stage.send("claude", "plan")
    terminal.do("send-keys", "fg", "Enter")
    terminal.until("codex's move")


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["NO_COLOR=1", "TERM=dumb", "LANG=C.UTF-8"])
def test_colour_is_used_only_where_it_may_be(stage, tmux, variable):
    stage.open_pair()
    stage.send("claude", "plan")
    terminal = tmux()
    screen = terminal.watch(variable, until="codex's move")
    assert ("\x1b[3" in terminal.screen("-e")) == ("LANG" in variable)
    assert ("needs a terminal" in screen) == ("TERM" in variable)


def copies(stage, count):
    """Many pairs, made from one."""
    pair = stage.open_pair()
    stage.send("claude", "plan")
    for n in range(count - 1):
        copy = shutil.copytree(pair, stage.shared / f"20260101-pair-{n:04}")
        session = json.loads((copy / "session.json").read_text())
        (copy / "session.json").write_text(json.dumps({**session, "session_id": copy.name}))
    return pair


@pytest.mark.slow
def test_twenty_pairs_at_rest_cost_little(stage, tmux):
    copies(stage, 20)
    terminal = tmux()
    terminal.watch(until="20 pairs")
    time.sleep(1.5)
    stat = pathlib.Path(f"/proc/{terminal.watcher()}/stat")

    def cpu_s():
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = cpu_s()
    time.sleep(4)
    assert cpu_s() - before <= 0.4, "4 s at rest"


@pytest.mark.slow
def test_a_thousand_pairs_are_shown_as_far_as_they_fit(stage, tmux):
    copies(stage, 1000)
    terminal = tmux()
    terminal.do("send-keys", f"clear; '{SCRIPT}' watch", "Enter")
    screen = terminal.until("1000 pairs", 60)
    assert "and more: relay pairs list" in screen
    assert watched(stage).out.count("codex's move") == 1000


# ---- the demo


@pytest.mark.slow
def test_the_demo_plays_a_whole_review_and_leaves_nothing(stage):
    before = {*stage.folder.iterdir()}
    done = stage.process(None, "demo", cwd=stage.folder, TMPDIR=str(stage.folder), timeout=120)
    assert done.code == 0 and not done.err, done
    assert {*stage.folder.iterdir()} == before
    assert "nothing was published" in done.out and "5 artifacts, 2 findings: all well" in done.out
    assert done.out.count("who waited, had it ") == 5
    assert re.search(r"(?m)^  +Approved in .*; closed ", done.out)


@pytest.mark.parametrize(
    "mine", ["[core\n", "[core]\n  excludesFile = {}\n"], ids=["broken", "ignore"]
)
def test_the_demo_stops_at_no_setting_of_the_users_but_a_broken_one(stage, mine):
    settings = stage.file(mine.format(stage.file("*.py\n", "ignored")), "settings")
    env = {"GIT_CONFIG_GLOBAL": str(settings), "TMPDIR": str(stage.folder)}
    child = stage.spawn(None, "demo", cwd=stage.folder, **env)
    with child, child.stdout, child.stderr:
        played = child.stdout.readline() + child.stdout.readline()
        if "excludes" in mine:
            child.kill()  # It has begun: enough.
        said = child.stderr.read()
    if "excludes" in mine:
        assert "Claude opens a pair" in played, said
    else:
        assert child.returncode == 2 and "bad config line" in said and "bug" not in said


@pytest.mark.slow
def test_json_is_one_line_for_each_change_until_nobody_reads(stage):
    pair = stage.open_pair()
    child = stage.spawn(None, "watch", "--json", "--interval", "0.3")
    lines = (json.loads(line)["pairs"] for line in child.stdout)
    try:
        (row,) = next(lines)
        assert (row["pair"], row["path"]) == (pair.name, str(pair))
        stage.send("claude", "review", "# R\n\n```findings\nmajor - y\n```\n")
        (row,) = next(rows for rows in lines if rows[0]["headline"][0]["who"] == "codex")
        assert row["headline"][0]["action"] == "reply"
        child.stdout.close()
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.wait()
        child.stderr.close()


@pytest.mark.slow
def test_the_kept_demo_can_be_looked_at(stage):
    folder = str(stage.folder)
    done = stage.process(None, "demo", "--keep", cwd=folder, TMPDIR=folder, timeout=120)
    assert done.code == 0 and not done.err, done
    project, look = re.search(
        r"(?m)^kept; to look at it: cd (\S+) && \S+/relay (.*)$", done.out
    ).groups()
    assert "approve" in stage.ok(None, *look.split(), cwd=project).out
