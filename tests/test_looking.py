"""Looking is for people: whose move it is at a glance, texts that read well, on any terminal; and what changed, honestly."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios

import pytest
from conftest import RELAY, SCRIPT
from helpers.blocks import findings, prepared

WIDE = "\u65e5\u672c\u8a9e\u306e\u30bf\u30a4\u30c8\u30eb \U0001f680 e\u0301"
COLUMNS = (40, 80, 200)


def seen(stage, width, *words, author=None, colour=False):
    """What a command prints on a terminal of this width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            RELAY,
            "screen_for",
            lambda env, plain=False: RELAY.Screen("", width, 1000, colour and not plain),
        )
        done = stage.run(author, *words)
    assert done.code in (0, 1), done
    return done.out


def _asked(stage):
    """Codex's review with a blocker waits for claude; names and words are wide and long."""
    pair = stage.open_pair()
    (stage.project / "pay.py").write_text("old\n")
    stage.send("claude", "plan", "# Plan\n", "Review it")
    stage.ok("codex", "next")
    long = "/".join(["folder"] * 20) + "/end.py"
    text = f"# Review {WIDE}\n\n1. one {'word ' * 40}\n- two {WIDE * 20}\n\n> said\n\n```python\nprint('x')\n```\n\n"
    body = text + findings(f"blocker {long}:12 Divides {WIDE}", "major b.py:1 Rounds", "nit - WIP")
    stage.send(
        "codex",
        "review",
        body,
        "mend it",
        "--reply-to",
        "1",
        "--verdict",
        "changes",
        "--not-run",
        "no time",
    )
    return pair


@pytest.fixture
def waiting(stage):
    return prepared(stage, _asked)


# ---- status


def test_an_agent_is_told_in_its_own_terms(stage, waiting):
    done = stage.ok("claude", "status")
    assert (
        done.out.split("\n")[1].startswith("  your move: reply to 002 review")
        and done.next == "next"
    )


def test_on_a_terminal_the_grave_findings_stand_in_the_status(stage, waiting):
    out = seen(stage, 80, "status")
    assert "2.1 blocker folder/" in out and '2.2 major b.py:1 "Rounds"' in out and "2.3" not in out
    assert "end.py:12" in out, "a long path keeps its end"


def test_what_the_user_is_asked_stands_on_the_persons_screen_in_quotes(stage):
    stage.open_pair()
    stage.send("claude", "plan", "# P\n", "go on\n@user: ship it \u202e today?")
    out = seen(stage, 80, "status")
    assert (
        "YOUR MOVE: the prompt asks the user" in out
        and 'claude asks in 001: "ship it \\u202e today?"' in out
    )
    assert "/relay show 1\n" in out and "relay continue" in out.replace("\n  ", " ")
    plain = stage.ok("codex", "status").out
    assert "your user's move" in plain and "ship it" not in plain


def test_several_pairs_are_listed_the_most_urgent_first_with_how_to_name_one(stage):
    quiet = stage.open_pair("quiet").name
    stage.send("claude", "plan")
    stage.ok(
        "claude", "bootstrap", "--topic", "urgent", "--force", CLAUDE_CODE_SESSION_ID="another"
    )
    urgent = next(stage.shared.glob("*-urgent")).name
    stage.ok(
        "claude",
        "send",
        "--kind",
        "plan",
        "--file",
        stage.file("# P\n"),
        "--next",
        "@user: which?",
        CLAUDE_CODE_SESSION_ID="another",
    )
    lines = stage.ok(None, "status").out.rstrip("\n").split("\n")
    assert lines[0].startswith(urgent) and "YOUR MOVE" in lines[1]
    assert any(line.startswith(quiet) for line in lines[2:]) and lines[-1].endswith(
        f"status --pair-id {urgent}"
    )
    told = stage.ok(None, "status", "--json").json
    assert (
        [row["pair"] for row in told["pairs"]] == [urgent, quiet]
        and told["session"] is None
        and told["published"] == []
    )
    assert "codex's move: reply to 001 plan" in stage.ok(None, "status", "--pair-id", quiet).out


def test_an_ended_pair_is_shown_from_the_archive_with_the_way_to_its_story(stage, waiting):
    stage.ok("claude", "close", "--reason", "enough")
    out = stage.ok(None, "status").out
    assert (
        "ended: closed, just now" in out
        and f"log --pair-id {waiting.name}" in out
        and '"enough"' in out
    )


def test_the_json_keeps_what_it_had(stage, waiting):
    told = stage.ok("claude", "status", "--json").json
    before = {
        "session",
        "session_dir",
        "is_active",
        "resumable",
        "next_seq",
        "published",
        "drafts",
        "closed_sentinel",
        "bound_pair",
        "closed",
        "category",
        "author",
        "moves",
        "faults",
        "changeset",
        "findings",
        "next",
    }
    assert before <= told.keys() and told["headline"][0]["who"] == "claude"
    assert [row["seq"] for row in told["published"]] == [1, 2]


# ---- any terminal


def test_no_line_is_wider_than_the_terminal_but_what_is_to_be_copied(stage, waiting):
    stage.ok("claude", "next")
    for words in (("status",), ("log",), ("log", "-p"), ("show", "2"), ("show", "1")):
        for width in COLUMNS:
            out = seen(stage, width, *words)
            lines = [line for line in out.split("\n") if str(SCRIPT) not in line]
            assert [line for line in lines if RELAY.display_width(line) > width] == [], (
                words,
                width,
            )
            assert "\x1b" not in out and len(lines) > 4


def test_colour_carries_nothing_alone(stage, waiting):
    for words in (("status",), ("log",), ("show", "2")):
        coloured = seen(stage, 80, *words, colour=True)
        bare = "".join(
            part.partition("m")[2] if at else part
            for at, part in enumerate(coloured.split("\x1b["))
        )
        assert coloured != bare == seen(stage, 80, *words)
        assert "\x1b" not in seen(stage, 80, *words, "--no-color", colour=True)


@pytest.mark.parametrize(
    "text, width",
    [("abc", 3), ("\u65e5\u672c", 4), ("e\u0301", 1), ("\U0001f680", 2), ("a\u200db", 2)],
)
def test_cells_of_a_text(text, width):
    assert RELAY.display_width(text) == width


@pytest.mark.parametrize(
    "text",
    [
        "",
        "word",
        "a b  c " * 30,
        "x" * 300,
        "\u65e5" * 100,
        f"  - {WIDE} {'y' * 90} end",
        "    " * 30 + "deep",
    ],
)
@pytest.mark.parametrize("width", [20, 40, 79])
def test_wrapping_keeps_every_word_and_no_line_is_too_wide(text, width):
    lines = RELAY.wrap(text, width, "    ")
    assert all(RELAY.display_width(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert RELAY.wrap(text, 0, "    ") == [text]


def test_a_pipe_gets_plain_lines_that_nobody_wrapped(stage, waiting):
    out = stage.ok("claude", "log", COLUMNS="20").out
    assert "\x1b" not in out and any(len(line) > 80 for line in out.split("\n"))


def at_terminal(stage, *words, lines=50, columns=80, **more):
    """What a real process prints at a real terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.chdir(stage.project)
        os.execve(str(SCRIPT), [str(SCRIPT), *words], stage.env(None, **{"TERM": "xterm", **more}))
    told = b""
    while True:
        try:
            told += os.read(terminal, 65536)
        except OSError:
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told.decode().replace("\r\n", "\n")


def test_at_a_real_terminal_there_is_colour_and_the_width_is_its_own(stage, waiting):
    code, out = at_terminal(stage, "status", columns=40)
    assert code == 0 and "\x1b[31m" in out
    assert (
        max(
            RELAY.display_width(line)
            for line in out.split("\n")
            if str(SCRIPT) not in line and "\x1b" not in line
        )
        <= 40
    )


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_who_wants_no_colour_gets_none(stage, waiting, more):
    assert "\x1b" not in at_terminal(stage, "status", **more)[1]


@pytest.mark.slow
def test_columns_counts_before_what_the_terminal_says(stage, waiting):
    out = at_terminal(stage, "status", columns=200, COLUMNS="40", NO_COLOR="1")[1]
    assert (
        max(RELAY.display_width(line) for line in out.split("\n") if str(SCRIPT) not in line) <= 40
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "more", "lines"),
    [
        (("log",), {}, 100),
        (("log", "--no-pager"), {}, 10),
        (("log", "--json"), {}, 10),
        (("log",), {"PAGER": ""}, 10),
        (("log",), {"PAGER": "/nowhere/pager"}, 10),
        (("log", "--markdown"), {}, 10),
    ],
    ids=str,
)
def test_what_fits_or_is_for_programs_goes_through_none(stage, waiting, words, more, lines):
    kept = stage.folder / "paged"
    code, out = at_terminal(stage, *words, lines=lines, **{"PAGER": f"cat >'{kept}'", **more})
    assert code == 0 and "codex" in out and not kept.exists()


@pytest.mark.slow
def test_less_shows_it_and_q_leaves_it(stage, waiting):
    env = " ".join(f"{key}='{value}'" for key, value in stage.env(None, TERM="xterm").items())
    socket = ["tmux", "-L", f"relay-{os.getpid()}"]
    if subprocess.run(["sh", "-c", "command -v tmux less"], capture_output=True).returncode:
        pytest.skip("needs tmux and less")
    subprocess.run(
        [
            *socket,
            "new-session",
            "-d",
            "-x",
            "60",
            "-y",
            "12",
            f"cd '{stage.project}'; env -i {env} '{SCRIPT}' log; echo left with $?; sleep 20",
        ],
        check=True,
    )
    try:
        screen = wait_for(socket, "round 1")
        assert "left with" not in screen
        subprocess.run([*socket, "send-keys", "q"], check=True)
        assert "left with 0" in wait_for(socket, "left with")
    finally:
        subprocess.run([*socket, "kill-server"])


def wait_for(socket, words):
    for _ in range(100):
        screen = subprocess.run(
            [*socket, "capture-pane", "-p"], capture_output=True, text=True
        ).stdout
        if words in screen:
            return screen
        subprocess.run(["sleep", "0.1"])
    raise AssertionError(screen)


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_trouble(stage, waiting):
    done = subprocess.run(
        ["bash", "-c", f"'{SCRIPT}' log -p | head -1; echo ${{PIPESTATUS[0]}}"],
        cwd=stage.project,
        env=stage.env(None),
        capture_output=True,
        text=True,
    )
    assert done.stderr == "" and done.stdout.rstrip().endswith("0")


# ---- show


def test_a_damaged_artifact_is_named_and_not_shown(stage, waiting):
    path = next(waiting.glob("002-*.md"))
    path.write_bytes(path.read_bytes() + b"FORGED")
    for flags in ((), ("--raw",), ("--diff",), ("--json",)):
        done = stage.run("claude", "show", "2", *flags)
        assert done.code == 13 and "FORGED" not in done.out and "002-codex-review" in done.err


# ---- show --diff


def changed(stage, name, text):
    path = stage.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_diff_that_cannot_be_is_refused(stage, waiting):
    for flags in (("--diff=later",), ("--diff", "--raw"), ("9", "--diff")):
        done = stage.run("claude", "show", *flags)
        assert done.code == 2 and not done.out and "hint: " in done.err


def test_a_diff_leaves_nothing_behind(stage, waiting, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert "diff --git" in stage.ok("claude", "show", "2", "--diff=base", XDG_RUNTIME_DIR=None).out
    assert list(tmp_path.glob("relay.*")) == []


def test_an_ended_pair_that_was_left_in_place_is_shown_where_none_is_active(stage):
    pair = stage.open_pair()
    stage.ok("claude", "close", "--reason", "enough", "--no-archive")
    for words in (("status",), ("log",)):
        assert pair.name in stage.ok(None, *words).out
