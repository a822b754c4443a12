"""The story of a pair: told once, by rounds, for log, for the pull request and for the page."""

from __future__ import annotations

import pytest
from helpers.blocks import dispositions, findings, prepared

HOSTILE = "<script>x</script> @octocat #12 GH-7 https://evil.example www.evil.example a|b [x](http://e) ![i](u) `q\u202e \x1b[31m & <!-- **b** \\| $x$"


def _reviewed(stage):
    """A plan, a review with findings and a failed run, a fix, an approval; pay.py differs in each round."""
    pay = stage.project / "pay.py"
    pay.write_text("old\n")
    pair = stage.open_pair()
    stage.send("claude", "plan", "# Plan\n\nSplit a refund.\n", "Review it")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "false")
    stage.send(
        "codex",
        "review",
        findings("blocker pay.py:2 Divides by zero", "nit - Says nothing"),
        "mend",
        "--reply-to",
        "1",
        "--verdict",
        "changes",
    )
    pay.write_text("new\n")
    stage.ok("claude", "next")
    stage.send(
        "claude",
        "fix",
        dispositions("2.1 fixed a guard", "2.2 refuted it does"),
        "again",
        "--reply-to",
        "2",
    )
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "true")
    stage.send(
        "codex",
        "review",
        dispositions("2.1 accepted", "2.2 accepted"),
        "ship",
        "--reply-to",
        "3",
        "--verdict",
        "approve",
    )
    return pair


@pytest.fixture
def reviewed(stage):
    return prepared(stage, _reviewed)


def story_in(stage, slug=None):
    return stage.run("codex", "log", "-p", "--json", *(("--pair-id", slug) if slug else ())).json


def test_a_round_is_a_request_and_its_answer(stage, reviewed):
    told = story_in(stage)
    assert [[event["artifact"][:3] for event in each["events"]] for each in told["rounds"]] == [
        ["001", "002"],
        ["003", "004"],
    ]
    assert [each["round"] for each in told["rounds"]] == [1, 2]


def test_a_finding_tells_its_whole_fate_at_once_and_where_it_was_raised(stage, reviewed):
    told = story_in(stage)
    assert [
        (word["name"][:3], word["verb"], word["text"]) for word in told["findings"][0]["words"]
    ] == [("003", "fixed", "a guard"), ("004", "accepted", "")]
    assert [(f["id"], f["state"]) for f in told["artifacts"][1]["record"]["findings"]] == [
        ("2.1", "accepted"),
        ("2.2", "accepted"),
    ]
    assert '2.1 blocker pay.py:2 "Divides by zero" [accepted]' in stage.ok("claude", "log").out


def test_what_ran_says_whether_it_counts(stage, reviewed):
    runs = story_in(stage)["runs"]
    assert [(run["name"][:3], run["code"], run["counts"]) for run in runs] == [
        ("002", 1, True),
        ("004", 0, True),
    ]


# ---- filters


ASKED_FOR = [
    (("--since", "3"), [3, 4]),
    (("--since", "2h"), [1, 2, 3, 4]),
    (("--since", "2001-02-03"), [1, 2, 3, 4]),
    (("--since", "2999-01-01T10:00"), []),
    (("--kind", "review"), [2, 4]),
    (("--kind", "plan", "--kind", "fix"), [1, 3]),
    (("--author", "codex"), [2, 4]),
    (("--grep", "SPLIT A"), [1]),
    (("--grep", "Review it"), [1]),
    (("--grep", ".*"), []),
    (("--author", "codex", "--since", "3", "--grep", "accepted"), [4]),
]


REFUSED = [
    ("--since", "yesterday"),
    ("--since", "2 h"),
    ("--since", "2x"),
    ("--since", "h"),
    ("--since", ""),
    ("--since", "2026-13-40"),
    ("--since", "\u0662h"),
    ("--kind", "rant"),
    ("--author", "No One"),
    ("--grep", " "),
    ("--markdown", "--kind", "plan"),
    ("--markdown", "-p"),
    ("--markdown", "--json"),
]


def test_json_without_texts_is_short_and_with_them_has_all(stage, reviewed):
    assert "body" not in stage.ok("claude", "log", "--json").json["artifacts"][0]
    assert story_in(stage)["artifacts"][0]["body"] == "# Plan\n\nSplit a refund.\n"
    assert "files" not in story_in(stage)["artifacts"][0]["tree"]


# ---- the pull request
