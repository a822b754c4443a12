"""Findings and their fate: the grammar, who may say what, numbers that last, and one state in whatever order files come."""

from __future__ import annotations

import json
import random
import re
import shutil
from types import SimpleNamespace

import pytest
from conftest import RELAY, SCRIPT, seeds
from helpers.blocks import asked, dispositions, findings, lines_of, prepared, sidecar, states, tried

# ---- grammar: a finding


@pytest.fixture
def reviewed(stage):
    """Sends a review of this body, returns what was recorded of it."""
    path = asked(stage)

    def send(body, author="codex"):
        stage.send(author, "review", body)
        last = max(int(found.name[:3]) for found in path.glob("*.ready"))
        return sidecar(path, last)

    return send


PLACES = {
    "-": ("", ""),
    "src/pay.py": ("src/pay.py", ""),
    "src/pay.py:120": ("src/pay.py", "120"),
    "src/pay.py:120-140": ("src/pay.py", "120-140"),
    "c:/x.py:3": ("c:/x.py", "3"),
    "a:b": ("a:b", ""),
    "köln/straße.py:7": ("köln/straße.py", "7"),
    '"docs/api page.md"': ("docs/api page.md", ""),
    '"docs/api page.md":3': ("docs/api page.md", "3"),
    '"docs/api page.md":3-9': ("docs/api page.md", "3-9"),
    '"a\\"b\\\\c"': ('a"b\\c', ""),
    '"tab\\there":1': ("tab\there", "1"),
    '"line\\nbreak"': ("line\nbreak", ""),
    '"k\\303\\266ln"': ("köln", ""),
    '"-"': ("-", ""),
    '"a:12"': ("a:12", ""),
}


def test_every_form_of_a_place_is_read(stage, reviewed):
    for path, _ in PLACES.values():
        if path and not (stage.project / path).exists():
            (stage.project / path).parent.mkdir(parents=True, exist_ok=True)
            (stage.project / path).write_text("line\n" * 200)
    rows = reviewed(findings(*(f"nit {place} Text" for place in PLACES)))["findings"]
    assert [(row["path"], row["line"]) for row in rows] == list(PLACES.values())
    assert {row["text"] for row in rows} == {"Text"}


def test_tabs_and_runs_of_blanks_part_the_words_of_a_line(reviewed):
    rows = reviewed(
        findings("minor\ta.py:1\tOne", "minor   a.py:2    Two  words ", 'minor\t"a b":3\tThree')
    )["findings"]
    assert [(row["path"], row["line"], row["text"]) for row in rows] == [
        ("a.py", "1", "One"),
        ("a.py", "2", "Two  words"),
        ("a b", "3", "Three"),
    ]


def test_indented_lines_go_on_with_the_finding_above_and_blank_ones_part_nothing(reviewed):
    rows = reviewed(
        findings("", "minor a.py:1 One", "  saw: 1", "", "\twanted: 2", "", "minor a.py:2 Two")
    )["findings"]
    assert [row["detail"] for row in rows] == ["saw: 1\nwanted: 2", ""]


def test_a_body_with_carriage_returns_records_the_same(reviewed):
    body = findings("blocker a.py:1 One", "  detail", "", 'nit "a b":2 Two')
    plain = reviewed(body)["findings"]
    assert reviewed(body.replace("\n", "\r\n"), "claude")["findings"] == plain
    assert len(plain) == 2


def test_several_blocks_of_both_kinds_count_in_order(stage, reviewed):
    reviewed(findings("minor - One"))
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    body = (
        findings("minor - Two")
        + "\nand\n\n"
        + dispositions("2.1 accepted")
        + "\n"
        + findings("minor - Three")
    )
    record = reviewed(body)
    assert [row["text"] for row in record["findings"]] == ["Two", "Three"]
    assert [row["id"] for row in record["dispositions"]] == ["2.1"]


def test_a_review_sent_once_more_with_a_verdict_records_no_finding_twice(stage, reviewed):
    body = findings("blocker a.py:1 One", "minor - Two")
    reviewed(body)
    refused = stage.run(
        "codex",
        "send",
        "--kind",
        "review",
        "--verdict",
        "changes",
        "--file",
        stage.file(body, "again.md"),
        "--next",
        "mend",
    )
    assert (
        refused.code == 2
        and "line 4: that is 2.1 already, and unanswered" in refused.err
        and "that is 2.2 already" in refused.err
    )
    alone = stage.ok(
        "codex",
        "send",
        "--kind",
        "review",
        "--verdict",
        "changes",
        "--file",
        stage.file("# So\n"),
        "--next",
        "mend",
    )
    assert "no findings" not in alone.err, "what is to be changed stands in 002"
    stage.send("claude", "fix", dispositions("2.1 fixed so", "2.2 fixed so"))
    answered = tried(stage, "codex", "review", body)
    assert answered.code == 2 and "`2.1 reopened WHY`" in answered.err
    record = reviewed(dispositions("2.1 reopened still there", "2.2 accepted"))
    assert [row["verb"] for row in record["dispositions"]] == ["reopened", "accepted"]


def test_a_review_all_of_whose_findings_are_settled_says_where_they_are(stage, reviewed):
    reviewed(findings("minor - One"))
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    reviewed(dispositions("2.1 accepted"))
    told = stage.ok("codex", "findings")
    assert re.fullmatch(r"none open; 1 resolved: \S*relay findings --all\n", told.out)
    assert stage.ok("codex", "findings", "--json").json["settled"] == 1


def test_a_tilde_fence_and_a_longer_one_open_a_block_too(reviewed):
    body = "~~~findings\nminor - One\n~~~\n\n`````findings\nminor - Two\n`````\n\n``` findings\nminor - Three\n```\n"
    assert [row["text"] for row in reviewed(body)["findings"]] == ["One", "Two", "Three"]


TEXT_ONLY = {
    "in the middle of a line": "write ```findings blocker - No``` for that\n",
    "another word": "```python\nblocker - No\n```\n",
    "below the prompt's heading": "see\n\n```text\n## Next\n```\n",
}
NOT_AT_THE_MARGIN = {
    "quoted": "> ```findings\n> blocker - No\n> ```\n",
    "in a longer fence": "````\n```findings\nblocker - No\n```\n````\n",
    "in a longer fence with a word": "`````markdown\n```findings\nblocker - No\n```\n`````\n",
    "in tildes": "~~~\n```findings\nblocker - No\n```\n~~~\n",
    "tildes in backticks": "```\n~~~findings\nblocker - No\n~~~\n```\n",
    "indented": "1. as so:\n\n   ```findings\n   blocker - No\n   ```\n",
    "indented as code": "as so:\n\n    ```findings\n    blocker - No\n    ```\n",
}


def test_what_is_no_block_is_text(reviewed):
    for how, text in TEXT_ONLY.items():
        record = reviewed(f"# Review\n\n{text}")
        assert record["findings"] == [] and record["open"] == [], how


@pytest.mark.parametrize("fence", ["", "```\n"])
@pytest.mark.parametrize(
    "begins, fills, ends",
    [
        ("blocker", " ", ""),
        ("blocker ", "!", ""),
        ("blocker ", "/", ""),
        ("> ", "`", "x"),
        ("", "~ ", "findings x"),
        ("", "1 ", ""),
        ("a", ":1", ""),
        ("a:1", " :", ""),
        ("", "<a", ""),
        ("", "<a b", ">"),
    ],
)
def test_the_longest_line_is_read_in_one_pass(relay, fence, begins, fills, ends):
    """A peer's line that took the square of its length would stop `verify` for hours."""
    line = begins + fills * (1 << 19) + ends
    assert not relay.parse_record(fence + line).findings


def test_a_block_that_is_not_at_the_margin_is_refused_with_its_line(stage):
    path = asked(stage)
    for how, text in NOT_AT_THE_MARGIN.items():
        refused = tried(stage, "codex", "review", f"# R\n\n{text}")
        fence = f"# R\n\n{text}".split("\n").index(
            next(line for line in text.split("\n") if "findings" in line)
        )
        assert refused.code == 2 and lines_of(refused)[0] == fence + 1, (how, refused)
    assert len(list(path.glob("*.ready"))) == 1


@pytest.mark.parametrize(
    "before",
    ["```python\nprint(1)\n", "text\n\n    ```\n    code\n"],
    ids=["unclosed fence", "indented fence"],
)
def test_a_block_that_a_fence_above_swallows_is_not_dropped_in_silence(stage, before):
    """A reviewer who forgot to close a fence must hear that the blocker below it was not recorded."""
    path = asked(stage)
    told = tried(stage, "codex", "review", f"# R\n\n{before}\n{findings('blocker a.py:1 Boom')}")
    assert told.code != 0 or sidecar(path, 2)["findings"] or "findings block" in told.out, told


# ---- grammar: what is refused, with its line


MALFORMED = {
    "critical a.py:1 Text": "expected `SEVERITY PLACE TEXT`",
    "- a.py:1 Text": "expected `SEVERITY PLACE TEXT`",
    "blocker": "expected `SEVERITY PLACE TEXT`",
    "blocker a.py:1": "expected `SEVERITY PLACE TEXT`",
    "blocker -": "expected `SEVERITY PLACE TEXT`",
    'blocker "a b:1 Text': 'ends with "',
    'blocker "a b"x Text': '"PATH":LINE',
    'blocker "a b":x Text': ":LINE or :FROM-TO",
    'blocker "a b":1-x Text': ":LINE or :FROM-TO",
    'blocker "" Text': '"PATH":LINE',
    'blocker "a\\qb" Text': "git's escapes",
    'blocker "a\\999" Text': "git's escapes",
    "blocker :12 Text": "PATH:LINE or PATH:FROM-TO",
    "blocker a.py:12:4 Text": "PATH:LINE or PATH:FROM-TO",
    "blocker a.py:1 " + "x" * 1001: "longer than 1000 characters",
}


def test_all_malformed_lines_are_told_at_once_and_nothing_is_written(stage):
    path = asked(stage)
    before = stage.snapshot(path)
    told = tried(
        stage,
        "codex",
        "review",
        findings("minor - Fine", *MALFORMED, "  detail of a bad one", "nit - Fine too"),
    )
    assert told.code == 2 and lines_of(told) == list(range(5, 5 + len(MALFORMED)))
    assert "try-1.md, line 5: " in told.err and "nothing was published" in told.err
    assert {key: held[2] for key, held in stage.snapshot(path).items()} == {
        key: held[2] for key, held in before.items()
    }


def test_a_list_a_colon_and_a_capital_are_understood(stage, reviewed):
    rows = reviewed(
        findings(
            "- blocker a.py:1: One",
            "2. **Major**: b.py Two",
            "minor -: Three",
            "  - a detail",
            "nit b.py:1 - `Four`",
        )
    )["findings"]
    assert [
        (row["severity"], row["path"], row["line"], row["text"], row["detail"]) for row in rows
    ] == [
        ("blocker", "a.py", "1", "One", ""),
        ("major", "b.py", "", "Two", ""),
        ("minor", "", "", "Three", "- a detail"),
        ("nit", "b.py", "1", "- `Four`", ""),  # As 2.0 recorded it: `verify` compares.
    ]
    stage.send(
        "claude", "fix", dispositions("- 2.1: fixed: so", "**2.2**: Refuted no", "* 2.3 fixed so")
    )
    assert states(stage) == {"2.1": "fixed", "2.2": "refuted", "2.3": "fixed", "2.4": "open"}


def test_a_review_that_reopens_a_finding_has_recorded_one(stage):
    asked(stage)
    stage.send("codex", "review", findings("major - x", "nit - y"))
    stage.ok("claude", "next")
    stage.send("claude", "fix", dispositions("2.1 fixed so", "2.2 fixed so"))
    stage.ok("codex", "next")
    for verb, warns in (("2.1 reopened WHY", False), ("2.1 accepted", True)):
        words = ("review", dispositions(verb), "--verdict", "changes", "--dry-run")
        done = stage.try_send("codex", *words)
        assert done.code == 0 and ("no findings were recorded" in done.out) == warns, done


def test_a_fix_that_answers_nothing_says_what_is_still_unanswered(stage, reviewed):
    reviewed(findings("minor - One", "minor - Two", "minor - Three"))
    told = tried(stage, "claude", "fix", dispositions("2.2 fixed so"))
    assert told.code == 0 and "still unanswered: 2.1, 2.3" in told.out
    assert "\nrecorded: 2.2 fixed\n" in told.out


BAD_DISPOSITIONS = (
    "2.1",
    "2.1 done it",
    "2 fixed it",
    "x.1 fixed it",
    "2.x fixed it",
    "fixed 2.1 it",
    "2.1 fixed",
    "2.1 reopened",
    "2.1 wontfix",
    "2.1 deferred",
    "2.1 refuted",
)


def test_malformed_dispositions_are_told_at_once_with_the_right_form(stage):
    path = asked(stage)
    stage.send("codex", "review", findings("minor - One"))
    told = tried(stage, "claude", "fix", dispositions(*BAD_DISPOSITIONS))
    assert told.code == 2 and lines_of(told) == list(range(4, 4 + len(BAD_DISPOSITIONS)))
    assert (
        "expected `ID VERB TEXT`" in told.err
        and "2.1 reopened: say what new evidence there is" in told.err
    )
    assert len(list(path.glob("*.ready"))) == 2


FENCES = {
    "unclosed": ("```findings\nminor - One\n", 3),
    "closed by a shorter fence": ("````findings\nminor - One\n```\n", 3),
    "singular": ("```finding\nminor - One\n```\n", 3),
    "capital": ("```Findings\nminor - One\n```\n", 3),
    "with words": ("```findings of mine\nminor - One\n```\n", 3),
    "doubled letter": ("```dispositionss\n2.1 fixed x\n```\n", 3),
    "first line indented": ("```findings\n  minor - One\n```\n", 4),
}


def test_a_block_with_a_wrong_fence_is_refused_with_its_line(stage):
    path = asked(stage)
    for how, (text, line) in FENCES.items():
        told = tried(stage, "codex", "review", f"# Review\n\n{text}")
        assert told.code == 2 and line in lines_of(told), (how, told)
    assert len(list(path.glob("*.ready"))) == 1


def test_findings_stand_in_reviews_alone(stage):
    asked(stage)
    told = tried(stage, "codex", "fix", findings("minor - One"))
    assert told.code == 2 and "line 4: findings belong in a review; this is a fix" in told.err


def test_a_standard_input_has_line_numbers_too(stage):
    asked(stage)
    told = stage.run(
        "codex",
        "send",
        "--kind",
        "review",
        "--file",
        "-",
        "--next",
        "x",
        stdin=findings("bad").encode(),
    )
    assert told.code == 2 and "-, line 4: 'bad' is not a severity" in told.err


@pytest.mark.parametrize("cwd", ["project", "draft"])
def test_publish_names_the_line_of_the_draft_file_and_keeps_the_draft(stage, cwd):
    path = asked(stage)
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    stage.ok(
        "codex",
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file(findings("minor - One", "bad line")),
        "--prompt-for-next-file",
        stage.file("go\n", "p"),
    )
    file = path / ".draft" / "002-codex-review.md"
    held = file.read_bytes()
    given, folder = (draft, stage.project) if cwd == "project" else (file.name, file.parent)
    told = stage.run("codex", "publish", given, cwd=folder)
    number = held.decode().split("\n").index("bad line") + 1
    assert told.code == 2 and lines_of(told) == [number]
    assert file.read_bytes() == held and not list(path.glob("002-*"))
    file.write_bytes(held.replace(b"bad line", b"nit - Two"))
    stage.ok("codex", "publish", given, cwd=folder)
    assert [row["text"] for row in sidecar(path, 2)["findings"]] == ["One", "Two"]


def test_there_is_a_limit_to_how_many_and_how_long_findings_are(stage):
    path = asked(stage)
    told = tried(stage, "codex", "review", findings(*(f"nit - {n}" for n in range(201))))
    assert told.code == 2 and "more than 200 findings" in told.err
    assert tried(stage, "codex", "review", findings("nit - " + "x" * 1001)).code == 2
    assert (
        tried(
            stage,
            "codex",
            "review",
            findings(f"nit {'x' * 100_000} Every later sidecar would carry this path"),
        ).code
        == 2
    )
    assert not list(path.glob("002*"))


def test_many_findings_are_shown_in_bounds(stage):
    asked(stage)
    stage.send("codex", "review", findings(*(f"minor - {n}" for n in range(200))))
    told = stage.ok("claude", "next").out.partition("---- ")[0]
    assert "open: 200 minor" in told
    assert f'  2.20 minor - "19"\n  and 180 more: {SCRIPT} findings\n' in told
    assert len(stage.ok("claude", "brief").out.encode()) <= 2048
    assert len(stage.ok("claude", "findings").out.splitlines()) == 200


# ---- who may say what


VERBS = ("fixed", "refuted", "deferred", "wontfix", "accepted", "reopened", "withdrawn")
ALL_STATES = (
    "open",
    "fixed",
    "refuted",
    "deferred",
    "wontfix",
    "accepted",
    "reopened",
    "withdrawn",
)
ANSWERED = {"fixed", "refuted", "deferred", "wontfix"}
MAY = {
    "claude": {verb: set(ALL_STATES) - {"accepted", "withdrawn"} for verb in ANSWERED},
    "codex": {
        "accepted": ANSWERED,
        "reopened": ANSWERED | {"accepted", "withdrawn"},
        "withdrawn": ANSWERED | {"open", "reopened"},
    },
}


def in_every_state(stage):
    """A pair with a finding of codex's, 2.1 to 2.8, in each state."""
    path = prepared(stage, _in_every_state)
    assert list(states(stage).values()) == list(ALL_STATES)
    return path


def _in_every_state(stage):
    path = asked(stage)
    stage.send("codex", "review", findings(*(f"minor - {state}" for state in ALL_STATES)))
    stage.send(
        "claude",
        "fix",
        dispositions(
            "2.2 fixed x",
            "2.3 refuted x",
            "2.4 deferred x",
            "2.5 wontfix x",
            "2.6 fixed x",
            "2.7 fixed x",
        ),
    )
    stage.send("codex", "review", dispositions("2.6 accepted", "2.7 reopened x", "2.8 withdrawn"))
    return path


def test_each_side_may_say_of_each_state_what_is_its_own_to_say(stage):
    in_every_state(stage)
    wrong = []
    for author in ("claude", "codex"):
        for verb in VERBS:
            told = tried(
                stage,
                author,
                "note",
                dispositions(*(f"2.{n} {verb} so it is" for n in range(1, 9))),
                "--dry-run",
            )
            allowed = {state for n, state in enumerate(ALL_STATES, 4) if n not in lines_of(told)}
            wrong += [] if allowed == MAY[author].get(verb, set()) else [(author, verb, allowed)]
    assert wrong == []


def test_a_refused_disposition_says_whose_it_is_and_what_would_be_right(stage):
    in_every_state(stage)
    told = tried(
        stage,
        "claude",
        "fix",
        dispositions(
            "2.1 withdrawn",
            "2.6 fixed x",
            "9.1 fixed x",
            "2.99 fixed x",
            "2.1 fixed x",
            "2.1 fixed y",
        ),
    )
    assert told.code == 2 and lines_of(told) == [4, 5, 6, 7, 8, 9]
    for words in (
        f"2.1 is codex's finding; yours to say: {', '.join(RELAY.ANSWERS)}",
        "2.6 is settled (accepted); only codex can reopen it",
        "there is no finding 9.1",
        "there is no finding 2.99",
        "2.1 is answered twice",
    ):
        assert words in told.err, words


def test_a_finding_cannot_be_answered_in_the_text_that_raises_it(stage):
    asked(stage)
    told = tried(
        stage, "codex", "review", findings("minor - One") + "\n" + dispositions("2.1 withdrawn")
    )
    assert told.code == 2 and "there is no finding 2.1" in told.err


def test_leaving_a_grave_finding_is_the_users_to_say(stage):
    asked(stage)
    stage.send("codex", "review", findings("blocker - One", "major - Two", "minor - Three"))
    stage.ok("claude", "next")
    told = tried(
        stage, "claude", "fix", dispositions(*(f"2.{n} wontfix too dear" for n in (1, 2, 3)))
    )
    assert told.code == 2 and lines_of(told) == [4, 5]
    assert (
        "a blocker can be left only by the user" in told.err
        and "a major can be left only by the user" in told.err
    )
    stage.ok("claude", "continue")
    stage.send("claude", "fix", dispositions("2.1 wontfix too dear"))
    assert states(stage)["2.1"] == "wontfix"


def test_a_user_who_spoke_before_the_finding_did_not_decide_on_it(stage):
    asked(stage)
    stage.ok("claude", "continue")
    stage.send("codex", "review", findings("blocker - One"))
    assert tried(stage, "claude", "fix", dispositions("2.1 wontfix too dear")).code == 2


def test_a_user_who_spoke_before_the_new_evidence_did_not_decide_on_it(stage):
    asked(stage)
    stage.send("codex", "review", findings("blocker - One"))
    stage.ok("claude", "next")
    stage.ok("claude", "continue")
    stage.send("claude", "fix", dispositions("2.1 wontfix too dear"))
    stage.send("codex", "review", dispositions("2.1 reopened it loses money"))
    stage.ok("claude", "next")
    assert tried(stage, "claude", "fix", dispositions("2.1 wontfix still too dear")).code == 2
    stage.ok("claude", "continue")
    assert tried(stage, "claude", "fix", dispositions("2.1 wontfix the user insists")).code == 0


# ---- numbers


def test_findings_are_numbered_by_review_and_place_and_told_when_sent(stage):
    asked(stage)
    assert (
        "recorded: 2.1 blocker, 2.2 nit"
        in stage.send("codex", "review", findings("blocker - One", "nit - Two")).out
    )
    assert "recorded: 3.1 minor" in stage.send("codex", "review", findings("minor - Three")).out
    assert list(states(stage)) == ["2.1", "2.2", "3.1"]


def doubled(stage, first, second):
    """A pair where each side, apart from the other, gave out the same number."""
    path = asked(stage)
    away = stage.folder / "away"
    shutil.copytree(path, away / path.name)
    stage.send("codex", "review", first)
    for found in sorted(path.glob("002-*")):
        shutil.move(found, away / found.name)
    shutil.rmtree(path / ".sent")
    shutil.rmtree(stage.project / ".git/relay", ignore_errors=True)
    stage.ok("claude", "next")
    stage.send("claude", "review", second)
    for found in sorted(away.glob("002-*"), key=lambda found: found.suffix == ".ready"):
        shutil.move(found, path / found.name)
    assert [found.name for found in sorted(path.glob("002-*.ready"))] == [
        "002-claude-review.ready",
        "002-codex-review.ready",
    ]
    return path


def test_no_finding_is_lost_where_two_reviews_have_one_number(stage):
    doubled(stage, findings("blocker - Of codex"), findings("blocker - Of claude"))
    rows = stage.ok("claude", "findings", "--json").json["findings"]
    assert sorted(row["text"] for row in rows) == ["Of claude", "Of codex"]
    assert len({row["id"] for row in rows}) == 2 and all(
        row["id"].startswith("2c") and row["id"].endswith(".1") for row in rows
    )


def test_where_a_number_stands_twice_the_id_says_which_and_can_be_answered(stage):
    doubled(stage, findings("blocker - Of codex"), findings("blocker - Of claude"))
    mine = next(
        row["id"]
        for row in stage.ok("claude", "findings", "--json").json["findings"]
        if row["finder"] == "codex"
    )
    assert tried(stage, "claude", "fix", dispositions("2.1 fixed so")).code == 2
    stage.send("claude", "fix", dispositions(f"{mine} fixed so"))
    rows = {
        row["text"]: row["state"]
        for row in stage.ok("claude", "findings", "--json", "--all").json["findings"]
    }
    assert rows == {"Of claude": "open", "Of codex": "fixed"}


def test_an_answer_given_before_a_number_was_doubled_stays_with_its_finding(stage):
    path = asked(stage)
    stage.send("codex", "review", findings("minor - Of codex"))
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    for suffix in (
        "json",
        "md",
        "md.sha256",
        "ready",
    ):  # An artifact of 1.x of the same number arrives from elsewhere.
        if suffix == "md":
            text = (
                (path / "001-claude-plan.md")
                .read_text()
                .replace("seq: 1\n", "seq: 2\n")
                .replace("kind: plan", "kind: note")
            )
            text = "\n".join(
                line
                for line in text.split("\n")
                if not line.startswith(
                    ("sidecar_sha256", "changeset", "base_commit", "head_commit")
                )
            )
            (path / "002-claude-note.md").write_text(text)
            (path / "002-claude-note.md.sha256").write_text(RELAY.sha256(text.encode()) + "\n")
            (path / "002-claude-note.ready").touch()
    rows = stage.ok("claude", "findings", "--json", "--all").json["findings"]
    assert [(row["text"], row["state"]) for row in rows] == [("Of codex", "fixed")] and rows[0][
        "id"
    ].startswith("2c")


# ---- carried


def test_the_open_findings_are_carried_in_every_sidecar(stage):
    path = asked(stage)
    stage.send("codex", "review", findings("blocker a.py:1 One", "nit - Two"))
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    stage.send("claude", "note")
    for number, wanted in ((2, ["open", "open"]), (3, ["fixed", "open"]), (4, ["fixed", "open"])):
        assert [row["state"] for row in sidecar(path, number)["open"]] == wanted
    stage.send("codex", "review", dispositions("2.1 accepted"))
    last = sidecar(path, 5)
    assert [row["id"] for row in last["open"]] == ["2.2"] and [
        row["id"] for row in last["settled"]
    ] == ["2.1"]
    assert states(stage, "--open") == {"2.2": "open"}


def test_many_settled_findings_stay_countable_and_can_be_reopened(stage):
    path = asked(stage)
    stage.send("codex", "review", findings(*(f"nit - {n}" for n in range(40))))
    stage.send("codex", "review", dispositions(*(f"2.{n} withdrawn" for n in range(1, 41))))
    held = sidecar(path, 3)
    assert held["open"] == [] and len(held["settled"]) == 20 and held["more_settled"] == 20
    assert len(states(stage, "--all")) == 40
    stage.send("codex", "review", dispositions("2.1 reopened it is back"))
    assert states(stage, "--open") == {"2.1": "reopened"}
    held = sidecar(path, 4)
    assert len(held["settled"]) + held["more_settled"] == 39


def test_a_finding_of_a_damaged_review_is_back_when_the_review_is(stage):
    """What was told without a damaged artifact must not be taken for the whole once it is restored."""
    path = asked(stage)
    stage.send("codex", "review", findings("blocker a.py:1 Boom"))
    stage.ok("claude", "next")
    file = path / "002-codex-review.md"
    held = file.read_bytes()
    file.write_bytes(b"damaged")
    stage.ok("claude", "continue")
    stage.send("claude", "fix")
    file.write_bytes(held)
    assert states(stage, "--open") == {"2.1": "open"}


def test_reopened_with_evidence_a_finding_keeps_its_number_and_counts(stage):
    asked(stage)
    stage.send("codex", "review", findings("blocker a.py:1 One"))
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    stage.send("codex", "review", dispositions("2.1 reopened still fails for -1"))
    row = stage.ok("claude", "findings", "--open", "--json").json["findings"][0]
    assert (row["id"], row["state"], row["answer"], row["by"], row["reopened"]) == (
        "2.1",
        "reopened",
        "still fails for -1",
        "004-codex-review",
        1,
    )


# ---- shown


def test_every_severity_is_recorded_listed_and_exported(stage):
    stage.open_pair()
    stage.send("claude", "review", findings(*(f"{s} - Text of {s}" for s in RELAY.SEVERITIES)))
    rows = stage.ok("claude", "findings", "--json").json["findings"]
    assert [(row["severity"], row["path"], row["line"], row["text"]) for row in rows] == [
        (severity, "", "", f"Text of {severity}") for severity in RELAY.SEVERITIES
    ]
    for form in (("--sarif",), ("--github",), ("--html", "-")):
        exported = stage.ok("claude", "export", *form).out
        assert all(f"Text of {severity}" in exported for severity in RELAY.SEVERITIES)


def test_findings_lists_what_is_unsettled_unanswered_or_all(stage):
    in_every_state(stage)
    assert list(states(stage, "--pair-id", next(stage.shared.glob("2*")).name).values()) == [
        s for s in ALL_STATES if s not in ("accepted", "withdrawn")
    ]
    assert list(states(stage, "--open").values()) == ["open", "reopened"]
    assert list(states(stage, "--all").values()) == list(ALL_STATES)
    assert stage.run("claude", "findings", "--open", "--all").code == 2
    text = stage.ok("claude", "findings", "--all").out
    assert [line.split()[0] for line in text.splitlines()] == [
        f"2.{n}" for n in range(1, 9)
    ] and 'fixed: "x"' in text


# ---- going round


def fixed_and_reopened(stage, evidence):
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    stage.send("codex", "review", dispositions(f"2.1 reopened {evidence}"))


def test_a_finding_reopened_twice_is_for_the_user_until_the_user_speaks(stage):
    asked(stage)
    stage.send("codex", "review", findings("minor - One"))
    fixed_and_reopened(stage, "once")
    assert stage.ok("claude", "next").action == "reply"
    fixed_and_reopened(stage, "twice")
    told = stage.ok("claude", "next")
    assert told.action == "ask_user" and "2.1 was reopened 2 times" in told.out
    assert stage.run("claude", "next", "--exit-code").code == 13
    stage.ok("claude", "continue")
    assert stage.ok("claude", "next").action == "reply"
    fixed_and_reopened(stage, "thrice")
    assert stage.ok("claude", "next").action == "ask_user"


def test_three_reviews_without_fewer_open_blockers_are_for_the_user(stage):
    asked(stage)
    stage.send("codex", "review", findings("blocker - 0"))
    for n in (1, 2, 3):
        assert stage.ok("claude", "next").action == "reply", n
        stage.send("claude", "fix", dispositions(f"{2 * n}.1 fixed so"))
        stage.send("codex", "review", findings(f"blocker - {n}"))
    told = stage.ok("claude", "next", RELAY_AUTO_ROUND_CAP="0")
    assert told.action == "ask_user" and "3 reviews without fewer open blockers (1)" in told.out
    stage.ok("claude", "continue")
    assert stage.ok("claude", "next", RELAY_AUTO_ROUND_CAP="0").action == "reply"


# ---- any order


class History:
    """Random turns of two authors; numbers are taken early and published late now and then."""

    def __init__(self, stage, seed):
        self.stage, self.dice = stage, random.Random(seed)
        self.path = stage.open_pair()
        self.drafts = []

    def body(self, author, kind):
        dice = self.dice
        blocks = []
        if kind == "review" and dice.random() < 0.7:
            blocks.append(
                findings(
                    *(
                        f"{dice.choice([*RELAY.SEVERITIES])} - {dice.random()}"
                        for _ in range(dice.randint(1, 4))
                    )
                )
            )
        rows = self.stage.ok("claude", "findings", "--all", "--json").json["findings"]
        said = []
        for row in dice.sample(rows, min(len(rows), dice.randint(0, 6))):
            verbs = [
                verb for verb in VERBS if model_allows(author, row["finder"], row["state"], verb)
            ]
            verbs = [
                verb
                for verb in verbs
                if not (verb == "wontfix" and row["severity"] in ("blocker", "major"))
            ]
            said += [f"{row['id']} {dice.choice(verbs)} {dice.random()}"] if verbs else []
        return "\n".join(["# Text", "", *blocks, *([dispositions(*said)] if said else [])])

    def turn(self):
        dice, stage = self.dice, self.stage
        author, kind = (
            dice.choice(("claude", "codex")),
            dice.choice(("review", "review", "fix", "note")),
        )
        stage.run(author, "next")
        stage.run(author, "continue")  # The user is not asked about rounds here.
        way = dice.random()
        if way < 0.15 and len(self.drafts) < 2:
            self.drafts.append((author, stage.ok(author, "claim", "--kind", kind).out.strip()))
        elif way < 0.35 and self.drafts:
            author, draft = self.drafts.pop(dice.randrange(len(self.drafts)))
            body = stage.file(self.body(author, draft.rpartition("-")[2][:-3]), "late.md")
            stage.ok(
                author,
                "draft",
                "set",
                draft,
                "--body-file",
                body,
                "--prompt-for-next-file",
                stage.file("go\n", "p"),
            )
            self.go_on(author)
            stage.ok(author, "publish", draft)
        else:
            self.go_on(author)
            stage.send(author, kind, self.body(author, kind))

    def go_on(self, author):
        """The user lets it go on, however long it takes and however little it helps."""
        self.stage.ok(author, "next")
        self.stage.ok(author, "continue")


def model_allows(author, finder, state, verb):
    return state in MAY["codex" if author == finder else "claude"].get(verb, ())


def model(path):
    """The fate of every finding, by a second reckoning: bodies in the order of their numbers."""
    told = {}
    for ready in sorted(path.glob("*.ready")):
        author = ready.stem.split("-")[1]
        document = json.loads(ready.with_suffix(".json").read_text())
        for n, _ in enumerate(document["findings"], 1):
            told[f"{int(ready.stem[:3])}.{n}"] = [author, "open"]
        for row in document["dispositions"]:
            if row["id"] in told and model_allows(author, *told[row["id"]], row["verb"]):
                told[row["id"]][1] = row["verb"]
    return {key: state for key, (_, state) in told.items()}


def same(carried, whole):
    assert carried.unsettled == whole.unsettled
    assert carried.rounds == whole.rounds
    settled, all_settled = (
        [f for f in each.findings if f.state in ("accepted", "withdrawn")]
        for each in (carried, whole)
    )
    assert len(settled) + carried.more_settled == len(all_settled) + whole.more_settled
    assert set(settled) <= set(all_settled)


def states_of(stage, path):
    """The state as the last sidecar carries it, and as all artifacts give it."""
    project = RELAY.Project(str(stage.shared), str(stage.project), None, "")
    ledger = RELAY.Ledger(SimpleNamespace(changed_at={}), project)
    pair = RELAY.Pair(ledger, str(path))
    return RELAY.Listing(pair).findings(), RELAY.Listing(pair).findings(whole=True)


def any_order_folds_to_one_state(stage, seed, turns):
    history = History(stage, seed)
    for _ in range(turns):
        history.turn()
        same(*states_of(stage, history.path))
    published = sorted(ready.stem for ready in history.path.glob("*.ready"))
    _, wanted = states_of(stage, history.path)
    assert {f.id: f.state for f in wanted.findings} == model(history.path)
    for attempt in range(3):
        other = stage.folder / f"arrives-{attempt}"
        other.mkdir()
        history.dice.shuffle(published)
        for stem in published:
            for suffix in ("json", "md", "md.sha256", "ready"):
                shutil.copy(history.path / f"{stem}.{suffix}", other)
            same(*states_of(stage, other))
        assert states_of(stage, other)[1] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(2, 6))
def test_many_histories_fold_to_one_state_in_whatever_order_files_arrive(stage, seed):
    any_order_folds_to_one_state(stage, seed, 30)


def only_pair(stage):
    return next(stage.shared.glob("*/session.json")).parent.name


def test_a_close_that_leaves_a_blocker_says_that_it_is_no_approval(stage, reviewed):
    reviewed(findings("blocker - One", "nit - Two"))
    assert (
        "closed with 2.1 blocker unanswered; this is not an approval"
        in stage.ok(
            "claude", "close", "--reason", "enough", "--outcome", "lgtm", "--no-archive"
        ).err
    )
    assert (
        "it was closed already by claude"
        in stage.ok("codex", "close", "--reason", "again", "--pair-id", only_pair(stage)).err
    )


def test_a_dry_run_says_what_would_be_recorded(stage):
    asked(stage)
    told = stage.ok(
        "codex",
        "send",
        "--dry-run",
        "--kind",
        "review",
        "--verdict",
        "changes",
        "--file",
        stage.file(findings("nit - One")),
        "--next",
        "mend",
    )
    assert "\nrecorded: 2.1 nit, verdict changes\n" in told.out and "nothing was sent" in told.err


def test_a_place_that_is_none_is_refused_with_its_line(stage):
    path = asked(stage)
    (stage.project / "a.py").write_text("a\n")
    (stage.project / "d").mkdir()
    bad = ("a docstring is missing", "gone.py Three", "a.py:2 Past the end", "d:1 No lines")
    bad += ("../project/a.py Outside", "/etc/passwd Outside")
    rows = findings("nit a.py:1 One", "nit - Two", "nit d A directory", *(f"nit {b}" for b in bad))
    words = ("send", "--kind", "review", "--next", "go on", "--file")
    refused = stage.run("codex", *words, stage.file(rows))
    assert refused.code == 2 and lines_of(refused) == list(range(7, 7 + len(bad))), refused
    assert len(list(path.glob("*.ready"))) == 1


HIDDEN = {
    "in a list": "- ```findings\n  blocker pay.py:1 lost\n  ```\n",
    "in a quote": "> ```findings\n> blocker pay.py:1 lost\n> ```\n",
    "numbered": "1. ```findings\n   blocker pay.py:1 lost\n   ```\n",
    "indented under another": "```findings\nminor - One\n blocker pay.py:1 lost\n```\n",
}


READS_LIKE_A_FINDING = """\
<li>blocker a.py:1 Boom</li>
<li><b>Blocker</b> `a.py:1` Boom</li>
<details><summary>blocker a.py:1 Boom</summary></details>
| 1 | a.py:1 | blocker | Boom |
### a.py:1 — blocker: Boom
- a.py:1: blocker: Boom
- `a.py:1` (major) Boom
- blocker a.py has no tests
**Blocker:** it divides by zero
- nit: the name is wrong
```text
a.py:1: major: Boom
```
"""
READS_LIKE_PROSE = """\
1. Try:

   ```python
   x = 1
   ```

2. The rest is fine.

```yaml
major: 3
minor: 2
```

major and/or minor ones: none; a.py:1 is a minor, harmless case
No blockers. Major changes in a.py:1 are right.
- blocker: none
- major: 0, minor: no more
"""


def test_a_line_that_reads_like_a_finding_is_refused_in_a_review(stage):
    asked(stage)
    refused = tried(stage, "codex", "review", f"# R\n\n{READS_LIKE_A_FINDING}")
    lines = enumerate(READS_LIKE_A_FINDING.splitlines(), 3)
    assert refused.code == 2
    assert lines_of(refused) == [number for number, line in lines if "```" not in line], refused
    assert tried(stage, "codex", "review", f"# R\n\n{READS_LIKE_PROSE}").code == 0


def test_a_finding_that_one_text_raises_twice_is_refused(stage):
    path = asked(stage)
    body = findings("blocker a.py:1 Boom", "nit a.py:2 Boom", "major ./a.py:1 boom")
    refused = tried(stage, "codex", "review", body)
    assert refused.code == 2 and "line 6: line 4 says the same" in refused.err, refused
    assert len(list(path.glob("*.ready"))) == 1


def test_a_mistyped_block_is_refused(stage):
    asked(stage)
    assert (
        "expected ```findings"
        in tried(stage, "codex", "review", "# R\n\n```findngs\nblocker - One\n```\n").err
    )
    assert (
        tried(
            stage,
            "codex",
            "review",
            "# R\n\n```diff\n-a\n```\n\n```fish\nls\n```\n\n```dockerfile\nFROM x\n```\n",
        ).code
        == 0
    )
