"""The command line: help from the table, errors, JSON, few words of relay's own, streams that close."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess

import pytest
from conftest import RELAY, ROOT, SCRIPT

SHOWN = [command for command in RELAY.COMMANDS if command.purpose]
WORDS = [command.words for command in SHOWN]
PATHS = re.compile(r"/\S+")
FILLED = {"KIND": "note", "N": "1", "VERDICT": "approve", "SECONDS": "5"}


# ---- help


def test_help_is_the_same_however_it_is_asked_for(stage):
    overview = stage.ok("claude").out
    assert overview == stage.ok(None, "--help").out == stage.ok(None, "help").out
    assert stage.process(None, "send", "--help").out == stage.ok(None, "help", "send").out
    assert stage.ok(None, "--version").out == stage.ok(None, "version").out
    assert not stage.shared.exists()


def test_help_shows_a_dozen_commands_and_help_all_every_one(stage):
    rows = re.findall(r"(?m)^  (\S+(?: \S+)?)  ", stage.ok(None, "help").out)
    assert len(rows) <= 12 and set(rows) <= set(WORDS)
    assert (
        re.findall(r"(?m)^  (\S+(?: \S+)?)  ", stage.ok(None, "help", "all").out).sort()
        == WORDS.sort()
    )
    rows = stage.ok(None, "help", "--json").json["commands"]
    assert {row["command"] for row in rows} == set(WORDS)


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.words)
def test_every_command_has_help_and_every_flag_is_in_it(stage, command):
    text = stage.ok(None, "help", *command.words.split()).out
    assert f"usage: relay {command.words}" in text and len(command.summary) > 15
    for each in command.arguments:
        hidden = each.help == RELAY.HIDDEN
        assert hidden or not each.is_flag or f"{each.name}" in text
        for choice in () if hidden else each.options.get("choices", ()):
            assert choice in text


def test_a_bare_command_has_the_defaults_that_argparse_would_give_it():
    for command in SHOWN:
        if not any(each.is_required for each in command.arguments):
            ours = vars(RELAY.parse(command.words.split()))
            parsed, unknown = RELAY._parser_of(command).parse_known_args([])
            assert not unknown and ours == {**vars(parsed), "command": command}, command.words


@pytest.mark.parametrize("group", ["pair", "pairs", "issue", "heartbeat", "hooks"])
def test_help_on_a_group_describes_its_commands(stage, group):
    text = stage.ok(None, group, "--help").out
    assert text.count(f"usage: relay {group} ") == len(
        [w for w in WORDS if w.startswith(f"{group} ")]
    )
    assert stage.ok(None, "help", group).out == text


def test_every_reference_page_is_a_topic(stage):
    topics = stage.ok(None, "help", "topics").out
    for page in (ROOT / "skills/agent-relay/references").glob("*.md"):
        assert f"  {page.stem} " in topics
        assert stage.ok(None, "help", page.stem).out == page.read_text()


# ---- errors


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["sned"], "did you mean send?"),
        (["pair", "jion"], "did you mean pair join?"),
        (["status", "--lats", "3"], "did you mean --last?"),
        (["help", "sned"], "did you mean send?"),
        (["pair"], "pair join"),
        (["send"], "--kind"),
        (["send", "--kind", "plna"], "plan"),
        (["show", "0"], "from 1 to 999"),
        (["show", "x"], "from 1 to 999"),
        (["next", "--wait", "-1"], "--wait"),
        (["wait", "--timeout", "1e9"], "seconds"),
        (["status", "--last", "0"], "from 1 to 999"),
        (["status", "more"], "more"),
        (["pair", "join"], "SLUG"),
        (["close", "--outcome", "x"], "--reason"),
        (["send", "--kin", "plan"], "--kind"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_sentence_with_the_nearest_word_and_a_hint(stage, words, named):
    done = stage.refused("claude", *words)
    assert named in done.err
    lines = done.err.rstrip("\n").split("\n")
    assert [line.partition(":")[0] for line in lines] == ["relay", "hint"]
    assert not stage.shared.exists()


@pytest.mark.parametrize(
    "words",
    [["show", "9"], ["send", "--kind", "note"], ["pair", "join", "20260101-none"]],
    ids=" ".join,
)
def test_an_error_is_one_sentence_and_a_hint_on_stderr(stage, words):
    stage.open_pair()
    done = stage.refused("claude", *words)
    assert [line.partition(":")[0] for line in done.err.rstrip("\n").split("\n")] == [
        "relay",
        "hint",
    ]


def test_hints_carry_the_path_by_which_relay_was_typed(stage):
    hint = stage.refused("claude", "sned").err.split("hint: ")[1]
    assert hint.startswith(f"{SCRIPT} help send")


def printed_commands():
    """Every string of the script that begins as a command of relay's; what is filled in is 1."""
    tree = ast.parse(SCRIPT.read_text())
    parts = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            words = [v.value if isinstance(v, ast.Constant) else "1" for v in node.values]
            text = "".join(map(str, words))
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            text = str(node.value)
        else:
            continue
        yield from re.findall(r"(?:^|hint: |: )relay ([a-z]+ [-a-z].*)$", text)


@pytest.mark.slow
def test_no_hint_has_a_flag_that_its_command_does_not_take():
    firsts = {command.words.split()[0] for command in RELAY.COMMANDS}
    typed = {line for line in printed_commands() if line.split()[0] in firsts}
    assert len(typed) > 50
    for line in typed:
        try:
            RELAY.parse([FILLED.get(word, word) for word in shlex.split(line)])
        except RELAY.Refusal as problem:
            assert "invalid choice: '1'" in problem.message or "{0}" in line, (
                line,
                problem.message,
            )


def test_a_bug_is_reported_as_one_with_its_own_exit_code(stage, relay, monkeypatch):
    def broken(ctx):
        raise ZeroDivisionError

    monkeypatch.setattr(relay, "open_ledger", broken)
    done = stage.run("claude", "pairs", "list")
    assert done.code == 70 and "a bug in relay" in done.err and "issue add" in done.err


@pytest.mark.slow
def test_words_after_run_belong_to_the_command(stage):
    stage.open_pair()
    for words in (
        ["--", "echo", "--json", "-h"],
        ["echo", "--json", "-h"],
        ["--", "echo", "--", "x"],
    ):
        done = stage.process("claude", "run", *words)
        assert done.out == " ".join(words[words.index("echo") + 1 :]) + "\n"


# ---- JSON

LOOKING = """next|status|status --last 1|show|show 1|log|brief|pair show|pair ensure|pairs list|findings|verify
pairs list --archived|whoami|version|preflight|issue list|wait --timeout 0|help|help send|continue|init"""


def test_json_parses_on_everything_that_looks(stage):
    stage.open_pair()
    stage.send("claude", "plan", "# ü \u202e \U0001f600\n")
    for line in re.split(r"[|\n]", LOOKING):
        done = stage.run("codex", *line.split(), "--json")
        assert done.code in (0, 1), (line, done)
        assert isinstance(json.loads(done.out), dict), line


def test_every_command_that_looks_has_json():
    lacking = {c.words for c in SHOWN if "--json" not in {each.name for each in c.arguments}}
    assert lacking == {
        "demo",
        "run",
        "heartbeat start",
        "heartbeat stop",
        "heartbeat tick",
    }


# ---- few words


def own_bytes(out, *peer_texts):
    """What relay adds to the peer's text, without paths."""
    for text in peer_texts:
        out = out.replace(text, "")
    return len(PATHS.sub("", out).encode())


@pytest.mark.parametrize(
    ("author", "peer", "kind"), [("claude", "codex", "review"), ("codex", "claude", "fix")]
)
def test_relays_own_words_in_a_whole_turn_fit_400_bytes(stage, author, peer, kind):
    (stage.project / "pay.py").write_text("changed\n")
    stage.open_pair()
    stage.send(peer, "review", "THEBODY", "THEPROMPT")
    shown = stage.ok(author, "next")
    assert shown.action == "reply"
    sent = stage.send(author, kind, "# R\n", "go", "--reply-to", "1")
    words = own_bytes(shown.out + shown.err + sent.out + sent.err, "THEBODY", "THEPROMPT")
    assert 0 < words <= 400, (words, shown.out, sent.out)


def test_a_turn_that_waits_fits_400_bytes_too(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    done = stage.ok("claude", "next", "--wait", "0")
    assert own_bytes(done.out + done.err) <= 400


# ---- streams


def shell(stage, line, author="claude"):
    return subprocess.run(
        ["sh", "-c", line.replace("RELAY", str(SCRIPT))],
        cwd=stage.project,
        env=stage.env(author),
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    "line", ["RELAY log | head -1", "RELAY show 1 | head -c 10", "RELAY help | true"]
)
def test_a_reader_that_leaves_early_gets_no_traceback(stage, line):
    stage.open_pair()
    stage.send("claude", "plan", "# Long\n" + "x" * 100_000 + "\n")
    assert shell(stage, line, "codex").stderr == ""


@pytest.mark.parametrize(
    "line",
    ["RELAY version >&-", "RELAY nonsense 2>&-", "RELAY version <&-", "RELAY next <&- >&- 2>&-"],
)
def test_closed_streams_give_no_traceback(stage, line):
    done = shell(stage, line, "codex")
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode in (0, 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_device_is_an_error_and_not_a_traceback(stage):
    done = shell(stage, "RELAY help > /dev/full")
    assert "Traceback" not in done.stderr and "No space left" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("words", ["next", "status", "log", "help", "findings", "doctor"])
def test_nothing_is_coloured_in_a_pipe(stage, words):
    stage.open_pair()
    stage.send("claude", "plan")
    assert "\x1b" not in stage.run("codex", words).out


def test_the_help_of_every_command_fits_80_columns(stage, relay):
    for command in relay.COMMANDS:
        printed = stage.run(None, "help", *command.words.split(), COLUMNS="80").out
        assert [line for line in printed.split("\n") if len(line) > 80] == [], command.words


def test_a_hint_can_name_the_pair_in_each_command_that_takes_one(relay):
    """But the status line, which no hint advises."""
    ctx = relay.Context("relay", umask=0o22)
    ctx.named_pair = "demo"
    for command in relay.COMMANDS:
        takes_pair = relay.PAIR in command.arguments and command.run is not relay.statusline
        typed = ctx.typed(f"cd /x && relay {command.words} X")
        assert typed.endswith(" --pair-id demo X") == takes_pair, typed
