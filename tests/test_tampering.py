"""Not one byte of a damaged artifact is delivered, and every command that looks names it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import time

import pytest
from helpers.blocks import prepared

SECRET = "words-nobody-may-be-handed"
STEM = "001-claude-plan"


def rewrite(path, text):
    """Rewrites an artifact and its sha256 together, as a forger would."""
    path.write_text(text)
    sums = path.with_name(path.name + ".sha256")
    lines = sums.read_text().splitlines()[1:]
    sums.write_text(
        "\n".join([f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}", *lines, ""])
    )


def edited(pair):
    path = pair / f"{STEM}.md"
    path.write_text(path.read_text().replace("# Plan", f"# {SECRET}"))


def truncated(pair):
    path = pair / f"{STEM}.md"
    path.write_bytes(path.read_bytes()[:-3])


def emptied(pair):
    (pair / f"{STEM}.md").write_bytes(b"")


def symlinked(pair):
    path = pair / f"{STEM}.md"
    shutil.move(path, pair.parent.parent / "elsewhere.md")
    path.symlink_to(pair.parent.parent / "elsewhere.md")


def hash_symlinked(pair):
    path = pair / f"{STEM}.md.sha256"
    shutil.move(path, pair.parent.parent / "elsewhere.sha256")
    path.symlink_to(pair.parent.parent / "elsewhere.sha256")


def ready_symlinked(pair):
    (pair / f"{STEM}.ready").unlink()
    (pair / f"{STEM}.ready").symlink_to(f"{STEM}.md")


def sidecar_symlinked(pair):
    path = pair / f"{STEM}.json"
    shutil.move(path, pair.parent.parent / "elsewhere.json")
    path.symlink_to(pair.parent.parent / "elsewhere.json")


def renamed(pair):
    for suffix in (".md", ".md.sha256", ".json", ".ready"):
        (pair / f"{STEM}{suffix}").rename(pair / f"007-claude-fix{suffix}")


def md_removed(pair):
    (pair / f"{STEM}.md").unlink()


def hash_removed(pair):
    (pair / f"{STEM}.md.sha256").unlink()


def sidecar_removed(pair):
    (pair / f"{STEM}.json").unlink()


def hash_emptied(pair):
    (pair / f"{STEM}.md.sha256").write_bytes(b"")


def hash_of_another(pair):
    (pair / f"{STEM}.md.sha256").write_text("0" * 64 + f"  {STEM}.md\n")


def sidecar_edited(pair):
    path = pair / f"{STEM}.json"
    path.write_text(path.read_text().replace('"answers": []', '"answers": [9]'))


def fifo(pair):
    (pair / f"{STEM}.md").unlink()
    os.mkfifo(pair / f"{STEM}.md")


def hash_fifo(pair):
    (pair / f"{STEM}.md.sha256").unlink()
    os.mkfifo(pair / f"{STEM}.md.sha256")


def folder(pair):
    (pair / f"{STEM}.md").unlink()
    (pair / f"{STEM}.md").mkdir()


def huge(pair):
    os.truncate(pair / f"{STEM}.md", 1 << 40)


def unreadable_text(pair):
    path = pair / f"{STEM}.md"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    (pair / f"{STEM}.md.sha256").write_text(
        hashlib.sha256(path.read_bytes()).hexdigest() + f"  {STEM}.md\n"
    )


def contradicting(key, value):
    def change(pair):
        path = pair / f"{STEM}.md"
        lines = [
            f"{key}: {value}" if line.startswith(f"{key}: ") else line
            for line in path.read_text().split("\n")
        ]
        rewrite(path, "\n".join(lines).replace("# Plan", f"# {SECRET}"))

    change.__name__ = f"contradicting_{key}_{value}"
    return change


def key_twice(pair):
    path = pair / f"{STEM}.md"
    rewrite(
        path,
        path.read_text()
        .replace("kind: plan\n", "kind: plan\nkind: plan\n")
        .replace("# Plan", f"# {SECRET}"),
    )


DAMAGE = [
    edited,
    truncated,
    emptied,
    symlinked,
    hash_symlinked,
    ready_symlinked,
    sidecar_symlinked,
    renamed,
    md_removed,
    hash_removed,
    sidecar_removed,
    hash_emptied,
    hash_of_another,
    sidecar_edited,
    fifo,
    hash_fifo,
    folder,
    huge,
    unreadable_text,
    key_twice,
    contradicting("seq", "2"),
    contradicting("author", "codex"),
    contradicting("kind", "review"),
    contradicting("status", "draft"),
    contradicting("status", "approved"),
]
NAMES = [damage.__name__ for damage in DAMAGE]


def plan_sent(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan", f"# Plan\n{SECRET}\n", f"{SECRET} too")
    return pair


def assert_named(done, code, name=STEM):
    """The artifact is named, by its stem or as a line of the log, and nothing of it is shown."""
    assert done.code == code, done
    said = done.out + done.err
    seq, author, kind = name.split("-")
    rows = [line.split() for line in said.split("\n") if "DAMAGED" in line or "LOST" in line]
    assert name in said or any({seq, author, kind} <= set(row) for row in rows), done
    assert SECRET not in said, done


def sampled(damage, seen):
    """One that was delivered already is handled as one that was not: the slow run tries all."""
    few = damage in (edited, renamed, md_removed, sidecar_removed, symlinked)
    marks = [pytest.mark.slow] if seen and not few else []
    word = "seen" if seen else "unseen"
    return pytest.param(damage, seen, id=f"{word}-{damage.__name__}", marks=marks)


@pytest.mark.parametrize(
    "damage, seen", [sampled(damage, seen) for seen in (False, True) for damage in DAMAGE]
)
def test_a_damaged_artifact_is_named_everywhere_and_never_handed_over(stage, damage, seen):
    pair = prepared(stage, plan_sent)
    if seen:
        assert SECRET in stage.ok("codex", "next").out
    damage(pair)
    name = "007-claude-fix" if damage is renamed and not seen else STEM
    seq = name[:3].lstrip("0")
    told = stage.run("codex", "next", "--exit-code")
    assert told.action == "damaged"
    assert_named(told, 13, name)
    assert ("backup" in told.out or "restore" in told.out) and "continue" in told.out
    made = stage.ok("codex", "next", "--json").json
    assert name in [row["name"] for row in made["faults"]] and made["artifacts"] == []
    assert_named(stage.run("codex", "wait", "--timeout", "0"), 13, name)
    assert_named(stage.run("codex", "show", seq), 13, name)
    assert_named(stage.run("codex", "status"), 0, name)
    assert_named(stage.run("codex", "status", "--last", "5"), 0, name)
    assert_named(stage.run("codex", "log"), 1, name)
    assert_named(stage.run("codex", "log", "--json"), 1, name)
    assert_named(stage.run("codex", "brief"), 0, name)
    done = stage.run("codex", "doctor")
    assert_named(done, 1, name)
    assert "backup" in done.out or "restore" in done.out or "publish" in done.out


def test_show_without_a_number_does_not_skip_to_an_older_one(stage):
    pair = stage.open_pair()
    stage.send("claude", "note", "# Old\n")
    stage.send("claude", "note", "# New\n")
    with open(pair / "002-claude-note.md", "a") as file:
        file.write(SECRET)
    done = stage.run("codex", "show")
    assert_named(done, 13, "002-claude-note")
    assert "# Old" not in done.out


# ---- gone


def everything_removed(pair):
    for path in pair.glob(f"{STEM}*"):
        path.unlink()


def ready_removed(pair):
    (pair / f"{STEM}.ready").unlink()


@pytest.mark.parametrize("damage", [everything_removed, ready_removed], ids=lambda f: f.__name__)
def test_one_that_was_seen_and_is_gone_is_named(stage, damage):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    damage(pair)
    assert_named(stage.run("codex", "next", "--exit-code"), 13)
    assert_named(stage.run("codex", "wait", "--timeout", "0"), 13)
    assert_named(stage.run("codex", "status"), 0)
    assert_named(stage.run("codex", "log"), 1)
    assert_named(stage.run("codex", "brief"), 0)
    assert_named(stage.run("codex", "doctor"), 1)
    assert_named(stage.run("codex", "show", "1"), 13)


@pytest.mark.parametrize("damage", [everything_removed, ready_removed], ids=lambda f: f.__name__)
def test_one_that_nobody_saw_and_is_gone_is_named_where_all_is_read(stage, damage):
    pair = plan_sent(stage)
    stage.send("claude", "note")
    damage(pair)
    hour_ago = time.time() - 3600
    for path in pair.glob(f"{STEM}*"):
        os.utime(path, (hour_ago, hour_ago))
    assert_named(stage.run("codex", "doctor"), 1)
    assert_named(stage.run("codex", "log"), 1)


def test_a_missing_artifact_that_others_speak_of_is_named_by_doctor(stage):
    pair = plan_sent(stage)
    stage.send("codex", "review", "# R\n", "go", "--reply-to", "1")
    everything_removed(pair)
    shutil.rmtree(pair / ".sent")
    assert_named(stage.run("codex", "doctor"), 1)


# ---- rewritten as a whole


def rewritten(pair):
    path = pair / f"{STEM}.md"
    rewrite(path, path.read_text().replace("# Plan", "# Forged"))


def test_one_rewritten_with_its_hash_after_it_was_seen_is_named(stage):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    rewritten(pair)
    for done, code in (
        (stage.run("codex", "next", "--exit-code"), 13),
        (stage.run("codex", "wait", "--timeout", "0"), 13),
        (stage.run("codex", "show", "1"), 13),
        (stage.run("codex", "log"), 1),
        (stage.run("codex", "doctor"), 1),
        (stage.run("codex", "status"), 0),
        (stage.run("claude", "log"), 1),
    ):
        assert_named(done, code)
        assert "Forged" not in done.out


def test_a_rewrite_that_keeps_size_and_time_is_found(stage):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    path = pair / f"{STEM}.md"
    status = path.stat()
    rewrite(path, path.read_text().replace("# Plan", "# PlaN"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert stage.ok("codex", "next").action == "damaged"


def test_one_rewritten_after_it_was_answered_is_named_too(stage):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    stage.send("codex", "review")
    rewritten(pair)
    assert_named(stage.run("codex", "next", "--exit-code"), 13)


def test_the_user_going_on_does_not_hand_over_the_rewritten_bytes(stage):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    rewritten(pair)
    assert stage.ok("codex", "next").action == "damaged"
    assert STEM in stage.ok("codex", "continue").out
    for words in (("next",), ("wait", "--timeout", "0"), ("next", "--json")):
        done = stage.run("codex", *words)
        assert "Forged" not in done.out and f"{STEM}.md" not in done.out, done


def test_the_end_of_a_pair_does_not_hand_over_the_rewritten_bytes_of_what_was_seen(stage):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    rewritten(pair)
    stage.ok("claude", "close", "--reason", "r")
    told = stage.ok("codex", "next")
    assert told.action == "over" and "Forged" not in told.out


def test_an_unread_artifact_that_is_damaged_is_named_when_the_pair_is_over(stage):
    pair = plan_sent(stage)
    edited(pair)
    stage.ok("claude", "close", "--reason", "r")
    told = stage.ok("codex", "next")
    assert told.action == "over"
    assert_named(told, 0)


# ---- the second line of a hash file, the answers in a sidecar, one's own artifacts


def test_a_forged_second_line_of_the_hash_file_is_named_by_doctor(stage):
    pair = plan_sent(stage)
    path = pair / f"{STEM}.md.sha256"
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{'0' * 64}  {STEM}.json\n")
    assert_named(stage.run("codex", "doctor"), 1)


@pytest.mark.parametrize(
    "damage", [edited, truncated, sidecar_edited, sidecar_removed], ids=lambda f: f.__name__
)
def test_damage_to_my_own_account_is_named_and_not_answered_twice_in_silence(stage, damage):
    pair = stage.open_pair()
    stage.send("claude", "plan", "# Plan\n")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# R\n")
    for path in pair.glob("001-claude-plan*"):
        assert path.exists()
    mine = pair / "002-codex-review.md"
    if damage is sidecar_removed:
        mine.with_suffix(".json").unlink()
    elif damage is sidecar_edited:
        mine.with_suffix(".json").write_text("{}")
    else:
        mine.write_text(mine.read_text() + ("forged\n" if damage is edited else ""))
        os.truncate(mine, mine.stat().st_size - (3 if damage is truncated else 0))
    assert_named(stage.run("codex", "next", "--exit-code"), 13, "002-codex-review")


@pytest.mark.parametrize("damage", [md_removed, hash_removed, symlinked], ids=lambda f: f.__name__)
def test_my_own_artifact_with_a_part_missing_is_named_to_me(stage, damage):
    pair = plan_sent(stage)
    damage(pair)
    assert_named(stage.run("claude", "next", "--exit-code"), 13)
    assert_named(stage.run("claude", "doctor"), 1)


# ---- mending


def test_a_restored_artifact_is_delivered_again(stage):
    pair = plan_sent(stage)
    path = pair / f"{STEM}.md"
    kept = path.read_bytes()
    edited(pair)
    assert stage.ok("codex", "next").action == "damaged"
    path.write_bytes(kept)
    told = stage.ok("codex", "next")
    assert told.action == "reply" and SECRET in told.out
    assert stage.run("codex", "doctor").code == 0


def test_one_restored_after_the_user_went_on_is_delivered(stage):
    pair = plan_sent(stage)
    path = pair / f"{STEM}.md"
    kept = path.read_bytes()
    edited(pair)
    stage.ok("codex", "next")
    stage.ok("codex", "continue")
    assert stage.ok("codex", "next").action == "wait"
    path.write_bytes(kept)
    assert stage.ok("codex", "next").action == "reply"


def test_continue_lets_the_pair_go_on_and_log_still_tells(stage):
    pair = plan_sent(stage)
    edited(pair)
    stage.ok("codex", "next")
    done = stage.ok("codex", "continue")
    assert STEM in done.out
    assert stage.run("codex", "wait", "--timeout", "0").code == 10
    stage.send("claude", "plan", "# Again\n")
    told = stage.ok("codex", "next")
    assert told.action == "reply" and "# Again" in told.out and SECRET not in told.out
    logged = stage.run("codex", "log")
    assert_named(logged, 1)
    assert "without 001-claude-plan" in logged.out
    told = stage.ok("codex", "doctor")
    assert f"continued without it: {pair.name}/{STEM}" in told.out


def test_one_continue_past_damage_serves_both_sides(stage):
    edited(plan_sent(stage))
    for author in ("claude", "codex"):
        assert stage.ok(author, "next").action == "damaged"
    stage.ok("codex", "continue")
    for author, action in (("claude", "start"), ("codex", "wait")):
        assert stage.ok(author, "next").action == action


def test_fresh_damage_is_named_again_after_continue(stage):
    pair = plan_sent(stage)
    path = pair / f"{STEM}.md"
    kept = path.read_bytes()
    edited(pair)
    stage.ok("codex", "continue")
    path.write_bytes(kept)
    assert stage.ok("codex", "next").action == "reply"
    md_removed(pair)
    assert stage.ok("codex", "next").action == "damaged"


def test_a_damaged_artifact_sent_again_says_what_to_do(stage):
    pair = stage.open_pair()
    file = stage.file("# Plan\n## Next\ngo\n")
    stage.ok("claude", "send", "--kind", "plan", "--file", file)
    edited(pair)
    done = stage.run("claude", "send", "--kind", "plan", "--file", file)
    assert done.code == 2 and STEM in done.err
    assert (
        stage.run(
            "claude", *shlex.split(done.err.partition("hint: ")[2].partition(";")[0])[1:]
        ).code
        == 1
    )
    done = stage.ok("claude", "send", "--kind", "plan", "--file", file, "--again")
    assert "002-claude-plan" in done.out
    shutil.rmtree(stage.project / ".git" / "relay")
    ways = stage.ok("codex", "next").out.partition("; to continue without it, ")
    assert "backup" in ways[0] and "again" not in ways[0] and "again" in ways[2]
    stage.ok("codex", "continue")
    assert stage.ok("codex", "next").action == "reply"


# ---- around the artifacts


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"seq": 1}\nnot json\n', '{"name": "../../x", "sha256": 5}\n', "\0\0\0"],
)
def test_a_torn_or_forged_log_of_what_was_seen_does_no_harm(stage, text):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    log = next((pair / ".seen").glob("codex-*.jsonl"))
    log.write_text(text)
    told = stage.ok("codex", "next")
    assert told.action == "reply"
    stage.send("codex", "review", "# R\n", "go", "--reply-to", "1")
    assert stage.ok("codex", "next").action == "wait"


def test_a_log_that_cannot_be_read_hides_no_pair(stage):
    pair = plan_sent(stage)
    stage.ok("claude", "bootstrap", "--topic", "other", "--force")
    (log,) = pair.glob(".sent/*")
    log.unlink()
    log.mkdir()
    rows = stage.ok("codex", "pairs", "list", "--json").json["pairs"]
    assert {row["session_id"]: row["next_seq"] for row in rows}[pair.name] is None
    assert re.search(rf"{pair.name} +active .*relay doctor", stage.ok("codex", "pairs", "list").out)
    assert "cannot be read" in stage.ok("codex", "status", pair.name).out


def test_a_name_with_a_kind_or_number_that_does_not_exist_is_no_artifact(stage):
    pair = plan_sent(stage)
    for stem in (
        "000-claude-plan",
        "1000-claude-plan",
        "002-claude-verdict",
        "002-CLAUDE-plan",
        "00x-claude-plan",
    ):
        for suffix in (".md", ".md.sha256", ".ready"):
            (pair / f"{stem}{suffix}").write_text(SECRET)
    made = stage.ok("codex", "next", "--json").json
    assert [a["seq"] for a in made["artifacts"]] == [1]


def test_an_artifact_by_a_stranger_is_not_handed_over_as_the_peers(stage):
    pair = plan_sent(stage)
    stage.ok("codex", "next")
    stage.send("codex", "review")
    text = (
        (pair / f"{STEM}.md")
        .read_text()
        .replace("seq: 1", "seq: 3")
        .replace("author: claude", "author: mallory")
    )
    text = "\n".join(line for line in text.split("\n") if not line.startswith("sidecar_sha256"))
    path = pair / "003-mallory-plan.md"
    path.write_text(text)
    path.with_name(path.name + ".sha256").write_text(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n"
    )
    path.with_suffix(".ready").touch()
    assert stage.ok("codex", "next").action == "wait"
    assert (
        json.loads(stage.ok("codex", "status", "--json").out)["published"][2]["author"] == "mallory"
    )


def rewritten_whole(pair, stem):
    """Text, sidecar's hash in it and sums made to agree again; only what was written after it still tells."""
    path = pair / f"{stem}.md"
    path.write_text(path.read_text().replace("# Text", f"# {SECRET}"))
    sums = path.with_name(path.name + ".sha256")
    lines = sums.read_text().splitlines()
    lines[0] = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
    sums.write_text("\n".join(lines) + "\n")


def test_one_rewritten_with_all_its_sums_is_told_by_the_next_ones_chain(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.send("claude", "note")
    rewritten_whole(pair, "001-claude-plan")
    assert "written after" in stage.run("claude", "log").out
    found = stage.run("claude", "doctor")
    assert (
        found.code == 1
        and "001-claude-plan.md: its bytes are not those that 002 was written after" in found.out
    )
    for command in (("next",), ("show", "1"), ("wait", "--timeout", "0"), ("status",)):
        done = stage.run("codex", *command)
        assert "written after" in done.out + done.err and SECRET not in done.out, command
