"""`relay verify` proves a pair or names each fault; a sound pair has none, and others agree with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from conftest import RELAY, reseal
from helpers import v1_reader
from helpers.blocks import asked, dispositions, findings, prepared, sidecar


def a_story(stage):
    """A pair with everything in it: a change set, findings, their fate, runs, verdicts, what was seen."""
    return prepared(stage, _a_story)


def _a_story(stage):
    path = stage.open_pair()
    (stage.project / "a b.py").write_text("1\n")
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.ok("codex", "run", "--", "echo", "ran")
    stage.send(
        "codex",
        "review",
        findings("blocker a.py:1 One", "  detail", 'nit "a b.py":1 Two'),
        "go",
        "--verdict",
        "changes",
    )
    stage.ok("claude", "next")
    (stage.project / "a b.py").write_text("2\n")
    stage.send("claude", "fix", dispositions("2.1 fixed so", "2.2 refuted no"))
    stage.ok("codex", "next")
    stage.ok("codex", "run", "--", "true")
    stage.send("codex", "review", dispositions("2.1 accepted"), "go", "--verdict", "approve")
    return path


LAST = "004-codex-review"


def faults(stage, *words):
    """What `verify` names, as (name, why)."""
    done = stage.run("claude", "verify", "--json", *words)
    rows = [(fault["name"], fault["why"]) for row in done.json["pairs"] for fault in row["faults"]]
    assert done.code == (1 if rows else 0), done
    assert all(fault["remedy"] for row in done.json["pairs"] for fault in row["faults"])
    return rows


def named(stage, stem, why):
    found = faults(stage)
    assert any(name == stem and why in told for name, told in found), found
    text = stage.run("claude", "verify").out
    assert f"  {stem}: " in text and "hint: " in text


# ---- sound


def test_a_sound_pair_is_proven(stage):
    path = a_story(stage)
    assert faults(stage) == []
    assert stage.ok("claude", "verify").out == f"{path.name}: 4 artifacts, 2 findings: all well\n"
    assert stage.ok("claude", "verify", "--json").json["pairs"][0] == {
        "pair": path.name,
        "path": str(path),
        "artifacts": 4,
        "findings": 2,
        "notes": [],
        "faults": [],
    }


def test_verifying_changes_nothing(stage):
    a_story(stage)
    before = stage.snapshot(stage.shared)
    stage.ok("claude", "verify", "--all")
    assert stage.snapshot(stage.shared) == before


def test_an_empty_pair_and_one_with_a_draft_are_sound(stage):
    stage.open_pair()
    assert faults(stage) == []
    stage.ok("claude", "claim", "--kind", "note")
    stage.ok("codex", "run", "--", "true")
    assert faults(stage) == []


def test_a_number_published_late_is_sound(stage):
    asked(stage)
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    stage.send("claude", "note")
    stage.ok(
        "codex",
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file(findings("nit - Late")),
        "--prompt-for-next-file",
        stage.file("go\n", "p"),
    )
    stage.ok("codex", "publish", draft)
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    assert faults(stage) == []


def test_all_covers_every_pair_also_in_the_archive(stage):
    first = a_story(stage)
    stage.ok("claude", "close", "--reason", "done")
    stage.ok("codex", "next")
    second = stage.open_pair("other")
    stage.send("claude", "plan")
    rows = stage.ok("claude", "verify", "--all", "--json").json["pairs"]
    assert sorted((row["pair"], row["artifacts"]) for row in rows) == sorted(
        [(first.name, 4), (second.name, 1)]
    )
    archived = stage.shared / "_archive" / first.name / "002-codex-review.md"
    archived.write_bytes(archived.read_bytes() + b"x")
    assert "002-codex-review" in [name for name, _ in faults(stage, "--all")]
    assert faults(stage) == []
    assert "002-codex-review" in [name for name, _ in faults(stage, "--pair-id", first.name)]


def test_what_is_damaged_is_not_laid_to_those_after_it(stage):
    path = a_story(stage)
    (path / "002-codex-review.md").write_bytes(b"x")
    assert {name for name, _ in faults(stage)} == {"002-codex-review"}


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"x"), lambda p: p.unlink()])
def test_a_damaged_request_is_not_laid_to_its_verdict(stage, damage):
    path = a_story(stage)
    request = sidecar(path, int(LAST[:3]))["request"]["name"]
    damage(path / f"{request}.md")
    assert {name for name, _ in faults(stage)} == {request}


def test_sha256sum_agrees(stage):
    path = a_story(stage)
    check = ["sha256sum", "-c", "--strict", *sorted(file.name for file in path.glob("*.sha256"))]
    done = subprocess.run(check, cwd=path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK\n") == 8, done
    (path / f"{LAST}.json").write_text("{}")
    assert subprocess.run(check, cwd=path, capture_output=True).returncode == 1
    named(stage, LAST, "its .json does not match")


def test_a_1x_reader_reads_every_artifact_that_has_a_record(stage):
    path = a_story(stage)
    read = v1_reader.artifacts(path)
    assert list(read) == ["001-claude-plan", "002-codex-review", "003-claude-fix", LAST]
    for stem, meta in read.items():
        held = sidecar(path, int(stem[:3]))
        assert (
            meta["changeset"] == held["changeset"]["digest"]
            and meta["base_commit"] == held["changeset"]["base"]
        )
        assert meta["status"] == "ready" and meta["prompt_for_next"].strip()


# ---- each fault by name


def test_bytes_that_do_not_match_their_hash(stage):
    path = a_story(stage)
    file = path / "002-codex-review.md"
    file.write_bytes(file.read_bytes().replace(b"One", b"Two"))
    named(stage, "002-codex-review", "its bytes do not match its .md.sha256")


@pytest.mark.parametrize(
    "suffix, why", [("json", "does not match the sidecar_sha256"), ("md.sha256", "")]
)
def test_a_part_that_was_changed(stage, suffix, why):
    path = a_story(stage)
    file = path / f"{LAST}.{suffix}"
    held = file.read_bytes()
    file.write_bytes(
        held + b" " if suffix == "json" else (b"1" if held[:1] == b"0" else b"0") + held[1:]
    )
    named(stage, LAST, why)


@pytest.mark.parametrize("suffix", ["md", "md.sha256", "json"])
def test_a_part_that_is_missing(stage, suffix):
    path = a_story(stage)
    (path / f"{LAST}.{suffix}").unlink()
    named(stage, LAST, "is missing")


@pytest.mark.parametrize("suffix", ["md", "md.sha256", "json", "ready"])
def test_a_part_that_is_a_link(stage, suffix):
    path = a_story(stage)
    file = path / f"{LAST}.{suffix}"
    file.rename(stage.folder / "elsewhere")
    file.symlink_to(stage.folder / "elsewhere")
    named(stage, LAST, "")


def test_half_an_artifact(stage):
    path = a_story(stage)
    (path / f"{LAST}.ready").unlink()
    named(stage, LAST, "it has no .ready")


def test_the_hash_of_the_sidecar_is_not_the_one_in_the_sums(stage):
    path = a_story(stage)
    sums = path / f"{LAST}.md.sha256"
    sums.write_text(sums.read_text().splitlines()[0] + "\n")
    named(stage, LAST, "name different sidecars")


def test_an_artifact_that_was_published_and_is_gone(stage):
    path = a_story(stage)
    for file in path.glob("003-*"):
        file.unlink()
    named(stage, "003-claude-fix", "gone")


def test_an_artifact_that_was_rewritten_with_all_of_its_hashes_breaks_the_chain(stage):
    path = a_story(stage)
    shutil.rmtree(path / ".seen")
    reseal(path, "003-claude-fix", text=lambda text: text.replace("# Answer", "# Other"))
    named(stage, "003-claude-fix", "its bytes are not those that 004 was written after")


def test_an_artifact_that_was_rewritten_after_it_was_seen(stage):
    path = a_story(stage)
    stage.ok("claude", "next")
    reseal(path, LAST, text=lambda text: text.replace("# Answer", "# Other"))
    named(stage, LAST, "its bytes are not those that were delivered")


def test_an_artifact_that_was_seen_and_is_gone(stage):
    path = a_story(stage)
    stage.ok("claude", "next")
    shutil.rmtree(path / ".sent")
    for file in path.glob("004-*"):
        file.unlink()
    named(stage, LAST, "was published and is gone")


def test_a_number_that_stands_twice(stage):
    path = a_story(stage)
    parts = [file for file in path.glob("003-*") if file.suffix != ".pack"]
    for file in sorted(parts, key=lambda file: file.suffix == ".ready"):
        text = (
            file.read_text()
            .replace("003-claude-fix", "003-claude-note")
            .replace("kind: fix", "kind: note")
            .replace('"kind": "fix"', '"kind": "note"')
        )
        (path / file.name.replace("-fix", "-note")).write_text(text)
    reseal(path, "003-claude-note")
    done = stage.ok("claude", "verify")  # Both count, so there is nothing to mend.
    assert "note: 003-claude-fix, 003-claude-note: each shares its number" in done.out


@pytest.mark.parametrize("key", ["in_reply_to", "corrects"])
def test_a_reference_to_what_is_not_there(stage, key):
    path = a_story(stage)

    def point_away(text):
        lines = [line for line in text.split("\n") if not line.startswith(f"{key}: ")]
        return "\n".join([*lines[:3], f"{key}: 9", *lines[3:]])

    reseal(path, LAST, text=point_away)
    named(stage, LAST, f"{key} names 009, which is not there")


def test_a_verdict_on_what_is_not_there(stage):
    path = a_story(stage)

    def of_another(document):
        document["request"]["name"] = "009-claude-fix"

    reseal(path, LAST, of_another)
    named(stage, LAST, "009")


def test_a_verdict_on_other_bytes(stage):
    path = a_story(stage)

    def of_other_bytes(document):
        document["request"]["sha256"] = "0" * 64

    reseal(path, LAST, of_other_bytes)
    named(stage, LAST, "003")


def test_a_predecessor_that_was_never_there(stage):
    path = a_story(stage)

    def after_another(document):
        document["prev"] = {"name": "003-claude-plan.md", "sha256": "0" * 64}

    reseal(path, LAST, after_another)
    assert faults(stage)


def test_one_run_carried_twice(stage):
    path = a_story(stage)
    run = sidecar(path, 2)["evidence"][0]
    reseal(path, LAST, lambda document: document | {"evidence": [run]})
    assert any(name == LAST for name, _ in faults(stage))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["findings"].pop(),
        lambda d: d["findings"][0].update(severity="nit"),
        lambda d: d["findings"][0].update(text="Other"),
        lambda d: d["findings"][0].update(detail=""),
        lambda d: d["findings"][0].update(line="2"),
        lambda d: d["findings"].append(dict(d["findings"][0])),
    ],
    ids=["fewer", "severity", "text", "detail", "line", "more"],
)
def test_findings_that_are_not_those_of_the_body(stage, change):
    path = asked(stage)
    stage.send("codex", "review", findings("blocker a.py:1 One", "  detail", "nit - Two"))
    reseal(path, "002-codex-review", lambda document: change(document) and None)
    named(stage, "002-codex-review", "its findings are not those of its body")


def test_a_body_that_holds_other_findings_than_were_recorded(stage):
    path = asked(stage)
    stage.send("codex", "review", findings("blocker a.py:1 One"))
    reseal(path, "002-codex-review", text=lambda text: text.replace("blocker", "nit"))
    named(stage, "002-codex-review", "its findings are not those of its body")


def test_dispositions_that_are_not_those_of_the_body(stage):
    path = a_story(stage)
    reseal(path, LAST, lambda document: document | {"dispositions": []})
    named(stage, LAST, "its dispositions are not those of its body")


def test_a_disposition_that_is_said_to_be_about_another_finding(stage):
    """`of` decides which finding is meant; it is not in the body, so only the numbers can bear it out."""
    path = a_story(stage)

    def about_another(document):
        document["dispositions"][0]["of"] = "001-claude-plan"

    reseal(path, LAST, about_another)
    assert any(name == LAST for name, _ in faults(stage))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["open"].pop(),
        lambda d: d["open"][0].update(state="fixed", answer="so", by="001-claude-plan"),
        lambda d: d["open"][0].update(severity="nit"),
        lambda d: d["open"][0].update(text="Other"),
        lambda d: d["open"].append(d["open"][0] | {"id": "1.1", "artifact": "001-claude-plan"}),
        lambda d: d["settled"].append(d["open"].pop() | {"state": "accepted"}),
        lambda d: d["rounds"].clear(),
    ],
    ids=["fewer", "answered", "severity", "text", "more", "settled", "rounds"],
)
def test_open_findings_carried_otherwise_than_the_artifacts_tell(stage, change):
    """What is carried decides what the next reader, and an approval, sees."""
    path = asked(stage)
    stage.send("codex", "review", findings("blocker a.py:1 One", "nit - Two"))
    reseal(path, "002-codex-review", lambda document: change(document) and None)
    assert any(name == "002-codex-review" for name, _ in faults(stage))


def test_a_record_without_its_fold_is_no_way_round_the_checks(stage):
    path = asked(stage)
    stage.send("codex", "review", findings("blocker a.py:1 One"))

    def without(document):
        del document["folded"]
        document["findings"] = []

    reseal(path, "002-codex-review", without)
    assert any(name == "002-codex-review" for name, _ in faults(stage))


def test_files_that_do_not_make_the_digest(stage):
    path = a_story(stage)

    def fewer(document):
        document["changeset"]["files"] = {"other.py": "100644 " + "0" * 40}

    reseal(path, LAST, fewer)
    named(stage, LAST, "the files of its change set do not match its digest")


@pytest.mark.parametrize(
    "key, other", [("changeset", "0" * 64), ("base_commit", "0" * 40), ("head_commit", "0" * 40)]
)
def test_a_frontmatter_that_names_another_change_set(stage, key, other):
    path = a_story(stage)

    def change(text):
        return "\n".join(
            f"{key}: {other}" if line.startswith(f"{key}: ") else line for line in text.split("\n")
        )

    reseal(path, LAST, text=change)
    named(stage, LAST, "its frontmatter and its sidecar name different change sets")


def test_a_frontmatter_that_names_a_change_set_that_is_not_kept(stage):
    path = a_story(stage)
    reseal(path, LAST, lambda document: document | {"changeset": {"untold": "x"}})
    named(stage, LAST, "its frontmatter names a change set that its sidecar does not have")


def test_a_pair_of_another_schema(stage):
    path = a_story(stage)
    document = json.loads((path / "session.json").read_text())
    (path / "session.json").write_text(json.dumps(document | {"schema_version": 99}))
    assert [name for name, _ in faults(stage, "--all")] == ["session.json"]


def test_several_faults_are_all_named(stage):
    path = a_story(stage)
    (path / "001-claude-plan.md").write_text("x")
    (path / "002-codex-review.json").unlink()
    reseal(path, LAST, lambda document: document | {"dispositions": []})
    assert {name for name, _ in faults(stage)} >= {"001-claude-plan", "002-codex-review", LAST}


def test_a_sidecar_that_is_nonsense_is_named_and_breaks_nothing(stage):
    path = a_story(stage)
    for content in (b"", b"[]", b"{", b"\xff", b'{"findings": 3}'):
        (path / f"{LAST}.json").write_bytes(content)
        assert any(name == LAST for name, _ in faults(stage)), content
    for words in (["findings"], ["log"], ["status"], ["next"], ["show", "4"], ["brief"]):
        assert stage.run("claude", *words).code in (0, 1, 13), words


HOSTILE = [
    {"findings": 3},
    {"findings": [3, None, {"severity": []}]},
    {"dispositions": [{"id": "2.1", "verb": "fixed", "of": "../x"}]},
    {"open": [{"id": "x", "severity": "blocker"}], "settled": 7},
    {"rounds": [[1, 2, 3], ["a", "b"], 5]},
    {"more_settled": "many"},
    {"folded": "no"},
    {"evidence": [{"id": {}, "argv": 7, "code": "x"}, 5]},
    {"verdict": ["approve"]},
    {"request": "001"},
    {"request": {"name": "../../x", "sha256": 5}},
    {"changeset": {"digest": "0" * 64, "count": 1, "base": "0" * 40, "files": ["x"]}},
    {"changeset": 5},
    {"prev": 5},
    {"answered": []},
    {"answers": "x"},
    {
        "open": [
            {
                "id": "2.1",
                "artifact": "002-codex-review",
                "severity": "blocker",
                "state": "reopened",
                "by": "",
                "reopened": 7,
                "text": "x",
            }
        ]
    },
    {"open": [{"id": "2.x", "artifact": "002-codex-review", "severity": "blocker"}]},
    {"not_run": 5},
]


@pytest.mark.parametrize(
    "change",
    [*HOSTILE[:3], *(pytest.param(change, marks=pytest.mark.slow) for change in HOSTILE[3:])],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_record_of_the_peers_that_is_well_hashed_nonsense_breaks_no_command(stage, change):
    path = a_story(stage)
    reseal(path, LAST, lambda document: document | change)
    for words in (
        ["findings"],
        ["findings", "--all"],
        ["log"],
        ["status"],
        ["status", "--json"],
        ["brief"],
        ["show", "4"],
        ["verify"],
        ["next"],
    ):
        done = stage.run("claude", *words)
        assert done.code in (0, 1, 13) and "bug" not in done.err, (words, done.err[-600:])
    done = stage.run("claude", "close", "--reason", "x", "--outcome", "approve")
    assert done.code in (0, 2) and "bug" not in done.err, done.err[-600:]
    if done.code == 2:
        done = stage.run(
            "claude", "send", "--kind", "fix", "--file", stage.file("# F\n"), "--next", "x"
        )
        assert done.code in (0, 2) and "bug" not in done.err, done.err[-600:]


def test_an_artifact_of_1x_among_others_is_sound(stage):
    path = a_story(stage)
    text = (
        (path / "003-claude-fix.md")
        .read_text()
        .replace("seq: 3\n", "seq: 5\n")
        .replace("kind: fix", "kind: note")
        .partition("```dispositions")[0]
    )
    text = "\n".join(
        line
        for line in text.split("\n")
        if not line.startswith(("sidecar_sha256", "changeset", "base_commit", "head_commit"))
    )
    (path / "005-claude-note.md").write_text(text)
    (path / "005-claude-note.md.sha256").write_text(
        f"{RELAY.sha256(text.encode())}  005-claude-note.md\n"
    )
    (path / "005-claude-note.ready").touch()
    os.utime(path / "005-claude-note.ready")
    assert faults(stage) == []


def test_a_base_that_is_not_the_one_the_pair_began_with_is_named(stage):
    """`next` says so with `relay verify` as the command that tells more."""
    pair = stage.open_pair()
    stage.send("claude", "plan")
    assert stage.ok("codex", "verify", pair.name).code == 0
    stage.git("commit", "-q", "--allow-empty", "-m", "more")
    session = json.loads((pair / "session.json").read_text())
    session["base_commit"] = stage.git("rev-parse", "HEAD")
    (pair / "session.json").write_text(json.dumps(session))
    done = stage.run("codex", "verify", pair.name)
    assert done.code == 1 and "session.json: 001 compares with" in done.out
