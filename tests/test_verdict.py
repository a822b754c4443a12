"""Approval by rule: what is unmet is listed with its remedy, and no sequence of commands gets round it without --force."""

from __future__ import annotations

import random
import re

import pytest
from conftest import RELAY, reseal, seeds
from helpers.blocks import PEER, dispositions, findings, prepared, sidecar, tried

FILES = "reviewed.py", "more.py"


def built(stage, ask=True):
    """A pair whose builder changed two files and asks for a review of them."""
    return prepared(stage, _and_shown if ask else _built)


def _built(stage):
    path = stage.open_pair()
    for name in FILES:
        (stage.project / name).write_text(f"# {name}\n")
    stage.send("claude", "fix")
    return path


def _and_shown(stage):
    path = _built(stage)
    stage.ok("codex", "next")
    return path


def approve(stage, *more, author="codex", text="# Fine\n"):
    return tried(stage, author, "review", text, "--verdict", "approve", *more)


def approved(stage):
    return prepared(stage, _approved)


def _approved(stage):
    path = _and_shown(stage)
    stage.ok("codex", "run", "--", "true")
    stage.send("codex", "review", "# Fine\n", "go on", "--verdict", "approve")
    return path


def close(stage, *more, author="claude", outcome="approve", reason="all mended"):
    return stage.run(author, "close", "--reason", reason, "--outcome", outcome, *more)


def unmet(done):
    """The conditions that a refusal lists; each with a command."""
    assert done.code == 2, done
    listed = re.findall(r"(?m)^  - (.*)\n    hint: (\S+ .*)$", done.err)
    assert len(listed) == done.err.count("\n  - "), done.err
    # A prepared stage is a copy of its author's tree.
    return [why.replace("tree, not the author's, changed", "tree changed") for why, _ in listed]


def edit(stage, name="reviewed.py", text="changed\n"):
    (stage.project / name).write_text(text)


# ---- an approving review


def test_only_a_grave_finding_keeps_a_review_from_approving(stage):
    built(stage)
    for severity in RELAY.SEVERITIES:
        done = approve(
            stage,
            "--not-run",
            "read only",
            "--dry-run",
            text=findings(f"{severity} reviewed.py:1 Wrong"),
        )
        told = unmet(done) if done.code else []
        assert told == (
            [f'2.1 {severity} reviewed.py:1 is unanswered: "Wrong"']
            if severity in ("blocker", "major")
            else []
        )


@pytest.mark.parametrize("answer", ["fixed so", "refuted no", "deferred the user takes it"])
def test_an_answered_finding_is_in_the_way_until_its_finder_settles_it(stage, answer):
    built(stage)
    stage.send("codex", "review", findings("blocker - Wrong"))
    assert unmet(approve(stage, "--not-run", "x")) == ['2.1 blocker - is unanswered: "Wrong"']
    stage.send("claude", "fix", dispositions(f"2.1 {answer}"))
    stage.ok("codex", "next")
    assert "rule on it" in unmet(approve(stage, "--not-run", "x", "--dry-run"))[0]
    assert unmet(approve(stage, "--not-run", "x", text=dispositions("2.1 reopened still"))) == [
        '2.1 blocker - is reopened: "Wrong"'
    ]
    assert approve(stage, "--not-run", "x", text=dispositions("2.1 accepted")).code == 0


def test_a_finding_that_the_approver_has_not_answered_is_in_its_way_too(stage):
    built(stage)
    stage.send("claude", "review", findings("blocker - Of claude"))
    stage.ok("codex", "next")
    assert unmet(approve(stage, "--not-run", "x")) == ['2.1 blocker - is unanswered: "Of claude"']


def test_nothing_was_shown_that_a_review_could_approve(stage):
    built(stage, ask=False)
    assert unmet(approve(stage, "--not-run", "x")) == [
        "you have received nothing from the peer that this could approve"
    ]
    assert approve(stage, "--not-run", "x", "--reply-to", "1").code == 0


def test_the_tree_moved_since_it_was_asked_for(stage):
    built(stage)
    edit(stage)
    stage.ok("codex", "run", "--", "true")
    (why,) = unmet(approve(stage))
    assert why.startswith("the working tree changed since 001: reviewed.py")
    (stage.project / "reviewed.py").unlink()
    assert "reviewed.py" in unmet(approve(stage, "--not-run", "x"))[0]
    edit(stage, text="# reviewed.py\n")
    assert approve(stage, "--not-run", "x", "--dry-run").code == 0


def test_nothing_was_run_and_it_is_not_said_why(stage):
    built(stage)
    assert unmet(approve(stage)) == [
        "nothing was run on this change set (or say why not: --not-run REASON)"
    ]
    assert approve(stage, "--not-run", "documents only").code == 0
    assert (
        'not run: "documents only"' in stage.ok("claude", "next").out
        and 'not run: "documents only"' in stage.ok("claude", "log").out
    )


def test_the_reason_for_running_nothing_is_one_line(stage):
    path = built(stage)
    for reason in ("", " ", "a\nb", "x" * 401):
        assert approve(stage, f"--not-run={reason}").code == 2, reason
    assert not list(path.glob("002*"))


def test_a_verdict_goes_with_a_review_alone(stage):
    built(stage)
    for kind in ("plan", "fix", "note", "question", "decision"):
        done = tried(stage, "codex", kind, "# Text\n", "--verdict", "approve", "--not-run", "x")
        assert (
            done.code == 2
            and "--verdict goes with --kind review" in done.err
            and "--not-run goes with --kind review" in done.err
        ), kind


def test_a_draft_is_held_to_the_same_rules(stage):
    path = built(stage)
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    stage.ok(
        "codex",
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file("# R\n"),
        "--prompt-for-next-file",
        stage.file("go\n", "p"),
    )
    assert unmet(stage.run("codex", "publish", draft, "--verdict", "approve")) == [
        "nothing was run on this change set (or say why not: --not-run REASON)"
    ]
    assert (path / ".draft" / "002-codex-review.md").exists()
    stage.ok("codex", "run", "--", "true")
    stage.ok("codex", "publish", draft, "--verdict", "approve")
    assert sidecar(path, 2)["verdict"] == "approve" and close(stage).code == 0


def test_a_published_draft_does_not_take_a_verdict_in_silence(stage):
    path = built(stage)
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    stage.ok(
        "codex",
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file("# R\n"),
        "--prompt-for-next-file",
        stage.file("go\n", "p"),
    )
    stage.ok("codex", "publish", draft)
    done = stage.run("codex", "publish", draft, "--verdict", "changes")
    assert done.code == 2 or "verdict" in done.err, done
    assert sidecar(path, 2)["verdict"] is None


# ---- an approving close


def test_every_word_for_an_approval_is_held_to_the_rules_and_no_other(stage):
    built(stage)
    for outcome in (
        "approve",
        "approved",
        "accept",
        "accepted",
        "ACCEPTED",
        "Approve",
        " approved ",
    ):
        assert unmet(close(stage, outcome=outcome)) == [
            "nothing in this pair was ever approved by codex"
        ], outcome
    assert close(stage, outcome="rejected").code == 0


@pytest.mark.slow
def test_the_same_bytes_committed_still_count(stage):
    approved(stage)
    stage.git("add", "-A")
    stage.git("commit", "-qm", "as reviewed")
    assert close(stage).code == 0


def test_an_approval_of_ones_own_does_not_close(stage):
    approved(stage)
    assert unmet(close(stage, author="codex")) == [
        "the only verdict is your own; claude can close on it, or review"
    ]


def test_a_review_without_a_verdict_is_none_whatever_it_says(stage):
    built(stage)
    for text in (
        "# APPROVED\n\nverdict: approve\n",
        "---\nverdict: approve\n---\n",
        "```verdict\napprove\n```\n",
    ):
        stage.send("codex", "review", text)
    assert unmet(close(stage)) == ["nothing in this pair was ever approved by codex"]


def test_the_last_verdict_counts(stage):
    approved(stage)
    stage.send("codex", "review", "# Wait\n", "mend it", "--verdict", "changes")
    assert unmet(close(stage)) == ["codex's last verdict, in 003, asks for changes"]
    assert approve(stage, "--not-run", "x").code == 0
    stage.send("codex", "review", "# And a remark\n")
    stage.ok("claude", "next")
    assert close(stage).code == 0


def test_changes_asked_for_under_a_number_taken_early_are_not_passed_over(stage):
    """The draft was claimed before the approval and published after it: its author's last word is `changes`."""
    built(stage)
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    stage.ok(
        "codex",
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file("# R\n"),
        "--prompt-for-next-file",
        stage.file("go\n", "p"),
    )
    assert approve(stage, "--not-run", "x").code == 0
    stage.ok("codex", "publish", draft, "--verdict", "changes")
    assert close(stage).code == 2


def test_a_finding_after_the_approval_is_in_the_way(stage):
    approved(stage)
    stage.send("codex", "review", findings("major reviewed.py:1 Overlooked"))
    stage.ok("claude", "next")
    assert unmet(close(stage)) == ['3.1 major reviewed.py:1 is unanswered: "Overlooked"']
    stage.send("claude", "note", dispositions("3.1 refuted it is meant so"))
    assert "codex has not accepted that" in unmet(close(stage))[0]
    stage.send("codex", "note", dispositions("3.1 accepted"))
    stage.ok("claude", "next")
    assert close(stage).code == 0


def test_what_was_approved_was_replaced(stage):
    path = approved(stage)
    for found in path.glob("001-*"):
        found.unlink()
    done = close(stage)
    assert "what 002 approved is gone or was changed" in unmet(done) and any(
        "001-claude-fix is damaged" in why for why in unmet(done)
    )


def test_what_was_approved_was_rewritten_with_all_of_its_hashes(stage):
    path = approved(stage)
    reseal(path, "001-claude-fix", text=lambda text: text.replace("# Text", "# Other text"))
    assert "what 002 approved is gone or was changed" in unmet(close(stage))


@pytest.mark.parametrize(
    "part",
    [
        "001-claude-fix.md",
        "002-codex-review.md",
        "002-codex-review.json",
        "001-claude-fix.md.sha256",
    ],
)
def test_a_damaged_pair_cannot_be_closed_as_approved(stage, part):
    path = approved(stage)
    stage.ok("claude", "next")
    (path / part).write_bytes(b"x" + (path / part).read_bytes())
    assert any(f"{part.partition('.')[0]} is damaged" in why for why in unmet(close(stage)))


def test_a_review_restored_from_a_backup_keeps_its_blocker_in_the_way(stage):
    """While it was damaged the pair went on; what was folded then must not hide the blocker afterwards."""
    path = built(stage)
    stage.send("codex", "review", findings("blocker reviewed.py:1 Boom"))
    stage.ok("claude", "next")
    file = path / "002-codex-review.md"
    held = file.read_bytes()
    file.write_bytes(b"damaged")
    stage.ok("claude", "continue")
    stage.send("claude", "fix")
    file.write_bytes(held)
    stage.ok("codex", "next")
    done = approve(stage, "--not-run", "x")
    assert done.code == 2 or unmet(close(stage)), done


CHANGES = {
    "moved": (
        lambda s: edit(s),
        "the working tree changed since what 002 approved: reviewed.py",
    ),
    "deleted": (
        lambda s: (s.project / "more.py").unlink(),
        "the working tree changed since what 002 approved: more.py",
    ),
    "new and tracked": (
        lambda s: (edit(s, "new.py"), s.git("add", "new.py")),
        "the working tree changed since what 002 approved: new.py",
    ),
    "mode": (
        lambda s: (s.project / "more.py").chmod(0o755),
        "the working tree changed since what 002 approved: more.py",
    ),
    "staged otherwise": (
        lambda s: (edit(s), s.git("add", "reviewed.py"), edit(s, text="# reviewed.py\n")),
        "the index differs from the working tree: reviewed.py",
    ),
    "committed otherwise": (
        lambda s: (
            edit(s),
            s.git("add", "-A"),
            s.git("commit", "-qm", "x"),
            edit(s, text="# reviewed.py\n"),
        ),
        "HEAD differs from what was reviewed: reviewed.py",
    ),
    "committed in part": (
        lambda s: (s.git("add", "more.py"), s.git("commit", "-qm", "x")),
        "reviewed, and left out of what was committed: reviewed.py",
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_tree_that_is_not_what_was_approved_does_not_close(stage, how):
    approved(stage)
    act, why = CHANGES[how]
    act(stage)
    assert [each for each in unmet(close(stage)) if each.startswith(why)]


def test_accepting_what_moved_accepts_those_paths_alone(stage):
    approved(stage)
    edit(stage, "more.py")
    edit(stage)
    why = "the working tree changed since what 002 approved: reviewed.py"
    assert [each.startswith(why) for each in unmet(close(stage, "--accept-moved", "more.py"))] == [
        True
    ]


def test_all_that_keeps_a_pair_open_is_listed_at_once_and_nothing_changes(stage):
    path = approved(stage)
    stage.send("codex", "review", findings("blocker - One"), "go", "--verdict", "changes")
    edit(stage)
    before = {key: held[2] for key, held in stage.snapshot(path).items()}
    told = unmet(close(stage))
    assert [why.split()[0] for why in told] == ["3.1", "codex's", "the"]
    assert {key: held[2] for key, held in stage.snapshot(path).items()} == before


def test_what_force_overrode_is_on_record_and_in_the_log(stage):
    path = built(stage)
    stage.send(
        "codex", "review", findings("blocker reviewed.py:1 Boom"), "go", "--verdict", "changes"
    )
    assert stage.run("claude", "close", "--outcome", "approve", "--force").code == 2, (
        "without a reason"
    )
    assert close(stage, "--force", reason="the user wants it out").code == 0
    held = RELAY.parse_closed(next(stage.shared.rglob("CLOSED")).read_bytes())
    assert held["reason"] == "the user wants it out" and held["closed_by"] == "claude"
    for why in (
        '2.1 blocker reviewed.py:1 is unanswered: "Boom"',
        "codex's last verdict, in 002, asks for changes",
    ):
        assert (
            why in held["overrode"]
            and RELAY.in_quotes(why) in stage.ok("claude", "log", "--pair-id", path.name).out
        )
    assert (
        stage.ok("claude", "log", "--pair-id", path.name, "--json").json["closed"]["overrode"]
        == held["overrode"]
    )


def test_a_pair_that_was_closed_otherwise_does_not_become_an_approved_one(stage):
    """Nothing is written, but a success would be taken for an approval."""
    path = built(stage)
    assert close(stage, "--no-archive", outcome="rejected").code == 0
    assert close(stage, "--no-archive", "--pair-id", path.name).code == 2
    assert RELAY.parse_closed((path / "CLOSED").read_bytes())["outcome"] == "rejected"
    assert close(stage, "--pair-id", path.name, outcome="rejected").code == 0


def test_force_where_nothing_is_unmet_overrides_nothing(stage):
    approved(stage)
    assert close(stage, "--force").code == 0
    assert "overrode" not in RELAY.parse_closed(next(stage.shared.rglob("CLOSED")).read_bytes())


def test_a_reason_cannot_forge_another_line_of_the_record(stage):
    built(stage)
    for sign in "\n\r\u2028\u2029\x85\x0b\x0c\x1c":
        done = stage.run(
            "claude", "close", "--reason", f'x{sign}outcome = "approve"', "--outcome", "done"
        )
        assert done.code == 2, repr(sign)


# ---- no sequence of commands


class Oracle:
    """The rules of an approval, reckoned from what was typed and not from the ledger."""

    def __init__(self, base):
        self.base = dict(base)
        self.tree, self.index, self.head = dict(base), dict(base), dict(base)
        self.requests = {}  # number: (author, what differed from the base then, kind)
        self.shown = {"claude": set(), "codex": set()}
        self.waiting = {"claude": [], "codex": []}  # What was run and not yet sent.
        self.carried = []  # (author, command, what differed, the number that carries it)
        self.verdicts = {}  # author: (word, number it is about, its own number)
        self.reviews = {"claude": [], "codex": []}  # (number, what differed, what was judged)
        self.findings = {}  # id: [author, severity, state, number of the answer]
        self.count = 0

    def differing(self, tree):
        return {
            name: tree.get(name)
            for name in {*tree, *self.base}
            if tree.get(name) != self.base.get(name)
        }

    def moved(self, number):
        then, now = self.requests[number][1], self.differing(self.tree)
        tracked = {*self.base, *self.index, *self.head}
        new = {name for name in now if name not in tracked and name not in then}
        gone = object()
        return any(then.get(n, gone) != now.get(n, gone) for n in {*then, *now} - new)

    def is_fixed(self, row, about):
        author, _, state, answer = row
        earlier = [review for review in self.reviews[author] if review[0] < answer]
        return state == "fixed" and bool(
            earlier
            and self.requests[about][1] not in earlier[-1][1:]
            and earlier[-1][1] is not None
        )

    def in_the_way(self, author, about):
        """Of the findings; `author` is empty for a close."""
        for row in self.findings.values():
            if row[1] not in ("blocker", "major") or row[2] in ("accepted", "withdrawn"):
                continue
            if row[2] in ("open", "reopened") or not author:
                return True
            if row[0] == author and not self.is_fixed(row, about):
                return True
        return False

    def proven(self, reviewer, runs, trees):
        on_it = [(by, command) for by, command, tree in runs if tree in trees]
        passed = (reviewer, "true") in on_it
        return passed, not any(command == "false" for _, command in on_it)

    def unread(self, author, since):
        by = {n for n, (by, _, _) in self.requests.items() if by != author and n > since}
        return by - self.shown[author]

    def hands_over(self, author, about):
        """Whether what is judged is the peer's work, and the peer asks for no changes since."""
        word, _, number, _ = self.verdicts.get(PEER[author], ("", 0, 0, ""))
        own = [row[1] for row in self.requests.values() if row[0] == author and row[2] == "fix"]
        if self.requests[about][2] == "fix":
            return word != "changes" or about > number
        return word != "changes" and self.requests[about][1] not in own[-1:]

    def may_approve(self, author, findings_now, not_run):
        if not self.shown[author] or {"blocker", "major"} & {*findings_now}:
            return False
        about = max(self.shown[author])
        if self.unread(author, about) or not self.hands_over(author, about):
            return False
        asked, now = self.requests[about][1], self.differing(self.tree)
        if self.in_the_way(author, about) or self.moved(about) or not asked:
            return False
        runs = [run[:3] for run in self.carried]
        runs += [(author, *run) for run in self.waiting[author]]
        passed, none_failed = self.proven(author, runs, [asked, now])
        return none_failed and bool(not_run or passed)

    def may_close(self, author):
        word, about, number, not_run = self.verdicts.get(PEER[author], ("", 0, 0, ""))
        if word != "approve" or self.in_the_way("", about) or self.moved(about):
            return False
        own = self.verdicts.get(author, ("", 0, 0, ""))
        if self.unread(author, number) or (own[0] == "changes" and own[2] > number):
            return False
        reviewed, now, shipped = (
            self.requests[about][1],
            self.differing(self.tree),
            self.differing(self.head),
        )
        runs = [run[:3] for run in self.carried]
        runs += [(author, *run) for run in self.waiting[author]]
        passed, none_failed = self.proven(PEER[author], runs, [reviewed, self.requests[number][1]])
        if not none_failed or not (passed or not_run):
            return False
        if any(
            self.index.get(name) not in (self.base.get(name), self.tree.get(name))
            for name in {*self.index, *self.base, *self.tree}
        ):
            return False
        wanted = {*shipped, *(set(now) & set(reviewed))} if shipped else set()
        return all(self.head.get(name) == self.tree.get(name) for name in wanted)

    def sent(self, author, kind):
        self.count += 1
        self.requests[self.count] = (author, self.differing(self.tree), kind)
        self.carried += [(author, *run, self.count) for run in self.waiting[author]]
        self.waiting[author] = []
        return self.count


class Search:
    """Random commands of two authors on one project, each with what the oracle says of it."""

    def __init__(self, stage, seed):
        self.stage, self.dice = stage, random.Random(seed)
        self.base = {"a.py": "a\n", "b.py": "b\n"}
        for name, text in self.base.items():
            (stage.project / name).write_text(text)
        stage.git("add", "-A")
        stage.git("commit", "-qm", "base")
        self.round = self.closed = self.refused = 0
        self.story = []
        self.begin()

    def begin(self):
        """A new pair, on what the last one ended with."""
        self.round += 1
        if self.round > 1:
            self.base = dict(self.oracle.tree)
            self.stage.git("add", "-A")
            self.stage.git("commit", "-qm", "next", "--allow-empty")
            for author in PEER:
                self.stage.run(author, "next", "--pair-id", self.path.name)
        slug = self.stage.ok(
            "claude", "bootstrap", "--topic", f"t{self.round}", "--force"
        ).out.split()[0]
        self.stage.ok("codex", "pair", "join", slug, "--take-over")
        self.path = self.stage.shared / slug
        self.oracle = Oracle(self.base)

    def write(self):
        name = self.dice.choice(("a.py", "a.py", "b.py", "new.py"))
        there = self.oracle.tree.get(name)
        texts = [
            text
            for text in (None, f"{name} 1\n", f"{name} other\n", self.base.get(name))
            if text != there
        ]
        text = self.dice.choice(texts)
        file = self.stage.project / name
        if text is None:
            file.unlink()
            del self.oracle.tree[name]
        else:
            file.write_text(text)
            self.oracle.tree[name] = text
        return name, text

    def stage_all(self):
        self.stage.git("add", "-A")
        self.oracle.index = dict(self.oracle.tree)

    def commit(self):
        if self.dice.random() < 0.7:
            self.stage_all()
        self.stage.git("commit", "-qm", "x", "--allow-empty")
        self.oracle.head = dict(self.oracle.index)

    def look(self, author):
        self.stage.ok(author, "next", RELAY_AUTO_ROUND_CAP="0")
        self.oracle.shown[author] |= {
            n for n, (by, _, _) in self.oracle.requests.items() if by != author
        }

    def run_something(self, author):
        command = self.dice.choice(("true", "true", "true", "false"))
        self.stage.run(author, "run", "--", command)
        now = self.oracle.differing(self.oracle.tree)
        self.oracle.waiting[author].append((command, now))
        return command

    def fates(self, author):
        said = {}
        for key, (by, _, state, _) in self.oracle.findings.items():
            if state in ("open", "reopened"):
                verb = (
                    "withdrawn"
                    if by == author
                    else self.dice.choice(("fixed", "refuted", "deferred"))
                )
            elif by == author and state not in ("accepted", "withdrawn"):
                verb = self.dice.choice(("accepted", "reopened"))
            else:
                continue
            if self.dice.random() < 0.6:
                said[key] = verb
        return said

    def send(self, author, kind):
        o, dice = self.oracle, self.dice
        found = (
            [dice.choice([*RELAY.SEVERITIES])] if kind == "review" and dice.random() < 0.2 else []
        )
        verdict = (
            dice.choice(("", "approve", "approve", "approve", "changes"))
            if kind == "review"
            else ""
        )
        not_run = ["--not-run", "x"] if kind == "review" and dice.random() < 0.4 else []
        said = self.fates(author)
        body = "# T\n\n" + (
            findings(*(f"{severity} - {len(self.story)}" for severity in found)) if found else ""
        )
        body += (
            "\n" + dispositions(*(f"{key} {verb} so" for key, verb in said.items())) if said else ""
        )
        before = {key: list(row) for key, row in o.findings.items()}
        for key, verb in said.items():
            answers = o.findings[key][0] != author
            o.findings[key][2] = verb
            o.findings[key][3] = o.count + 1 if answers else o.findings[key][3]
        allowed = verdict != "approve" or o.may_approve(author, found, not_run)
        words = [kind, body, *(["--verdict", verdict] if verdict else []), *not_run]
        done = tried(self.stage, author, *words, RELAY_AUTO_ROUND_CAP="0")
        if re.search("relay (continue|next)$", done.err) and "\n  - " not in done.err and o.shown:
            o.findings = before  # The user is asked about what does not converge.
            self.look(author)
            self.stage.ok(author, "continue")
            return "the user was asked"
        assert (done.code == 0) is allowed, (self.story, allowed, done)
        if not allowed:
            o.findings = before
            return f"{verdict} refused"
        number, about = o.sent(author, kind), max(o.shown[author], default=0)
        for row in o.findings.values() if verdict == "approve" else ():
            if row[0] == author and o.is_fixed(row, about):
                row[2] = "accepted"
        for n, severity in enumerate(found, 1):
            o.findings[f"{number}.{n}"] = [author, severity, "open", 0]
        if verdict:
            o.verdicts[author] = verdict, about, number, not_run
        if kind == "review":
            judged = o.requests[about][1] if verdict and about else None
            o.reviews[author].append((number, o.differing(o.tree), judged))
        return f"{number} {verdict} {found} {said}"

    def close(self, author):
        allowed = self.oracle.may_close(author)
        outcome = self.dice.choice(("approve", "ACCEPTED"))
        done = close(self.stage, author=author, outcome=outcome)
        assert (done.code == 0) is allowed, (self.story, allowed, done)
        if allowed:
            self.closed += 1
            self.begin()
        else:
            unmet(done)
            self.refused += 1
        return "closed" if allowed else "close refused"

    def step(self):
        author = self.dice.choice(("claude", "codex"))
        what = self.dice.choices(
            ("write", "stage", "commit", "next", "run", "send", "review", "close"),
            (3, 1, 1, 3, 2, 2, 4, 5),
        )[0]
        acts = {
            "write": self.write,
            "stage": self.stage_all,
            "commit": self.commit,
            "next": lambda: self.look(author),
            "run": lambda: self.run_something(author),
            "send": lambda: self.send(author, self.dice.choice(("fix", "note"))),
            "review": lambda: self.send(author, "review"),
            "close": lambda: self.close(author),
        }
        self.story.append((author, what))
        self.story[-1] += (acts[what](),)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1))
def test_no_sequence_of_commands_approves_what_a_rule_forbids(stage, seed):
    search = Search(stage, seed)
    for _ in range(30):
        search.step()


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, 4))
def test_no_long_sequence_of_commands_approves_what_a_rule_forbids(stage, seed):
    search = Search(stage, seed)
    for _ in range(150):
        search.step()
    assert search.refused


@pytest.mark.parametrize(
    "word",
    [
        "aprove",
        "approv",
        "aproved",
        "Approvd",
        "acept",
        "accepte",
        "approve.",
        "approved by codex",
        "\u2705 approve",
        "\uff41pprove",
        "approve\u200b\u200b",
    ],
)
def test_a_mistyped_approval_does_not_close_without_conditions(stage, word):
    pair = stage.open_pair()
    done = stage.run("claude", "close", "--reason", "shipped", "--outcome", word)
    assert done.code == 2 and "did you mean" in done.err and not (pair / "CLOSED").exists()
