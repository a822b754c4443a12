"""A model of approvals: what an approval and a close lack by the record and the files.

The rules are `Model.approval_lacks` and `Model.close_lacks`. `Files` models git and `Model` the record;
`CONDITIONS` is how relay words the rules; `Walk` is a history in which relay and the model are compared
after each step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import shlex
import shutil
import subprocess

from conftest import copy_tree, dispositions

AUTHORS = ("claude", "codex")
GRAVE = ("blocker", "major")
HANDS_OVER = ("plan", "fix")
USUAL_REPLY = {"plan": "review", "fix": "review", "review": "fix"}
USUAL_REPLY |= {"decision": "note", "question": "note"}
ANSWERS_NOTHING = ("correction", "addendum")
GONE = "deleted"
SYMLINK = 0o120000
SETTLED = ("accepted", "withdrawn")
ENOUGH = 12  # Refusals until what they hint at is accepted.


def other(author):
    return AUTHORS[author == AUTHORS[0]]


# ---- the files


@dataclasses.dataclass(frozen=True)
class Commit:
    tree: dict
    parent: Commit | None = None

    def history(self):
        commit = self
        while commit:
            yield commit
            commit = commit.parent


def difference(old, new):
    """What each path that differs is in the new tree."""
    return {p: new.get(p, GONE) for p in {*old, *new} if old.get(p) != new.get(p)}


def in_the_way(path, other):
    """Whether only one of the two can be there."""
    return path.startswith(f"{other}/") or other.startswith(f"{path}/")


class Files:
    """A working tree, its index, HEAD and the branch that a base follows, each path with its mode
    and content. Everything is done with git, too."""

    def __init__(self, stage, follows):
        self.stage, self.follows, self.count = stage, follows, 0
        self.top, self.branch, self.files = stage.project, "work", {}
        self.conflicts = False
        for path in ("a", "b", "c", "d"):
            self.put(path, (0o644, f"{path}\n"))
        self.git("add", "-A")
        self.git("commit", "-qm", "base")
        self.index, self.head = dict(self.files), Commit(dict(self.files))
        self.began, self.upstream = self.head, [self.head]
        if follows:
            self.git("checkout", "-qb", self.branch)

    def linked(self, name):
        """Another worktree of the repository, on a branch of its own."""
        there = copy.copy(self)
        there.top, there.branch = self.stage.folder / name, name
        self.git("worktree", "add", "-q", "-b", name, there.top)
        there.files, there.index = dict(self.head.tree), dict(self.head.tree)
        return there

    def git(self, *words):
        self.stage.git(*words, cwd=self.top)

    def put(self, path, state):
        """Writes or removes a file, in place of what is there or where its directory has to be."""
        place = self.top / path
        for other in [p for p in self.files if p == path or in_the_way(p, path)]:
            (self.top / other).unlink()
            del self.files[other]
        for directory in (place, place.parent):
            with contextlib.suppress(OSError):
                directory.rmdir()
        if state != GONE:
            place.parent.mkdir(exist_ok=True)
            self.files[path] = mode, text = state
            if mode == SYMLINK:
                place.symlink_to(text)
            else:
                place.write_text(text)
                place.chmod(mode)

    def new_state(self, mode=0o644):
        self.count += 1
        return mode, "line\n" * self.count

    @property
    def base(self):
        """The commit that the change is compared with."""
        upstream = [*map(id, self.upstream[-1].history())]
        parted = next(c for c in self.head.history() if id(c) in upstream)
        return parted if self.follows else self.began

    @property
    def shipped(self):
        """The files that `git add -A && git commit` would ship."""
        ignored = self.files.get(".gitignore", ("", ""))[1].split("\n")
        files = self.files.items()
        return {p: s for p, s in files if p in self.index or not {*p.split("/")} & {*ignored}}

    @property
    def changes(self):
        return difference(self.base.tree, self.shipped)

    @property
    def untracked(self):
        return {*self.shipped} - {*self.index, *self.head.tree, *self.base.tree}

    @property
    def committed(self):
        return difference(self.base.tree, self.head.tree)

    @property
    def staged(self):
        """What the next commit would change, and not into what is in the working tree."""
        paths = difference(self.head.tree, self.index)
        return {p for p in paths if self.index.get(p) != self.shipped.get(p)}

    def stage_path(self, path):
        self.git("add", "-A", "--", path)
        staged = {p: s for p, s in self.shipped.items() if p == path or p.startswith(f"{path}/")}
        self.index.pop(path, None)
        for added in staged:
            self.index = {p: s for p, s in self.index.items() if not in_the_way(p, added)}
        self.index |= staged

    def forget(self, path):
        self.git("rm", "-q", "--cached", "--force", "--", path)
        del self.index[path]

    def unstage(self):
        self.git("reset", "-q")
        self.index = dict(self.head.tree)

    def commit(self, everything):
        if everything:
            self.git("add", "-A")
            self.index = self.shipped
        if self.index != self.head.tree:
            self.git("commit", "-qm", "work")
            self.head = Commit(dict(self.index), self.head)

    def conflict(self):
        """A merge stops at a conflict, if only for a while."""
        self.commit(everything=True)
        side = f"side-{self.branch}-{self.count}"
        self.git("checkout", "-q", "-b", side)
        (self.top / "a").write_text("theirs\n")
        self.git("commit", "-qam", "theirs")
        self.git("checkout", "-q", "-")
        self.put("a", self.new_state())
        self.commit(everything=True)
        with contextlib.suppress(subprocess.CalledProcessError):
            self.git("merge", "-q", side)
        self.files["a"], self.conflicts = (0o644, "of both\n"), True

    def abort(self):
        self.git("merge", "--abort")
        self.files["a"], self.conflicts = self.index["a"], False

    def uncommit(self):
        """Takes the last commit of the work back; its files stay."""
        self.git("reset", "-q", "--soft", "HEAD~1")
        self.head = self.head.parent

    def rebase(self, merge):
        """Upstream goes on, and what is committed of the work goes on from there."""
        self.commit(everything=True)
        if not self.committed or self.files != self.index:
            return
        path, state = f"up-{self.branch}-{self.count}", self.new_state()
        self.git("checkout", "-q", "main")
        (self.top / path).write_text(state[1])
        self.git("add", "-A")
        self.git("commit", "-qm", "upstream")
        self.git("checkout", "-q", self.branch)
        self.git(*(("merge", "-q", "--no-edit", "main") if merge else ("rebase", "-q", "main")))
        work, parted = [], self.base
        for commit in self.head.history():
            if commit is parted:
                break
            work.insert(0, difference(commit.parent.tree, commit.tree))
        self.head = Commit(self.upstream[-1].tree | {path: state}, self.upstream[-1])
        self.upstream.append(self.head)
        if merge:  # What was committed before it is not undone here.
            work = [difference(parted.tree, self.index)]
        for changes in work:
            tree = {p: s for p, s in (self.head.tree | changes).items() if s != GONE}
            self.head = Commit(tree, self.head)
        self.files, self.index = dict(self.head.tree), dict(self.head.tree)


# ---- the record


@dataclasses.dataclass
class Finding:
    id: str
    finder: str
    severity: str
    state: str = "open"
    asked: int = 0  # The review that raised it, or reopened it last.
    raised: int = 0
    answered: int = 0  # The artifact with the last answer.
    reopened: int = 0

    @property
    def is_grave(self):
        return self.severity in GRAVE

    @property
    def is_unanswered(self):
        return self.state in ("open", "reopened")


@dataclasses.dataclass
class Artifact:
    seq: int
    author: str
    kind: str
    place: Files  # The working tree that it is about, and what that was then.
    changes: dict
    answered: set  # The peer's numbers that its author has answered with it or before.
    asks_user: bool = False
    corrects: int = 0
    verdict: str = ""
    request: Artifact | None = None
    accepted_moved: tuple = ()
    not_run: bool = False
    despite_failed: bool = False
    empty: bool = False
    excused: tuple = ()
    untracked_beside: tuple = ()  # New files that git did not track when it was approved.
    pauses: bool = False
    created: str = ""
    known: frozenset | None = None  # What was there when it was published; None is all.

    def came_after(self, other):
        """Whether this was written after the other one, or by an author who did not know of it."""
        return self.seq > other.seq or (other.known is not None and self.seq not in other.known)


@dataclasses.dataclass(eq=False)
class Run:
    author: str
    command: str
    expect_fail: bool
    code: int
    before: dict
    after: dict
    is_clean: bool
    is_carried: bool = False
    started: str = ""

    @property
    def failed(self):
        return (self.code == 0) == self.expect_fail


@dataclasses.dataclass
class Review:
    """What a review that approves says beside that."""

    reply_to: int = 0
    rulings: dict = dataclasses.field(default_factory=dict)
    not_run: bool = False
    despite_failed: bool = False
    empty: bool = False
    accept_moved: tuple = ()


class Model:
    """The record of a pair, and what approvals lack by it."""

    def __init__(self, places):
        self.places = places  # Of each author.
        self.artifacts, self.findings, self.runs = [], {}, []
        self.delivered = {author: set() for author in AUTHORS}
        self.answered = {author: set() for author in AUTHORS}
        self.spoke = set()  # The numbers that the user has answered.
        self.rounds = []  # By review, how many blockers were unanswered after it.

    def of(self, author):
        return [a for a in self.artifacts if a.author == author]

    def at(self, seq):
        return next(a for a in self.artifacts if a.seq == seq)

    def next_seq(self, author):
        return len(self.artifacts) + 1

    def place(self, author, request):
        """The working tree that an author's verdict on this is about."""
        return request.place

    def waiting(self, author):
        """The peer's artifacts that an author has not answered."""
        return [a for a in self.of(other(author)) if a.seq not in self.answered[author]]

    def unread(self, author):
        return [a for a in self.waiting(author) if a.seq not in self.delivered[author]]

    @property
    def work(self):
        return [a for a in self.artifacts if a.kind in HANDS_OVER and a.changes]

    def first_senders(self, changes):
        """Who sent this work before it had the other's, and not later than the other did."""
        same = [a for a in self.work if a.changes == changes]
        first = [a for a in same if all(b is a or b.came_after(a) for b in same)]
        return {a.author for a in first if a.created == min(each.created for each in first)}

    def last_verdict(self, author):
        return next((a for a in reversed(self.of(author)) if a.verdict), None)

    def next(self, author):
        self.delivered[author] |= {a.seq for a in self.waiting(author)}

    def publish(self, artifact, rulings=(), findings=()):
        me, seq = artifact.author, artifact.seq
        self.artifacts.append(artifact)
        self.answered[me] = set(artifact.answered)
        for finding, verb in dict(rulings).items():
            self.rule(self.findings[finding], verb, me, seq)
        for n, severity in enumerate(findings, 1):
            self.findings[f"{seq}.{n}"] = Finding(f"{seq}.{n}", me, severity, "open", seq, seq)
        for run in self.runs:
            run.is_carried |= run.author == me
        if artifact.kind == "review":
            blockers = [f for f in self.findings.values() if f.severity == "blocker"]
            self.rounds.append((seq, sum(f.is_unanswered for f in blockers)))

    @staticmethod
    def rule(finding, verb, author, seq):
        finding.state = verb
        if author != finding.finder:
            finding.answered = seq
        elif verb == "reopened":
            finding.reopened += 1
            finding.asked = seq

    def request(self, author, reply_to=0):
        """What a review is about: what it names, else what `next` wants one of, else the last shown."""
        if reply_to:
            return self.at(reply_to)
        wanting = [a for a in self.waiting(author) if a.kind in USUAL_REPLY]
        work = [a for a in wanting if USUAL_REPLY[a.kind] != "note"]
        shown = [a for a in self.of(other(author)) if a.seq in self.delivered[author]]
        if first := next(iter(work or wanting), None):
            asked = [a for a in wanting if USUAL_REPLY[a.kind] == USUAL_REPLY[first.kind]][-1]
            if asked.kind in HANDS_OVER and asked in shown:
                return asked
        return shown[-1] if shown else None

    def question(self, author):
        """Whether the user has to answer before this author sends anything but a correction."""
        waiting = self.waiting(author)
        own = [a for a in self.waiting(other(author)) if a.kind not in ANSWERS_NOTHING][-1:]
        if any(a.asks_user or a.pauses for a in (*own, *waiting) if a.seq not in self.spoke):
            return True
        stalled = [count for _, count in self.rounds[-4:]]
        stalled = len(stalled) == 4 and min(stalled[1:]) >= stalled[0] > 0
        stalled = stalled and self.rounds[-1][0] not in self.spoke
        again = [f for f in self.findings.values() if f.state == "reopened" and f.reopened > 1]
        again = [f for f in again if f.asked not in self.spoke]
        return bool(waiting and (again or stalled))

    def ruled(self, finding):
        """The finder's reviews from the finding to its answer, which may be about to be sent."""
        answer = [a for a in self.artifacts if a.seq == finding.answered]
        reviews = [a for a in self.of(finding.finder) if a.kind == "review"]
        reviews = [a for a in reviews if finding.raised <= a.seq]
        return [a for a in reviews if not answer or answer[0].came_after(a)]

    def is_fixed(self, finding, request):
        """Whether what is judged is nothing that the finder had before it when it found that."""
        reviews = self.ruled(finding)
        seen = [a.changes for a in reviews]
        seen += [a.request.changes for a in reviews if a.verdict and a.request]
        return finding.state == "fixed" and request is not None and request.changes not in seen

    def is_left_by_user(self, finding):
        """It is answered `wontfix`, and the user has spoken since the finder's last review before."""
        reviews = self.ruled(finding)
        return finding.state == "wontfix" and bool(reviews) and reviews[-1].seq in self.spoke

    def counting_runs(self, reviewer, states):
        """The runs on one of these change sets; the reviewer's, which only create files, lead on."""
        states, counting = [*states], []
        for run in self.runs:
            if run.before in states and run.code not in (126, 127):
                counting.append(run)
                if run.author == reviewer and run.is_clean:
                    states.append(run.after)
        return counting

    @staticmethod
    def failed(runs):
        """The latest of each command, where that failed. A reproduction replaces no other run."""
        latest = {}
        for run in runs:
            latest[run.command, run.expect_fail] = run
            if not run.expect_fail:
                latest.pop((run.command, True), None)
        return [run for run in latest.values() if run.failed]

    def moved(self, request, files):
        """What differs from the request, without new files that git does not track."""
        now, new = files.changes, files.untracked - {*request.changes}
        return {*difference(request.changes, now)} - new

    # ---- what an approval lacks

    def approval_lacks(self, me, review):
        """The conditions that are unmet where this author sends this review with an approval."""
        peer, lacks = other(me), set()
        if self.question(me):
            return {"question"}
        request = self.request(me, review.reply_to)

        for finding in self.findings.values():
            if verb := review.rulings.get(finding.id):
                self.rule(finding := dataclasses.replace(finding), verb, me, self.next_seq(me))
            if not finding.is_grave or finding.state in SETTLED or self.is_left_by_user(finding):
                continue
            if finding.is_unanswered or finding.state == "wontfix":
                lacks.add(f"finding {finding.id}")
            elif finding.finder == me and not self.is_fixed(finding, request):
                lacks.add(f"finding {finding.id}")
        if not request:
            return lacks | {"nothing received"}
        lacks |= {f"unread {a.seq}" for a in self.unread(me) if a is not request}

        files = self.place(me, request)
        moved, accepted = self.moved(request, files), {*review.accept_moved}
        if moved - accepted:
            lacks.add(f"moved {sorted(moved - accepted)}")
        lacks |= {f"did not move {path}" for path in accepted - moved}
        if review.empty and request.changes:
            lacks.add("not empty")
        if files.conflicts:
            lacks.add("conflicts")
        if not request.changes and not review.empty:
            lacks.add("empty")

        states = [files.changes, *([] if review.accept_moved else [request.changes])]
        runs = self.counting_runs(me, states)
        failed = self.failed(runs)
        if review.despite_failed:
            lacks |= set() if failed else {"no failure"}
        else:
            lacks |= {f"failed {run.command} by {run.author}" for run in failed}
        own = [
            r for r in runs if r.author == me and r.code == 0 and r.is_clean and not r.expect_fail
        ]
        if not (own or review.not_run or review.despite_failed):
            lacks.add("not run")

        last, hands_over = self.last_verdict(peer), request.kind in HANDS_OVER
        work = {a.author for a in self.work}
        if last and last.verdict == "changes" and not (hands_over and request.seq > last.seq):
            lacks.add("changes asked for")
        elif me in (self.first_senders(request.changes) if hands_over else work):
            lacks.add("own work")
        return lacks

    def close_lacks(self, me, by_record=False):
        """The conditions that are unmet where this author closes the pair as approved; `by_record`,
        where it was closed: without those of the files, and of what is unread."""
        peer, lacks = other(me), set()
        for f in self.findings.values():
            if f.is_grave and f.state not in SETTLED and not self.is_left_by_user(f):
                lacks.add(f"finding {f.id}")
        verdict, own = self.last_verdict(peer), self.last_verdict(me)
        if not verdict:
            return lacks | {"no verdict"}
        request = verdict.request
        if not by_record:
            lacks |= {f"unread {a.seq}" for a in self.unread(me) if a.seq > verdict.seq}
        if verdict.verdict == "changes":
            lacks.add("changes asked for")
        if own and own.came_after(verdict) and own.verdict == "changes":
            lacks.add("changes asked for")

        files = self.place(me, request)
        now, committed = files.changes, files.committed
        then = {p for p in verdict.accepted_moved if verdict.changes.get(p) == now.get(p)}
        moved = set() if by_record else self.moved(request, files) - then
        if moved:
            lacks.add(f"moved {sorted(moved)}")
        if not request.changes and not verdict.empty:
            lacks.add("empty")
        if verdict.verdict == "approve":
            states = [verdict.changes, *([] if verdict.accepted_moved else [request.changes])]
            runs = [run for run in self.runs if run not in verdict.excused]
            for run in self.failed(self.counting_runs(peer, states)):
                if run not in verdict.excused:
                    lacks.add(f"failed {run.command} by {run.author}")
            runs = self.counting_runs(peer, states)
            runs = [r for r in runs if r.author == peer and r.code == 0 and r.is_clean]
            if not (
                [r for r in runs if not r.expect_fail] or verdict.not_run or verdict.despite_failed
            ):
                lacks.add("not run")

        mine = {a.seq for a in self.of(me)} & verdict.answered
        for a in self.artifacts:
            rests_on = mine if a.author == me else {verdict.seq}
            if a.corrects in rests_on and a.seq not in rests_on:
                lacks.add(f"{a.seq} changes {a.corrects}")
        if by_record:
            return lacks
        if files.conflicts:
            lacks.add("conflicts")
        if files.staged:
            lacks.add("index")
        if committed:
            if any(now.get(p, 0) != state for p, state in committed.items()):
                lacks.add("HEAD differs")
            if any(p in now and p not in committed for p in request.changes):
                lacks.add("left out")
        return lacks


# ---- what relay says

CONDITIONS = (  # How a row of a refusal names a condition.
    (r"(\d+\.\d+) (?:blocker|major) .*", r"finding \1"),
    (r"0*(\d+) \w+ by \w+ was not delivered to you", r"unread \1"),
    (r"you have received nothing .*", "nothing received"),
    (
        r"the working tree(?: in \S+|, not the author's,)? changed since .*?\d+(?: approved| reviewed)?: (.*?)(?: \(or.*)?",
        "moved",
    ),
    (r"--accept-moved (\S+): that did not change", r"did not move \1"),
    (r"--empty: the change set is not empty", "not empty"),
    (r"the change set is empty.*", "empty"),
    (r".*check-(\w+)\.sh.* by (\w+) exited with .*", r"failed \1 by \2"),
    (r"--despite-failed: nothing that was run .*", "no failure"),
    (r".*\(or say why not: --not-run REASON\)", "not run"),
    (r".* asks? for changes.*", "changes asked for"),
    (r"\d+ hands nothing over.*", "own work"),
    (r"nothing in this pair was ever approved.*|the only verdict is your own.*", "no verdict"),
    (r"0*(\d+) changes 0*(\d+), which the approval rests on", r"\1 changes \2"),
    (r"merge conflicts: a", "conflicts"),
    (r"the index differs from the working tree.*", "index"),
    (r"HEAD differs from what was reviewed.*", "HEAD differs"),
    (r"reviewed, and left out of what was committed.*", "left out"),
)


def condition(row):
    for pattern, name in CONDITIONS:
        if match := re.fullmatch(pattern, row):
            return (
                f"moved {sorted(match[1].split(', '))}" if name == "moved" else match.expand(name)
            )
    return row


def lacks_of(done):
    """The conditions that a refusal lists."""
    if done.code == 0:
        return set()
    assert done.code == 2 and done.err.startswith("relay: "), done
    if " - " not in done.err and re.search(
        "user|reopened|reviews without", done.err.split("\n")[0]
    ):
        return {"question"}
    rows = re.findall(r"(?m)^  - (--accept-moved .*|--empty: .*|.*(?=\n    hint: \S))", done.err)
    assert len(rows) == done.err.count("\n  - "), done
    return {condition(row) for row in rows} or {done.err}


def assert_same(listed, lacks, what):
    """That exactly these conditions are listed. Of many paths the first are named, others counted."""
    moved = next((each for each in lacks if each.startswith("moved")), "")
    for each in [each for each in listed if " more" in each]:
        paths = re.findall(r"'(.*?)(?: and (\d+) more)?'", each)
        count = len(paths) + sum(int(more or 0) for _, more in paths)
        if all(f"'{path}'" in moved for path, _ in paths) and moved.count(",") + 1 == count:
            listed = listed - {each} | {moved}
    too_much, too_little = listed - lacks, lacks - listed
    assert listed == lacks, f"{what}\ntoo much: {too_much}\ntoo little: {too_little}"


class Walk:
    """One history: each step is done with relay or git, and in the model."""

    settings = {"RELAY_AUTO_ROUND_CAP": "0"}

    def __init__(self, stage, rng):
        self.stage, self.rng, self.told = stage, rng, []
        self.files = files = Files(stage, follows=rng.random() < 0.4)
        linked = rng.random() < 0.3
        self.places = {"claude": files, "codex": files.linked("linked") if linked else files}
        self.model = Model(self.places)
        base = ("--base", "main") if self.files.follows else ()
        self.slug = stage.ok("claude", "bootstrap", "--topic", "demo", *base).out.split()[0]
        stage.ok("codex", "next", cwd=self.places["codex"].top)

    def record(self, author):
        """What there is where this author works."""
        return self.model

    def relay(self, author, *words, cwd=None):
        self.told.append(f"{author}: relay {' '.join(map(str, words))}")
        place = self.places[author]
        done = place.stage.run(author, *words, cwd=cwd or place.top, **self.settings)
        self.told[-1] += f"  -> {done.code}"
        return done

    def ok(self, author, *words):
        done = self.relay(author, *words)
        assert done.code == 0, done
        return done

    # ---- steps

    def step_edit(self):
        path = self.rng.choice(sorted(self.files.files))
        if not path.startswith("up-"):
            self.git_step("put", path, self.files.new_state(self.files.files[path][0]))

    def step_new(self):
        self.git_step("put", f"new-{self.files.count}", self.files.new_state())

    def step_restore(self):
        """A file is again as it was at some time."""
        states = [a.changes for a in self.record(AUTHORS[0]).artifacts] or [{}]
        changes = self.rng.choice(states)
        for path in sorted(changes):
            state = changes[path]
            if state != self.files.files.get(path, GONE):
                self.git_step("put", path, state)

    def step_delete(self):
        path = self.rng.choice(sorted(self.files.files))
        if not path.startswith("up-") and len(self.files.files) > 2:
            self.git_step("put", path, GONE)

    def step_rename(self):
        path = self.rng.choice(sorted(self.files.files))
        if not path.startswith("up-"):
            state = self.files.files[path]
            self.git_step("put", f"moved-{self.files.count}-{path[-9:]}".replace("/", "-"), state)
            self.git_step("put", path, GONE)
            self.files.count += 1

    def step_mode(self):
        path = self.rng.choice(sorted(self.files.files))
        if not path.startswith("up-"):
            mode, text = self.files.files[path]
            if mode != SYMLINK:
                self.git_step("put", path, (mode ^ 0o111, text))

    def step_kind(self):
        """A symlink, or a directory with a file, in the place of a file."""
        path = self.rng.choice("abcd")
        if path in self.files.files:
            self.git_step("put", f"{path}/x", self.files.new_state())
        else:
            self.git_step("put", path, self.files.new_state(SYMLINK))

    def git_step(self, what, *words):
        self.told.append(f"git: {what} {words}")
        getattr(self.files, what)(*words)

    def step_ignore(self):
        names = [name for name in sorted(self.files.files) if self.rng.random() < 0.3]
        self.git_step("put", ".gitignore", (0o644, "\n".join([*names, ""])))

    def step_stage(self):
        paths = sorted(difference(self.files.index, self.files.shipped))
        if paths:
            self.git_step("stage_path", self.rng.choice(paths))

    def step_forget(self):
        if self.files.index:
            self.git_step("forget", self.rng.choice(sorted(self.files.index)))

    def step_unstage(self):
        self.git_step("unstage")

    def step_commit(self):
        self.git_step("commit", self.rng.random() < 0.7)

    def step_uncommit(self):
        if self.files.base not in (self.files.head, self.files.head.parent):
            self.git_step("uncommit")

    def step_conflict(self):
        if "a" in self.files.index and self.files.files.get("a", (SYMLINK, ""))[0] != SYMLINK:
            self.git_step("conflict")
            self.check()
            self.git_step("abort")

    def step_rebase(self):
        if self.files.follows:
            self.git_step("rebase", self.rng.random() < 0.4)

    def step_next(self):
        self.next(self.rng.choice(AUTHORS))

    def next(self, author):
        """What it prints of an approval that it asks for, and of a close, is what the model says."""
        told = self.ok(author, "next", "--json").json
        self.record(author).next(author)
        if told["action"] == "reply" and "lacks" in told:
            reply_to = int(re.search(r"--reply-to (\d+)", told["next"])[1])
            lacks = self.record(author).approval_lacks(author, Review(reply_to))
            listed = {condition(row) for row, _ in told["lacks"]}
            if (
                len(self.record(author).artifacts) > 10
            ):  # It looks at the latest; not at all that was run.
                listed -= {"not run"} - lacks
                lacks = lacks & listed
            assert_same(listed, lacks, f"next {author}")
        elif told["action"] in ("reply", "resume") and "unmet" in told:
            lacks = self.record(author).close_lacks(author)
            assert_same({condition(row) for row, _ in told["unmet"]}, lacks, f"next {author}")

    def step_continue(self):
        self.say_continue(self.rng.choice(AUTHORS))

    def say_continue(self, author):
        done = self.relay(author, "continue")
        if self.record(author).artifacts:
            assert done.code == 0, done
        own = {a.seq for a in self.record(author).of(author)}
        self.record(author).spoke |= (
            own | self.record(author).delivered[author] if done.code == 0 else set()
        )

    def step_rejoin(self):
        author = self.rng.choice(AUTHORS)
        self.ok(author, "pair", "leave")
        self.ok(author, "pair", "join", self.slug)

    def step_run(self):
        rng, author = self.rng, self.rng.choice(AUTHORS)
        self.files = self.places[author if rng.random() < 0.5 else other(author)]
        self.run(author, rng.choice("xyz"), rng.choice((0, 0, 0, 1, 1, 127)), rng.choice("   cem"))

    def run(self, author, command, code, how=" ", expect_fail=None):
        """Runs a check, which (c) creates a file, (e) edits one, or (m) runs in a copy."""
        if any(
            r.command == command and r.author != author and not r.is_carried
            for r in self.record(author).runs
        ):
            return (
                None  # A known limit: an older run that no artifact carries outweighs a newer one.
            )
        if expect_fail is None:
            expect_fail = self.rng.random() < 0.2
        before, effect = self.files.changes, ""
        path, state = f"junk-{self.files.count}", self.files.new_state()
        if how == "e":
            regular = {p: mode for p, (mode, _) in self.files.files.items() if mode != SYMLINK}
            path = self.rng.choice(sorted(regular))
            state = regular[path], state[1]
        if how in "ce":
            effect = f"cat > {path} <<END\n{state[1]}END\n"
        script = self.stage.file(f"umask 022\n{effect}exit {code}\n", f"check-{command}.sh")
        flags = ["--expect-fail"] * expect_fail + ["--copy"] * (how == "m")
        done = self.relay(author, "run", *flags, "--", "sh", script, cwd=self.files.top)
        assert done.code == code, done
        if how in "ce":
            self.files.files[path] = state
        after, new = self.files.changes, self.files.untracked - {*before}
        is_clean = not {*difference(before, after)} - new
        run = Run(author, command, expect_fail, code, before, after, is_clean)
        self.record(author).runs.append(run)
        return run

    def rulings(self, author, some=0.5):
        """What an author may say of some findings, and does."""
        ways = {}
        for f in self.record(author).findings.values():
            if self.rng.random() > some:
                continue
            if f.finder == author:
                verbs = ["withdrawn"] if f.state not in SETTLED else []
                verbs += ["accepted"] * 4 if not f.is_unanswered and f.state not in SETTLED else []
                verbs += ["reopened"] if not f.is_unanswered else []
            elif f.state in SETTLED:
                verbs = []
            else:
                verbs = ["fixed", "fixed", "fixed", "refuted", "deferred"]
                verbs += (
                    ["wontfix"] * 2
                    if not f.is_grave or f.asked in self.record(author).spoke
                    else []
                )
            if verbs:
                ways[f.id] = self.rng.choice(verbs)
        return ways

    def step_send(self):
        rng, author = self.rng, self.rng.choice(AUTHORS)
        model = self.record(author)
        kind = rng.choice(("fix",) * 5 + ("plan", "note", "question", "correction", "addendum"))
        kind = "decision" if rng.random() < 0.03 else kind
        corrects, rulings = 0, {}
        if kind in ANSWERS_NOTHING:
            own = [a for a in model.of(author) if a.kind not in ANSWERS_NOTHING]
            if not own:
                return
            corrects = rng.choice(own).seq if kind == "correction" or rng.random() < 0.5 else 0
        elif kind != "decision":
            rulings = self.rulings(author)
        asks, pauses = rng.random() < 0.05, kind not in ANSWERS_NOTHING and rng.random() < 0.02
        self.send(author, kind, rulings, corrects=corrects, asks=asks, pauses=pauses)

    def step_review(self):
        rng, author = self.rng, self.rng.choice(AUTHORS)
        if not self.record(author).delivered[author]:
            return
        severities = ("blocker", "major", "minor", "nit")
        found = [rng.choice(severities) for _ in range(rng.randrange(3))]
        verdict = rng.choice(("changes", "changes", ""))
        if (
            len({*map(id, self.places.values())}) > 1
            and self.record(author).request(author).kind == "review"
        ):
            verdict = ""  # A known limit: whose worktree the peer's review was about is not known.
        self.send(author, "review", self.rulings(author), found, verdict)

    def send(
        self, author, kind, rulings=(), found=(), verdict="", corrects=0, asks=False, pauses=False
    ):
        model = self.record(author)
        refused = model.question(author) and kind not in ANSWERS_NOTHING
        blocks = []
        if rulings:
            blocks.append(dispositions(*(f"{i} {verb} so" for i, verb in rulings.items())))
        if found:
            rows = [f"{s} - Wrong {len(model.artifacts)} {n}" for n, s in enumerate(found)]
            blocks.append("\n".join(["# Review", "", "```findings", *rows, "```", ""]))
        words = ["--kind", kind, *(("--verdict", verdict) if verdict else ())]
        words += ("--corrects", corrects) if corrects else ()
        words += ("--status", "timed_out") if pauses else ()
        words += "--next", "@user: may I?" if asks else "go on"
        done = self.relay(
            author, "send", *words, "--file", self.body("\n".join(blocks) or "# Text\n")
        )
        assert done.code == (2 if refused else 0), (refused, done)
        if refused:
            return
        shown = model.delivered[author]
        answered = model.answered[author] | (set() if kind in ANSWERS_NOTHING else shown)
        request = model.request(author) if kind == "review" else None
        files = model.place(author, request) if request else self.places[author]
        seq = model.next_seq(author)
        artifact = Artifact(seq, author, kind, files, files.changes, set(answered))
        artifact.asks_user, artifact.corrects = asks or kind == "decision", corrects
        artifact.verdict, artifact.pauses = verdict, pauses
        artifact.request = request
        model.publish(artifact, rulings, found)

    def body(self, text):
        self.stage.sent += 1
        self.told[-1:] = [*self.told[-1:], *(f"    {line}" for line in text.split("\n") if line)]
        return self.stage.file(text, f"body-{self.stage.sent}.md")

    def step_approve(self):
        author = self.rng.choice(AUTHORS)
        self.approve(author, self.some_review(author))

    def some_review(self, author):
        rng, model, review = self.rng, self.record(author), Review()
        if rng.random() < 0.4 and (theirs := model.of(other(author))):
            review.reply_to = rng.choice(theirs).seq
        if rng.random() < 0.5:
            ways = self.rulings(author, 0.8)
            review.rulings = {i: verb for i, verb in ways.items() if verb != "reopened"}
        review.not_run, review.despite_failed = rng.random() < 0.4, rng.random() < 0.15
        about = model.request(author, review.reply_to)
        if about and not about.changes:
            review.empty = rng.random() < 0.5
        if about and rng.random() < 0.3:
            moved = sorted(model.moved(about, model.place(author, about)))
            review.accept_moved = tuple(p for p in moved if rng.random() < 0.8)
        return review

    def approve(self, author, review, *flags):
        """Sends an approval, and looks whether it is refused for what the model says."""
        model = self.record(author)
        lacks = model.approval_lacks(author, review)
        words = [*flags, "--kind", "review", "--verdict", "approve", "--next", "ship it"]
        words += ("--reply-to", review.reply_to) if review.reply_to else ()
        words += ("--not-run", "read only") if review.not_run else ()
        words += ("--despite-failed", "no network") if review.despite_failed else ()
        words += ("--empty",) if review.empty else ()
        for path in review.accept_moved:
            words += ("--accept-moved", path)
        words += ("--reason", "meant so") if review.empty or review.accept_moved else ()
        rows = [f"{i} {verb} so" for i, verb in review.rulings.items()]
        body = self.body(dispositions(*rows) if rows else "# Fine\n")
        done = self.relay(author, "send", *words, "--file", body)
        assert_same(lacks_of(done), lacks, f"{author} {review}")
        self.look(author, done)
        if lacks or "--dry-run" in flags:
            return lacks
        shown = model.delivered[author] | ({review.reply_to} if review.reply_to else set())
        request = model.request(author, review.reply_to)
        files = model.place(author, request)
        artifact = Artifact(
            model.next_seq(author),
            author,
            "review",
            files,
            files.changes,
            model.answered[author] | shown,
        )
        artifact.verdict, artifact.request = "approve", request
        artifact.not_run, artifact.empty = review.not_run, review.empty
        artifact.accepted_moved = review.accept_moved
        artifact.untracked_beside = files.untracked - {*request.changes}
        artifact.despite_failed = review.despite_failed
        if review.despite_failed:
            states = [files.changes, *([] if review.accept_moved else [request.changes])]
            artifact.excused = tuple(r for r in model.counting_runs(author, states) if r.failed)
        rulings = dict(review.rulings)
        for f in model.findings.values():
            if f.finder == author and f.id not in rulings and model.is_fixed(f, request):
                rulings[f.id] = "accepted"
        model.publish(artifact, rulings)
        return lacks

    def close(self, author):
        """Tries a close; the project is put back where it is accepted."""
        lacks = self.record(author).close_lacks(author)
        project, aside = self.places[author].stage.project, self.stage.folder / "aside"
        if not lacks:
            self.statement(author)
            aside.mkdir()
            copy_tree(project, aside)
        done = self.relay(author, "close", "--reason", "done", "--outcome", "approve")
        assert_same(lacks_of(done), lacks, f"close {author}")
        self.look(author, done)
        if not lacks:
            shutil.rmtree(project)
            aside.rename(project)
        return lacks

    # ---- the way out

    def way_to_approval(self, author):
        """Approves as one of the two, doing what each refusal hints at. Returns who approved."""
        review = Review()
        for _ in range(ENOUGH):
            request = self.record(author).request(author)
            if request:
                self.files = self.record(author).place(author, request)
            if not (lacks := self.approve(author, review)):
                return author
            done = set()
            for lack in sorted(lacks):
                what, _, about = lack.partition(" ")
                done.add(what)
                if lack == "question":
                    self.next(author)
                    self.say_continue(author)
                elif what == "unread":
                    self.next(author)
                elif lack == "nothing received":
                    self.send(other(author), "fix")
                    self.next(author)
                elif what == "finding":
                    finding = self.record(author).findings[about]
                    if finding.state == "wontfix" and finding.asked in self.record(
                        author
                    ).delivered[author] | {a.seq for a in self.record(author).of(author)}:
                        self.say_continue(author)
                    elif finding.finder != author:
                        review.rulings[about] = "refuted"
                    else:
                        review.rulings[about] = "withdrawn" if finding.is_unanswered else "accepted"
                elif what == "moved":
                    review.accept_moved += tuple(re.findall("'(.*?)'", about))
                elif what == "empty":
                    review.empty = True
                elif what == "failed":
                    ran = self.run(author, about.split(" ")[0], 0, expect_fail=False)
                    review.despite_failed = not ran or self.rng.random() < 0.3
                elif what == "did":  # It did not move.
                    review.accept_moved = ()
                elif lack in ("no failure", "not empty"):
                    review.despite_failed = review.empty = False
                elif lack == "not run":
                    self.run(author, author, 0, expect_fail=False)
                    review.not_run = self.rng.random() < 0.3
            if done & {"changes", "own"}:
                self.take_over(author)
                author, review = other(author), Review()
                self.next(author)
        raise AssertionError("no way to an approval")

    def take_over(self, author):
        """Sends the work anew, for the other one to approve."""
        self.send(author, "fix")

    def way_to_close(self, author):
        """Closes as approved, doing what each refusal hints at."""
        for _ in range(ENOUGH):
            if not (lacks := self.close(author)):
                return author
            verdict = self.record(author).last_verdict(other(author))
            if verdict and verdict.request:
                self.files = self.record(author).place(author, verdict.request)
            again = False
            for lack in sorted(lacks):
                what, _, about = lack.partition(" ")
                if what == "finding":
                    finding = self.record(author).findings[about]
                    if finding.is_unanswered:
                        self.next(other(finding.finder))
                        self.send(other(finding.finder), "note", {about: "refuted"})
                    elif finding.state == "wontfix":
                        self.next(author)
                        self.say_continue(author)
                    else:
                        self.next(finding.finder)
                        self.send(finding.finder, "note", {about: "accepted"})
                elif what == "unread":
                    self.next(author)
                elif lack == "index":
                    for path in sorted(self.files.staged):
                        self.git_step("stage_path", path)
                elif what in ("HEAD", "left"):
                    self.git_step("commit", True)
                else:
                    again = True
            if again:
                self.next(author)
                self.send(author, "fix")
                self.next(other(author))
                author = other(self.way_to_approval(other(author)))
                self.next(author)
        raise AssertionError("no way to a close")

    def step_way_to_approval(self):
        self.way_to_approval(self.rng.choice(AUTHORS))

    def look(self, author, done):
        """Types what a refusal hints at for looking: each shows something."""
        for hint in re.findall(
            r"hint: (.*(?:git diff --cached|--diff=now|relay findings).*)", done.err
        ):
            words = shlex.split(hint)
            place = words[1] if words[0] == "cd" else self.places[author].top
            words = words[3:] if words[0] == "cd" else words
            if words[0] == "git":
                assert self.stage.git(*words[1:], cwd=place), hint
            elif self.rng.random() < 0.1:
                assert self.ok(author, *words[1:]).out, hint

    def statement(self, author):
        """What is exported of an approval that holds is what was judged, and accepted as changed."""
        verdict = self.record(author).last_verdict(other(author))
        if own := self.record(author).last_verdict(author):
            if own.seq > verdict.seq:
                return
        files = self.ok(author, "export", "--statement").json["predicate"]["files"]
        covered = {*verdict.request.changes, *verdict.changes} - verdict.untracked_beside
        covered &= {*verdict.changes}
        assert {row["path"] for row in files} == covered, (files, covered)

    STEPS = {
        step_way_to_approval: 1,
        step_edit: 4,
        step_new: 2,
        step_restore: 1,
        step_delete: 1,
        step_rename: 1,
        step_mode: 1,
        step_kind: 1,
        step_ignore: 0.7,
        step_stage: 2,
        step_forget: 0.5,
        step_unstage: 0.5,
        step_commit: 2,
        step_uncommit: 0.5,
        step_rebase: 1,
        step_conflict: 0.5,
        step_next: 10,
        step_continue: 1.5,
        step_rejoin: 0.3,
        step_run: 8,
        step_send: 7,
        step_review: 4,
        step_approve: 4,
    }

    def go(self, count):
        for _ in range(count):
            self.files = self.places[self.rng.choice(AUTHORS)]
            (step,) = self.rng.choices([*self.STEPS], [*self.STEPS.values()])
            step(self)
            self.check()

    def check(self):
        mark = len(self.told)
        for author in AUTHORS:
            self.approve(author, self.some_review(author), "--dry-run")
            self.close(author)
        del self.told[mark:]
