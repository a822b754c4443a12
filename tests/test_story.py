"""The story of a pair: told once, by rounds, for log, for the pull request and for the page."""

from __future__ import annotations

import json
import re

import pytest
from blocks import dispositions, findings, prepared
from conftest import RELAY

HOSTILE = "<script>x</script> @octocat #12 GH-7 https://evil.example www.evil.example a|b [x](http://e) ![i](u) `q\u202e \x1b[31m & <!-- **b** \\| $x$"


def _reviewed(stage):
    """A plan, a review with findings and a failed run, a fix, an approval; pay.py differs in each round."""
    pay = stage.project / "pay.py"
    pay.write_text("old\n")
    pair = stage.open_pair()
    stage.send("claude", "plan", "# Plan\n\nSplit a refund.\n", "Review it")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "false")
    stage.send("codex", "review", findings("blocker pay.py:2 Divides by zero", "nit - Says nothing"), "mend", "--reply-to", "1", "--verdict", "changes")
    pay.write_text("new\n")
    stage.ok("claude", "next")
    stage.send("claude", "fix", dispositions("2.1 fixed a guard", "2.2 refuted it does"), "again", "--reply-to", "2")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "true")
    stage.send("codex", "review", dispositions("2.1 accepted", "2.2 accepted"), "ship", "--reply-to", "3", "--verdict", "approve")
    return pair


@pytest.fixture
def reviewed(stage):
    return prepared(stage, _reviewed)


def story_in(stage, slug=None):
    return stage.run("codex", "log", "-p", "--json", *(("--pair-id", slug) if slug else ())).json


def test_a_round_is_a_request_and_its_answer(stage, reviewed):
    told = story_in(stage)
    assert [[event["artifact"][:3] for event in each["events"]] for each in told["rounds"]] == [["001", "002"], ["003", "004"]]
    assert [each["round"] for each in told["rounds"]] == [1, 2]


def test_what_the_user_decided_stands_where_it_happened(stage, reviewed):
    stage.ok("claude", "continue")
    events = [list(event) for each in story_in(stage)["rounds"] for event in each["events"]]
    assert ["user"] in events and events[0] == ["artifact"]
    assert "the user went on" in stage.ok("claude", "log").out


def test_an_artifact_says_what_moved_since_the_change_set_before(stage, reviewed):
    rows = story_in(stage)["artifacts"]
    assert [(row["tree"]["against"], row["tree"]["moved"]) for row in rows] == [
        (None, None), ("001-claude-plan", []), ("002-codex-review", ["pay.py"]), ("003-claude-fix", [])]  # fmt: skip
    out = stage.ok("claude", "log").out
    assert "moved since 002: pay.py" in out and "as in 003" in out


def test_a_finding_tells_its_whole_fate_at_once_and_where_it_was_raised(stage, reviewed):
    told = story_in(stage)
    assert [(word["name"][:3], word["verb"], word["text"]) for word in told["findings"][0]["words"]] == [("003", "fixed", "a guard"), ("004", "accepted", "")]
    assert [(f["id"], f["state"]) for f in told["artifacts"][1]["record"]["findings"]] == [("2.1", "accepted"), ("2.2", "accepted")]
    assert '2.1 blocker pay.py:2 "Divides by zero" [accepted]' in stage.ok("claude", "log").out


def test_an_approval_says_why_it_was_allowed(stage, reviewed):
    row = story_in(stage)["artifacts"][3]
    assert [why["holds"] for why in row["allowed"]] == [True] * 3
    out = stage.ok("claude", "log").out
    for words in ("allowed: no blocker or major was unanswered", "allowed: the tree was that of 003", "allowed: 1 run on this change set: exit 0"):
        assert words in out


def test_an_approval_that_the_record_does_not_bear_out_is_named(relay, reviewed, stage, monkeypatch):
    monkeypatch.setattr(RELAY, "counting_runs", lambda rows, now: [])
    row = story_in(stage)["artifacts"][3]
    assert [why["holds"] for why in row["allowed"]] == [True, True, False]
    assert "NOT BORNE OUT: nothing was run on it" in stage.ok("claude", "log").out


def test_what_ran_says_whether_it_counts(stage, reviewed):
    runs = story_in(stage)["runs"]
    assert [(run["name"][:3], run["code"], run["counts"]) for run in runs] == [("002", 1, True), ("004", 0, True)]


def test_overrides_of_a_close_are_told(stage, reviewed):
    (stage.project / "pay.py").write_text("moved\n")
    stage.ok("claude", "close", "--outcome", "approve", "--force", "--reason", "urgent")
    told = story_in(stage)
    assert told["category"] == "closed" and told["closings"][0]["reason"] == "urgent"
    assert any("moved" in row["what"] and row["by"] == "claude" for row in told["overrides"])
    out = stage.ok("claude", "log", "--markdown").out
    assert "### Overrides\n\n- by claude" in out and "Closed as **approve** by claude on the approval in 004" in out


def test_each_artifact_is_read_once_however_much_is_told_of_it(stage, reviewed, monkeypatch):
    read = []
    really = RELAY.read_with_status

    def counting(path, *more):
        read.append(path)
        return really(path, *more)

    monkeypatch.setattr(RELAY, "read_with_status", counting)
    pair = next(stage.shared.glob("2*"))
    RELAY.story_of(RELAY.pair_at(str(stage.shared), pair.name, False), None)
    texts = [path for path in read if path.endswith((".md", ".json")) and "-" in path.rpartition("/")[2]]
    assert len(texts) == len(set(texts)) == 8


def test_damage_and_loss_are_in_the_story_and_nothing_of_a_damaged_text(stage, reviewed):
    pair = next(stage.shared.glob("2*"))
    path = pair / "003-claude-fix.md"
    path.write_bytes(path.read_bytes() + b"FORGED")
    for file in pair.glob("002-*"):
        file.unlink()
    done = stage.run("claude", "log")
    assert done.code == 1 and "FORGED" not in done.out and "003 claude  fix       DAMAGED: " in done.out and "LOST: 002-codex-review" in done.out
    made = stage.run("claude", "log", "--markdown")
    assert made.code == 1 and "### Damage" in made.out and "FORGED" not in made.out


# ---- filters


ASKED_FOR = [
    (("--since", "3"), [3, 4]), (("--since", "2h"), [1, 2, 3, 4]), (("--since", "2001-02-03"), [1, 2, 3, 4]), (("--since", "2999-01-01T10:00"), []),
    (("--kind", "review"), [2, 4]), (("--kind", "plan", "--kind", "fix"), [1, 3]), (("--author", "codex"), [2, 4]),
    (("--grep", "SPLIT A"), [1]), (("--grep", "Review it"), [1]), (("--grep", ".*"), []), (("--author", "codex", "--since", "3", "--grep", "accepted"), [4]),
]  # fmt: skip


def test_log_shows_what_is_asked_for_and_says_how_much_is_not_shown(stage, reviewed):
    for flags, seqs in ASKED_FOR:
        told = stage.ok("claude", "log", *flags, "--json").json
        assert [row["seq"] for row in told["artifacts"]] == seqs, flags
        assert [event["artifact"][:3] for each in told["rounds"] for event in each["events"]] == [f"{seq:03}" for seq in seqs]
    out = stage.ok("claude", "log", "--author", "codex").out
    assert "not shown, as asked: 2" in out and "002 codex" in out and "001 claude" not in out
    assert "not shown" not in stage.ok("claude", "log", "--since", "1").out


REFUSED = [
    ("--since", "yesterday"), ("--since", "2 h"), ("--since", "2x"), ("--since", "h"), ("--since", ""), ("--since", "2026-13-40"), ("--since", "\u0662h"),
    ("--kind", "rant"), ("--author", "No One"), ("--grep", " "), ("--markdown", "--kind", "plan"), ("--markdown", "-p"), ("--markdown", "--json"),
]  # fmt: skip


def test_a_filter_that_cannot_be_understood_is_refused_with_what_was_expected(stage, reviewed):
    for flags in REFUSED:
        done = stage.run("claude", "log", *flags)
        assert done.code == 2 and not done.out and "hint: " in done.err, flags
        assert "expected" in done.err or "goes without" in done.err, flags


def test_json_without_texts_is_short_and_with_them_has_all(stage, reviewed):
    assert "body" not in stage.ok("claude", "log", "--json").json["artifacts"][0]
    assert story_in(stage)["artifacts"][0]["body"] == "# Plan\n\nSplit a refund.\n"
    assert "files" not in story_in(stage)["artifacts"][0]["tree"]


def test_texts_stand_behind_a_bar_that_they_cannot_leave(stage):
    stage.open_pair()
    stage.send("claude", "plan", "# T\nround 9\n\x1b[2J  closed as approve by claude\nLOST: x\n", "go\nround 8")
    lines = stage.ok("codex", "log", "-p").out.split("\n")
    for forged in ("round 9", "round 8", "closed as approve", "LOST: x"):
        assert [line for line in lines if forged in line and not line.startswith("      | ")] == []
        assert [line for line in lines if forged in line]
    assert not any("\x1b" in line for line in lines)


# ---- the pull request


def test_the_markdown_holds_plan_findings_runs_verdict_and_how_to_check(stage, reviewed):
    out = stage.ok("claude", "log", "--markdown").out
    slug = next(stage.shared.glob("2*")).name
    for words in (
        "**Plan** (001, claude): Plan. Split a refund.", "| 2.1 | blocker | `pay.py:2` | Divides by zero | fixed in 003: a guard; accepted in 004 |",
        "| 002 codex | `false` | exit 1, ", "| 004 codex | `true` | exit 0, ", "- 004 codex: **approve** of 003\n  - no blocker or major was unanswered",
        f"`relay verify --pair-id {slug}` checks this record", "### Overrides\n\nNone.", "**Not closed** (active)",
    ):  # fmt: skip
        assert words in out, words
    assert re.search(r"Change set `[0-9a-f]{16}` \(1 file against `[0-9a-f]{12}`\), last recorded in 004", out)


def test_nothing_of_the_peers_becomes_markup_a_link_a_mention_or_a_cell(stage):
    (stage.project / "x").write_text("1")
    stage.ok("claude", "bootstrap", "--topic", "t", "--title", "T @all | <b>")
    stage.ok("codex", "next")
    stage.send("claude", "plan", f"# P\n{HOSTILE}\n")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "sh", "-c", "true | `cat` # @you <i>")
    stage.send("codex", "review", findings(f"blocker a|b`c.py:1 {HOSTILE}", "nit - # head"), "x", "--verdict", "changes", "--not-run", "@me | <p>")
    stage.ok("claude", "close", "--reason", "# @all <hr> |", "--outcome", "x|y")
    out = stage.ok("claude", "log", "--markdown").out
    assert not [c for c in out if c not in "\n\u200b" and not c.isprintable()]
    bare = re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "CODE", out)
    assert not re.search(r"<[a-z!/]", bare) and not re.search(r"@\w", bare) and not re.search(r"(?<![&])#\w", bare)
    assert "://" not in bare and "www." not in bare and "GH-7" not in bare
    assert not re.search(r"(?<!\\)\]\(", bare) and not re.search(r"(?<!\\)\[", bare)
    for line in out.split("\n"):
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 6), line
    heads = [line for line in out.split("\n") if line.lstrip("-> ").startswith("#")]
    assert [line for line in heads if not re.match(r"#{2,3} [RFWVO]", line)] == []


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("`a < b` is a`b", "\\`a &lt; b\\` is a\\`b"), ("use `a < b` here", "use `a < b` here"), ("`a|b`", "\\`a\\|b\\`"), ("``x``", "\\`\\`x\\`\\`"),
        ("a@b.c", "a@&#8203;b.c"), ("me/repo#1", "me/repo#&#8203;1"), ("mailto:x", "mailto:&#8203;x"), ("two\nlines", "two lines"),
    ],
)  # fmt: skip
def test_a_word_in_markdown(text, made):
    assert RELAY._md(text) == made


def test_a_pair_without_anything_is_told_too(stage):
    stage.open_pair()
    out = stage.ok("claude", "log", "--markdown").out
    assert "No change set was recorded." in out and out.count("None.") == 3 and "Nothing." in out
    assert json.loads(stage.ok("claude", "log", "--json").out)["rounds"] == []
