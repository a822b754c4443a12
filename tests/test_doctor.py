"""Doctor, preflight and issues: what they report, and what `--fix` removes."""

import errno
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import RELAY, SCRIPT, short_script


def test_a_sound_ledger_is_all_well(stage):
    stage.open_pair()
    done = stage.ok("claude", "doctor")
    assert "all well" in done.out
    assert stage.ok("claude", "doctor", "--json").json["findings"] == []


def test_the_summary_counts_pairs_and_checks(stage):
    stage.open_pair()
    checks = stage.ok("claude", "doctor", "--json").json["passed"]
    first = stage.ok("claude", "doctor").out.split("\n")[0]
    assert first == f"all well: 1 pair, {len(checks)} checks" and len(checks) >= 20
    stage.shared.chmod(0o750)
    first = stage.run("claude", "doctor").out.split("\n")[0]
    assert first == f"1 warning: 1 pair, {len(checks)} checks"


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


@pytest.mark.parametrize(
    ("mode", "status", "severity"),
    [(0o700, "pass", ""), (0o701, "warn", "warning"), (0o750, "warn", "warning")]
    + [(0o755, "warn", "warning"), (0o720, "fail", "error"), (0o777, "fail", "error")],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_ledger_wider_than_its_owner_is_reported(stage, mode, status, severity, fresh):
    stage.open_pair()
    if fresh:  # One of 1.x, which has no directory of relay's own.
        shutil.rmtree(stage.shared / "_relay")
    stage.shared.chmod(mode)
    rows = stage.run("claude", "preflight", "--json").json["checks"]
    (row,) = (row for row in rows if row["name"] == "fs.posix_mode")
    assert row["status"] == status and (status == "pass" or f"{mode:04o}" in row["detail"])
    assert status == "pass" or row["remedy"] == f"chmod 700 {stage.shared}"
    found = stage.run("claude", "doctor", "--json").json["findings"]
    found = [row for row in found if row["id"] in ("ledger.open", "ledger.readable")]
    assert [row["severity"] for row in found] == ([severity] if severity else [])


@pytest.mark.slow
@pytest.mark.parametrize("where", ["main", "below", "linked"])
def test_a_committed_ledger_is_named_with_the_command_that_mends_it(stage, where):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    assert stage.ok("claude", "doctor").code == 0
    stage.git("add", "-f", ".shared")
    stage.git("commit", "-q", "-m", "oops")
    place = stage.project
    if where == "below":
        place = stage.project / "a b"
        place.mkdir()
    if where == "linked":
        place = stage.folder / "linked tree"
        stage.git("worktree", "add", "-q", place, "HEAD")
    done = stage.run("claude", "doctor", "--json", cwd=place)
    rows = [row for row in done.json["findings"] if row["id"] == "ledger.tracked"]
    assert done.code == 1 and len(rows) == 1 + (where == "linked")
    for row in rows:
        subprocess.run(["sh", "-c", row["remedy"]], cwd=place, check=True, capture_output=True)
    stage.git("commit", "-q", "-m", "not any more")
    assert stage.git("ls-files", ".shared") == "" and (pair / "001-claude-plan.md").exists()
    done = stage.run("claude", "doctor", "--json", cwd=place)
    assert "ledger.tracked" not in {row["id"] for row in done.json["findings"]}
    assert stage.git("status", "--porcelain", ".shared") == ""


def test_preflight_warns_of_a_committed_ledger(stage):
    stage.open_pair()
    stage.git("add", "-f", ".shared")
    done = stage.run("claude", "preflight", "--json")
    (row,) = (row for row in done.json["checks"] if row["name"] == "ledger.tracked")
    assert done.code == 1 and row["status"] == "warn" and "rm -r --cached" in row["remedy"]


def test_an_issue_is_added_listed_shown_and_resolved(stage):
    path = (
        stage.ok("claude", "issue", "add", "--title", "wait ends early").out.strip().split("\n")[-1]
    )
    assert os.path.dirname(path) == str(stage.home / ".agent-ledger/relay-issues")
    (row,) = stage.ok("claude", "issue", "list", "--json").json["issues"]
    shown = stage.ok("claude", "issue", "show", row["id"]).out
    assert "wait ends early" in shown
    stage.ok("claude", "issue", "resolve", row["id"], "--note", "mended")
    stage.ok("claude", "issue", "resolve", row["id"])
    assert "resolution: mended" in stage.ok("claude", "issue", "show", row["id"]).out
    assert stage.ok("claude", "issue", "list", "--json").json["issues"] == []
    assert len(stage.ok("claude", "issue", "list", "--status", "all", "--json").json["issues"]) == 1


def test_an_issue_is_resolved_by_one_at_a_time(stage, monkeypatch):
    path = pathlib.Path(stage.ok("claude", "issue", "add", "--title", "x").out.strip())
    # Nobody waits for the lock.
    monkeypatch.setattr(RELAY.directory_lock.__wrapped__, "__defaults__", (0.0, ""))
    with open(path.parent / ".lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage.refused("claude", "issue", "resolve", path.stem)
        assert "status: open" in path.read_text()
    stage.ok("claude", "issue", "resolve", path.stem)
    assert "status: resolved" in path.read_text()


def test_an_issue_directory_that_cannot_be_written_is_refused_with_the_way_out(stage):
    blocked = stage.folder / "file"
    blocked.write_text("")
    done = stage.refused("claude", "issue", "add", "--title", "t", RELAY_ISSUES_DIR=f"{blocked}/x")
    assert "RELAY_ISSUES_DIR" in done.err


@pytest.mark.parametrize("named", ["notes", "~/notes"])
def test_a_relative_issue_directory_is_in_the_home_and_not_in_the_project(stage, named):
    stage.ok("claude", "issue", "add", "--title", "t", RELAY_ISSUES_DIR=named)
    assert list((stage.home / "notes").glob("*.md")) and not (stage.project / named).exists()
    assert stage.ok("claude", "issue", "list", RELAY_ISSUES_DIR="notes").out.endswith("  t\n")


@pytest.mark.parametrize(
    ("error", "hint"), [(errno.EROFS, "writable_roots"), (errno.ENOSPC, "make room")]
)
def test_a_ledger_that_cannot_be_written_is_an_error_with_the_way_out(
    stage, monkeypatch, error, hint
):
    stage.open_pair()
    assert stage.ok("claude", "preflight").code == 0
    real = os.mkdir

    def refused(path, *given, **more):
        if str(stage.shared) in str(path):
            raise OSError(error, os.strerror(error), path)
        return real(path, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refused)
        done = stage.run("claude", "preflight", "--json")
    (row,) = (row for row in done.json["checks"] if row["status"] == "fail")
    assert done.code == 2 and row["id"] == "fs.refused" and hint in row["remedy"]
    assert os.strerror(error) in row["detail"]


def test_a_repository_that_git_refuses_is_not_called_untracked(stage):
    stage.open_pair()
    (stage.project / ".git/config").write_text("[broken\n")
    checks = stage.run("claude", "preflight", "--json").json["checks"]
    assert {row["name"]: row["status"] for row in checks}["ledger.tracked"] == "warn"


def test_of_many_problems_of_one_kind_the_first_few_are_shown(stage):
    pair = stage.open_pair()
    then = time.time() - 9 * 3600
    for number in range(12):
        litter = pair / f".left.{number:08}.tmp"
        litter.write_text("x")
        os.utime(litter, (then, then))
    done = stage.run("claude", "doctor")
    assert done.out.count(".left.") == 5 and "7 more of litter.stopped" in done.out
    done = stage.run("claude", "doctor", "--verbose")
    assert done.out.count(".left.") == 12 and "more of" not in done.out
    assert done.out.startswith("12 warnings: 1 pair, ")


def test_doctor_publishes_and_wakes_a_process_that_waits(stage, real_proof):
    stage.open_pair()
    before = stage.snapshot(stage.shared / "_relay").keys()
    done = stage.ok("claude", "doctor", "--json").json
    details = {row["name"]: row["detail"] for row in done["passed"]}
    assert "read back and removed" in details["ledger.write"]
    woke = re.search(r"woke (\d+) ms after a publish", details["wait"])
    assert int(woke[1]) > 0 and done["findings"] == [], "a wait that had ended wakes nobody"
    assert stage.snapshot(stage.shared / "_relay").keys() == before


@pytest.mark.slow
def test_relay_is_compiled_for_the_python_of_the_login_shell_and_doctor_names_a_cold_one(
    stage, monkeypatch
):
    """Codex runs a login shell, which makes a PATH of its own, in a sandbox that can write no cache."""
    skill = stage.folder / "agent-relay"
    shutil.copytree(SCRIPT.parent.parent, skill)
    monkeypatch.setattr("conftest.SCRIPT", short_script(skill / "bin/relay"))
    programs, python = stage.folder / "programs", stage.folder / "of-login"
    for directory in (programs, python):
        directory.mkdir()
    (programs / "codex").write_text("#!/bin/sh\nexit 9\n")
    (programs / "codex").chmod(0o755)
    (python / "python3").symlink_to(sys.executable)
    (stage.home / ".bash_profile").write_text(f"PATH={python}:/usr/bin:/bin\n")
    env = {"PATH": f"{programs}:{python}:{os.environ['PATH']}", "XDG_CACHE_HOME": None}
    stage.ok("claude", "bootstrap", "--topic", "t", **env)

    def cold():  # In this process, which writes no cache itself.
        found = stage.run("claude", "doctor", "--json", **env).json["infos"]
        return [row["why"] for row in found if row["id"] == "bytecode.cold"]

    def compiled():
        return [*(stage.home / ".cache/agent-relay").rglob("*.pyc")]

    stage.link_skill()
    assert not compiled() and len(cold()) == 2 and "login shell" in cold()[1]
    assert not compiled(), "to look compiles nothing"
    stage.ok("claude", "init", **env)
    assert len(compiled()) == 1 and cold() == []
    whole = compiled()[0].read_bytes()
    compiled()[0].write_bytes(whole[:8] + bytes(8) + whole[16:])
    assert "login shell" in cold()[1], "it is of another state of the script"
    stage.ok("claude", "hooks", "install", "--target", "both", **env)
    assert compiled()[0].read_bytes()[:16] == whole[:16] and cold() == []


def test_preflight_says_of_a_file_system_what_it_tried(stage, monkeypatch):
    """A check that is reported as passed was made: each of these faults changes one row."""
    stage.open_pair()

    def rows():
        checks = stage.run("claude", "preflight", "--json").json["checks"]
        return {row["name"]: (row["status"], row["detail"]) for row in checks}

    sound = rows()
    names = ("tmp_rename", "mtime_monotonic", "symlink_ops", "sha256_stable", "fsync_readback")
    assert all(sound[f"fs.{name}"] == ("pass", "ok") for name in names)

    real = os.lstat

    class Back:
        """The status of a file whose times run backwards."""

        def __init__(self, status):
            self.status = status

        def __getattr__(self, name):
            return 0.0 if name == "st_mtime" else getattr(self.status, name)

    def lstat(path, **more):
        status = real(path, **more)
        return Back(status) if str(path).endswith("/second") else status

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        changed = rows()
    assert changed["fs.mtime_monotonic"][0] == "warn"
    assert changed["fs.tmp_rename"] == sound["fs.tmp_rename"]


def test_doctor_names_what_the_second_copy_lacks_and_how_large_it_is(stage):
    """What a sandboxed host published since: it cannot write the git directory."""
    pair = stage.open_pair()
    stage.send("claude", "plan")
    done = stage.ok("claude", "doctor", "--json").json
    (row,) = [row for row in done["passed"] if row["name"] == "second copy"]
    assert re.fullmatch(r"\d+ KB in .*/\.git/relay", row["detail"])
    (stage.project / f".git/relay/{pair.name}/001-claude-plan.ready").unlink()
    infos = stage.ok("claude", "doctor", "--json").json["infos"]
    (row,) = [row for row in infos if row["id"] == "pair.uncopied"]
    assert pair.name in row["why"] and "001-claude-plan" in row["why"]
    stage.ok(None, *row["remedy"].split()[1:])  # By the person, too.
    infos = stage.ok("claude", "doctor", "--json").json["infos"]
    assert "pair.uncopied" not in [row["id"] for row in infos]
