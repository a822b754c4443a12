"""A part of a day, 800 turns (a whole one: RELAY_SOAK_TURNS=10000 RELAY_SOAK_PAIRS=500; the same again: RELAY_SOAK_SEED):
nothing is lost or doubled, and nothing grows with the day."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import statistics
import tempfile

import pytest
from conftest import Stage
from helpers.soak import Soak

pytestmark = pytest.mark.slow
TURNS, PAIRS = (
    int(os.environ.get("RELAY_SOAK_TURNS", "800")),
    int(os.environ.get("RELAY_SOAK_PAIRS", "40")),
)


def rss():
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) * 4096


@pytest.fixture
def stage(stage):
    """In memory, where there is enough: a disk that writes back with each rename takes most of the day's time."""
    shm = "/dev/shm"
    if not os.path.isdir(shm) or shutil.disk_usage(shm).free < 2**30:
        yield stage
        return
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Stage(pathlib.Path(folder) / "day")


def test_a_whole_day(stage, monkeypatch):
    seed = int(os.environ.get("RELAY_SOAK_SEED") or random.SystemRandom().randrange(2**32))
    print(f"RELAY_SOAK_SEED={seed}")
    soak = Soak(stage, monkeypatch, seed, TURNS, PAIRS)
    marks = []

    def look(soak):
        if soak.count % (TURNS // 10) == 0:
            marks.append((len(os.listdir("/proc/self/fd")), rss(), sum(soak.kept().values())))

    soak.day(look)
    print(dict(soak.events), marks, dict(soak.kept()))
    assert soak.lost_or_doubled() == []
    done = stage.run("claude", "verify", "--all")
    assert done.code == 0, done.out[-2000:] + done.err[-2000:]
    assert stage.litter() == [], "nothing that killed runs left outlives the next command"
    assert len({handles for handles, _, _ in marks}) == 1, marks
    assert marks[-1][1] < marks[1][1] * 1.15 + 8_000_000, f"memory grows: {marks}"
    assert marks[-1][2] < marks[1][2] * 1.5 + 50, (
        f"the ledger's own folder grows: {marks} {soak.kept()}"
    )
    early, late = (
        [cost for at, _, cost in soak.samples if low <= at / TURNS < high]
        for low, high in ((0.1, 0.3), (0.8, 1.0))
    )
    print("calls a send:", statistics.mean(early), statistics.mean(late))
    assert statistics.mean(late) < statistics.mean(early) * 1.1 + 2
