"""Nothing published is passed over and nothing answered comes again, whatever the order."""

from __future__ import annotations

import functools
import random
import shlex

import pytest
from conftest import seeds

PEER = {"claude": "codex", "codex": "claude"}
PROMPT = "go on\n"


def open_for(stage, author, **more):
    """The numbers `next` shows an author."""
    return [a["seq"] for a in stage.ok(author, "next", "--json", **more).json["artifacts"]]


def claimed(stage, author, kind="note", *words):
    return stage.ok(author, "claim", "--kind", kind, *words).out.strip()


def published(stage, author, draft, text="# Late\n"):
    stage.ok(
        author,
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file(text, "b"),
        "--prompt-for-next-file",
        stage.file(PROMPT, "p"),
    )
    return stage.ok(author, "publish", draft)


def reply(stage, author, kind="note"):
    """Sends the way `next` proposes; the file is new each time."""
    told = stage.ok(author, "next")
    assert told.action == "reply", told
    words = shlex.split(told.next)
    return stage.send(
        author, kind, "# Reply\n", "go on", "--reply-to", words[words.index("--reply-to") + 1]
    )


# ---- late


def test_a_number_reserved_early_and_published_late_is_delivered(stage):
    stage.open_pair()
    late = claimed(stage, "claude", "plan")
    stage.send("claude", "note")
    reply(stage, "codex")
    published(stage, "claude", late)
    assert open_for(stage, "codex") == [1]
    reply(stage, "codex")
    assert stage.ok("codex", "next").action == "wait"


@pytest.mark.slow
def test_a_late_number_is_delivered_behind_many_answers(stage):
    stage.open_pair()
    late = claimed(stage, "claude", "plan")
    for _ in range(3):
        stage.send("claude", "note")
        reply(stage, "codex")
    published(stage, "claude", late)
    assert open_for(stage, "codex") == [1]
    stage.send("claude", "note")
    assert open_for(stage, "codex") == [1, 8]
    reply(stage, "codex")
    assert stage.ok("codex", "next").action == "wait"


def test_the_other_sides_late_number_is_delivered_too(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    late = claimed(stage, "codex", "question")
    stage.send("codex", "review", "# R\n", "go", "--reply-to", "1")
    reply(stage, "claude")
    published(stage, "codex", late)
    assert open_for(stage, "claude") == [2]


def test_wait_prints_the_late_number(stage):
    stage.open_pair()
    late = claimed(stage, "claude", "plan")
    stage.send("claude", "note")
    reply(stage, "codex")
    assert stage.run("codex", "wait", "--timeout", "0").code == 10
    published(stage, "claude", late)
    assert stage.ok("codex", "wait", "--timeout", "0").out.strip().endswith("001-claude-plan.md")


def test_a_late_answer_counts_for_what_was_shown_and_for_no_more(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    assert open_for(stage, "codex") == [1]
    late = claimed(stage, "codex", "review")
    stage.send("codex", "correction", "# Typo\n", "see", "--corrects", "1")
    stage.send("claude", "note")
    published(stage, "codex", late)
    assert open_for(stage, "codex") == [4]


def test_a_claim_behind_a_number_that_was_never_published_can_be_published(stage):
    pair = stage.open_pair()
    dropped, kept = claimed(stage, "claude", "plan"), claimed(stage, "claude", "note")
    (pair / ".draft" / dropped.rpartition("/")[2]).unlink()
    published(stage, "claude", kept)
    assert open_for(stage, "codex") == [2]


def test_two_claims_of_one_author_published_in_reverse_lose_nothing(stage):
    stage.open_pair()
    first, second = claimed(stage, "claude", "plan"), claimed(stage, "claude", "note")
    assert first != second
    published(stage, "claude", second)
    reply(stage, "codex")
    assert stage.ok("claude", "status").code == 0
    published(stage, "claude", first)
    assert open_for(stage, "codex") == [1]
    reply(stage, "codex")
    assert open_for(stage, "codex") == []
    assert open_for(stage, "claude") == [3, 4]


# ---- double


def test_wait_prints_one_after_the_other_and_then_the_oldest_again(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.send("claude", "note")
    printed = [
        stage.ok("codex", "wait", "--timeout", "0").out.strip().rpartition("/")[2] for _ in range(3)
    ]
    assert printed == ["001-claude-plan.md", "002-claude-note.md", "001-claude-plan.md"]


def test_one_published_between_next_and_send_stays_open(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("claude", "note")
    stage.send("codex", "review", "# R\n", "go", "--reply-to", "1")
    assert open_for(stage, "codex") == [2]


@pytest.mark.parametrize("words", [(), ("--in-reply-to", "1")], ids=["default", "named"])
def test_one_published_between_wait_and_claim_stays_open(stage, words):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "wait", "--timeout", "0")
    stage.send("claude", "note")
    published(stage, "codex", claimed(stage, "codex", "review", *words))
    assert open_for(stage, "codex") == [2]


def test_one_published_between_claim_and_publish_stays_open(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "wait", "--timeout", "0")
    draft = claimed(stage, "codex", "review")
    stage.send("claude", "note")
    published(stage, "codex", draft)
    assert open_for(stage, "codex") == [3]


def test_an_answer_by_number_alone_counts_where_nothing_was_shown(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.send("codex", "review", "# R\n", "go", "--reply-to", "1")
    assert stage.ok("codex", "next").action == "wait"


def test_one_that_was_never_shown_and_not_named_stays_open(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.send("codex", "question")
    assert open_for(stage, "codex") == [1]


# ---- another instance of the same author goes on


def test_a_new_session_answers_all_that_it_was_shown(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.send("claude", "note")
    assert open_for(stage, "codex") == [1, 2]
    new = {"CODEX_THREAD_ID": "after-clear"}
    stage.ok("codex", "pair", "join", pair.name, "--take-over", **new)
    assert open_for(stage, "codex", **new) == [1, 2]
    stage.ok(
        "codex",
        "send",
        "--kind",
        "review",
        "--file",
        stage.file("# R\n## Next\ngo\n"),
        "--reply-to",
        "2",
        **new,
    )
    assert open_for(stage, "codex", **new) == []


# ---- reading


def looks(stage, author):
    for words in (
        ("status",),
        ("status", "--json"),
        ("show",),
        ("show", "1"),
        ("log",),
        ("brief",),
        ("next",),
        ("next", "--json"),
        ("next", "--wait", "0"),
        ("wait", "--timeout", "0"),
        ("pair", "show"),
        ("pairs", "list"),
        ("doctor",),
        ("preflight",),
    ):
        assert stage.run(author, *words).code in (0, 1), words


def test_a_peer_that_only_reads_changes_nothing_in_what_is_open(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.send("claude", "note")
    before = {
        path: path.read_bytes()
        for path in pair.iterdir()
        if path.is_file() and path.name != ".lock"
    }
    for _ in range(2):
        looks(stage, "codex")
        assert open_for(stage, "codex") == [1, 2]
    assert {
        path: path.read_bytes()
        for path in pair.iterdir()
        if path.is_file() and path.name != ".lock"
    } == before
    assert stage.litter() == []


def test_looking_at_an_artifact_is_not_answering_it(stage):
    stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "show", "1")
    stage.ok("codex", "log")
    assert "not seen" in stage.ok("claude", "next").out
    stage.send("codex", "question")
    assert open_for(stage, "codex") == [1]


# ---- random histories against an oracle


class Oracle:
    """What must be open to each author, kept by hand: shown or named, then answered by a later publish."""

    def __init__(self):
        self.by = {"claude": [], "codex": []}
        self.shown = {"claude": set(), "codex": set()}
        self.answered = {"claude": set(), "codex": set()}

    def open_to(self, author):
        return sorted(set(self.by[PEER[author]]) - self.answered[author])

    def publishes(self, author, seq, kind, named=None):
        self.by[author].append(seq)
        if kind not in ("correction", "addendum"):
            self.answered[author] |= self.shown[author] | (
                {named} if named in self.by[PEER[author]] else set()
            )


class Play:
    """Both authors do what they like, in an order that only the seed knows."""

    def __init__(self, stage, seed):
        self.stage, self.chance, self.oracle = stage, random.Random(seed), Oracle()
        self.drafts = {"claude": [], "codex": []}
        self.in_reply_to = {}
        stage.open_pair()

    def step(self):
        author = self.chance.choice(("claude", "codex"))
        act = self.chance.choice(
            (
                self.next,
                self.next,
                self.wait,
                self.send,
                self.send,
                self.claim,
                self.publish,
                self.publish,
            )
        )
        act(author)
        self.agree()

    def next(self, author):
        told = self.stage.ok(author, "next", "--json", RELAY_AUTO_ROUND_CAP="0").json
        seqs = [a["seq"] for a in told["artifacts"]]
        if not self.drafts[author]:
            assert seqs == self.oracle.open_to(author)
        self.oracle.shown[author] |= set(seqs)

    def wait(self, author):
        done = self.stage.run(author, "wait", "--timeout", "0")
        waiting = self.oracle.open_to(author)
        assert done.code == (0 if waiting else 10)
        if waiting:
            fresh = [seq for seq in waiting if seq not in self.oracle.shown[author]]
            seq = int(done.out.strip().rpartition("/")[2][:3])
            assert seq == (fresh or waiting)[0]
            self.oracle.shown[author].add(seq)

    def send(self, author):
        mine = [seq for seq in self.oracle.by[author]]
        kind, more, named = "note", (), None
        if mine and self.chance.random() < 0.2:
            kind, more = "correction", ("--corrects", str(self.chance.choice(mine)))
        elif self.oracle.open_to(author) and self.chance.random() < 0.3:
            named = self.chance.choice(self.oracle.open_to(author))
            more = ("--reply-to", str(named))
        done = self.stage.send(author, kind, "# S\n", "go", *more)
        self.oracle.publishes(
            author, int(done.out.partition("\n")[0].rpartition("/")[2][:3]), kind, named
        )

    def claim(self, author):
        if len(self.drafts[author]) < 3:
            named = self.chance.choice([None, *self.oracle.shown[author]])
            more = ("--in-reply-to", str(named)) if named else ()
            latest = max(self.oracle.by["claude"] + self.oracle.by["codex"], default=None)
            draft = self.stage.ok(author, "claim", "--kind", "note", *more).out.strip()
            self.in_reply_to[draft] = latest
            assert draft not in self.drafts[author]
            self.drafts[author].append(draft)

    def publish(self, author):
        if self.drafts[author]:
            draft = self.drafts[author].pop(self.chance.randrange(len(self.drafts[author])))
            published(self.stage, author, draft)
            # Who was never handed anything reads as in 1.x: its in_reply_to is what it answers.
            named = None if self.oracle.shown[author] else self.in_reply_to[draft]
            self.oracle.publishes(author, int(draft.rpartition("/")[2][:3]), "note", named)

    def agree(self):
        """Without drafts in the way, what is open decides the action."""
        status = self.stage.ok("claude", "status", "--json", "--last", "999").json
        for author in ("claude", "codex"):
            assert [row["seq"] for row in status["moves"][author]["open"]] == self.oracle.open_to(
                author
            ), author
        seqs = [row["seq"] for row in status["published"]]
        assert sorted(seqs) == sorted(self.oracle.by["claude"] + self.oracle.by["codex"])
        assert not any("damaged" in row for row in status["published"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_random_histories_lose_nothing_and_deliver_nothing_twice(stage, seed):
    stage.env = functools.partial(stage.env, RELAY_AUTO_ROUND_CAP="0")
    play = Play(stage, seed)
    for _ in range(40):
        play.step()
    for author in ("claude", "codex"):
        while play.drafts[author]:
            play.publish(author)
    for _ in range(2):
        for author in ("claude", "codex"):
            play.next(author)
            play.send(author)
    play.next("claude")
    play.agree()
    assert stage.litter() == []
    assert stage.ok("claude", "doctor").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(2, 5))
def test_many_random_histories(stage, seed):
    stage.env = functools.partial(stage.env, RELAY_AUTO_ROUND_CAP="0")
    play = Play(stage, seed)
    for _ in range(120):
        play.step()
