"""Whatever bytes lie where relay reads: a value or a documented error, and no traceback, hang, partial write or flood."""

from __future__ import annotations

import os
import random
import subprocess
import time

import fuzz
import pytest
from conftest import SCRIPT

HOSTILE = sorted(path for path in (fuzz.CORPUS / "bad").glob("*/*") if path.is_file())


@pytest.fixture
def ground(relay, stage, monkeypatch):
    return fuzz.Ground(relay, stage, monkeypatch)


def test_a_few_cases_of_every_kind_end_in_a_value_or_a_documented_error(ground):
    for target, (weight, _, _) in fuzz.TARGETS.items():
        fuzz.play(ground, 7, range(max(4, weight)), target)


def test_what_once_broke_a_parser_ends_in_a_value_or_a_documented_error(ground):
    assert HOSTILE
    for path in HOSTILE:
        try:
            fuzz.feed(ground, path.parent.name, path.read_bytes(), random.Random(0))
        except fuzz.Found as problem:
            pytest.fail(f"{path.parent.name}/{path.name}: {problem}")


@pytest.mark.slow
def test_a_hundred_thousand_cases_end_in_a_value_or_a_documented_error(ground, capsys):
    seed = int(os.environ.get("RELAY_FUZZ_SEED") or time.time())
    count = int(os.environ.get("RELAY_FUZZ_COUNT") or 100_000)
    with capsys.disabled():
        print(f"\nfuzz: seed {seed}, {count} cases (RELAY_FUZZ_SEED={seed} plays the same)")
    played, spent = fuzz.play(ground, seed, range(count))
    with capsys.disabled():
        print("fuzz: " + ", ".join(f"{target} {played[target]} in {spent[target]:.1f} s" for target in sorted(spent, key=spent.get, reverse=True)))
    assert sum(played.values()) == count


@pytest.mark.slow
def test_one_case_again(ground):
    number = os.environ.get("RELAY_FUZZ_CASE")
    if number is None:
        pytest.skip("RELAY_FUZZ_SEED and RELAY_FUZZ_CASE name the case")
    fuzz.play(ground, int(os.environ["RELAY_FUZZ_SEED"]), [int(number)])
