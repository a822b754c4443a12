"""Doctor, preflight and issues: what they report, and what `--fix` removes."""

import os
import time


def test_a_sound_ledger_is_all_well(stage):
    stage.open_pair()
    done = stage.ok("claude", "doctor")
    assert "all well" in done.out
    assert stage.ok("claude", "doctor", "--json").json["findings"] == []


def test_every_problem_has_an_id_a_sentence_and_a_remedy(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    artifact = pair / "001-claude-plan.md"
    artifact.chmod(0o600)
    artifact.write_text("edited\n")
    done = stage.run("claude", "doctor", "--json")
    assert done.code == 1
    rows = done.json["findings"]
    assert any(row["id"] == "pair.damaged" and "001-claude-plan" in str(row) for row in rows)
    for row in rows:
        assert row["why"] and row["remedy"] and row["severity"] in ("error", "warning")


def test_fix_removes_old_litter_and_dry_run_only_says_so(stage):
    pair = stage.open_pair()
    litter = pair / ".left.12345678.tmp"
    litter.write_text("x")
    then = time.time() - 9 * 3600
    os.utime(litter, (then, then))
    assert litter.name in stage.run("claude", "doctor", "--fix", "--dry-run").out
    assert litter.exists()
    stage.run("claude", "doctor", "--fix")
    assert not litter.exists()


def test_preflight_exits_2_without_a_ledger_and_0_with_one(stage):
    assert stage.run("claude", "preflight").code == 2
    stage.open_pair()
    done = stage.run("claude", "preflight", "--json")
    assert done.code in (0, 1) and done.json["exit_code"] == done.code
    names = {row["name"] for row in done.json["checks"]}
    assert {"identity.author", "mount.sentinel", "pair.binding", "fs.posix_mode"} <= names


def test_preflight_warns_of_a_ledger_that_others_can_read_and_fails_where_they_can_write(stage):
    stage.open_pair()
    for mode, status in ((0o750, "warn"), (0o777, "fail")):
        stage.shared.chmod(mode)
        rows = stage.run("claude", "preflight", "--json").json["checks"]
        assert status in {row["status"] for row in rows}, (oct(mode), rows)


def test_an_issue_is_added_listed_shown_and_resolved(stage):
    path = (
        stage.ok("claude", "issue", "add", "--title", "wait ends early").out.strip().split("\n")[-1]
    )
    assert os.path.dirname(path) == str(stage.home / ".agent-ledger/relay-issues")
    (row,) = stage.ok("claude", "issue", "list", "--json").json["issues"]
    shown = stage.ok("claude", "issue", "show", row["id"]).out
    assert "wait ends early" in shown
    stage.ok("claude", "issue", "resolve", row["id"], "--note", "mended")
    assert stage.ok("claude", "issue", "list", "--json").json["issues"] == []
    assert len(stage.ok("claude", "issue", "list", "--status", "all", "--json").json["issues"]) == 1


def test_an_issue_directory_that_cannot_be_written_is_refused_with_the_way_out(stage):
    blocked = stage.folder / "file"
    blocked.write_text("")
    done = stage.refused("claude", "issue", "add", "--title", "t", RELAY_ISSUES_DIR=f"{blocked}/x")
    assert "RELAY_ISSUES_DIR" in done.err


def test_doctor_publishes_and_wakes_a_process_that_waits(stage, real_proof):
    stage.open_pair()
    before = stage.snapshot(stage.shared / "_relay").keys()
    done = stage.ok("claude", "doctor", "--json").json
    details = {row["name"]: row["detail"] for row in done["passed"]}
    assert "read back and removed" in details["ledger.write"]
    assert "ms after a publish" in details["wait"] and done["findings"] == []
    assert stage.snapshot(stage.shared / "_relay").keys() == before
