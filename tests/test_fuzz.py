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


@pytest.mark.parametrize("depth, fine", [(1, True), (100, True), (101, False), (990, False), (10_000, False), (1_000_000, False)])
def test_json_is_read_to_a_depth_that_all_that_handles_it_goes_to(relay, depth, fine):
    for content in (b"[" * depth + b"]" * depth, b'{"a":' * (depth - 1) + b"[]" + b"}" * (depth - 1)):
        try:
            value = relay.json_value(content)
        except relay.Malformed:
            assert not fine
        else:
            assert fine and relay.json_value(relay.json_document(value)) == value
            relay.json_line({"k": value}), relay.one_line(value)


@pytest.mark.parametrize("value", [-1, -(10**12), 10**9, 10**400, True, 1.0, "1", None, [1]])
def test_a_count_that_no_writer_of_ours_writes_is_none(relay, value):
    assert relay.whole_number(value) == 0


def test_an_artifact_without_a_time_keeps_nobody_from_waiting(stage, relay):
    pair = stage.open_pair()
    content = b"---\nseq: 1\nauthor: claude\npeer: codex\nkind: plan\nstatus: ready\nprompt_for_next: go\n---\n# P\n"
    for suffix, held in ((".md", content), (".md.sha256", relay.sha256_file([(relay.sha256_of(content), "001-claude-plan.md")])), (".ready", b"")):
        (pair / f"001-claude-plan{suffix}").write_bytes(held)
    for binding in (stage.shared / "_relay/bindings").glob("codex-*"):
        binding.write_text(binding.read_text().replace('"last_seen": "', '"last_seen": "no time, '))
    assert stage.ok("claude", "next").action == "wait"
    assert stage.run("claude", "wait", "--timeout", "0").code == 10
