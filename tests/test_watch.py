"""`relay watch`: frames are a function of rows and size; in a real terminal it follows what others publish."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from conftest import RELAY, SCRIPT

NOW = 1_800_000_000.0
SIZES = [(80, 24), (40, 10), (20, 4), (120, 50), (12, 2), (1, 1)]
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202eevil\u2066 \u6f22\u5b57\u6f22\u5b57 e\u0301 \r\n\t" + "long " * 40


def row(pair, state="move", **more):
    known = {
        "pair": pair, "title": "A title", "path": f"/x/.shared/{pair}", "archived": False, "state": state, "by": "codex", "since": NOW - 200,
        "why": "", "seq": 4, "kind": "review", "author": "claude", "open": {}, "verdict": None, "tree": None, "silent_at": None,
        "there": {"claude": {"state": "here", "seen": NOW}, "codex": {"state": "bound", "seen": NOW - 600}},
    }  # fmt: skip
    return {**known, **more}


STATES = ("for you", "damaged", "gone", "move", "fresh", "waiting", "unreadable", "over")


def drawn(rows, size, view=None, colour=False):
    return RELAY.frame(RELAY.ranked(rows, NOW), "shop", view or RELAY.View(), NOW, size, colour)


def bare(lines):
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [0, 1, 60])
def test_a_frame_has_as_many_lines_as_the_terminal_and_none_is_wider(size, count):
    rows = [row(f"20260101-{n}", STATES[n % len(STATES)], title=HOSTILE, why=HOSTILE) for n in range(count)]
    for chosen in {f"20260101-{n}" for n in (0, count // 2, count - 1)}:
        for view in (RELAY.View(chosen=chosen), RELAY.View(chosen=chosen, keys=True)):
            lines = drawn(rows, size, view, colour=True)
            assert len(lines) == size[1]
            assert all(RELAY.cells(line) <= size[0] for line in bare(lines))
            assert not any(c in "".join(bare(lines)) for c in "\x1b\x07\u202e\u2066\r\n\t")
            if count and size[0] > 70 and size[1] > 3:
                assert any(line.startswith("> ") and chosen in line for line in bare(lines)), chosen


@pytest.mark.parametrize("size", SIZES)
def test_an_opened_pair_fits_and_can_be_read_to_its_end(size):
    one = row("20260101-a", title=HOSTILE, why=HOSTILE) | {
        "findings": [{"id": f"4.{n}", "severity": "major", "path": HOSTILE, "line": "3", "text": HOSTILE, "state": "open"} for n in range(30)],
        "last": [{"seq": n, "kind": "fix", "author": "codex", "created": None, "first_line": HOSTILE} for n in (2, 1)],
    }  # fmt: skip
    for down in (0, 3, 10_000):
        lines = RELAY.detail_frame(one, RELAY.View(opened=True, down=down), NOW, size, True)
        assert len(lines) == size[1] and all(RELAY.cells(line) <= size[0] for line in bare(lines))
        assert not any(c in "".join(bare(lines)) for c in "\x1b\x07\u202e\u2066\r\n\t")
    assert size != (80, 24) or any("relay log --pair-id 20260101-a" in line for line in lines)


def test_what_needs_the_person_comes_first_and_what_has_ended_last():
    rows = [row(f"20260101-{n}", state) for n, state in enumerate(reversed(STATES))]
    assert [each["state"] for each in RELAY.ranked(rows, NOW)] == list(STATES)
    waits = [row("20260101-new", since=NOW - 5), row("20260101-old", since=NOW - 5000)]
    assert [each["pair"] for each in RELAY.ranked(waits, NOW)] == ["20260101-old", "20260101-new"]
    ended = [row("20260101-old", "over", since=NOW - 5000), row("20260101-new", "over", since=NOW - 5)]
    assert [each["pair"] for each in RELAY.ranked(ended, NOW)] == ["20260101-new", "20260101-old"]


def test_a_side_that_holds_the_turn_and_is_silent_for_too_long_counts_as_gone():
    one = row("20260101-a", silent_at=NOW + 10)
    assert RELAY.ranked([one], NOW)[0]["state"] == "move"
    assert RELAY.ranked([one], NOW + 11)[0]["state"] == "gone"


def test_a_row_says_whose_move_since_when_what_is_open_the_verdict_the_tree_and_who_is_there():
    one = row("20260101-a", open={"blocker": 1, "minor": 2}, verdict={"seq": 4, "verdict": "changes", "by": "claude"},
              tree={"at": NOW - 120, "text": "holds (7 files)"})  # fmt: skip
    first, second = [text for text, _ in RELAY.pair_lines(one, NOW, 200, True)]
    assert first == "> codex's move        3 min  20260101-a  \"A title\""
    assert second.strip() == "004 review by claude | open: 1 blocker, 2 minor | changes 004 | tree: holds (7 files), 2 min | claude here, codex 10 min silent"


def test_without_colour_there_is_not_one_escape_and_the_chosen_pair_is_still_told():
    lines = drawn([row("20260101-a", "for you", title=HOSTILE)], (80, 24))
    assert "\x1b" not in "".join(lines) and lines[1].startswith("> ")
    assert "\x1b[1;33;7m" in drawn([row("20260101-a", "for you")], (80, 24), colour=True)[1]


def test_ages_below_a_minute_do_not_move():
    assert {RELAY.since_words(NOW - s, NOW) for s in range(60)} == {"just now"}
    assert RELAY.since_words(NOW - 61, NOW) == "1 min" and RELAY.since_words(None, NOW) == ""


@pytest.mark.parametrize(
    ("typed", "keys"),
    [(b"jk", ["down", "up"]), (b"\x1b[A\x1b[B", ["up", "down"]), (b"\x1bOA", ["up"]), (b"\x1b", ["back"]), (b"\r q?", ["open", "open", "quit", "help"]),
     (b"\x1b[5~\x1b[6~", ["page up", "page down"]), (b"\x1b[200~x\x1b[1;5Cj", ["down"]), (b"\xff\x00z", []), (b"\x1b[", [])],
)  # fmt: skip
def test_keys_are_told_from_their_bytes(typed, keys):
    assert RELAY.keys_in(typed) == keys


def test_the_chosen_pair_is_kept_by_name_and_keys_move_it():
    slugs = ["a", "b", "c"]
    view = RELAY.moved_by(RELAY.View(), "down", slugs)
    assert view.chosen == "b" and RELAY.moved_by(view, "down", ["b", "a", "c"]).chosen == "a"
    assert RELAY.moved_by(view, "last", slugs).chosen == "c" and RELAY.moved_by(view.but(chosen="gone"), "up", slugs).chosen == "a"
    opened = RELAY.moved_by(view, "open", slugs)
    assert opened.opened and RELAY.moved_by(opened, "down", slugs).down == 1 and not RELAY.moved_by(opened, "back", slugs).opened
    assert RELAY.moved_by(RELAY.View(), "open", []) == RELAY.View()


# ---- rows, from a real ledger


def watched(stage, *words):
    return stage.run(None, "watch", *words)


def test_without_a_terminal_it_prints_once_says_so_and_writes_nothing(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan", "# \x1b[31mThe plan\n")
    before = stage.snapshot(stage.shared)
    done = watched(stage)
    assert done.code == 0 and done.err == "relay: watch needs a terminal; this is how things stand now (relay watch --json goes on)\n"
    assert "codex's move" in done.out and pair.name in done.out and "001 plan by claude" in done.out and "\x1b" not in done.out
    assert stage.snapshot(stage.shared) == before


def test_every_state_of_a_pair_is_told(stage):
    pair = stage.open_pair()
    assert "claude to start" in watched(stage).out
    stage.send("claude", "plan")
    stage.send("codex", "decision", "# Which?\n", "@user: which one?")
    assert "for you" in watched(stage).out
    body = next(pair.glob("001*.md"))
    kept = body.read_bytes()
    body.write_bytes(kept + b"x")
    assert "damaged" in watched(stage).out or "for you" in watched(stage).out
    body.write_bytes(kept)
    stage.ok("claude", "close", "--reason", "r", "--outcome", "done", "--no-archive")
    assert re.search(r"(?m)^  done ", watched(stage).out)
    stage.ok("claude", "pairs", "archive", pair.name)
    assert pair.name not in watched(stage).out and pair.name in watched(stage, "--all").out


def test_a_pair_of_a_later_schema_or_a_broken_one_does_not_stop_the_view(stage):
    stage.open_pair("good")
    bad = shutil.copytree(next(stage.shared.glob("*-good")), stage.shared / "20260101-bad")
    (bad / "session.json").write_text("{")
    out = watched(stage).out
    assert "20260101-bad" in out and "unreadable" in out and "-good" in out


# ---- in a real terminal


class Tmux:
    """One terminal of a fixed size, with a server of its own."""

    def __init__(self, stage, columns=80, lines=24, **more):
        self.name = f"relay-{os.getpid()}-{time.monotonic_ns()}"
        self.stage = stage
        env = {**stage.env(**more), "TERM": "screen-256color", "PS1": "$ "}
        self.do("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), "-c", str(stage.project),
                "env", "-i", *(f"{key}={value}" for key, value in env.items()), "bash", "--norc", "--noprofile", env=env)  # fmt: skip

    def do(self, *words, env=None):
        return subprocess.run(("tmux", "-L", self.name, *words), capture_output=True, text=True, timeout=20, env={**os.environ, **(env or {})}).stdout

    def type(self, *keys):
        self.do("send-keys", *keys)

    def screen(self, *flags):
        return self.do("capture-pane", "-p", *flags)

    def until(self, wanted, seconds=15):
        """The screen as soon as it says this."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (callable(wanted) and wanted(self.screen())) or (not callable(wanted) and wanted in self.screen()):
                return self.screen()
            time.sleep(0.05)
        raise AssertionError(f"{wanted!r} did not come:\n{self.screen()}")

    def watch(self, *words):
        self.type(f"'{SCRIPT}' watch {' '.join(words)}", "Enter")
        self.until("q quit")

    def is_given_back(self):
        """The shell is there again with its modes, the cursor shown, on the first screen."""
        self.type("echo back; stty -a | grep -o ' .*icanon\\| .*echo '", "Enter")
        screen = self.until(lambda text: "\nback\n" in text)
        flags = self.do("display-message", "-p", "#{cursor_flag} #{alternate_on} #{wrap_flag}").split()
        return flags == ["1", "0", "1"] and "-icanon" not in screen and "-echo " not in screen


@pytest.fixture
def tmux(stage):
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    made = []

    def start(**given):
        made.append(Tmux(stage, **given))
        return made[-1]

    yield start
    for each in made:
        each.do("kill-server")


def ledger_state(stage):
    return {path: (held[0], hashlib.sha256(held[2]).hexdigest() if isinstance(held[2], bytes) else held[2], held[1]) for path, held in stage.snapshot(stage.shared).items()}


@pytest.mark.slow
def test_it_follows_what_another_process_publishes_and_writes_nothing(stage, tmux):
    pair = stage.open_pair()
    terminal = tmux()
    terminal.watch()
    terminal.until("claude to start")
    plan = stage.file("# The plan\n\n```findings\nblocker pay.py:2 A refund of 0\n```\n", "plan.md")
    assert stage.process("claude", "send", "--kind", "review", "--file", plan, "--next", "go").code == 0
    screen = terminal.until("codex's move")
    assert "001 review by claude | open: 1 blocker" in screen and pair.name in screen
    terminal.type("Enter")
    assert '1.1 blocker pay.py:2 "A refund of 0" (open)' in terminal.until("findings:")
    assert '001 review by claude, just now: "The plan"' in terminal.screen()
    terminal.type("Space")
    terminal.until("> codex's move")
    terminal.type("?")
    terminal.until("Enter open, back")
    before = ledger_state(stage)
    terminal.do("resize-window", "-x", "40", "-y", "10")
    small = terminal.until(lambda text: len(text.split("\n")) == 11 and "codex's move" in text)
    assert all(len(line) <= 40 for line in small.split("\n"))
    time.sleep(2.5)
    assert ledger_state(stage) == before
    terminal.type("q")
    assert terminal.is_given_back()


@pytest.mark.slow
def test_a_pair_that_is_opened_or_ends_elsewhere_comes_and_goes(stage, tmux):
    terminal = tmux()
    terminal.watch()
    terminal.until("no active pair: relay bootstrap")
    stage.ok("claude", "bootstrap", "--topic", "first")
    terminal.until("-first")
    stage.ok("codex", "next")
    stage.ok("claude", "close", "--reason", "r")
    terminal.until("no active pair: relay bootstrap")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["C-c", "q", signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, "C-d"])
def test_the_terminal_is_given_back_however_it_ends(stage, tmux, end):
    stage.open_pair()
    terminal = tmux()
    terminal.watch()
    if isinstance(end, str):
        terminal.type(end)
    else:
        os.kill(watcher(terminal), end)
    terminal.until(lambda text: "q quit" not in text)
    assert terminal.is_given_back()


def watcher(terminal):
    """The process id of the view that runs in a terminal."""
    shell = terminal.do("display-message", "-p", "#{pane_pid}").strip()
    return int(subprocess.run(("pgrep", "-P", shell), capture_output=True, text=True, check=True).stdout.split()[0])


@pytest.mark.slow
def test_a_bug_in_drawing_gives_the_terminal_back_and_is_told(stage, tmux):
    stage.open_pair()
    broken = stage.folder / "relay-broken"
    text = SCRIPT.read_text()
    drawing = '    return "\\x1b[H"'
    assert text.count(drawing) == 1
    broken.write_text(text.replace(drawing, '    return no_such_name + "\\x1b[H"'))
    broken.chmod(0o755)
    terminal = tmux()
    terminal.type(f"'{broken}' watch", "Enter")
    terminal.until("this is a bug in relay")
    assert terminal.is_given_back()


@pytest.mark.slow
def test_it_can_be_stopped_and_continued(stage, tmux):
    stage.open_pair()
    terminal = tmux()
    terminal.watch()
    terminal.type("C-z")
    terminal.until("Stopped")
    assert terminal.is_given_back()
    stage.send("claude", "plan")
    terminal.type("fg", "Enter")
    terminal.until("codex's move")
    terminal.type("q")
    assert terminal.is_given_back()


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colour_and_on_a_dumb_terminal_it_is_plain(stage, tmux, more):
    stage.open_pair()
    stage.send("claude", "plan")
    terminal = tmux()
    terminal.type(f"{' '.join(f'{k}={v}' for k, v in more.items())} '{SCRIPT}' watch", "Enter")
    terminal.until("codex's move")
    assert "\x1b[3" not in terminal.screen("-e")
    assert ("needs a terminal" in terminal.screen()) == ("TERM" in more)


def copies(stage, count):
    """Many pairs, made from one."""
    pair = stage.open_pair()
    stage.send("claude", "plan")
    for n in range(count - 1):
        made = shutil.copytree(pair, stage.shared / f"20260101-pair-{n:04}")
        session = json.loads((made / "session.json").read_text())
        (made / "session.json").write_text(json.dumps({**session, "session_id": made.name}))
    return pair


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_twenty_pairs_at_rest_cost_next_to_nothing(stage, tmux):
    copies(stage, 20)
    terminal = tmux()
    terminal.watch()
    time.sleep(1.5)
    pid = watcher(terminal)
    before = cpu_s(pid)
    time.sleep(4)
    assert cpu_s(pid) - before <= 0.1, "4 s at rest"


@pytest.mark.slow
def test_a_thousand_pairs_scroll(stage, tmux):
    copies(stage, 1000)
    terminal = tmux()
    terminal.type(f"'{SCRIPT}' watch", "Enter")
    terminal.until("1/1000", 60)
    terminal.type("G")
    assert "> " in terminal.until("1000/1000")
    stage.send("codex", "review")
    terminal.until("002 review by codex", 12)
    assert "> both to move" in terminal.screen()  # Codex was not shown the plan that it did not answer.
    terminal.type("g", "j", "j")
    terminal.until("3/1000")
    terminal.type("q")
    assert terminal.is_given_back()


@pytest.mark.slow
def test_json_is_one_line_for_each_change_until_nobody_reads(stage):
    stage.open_pair()
    child = stage.spawn(None, "watch", "--json")
    try:
        first = json.loads(child.stdout.readline())
        assert [pair["state"] for pair in first["pairs"]] == ["fresh"]
        stage.send("claude", "plan")
        while True:
            told = json.loads(child.stdout.readline())
            if told["pairs"][0]["state"] == "move":
                break
        assert told["pairs"][0]["by"] == "codex"
        child.stdout.close()
        assert child.wait(timeout=10) == 0
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
