"""What a command costs, in things that can be counted: syncs, files read, processes started."""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import RELAY


def counted(monkeypatch, owner, name):
    """The calls of one function from here on."""
    real, calls = getattr(owner, name), []

    def call(*given, **named):
        calls.append(given)
        return real(*given, **named)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_a_send_waits_for_the_disk_at_most_eight_times(stage, monkeypatch):
    stage.open_pair()
    stage.ok("codex", "next")  # Also where the pair is a copy of an earlier test's.
    (stage.project / "new.py").write_text("new\n")
    for own_log in (1, 0, 0):  # The first makes it.
        calls = counted(monkeypatch, os, "fsync")
        stage.send("claude", "plan", "# Text\n" * 1000)
        assert 0 < len(calls) <= 8 + own_log


def test_a_publish_waits_for_the_disk_at_most_ten_times(stage, monkeypatch):
    stage.open_pair()
    draft = stage.ok("claude", "claim", "--kind", "plan").out.strip()
    stage.ok("claude", "draft", "set", draft, "--prompt-for-next-file", stage.file("go on\n"))
    calls = counted(monkeypatch, os, "fsync")
    stage.ok("claude", "publish", draft)
    assert 0 < len(calls) <= 10


def story(stage, length):
    """A pair in which `length` artifacts were sent, each answered by the next."""
    stage.open_pair()
    for count in range(length):
        author = ("claude", "codex")[count % 2]
        stage.ok(author, "next", RELAY_AUTO_ROUND_CAP="0")
        stage.send(author, "note", RELAY_AUTO_ROUND_CAP="0")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("next",), ("status",), ("brief",), ("wait", "--timeout", "0")], ids=" ".join
)
def test_a_look_reads_no_more_files_in_a_long_pair_than_in_a_short_one(stage, monkeypatch, words):
    read = []
    for length in (4, 12):
        story(stage, length)
        calls = counted(monkeypatch, RELAY, "read_file")
        stage.run("codex", *words, RELAY_AUTO_ROUND_CAP="0")
        read.append(len(calls))
        stage.ok("claude", "close", "--reason", "done")
    assert read[0] == read[1] > 0


@pytest.mark.parametrize(
    "words", [("brief",), ("wait", "--timeout", "0"), ("findings",), ("verify",)], ids=" ".join
)
def test_a_look_starts_no_process(stage, monkeypatch, words):
    story(stage, 2)
    started = counted(monkeypatch, subprocess, "Popen")
    stage.run("codex", *words)
    assert not started


@pytest.mark.slow
def test_telling_the_tree_takes_git_alone_and_not_more_of_it_for_more_files(
    stage, real_git, monkeypatch
):
    started = []
    for files in (3, 30):
        for number in range(files):
            (stage.project / f"file-{files}-{number}").write_text("text\n")
        stage.open_pair(f"t{files}")
        stage.send("claude", "plan")
        stage.ok("codex", "next")
        counts = {}
        for command in ("next", "status", "log", "send"):
            with monkeypatch.context() as patch:
                calls = counted(patch, subprocess, "Popen")
                stage.send("codex", "note") if command == "send" else stage.ok("codex", command)
            assert {os.path.basename(call[0][0]) for call in calls} == {"git"}, command
            counts[command] = len(calls)
        started.append(counts)
        stage.ok("claude", "close", "--reason", "done")
        stage.ok("codex", "next")
    assert started[0] == started[1] and max(started[0].values()) <= 10, started
