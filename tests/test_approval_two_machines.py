"""The model of approvals where each author works on a machine of its own: two clones with a remote
between them, by which the ledger travels at random moments. What each side says of an approval and a
close is what the model says of that side's record; once all has travelled, both say the same.

RELAY_MODEL_SEED=N types a history again, as in test_approval_model."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil

import pytest
from conftest import Stage, seeds
from helpers.machines import published
from test_approval_model import AUTHORS, ENOUGH, ONE_SEED, SETTLED, Files, Model, Walk, other

pytestmark = pytest.mark.slow
SYNC = {"RELAY_SYNC": "git"}
FINDERS = ("accepted", "withdrawn", "reopened")


class Clone(Files):
    """The files on one of two machines."""

    def on(self, stage, remote):
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
        shipped = theirs.shipped
        for path, state in sorted(difference_of(self.files, shipped).items()):
            self.put(path, state)

    def fetch(self, theirs):
        """The commits of the other clone, in place of those here; new files stay."""
        new = {p: s for p, s in self.files.items() if p not in {*self.index, *self.head.tree}}
        self.git("fetch", "-q", theirs.top, "HEAD")
        self.git("reset", "-q", "--hard", "FETCH_HEAD")
        self.head = theirs.head
        self.files, self.index = new | self.head.tree, dict(self.head.tree)


def difference_of(old, new):
    from test_approval_model import difference

    return difference(old, new)


class Side(Model):
    """The record as one machine has it: what was published there, and what has arrived."""

    def __init__(self, me, places):
        super().__init__(places)
        self.stage = places[me].stage
        self.me, self.ledger, self.own_words = me, {}, set()

    def next_seq(self, author):
        highest = max(self.ledger, default=0)
        return highest + 1 + (highest % 2 == (author == AUTHORS[0]))

    def place(self, author, request):
        return self.places[self.me]

    def publish(self, artifact, rulings=(), findings=()):
        artifact.known = frozenset(self.ledger)
        (path,) = self.stage.shared.glob(f"*/{artifact.seq:03}-*.json")
        artifact.created = json.loads(path.read_text())["created"]
        runs = [run for run in self.runs if run.author == artifact.author and not run.is_carried]
        self.ledger[artifact.seq] = artifact, dict(rulings), tuple(findings), tuple(runs)
        super().publish(artifact, rulings, findings)

    def take(self, ledger, words):
        """What has arrived counts in the order of its numbers."""
        self.spoke |= words
        if not {*ledger} - {*self.ledger}:
            return
        self.ledger |= ledger
        fresh = [run for run in self.runs if not run.is_carried]
        self.artifacts, self.findings, self.rounds, self.runs = [], {}, [], []
        for seq in sorted(self.ledger):
            artifact, rulings, findings, runs = self.ledger[seq]
            self.runs += runs
            super().publish(artifact, rulings, findings)
        for run in fresh:
            run.is_carried = False
        self.runs += fresh

    def rule(self, finding, verb, author, seq):
        """What its author would not have said, had it known more, changes nothing."""
        is_answered = finding.state in ("fixed", "refuted", "deferred", "wontfix")
        if author == finding.finder:
            says = {"accepted": is_answered, "withdrawn": finding.state not in SETTLED}
            allowed = says.get(verb, not finding.is_unanswered)
        else:
            allowed = finding.state not in SETTLED
        if allowed:
            super().rule(finding, verb, author, seq)

    @staticmethod
    def failed(runs):
        latest = {}
        for run in runs:
            before = latest.get((run.command, run.expect_fail), run)
            if before.failed and run.started < before.started:
                continue  # An artifact carried it late.
            latest[run.command, run.expect_fail] = run
            if not run.expect_fail:
                latest.pop((run.command, True), None)
        return [run for run in latest.values() if run.failed]


class Chosen:
    """Chance that has chosen an author."""

    def __init__(self, rng, author):
        self.rng, self.author = rng, author

    def choice(self, values):
        return self.author if values is AUTHORS else self.rng.choice(values)

    def __getattr__(self, name):
        return getattr(self.rng, name)


class TwoMachines(Walk):
    """A history on two machines."""

    def __init__(self, stage, rng):
        self.stage, self.rng, self.told = stage, rng, []
        self.stages = {author: Stage(stage.folder / author) for author in AUTHORS}
        remote = stage.folder / "remote.git"
        here, there = self.stages.values()
        files = self.files = Clone(here, follows=rng.random() < 0.3)
        here.git("init", "-q", "--bare", "-b", "main", remote)
        here.git("remote", "add", "origin", remote)
        here.git("push", "-q", "origin", "main")
        self.places = {"claude": files, "codex": files.on(there, remote)}
        self.sides = {author: Side(author, self.places) for author in AUTHORS}
        self.pushed = {author: ({}, set()) for author in AUTHORS}
        self.closed = {}
        base = ("--base", "main") if files.follows else ()
        self.slug = self.ok("claude", "bootstrap", "--topic", "demo", *base).out.split()[0]
        self.ok("claude", "sync", "push")
        self.ok("codex", "next", "--sync")

    def record(self, author):
        return self.sides[author]

    def relay(self, author, *words, cwd=None):
        self.told.append(f"{author}: relay {' '.join(map(str, words))}")
        cwd = cwd or self.places[author].top
        done = self.stages[author].run(author, *words, cwd=cwd, RELAY_AUTO_ROUND_CAP="0", **SYNC)
        self.told[-1] += f"  -> {done.code}"
        return done

    # ---- what travels

    def push(self, author):
        self.ok(author, "sync", "push")
        self.note_push(author)

    def note_push(self, author):
        side = self.sides[author]
        own = {seq: row for seq, row in side.ledger.items() if row[0].author == author}
        self.pushed[author] = own, {*side.own_words}

    def pull(self, author):
        self.ok(author, "sync", "pull")
        self.sides[author].take(*self.pushed[other(author)])

    def exchange(self):
        for author in (*AUTHORS, *AUTHORS):
            self.push(author)
            self.pull(author)

    def step_push(self):
        self.push(self.rng.choice(AUTHORS))

    def step_pull(self):
        self.pull(self.rng.choice(AUTHORS))

    def step_exchange(self):
        self.exchange()

    def step_copy(self):
        self.travel("copy_from")

    def step_fetch(self):
        self.travel("fetch")

    def travel(self, how):
        author = self.rng.choice(AUTHORS)
        self.told.append(f"git: {author} {how}")
        getattr(self.places[author], how)(self.places[other(author)])

    # ---- the same as on one

    def say_continue(self, author):
        side = self.sides[author]
        super().say_continue(author)
        own = {a.seq for a in side.of(author)}
        side.own_words |= own | side.delivered[author] if side.artifacts else set()

    def step_run(self):
        rng, author = self.rng, self.rng.choice(AUTHORS)
        self.files = self.places[author]
        self.run(author, rng.choice("xyz"), rng.choice((0, 0, 0, 1, 1, 127)), rng.choice("   cem"))

    def run(self, author, *words, **more):
        self.files = self.places[author]
        run = super().run(author, *words, **more)
        if run:
            records = self.stages[author].shared.glob(f"*/.evidence/{author}-*.json")
            latest = max(records, key=lambda path: path.stat().st_mtime_ns)
            run.started = json.loads(latest.read_text())["started"]
        return run

    def close(self, author):
        self.stage.project = self.stages[author].project
        return super().close(author)

    def look(self, author, done):
        super().look(author, done)

    STEPS = {
        getattr(Walk, f"step_{name}"): weight
        for name, weight in {
            "edit": 4,
            "new": 2,
            "restore": 1,
            "delete": 0.5,
            "stage": 1,
            "forget": 0.5,
            "unstage": 0.5,
            "commit": 2,
            "uncommit": 0.5,
            "next": 10,
            "continue": 1.5,
            "rejoin": 0.3,
            "send": 8,
            "review": 5,
            "approve": 5,
        }.items()
    } | {
        step_run: 7,
        step_push: 5,
        step_pull: 5,
        step_exchange: 2,
        step_copy: 4,
        step_fetch: 1,
    }

    # ---- the way out

    def next(self, author):
        if self.on_the_way_out:
            self.exchange()
        super().next(author)

    on_the_way_out = False

    def way_out(self):
        self.on_the_way_out = True
        self.exchange()
        self.assert_alike()
        self.same_files(self.rng.choice(AUTHORS))
        self.end(self.way_to_close(self.rng.choice(AUTHORS)))

    def end(self, author):
        """The pair is closed as approved while the other side goes on. What arrives then may take the
        approval back, and both sides say so."""
        self.on_the_way_out = False
        rng, peer = self.rng, other(author)
        if rng.random() < 0.5:
            self.pull(peer)
        for _ in range(rng.randrange(4)):
            self.files = self.places[peer]
            (step,) = rng.choices([*self.ENDING], [*self.ENDING.values()])
            step(self, peer)
        self.ok(author, "close", "--reason", "done", "--outcome", "approve")
        closings = {author: "approve"}
        if rng.random() < 0.3:
            lacks = self.sides[peer].close_lacks(peer)
            outcome = "given up" if lacks or rng.random() < 0.5 else "approve"
            self.ok(peer, "close", "--reason", "done", "--outcome", outcome)
            closings[peer] = outcome
        self.exchange()
        # What was run and is not carried by an artifact, and how each closed it, does not travel.
        self.assert_alike(closed=len(closings) > 1 or self.has_fresh_runs())
        for each in AUTHORS:
            lacks = self.sides[each].close_lacks(author, by_record=True)
            story = self.ok(each, "log", self.slug, "--json").json
            closed, outcome = story["closed"], closings.get(each, "approve")
            if outcome != "approve":
                assert not closed.get("approved_by"), closed
                continue
            assert closed["approved_by"], closed
            assert bool(closed["unsupported"]) == bool(lacks), (each, lacks, closed)
            done = self.relay(each, "export", "--statement", "--pair-id", self.slug)
            assert done.code == (2 if lacks else 0), (lacks, done)

    def has_fresh_runs(self):
        return any(not run.is_carried for side in self.sides.values() for run in side.runs)

    def send_as(self, peer):
        self.rng, rng = Chosen(self.rng, peer), self.rng
        self.step_send()
        self.rng = rng

    def review_as(self, peer):
        self.rng, rng = Chosen(self.rng, peer), self.rng
        self.step_review()
        self.rng = rng

    def run_as(self, peer):
        self.run(peer, self.rng.choice("xyz"), self.rng.choice((0, 1, 1)))

    def next_as(self, peer):
        self.next(peer)

    def continue_as(self, peer):
        self.say_continue(peer)

    ENDING = {send_as: 4, review_as: 3, run_as: 4, next_as: 3, continue_as: 1}

    def same_files(self, author):
        self.told.append(f"git: {author} has the files of the other")
        self.places[author].copy_from(self.places[other(author)])

    # ---- both sides

    def pairs(self):
        for stage in self.stages.values():
            places = (stage.shared / self.slug, stage.shared / "_archive" / self.slug)
            yield next(place for place in places if place.exists())

    def assert_alike(self, closed=False):
        """Once all has travelled, both sides say the same."""
        sides = []
        for author, pair in zip(AUTHORS, self.pairs(), strict=True):
            words = "--pair-id", self.slug
            files = published(pair)
            files = {n: c for n, c in files.items() if n not in ("CLOSED", "session.json")}
            found = self.relay(author, "findings", "--all", *words, "--json").json
            proof = self.relay(author, "verify", *words, "--json")
            (row,) = proof.json["pairs"]
            statement = self.relay(author, "export", "--statement", *words)
            predicate = None if statement.code else statement.json["predicate"]
            sides.append(
                {
                    "files": files,
                    "findings": found["findings"],
                    "verify": (proof.code, row["faults"]),
                    "statement": (statement.code, statement.err.replace(self.hosts(author), "")),
                    "predicate": predicate,
                }
            )
        here, there = sides
        for key in ["files", "findings", "verify", *([] if closed else ["statement", "predicate"])]:
            assert here[key] == there[key], key
        assert here["verify"] == (0, []), here["verify"]

    def hosts(self, author):
        return str(self.stages[author].folder)


@pytest.mark.parametrize("seed", [int(ONE_SEED)] if ONE_SEED else seeds(int(os.environ.get("FIRST", "1")), int(os.environ.get("COUNT", "10"))))
def test_each_of_two_machines_accepts_what_the_model_says_of_its_record(stage, seed):
    walk = None
    try:
        walk = TwoMachines(stage, random.Random(seed))
        walk.go(walk.rng.randrange(20, 50))
        walk.way_out()
    except BaseException:
        print(f"RELAY_MODEL_SEED={seed}", *(walk.told if walk else ()), sep="\n")
        raise
