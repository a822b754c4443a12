"""A full disk, a quota, a read-only mount: one clear error, nothing lost, and the same command again ends it."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from conftest import RELAY
from test_kill import CASES, compare, faults_of, finished, prepared, report
from tracing import LINKS_REFUSED, Copy, Tracer, in_parallel, links_refused, needs_strace, reader_sees_only_whole_artifacts

ERRORS = {"ENOSPC": "make room", "EDQUOT": "make room", "EROFS": "allow this sandbox to write"}
CALLS = ("write", "openat", "fsync", "mkdir", "rename", "link")


def said_clearly(done, error):
    """One sentence that says what failed where, and a hint; no traceback."""
    lines = done.err.rstrip("\n").split("\n")
    assert done.code == 2, (done.code, done.err)
    assert len(lines) == 2 and lines[0].startswith("relay: ") and lines[1].startswith("hint: "), done.err
    assert os.strerror(getattr(errno, error)) in lines[0], done.err
    assert ERRORS[error] in lines[1], done.err


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["send", "send_the_first", "publish", "claim", "draft_set", "bootstrap"])
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
    points = [p for p in tracer.points(dry, case.author, case.words(dry), *more, stdout=False) if p.call in calls]
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
            assert not missing or list(copy.shared.rglob("002-*.ready")), f"the draft is gone: {missing}"
        assert {path: path.read_bytes() for path in kept} == kept
        compare(finished(case, copy, words, name == "bootstrap" and not done.code), wanted)

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
        raise OSError(getattr(errno, error), os.strerror(getattr(errno, error)), given[0] if isinstance(given[0], str) else None)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        done = stage.run("claude", *words)
    if done.code:
        said_clearly(done, error)
    reader_sees_only_whole_artifacts(stage, "codex")
    assert body.read_text() == "# Note\n\nkept.\n"
    stage.ok("claude", *words)
    assert "already published" in stage.ok("claude", *words).err
    assert [path.name for path in stage.shared.rglob("[0-9][0-9][0-9]-*.md")] == ["001-claude-note.md"]
    assert stage.litter() == []


@pytest.mark.parametrize("status", ["ready", "timed_out", "closed"])
def test_a_send_stopped_by_the_disk_and_finished_as_next_says_keeps_its_status(stage, monkeypatch, status):
    stage.open_pair()
    words = ["send", "--kind", "note", "--file", stage.file("# Note\n"), "--next", "read it", "--status", status]

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
