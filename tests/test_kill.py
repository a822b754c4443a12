"""kill -9 at any system call that changes the ledger: the same command, run again, ends it; nothing is left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import stat
import time

import pytest
from conftest import MORE, RELAY
from helpers.blocks import findings, sidecar
from helpers.tracing import (
    LINKS_REFUSED,
    Copy,
    Tracer,
    doctor_is_content,
    in_parallel,
    links_refused,
    needs_strace,
    reader_sees_only_whole_artifacts,
    sound,
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def traced():
    needs_strace()


class Case:
    """A command, who types it, who looks on, and what is there before."""

    def __init__(self, author, reader, prepare, words, kind=""):
        self.author, self.reader, self.prepare, self.words, self.kind = (
            author,
            reader,
            prepare,
            words,
            kind,
        )


def nothing(_stage):
    pass


def pair(stage):
    stage.open_pair()


def opened(stage):
    stage.ok("claude", "bootstrap", "--topic", "demo")
    stage.send("claude", "plan")


def asked(stage):
    opened(stage)
    stage.ok("codex", "next")


def claimed(stage):
    asked(stage)
    stage.ok("codex", "claim", "--kind", "review")


def drafted(stage):
    claimed(stage)
    stage.ok(
        "codex",
        "draft",
        "set",
        draft(stage),
        "--body-file",
        BODY(stage),
        "--prompt-for-next-file",
        ASK(stage),
    )


def decided(stage):
    stage.open_pair()
    stage.send("claude", "decision", "# Which?\n")
    stage.ok("codex", "next")


def closed(stage):
    asked(stage)
    stage.ok("claude", "close", "--reason", "done", "--no-archive")


def archived(stage):
    asked(stage)
    stage.ok("claude", "close", "--reason", "done")


def BODY(stage):
    return stage.folder / "body.md"


def ASK(stage):
    return stage.folder / "ask.md"


def slug(stage):
    return next(path.parent.name for path in stage.shared.rglob("session.json"))


def draft(stage):
    return next(stage.shared.rglob(".draft/*.md"))


def send(stage, *more):
    return ["send", "--kind", "review", "--file", BODY(stage), "--next", "mend it", *more]


def sampled(points, step):
    """Every `step`-th point from the last one back; more of them with RELAY_TEST_MORE."""
    return points[:: -max(1, step // MORE)]


CASES = {
    "send": Case("codex", "claude", asked, send),
    "send_the_first": Case("claude", "codex", pair, send),
    "send_a_closing": Case("codex", "claude", asked, lambda s: send(s, "--status", "closed")),
    "publish": Case("codex", "claude", drafted, lambda s: ["publish", draft(s)]),
    "publish_a_closing": Case(
        "codex", "claude", drafted, lambda s: ["publish", draft(s), "--status", "closed"]
    ),
    "claim": Case("codex", "claude", asked, lambda s: ["claim", "--kind", "review"]),
    "draft_set": Case(
        "codex",
        "claude",
        claimed,
        lambda s: [
            "draft",
            "set",
            draft(s),
            "--body-file",
            BODY(s),
            "--prompt-for-next-file",
            ASK(s),
        ],
    ),
    "close": Case("claude", "codex", asked, lambda s: ["close", "--reason", "done"]),
    "close_no_archive": Case(
        "claude",
        "codex",
        asked,
        lambda s: ["close", "--reason", "done", "--no-archive", "--pair-id", slug(s)],
    ),
    "pairs_archive": Case("claude", "codex", closed, lambda s: ["pairs", "archive", slug(s)]),
    "pairs_restore": Case("claude", "codex", archived, lambda s: ["pairs", "restore", slug(s)]),
    "bootstrap": Case("claude", "codex", nothing, lambda s: ["bootstrap", "--topic", "demo"]),
    "next_that_joins": Case("codex", "claude", opened, lambda s: ["next"]),
    "next_that_shows": Case(
        "claude",
        "codex",
        lambda s: (asked(s), s.send("codex", "review", "# No\n")),
        lambda s: ["next"],
    ),
    "continue": Case("codex", "claude", decided, lambda s: ["continue"]),
}


def prepared(case, stage):
    stage.file("# Review\n\nA refund of 0 divides by zero.\n", "body.md")
    stage.file("mend it\n", "ask.md")
    stage.link_skill()
    case.prepare(stage)
    return stage


def finished(case, copy, words, over=False):
    """Looks, runs the command (again), looks: returns what is then there, checked for soundness.

    `over` says that the first run had done everything and only did not come to say so.
    """
    reader_sees_only_whole_artifacts(copy, case.reader)
    done = copy.run(case.author, *words)
    assert done.code == 0 or (over and any(text in done.err for text in SAYS_IT_IS_DONE)), done.err
    reader_sees_only_whole_artifacts(copy, case.reader)
    doctor_is_content(copy, case.author)
    return copy.names(), copy.texts()


SAYS_IT_IS_DONE = (
    "this instance is not bound to a pair",
    "is closed already",
    "is in the archive already",
    "is not in the archive",
    "this instance is bound to",  # As bootstrap says once there is the pair.
)


@pytest.mark.parametrize("refused", [False, True], ids=["links", "links-refused"])
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_call_and_run_again_it_ends_as_if_undisturbed(stage, tmp_path, name, refused):
    case = CASES[name]
    prepared(case, stage)
    tracer = Tracer(tmp_path)
    more = (LINKS_REFUSED,) if refused else ()
    dry = Copy(stage, tmp_path / "dry")
    points = tracer.points(dry, case.author, case.words(dry), *more)
    # A refused link changes nothing. A claim that came to its end is one: run again, it is a second one.
    points = [
        p
        for p in points
        if not (refused and p.call.startswith("link"))
        and not (name == "claim" and p.what == "stdout")
    ]
    points = sampled(points, 8) if refused else points
    with links_refused(refused):
        copy = Copy(stage, tmp_path / "undisturbed")
        wanted = finished(case, copy, case.words(copy))

    def killed(point):
        copy = Copy(stage, tmp_path / f"{point.call}-{point.k}")
        words = case.words(copy)
        tracer.kill(copy, case.author, words, point, *more)
        return copy, words

    wrong = []
    for point, (copy, words) in in_parallel(killed, points):
        with links_refused(refused):
            wrong += faults_of(
                lambda: compare(finished(case, copy, words, is_done(name, point)), wanted), point
            )
        copy.discard()
    report(wrong, points)


def is_done(name, point):
    """Whether the command may say that it is done: it was killed after that."""
    return point.what == "stdout" or name.startswith(("close", "pairs", "bootstrap"))


def compare(found, wanted):
    left, lost = sorted(set(found[0]) - set(wanted[0])), sorted(set(wanted[0]) - set(found[0]))
    assert not left, f"left behind: {left}"
    assert not lost, f"lost: {lost}"
    other = sorted(name for name in wanted[1] if found[1][name] != wanted[1][name])
    assert not other, f"the text is another: {other}"


def report(wrong, points):
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(points)} points:\n" + "\n".join(wrong), pytrace=False)


def faults_of(check, point):
    try:
        check()
    except AssertionError as problem:
        said = str(problem).split("\nassert")[0].replace("\n", " ")
        return [f"{point}: {said[:400]}"]
    return []


def test_killed_twice_in_a_row_a_send_still_ends_in_one_artifact(stage, tmp_path):
    case = CASES["send"]
    prepared(case, stage)
    tracer = Tracer(tmp_path)
    wanted = finished(case, Copy(stage, tmp_path / "undisturbed"), send(stage))
    dry = Copy(stage, tmp_path / "dry")
    points = tracer.points(dry, "codex", send(dry))
    dice = random.Random(2)
    pairs = [(n, dice.choice(points), dice.choice(points)) for n in range(20 * MORE)]

    def killed(pair):
        n, first, second = pair
        copy = Copy(stage, tmp_path / f"twice-{n}")
        tracer.kill(copy, "codex", send(copy), first)
        # The second run is shorter where the first came far; it may end before it is killed.
        tracer.run(copy, "codex", send(copy), f"{second.call}:signal=KILL:when={second.k}")
        return copy

    wrong = []
    for (_, first, second), copy in in_parallel(killed, pairs):
        wrong += faults_of(
            lambda: compare(finished(case, copy, send(copy)), wanted), (first, second)
        )
        copy.discard()
    report(wrong, pairs)


@pytest.mark.parametrize("meanwhile", ["the peer publishes", "the draft is published as next says"])
def test_a_killed_send_and_what_happens_before_it_is_run_again(stage, tmp_path, meanwhile):
    prepared(CASES["send"], stage)
    tracer = Tracer(tmp_path)
    dry = Copy(stage, tmp_path / "dry")
    points = sampled(tracer.points(dry, "codex", send(dry)), 2)

    def killed(point):
        copy = Copy(stage, tmp_path / f"{point.call}-{point.k}")
        tracer.kill(copy, "codex", send(copy), point)
        return copy

    def check(copy):
        if meanwhile == "the peer publishes":
            copy.ok(
                "claude",
                "send",
                "--kind",
                "note",
                "--file",
                copy.file("# Wait\n", "note.md"),
                "--next",
                "wait",
            )
        else:
            told = copy.ok("codex", "next")
            if told.action == "finish":
                assert told.next.startswith("publish "), told
                copy.ok("codex", *told.next.split())
                assert "already published" in copy.ok("codex", *send(copy)).err
        copy.ok("codex", *send(copy))
        again = copy.ok("codex", *send(copy))
        assert "already published" in again.err
        texts = copy.texts()
        assert sum("A refund of 0" in text for text in texts.values()) == 1, texts
        assert len(texts) == (3 if meanwhile == "the peer publishes" else 2)
        assert len({name[:3] for name in texts}) == len(texts)
        assert copy.litter() == []
        reader_sees_only_whole_artifacts(copy, "claude")
        doctor_is_content(copy)

    wrong = []
    for point, copy in in_parallel(killed, points):
        wrong += faults_of(lambda: check(copy), point)
        copy.discard()
    report(wrong, points)


# ---- the record: findings, a verdict, evidence


def ran(stage):
    """codex was asked, and ran something on what it was asked about."""
    stage.open_pair()
    (stage.project / "reviewed.py").write_text("# reviewed\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.ok("codex", "run", "--", "true", "one")
    stage.ok("codex", "run", "--", "true", "two")
    stage.file(findings("minor reviewed.py:1 One", "  detail", "nit - Two"), "found.md")


def ran_and_drafted(stage):
    ran(stage)
    stage.ok("codex", "claim", "--kind", "review")
    stage.ok(
        "codex",
        "draft",
        "set",
        draft(stage),
        "--body-file",
        stage.folder / "found.md",
        "--prompt-for-next-file",
        ASK(stage),
    )


def approving(stage):
    return [
        "send",
        "--kind",
        "review",
        "--file",
        stage.folder / "found.md",
        "--next",
        "mend it",
        "--verdict",
        "approve",
    ]


RECORDS = {
    "send": Case("codex", "claude", ran, approving),
    "publish": Case(
        "codex", "claude", ran_and_drafted, lambda s: ["publish", draft(s), "--verdict", "approve"]
    ),
}


def whole_record(copy):
    """The review is there once, with all that it records, and proven; nothing of it is left beside it."""
    path = copy.shared / slug(copy)
    held = sidecar(path, 2)
    assert [row["text"] for row in held["findings"]] == ["One", "Two"] and [
        row["id"] for row in held["open"]
    ] == ["2.1", "2.2"]
    assert held["verdict"] == "approve" and held["request"]["name"] == "001-claude-fix"
    assert [row["argv"][-1] for row in held["evidence"]] == ["one", "two"]
    assert len(list(path.glob("*.ready"))) == 2, copy.names()
    assert not list(path.glob(".evidence/*")), copy.names()
    copy.ok("claude", "verify")
    assert [
        row["id"] for row in copy.ok("claude", "findings", "--all", "--json").json["findings"]
    ] == ["2.1", "2.2"]


@pytest.mark.parametrize("refused", [False, True], ids=["links", "links-refused"])
@pytest.mark.parametrize("name", RECORDS)
def test_a_review_killed_at_any_call_and_sent_again_has_its_whole_record_once(
    stage, tmp_path, name, refused
):
    case = RECORDS[name]
    prepared(case, stage)
    tracer = Tracer(tmp_path)
    more = (LINKS_REFUSED,) if refused else ()
    dry = Copy(stage, tmp_path / "dry")
    points = tracer.points(dry, "codex", case.words(dry), *more)
    points = [p for p in points if not (refused and p.call.startswith("link"))]
    points = sampled(points, 8) if refused else points
    with links_refused(refused):
        copy = Copy(stage, tmp_path / "undisturbed")
        wanted = finished(case, copy, case.words(copy))
        whole_record(copy)

    def killed(point):
        copy = Copy(stage, tmp_path / f"{point.call}-{point.k}")
        words = case.words(copy)
        tracer.kill(copy, "codex", words, point, *more)
        return copy, words

    wrong = []
    for point, (copy, words) in in_parallel(killed, points):
        with links_refused(refused):
            wrong += faults_of(
                lambda: (compare(finished(case, copy, words), wanted), whole_record(copy)), point
            )
        copy.discard()
    report(wrong, points)


@pytest.mark.parametrize("name", RECORDS)
def test_a_review_killed_at_any_call_whose_tree_then_moves_never_approves_it(stage, tmp_path, name):
    case = RECORDS[name]
    prepared(case, stage)
    tracer = Tracer(tmp_path)
    dry = Copy(stage, tmp_path / "dry")
    points = sampled(tracer.points(dry, "codex", case.words(dry)), 2)

    def killed(point):
        copy = Copy(stage, tmp_path / f"{point.call}-{point.k}")
        words = case.words(copy)
        tracer.kill(copy, "codex", words, point)
        return copy, words

    def check(copy, words):
        path = copy.shared / slug(copy)
        published = (path / "002-codex-review.ready").exists()
        (copy.project / "reviewed.py").write_text("# moved\n")
        again = copy.run("codex", *words)
        assert (again.code == 0) is published, again
        assert copy.run("claude", "close", "--reason", "x", "--outcome", "approve").code == 2
        left = list(path.glob(".draft/*.md"))
        if left:
            copy.ok("codex", "publish", left[0])
            assert sidecar(path, 2)["verdict"] is None
        (copy.project / "reviewed.py").write_text("# reviewed\n")
        assert (
            copy.run("claude", "close", "--reason", "x", "--outcome", "approve").code == 0
        ) is published
        assert copy.run("claude", "verify", "--all").code == 0

    wrong = []
    for point, (copy, words) in in_parallel(killed, points):
        wrong += faults_of(lambda: check(copy, words), point)
        copy.discard()
    report(wrong, points)


@pytest.mark.parametrize("refused", [False, True], ids=["links", "links-refused"])
def test_a_run_killed_at_any_call_leaves_at_most_an_unfinished_record_that_is_carried_once(
    stage, tmp_path, refused
):
    prepared(CASES["send"], stage)
    tracer = Tracer(tmp_path)
    more = (LINKS_REFUSED,) if refused else ()
    words = ["run", "--", "true", "one"]
    points = tracer.points(Copy(stage, tmp_path / "dry"), "codex", words, *more, stdout=False)
    points = [p for p in points if not (refused and p.call.startswith("link"))]
    points = sampled(points, 8) if refused else points

    def killed(point):
        copy = Copy(stage, tmp_path / f"{point.call}-{point.k}")
        tracer.kill(copy, "codex", words, point, *more)
        return copy

    def check(copy):
        path = copy.shared / slug(copy)
        reader_sees_only_whole_artifacts(copy, "claude")
        files = list(path.glob(".evidence/*.json"))
        first = [json.loads(file.read_text()) for file in files if file.stat().st_size]
        assert len(files) <= 1
        for file in files:  # Where links are refused a name is taken before it says for what; an hour later nobody comes back to it.
            os.utime(file, (time.time() - 3600,) * 2)
        copy.ok("codex", "run", "--", "true", "two")
        copy.ok("codex", *send(copy))
        held = sidecar(path, 2)["evidence"]
        assert [row["argv"][-1] for row in held] == ["one"] * len(first) + ["two"]
        assert [row.get("code") for row in held] == [row.get("code") for row in first] + [0]
        assert not list(path.glob(".evidence/*")) and copy.litter() == []
        copy.ok("claude", "verify")
        doctor_is_content(copy)

    wrong = []
    for point, copy in in_parallel(killed, points):
        with links_refused(refused):
            wrong += faults_of(lambda: check(copy), point)
        copy.discard()
    report(wrong, points)


# ---- commands that write beside a pair's artifacts, or outside the ledger


def at_home(stage):
    """Settings of the user's in both hosts, and a status line in neither."""
    for name, text in (("claude/settings", '{"model": "opus"}'), ("codex/hooks", '{"hooks": {}}')):
        path = stage.home / f".{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def hooked(stage):
    at_home(stage)
    stage.ok("claude", "hooks", "install", "--target", "both")
    stage.ok("claude", "statusline", "install")


def paused(stage):
    stage.open_pair()
    stage.send("claude", "plan", "# P\n", "@user: which one?")
    stage.ok("codex", "next")


def left(stage):
    asked(stage)
    stage.ok("codex", "pair", "leave")


def paged(stage):
    asked(stage)
    stage.ok("claude", "export", "--html", stage.home / "page.html")
    stage.send("codex", "note", "# More\n")


def lost(stage):
    asked(stage)
    shutil.rmtree(stage.shared)


def old(stage):
    archived(stage)
    for path in stage.project.rglob("CLOSED"):
        path.chmod(0o600)
        path.write_text(path.read_text().replace('closed_at = "2', 'closed_at = "1'))


def old_copy(stage):
    old(stage)
    shutil.rmtree(stage.shared / "_archive")


def reported(stage):
    stage.ok("claude", "issue", "add", "--title", "wait ends early")


def littered(stage):
    """What killed runs leave, in every directory of the ledger."""
    asked(stage)
    path = stage.shared / slug(stage)
    hour_ago = (time.time() - 7200,) * 2
    for name in (
        ".seq/007",
        ".draft/.008-codex-note.md.0badc0de.tmp",
        ".session.json.0badc0de.tmp",
    ):
        (path / name).write_text("x")
    for name in ("tree/.claude-x.json.0badc0de.tmp", "bindings/.claude-x.json.0badc0de.tmp"):
        (stage.shared / "_relay" / name).parent.mkdir(exist_ok=True)
        (stage.shared / "_relay" / name).write_text("x")
        os.utime(stage.shared / "_relay" / name, hour_ago)
    staged = stage.shared / "_relay/.staging"
    staged.mkdir()
    (staged / "README.md").write_text("x")
    next(path.glob("001-*.md")).chmod(0o644)


ISSUE = ["issue", "add", "--title", "wait ends early", "--body", "After 5 s."]
PRUNE = ["pairs", "prune", "--older-than", "30d"]
HOOKS, LINE = ["hooks", "install", "--target"], ["statusline"]

ONCE = {
    "continue": Case("codex", "claude", paused, lambda s: ["continue"]),
    "run": Case("codex", "claude", asked, lambda s: ["run", "--", "true", "one"]),
    "next_that_delivers": Case("codex", "claude", opened, lambda s: ["next"]),
    "pair_join": Case("codex", "claude", opened, lambda s: ["pair", "join", slug(s)]),
    "pair_join_again": Case("codex", "claude", left, lambda s: ["pair", "join", slug(s)]),
    "pair_leave": Case("codex", "claude", asked, lambda s: ["pair", "leave"]),
    "pairs_archive_force": Case(
        "claude", "codex", pair, lambda s: ["pairs", "archive", slug(s), "--force"]
    ),
    "init": Case("claude", "codex", nothing, lambda s: ["init", "--author", "claude"]),
    "init_sync": Case("claude", "codex", nothing, lambda s: ["init", "--sync", "rsync"]),
    "hooks_install_claude": Case("claude", "codex", at_home, lambda s: [*HOOKS, "claude"]),
    "hooks_install_codex": Case("codex", "claude", at_home, lambda s: [*HOOKS, "codex"]),
    "hooks_install_first": Case("codex", "claude", nothing, lambda s: [*HOOKS, "both"]),
    "hooks_uninstall": Case(
        "claude", "codex", hooked, lambda s: ["hooks", "uninstall", "--target", "both"]
    ),
    "hooks_uninstall_last": Case(
        "claude",
        "codex",
        lambda s: s.ok("claude", *HOOKS, "both"),
        lambda s: ["hooks", "uninstall", "--target", "both"],
    ),
    "statusline_install": Case("claude", "codex", at_home, lambda s: [*LINE, "install"]),
    "statusline_uninstall": Case(
        "claude",
        "codex",
        lambda s: (at_home(s), s.ok("claude", *LINE, "install")),
        lambda s: [*LINE, "uninstall"],
    ),
    "issue_add": Case("claude", "codex", nothing, lambda s: ISSUE),
    "issue_resolve": Case(
        "claude",
        "codex",
        reported,
        lambda s: ["issue", "resolve", next(s.home.rglob("relay-issues/2*.md")).stem],
    ),
    "export": Case(
        "claude", "codex", asked, lambda s: ["export", "--html", s.project / "page.html"]
    ),
    "export_over_an_existing_file": Case(
        "claude", "codex", paged, lambda s: ["export", "--html", s.home / "page.html", "--force"]
    ),
    "restore": Case("claude", "codex", lost, lambda s: ["restore"]),
    "forget": Case("claude", "codex", asked, lambda s: ["forget", slug(s), "--yes"]),
    "pairs_prune": Case("claude", "codex", old, lambda s: PRUNE),
    "pairs_prune_of_the_copy": Case("claude", "codex", old_copy, lambda s: PRUNE),
    "doctor_fix": Case("claude", "codex", littered, lambda s: ["doctor", "--fix"]),
}


def everything(copy):
    """Every file of the project and of the home, without times, ids and places."""
    found = {}
    for root in (copy.project, copy.home):
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            theirs = inside.parts[0] == ".git" and inside.parts[1:2] != ("relay",)
            if path.is_dir() or path.name == ".lock" or theirs:
                continue
            text = path.read_text(errors="replace")
            for place, name in ((copy.project, "PROJECT"), (copy.home, "HOME")):
                text = text.replace(str(place), name)
            text = re.sub(r"\b\d{4}-\d\d-\d\d[T ][\d:.]+(Z|[+-][\d:]+| UTC)?", "TIME", text)
            text = re.sub(r"\b([0-9a-f]{64}|\d{19}|\d{8}T\d{6}-[0-9a-f]{8})\b", "ID", text)
            if path.suffix == ".jsonl":  # A decision that is recorded twice is one decision.
                text = "\n".join(dict.fromkeys(text.split("\n")))
            name = re.sub(r"\d{8}T\d{6}-[0-9a-f]{8}", "ID", f"{root == copy.home} {inside}")
            assert name not in found, f"twice: {name}"
            found[name] = f"{path.stat().st_mode & 0o777:o} {text}"
    return found


def one_run_counts(found):
    """The records of runs apart: a command that ran twice has two, the killed one unfinished."""
    runs = [json.loads(found.pop(name)[4:]) for name in [*found] if "/.evidence/" in name]
    assert runs and runs[-1]["code"] == 0 and len(runs) <= 2
    assert all(run["argv"] == ["true", "one"] and run.get("code") in (None, 0) for run in runs)


def wait_for_what_it_started(copy):
    """The relays that a killed doctor had started in its scratch ledger live on for a moment."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        places = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                places.append(os.readlink(f"/proc/{process}/cwd"))
        if not any(place.startswith(f"{copy.shared}/") for place in places):
            return
        time.sleep(0.05)


@pytest.mark.parametrize("name", ONCE)
def test_killed_at_any_call_and_run_again_it_is_done_once_and_leaves_no_litter(
    stage, tmp_path, name
):
    case = ONCE[name]
    prepared(case, stage)
    tracer = Tracer(tmp_path)
    dry = Copy(stage, tmp_path / "dry")
    points = tracer.points(dry, case.author, case.words(dry))
    # Of what doctor does in its own scratch ledger, every tenth call is enough.
    points = [p for n, p in enumerate(points) if "/.staging/" not in p.what or n % 10 == 0]
    wanted = everything(dry)
    if name == "run":
        one_run_counts(wanted)

    def killed(point):
        copy = Copy(stage, tmp_path / f"{point.call}-{point.k}")
        words = case.words(copy)
        if name == "doctor_fix":  # How often it looks for its waiter differs: it may get further.
            tracer.run(copy, case.author, words, f"{point.call}:signal=KILL:when={point.k}")
            wait_for_what_it_started(copy)
        else:
            tracer.kill(copy, case.author, words, point)
        return copy, words

    def check(copy, words):
        sound(copy)
        done = copy.run(case.author, *words)
        is_over = any(text in done.err for text in ("exists already", *SAYS_IT_IS_DONE[2:]))
        over = name in ("export", "pairs_archive_force") and is_over
        assert done.code == 0 or over, done.err + done.out
        found = everything(copy)
        if name == "run":
            one_run_counts(found)
        compare(([*found], found), ([*wanted], wanted))
        assert copy.litter() == []

    wrong = []
    for point, (copy, words) in in_parallel(killed, points):
        wrong += faults_of(lambda: check(copy, words), point)
        copy.discard()
    report(wrong, points)


# ---- errors of the disk

ERRORS = {"ENOSPC": "make room", "EDQUOT": "make room", "EROFS": "writable_roots"}
CALLS = ("write", "openat", "fsync", "mkdir", "rename", "link")


def said_clearly(done, error):
    """One sentence that says what failed where, and a hint; no traceback."""
    lines = done.err.rstrip("\n").split("\n")
    assert done.code == 2, (done.code, done.err)
    assert len(lines) == 2 and lines[0].startswith("relay: ") and lines[1].startswith("hint: "), (
        done.err
    )
    assert os.strerror(getattr(errno, error)) in lines[0], done.err
    assert ERRORS[error] in lines[1], done.err


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    "name", ["send", "send_the_first", "publish", "claim", "draft_set", "bootstrap"]
)
def test_any_call_may_fail_and_the_same_command_again_ends_it(stage, tmp_path, name, error):
    any_call_may_fail(stage, tmp_path, name, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["send", "publish", "claim", "draft_set"])
def test_the_same_where_links_are_refused(stage, tmp_path, name):
    any_call_may_fail(stage, tmp_path, name, "ENOSPC", LINKS_REFUSED)


def any_call_may_fail(stage, tmp_path, name, error, *more):
    needs_strace()
    case = CASES[name]
    prepared(case, stage)
    kept = {path: path.read_bytes() for path in stage.folder.glob("*.md")}
    tracer = Tracer(tmp_path)
    dry = Copy(stage, tmp_path / "dry")
    calls = [call for call in CALLS if not (more and call == "link")]
    points = [
        p
        for p in tracer.points(dry, case.author, case.words(dry), *more, stdout=False)
        if p.call in calls
    ]
    points = sampled(points, 1 if error == "ENOSPC" and not more else 8)
    with links_refused(bool(more)):
        copy = Copy(stage, tmp_path / "undisturbed")
        wanted = finished(case, copy, case.words(copy))

    def failed(point):
        copy = Copy(stage, tmp_path / f"{point.call}-{point.k}")
        drafts = list(copy.shared.rglob(".draft/*.md"))
        words = case.words(copy)
        return copy, words, drafts, tracer.fail(copy, case.author, words, point, error, *more)

    def check(copy, words, drafts, done):
        # What only records presence or makes a folder's names durable on a read-only mount may fail in silence.
        if done.code:
            said_clearly(done, error)
            missing = [path for path in drafts if not path.exists() or not path.read_bytes()]
            assert not missing or list(copy.shared.rglob("002-*.ready")), (
                f"the draft is gone: {missing}"
            )
        assert {path: path.read_bytes() for path in kept} == kept
        compare(finished(case, copy, words, name == "bootstrap"), wanted)

    wrong = []
    for point, (copy, words, drafts, done) in in_parallel(failed, points):
        if done.code == 0 and name == "claim":
            continue
        with links_refused(bool(more)):
            wrong += faults_of(lambda: check(copy, words, drafts, done), point)
        copy.discard()
    report(wrong, points)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link", "replace", "mkdir"])
def test_a_send_on_a_disk_in_trouble_says_so_and_loses_nothing(stage, monkeypatch, call, error):
    """The same for every call of one kind at once, as a disk that is full stays full, without strace."""
    stage.open_pair()
    body = stage.file("# Note\n\nkept.\n")
    words = ["send", "--kind", "note", "--file", body, "--next", "read it"]
    real = getattr(os, call)

    def fails(*given, **more):
        to_a_pipe = call == "write" and not stat.S_ISREG(os.fstat(given[0]).st_mode)
        if to_a_pipe or (call == "open" and not given[1] & os.O_CREAT):
            return real(*given, **more)
        raise OSError(
            getattr(errno, error),
            os.strerror(getattr(errno, error)),
            given[0] if isinstance(given[0], str) else None,
        )

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        done = stage.run("claude", *words)
    if done.code:
        said_clearly(done, error)
    reader_sees_only_whole_artifacts(stage, "codex")
    assert body.read_text() == "# Note\n\nkept.\n"
    stage.ok("claude", *words)
    assert "already published" in stage.ok("claude", *words).err
    assert [path.name for path in stage.shared.rglob("[0-9][0-9][0-9]-*.md")] == [
        "001-claude-note.md"
    ]
    assert stage.litter() == []


@pytest.mark.parametrize("status", ["ready", "timed_out", "closed"])
def test_a_send_stopped_by_the_disk_and_finished_as_next_says_keeps_its_status(
    stage, monkeypatch, status
):
    stage.open_pair()
    words = [
        "send",
        "--kind",
        "note",
        "--file",
        stage.file("# Note\n"),
        "--next",
        "read it",
        "--status",
        status,
    ]

    def full(*_given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RELAY, "publish_draft", full)
        assert stage.run("claude", *words).code == 2
    told = stage.ok("claude", "next")
    assert told.action == "finish"
    published = stage.ok("claude", *told.next.split()).out.strip()
    assert f"\nstatus: {status}\n" in open(published).read()
    assert "already published" in stage.ok("claude", *words).err
