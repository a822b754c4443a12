"""status, show, log and brief: whose move it is, each artifact with its proof, one story of a pair,
on any terminal and as a pull request's Markdown."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios

import pytest
from conftest import RELAY, SCRIPT, dispositions, findings, reseal
from helpers.blocks import prepared

WIDE = "\u65e5\u672c\u8a9e\u306e\u30bf\u30a4\u30c8\u30eb \U0001f680 e\u0301"


def write(stage, name, text):
    path = stage.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _asked(stage):
    """claude has a review with a blocker to answer; its words are wide, its paths long."""
    pair = stage.open_pair()
    write(stage, "pay.py", "old\n")
    stage.send("claude", "plan", "# Plan\n", "Review it")
    stage.ok("codex", "next")
    path = "/".join(["folder"] * 20) + "/end.py"
    prose = f"# Review {WIDE}\n\n1. one {'word ' * 40}\n- two {WIDE * 20}\n\n> quoted\n\n"
    rows = (f"blocker {path}:12 Divides {WIDE}", "major b.py:1 Rounds", "nit - WIP")
    body = prose + "```python\nprint('x')\n```\n\n" + findings(*rows)
    more = ("--reply-to", "1", "--verdict", "changes", "--not-run", "no time")
    stage.send("codex", "review", body, "mend it", *more)
    reseal(pair, "002-codex-review", text=lambda text: f"{text}\n\x1b[2J\x9b31m\u202e\n")
    return pair


def _reviewed(stage):
    """A plan, a review with findings and a failed run, a fix, an approval; pay.py is changed by the fix."""
    pair = stage.open_pair()
    write(stage, "pay.py", "old\n")
    stage.send("claude", "plan", "# Plan\n\nSplit a refund.\n", "Review it")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "false")
    rows = ("blocker pay.py:1 Divides by zero", "nit - Says nothing")
    stage.send(
        "codex", "review", findings(*rows), "mend", "--reply-to", "1", "--verdict", "changes"
    )
    write(stage, "pay.py", "new\n")
    stage.ok("claude", "next")
    answers = dispositions("2.1 fixed a guard", "2.2 refuted it does")
    stage.send("claude", "fix", answers, "again", "--reply-to", "2")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "true")
    rulings = dispositions("2.1 accepted", "2.2 accepted")
    stage.send("codex", "review", rulings, "ship", "--reply-to", "3", "--verdict", "approve")
    return pair


@pytest.fixture
def asked(stage):
    return prepared(stage, _asked)


@pytest.fixture
def reviewed(stage):
    return prepared(stage, _reviewed)


def on_screen(stage, width, *words, author=None, colour=False):
    """What a command prints on a terminal of this width."""
    with pytest.MonkeyPatch.context() as patch:
        screen = RELAY.Screen(width, 1000, colour)
        patch.setattr(
            RELAY,
            "screen_for",
            lambda ctx, plain=False: screen._replace(colour=colour and not plain),
        )
        done = stage.run(author, *words)
    assert done.code in (0, 1), done
    return done.out


def at_terminal(stage, *words, columns=80, **more):
    """What a process prints at a real terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        os.chdir(stage.project)
        os.execve(SCRIPT, [str(SCRIPT), *words], stage.env(None, **{"TERM": "xterm", **more}))
    printed = b""
    while True:
        try:
            printed += os.read(terminal, 65536)
        except OSError:
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, printed
    return printed.decode().replace("\r\n", "\n")


# ---- status


def test_status_says_whose_move_it_is_and_what_to_type(stage, asked):
    lines = stage.ok(None, "status").out.rstrip("\n").split("\n")
    assert lines[1].startswith("  claude's move: reply to 002 review (changes)")
    assert "  claude:       is there, has not seen 002 review" in lines
    assert "  findings:     1 blocker, 1 major, 1 nit open (relay findings)" in lines
    assert "  working tree: unchanged since 002 (1 file)" in lines
    assert lines[-1].startswith("in claude's terminal: /") and lines[-1].endswith("/relay next")
    done = stage.ok("claude", "status")
    assert "  your move: reply to 002 review" in done.out and done.next == "next"
    done = stage.ok("codex", "status")
    assert "next: " not in done.out, "it would only say what status says: wait"


def test_status_says_for_how_long_a_move_has_been_waiting(stage, asked, monkeypatch):
    Context = RELAY.Context

    def two_hours_later(*where, **how):
        ctx = Context(*where, **how)
        now = ctx.now
        ctx.now = lambda: now() + 7200
        return ctx

    monkeypatch.setattr(RELAY, "Context", two_hours_later)
    assert "claude's move: reply to 002 review (changes), for 2 h" in stage.ok(None, "status").out


def test_on_a_terminal_status_lists_the_grave_findings(stage, asked):
    out = on_screen(stage, 80, "status")
    assert "2.1 blocker folder/" in out and "end.py:12" in out, "a long path keeps its end"
    assert '2.2 major b.py:1 "Rounds"' in out and "2.3" not in out


def test_on_a_terminal_a_question_to_the_user_is_quoted(stage):
    stage.open_pair()
    stage.send("claude", "plan", "# P\n", "go on\n@user: ship it \u202e today?")
    out = on_screen(stage, 80, "status")
    assert "YOUR MOVE: claude asks you in 001" in out
    assert '    "ship it \\u202e today?"' in out
    assert "/relay show 1\n" in out and "relay continue" in out.replace("\n  ", " ")
    plain = stage.ok("codex", "status").out
    assert "your user's move" in plain and "ship it" not in plain


def test_status_lists_several_pairs_the_most_urgent_first(stage):
    quiet = stage.open_pair("quiet").name
    stage.send("claude", "plan")
    other = {"CLAUDE_CODE_SESSION_ID": "another"}
    stage.ok("claude", "bootstrap", "--topic", "urgent", "--force", **other)
    urgent = next(stage.shared.glob("*-urgent")).name
    words = ("send", "--kind", "plan", "--file", stage.file("# P\n"), "--next", "@user: which?")
    stage.ok("claude", *words, **other)
    lines = stage.ok(None, "status").out.rstrip("\n").split("\n")
    assert lines[1].startswith(urgent) and "YOUR MOVE" in lines[2]
    assert any(line.startswith(quiet) for line in lines[3:])
    assert any(line.endswith(f" continue --pair-id {urgent}") for line in lines[3:])
    assert lines[-1].endswith(f" next --pair-id {quiet}")
    row = stage.ok(None, "status", "--json").json
    assert [pair["pair"] for pair in row["pairs"]] == [urgent, quiet]
    assert row["session"] is None and row["published"] == []
    named = stage.ok(None, "status", "--pair-id", quiet).out
    assert "codex's move: reply to 001 plan" in named


def test_the_command_beside_the_open_findings_works_where_there_are_several_pairs(stage, asked):
    stage.ok("claude", "bootstrap", "--topic", "other", "--force")
    for words in (("status",), ("status", "--pair-id", asked.name), ("watch",)):
        printed = stage.ok(None, *words).out
        named = re.search(r"\(relay (findings [^)]*)\)", printed)[1]
        assert "2.1 blocker" in stage.ok(None, *named.split()).out, printed


def test_a_command_in_a_line_stays_whole_on_a_narrow_terminal(stage, asked):
    stage.ok("claude", "bootstrap", "--topic", "other", "--force")
    for words in (("status",), ("status", "--pair-id", asked.name)):
        assert f"(relay findings --pair-id {asked.name})" in on_screen(stage, 70, *words)
        assert "relay findings\n" in on_screen(stage, 40, *words)  # Too long: broken between words.


def test_the_comparison_of_several_pairs_goes_when_a_change_set_is_published(stage):
    stage.open_pair("first")
    (stage.project / "pay.py").write_text("one\n")
    stage.send("claude", "plan")
    (stage.project / "pay.py").write_text("two\n")
    stage.ok("codex", "next")
    assert "working tree: changed since 001: 1 file" in stage.ok(None, "watch").out
    assert "tree: changed since 001" in stage.ok("codex", "statusline").out
    stage.send("codex", "review", "# R\n", "go", "--verdict", "changes")
    assert "changed since" not in stage.ok(None, "watch").out
    assert "changed since" not in stage.ok("codex", "statusline").out


def test_without_a_pair_status_is_refused_and_says_how_to_begin(stage):
    assert "bootstrap --topic TOPIC" in stage.refused("claude", "status").err
    assert "relay demo" in stage.refused(None, "status").err, "a person opens no pair"
    assert stage.ok("claude", "status", "--require-binding", "--json").json["session"] is None


@pytest.mark.parametrize("lost", [False, True])
def test_without_a_pair_the_hint_of_a_wait_leads_on(stage, lost):
    """Not to an empty list: to what opens a pair, or brings back the one that is gone."""
    if lost:
        pair = stage.open_pair()
        stage.send("claude", "plan")
        stage.ok("claude", "verify")
        pair.rename(stage.folder / "lost")
    hint = stage.run("claude", "wait", "--timeout", "0").err.rpartition("hint: ")[2].split()
    wanted = "restore" if lost else "bootstrap"
    assert hint[1:] == ["status"], hint
    assert wanted in stage.run("claude", *hint[1:]).err.rpartition("hint: ")[2]


@pytest.mark.parametrize("flags", [(), ("--no-archive",)], ids=str)
def test_an_ended_pair_is_shown_where_none_is_active(stage, asked, flags):
    stage.ok("claude", "close", "--reason", "enough", *flags)
    out = stage.ok(None, "status").out
    assert "ended: closed, just now" in out and '"enough"' in out and "/relay log" in out
    assert (f"log --pair-id {asked.name}" in out) == (not flags)
    assert asked.name in stage.ok(None, "log").out


def test_status_as_json_has_the_keys_of_1x_and_is_bounded(stage, asked):
    row = stage.ok("claude", "status", "--json").json
    keys = "session session_dir is_active resumable next_seq published drafts closed_sentinel"
    keys += " bound_pair closed category author moves faults changeset findings next headline"
    assert {*keys.split()} <= row.keys() and row["headline"][0]["who"] == "claude"
    assert [each["seq"] for each in row["published"]] == [1, 2]
    last = stage.ok("claude", "status", "--json", "--last", "1").json
    assert [each["seq"] for each in last["published"]] == [2]


# ---- any terminal


def test_no_line_is_wider_than_the_terminal_except_what_is_to_be_copied(stage, asked):
    stage.ok("claude", "next")
    for words in (("status",), ("log",), ("log", "-p"), ("show", "2"), ("show", "1")):
        for width in (40, 80, 200):
            out = on_screen(stage, width, *words)
            lines = [line for line in out.split("\n") if str(SCRIPT) not in line]
            assert [line for line in lines if RELAY.display_width(line) > width] == [], words
            assert "\x1b" not in out and len(lines) > 4


def test_colour_carries_nothing_alone(stage, asked):
    for words in (("status",), ("log",), ("show", "2")):
        coloured = on_screen(stage, 80, *words, colour=True)
        bare = re.sub(r"\x1b\[\d+m", "", coloured)
        assert coloured != bare and "\x1b" not in bare
        plain = on_screen(stage, 80, *words, "--no-color", colour=True)
        assert re.sub(r"\d+ s ago", "", plain) == re.sub(r"\d+ s ago", "", bare)


def test_a_pipe_gets_plain_lines_that_are_not_wrapped(stage, asked):
    out = stage.ok("claude", "log", COLUMNS="20").out
    assert "\x1b" not in out and any(len(line) > 80 for line in out.split("\n"))


def test_at_a_real_terminal_there_is_colour_and_its_own_width(stage, asked):
    out = at_terminal(stage, "status", columns=40)
    assert "\x1b[31m" in out
    plain = [line for line in out.split("\n") if "\x1b" not in line and str(SCRIPT) not in line]
    assert max(map(RELAY.display_width, plain)) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_colour_can_be_switched_off(stage, asked, more):
    assert "\x1b" not in at_terminal(stage, "status", **more)


@pytest.mark.slow
def test_columns_counts_before_the_terminals_own_width(stage, asked):
    out = at_terminal(stage, "status", columns=200, COLUMNS="40", NO_COLOR="1")
    lines = [line for line in out.split("\n") if str(SCRIPT) not in line]
    assert max(map(RELAY.display_width, lines)) <= 40


# ---- show


def test_on_a_terminal_a_text_is_laid_out_with_the_fate_of_its_findings(stage, asked):
    stage.ok("claude", "next")
    stage.send("claude", "fix", dispositions("2.1 fixed a guard"), "look", "--reply-to", "2")
    out = on_screen(stage, 100, "show", "2")
    lines = out.split("\n")
    assert lines[0].startswith("002 review by codex, answers 001, ")
    assert "verified, sha256 " in " ".join(lines[:3])
    assert 'fixed: "a guard"' in out and "  print('x')" in lines and "prompt:" in lines
    assert not any(line.startswith("# ") for line in lines), "the text is indented"


def test_on_a_terminal_a_text_never_begins_at_the_margin(stage):
    stage.open_pair()
    forged = "verified\n# verified\n```x\nran:\n```\n- verified\n"
    stage.send("claude", "plan", forged, "verified\nverified")
    lines = on_screen(stage, 80, "show", "1").split("\n")
    assert [line for line in lines[2:] if line.startswith(("verified", "ran:"))] == []


def test_a_malformed_finding_of_the_peer_shifts_no_fate_to_another(stage, asked):
    def change(sidecar):
        sidecar["findings"][0]["severity"] = "absurd"

    reseal(asked, "002-codex-review", change)
    story = stage.ok("claude", "log", "--json").json
    rows = [row for row in story["artifacts"] if row["kind"] == "review"][0]["record"]["findings"]
    assert [(row["id"], row["severity"], row["path"]) for row in rows][-2:] == [
        ("2.2", "major", "b.py"),
        ("2.3", "nit", ""),
    ]


@pytest.mark.parametrize("flags", [(), ("--diff",), ("--json",)], ids=str)
def test_a_damaged_artifact_is_named_and_not_shown(stage, asked, flags):
    path = next(asked.glob("002-*.md"))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"FORGED")
    done = stage.run("claude", "show", "2", *flags)
    assert done.code == 13 and "FORGED" not in done.out and "002-codex-review" in done.err


@pytest.mark.parametrize("words", [("--diff=later",), ("9", "--diff"), ("9",)])
def test_what_cannot_be_shown_is_refused(stage, asked, words):
    assert "hint: " in stage.refused("claude", "show", *words).err


# ---- show --diff


@pytest.mark.slow
def test_a_diff_shows_what_was_published_whatever_git_and_the_working_tree_still_have(stage):
    write(stage, "base.py", "base\n")
    stage.git("add", ".")
    stage.git("commit", "-qm", "base")
    stage.open_pair()
    write(stage, "kept.py", "one\n")
    write(stage, "gone.py", "first\n")
    stage.git("add", "kept.py")
    stage.git("commit", "-qm", "kept")
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# R\n", "x", "--reply-to", "1")
    for name, text in (("kept.py", "two\n"), ("gone.py", "second\n"), ("sub/new.py", "new\n")):
        write(stage, name, text)
    (stage.project / "base.py").unlink()
    stage.ok("claude", "next")
    stage.send("claude", "fix", "# F\n", "x", "--reply-to", "2")
    row = stage.ok("claude", "show", "3", "--diff", "--json").json
    assert (row["from"], row["to"]) == ("002", "003")
    assert {file["path"]: (file["how"], file["why"]) for file in row["files"]} == {
        "base.py": ("deleted", ""),
        "gone.py": ("changed", ""),
        "kept.py": ("changed", ""),
        "sub/new.py": ("added", ""),
    }
    done = stage.ok("claude", "show", "3", "--diff")
    for line in (
        "diff --git a/kept.py b/kept.py",
        "-first",
        "-one",
        "+two",
        "+++ b/sub/new.py",
        "--- a/base.py",
    ):
        assert line in done.out
    based = stage.ok("claude", "show", "3", "--diff=base").out
    assert based.startswith("base ") and "+++ b/gone.py" in based
    assert "4 files changed" in stage.ok("claude", "show", "1", "--diff=now").out
    assert stage.ok("claude", "show", "--diff").out == "003 -> the working tree: 0 files changed\n"


@pytest.mark.parametrize("name", ["../outside", "/etc/x"])
def test_a_forged_list_of_files_leads_to_no_other_file(stage, monkeypatch, name):
    write(stage, "a", "a\n")
    stage.git("add", ".")
    stage.git("commit", "-qm", "a")
    stage.open_pair()
    write(stage, "x.py", "x\n")
    stage.send("claude", "plan")
    state = f"100644 {stage.git('rev-parse', 'HEAD:a')}"
    record_of = RELAY.record_of

    def forged(sidecar):
        record = record_of(sidecar)
        return record._replace(change_set=record.change_set._replace(files={name: state}))

    monkeypatch.setattr(RELAY, "record_of", forged)
    before = stage.snapshot(stage.shared), {*stage.folder.rglob("*")}
    row = stage.ok("claude", "show", "1", "--diff=base", "--json").json
    assert row["files"][0]["why"] and row["diff"] == ""
    assert (stage.snapshot(stage.shared), {*stage.folder.rglob("*")}) == before


def test_a_diff_leaves_nothing_behind(stage, asked, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {*tmp_path.iterdir()}
    assert "diff --git" in stage.ok("claude", "show", "2", "--diff=base").out
    assert {*tmp_path.iterdir()} == before


# ---- log


def story_in(stage):
    return stage.run("codex", "log", "-p", "--json").json


def test_a_round_is_a_request_and_its_answer(stage, reviewed):
    rounds = story_in(stage)["rounds"]
    stems = [[event["artifact"][:3] for event in each["events"]] for each in rounds]
    assert stems == [["001", "002"], ["003", "004"]] and [each["round"] for each in rounds] == [
        1,
        2,
    ]


def test_the_users_word_is_told_where_it_was_spoken(stage, reviewed):
    stage.ok("claude", "continue")
    events = [list(event) for each in story_in(stage)["rounds"] for event in each["events"]]
    assert events == [["artifact"]] * 4 + [["user"]]
    assert "the user decided to continue" in stage.ok("claude", "log").out


def test_an_artifact_says_what_changed_since_the_change_set_before(stage, reviewed):
    trees = [row["tree"] for row in story_in(stage)["artifacts"]]
    assert [(tree["against"], tree["moved"]) for tree in trees] == [
        (None, None),
        ("001-claude-plan", []),
        ("002-codex-review", ["pay.py"]),
        ("003-claude-fix", []),
    ]
    out = stage.ok("claude", "log").out
    assert out.count("      change set ") == 2, "only where it changed"
    assert "changed since 002: pay.py" in out


def test_a_finding_is_told_once_with_its_whole_fate(stage, reviewed):
    story = story_in(stage)
    words = [
        (word["name"][:3], word["verb"], word["text"]) for word in story["findings"][0]["words"]
    ]
    assert words == [("003", "fixed", "a guard"), ("004", "accepted", "")]
    raised = story["artifacts"][1]["record"]["findings"]
    assert [(f["id"], f["state"]) for f in raised] == [("2.1", "accepted"), ("2.2", "accepted")]
    out = stage.ok("claude", "log").out
    assert out.count("Divides by zero") == 1
    assert 'Resolved  2.1 blocker pay.py:1 "Divides by zero"' in out
    assert '      fixed in 003: "a guard"\n      accepted in 004\n' in out


def test_a_run_says_if_it_counts(stage, reviewed):
    runs = [(run["name"][:3], run["code"], run["counts"]) for run in story_in(stage)["runs"]]
    assert runs == [("002", 1, True), ("004", 0, True)]


def test_a_run_that_created_files_counts_in_the_log_as_in_the_approval(stage):
    stage.open_pair()
    write(stage, "pay.py", "one\n")
    stage.send("claude", "plan", "# Plan\n", "Review it")
    stage.ok("codex", "next")
    for created in ("a.cache", "b.cache"):
        stage.ok("codex", "run", "--", "sh", "-c", f"echo 1 >{created}")
    stage.send("codex", "review", "# Fine\n", "go", "--reply-to", "1", "--verdict", "approve")
    out = stage.ok("claude", "log").out
    assert "allowed: 2 runs on this change set: exit 0, exit 0" in out
    assert "does not count" not in out


def test_a_text_is_named_by_its_first_line_that_is_no_fence(stage, asked):
    body = "```dispositions\n2.1 fixed it\n2.2 fixed it\n2.3 fixed it\n```\n"
    stage.ok("claude", "next")
    stage.send("claude", "fix", body, "look", "--reply-to", "2")
    assert '"2.1 fixed it" (answers 002)' in stage.ok("claude", "log").out
    assert "```" not in stage.ok("claude", "status", "--last", "1").out


def test_what_is_cut_is_not_cut_within_an_escape(stage):
    stage.open_pair()
    stage.send("claude", "note", "".join(f"{'x' * n}\u200d" for n in range(8, 20)) * 3, "look")
    title = re.search(r'note +"(.*)\.\.\."', stage.ok("claude", "log").out)[1]
    assert re.fullmatch(r"(\w|\\u200d)+", title) and not re.search(r"\\\w{0,4}$", title)


def test_an_approval_says_why_it_was_allowed(stage, reviewed):
    assert [why["holds"] for why in story_in(stage)["artifacts"][3]["allowed"]] == [True] * 3
    out = stage.ok("claude", "log").out
    assert "allowed: the working tree was that of 003" in out
    assert "allowed: 1 run on this change set: exit 0" in out


def test_an_approval_that_the_record_does_not_bear_out_is_named(stage, reviewed):
    reseal(reviewed, "004-codex-review", lambda sidecar: sidecar | {"evidence": []})
    assert [why["holds"] for why in story_in(stage)["artifacts"][3]["allowed"]] == [False]
    assert "NOT SUPPORTED BY THE RECORD: " in stage.ok("claude", "log").out


def test_what_a_close_overrode_is_told(stage, reviewed):
    write(stage, "pay.py", "moved\n")
    stage.ok("claude", "close", "--outcome", "approve", "--force", "--reason", "urgent")
    story = story_in(stage)
    assert story["category"] == "closed" and story["closings"][0]["reason"] == "urgent"
    assert any("pay.py" in row["what"] and row["by"] == "claude" for row in story["overrides"])
    out = stage.ok("claude", "log", "--markdown").out
    assert "overridden by claude: " in out
    outcome = out.partition("### Findings")[0].lower()
    assert "forced against unmet conditions" in outcome and 'reason: "urgent"' in outcome
    assert "approved in" not in outcome


def test_each_artifact_but_the_latest_is_read_once_however_much_is_told_of_it(
    stage, reviewed, monkeypatch
):
    read = []
    read_file = RELAY.read_file

    def counting(path, *more, **options):
        read.append(path)
        return read_file(path, *more, **options)

    monkeypatch.setattr(RELAY, "read_file", counting)
    stage.ok("claude", "log", "-p")
    names = [path.rpartition("/")[2] for path in read]
    texts = [name for name in names if re.match(r"\d{3}-.*\.(md|json)$", name)]
    once = {name for name in texts if texts.count(name) == 1}
    assert len({*texts}) == 8
    assert all(n.startswith("004") for n in {*texts} - once), "the latest, to choose the pair"


def test_damage_and_loss_are_told_and_nothing_of_a_damaged_text(stage, reviewed):
    path = reviewed / "003-claude-fix.md"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"FORGED")
    for file in reviewed.glob("002-*"):
        file.unlink()
    for flags in ((), ("-p",), ("--markdown",), ("--json",)):
        done = stage.run("claude", "log", *flags)
        assert done.code == 1 and "FORGED" not in done.out, flags
    out = stage.run("claude", "log").out
    assert "LOST: 002-codex-review" in out and "003 claude  fix       DAMAGED: " in out
    assert [row["name"] for row in stage.run("claude", "log", "--json").json["lost"]] == [
        "002-codex-review"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("crossed", [False, True])
def test_a_finding_whose_review_is_damaged_is_open_wherever_findings_are_shown(stage, crossed):
    """Later artifacts carry it, without its details; also one before which another came late."""
    pair = stage.open_pair()
    (stage.project / "app.py").write_text("app\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.send("codex", "review", findings("blocker app.py:1 it is wrong", "  at length"))
    stage.ok("claude", "next")
    if crossed:
        late = stage.ok("claude", "claim", "--kind", "note").out.strip()
        prompt = stage.file("go\n", "prompt")
        stage.ok("claude", "draft", "set", late, "--prompt-for-next-file", prompt)
    stage.send("claude", "note", "# I see\n")
    if crossed:
        stage.ok("claude", "publish", late)
    path = pair / "002-codex-review.md"
    path.chmod(0o600)
    path.write_text("else\n")
    for words in (("status",), ("log",), ("log", "--markdown"), ("export", "--html", "-")):
        assert "1 blocker open" in (out := stage.run("claude", *words).out) or (
            "open findings: 1 blocker" in out
        ), words
    looks = [("findings",), ("findings", "--all"), ("log",), ("log", "--markdown")]
    looks += [("export", "--html", "-"), ("export", "--github"), ("export", "--sarif")]
    for words in looks:
        out = stage.run("claude", *words).out
        assert "it is wrong" in out and "at length" not in out, words


def test_texts_are_there_where_they_are_asked_for(stage, reviewed):
    assert "body" not in stage.ok("claude", "log", "--json").json["artifacts"][0]
    assert story_in(stage)["artifacts"][0]["body"] == "# Plan\n\nSplit a refund.\n"
    assert "| Split a refund." in stage.ok("claude", "log", "-p").out


def test_texts_are_behind_a_bar_that_they_cannot_leave(stage):
    stage.open_pair()
    text = "# T\nRound 9\n  closed as approve by claude\nLOST: x\n"
    stage.send("claude", "plan", text, "go\nRound 8")
    lines = stage.ok("codex", "log", "-p").out.split("\n")
    for forged in ("Round 9", "Round 8", "closed as approve", "LOST: x"):
        found = [line for line in lines if forged in line]
        assert found and all(line.startswith("      | ") for line in found), forged


@pytest.mark.parametrize("flag", ["-p", "--json"])
def test_markdown_goes_with_nothing_else(stage, reviewed, flag):
    assert "hint: " in stage.refused("claude", "log", "--markdown", flag).err


def test_log_takes_a_pair_by_its_name(stage, reviewed):
    stage.ok("claude", "close", "--reason", "x")
    stage.open_pair("other")
    assert stage.ok("claude", "log", reviewed.name).out.startswith(reviewed.name)
    assert stage.ok("claude", "log", "--json").json["pair"] != reviewed.name


# ---- the pull request


def test_the_markdown_has_findings_runs_verdict_and_how_to_check(stage, reviewed):
    out = stage.ok("claude", "log", "--markdown").out
    assert f"`relay verify --pair-id {reviewed.name}` checks this record" in out
    for line in (
        '- Resolved 2.1 blocker pay.py:1 "Divides by zero"\n  - fixed in 003: "a guard"\n  - accepted',
        'approve: "Answer" (answers 003)',
        ': "false"',
        "  - allowed: every blocker and major is settled",
    ):
        assert line in out, line
    words = r"change set [0-9a-f]{12}: 1 file against commit [0-9a-f]{12}; changed since 002"
    assert re.search(words, out)
    headings = re.findall(r"(?m)^#+ (.*?)(?:,.*)?$", out)
    assert headings[1:] == ["Outcome", "Findings", "Round 1", "Round 2"]


def test_nothing_of_the_authors_becomes_markup_a_link_or_a_mention(stage):
    evil = "<script>x</script> @octocat #12 GH-7 https://evil.example www.evil.example a|b "
    evil += '[x](http://e) ![i](u) `q\u202e & <!-- **b** \\| $x$ \\\\" end'
    write(stage, "x", "1")
    stage.ok("claude", "bootstrap", "--topic", "t", "--title", "T @all | <b>")
    stage.ok("codex", "next")
    stage.send("claude", "plan", f"# P {evil}\n")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "sh", "-c", "true | `cat` # @you <i>")
    body = findings(f"blocker a|b`c.py:1 {evil}", "nit - # head")
    stage.send("codex", "review", body, "x", "--verdict", "changes", "--not-run", "@me | <p>")
    stage.ok("claude", "close", "--reason", "# @all <hr> |", "--outcome", "x|y")
    out = stage.ok("claude", "log", "--markdown").out
    assert [c for c in out if c not in "\n\u200b" and not c.isprintable()] == []
    bare = re.sub(r"`(20\d\d-?\S+|relay verify [^`]*)`", "CODE", out)
    assert not re.search(r"<[a-z!/]|@\w|(?<!&)#\w|://|www\.|GH-7", bare)
    assert not re.search(r"(?<!\\)(\\\\)*[\[\]`*|$]", bare.replace("\\\n", ""))
    lines = [line for line in out.split("\n") if line and not re.match(r" *- |#{2,3} [ROF]", line)]
    assert all(line.startswith("`relay verify") for line in lines), lines


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("`a < b`", "\\`a &lt; b\\`"),
        ("a|b", "a\\|b"),
        ("a@b.c", "a@&#8203;b.c"),
        ("me/repo#1", "me/repo#&#8203;1"),
        ("mailto:x", "mailto:&#8203;x"),
        ("_www.x.com", "\\_www&#8203;.x.com"),
        (":+1: a:b :white_check_mark:", ":&#8203;+1: a:b :&#8203;white\\_check\\_mark:"),
        ("\\u202e", "\\\\u202e"),
        # A quote that in_quotes escaped closes nothing, neither on GitHub nor in the raw text.
        ('"a \\" b"', '"a \\\\&quot; b"'),
        ('"a \\\\"', '"a \\\\\\\\"'),
    ],
)
def test_a_word_in_markdown(text, markdown):
    assert RELAY.md_escaped(text) == markdown


def test_markdown_is_cut_to_what_github_takes(stage, monkeypatch):
    monkeypatch.setattr(RELAY, "GITHUB_CHARS", 2000)
    stage.open_pair()
    rows = [f"nit - finding {n} {'x' * 100}" for n in range(40)]
    stage.send("claude", "review", findings(*rows))
    out = stage.ok("claude", "log", "--markdown").out
    assert len(out) <= 2000 and "**Cut here**" in out and "finding 0 " in out


def test_a_pair_without_anything_has_a_story_too(stage):
    stage.open_pair()
    assert "### Findings\n\nNone." in stage.ok("claude", "log", "--markdown").out
    assert stage.ok("claude", "log", "--json").json["rounds"] == []


# ---- brief


def test_brief_is_two_kilobytes_at_most(stage):
    title = "\U0001f4dc" * 400
    stage.ok("claude", "bootstrap", "--topic", "t" * 48, "--title", title)
    stage.ok("codex", "next")
    for _ in range(15):
        stage.send("claude", "addendum", "# A\n", "read")
    pair = next(stage.shared.glob("2*"))
    stage.ok("codex", "next")
    for path in sorted(pair.glob("00*.md")):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes() + b"forged")
    for words in (("brief",), ("brief", "--json")):
        assert len(stage.ok("codex", *words).out.encode()) <= 2048, words
    assert "damaged" in stage.ok("codex", "brief").out


@pytest.mark.parametrize("where", ["nothing", "fresh", "waiting", "open", "over"])
def test_brief_says_who_where_and_the_next_command(stage, where):
    pair = None if where == "nothing" else stage.open_pair()
    if where in ("open", "waiting"):
        stage.send("claude", "plan")
    if where == "over":
        stage.ok("claude", "close", "--reason", "done")
    author = "claude" if where == "waiting" else "codex"
    done = stage.ok(author, "brief")
    assert f"you are {author}" in done.out and done.next == "next"
    assert not pair or (pair.name in done.out and "action: " in done.out)
    assert ("001 plan" in done.out) == (where in ("open", "waiting"))


@pytest.mark.parametrize("session", ['{"schema_version": 4}', "torn"])
def test_what_status_says_comes_next_works_for_a_pair_that_cannot_be_worked_in(stage, session):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    (pair / "session.json").write_text(session)
    for author, words in (("claude", ()), (None, (pair.name,))):
        row = stage.ok(author, "status", *words, "--json").json
        stage.ok(author, *row["next"].split()[1:])
        (pair / "session.json").write_text(session)
