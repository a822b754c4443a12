"""Whatever bytes are where relay reads, it ends in a value or a documented error: no traceback, no
hang, no partial write, no flood."""

from __future__ import annotations

import os
import random
import time

import pytest
from helpers import fuzz

ONCE_BAD = sorted(path for path in (fuzz.CORPUS / "bad").glob("*/*") if path.is_file())


@pytest.fixture
def ground(relay, stage, monkeypatch):
    return fuzz.Ground(relay, stage, monkeypatch)


@pytest.mark.slow
def test_a_few_cases_of_every_kind_end_in_a_value_or_a_documented_error(ground):
    for target, (weight, _, _) in fuzz.TARGETS.items():
        fuzz.play(ground, 7, range(max(4, weight)), target)


@pytest.mark.slow
def test_what_once_broke_a_parser_ends_in_a_value_or_a_documented_error(ground):
    assert ONCE_BAD
    for path in ONCE_BAD:
        try:
            fuzz.feed(ground, path.parent.name, path.read_bytes(), random.Random(0))
        except AssertionError as problem:
            pytest.fail(f"{path.parent.name}/{path.name}: {problem}")


@pytest.mark.slow
def test_thousands_of_cases_end_in_a_value_or_a_documented_error(ground, capsys):
    seed = int(os.environ.get("RELAY_FUZZ_SEED") or time.time())
    count = int(os.environ.get("RELAY_FUZZ_COUNT") or 10_000)
    with capsys.disabled():
        print(f"\nfuzz: seed {seed}, {count} cases (RELAY_FUZZ_SEED={seed} plays the same)")
    played, spent = fuzz.play(ground, seed, range(count))
    slowest = sorted(spent, key=spent.get, reverse=True)
    with capsys.disabled():
        print("fuzz: " + ", ".join(f"{t} {played[t]} in {spent[t]:.1f} s" for t in slowest))
    assert sum(played.values()) == count


@pytest.mark.slow
def test_one_case_again(ground):
    number = os.environ.get("RELAY_FUZZ_CASE")
    if number is None:
        pytest.skip("RELAY_FUZZ_SEED and RELAY_FUZZ_CASE name the case")
    fuzz.play(ground, int(os.environ["RELAY_FUZZ_SEED"]), [int(number)])


def test_an_artifact_without_a_time_keeps_nobody_from_waiting(stage, relay):
    pair = stage.open_pair()
    head = "seq: 1\nauthor: claude\npeer: codex\nkind: plan\nstatus: ready\nprompt_for_next: go\n"
    content = f"---\n{head}---\n# P\n".encode()
    sums = f"{relay.sha256(content)}  001-claude-plan.md\n".encode()
    for suffix, each in ((".md", content), (".md.sha256", sums), (".ready", b"")):
        (pair / f"001-claude-plan{suffix}").write_bytes(each)
    assert stage.ok("claude", "next").action == "wait"
    assert stage.run("claude", "wait", "--timeout", "0").code == 10
