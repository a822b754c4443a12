"""Approvals against a model of them: random histories of two authors, their user and git, in one
clone or on two machines. After each step the model says what an approval and a close lack; relay accepts
where that is nothing, and else lists exactly that. Each history ends in an approving close, by what the
refusals hint at.

Of two machines each has its own files and its own record, and the ledger travels at random moments.
Once all has travelled, both sides say the same, also of a close that crossed with something.

A failure prints what was typed; RELAY_MODEL_SEED=N types it again."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil

import pytest
from conftest import Stage, seeds
from helpers.approvals import AUTHORS, SETTLED, Files, Model, Walk, difference, other
from helpers.machines import published

pytestmark = pytest.mark.slow
ONE_SEED = os.environ.get("RELAY_MODEL_SEED")


class Clone(Files):
    """The files on one of two machines."""

    def cloned(self, stage, remote):
        """The same on another machine."""
        there = copy.copy(self)
        there.stage, there.top = stage, stage.project
        shutil.rmtree(stage.project)
        self.git("clone", "-q", "--template=", "-b", "main", remote, stage.project)
        if self.follows:
            there.git("checkout", "-qb", self.branch)
        there.files, there.index = dict(self.files), dict(self.index)
        return there

    def copy_from(self, theirs):
        """The working tree becomes the other one."""
        for path, state in sorted(difference(self.files, theirs.shipped).items()):
            self.put(path, state)

    def fetch_from(self, theirs):
        """The commits of the other clone replace those here; new files stay."""
        new = {p: s for p, s in self.files.items() if p not in {*self.index, *self.head.tree}}
        self.git("fetch", "-q", theirs.top, "HEAD")
        self.git("reset", "-q", "--hard", "FETCH_HEAD")
        self.head, self.index = theirs.head, dict(theirs.head.tree)
        self.files = new | self.index


class Side(Model):
    """The record as one machine has it: what was published there, and what has arrived."""

    def __init__(self, me, places):
        super().__init__(places)
        self.me = me
        self.ledger = {}  # By number, an artifact, its rulings and findings, and the runs it carries.
        self.own_words = set()  # What of `spoke` the user said here.

    def next_seq(self, author):
        highest = max(self.ledger, default=0)
        return highest + 1 + (highest % 2 == (author == AUTHORS[0]))

    def place(self, author, request):
        return self.places[self.me]

    def publish(self, artifact, rulings=(), findings=()):
        artifact.known = frozenset(self.ledger)
        shared = self.places[self.me].stage.shared
        (sidecar,) = shared.glob(f"*/{artifact.seq:03}-*.json")
        artifact.created = json.loads(sidecar.read_text())["created"]
        runs = [run for run in self.runs if not run.is_carried]
        self.ledger[artifact.seq] = artifact, dict(rulings), tuple(findings), runs
        super().publish(artifact, rulings, findings)

    def take(self, ledger, words):
        """What has arrived counts in the order of the numbers."""
        self.spoke |= words
        self.ledger |= ledger
        fresh = [run for run in self.runs if not run.is_carried]
        self.artifacts, self.findings, self.rounds, self.runs = [], {}, [], []
        for _, (artifact, rulings, findings, runs) in sorted(self.ledger.items()):
            self.runs += runs
            super().publish(artifact, rulings, findings)
        self.runs += fresh

    def rule(self, finding, verb, author, seq):
        """What its author would not have been allowed to say, had it known all, changes nothing."""
        is_settled = finding.state in SETTLED
        allowed = not is_settled
        if author == finding.finder and verb == "accepted":
            allowed = not is_settled and not finding.is_unanswered
        elif author == finding.finder and verb == "reopened":
            allowed = not finding.is_unanswered
        if allowed:
            super().rule(finding, verb, author, seq)

    @staticmethod
    def failed(runs):
        """As in one clone; but an artifact may carry a run late, which replaces no later failure."""
        latest = {}
        for run in runs:
            before = latest.get((run.command, run.expect_fail), run)
            if before.failed and run.started < before.started:
                continue
            latest[run.command, run.expect_fail] = run
            if not run.expect_fail:
                latest.pop((run.command, True), None)
        return [run for run in latest.values() if run.failed]


class TwoMachines(Walk):
    """A history on two machines. `on_the_way` to the close, the ledger travels before each `next`."""

    settings = {**Walk.settings, "RELAY_SYNC": "git"}
    on_the_way = False

    def __init__(self, stage, rng):
        self.stage, self.rng, self.told = stage, rng, []
        here, there = (Stage(stage.folder / author) for author in AUTHORS)
        remote = stage.folder / "remote.git"
        files = self.files = Clone(here, follows=rng.random() < 0.3)
        here.git("init", "-q", "--bare", "-b", "main", remote)
        here.git("remote", "add", "origin", remote)
        here.git("push", "-q", "origin", "main")
        self.places = {"claude": files, "codex": files.cloned(there, remote)}
        self.sides = {author: Side(author, self.places) for author in AUTHORS}
        self.pushed = {author: ({}, set()) for author in AUTHORS}
        base = ("--base", "main") if files.follows else ()
        self.slug = self.ok("claude", "bootstrap", "--topic", "demo", *base).out.split()[0]
        self.ok("claude", "sync", "push")
        self.ok("codex", "next", "--sync")

    def record(self, author):
        return self.sides[author]

    # ---- what travels

    def push(self, author):
        self.ok(author, "sync", "push")
        side = self.sides[author]
        own = {seq: row for seq, row in side.ledger.items() if row[0].author == author}
        self.pushed[author] = own, {*side.own_words}

    def pull(self, author):
        self.ok(author, "sync", "pull")
        self.sides[author].take(*self.pushed[other(author)])

    def exchange(self):
        for author in (AUTHORS[0], AUTHORS[1], AUTHORS[0]):
            self.push(author)
            self.pull(author)

    def step_push(self):
        self.push(self.rng.choice(AUTHORS))

    def step_pull(self):
        self.pull(self.rng.choice(AUTHORS))

    def step_exchange(self):
        self.exchange()

    def step_copy(self):
        self.carry(self.rng.choice(AUTHORS), "copy_from")

    def step_fetch(self):
        self.carry(self.rng.choice(AUTHORS), "fetch_from")

    def carry(self, author, how):
        self.told.append(f"{author}: git: {how}")
        getattr(self.places[author], how)(self.places[other(author)])

    # ---- as in one clone

    def next(self, author):
        if self.on_the_way:
            self.exchange()
        super().next(author)

    def say_continue(self, author):
        side = self.sides[author]
        super().say_continue(author)
        if side.artifacts:
            side.own_words |= {a.seq for a in side.of(author)} | side.delivered[author]

    def step_run(self):
        rng, author = self.rng, self.rng.choice(AUTHORS)
        self.run(author, rng.choice("xyz"), rng.choice((0, 0, 0, 1, 1, 127)), rng.choice("   cem"))

    def run(self, author, *words, **more):
        self.files = self.places[author]
        run = super().run(author, *words, **more)
        records = self.places[author].stage.shared.glob(f"*/.evidence/{author}-*.json")
        latest = max(records, key=lambda path: path.stat().st_mtime_ns)
        run.started = json.loads(latest.read_text())["started"]
        return run

    def take_over(self, author):
        """What both sent in the same second is nobody's, until it is changed."""
        files = self.places[author]
        if len(self.sides[author].first_senders(files.changes)) > 1:
            self.files = files
            self.step_new()
            self.carry(other(author), "copy_from")
        super().take_over(author)

    STEPS = {
        step: n
        for step, n in Walk.STEPS.items()
        if step.__name__
        not in (
            "step_way_to_approval",
            "step_kind",
            "step_ignore",
            "step_rebase",
            "step_conflict",
        )
    }
    STEPS |= {
        step_push: 5,
        step_pull: 5,
        step_exchange: 2,
        step_copy: 4,
        step_fetch: 1,
        step_run: 7,
    }
    del STEPS[Walk.step_run]

    # ---- the end

    def finish(self):
        """All travels, and the hints lead to a close."""
        self.exchange()
        self.assert_alike()
        self.carry(self.rng.choice(AUTHORS), "copy_from")
        self.on_the_way = True
        author = self.way_to_close(self.rng.choice(AUTHORS))
        self.on_the_way = False
        self.end(author, other(author))

    def end(self, author, peer):
        """The pair is closed as approved while the other side goes on. What arrives then may take the
        approval back, and both sides say so."""
        rng = self.rng
        if rng.random() < 0.5:
            self.pull(peer)
        for _ in range(rng.randrange(4)):
            self.files = self.places[peer]
            with self.only(peer):
                rng.choice(
                    [
                        self.step_send,
                        self.step_send,
                        self.step_review,
                        self.step_run,
                        self.step_next,
                        self.step_continue,
                    ]
                )()
        outcomes = {author: "approve"}
        if rng.random() < 0.3:
            lacks = self.sides[peer].close_lacks(peer)
            outcomes[peer] = "given up" if lacks or rng.random() < 0.5 else "approve"
        for each, outcome in outcomes.items():
            self.ok(each, "close", "--reason", "done", "--outcome", outcome)
        self.exchange()
        self.assert_alike(approval=len(outcomes) == 1)  # Each side keeps its own CLOSED.
        for each in AUTHORS:
            closed = self.ok(each, "log", self.slug, "--json").json["closed"]
            if outcomes.get(each, "approve") == "approve":
                lacks = self.sides[each].close_lacks(author, by_record=True)
                assert bool(closed["unsupported"]) == bool(lacks), (each, lacks, closed)
                assert (self.statement_on(each)[0] is None) == bool(lacks), (each, lacks)
            else:
                assert not closed.get("approved_by"), closed

    @contextlib.contextmanager
    def only(self, author):
        """Steps that choose an author choose this one."""
        rng = self.rng
        self.rng = copy.copy(rng)
        self.rng.choice = lambda values: author if values is AUTHORS else rng.choice(values)
        yield
        self.rng = rng

    def statement_on(self, author):
        """What a side exports, or None; and what it says instead."""
        done = self.relay(author, "export", "--statement", "--pair-id", self.slug)
        return (None, done.err) if done.code else (done.json, "")

    def assert_alike(self, approval=True):
        """Both sides hold, find and prove the same, and say the same of the approval."""
        runs = [run for side in self.sides.values() for run in side.runs]
        approval &= all(run.is_carried for run in runs)  # Others stay where they were.
        sides = []
        for author in AUTHORS:
            shared = self.places[author].stage.shared
            (pair,) = (*shared.glob(self.slug), *shared.glob(f"_archive/{self.slug}"))
            files = {n: c for n, c in published(pair).items() if n[0].isdigit()}
            findings = self.ok(author, "findings", "--all", "--pair-id", self.slug, "--json").json
            (proof,) = self.ok(author, "verify", self.slug, "--json").json["pairs"]
            side = {"files": files, "findings": findings["findings"], "faults": proof["faults"]}
            sides.append(side | ({"statement": self.statement_on(author)} if approval else {}))
        for what, here in sides[0].items():
            assert here == sides[1][what], what


@contextlib.contextmanager
def typed_again(seed, walk):
    """What was typed is printed where a test fails."""
    try:
        yield walk
    except BaseException:
        print(f"RELAY_MODEL_SEED={seed}", *walk.told, sep="\n")
        raise


@pytest.mark.parametrize("seed", [int(ONE_SEED)] if ONE_SEED else seeds(1, 10))
def test_an_approval_is_accepted_where_the_model_says_so(stage, seed):
    with typed_again(seed, Walk(stage, random.Random(seed))) as walk:
        walk.go(walk.rng.randrange(20, 60))
        walk.way_to_close(walk.rng.choice(AUTHORS))


@pytest.mark.parametrize("seed", [int(ONE_SEED)] if ONE_SEED else seeds(1, 5))
def test_each_of_two_machines_accepts_what_the_model_says_of_its_record(stage, seed):
    with typed_again(seed, TwoMachines(stage, random.Random(seed))) as walk:
        walk.go(walk.rng.randrange(15, 45))
        walk.finish()
