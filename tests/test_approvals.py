"""What an approval needs, point by point; then every way that was tried to get one accepted over
bytes, findings or runs that it does not cover (docs/threat-model.md lists them by these names)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import RELAY, SCRIPT, Stage, dispositions, findings, reseal, sidecar
from helpers.blocks import prepared

NOT_RUN = ("--not-run", "read only")


def write(stage, name, text):
    path = stage.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def commit(stage, message="more", *words, cwd=None):
    stage.git("add", "-A", *words, cwd=cwd)
    stage.git("commit", "-qm", message, cwd=cwd)


def unmet(done):
    """The conditions that a refusal lists, each with its command."""
    assert done.code == 2 and done.err.startswith("relay: "), done
    rows = re.findall(r"(?m)^  - (.*)\n    hint: (\S.*)$", done.err)
    return rows or [(done.err, "")]


def refused_for(done, *words):
    """The refusal, which names exactly one condition, and that with these words."""
    rows = unmet(done)
    assert len(rows) == 1 and all(word in rows[0][0] for word in words), (words, done)
    return rows[0]


def _project(stage):
    for name, text in (("app.py", "one\n"), ("keep.py", "keep\n"), ("lib/util.py", "util\n")):
        write(stage, name, text)
    commit(stage, "base")
    return stage.open_pair()


def _asked(stage):
    pair = _project(stage)
    write(stage, "app.py", "two\n")
    write(stage, "new.py", "new\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    return pair


@pytest.fixture
def asked(stage):
    """claude changed app.py, added new.py and asked for a review, which codex was shown."""
    return prepared(stage, _asked)


def approve(stage, *more, text="# Fine\n", **env):
    stage.sent += 1
    stage.places(text)
    words = ("send", "--kind", "review", "--verdict", "approve", "--next", "ship it", "--file")
    return stage.run("codex", *words, stage.file(text, f"a-{stage.sent}.md"), *more, **env)


def close(stage, *more, author="claude", outcome="approve", **env):
    words = ("close", "--reason", "done", "--outcome", outcome)
    return stage.run(author, *words, *more, **env)


def ran(stage, *words, author="codex", code=0, copy=False, **more):
    done = stage.run(author, "run", *["--copy"][:copy], "--", *words, **more)
    assert done.code == code, done
    return done


def approved(stage, *more):
    ran(stage, "true")
    done = approve(stage, *more)
    assert done.code == 0, done


def refuses_both(stage, *words):
    """Neither can codex approve again nor claude close, and both say why."""
    for done in (approve(stage, *NOT_RUN, "--dry-run"), close(stage)):
        assert any(all(word in why for word in words) for why, _ in unmet(done)), (words, done)
    assert not list(stage.shared.rglob("CLOSED"))


# ---- findings


def reviewed(stage, *rows):
    stage.send("codex", "review", findings(*rows), "mend it", "--verdict", "changes")
    stage.ok("claude", "next")


def test_a_fix_that_changed_something_is_accepted_by_the_finders_approval(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong", "minor app.py:1 Ugly")
    write(stage, "app.py", "three\n")
    stage.send("claude", "fix", dispositions("2.1 fixed so", "2.2 fixed so"))
    stage.ok("codex", "next")
    assert "codex has not accepted" in unmet(close(stage))[0][0]
    approved(stage)
    assert [row["id"] for row in sidecar(asked, 4)["accepts"]] == ["2.1", "2.2"]
    rows = stage.ok("codex", "findings", "--all", "--json").json["findings"]
    assert {row["state"] for row in rows} == {"accepted"}
    assert close(stage).code == 0


def test_what_was_answered_fixed_and_did_not_change_is_not(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    stage.ok("codex", "next")
    why, _ = refused_for(approve(stage, *NOT_RUN), "2.1 blocker", "nothing changed since")
    assert "`2.1 accepted`" in why and "`2.1 reopened WHY`" in why
    text = dispositions("2.1 accepted")
    assert approve(stage, *NOT_RUN, text=text).code == 0


def test_what_a_run_left_behind_fixes_nothing(stage, asked):
    ran(stage, "touch", "left.txt")
    reviewed(stage, "blocker app.py:1 Wrong")
    (stage.project / "left.txt").unlink()
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    stage.ok("codex", "next")
    ran(stage, "touch", "other.txt")
    refused_for(approve(stage), "2.1 blocker", "nothing changed since")


@pytest.mark.parametrize("answer", ["refuted it is meant so", "deferred the user takes it"])
def test_what_was_refuted_or_deferred_needs_the_finders_word(stage, asked, answer):
    reviewed(stage, "major app.py:1 Wrong")
    write(stage, "app.py", "three\n")
    stage.send("claude", "fix", dispositions(f"2.1 {answer}"))
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "2.1 major", "rule on it")
    assert approve(stage, *NOT_RUN, text=dispositions("2.1 withdrawn")).code == 0
    assert close(stage).code == 0


def test_only_the_finder_settles(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    for verb in ("accepted", "withdrawn", "reopened still"):
        assert stage.try_send("claude", "fix", dispositions(f"2.1 {verb}")).code == 2
    assert stage.try_send("codex", "note", dispositions("2.1 fixed so")).code == 2


def test_the_approver_cannot_settle_what_the_other_found(stage, asked):
    stage.send("claude", "review", findings("blocker app.py:1 Of claude"))
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "2.1 blocker", "unanswered")
    stage.send("codex", "note", dispositions("2.1 refuted no"))
    assert approve(stage, *NOT_RUN, "--reply-to", "2").code == 0
    refused_for(close(stage), "2.1 blocker", "rule on it: `2.1 accepted`")


def test_wontfix_is_the_users(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    assert stage.try_send("claude", "fix", dispositions("2.1 wontfix too dear")).code == 2
    stage.ok("claude", "continue")
    stage.send("claude", "fix", dispositions("2.1 wontfix too dear"))
    stage.ok("codex", "next")
    assert approve(stage, *NOT_RUN).code == 0
    assert close(stage).code == 0


def test_a_reopened_finding_needs_the_users_word_anew(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    stage.ok("claude", "continue")
    stage.send("claude", "fix", dispositions("2.1 wontfix too dear"))
    stage.ok("codex", "next")
    stage.send("codex", "review", dispositions("2.1 reopened it hurts"))
    stage.ok("claude", "next")
    assert stage.try_send("claude", "fix", dispositions("2.1 wontfix still")).code == 2


BLOCK = "```findings\nblocker app.py:1 Hidden\n```\n"


ODD_PLACES = [
    (f"# R\n\n## Next\nmend\n\n{BLOCK}", ()),
    ("# R\n", ("--next", f"mend\n\n{BLOCK}")),
    ("# R\n", ("--next-file", BLOCK)),
    (f"# R\n\n````text\n{BLOCK}````\n", ("--next", "x")),
    (f"# R\n\n~~~~\n{BLOCK}~~~~\n", ("--next", "x")),
    ("# R\n\n> ```findings\n> blocker app.py:1 Hidden\n> ```\n", ("--next", "x")),
    ("# R\n\n- ```findings\n  blocker app.py:1 Hidden\n  ```\n", ("--next", "x")),
    ("# R\n\n    ```findings\n    blocker app.py:1 Hidden\n    ```\n", ("--next", "x")),
    ("# R\n\n```Findings\nblocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\n```findings of mine\nblocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\n```findings\nblocker app.py:1 Hidden\n", ("--next", "x")),
    ("# R\n\n```findings\nnit - One\n blocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\n```python\nprint(1)\n\n" + BLOCK, ("--next", "x")),
    ("# R\n\n<!--\n" + BLOCK + "-->\n", ("--next", "x")),
    ("# R\n\n```{findings}\nblocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\n~~~ finding ~~~\nblocker app.py:1 Hidden\n~~~\n", ("--next", "x")),
    ("# R\n\n| ```findings\n| blocker app.py:1 Hidden\n| ```\n", ("--next", "x")),
    ("# R\n\n\u00a0```findings\nblocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\n\u200b```findings\nblocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\n**```findings**\nblocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\n```findings```\nblocker app.py:1 Hidden\n", ("--next", "x")),
    ("# R\n\n``findings\nblocker app.py:1 Hidden\n``\n", ("--next", "x")),
    ("# R\n\n[findings]\nblocker app.py:1 Hidden\n", ("--next", "x")),
    ("# R\n\n```\nfindings\nblocker app.py:1 Hidden\n```\n", ("--next", "x")),
    ("# R\n\nblocker app.py:1 Hidden\n", ("--next", "x")),
    ("# R\n\n1. **Blocker** - `app.py:1`: Hidden\n", ("--next", "x")),
    ("# R\n\n```\nblocker - Hidden\n```\n", ("--next", "x")),
    ("# R\n\n```text\n2. Major: app.py Hidden\n```\n", ("--next", "x")),
    ("# R\n\n~~~\n* major `src/app` Hidden\n~~~\n", ("--next", "x")),
    ("# R\n\n## Next\n\n1. blocker app.py:1 Hidden\n", ()),
]


def test_a_block_in_an_odd_place_is_refused_or_recorded_and_never_lost(stage, asked):
    """Where it is recorded, it is in the way of the approval."""
    words = ("send", "--kind", "review", "--verdict", "approve", *NOT_RUN)
    for n, (text, more) in enumerate(ODD_PLACES):
        if more[:1] == ("--next-file",):
            more = ("--next-file", stage.file(more[1], f"p{n}.md"))
        done = stage.run("codex", *words, "--file", stage.file(text, f"odd{n}.md"), *more)
        assert done.code == 2, (text, done)
    assert len(list(asked.glob("*.ready"))) == 1


@pytest.mark.parametrize(
    "ask", [f"mend\n\n{BLOCK}", f"mend\n\n> {BLOCK}", "mend\n\n- blocker app.py:1 Hidden\n"]
)
def test_a_block_in_a_prompt_is_refused_with_its_line(stage, asked, ask):
    done = stage.run(
        "codex", "send", "--kind", "review", "--file", stage.file("# R\n"), "--next", ask
    )
    assert done.code == 2 and re.search("prompt, line [34]: ", done.err), done


def test_words_that_are_no_finding_pass(stage, asked):
    code = "```\nminor version bump\nmajor v2.0 is out\nprint('nit')\n```\n"
    text = f"# R\n\nNo blocker. A minor point - none.\n\n- Major: none\n\n{code}"
    assert stage.try_send("codex", "review", text, "--verdict", "changes").code == 0


@pytest.mark.parametrize("place", ["app.py:2", "./app.py:1", ".//app.py"])
def test_a_finding_is_the_same_wherever_its_place_is_written_differently(stage, asked, place):
    reviewed(stage, "major app.py:1 Wrong")
    stage.send("claude", "fix", dispositions("2.1 refuted no"))
    stage.ok("codex", "next")
    stage.send("codex", "review", dispositions("2.1 accepted"))
    again = stage.try_send("codex", "review", findings(f"major {place} Wrong"))
    assert again.code == 2 and "`2.1 reopened WHY`" in again.err


def test_a_finding_that_was_settled_is_reopened_and_not_repeated(stage, asked):
    reviewed(stage, "major app.py:1 Wrong")
    stage.send("claude", "fix", dispositions("2.1 refuted no"))
    stage.ok("codex", "next")
    stage.send("codex", "review", dispositions("2.1 accepted"))
    again = stage.try_send("codex", "review", findings("blocker app.py:2 wrong"))
    assert again.code == 2 and "`2.1 reopened WHY`" in again.err
    stage.send("codex", "review", dispositions("2.1 reopened it is"))
    refused_for(approve(stage, *NOT_RUN), "2.1 major", "reopened")


# ---- runs


def began_later(pair, stem):
    """As if this run had begun after all others: times are recorded to the second."""
    path = pair / ".evidence" / f"{stem}.json"
    late = '"started": "2099-01-01T00:00:00+00:00"'
    path.write_text(re.sub(r'"started": "[^"]*"', late, path.read_text()))


def test_a_run_that_exited_0_is_needed(stage, asked):
    why, command = refused_for(approve(stage), "nothing was run on this change set")
    assert "--not-run REASON" in why and command.endswith("/relay run -- COMMAND")
    ran(stage, "false", code=1)
    assert len(unmet(approve(stage))) == 2
    ran(stage, "true")
    why, _ = refused_for(approve(stage), '"false" by codex exited with 1')
    assert "--despite-failed REASON" in why
    assert approve(stage, "--despite-failed", "known").code == 0
    shown = stage.ok("claude", "next").out
    assert 'despite a failed run: "known"' in shown
    assert close(stage).code == 0


def test_a_failed_run_is_named_with_its_directory(stage, asked):
    """Run again elsewhere, the command would be another one, and the failure stay."""
    (stage.project / "sub dir").mkdir()
    command = ("run", "--", "test", "-e", "app.py")
    assert stage.run("codex", *command, cwd=stage.project / "sub dir").code == 1
    stage.ok("codex", *command)
    refused_for(approve(stage), '"test -e app.py" by codex in "sub dir" exited with 1')


def test_a_failure_that_there_was_not_cannot_be_overridden(stage, asked):
    refused_for(approve(stage, "--despite-failed", "x"), "nothing that was run", "failed")


def test_the_latest_run_of_each_command_counts_whoever_ran_it(stage, asked):
    flag = stage.folder / "fails"
    flag.touch()
    check = ("sh", "-c", f"! test -e {flag}")
    ran(stage, *check, code=1)
    ran(stage, "true")
    refused_for(approve(stage), "exited with 1")
    flag.unlink()
    ran(stage, *check)
    assert approve(stage, "--dry-run").code == 0
    flag.touch()
    ran(stage, *check, author="claude", code=1)
    began_later(asked, "claude-001")
    stage.send("claude", "note")
    stage.ok("codex", "next")
    refused_for(approve(stage, "--reply-to", "1"), "by claude exited with 1")


@pytest.mark.parametrize("code", [126, 127])
def test_a_command_that_was_not_found_says_nothing(stage, asked, code):
    ran(stage, "sh", "-c", f"exit {code}", code=code)
    refused_for(approve(stage), "run")
    done = stage.run("codex", "run", "--expect-fail", "--", "sh", "-c", f"exit {code}")
    assert "counts for nothing" in done.err and "as expected" not in done.err
    ran(stage, "true")
    assert approve(stage).code == 0


def test_a_reproduction_is_to_fail(stage, asked):
    assert stage.run("codex", "run", "--expect-fail", "--", "true").code == 0
    ran(stage, "sh", "-c", ":")
    refused_for(approve(stage), "exited with 0 but was expected to fail")
    ran(stage, "true")
    done = stage.run("codex", "run", "--expect-fail", "--", "false")
    assert done.code == 1 and "as expected" in done.err
    assert approve(stage).code == 0
    assert "expected to fail" in stage.ok("claude", "next").out


def test_a_reproduction_alone_proves_nothing(stage, asked):
    stage.run("codex", "run", "--expect-fail", "--", "false")
    refused_for(approve(stage), "nothing that codex ran on this change set exited with 0")


def test_a_run_that_was_to_fail_does_not_hide_one_that_failed(stage, asked):
    ran(stage, "false", code=1)
    ran(stage, "true")
    stage.run("codex", "run", "--expect-fail", "--", "false")
    refused_for(approve(stage), '"false" by codex exited with 1')


def test_what_a_run_creates_does_not_void_it_and_what_it_changes_does(stage, asked):
    done = ran(stage, "sh", "-c", "echo x >report.txt")
    assert "it created report.txt" in done.err
    assert approve(stage, "--dry-run").code == 0
    ran(stage, "sh", "-c", "echo x >>new.py")
    write(stage, "new.py", "new\n")
    assert approve(stage, "--dry-run").code == 0, "the first one still counts"


def test_a_run_that_changed_a_reviewed_file_proves_nothing(stage, asked):
    done = ran(stage, "sh", "-c", "echo x >>new.py")
    assert "does not count: new.py" in done.err
    write(stage, "new.py", "new\n")
    refused_for(approve(stage), "changed the working tree (new.py)")


def test_a_run_keeps_head_and_tail_of_its_output_as_a_terminal_shows_it(stage, asked):
    code = "print('\\x1b[31mfirst\\x1b[0m'); print('0%\\r50%\\r100%'); print('x' * 79 + '\\n' + '-\\n' * 20000); print('last')"
    ran(stage, sys.executable, "-c", code)
    approved(stage)
    tail = sidecar(asked, 2)["evidence"][0]["tail"]
    lines = tail.split("\n")
    assert lines[:2] == ["first", "100%"] and lines[-2] == "last"
    assert len(tail.encode()) <= RELAY.OUTPUT_BYTES and "left out" in tail


def test_a_run_in_a_copy_leaves_the_tree_alone_and_counts(stage, asked):
    write(stage, ".gitignore", "deps/\n")
    write(stage, "deps/dep.txt", "dep\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    before = stage.snapshot(stage.project / "lib", stage.project / "app.py", stage.project / "deps")
    command = "cat deps/dep.txt app.py && echo broken >app.py && rm -r lib && touch junk"
    linked = ("run", "--copy", "--link", "deps", "--", "sh", "-c", command)
    done = stage.process("codex", *linked)
    assert done.code == 0 and done.out == "dep\ntwo\n", done
    assert (
        stage.snapshot(*map(type(asked), before)) == before
        and not (stage.project / "junk").exists()
    )
    assert stage.process("codex", "run", "--copy", "--", "test", "-e", "deps").code == 1
    refused_for(approve(stage), "exited with 1")
    assert approve(stage, "--despite-failed", "the copy has no deps").code == 0
    assert [run["in_copy"] for run in sidecar(asked, 3)["evidence"]] == [True, True]
    assert "in a copy" in stage.ok("claude", "next").out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_copy_goes_with_what_the_command_made_read_only(stage, asked):
    """As a module cache is."""
    scratch = stage.folder / "scratch"
    scratch.mkdir()
    made = "mkdir -p deep/er; touch deep/er/file; chmod 500 deep/er deep"
    stage.ok("codex", "run", "--copy", "--", "sh", "-c", made, TMPDIR=str(scratch))
    assert not [*scratch.iterdir()]


def test_a_run_in_a_copy_has_the_files_that_are_too_large_to_hash(stage, asked, real_git):
    with write(stage, "new/big.bin", "x").open("r+b") as file:
        file.truncate(51 * 1024 * 1024)
    ran(stage, "test", "-s", "new/big.bin", copy=True)


@pytest.mark.slow
def test_a_run_in_a_copy_counts_where_the_base_is_a_branch_that_moved(stage):
    based(stage, "main")
    write(stage, "app.py", "two\n")
    commit(stage, "work")
    stage.git("checkout", "-q", "main")
    write(stage, "upstream.py", "upstream\n")
    commit(stage, "upstream")
    stage.git("rebase", "-q", "main", "work")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    ran(stage, "true", copy=True)
    assert approve(stage).code == 0


@pytest.mark.slow
def test_a_link_that_is_no_directory_of_the_project_is_refused(stage, asked):
    links = {"a": ".git", "b": ".git/refs", "c": ".shared", "d": ".", "e": "..", "f": "a/refs"}
    for name, target in links.items():
        (stage.project / name).symlink_to(target)
    names = ("../home", "/etc", "app.py", "none", ".git", ".git/refs", ".shared", ".", *links)
    for name in ("of_git/app.py", "untracked/app.py"):  # The copy has these itself.
        write(stage, name, "text\n")
        stage.git("add", *["of_git"] * name.startswith("of_git"))
    for name in (*names, "of_git", "untracked"):
        done = stage.run("codex", "run", "--copy", "--link", name, "--", "touch", "ran")
        assert done.code in (2, 125) and "nothing was run" in done.err, name
    assert not (stage.project / "ran").exists()
    outside = stage.folder / "deps"
    outside.mkdir()
    (stage.project / "deps").symlink_to(outside)
    write(stage, ".git/info/exclude", "deps\n")
    stage.ok("codex", "run", "--copy", "--link", "deps", "--", "test", "-d", "deps/.")


# ---- the tree


def test_a_tracked_edit_after_the_request_is_in_the_way_by_name(stage, asked):
    write(stage, "keep.py", "evil\n")
    refused_for(approve(stage, *NOT_RUN), "changed since 001", "keep.py")
    done = approve(stage, *NOT_RUN, "--accept-moved", "keep.py", "--reason", "the user wants it")
    assert done.code == 0
    assert sidecar(asked, 2)["accept_moved"] == [{"path": "keep.py", "reason": "the user wants it"}]
    assert "accepted as changed: keep.py" in stage.ok("claude", "next").out
    assert close(stage, "--no-archive").code == 0


def test_what_was_accepted_as_changed_counts_for_a_close_only_as_it_was(stage, asked):
    write(stage, "keep.py", "other\n")
    assert approve(stage, *NOT_RUN, "--accept-moved", "keep.py", "--reason", "so").code == 0
    write(stage, "keep.py", "evil\n")
    refused_for(close(stage), "keep.py")
    assert close(stage, "--accept-moved", "keep.py", "--no-archive").code == 0
    closed = RELAY.parse_closed((asked / "CLOSED").read_bytes())
    assert closed["accepted_moved"] == ["keep.py"]


def test_a_run_from_before_an_accepted_change_says_nothing_of_it(stage, asked):
    accepted = ("--accept-moved", "keep.py", "--reason", "so")
    ran(stage, "true")
    write(stage, "keep.py", "evil\n")
    refused_for(approve(stage, *accepted), "nothing was run on this one")
    ran(stage, "true")
    assert approve(stage, *accepted).code == 0
    said = stage.ok("codex", "log").out
    assert "1 run on this change set" in said and "but for what was accepted" in said
    assert close(stage, "--no-archive").code == 0


def test_the_log_names_the_run_of_an_approval_with_new_files_beside(stage, asked):
    ran(stage, "true")
    write(stage, "extra.py", "extra\n")
    assert approve(stage).code == 0
    said = stage.ok("codex", "log").out
    assert "1 run on this change set: exit 0" in said and "new and untracked beside it" in said


def test_accepting_what_did_not_move_or_without_a_reason_is_refused(stage, asked):
    for more in (("keep.py", "--reason", "x"), ("keep.py",)):
        assert approve(stage, *NOT_RUN, "--accept-moved", *more).code == 2
    assert approve(stage, *NOT_RUN, "--accept-outside").code == 2


def test_untracked_new_files_pass_and_are_named_while_they_stay_untracked(stage):
    asked = _asked(stage)
    write(stage, "extra.py", "extra\n")
    assert "new files: 1 (extra.py)" in stage.ok("codex", "next", "--pair-id", asked.name).out
    approved(stage)
    stage.git("add", "extra.py")
    assert any("extra.py" in why for why, _ in unmet(close(stage)))
    stage.git("rm", "-q", "--cached", "extra.py")
    done = close(stage, "--no-archive")
    assert done.code == 0 and "extra.py" in done.err
    assert RELAY.parse_closed((asked / "CLOSED").read_bytes())["new_files"] == ["extra.py"]
    assert "extra.py" in stage.ok("claude", "log", asked.name).out


def test_merge_conflicts_are_named_and_cannot_be_approved(stage):
    pair = _project(stage)
    stage.git("checkout", "-qb", "side")
    write(stage, "app.py", "side\n")
    commit(stage)
    stage.git("checkout", "-q", "main")
    write(stage, "app.py", "main\n")
    commit(stage)
    with pytest.raises(Exception, match="merge"):
        stage.git("merge", "-q", "side")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "merge conflicts: app.py")
    assert len(list(pair.glob("*.ready"))) == 1


def test_a_tree_that_cannot_be_recorded_is_said_and_cannot_be_approved(stage, asked):
    (stage.project / ".git" / "index").write_bytes(b"DIRC and nothing else")
    refused_for(approve(stage, *NOT_RUN), "cannot be compared")
    assert "cannot be compared" in stage.ok("codex", "next", "--pair-id", asked.name).out
    sent = stage.send("claude", "fix")
    assert "warning: no change set is recorded" in sent.out
    assert "on an unknown working tree" in ran(stage, "true").err


@pytest.mark.parametrize(
    "how",
    [
        "base",
        *(
            pytest.param(how, marks=pytest.mark.slow)
            for how in ("submodule", "unreadable", "in a closed directory")
        ),
    ],
)
def test_what_mends_a_tree_that_cannot_be_recorded_is_said(stage, how):
    """By `next`, by `run` and by `send`, of the reviewer as of the author."""
    before, remedy = (), "git submodule update --init"
    if how == "submodule":
        pair = submodule(stage)
        shutil.rmtree(stage.project / ".git" / "modules" / "sub")
    else:
        pair = _asked(stage)
    if how == "base":
        remedy = "bootstrap --topic TOPIC --force"
        stage.git("checkout", "-q", "--orphan", "new")
        stage.git("commit", "-q", "-m", "new")
        stage.git("branch", "-D", "main")
        stage.git("reflog", "expire", "--expire=now", "--all")
        stage.git("gc", "-q", "--prune=now")
    elif how in ("unreadable", "in a closed directory"):
        # Git takes what is in a closed directory for unchanged.
        remedy = "chmod u+rX"
        (stage.project / ("app.py" if how == "unreadable" else "lib")).chmod(0)
        if os.geteuid() == 0:
            before = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
            if not shutil.which(before[0]):
                pytest.skip("no setpriv")
    of = {"before": before} if before else {}
    assert remedy in stage.process("codex", "next", "--pair-id", pair.name, **of).out
    run = stage.process("codex", "run", "--", "true", **of)
    assert run.code == 0 and "counts for no approval" in run.err and remedy in run.err
    for author in ("claude", "codex"):
        path = stage.file(f"# {author}\n", f"{author}.md")
        more = ("--kind", "note", "--file", path, "--next", "go", "--dry-run")
        done = stage.process(author, "send", *more, **of)
        assert done.code == 0 and remedy in done.out, done
    path = stage.file("# R\n", "r.md")
    more = ("--kind", "review", "--verdict", "approve", "--file", path, "--next", "go")
    done = stage.process("codex", "send", *more, **of)
    assert done.code == 2 and remedy in done.err and "could not be recorded" in done.err, done


def test_an_empty_change_set_is_said_and_needs_a_reason(stage):
    pair = _project(stage)
    assert "the change set is empty" in stage.send("claude", "plan").out
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "nothing is reviewed", "--empty --reason")
    assert approve(stage, *NOT_RUN, "--empty").code == 2
    assert approve(stage, *NOT_RUN, "--empty", "--reason", "a plan in words").code == 0
    assert sidecar(pair, 2)["empty"] == "a plan in words"
    assert 'nothing to review: "a plan in words"' in stage.ok("claude", "next").out
    assert close(stage).code == 0


def test_empty_is_refused_where_there_is_something(stage, asked):
    refused_for(approve(stage, *NOT_RUN, "--empty", "--reason", "x"), "not empty")


def test_a_huge_sparse_untracked_file_is_recorded_by_name_and_its_change_is_seen(stage):
    _project(stage)
    big = stage.project / "big.img"
    with big.open("wb") as file:
        file.truncate(2 << 30)
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    assert approve(stage, *NOT_RUN, "--dry-run").code == 0
    before = big.stat()
    with big.open("r+b") as file:
        file.write(b"evil")
    os.utime(big, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused_for(approve(stage, *NOT_RUN), "big.img")


def test_the_users_global_ignore_rules_count_as_in_a_commit(stage):
    _project(stage)
    write(stage, ".idea/workspace.xml", "mine\n")
    write(stage, "new.py", "new\n")
    rules = stage.home / ".config" / "git" / "ignore"
    rules.parent.mkdir(parents=True)
    rules.write_text(".idea/\n")
    env = {"GIT_CONFIG_GLOBAL": None}
    stage.ok("claude", "send", "--kind", "fix", "--file", stage.file("# F\n"), "--next", "x", **env)
    out = stage.ok("codex", "next", **env).out
    assert "unchanged since 001 (1 file)" in out and ".idea" not in out


# ---- the base


def based(stage, base):
    for name, text in (("app.py", "one\n"), ("keep.py", "keep\n")):
        write(stage, name, text)
    commit(stage, "base")
    if base == "main":
        stage.git("checkout", "-qb", "work")
    slug = stage.ok("claude", "bootstrap", "--topic", "t", "--base", base).out.split()[0]
    stage.ok("codex", "next")
    return stage.shared / slug


def test_a_base_that_is_a_commit_stays(stage):
    write(stage, "last.py", "last\n")
    pair = based(stage, "HEAD~")
    stage.send("claude", "fix")
    assert sorted(sidecar(pair, 1)["changeset"]["files"]) == ["app.py", "keep.py", "last.py"]
    write(stage, "more.py", "more\n")
    commit(stage)
    stage.send("claude", "fix")
    rows = [sidecar(pair, n)["changeset"] for n in (1, 2)]
    assert rows[0]["base"] == rows[1]["base"] and "more.py" in rows[1]["files"]


@pytest.mark.slow
def test_a_base_that_is_a_branch_is_followed_through_a_rebase(stage):
    pair = based(stage, "main")
    write(stage, "app.py", "two\n")
    commit(stage, "work")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.git("checkout", "-q", "main")
    write(stage, "upstream.py", "upstream\n")
    commit(stage, "upstream")
    stage.git("checkout", "-q", "work")
    stage.git("rebase", "-q", "main")
    assert "unchanged since 001 (1 file)" in stage.ok("codex", "next", "--pair-id", pair.name).out
    approved(stage)
    files = [sidecar(pair, n)["changeset"] for n in (1, 2)]
    assert files[0]["files"] == files[1]["files"] and files[0]["base"] != files[1]["base"]
    assert close(stage, "--no-archive").code == 0


def test_a_base_that_is_none_is_refused(stage):
    assert stage.run("claude", "bootstrap", "--topic", "t", "--base", "nowhere").code == 2
    for base in ("--all", "HEAD:app.py", ""):
        stage.run("claude", "bootstrap", "--topic", "t", f"--base={base}")
    for path in stage.shared.glob("2*/session.json"):
        assert re.fullmatch("[0-9a-f]{40}", json.loads(path.read_text())["base_commit"])


# ---- packs and worktrees


def _thirty(stage):
    pair = _project(stage)
    for n in range(30):
        write(stage, f"many/f{n}.py", f"first {n}\n")
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "review", findings("nit - Mend"), "mend", "--verdict", "changes")
    for n in range(30):
        write(stage, f"many/f{n}.py", f"second {n}\n")
    stage.ok("claude", "next")
    stage.send("claude", "fix")
    return pair


LATER = {
    "commit": lambda s: commit(s),
    "amend": lambda s: (commit(s), s.git("commit", "-q", "--amend", "--allow-empty", "-m", "x")),
    "reset --hard": lambda s: (commit(s), s.git("reset", "-q", "--hard", "HEAD~1")),
    "gc": lambda s: (
        commit(s),
        s.git("reset", "-q", "--hard", "HEAD~1"),
        s.git("reflog", "expire", "--expire=now", "--all"),
        s.git("gc", "-q", "--prune=now"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", LATER)
def test_what_changed_between_two_states_is_shown_whatever_became_of_them(stage, how):
    prepared(stage, _thirty)
    out = stage.ok("codex", "next").out
    command = re.search(r"(?m)^since your 002: 30 files changed: .*\n  \S+ (show 3 --diff)$", out)
    assert command, out
    LATER[how](stage)
    row = stage.ok("codex", *command[1].split(), "--json").json
    assert (row["from"], row["to"], len(row["files"])) == ("002", "003", 30)
    assert not any(file["why"] for file in row["files"])
    for n in range(30):
        assert f"-first {n}\n+second {n}\n" in row["diff"]


def test_a_pack_that_is_not_the_published_one_is_refused_and_a_missing_one_is_a_note(stage):
    pair = prepared(stage, _thirty)
    pack = pair / "003-claude-fix.pack"
    whole, other = pack.read_bytes(), (pair / "001-claude-plan.pack").read_bytes()
    for bytes_ in (whole[:-1], other, b"", b"PACK"):
        pack.chmod(0o600)
        pack.write_bytes(bytes_)
        stage.refused("codex", "show", "3", "--diff")
        done = stage.run("codex", "verify", "--json")
        (row,) = done.json["pairs"][0]["faults"]
        assert done.code == 1 and row["name"] == "003-claude-fix" and ".pack" in row["why"]
    subprocess.run(row["remedy"], shell=True, check=True, cwd=stage.project)
    done = stage.ok("codex", "verify")
    assert "all well" in done.out and "note: 003: " in done.out
    row = stage.ok("codex", "show", "3", "--diff", "--json").json
    assert {file["why"] for file in row["files"]} == {"its bytes are not here"}
    pack.symlink_to("001-claude-plan.pack")
    assert stage.run("codex", "verify").code == 1
    pack.unlink()
    shutil.copy(pair / "001-claude-plan.pack", pair / "004-codex-review.pack")
    stage.ok("codex", "verify")


def test_a_pack_that_the_sidecar_does_not_name_is_not_read(stage):
    pair = prepared(stage, _thirty)
    reseal(pair, "003-claude-fix", lambda row: {k: v for k, v in row.items() if k != "pack"})
    assert stage.run("codex", "verify").code == 1


def worktree(stage):
    """claude works in a linked worktree, codex in the main one."""
    pair = _project(stage)
    place = stage.folder / "linked"
    stage.git("worktree", "add", "-q", str(place), "-b", "linked")
    (place / "app.py").write_text("linked\n")
    words = ("send", "--kind", "fix", "--next", "look", "--file", stage.file("# F\n"))
    stage.ok("claude", *words, cwd=place)
    return pair, place


def test_a_reviewer_in_another_worktree_reviews_the_authors(stage):
    pair, place = worktree(stage)
    out = stage.ok("codex", "next").out
    assert f"unchanged since 001 (1 file), in {place}" in out
    ran(stage, "true")
    _, command = refused_for(approve(stage), "another change set")
    assert command == f"cd {place} && {SCRIPT} run -- COMMAND"
    ran(stage, "true", cwd=place)
    assert approve(stage, "--dry-run").code == 0
    (place / "keep.py").write_text("evil\n")
    refused_for(approve(stage), "keep.py", str(place))
    (place / "keep.py").write_text("keep\n")
    write(stage, "keep.py", "mine alone\n")
    assert approve(stage).code == 0
    assert sidecar(pair, 2)["changeset"]["tree"] == sidecar(pair, 1)["changeset"]["tree"]
    assert close(stage, cwd=place).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-x", "~x", "#x", "%x", ":x", "!x", "a b", "é"])
def test_the_file_that_is_staged_differently_is_shown_whatever_its_name(stage, name):
    _project(stage)
    write(stage, name, "reviewed\n")
    stage.git("add", "-A")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    ran(stage, "true")
    assert approve(stage).code == 0
    write(stage, name, "staged\n")
    stage.git("add", "-A")
    write(stage, name, "reviewed\n")
    _, command = refused_for(close(stage), "the index differs", name)
    assert "+staged" in stage.git(*shlex.split(command)[1:])


@pytest.mark.slow
def test_commands_for_another_worktree_go_there_first(stage):
    _, place = worktree(stage)
    stage.ok("codex", "next")
    ran(stage, "true", cwd=place)
    assert approve(stage).code == 0
    (place / "app.py").write_text("staged\n")
    stage.git("add", "app.py", cwd=place)
    (place / "app.py").write_text("linked\n")
    _, command = refused_for(close(stage), "the index differs", "app.py")
    assert command == f"cd {place} && git diff --cached -- :/:app.py"


def test_a_worktree_that_is_gone_cannot_be_approved(stage):
    _, place = worktree(stage)
    stage.ok("codex", "next")
    state = (place / "app.py").read_bytes()
    shutil.rmtree(place)
    (stage.project / "app.py").write_bytes(state)
    refused_for(approve(stage, *NOT_RUN), "cannot be compared", str(place))
    assert "hint: " in stage.refused("codex", "show", "1", "--diff=now").err


# ---- what is printed works, and what is recorded is shown


def test_next_prints_what_an_approve_lacks(stage, asked):
    out = stage.ok("codex", "next", "--pair-id", asked.name).out
    run = f"{SCRIPT} run --pair-id {asked.name} -- COMMAND"
    lacks = f"approve still lacks:\n  nothing was run on this change set: {run}\n"
    assert lacks in out
    ran(stage, "true")
    out = stage.ok("codex", "next", "--pair-id", asked.name).out
    assert "VERDICT is approve or changes\n" in out
    assert approve(stage).code == 0


def test_the_close_that_next_prints_works(stage, asked):
    approved(stage)
    write(stage, "app.py", "evil\n")
    out = stage.ok("claude", "next", "--pair-id", asked.name).out
    assert "would be refused" in out and "app.py" in out and "relay close" not in out
    write(stage, "app.py", "two\n")
    out = stage.ok("claude", "next", "--pair-id", asked.name).out
    command = re.search(r"relay (close .*--outcome approve --reason) TEXT", out)
    stage.ok("claude", *command[1].split(), "done")


@pytest.mark.parametrize(
    "outcome",
    ["approved by codex", "Aprove", "acceptable", "\u0430pprove", "approve!", "unapproved"],
)
def test_an_outcome_that_only_looks_like_an_approval_is_refused(stage, asked, outcome):
    done = close(stage, outcome=outcome)
    assert done.code == 2 and "relay close --outcome approve" in done.err


def test_a_close_records_as_accepted_only_what_had_changed(stage, asked):
    approved(stage)
    write(stage, "app.py", "three\n")
    moved = [word for name in ("app.py", "keep.py") for word in ("--accept-moved", name)]
    done = close(stage, "--json", *moved)
    assert done.code == 0 and done.json["accepted_moved"] == ["app.py"], done


def test_a_close_that_is_no_approval_says_so_everywhere(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    assert "not an approval" in close(stage, "--no-archive", outcome="shipped").err
    assert RELAY.parse_closed((asked / "CLOSED").read_bytes())["approval"] == "none"
    for words in (("log", asked.name), ("log", asked.name, "--markdown")):
        assert "not an approval" in stage.ok("claude", *words).out.lower()
    assert "not an approval" in stage.ok("codex", "next").out


def test_a_forced_close_names_no_approver_and_lists_what_it_overrode(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    assert close(stage, "--force", "--no-archive").code == 0
    closed = RELAY.parse_closed((asked / "CLOSED").read_bytes())
    assert closed["approval"] == "overridden" and "approved_by" not in closed
    assert isinstance(closed["overrode"], list) and len(closed["overrode"]) >= 2
    assert "not an approval" in stage.ok("claude", "log", asked.name).out.lower()


def test_a_forced_close_of_2_0_which_names_a_review_is_no_approval(stage, asked):
    approved(stage)
    assert close(stage, "--no-archive").code == 0
    text = re.sub("(?m)^approval = .*\n", "", (asked / "CLOSED").read_text())
    (asked / "CLOSED").write_text(f'{text}overrode = "the tree moved since 002 approved it"\n')
    for words in (("log", asked.name), ("pairs", "list"), ("status", asked.name)):
        out = stage.ok("claude", *words).out.lower()
        assert "not an approval" in out and "approved in" not in out, out
    assert "no approval is on record" in stage.refused("claude", "export", "--statement").err


def test_an_approval_names_who_gave_it(stage, asked):
    approved(stage)
    assert close(stage, "--no-archive").code == 0
    closed = RELAY.parse_closed((asked / "CLOSED").read_bytes())
    assert (closed["approval"], closed["approved_by"]) == ("given", "002-codex-review")
    assert closed["changeset"] == sidecar(asked, 1)["changeset"]["digest"]
    assert "Approved in 002-codex-review" in stage.ok("claude", "log", asked.name).out


@pytest.mark.parametrize("author", ["claude", "codex"])
def test_one_answer_of_the_user_serves_both_sides(stage, asked, author):
    stage.send("codex", "question", "# Q\n", "@user: which one?")
    assert stage.ok("claude", "next").action == "ask_user"
    refused = stage.try_send("claude", "note")
    assert refused.code == 2 and "relay continue" in refused.err
    stage.ok(author, "continue")
    assert stage.ok("claude", "next").action == "reply"
    stage.send("claude", "note")


def test_both_authors_see_one_state(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong", "nit - Ugly")
    write(stage, "app.py", "three\n")
    rows = [stage.ok(a, "status", "--json").json for a in ("claude", "codex")]
    assert rows[0]["changeset"] == rows[1]["changeset"]
    findings_ = [stage.ok(a, "findings", "--json").json["findings"] for a in ("claude", "codex")]
    assert findings_[0] == findings_[1]
    unmet_ = [[why for why, _ in unmet(close(stage, author=a))] for a in ("claude", "codex")]
    assert [w for w in unmet_[0] if "2.1" in w] == [w for w in unmet_[1] if "2.1" in w] != []


def test_what_was_looked_at_and_by_which_model_is_recorded_and_shown(stage, asked):
    key = f"codex-{hashlib.sha256(b'thread-of-codex').hexdigest()[:24]}"
    state = stage.shared / "_relay" / "hook-state"
    state.mkdir(exist_ok=True)
    (state / f"model-{key}").write_text("gpt-9-codex")
    text = "# R\n\nlooked-at: app.py, all callers\nNot-looked-at: new.py\n"
    ran(stage, "true")
    text += "\n- looked-at: the docs\n- **not-looked-at:** the demo\n> looked-at: quoted\n"
    done = approve(stage, text=f"{text}looked-at:\n- this\n")
    assert done.code == 2 and "line 9: looked-at: " in done.err, "nothing of a list is dropped"
    beside = ("--next-file", stage.file("go\nlooked-at: it\n"), "--file", stage.file(text, "b.md"))
    done = stage.run("codex", "send", "--kind", "review", *beside)
    assert done.code == 2 and "move it there" in done.err, "and nothing of a prompt"
    assert approve(stage, text=text).code == 0
    row = sidecar(asked, 2)
    assert row["looked_at"] == ["app.py, all callers", "the docs"]
    assert row["not_looked_at"] == ["new.py", "the demo"]
    assert row["model"] == "gpt-9-codex"
    for words in (("next",), ("log",), ("log", "--markdown"), ("show", "2")):
        out = stage.ok("claude", *words).out.replace("\\", "")
        for part in ("app.py, all callers", "new.py", "gpt-9-codex"):
            assert part in out, (words, part)


# ---- hostile: bytes


def test_hostile_flags_of_the_index(stage, asked):
    stage.git("update-index", "--assume-unchanged", "keep.py")
    stage.git("update-index", "--skip-worktree", "lib/util.py")
    write(stage, "keep.py", "evil\n")
    write(stage, "lib/util.py", "evil\n")
    refused_for(approve(stage, *NOT_RUN), "keep.py", "lib/util.py")


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_hostile_flags_of_the_index_on_a_file_too_large_to_hash(stage, real_git, flag):
    def size(path, n, *text):
        with write(stage, path, "x").open("r+b") as file:
            file.truncate(n)
            file.writelines(text)

    size("base.bin", 51 << 20)
    pair = _project(stage)
    stage.git("update-index", flag, "base.bin")
    size("big.bin", 51 << 20)
    stage.git("add", "big.bin")
    stage.git("update-index", flag, "big.bin")
    stage.send("claude", "fix")
    assert [*sidecar(pair, 1)["changeset"]["files"]] == ["big.bin"]
    stage.ok("codex", "next")
    assert approve(stage, *NOT_RUN, "--dry-run").code == 0
    size("big.bin", 51 << 20, b"evil")
    refused_for(approve(stage, *NOT_RUN), "big.bin")
    size("base.bin", 51 << 20, b"evil")
    refused_for(approve(stage, *NOT_RUN), "base.bin", "big.bin")


def test_hostile_file_that_only_the_index_forgot(stage, asked):
    """Taken out of the index, what the base has is no new file."""
    stage.git("rm", "-q", "--cached", "keep.py")
    write(stage, "keep.py", "evil\n")
    refused_for(approve(stage, *NOT_RUN), "keep.py")


def test_hostile_commit_that_only_the_index_forgot(stage, asked):
    """Committed and then taken out of the index, it would pass as a new file that is untracked."""
    write(stage, "evil.py", "evil\n")
    approved(stage)
    stage.git("add", "app.py", "new.py", "evil.py")
    stage.git("commit", "-qm", "with more")
    stage.git("rm", "-q", "--cached", "evil.py")
    refuses_both(stage, "evil.py")


def test_hostile_commit_that_the_tree_takes_back(stage, asked):
    approved(stage)
    write(stage, "keep.py", "evil\n")
    commit(stage)
    write(stage, "keep.py", "keep\n")
    assert any("HEAD differs" in why and "keep.py" in why for why, _ in unmet(close(stage)))


def test_hostile_index_that_holds_something_else(stage, asked):
    approved(stage)
    write(stage, "app.py", "evil\n")
    stage.git("add", "app.py")
    write(stage, "app.py", "two\n")
    refused_for(close(stage), "index differs", "app.py")


@pytest.mark.parametrize("where", [".gitignore", ".git/info/exclude"])
def test_hostile_ignore_rules_changed_in_between(stage, asked, where):
    write(stage, where, "new.py\n")
    write(stage, "new.py", "evil\n")
    why, _ = refused_for(approve(stage, *NOT_RUN), "new.py")


def test_hostile_ignored_file_that_is_committed_by_force(stage, asked):
    write(stage, ".git/info/exclude", "hidden.py\n")
    write(stage, "hidden.py", "evil\n")
    approved(stage)
    commit(stage)
    stage.git("add", "-f", "hidden.py")
    refuses_both(stage, "hidden.py")


@pytest.mark.parametrize("how", ["mode", "symlink", "directory", "deleted", "case"])
def test_hostile_kind_of_file(stage, asked, how):
    path = stage.project / "keep.py"
    if how == "mode":
        path.chmod(0o755)
    elif how == "case":
        path.rename(stage.project / "KEEP.py")
    else:
        path.unlink()
    if how == "symlink":
        write(stage, "../elsewhere.py", "keep\n")
        path.symlink_to("../elsewhere.py")
    elif how == "directory":
        write(stage, "keep.py/__init__.py", "evil\n")
    assert any("keep.py" in why for why, _ in unmet(approve(stage, *NOT_RUN)))


def test_hostile_symlink_in_the_place_of_a_directory(stage, asked):
    shutil.copytree(stage.project / "lib", stage.folder / "lib")
    shutil.rmtree(stage.project / "lib")
    (stage.project / "lib").symlink_to(stage.folder / "lib")
    assert any("lib/util.py" in why for why, _ in unmet(approve(stage, *NOT_RUN)))


def test_hostile_edit_with_its_times_put_back(stage, asked):
    stage.git("config", "core.trustctime", "false")
    stage.git("config", "core.checkStat", "minimal")
    for name, text in (("app.py", "owt\n"), ("new.py", "wen\n")):
        before = (stage.project / name).stat()
        write(stage, name, text)
        os.utime(stage.project / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused_for(approve(stage, *NOT_RUN), "app.py", "new.py")


def test_hostile_index_from_the_future(stage, asked):
    os.utime(stage.project / ".git" / "index", (2**31, 2**31))
    write(stage, "keep.py", "evil\n")
    refused_for(approve(stage, *NOT_RUN), "keep.py")


SETTINGS = [
    "core.ignoreStat=true",
    "core.fileMode=true",
    "core.fsmonitor=true",
    "core.untrackedCache=true",
    "core.splitIndex=true",
    "core.ignoreCase=true",
    "core.preloadIndex=true",
    "core.bare=true",
    "core.worktree=/tmp",
    "diff.ignoreSubmodules=all",
    "status.showUntrackedFiles=no",
    "index.skipHash=true",
    "core.sparseCheckout=true",
]


@pytest.mark.slow
def test_hostile_settings_of_the_repository(stage, asked):
    write(stage, "keep.py", "evil\n")
    write(stage, "new.py", "evil\n")
    for setting in SETTINGS:
        stage.git("config", *setting.split("="))
        done = approve(stage, *NOT_RUN)
        assert any("keep.py" in w and "new.py" in w for w, _ in unmet(done)), setting


def test_hostile_variables_that_point_git_elsewhere(stage, asked):
    clean = stage.folder / "clean"
    shutil.copytree(stage.project, clean)
    write(stage, "keep.py", "evil\n")
    for variable, place in {
        "GIT_DIR": ".git",
        "GIT_WORK_TREE": ".",
        "GIT_INDEX_FILE": ".git/index",
        "GIT_OBJECT_DIRECTORY": ".git/objects",
        "GIT_COMMON_DIR": ".git",
    }.items():
        env = {variable: str(clean / place), "GIT_LITERAL_PATHSPECS": "1"}
        refused_for(approve(stage, *NOT_RUN, **env), "keep.py")


def test_hostile_replaced_objects_and_grafts(stage, asked):
    approved(stage)
    base = stage.git("rev-parse", "HEAD")
    write(stage, "keep.py", "evil\n")
    commit(stage, "evil")
    evil = stage.git("rev-parse", "HEAD")
    stage.git("replace", "-f", base, evil)
    write(stage, ".git/info/grafts", f"{evil}\n")
    refuses_both(stage, "keep.py")


@pytest.mark.parametrize("name", ["", "^{tree}", ":lib"])
def test_hostile_object_planted_in_the_place_of_the_base(stage, asked, name):
    """Git reads a tree without looking at its hash: the base would have what was never reviewed."""
    base = stage.git("rev-parse", f"HEAD{name}")
    write(stage, "lib/util.py", "evil\n")
    stage.git("add", "lib")
    stage.git("commit", "-qm", "evil")
    evil = stage.git("rev-parse", f"HEAD{name}")
    stage.git("reset", "-q", "--soft", "HEAD~")
    objects = stage.project / ".git" / "objects"
    planted = objects / base[:2] / base[2:]
    planted.chmod(0o600)
    planted.write_bytes((objects / evil[:2] / evil[2:]).read_bytes())
    done = approve(stage, *NOT_RUN)
    whys = " ".join(why for why, _ in unmet(done))
    if name == ":lib":
        assert "lib/util.py" not in whys and "do not match their names" in whys
    else:
        assert "cannot be compared" in whys or "do not match their names" in whys


@pytest.mark.parametrize("how", ["filter", "eol", "ident", "encoding"])
def test_hostile_attributes_hide_no_more_than_in_a_commit(stage, asked, how):
    """Git decides what a file's blob is; whatever it would commit is what has to be the reviewed one."""
    write(
        stage,
        ".git/info/attributes",
        f"keep.py {({'filter': 'filter=f', 'eol': 'text', 'ident': 'ident', 'encoding': 'working-tree-encoding=latin1'})[how]}\n",
    )
    stage.git("config", "filter.f.clean", "tr a-z b-za")
    write(
        stage, "keep.py", {"encoding": "k\u00e9ep\n".encode("latin1")}.get(how, "evil $Id: x$\r\n")
    )
    commit(stage, "what it ships")
    assert stage.git("diff", "--name-only", "HEAD~", "--", "keep.py") == "keep.py"
    assert any("keep.py" in why for why, _ in unmet(approve(stage, *NOT_RUN)))


@pytest.mark.slow
def test_hostile_filter_that_was_taken_away_after_the_approval(stage):
    """With it the change ships one content, without it another: the close sees what was committed."""
    _project(stage)
    stage.git("config", "filter.f.clean", "printf 'fine\\n'; cat >/dev/null")
    write(stage, ".gitattributes", "app.py filter=f\n")
    write(stage, "app.py", "evil\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    approved(stage)
    stage.git("config", "--unset", "filter.f.clean")
    os.utime(stage.project / "app.py", (1, 1))
    commit(stage)
    refuses_both(stage, "app.py")


def submodule(stage):
    inner = stage.folder / "inner"
    inner.mkdir()
    stage.git("init", "-q", "-b", "main", cwd=inner)
    (inner / "lib.py").write_text("lib\n")
    commit(stage, "lib", cwd=inner)
    stage.git("submodule", "add", "-q", str(inner), "sub")
    pair = _project(stage)
    write(stage, "app.py", "two\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    return pair


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    ["edit", "no git directory"]
    + [pytest.param(how, marks=pytest.mark.slow) for how in ("commit", "ignored", "link")],
)
def test_hostile_submodule(stage, how):
    submodule(stage)
    sub = stage.project / "sub"
    if how == "ignored":
        stage.git("config", "submodule.sub.ignore", "all")
    if how == "link":
        sub.rename(stage.folder / "moved")
        sub.symlink_to(stage.folder / "moved")
    elif how == "no git directory":
        (sub / ".git").unlink()
    (sub / "lib.py").write_text("evil\n")
    if how == "commit":
        commit(stage, "evil", cwd=sub)
    assert any("sub" in why for why, _ in unmet(approve(stage, *NOT_RUN)))


def embedded(stage, name):
    """A repository in the project, in the index as a submodule is."""
    place = stage.project / name
    place.mkdir()
    stage.git("init", "-q", cwd=place)
    (place / "code.py").write_text("anything\n")
    commit(stage, "inner", cwd=place)
    stage.git("add", name)


def test_hostile_submodule_that_is_new_in_the_index(stage, asked):
    ran(stage, "true")
    assert approve(stage, "--dry-run").code == 0
    embedded(stage, "vendor")
    refused_for(approve(stage, *NOT_RUN), "changed since 001", "vendor")


def test_a_new_submodule_is_in_the_change_set_and_may_be_committed(stage, asked):
    embedded(stage, "vendor")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    assert sidecar(asked, 2)["changeset"]["files"]["vendor"].startswith("160000 ")
    approved(stage)
    stage.ok("claude", "export", "--statement")
    commit(stage, "work")
    assert close(stage).code == 0


@pytest.mark.parametrize("how", ["repository", "worktree", "pointer"])
def test_hostile_repository_in_the_place_of_reviewed_files(stage, asked, how):
    """What was reviewed as files is not hidden by making a repository of their directory."""
    lib = stage.project / "lib"
    if how == "worktree":
        stage.git("worktree", "add", "-q", "--force", str(stage.folder / "w"))
        shutil.copy(stage.folder / "w" / ".git", lib / ".git")
    elif how == "pointer":
        (lib / ".git").write_text(f"gitdir: {stage.project}/.git\n")
    else:
        stage.git("init", "-q", cwd=lib)
        commit(stage, "inner", cwd=lib)
    (lib / "util.py").write_text("evil\n")
    if how == "repository":
        commit(stage, "inner evil", cwd=lib)
    assert any("lib/util.py" in why for why, _ in unmet(approve(stage, *NOT_RUN)))


def test_hostile_directory_of_the_ledgers_name_where_the_ledger_is_elsewhere(stage):
    """With RELAY_SHARED_ROOT, `.shared` is the project's own."""
    root = {"RELAY_SHARED_ROOT": str(stage.folder / "ledger")}
    write(stage, ".shared/tool.py", "fine\n")
    commit(stage, "base")
    stage.ok("claude", "bootstrap", "--topic", "t", **root)
    stage.ok("codex", "next", **root)
    write(stage, "app.py", "two\n")
    words = ("send", "--kind", "fix", "--next", "look", "--file", stage.file("# F\n"))
    stage.ok("claude", *words, **root)
    stage.ok("codex", "next", **root)
    write(stage, ".shared/tool.py", "evil\n")
    refused_for(approve(stage, *NOT_RUN, **root), ".shared/tool.py")


@pytest.mark.slow
def test_hostile_directory_of_the_ledgers_name_in_a_linked_worktree(stage):
    """The ledger is in the main worktree: what is committed here under its name was not reviewed. A
    scratch file is left out only while git does not track it."""
    _, place = worktree(stage)
    scratch = place / ".shared/_relay/claude.md"
    scratch.parent.mkdir(parents=True)
    scratch.write_text("# Text\n")
    stage.ok("codex", "next")
    ran(stage, "true", cwd=place)
    assert stage.ok("codex", "status", "--json").json["changeset"]["outside"] == []
    (place / ".shared/tool.py").write_text("evil\n")
    assert approve(stage).code == 0
    commit(stage, cwd=place)
    stage.ok("claude", "next", cwd=place)
    for name in (".shared/tool.py", ".shared/_relay/claude.md"):
        assert any(name in why for why, _ in unmet(close(stage, cwd=place))), name
    stage.git("reset", "-q", "--soft", "HEAD~1", cwd=place)
    stage.git("reset", "-q", "--", ".shared", cwd=place)
    (place / ".shared/tool.py").unlink()
    assert close(stage, cwd=place).code == 0


def test_hostile_file_given_as_the_text_to_send(stage, asked):
    """The file that is sent is no part of the tree; a reviewed one is."""
    write(stage, "new.py", "evil\n")
    words = ("send", "--kind", "review", "--verdict", "approve", "--next", "x", *NOT_RUN)
    done = stage.run("codex", *words, "--file", stage.project / "new.py")
    refused_for(done, "new.py")


# ---- hostile: the base and the place


def test_hostile_commit_below_a_base_that_moved(stage, asked):
    """The session names another base than the request."""
    session = json.loads((asked / "session.json").read_text())
    write(stage, "keep.py", "evil\n")
    stage.git("add", "keep.py")
    stage.git("commit", "-qm", "evil")
    session["base_commit"] = stage.git("rev-parse", "HEAD")
    (asked / "session.json").write_text(json.dumps(session))
    assert any("base" in why for why, _ in unmet(approve(stage, *NOT_RUN)))
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    assert any("base" in why for why, _ in unmet(approve(stage, *NOT_RUN)))


@pytest.mark.parametrize("key", ["base", "onto"])
def test_hostile_base_in_a_sidecar_with_the_right_hashes(stage, asked, key):
    write(stage, "keep.py", "evil\n")
    commit(stage, "evil")
    stage.git("branch", "-f", "evil")
    stage.send("claude", "fix")
    head = stage.git("rev-parse", "HEAD")

    def forged(row):
        files = {}
        change = row["changeset"] | {"files": files, "count": 0, "originals": {}, "untracked": []}
        change |= {"base": head, "digest": hashlib.sha256(b"").hexdigest()}
        change |= {"onto": "refs/heads/evil"} if key == "onto" else {}
        return row | {"changeset": change}

    reseal(asked, "002-claude-fix", forged)
    stage.ok("codex", "next")
    done = approve(stage, *NOT_RUN, "--empty", "--reason", "x")
    assert any("base" in why for why, _ in unmet(done)), done


def test_hostile_branch_written_into_the_session(stage, asked):
    write(stage, "keep.py", "evil\n")
    commit(stage, "evil")
    stage.git("branch", "-f", "evil")
    session = json.loads((asked / "session.json").read_text()) | {"base_branch": "refs/heads/evil"}
    (asked / "session.json").write_text(json.dumps(session))
    write(stage, "more.py", "more\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    assert any("base" in why for why, _ in unmet(approve(stage, *NOT_RUN)))


def test_hostile_worktree_root_that_is_another_repository(stage, asked):
    clone = stage.folder / "clone"
    shutil.copytree(stage.project, clone)
    shutil.rmtree(clone / ".shared")
    write(stage, "keep.py", "evil\n")
    stage.send("claude", "fix")
    clean = sidecar(asked, 1)["changeset"] | {"tree": RELAY.tree_id(str(clone))}
    reseal(
        asked,
        "002-claude-fix",
        lambda row: row | {"changeset": clean},
        lambda text: re.sub(
            r"(?m)^changeset: .*$", f"worktree_root: {clone}\nchangeset: {clean['digest']}", text
        ),
    )
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "changed since 002", "keep.py")


def test_hostile_reviewer_in_a_clean_clone(stage):
    """The reviewer's own clone, with the author's ledger, is not the author's tree."""
    _asked(stage)
    clone = stage.folder / "clone"
    shutil.copytree(stage.project, clone)
    shutil.rmtree(clone / ".shared")
    write(stage, "keep.py", "evil\n")
    env = {"RELAY_SHARED_ROOT": str(stage.shared), "cwd": clone}
    refused_for(approve(stage, *NOT_RUN, **env), "not of this repository")


# ---- hostile: what is said of files, findings and runs


def test_hostile_list_of_files_that_is_not_that_of_the_digest(stage, asked):
    """It would tell the reviewer that nothing changed since the last review."""
    reviewed(stage, "nit - Mend")
    write(stage, "app.py", "evil\n")
    stage.send("claude", "fix")
    same = sidecar(asked, 2)["changeset"]["files"]
    reseal(
        asked, "003-claude-fix", lambda row: row | {"changeset": row["changeset"] | {"files": same}}
    )
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "do not match its digest")


def test_hostile_sidecar_that_carries_a_finding_as_settled(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    stage.send("claude", "fix")

    def forged(row):
        (finding,) = row["open"]
        settled = finding | {"state": "accepted", "by": "002-codex-review"}
        return row | {"open": [], "settled": [settled]}

    reseal(asked, "003-claude-fix", forged)
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "2.1 blocker", "unanswered")
    assert stage.run("codex", "verify").code == 1


@pytest.mark.parametrize("verb", ["accepted", "withdrawn"])
def test_hostile_disposition_of_somebody_elses(stage, asked, verb):
    reviewed(stage, "blocker app.py:1 Wrong")
    stage.send("claude", "fix", dispositions("2.1 refuted no"))
    row = {"id": "2.1", "verb": verb, "text": "", "detail": "", "of": "002-codex-review"}
    reseal(asked, "003-claude-fix", lambda s: s | {"dispositions": [row], "accepts": [row]})
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "2.1 blocker")


@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_hostile_removal_of_the_review_with_the_blocker(stage, asked, how):
    reviewed(stage, "blocker app.py:1 Wrong")
    write(stage, "app.py", "three\n")
    stage.send("claude", "fix")
    for path in asked.glob("002-codex-review.*"):
        path.unlink() if how == "removed" else path.chmod(0o600)
    if how == "damaged":
        (asked / "002-codex-review.md").write_text("nothing\n")
    done = approve(stage, *NOT_RUN, "--reply-to", "3")
    assert any("002-codex-review" in why or "2.1" in why for why, _ in unmet(done)), done


def run_row(stage, pair, **more):
    digest = sidecar(pair, 1)["changeset"]["digest"]
    row = {"id": "x-1", "run": 1, "author": "codex", "argv": ["make", "check"], "cwd": "."}
    row |= {"started": "2026-01-01T00:00:00+00:00", "before": digest, "after": digest, "code": 0}
    return row | {"duration_s": 1, "changed": [], "created": [], "tail": ""} | more


def test_hostile_run_of_the_reviewers_in_the_authors_artifact(stage, asked):
    stage.send("claude", "note")
    row = run_row(stage, asked)
    reseal(asked, "002-claude-note", lambda s: s | {"evidence": [row]})
    stage.ok("codex", "next")
    assert any("run" in why for why, _ in unmet(approve(stage)))
    assert stage.run("codex", "verify").code == 1


def test_hostile_run_that_leads_to_another_tree(stage, asked):
    """The author's record says that a run only created files; so another tree would count as this."""
    write(stage, "app.py", "passes\n")
    ran(stage, "true")
    (waiting,) = asked.glob(".evidence/codex-*.json")
    other = json.loads(waiting.read_text())["before"]
    write(stage, "app.py", "two\n")
    stage.send("claude", "note")
    row = run_row(stage, asked, author="claude", after=other)
    reseal(asked, "002-claude-note", lambda s: s | {"evidence": [row]})
    stage.ok("codex", "next")
    refused_for(approve(stage), "another change set")


def test_hostile_flood_of_runs_that_pushes_a_failed_one_out(stage, asked):
    ran(stage, "false", code=1)
    (first,) = asked.glob(".evidence/codex-*.json")
    row = json.loads(first.read_text())
    for n in range(2, RELAY.MAX_OUTPUTS + 3):
        more = row | {"id": f"codex-{n:03}-00000000", "run": n, "argv": ["true"], "code": 0}
        (first.parent / f"codex-{n:03}.json").write_text(json.dumps(more))
    refused_for(approve(stage), '"false" by codex exited with 1')


def test_every_run_that_an_approval_rests_on_is_carried(stage, asked, monkeypatch):
    """The output of the older ones is not."""
    monkeypatch.setattr(RELAY, "MAX_OUTPUTS", 3)
    flag = stage.folder / "fails"
    flag.touch()
    check = ("sh", "-c", f"echo checked; ! test -e {flag}")
    ran(stage, *check, code=1)
    for n in range(4):
        ran(stage, "echo", n)
    flag.unlink()
    ran(stage, *check)
    assert approve(stage).code == 0
    evidence = sidecar(asked, 2)["evidence"]
    assert [row["code"] for row in evidence] == [1, 0, 0, 0, 0, 0]
    assert [row["tail"] for row in evidence] == ["", "", "", "2\n", "3\n", "checked\n"]
    stage.ok("claude", "next")
    assert "NOT SUPPORTED" not in stage.ok("claude", "log").out
    stage.ok("claude", "export", "--statement")
    assert close(stage).code == 0


def test_hostile_success_from_before_the_failure(stage, asked):
    """The author's success began before the reviewer's failure and is only sent later."""
    flag = stage.folder / "fails"
    check = ("sh", "-c", f"! test -e {flag}")
    ran(stage, *check, author="claude")
    flag.touch()
    ran(stage, *check, code=1)
    ran(stage, "true")
    began_later(asked, "codex-001")
    stage.send("codex", "review", "# R\n", "x", "--verdict", "changes")
    stage.ok("claude", "next")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    refused_for(approve(stage), "by codex exited with 1")


@pytest.mark.parametrize("change", [{"verdict": "approve"}, {"verdict": "approve", "empty": "x"}])
def test_hostile_approval_written_into_a_review(stage, asked, change):
    """Its hashes agree; what it does not show is asked for at the close all the same."""
    reviewed(stage, "blocker app.py:1 Wrong")
    reseal(asked, "002-codex-review", lambda row: row | change)
    rows = unmet(close(stage))
    assert any("2.1 blocker" in why for why, _ in rows)
    assert any("damaged" in why for why, _ in rows), "claude was shown other bytes"


def test_hostile_request_that_was_rewritten_after_the_approval(stage, asked):
    approved(stage)
    write(stage, "app.py", "evil\n")
    stage.send("claude", "note")
    evil = sidecar(asked, 3)["changeset"]
    reseal(asked, "001-claude-fix", lambda row: row | {"changeset": evil})
    assert any("gone or was changed" in why for why, _ in unmet(close(stage)))


def test_hostile_closing_that_names_an_approval_that_is_none(stage, asked):
    reviewed(stage, "nit - Mend")
    assert close(stage, "--no-archive", outcome="shipped").code == 0
    with (asked / "CLOSED").open("a") as file:
        file.write('approved_by = "002-codex-review"\n')
    done = stage.run("claude", "verify", asked.name)
    assert done.code == 1 and "which is none" in done.out


def test_hostile_pair_without_git(stage):
    stage.__class__ = type(
        "WithoutGit",
        (Stage,),
        {
            "env": lambda self, author=None, **more: Stage.env(
                self, author, **{"RELAY_SHARED_ROOT": str(self.shared), **more}
            )
        },
    )
    shutil.rmtree(stage.project / ".git")
    stage.open_pair()
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN, "--empty", "--reason", "x"), "not in git")
    assert unmet(close(stage))


def test_the_command_for_what_a_commit_left_out_is_enough(stage, asked):
    approved(stage)
    stage.git("commit", "-qm", "part", "--", "app.py")
    way = refused_for(close(stage), "left out", "new.py")[1]
    for command in way.split(" && "):  # The same from anywhere in the project.
        stage.git(*command.split()[1:], cwd=stage.project / "lib")
    assert close(stage).code == 0


def test_the_commands_that_show_what_differs_work_below_the_top(stage, asked):
    approved(stage)
    write(stage, "app.py", "staged\n")
    stage.git("add", "app.py")
    write(stage, "app.py", "two\n")
    way = refused_for(close(stage), "the index differs", "app.py")[1]
    assert "+staged" in stage.git(*way.split()[1:], cwd=stage.project / "lib")


@pytest.mark.slow
def test_many_files_that_were_approved_may_be_committed(stage, real_git, monkeypatch):
    monkeypatch.setattr(RELAY, "MAX_LISTED_FILES", 3)
    _project(stage)
    for number in range(5):
        write(stage, f"many/{number}.py", f"{number}\n")
    stage.git("add", "-A")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    approved(stage)
    stage.git("commit", "-qm", "some", "--", "many/1.py")
    assert close(stage).code == 2
    commit(stage, "the rest")
    assert close(stage).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("evil", [False, True])
def test_a_close_after_the_work_was_merged_into_the_branch_that_the_base_follows(stage, evil):
    based(stage, "main")
    write(stage, "app.py", "two\n")
    commit(stage, "work")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    approved(stage)
    if evil:
        write(stage, "keep.py", "evil\n")
        commit(stage, "evil")
    stage.git("checkout", "-q", "main")
    stage.git("merge", "-q", "--ff-only", "work")
    if evil:
        refused_for(close(stage), "changed since", "keep.py")
    else:
        assert close(stage).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("evil", [False, True])
def test_a_review_after_the_work_was_merged_into_the_branch_that_the_base_follows(stage, evil):
    pair = based(stage, "main")
    write(stage, "app.py", "two\n")
    commit(stage, "work")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    ran(stage, "true")
    if evil:
        write(stage, "keep.py", "evil\n")
        commit(stage, "evil")
    stage.git("checkout", "-q", "main")
    stage.git("merge", "-q", "--ff-only", "work")
    if evil:
        why, way = refused_for(approve(stage), "changed since 001: keep.py (or")
        assert "app.py" not in why
        return
    assert "unchanged since 001" in stage.ok("codex", "next").out
    assert approve(stage).code == 0
    stage.ok("claude", "next")
    body = stage.ok("claude", "export", "--github").json["body"]
    assert "is not what was approved" not in body
    assert stage.ok("claude", "verify", pair.name).code == 0
    statement = stage.ok("claude", "export", "--statement").json["predicate"]
    assert [row["path"] for row in statement["files"]] == ["app.py"]
    assert close(stage).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("edited", [False, True])
def test_what_upstream_changed_is_not_counted_where_nothing_is_committed_yet(stage, edited):
    based(stage, "main")
    write(stage, "app.py", "two\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    ran(stage, "true")
    write(stage, "app.py", "one\n")
    write(stage, "keep.py", "upstream\n")
    commit(stage, "upstream")
    stage.git("branch", "-f", "main", "work")
    write(stage, "app.py", "three\n" if edited else "two\n")
    if edited:
        why, _ = refused_for(approve(stage), "changed since 001: app.py (or")
        assert "keep.py" not in why
    else:
        assert approve(stage).code == 0
        assert close(stage).code == 0


# ---- what was said since


def test_hostile_close_over_words_that_were_not_read(stage, asked):
    approved(stage)
    stage.send("codex", "addendum", "# app.py:1 is wrong after all\n", "stop", "--corrects", "2")
    (unread, command), _ = unmet(close(stage))
    assert "003 addendum by codex" in unread and "not delivered" in unread
    assert command.endswith(" next")
    stage.ok("claude", "next")
    refused_for(close(stage), "003 changes 002")
    refuses = "002-codex-review does not hold", "003 changes 002"
    done = stage.refused("claude", "export", "--statement")
    assert all(words in done.err for words in refuses)
    approved(stage, "--reply-to", 1)
    stage.ok("claude", "next")
    assert close(stage).code == 0


def test_hostile_correction_of_the_request_that_the_reviewer_has_not_read(stage, asked):
    ran(stage, "true")
    stage.send("claude", "correction", "# It drops the table too\n", "go", "--corrects", "1")
    refused_for(approve(stage), "002 correction by claude", "not delivered")
    stage.ok("codex", "next")
    assert approve(stage).code == 0


def test_hostile_correction_of_the_request_after_its_approval(stage, asked):
    approved(stage)
    stage.ok("claude", "next")
    stage.send("claude", "correction", "# It drops the table too\n", "go", "--corrects", "1")
    refused_for(close(stage), "003 changes 001")
    stage.send("claude", "fix", "# As corrected\n")
    stage.ok("codex", "next")
    assert approve(stage).code == 0
    stage.ok("claude", "next")
    assert close(stage).code == 0


def drafted(stage, author, kind, *flags, text="# Fine\n"):
    """The path of a draft that only has to be published."""
    draft = stage.ok(author, "claim", "--kind", kind, *flags).out.strip()
    words = ("--body-file", stage.file(text, "draft.md"), "--prompt-for-next-file")
    stage.ok(author, "draft", "set", draft, *words, stage.file("go on\n", "ask.md"))
    return draft


def late(stage, author, kind, text, *flags, before=lambda: None, verdict=()):
    """Publishes under a number that was taken before what `before` does."""
    draft = drafted(stage, author, kind, *flags, text=text)
    before()
    stage.ok(author, "publish", draft, *verdict)


def test_hostile_correction_under_a_number_from_before_the_approval(stage, asked):
    text = "# It drops the table too\n"
    late(stage, "claude", "correction", text, "--corrects", "1", before=lambda: approved(stage))
    stage.ok("claude", "next")
    refused_for(close(stage), "002 changes 001")
    assert "002 changes 001" in stage.refused("claude", "export", "--statement").err


def test_hostile_correction_of_what_a_reviewed_correction_corrects(stage, asked):
    stage.send("claude", "correction", "# And so\n", "go", "--corrects", "1")
    stage.ok("codex", "next")
    approved(stage, "--reply-to", 2)
    stage.ok("claude", "next")
    assert sidecar(asked, 3)["request"]["name"] == "002-claude-correction"
    stage.send("claude", "correction", "# It drops the table too\n", "go", "--corrects", "1")
    refused_for(close(stage), "004 changes 001")


def test_hostile_words_of_the_approver_under_a_number_from_before_the_approval(stage, asked):
    late(stage, "codex", "addendum", "# Stop, it is wrong\n", before=lambda: approved(stage))
    refused_for(close(stage), "002 addendum by codex", "not delivered")
    stage.ok("claude", "next")
    assert close(stage).code == 0


def test_hostile_continue_from_before_what_it_would_settle(stage, asked):
    """The user has not seen what is published later, whatever its number."""

    def spoken():
        stage.send("claude", "note", "# So\n", "@user: may I?")
        stage.ok("claude", "continue")

    late(stage, "codex", "review", findings("blocker app.py:1 Wrong"), before=spoken)
    stage.ok("claude", "next")
    answer = ("fix", dispositions("2.1 wontfix too dear"))
    assert "left only by the user" in stage.try_send("claude", *answer).err
    stage.ok("claude", "continue")
    assert stage.try_send("claude", *answer).code == 0


def test_hostile_continue_from_before_the_question(stage, asked):
    def spoken():
        stage.send("claude", "note", "# So\n", "@user: may I?")
        stage.ok("claude", "continue")

    late(stage, "codex", "decision", "# Drop the table?\n", before=spoken)
    assert stage.ok("claude", "next").action == "ask_user"


def test_hostile_approval_published_past_a_question_to_the_user(stage, asked):
    draft = drafted(stage, "codex", "review", "--in-reply-to", "1")
    stage.send("claude", "correction", "# Hm\n", "@user: may I drop it?", "--corrects", "1")
    stage.ok("codex", "show", "3")
    done = stage.run("codex", "publish", draft, "--verdict", "approve", *NOT_RUN)
    asking = [why for why, _ in unmet(done) if "asks the user" in why]
    assert len(asking) == 1, "it is named once"


def test_a_run_that_failed_since_the_approval_is_in_the_way(stage, asked):
    approved(stage)
    ran(stage, "sh", "-c", "! test -e ../mended", code=0)
    (stage.project.parent / "mended").touch()
    ran(stage, "sh", "-c", "! test -e ../mended", code=1)
    stage.send("codex", "note", "# It fails now\n")
    stage.ok("claude", "next")
    refused_for(close(stage), "by codex exited with 1")
    assert "exited with 1" in stage.refused("claude", "export", "--statement").err
    (stage.project.parent / "mended").unlink()
    ran(stage, "sh", "-c", "! test -e ../mended", author="claude")
    assert close(stage).code == 0


def test_a_run_that_failed_counts_before_any_artifact_carries_it(stage, asked):
    ran(stage, "true")
    ran(stage, "sh", "-c", "! test -e ../mended", author="claude")
    (stage.project.parent / "mended").touch()
    ran(stage, "sh", "-c", "! test -e ../mended", author="claude", code=1)
    refused_for(approve(stage), "by claude exited with 1")
    (stage.project.parent / "mended").unlink()
    ran(stage, "sh", "-c", "! test -e ../mended", author="claude")
    assert approve(stage).code == 0
    stage.ok("claude", "next")
    ran(stage, "false", code=1)
    refused_for(close(stage), "by codex exited with 1")
    assert "exited with 1" in stage.refused("claude", "export", "--statement").err


def test_a_clock_that_is_ahead_hides_no_failure(stage, asked):
    ran(stage, "sh", "-c", "! test -e ../mended", author="claude")
    (file,) = asked.glob(".evidence/claude-*.json")
    file.write_text(file.read_text().replace('"started": "2', '"started": "3'))
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    ran(stage, "true")
    (stage.project.parent / "mended").touch()
    ran(stage, "sh", "-c", "! test -e ../mended", code=1)
    refused_for(approve(stage), "by codex exited with 1")


def test_what_was_approved_despite_one_failure_is_not_despite_another(stage, asked):
    ran(stage, "false", code=1)
    assert approve(stage, "--despite-failed", "no network here").code == 0
    assert stage.ok("claude", "export", "--statement").json["predicate"]["overrides"]
    ran(stage, "sh", "-c", "exit 3", code=3)
    stage.send("codex", "note", "# This fails, too\n")
    stage.ok("claude", "next")
    refused_for(close(stage), "exit 3", "exited with 3", "codex says in another review why")
    stage.send("claude", "fix", "# The same\n")
    stage.ok("codex", "next")
    assert approve(stage, "--despite-failed", "neither here").code == 0
    stage.ok("claude", "next")
    assert close(stage).code == 0


def test_the_one_who_asks_for_changes_does_not_close_as_approved(stage, asked):
    write(stage, "app.py", "codex was here\n")
    stage.send("codex", "fix", "# Mine\n")
    stage.ok("claude", "next")
    approve_as(stage, "claude")
    stage.ok("codex", "next")
    stage.send("claude", "fix", "# Once more\n")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# No\n", "no good", "--verdict", "changes")
    refused_for(close(stage, author="codex"), "codex asks for changes in 005")
    stage.ok("claude", "next")
    words = [why for why, _ in unmet(close(stage, author="claude"))]
    assert any("codex's last verdict, in 005, asks for changes" in why for why in words)
    assert not any("can close on yours" in why for why in words), "its own came before"


def test_who_approved_last_is_told_that_the_other_side_can_close(stage, asked):
    stage.send("codex", "review", "# No\n", "no good", "--verdict", "changes")
    write(stage, "app.py", "codex was here\n")
    stage.send("codex", "fix", "# I did it\n")
    stage.ok("claude", "next")
    assert approve_as(stage, "claude").code == 0
    assert any("codex can close on yours" in why for why, _ in unmet(close(stage)))
    stage.ok("codex", "next")
    assert close(stage, author="codex").code == 0


def test_changes_asked_for_under_a_number_from_before_the_approval_count(stage, asked):
    changes = {"before": lambda: approved(stage), "verdict": ("--verdict", "changes")}
    late(stage, "claude", "review", "# I see it now\n", **changes)
    stage.ok("claude", "next")
    refused_for(close(stage), "claude asks for changes in 002")
    assert "no approval is on record" in stage.refused("claude", "export", "--statement").err


def approve_as(stage, author, *more, text="# Fine\n"):
    words = ("send", "--kind", "review", "--verdict", "approve", *NOT_RUN, "--next", "ship it")
    return stage.run(author, *words, "--file", stage.file(text, f"{author}.md"), *more)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["note", "question", "review"])
def test_hostile_approval_of_ones_own_work_in_answer_to_what_hands_nothing_over(stage, asked, kind):
    stage.send("codex", kind, "# Hm\n")
    stage.ok("claude", "next")
    refused_for(approve_as(stage, "claude"), "002 hands nothing over")
    write(stage, "what-a-test-left.log", "x\n")
    stage.send("codex", kind, "# Still\n")
    stage.ok("claude", "next")
    refused_for(approve_as(stage, "claude"), "003 hands nothing over")
    write(stage, "app.py", "codex was here\n")
    stage.send("codex", kind, "# I did it\n")
    stage.ok("claude", "next")
    refused_for(approve_as(stage, "claude"), "004 hands nothing over")
    stage.send("codex", "fix", "# I did it\n")
    stage.ok("claude", "next")
    assert approve_as(stage, "claude").code == 0


@pytest.mark.parametrize("file", ["app.py", "junk.txt"])
def test_hostile_approval_of_ones_own_work_over_changes_with_something_edited(stage, asked, file):
    stage.send("codex", "review", "# No\n", "start again", "--verdict", "changes")
    stage.ok("claude", "next")
    write(stage, file, "something else\n")
    more = ("--accept-moved", "app.py", "--reason", "so") if file == "app.py" else ()
    refused_for(approve_as(stage, "claude", *more), "codex asks for changes in 002")


@pytest.mark.parametrize("after", [False, True])
def test_hostile_approval_of_ones_own_work_over_the_reviewers_changes(stage, asked, after):
    stage.send("codex", "review", "# No\n", "start again", "--verdict", "changes")
    stage.ok("claude", "next")
    if after:
        stage.send("codex", "note", "# As I said\n")
        stage.ok("claude", "next")
    ran(stage, "true", author="claude")
    words = ("send", "--kind", "review", "--verdict", "approve", "--next", "ship it", "--file")
    done = stage.run("claude", *words, stage.file("# Fine\n"), "--reply-to", 2 + after)
    refused_for(done, "codex asks for changes in 002")
    stage.send("codex", "plan", "# What comes next\n")
    stage.ok("claude", "next")
    done = stage.run("claude", *words, stage.file("# Fine, then\n"))
    refused_for(done, f"{3 + after:03} hands nothing over")
    write(stage, "test_app.py", "codex was here\n")
    stage.send("codex", "fix", "# Mine, then\n")
    stage.ok("claude", "next")
    ran(stage, "true", author="claude")
    assert stage.run("claude", *words, stage.file("# Yours is fine\n")).code == 0


def test_a_pair_whose_base_git_cannot_name_is_not_opened(stage):
    """Else what is committed before the request would be in its base, and reviewed by nobody."""
    settings = {"GIT_CONFIG_GLOBAL": str(stage.file("[core\n", "settings"))}
    done = stage.refused("claude", "bootstrap", "--topic", "t", **settings)
    assert "bad config line" in done.err and not list(stage.shared.glob("2*"))
    stage.ok("claude", "bootstrap", "--topic", "t")


def test_hostile_first_commit_before_the_request(tmp_path):
    """A pair that was opened before the first commit compares with nothing, not with that commit."""
    stage = Stage(tmp_path / "unborn")
    shutil.rmtree(stage.project / ".git")
    stage.git("init", "-q", "-b", "main")
    write(stage, "unseen.py", "x\n")
    pair = stage.open_pair()
    commit(stage, "first")
    write(stage, "seen.py", "x\n")
    stage.send("claude", "fix")
    assert [*sidecar(pair, 1)["changeset"]["files"]] == ["seen.py", "unseen.py"]


@pytest.mark.parametrize("status", ("cancelled", "failed", "timed_out"))
def test_an_approval_does_not_give_up_what_it_approves(stage, asked, status):
    done = approve(stage, *NOT_RUN, "--status", status)
    assert done.code == 2 and f"--status {status}" in done.err and not [*asked.glob("002*")]
    draft = drafted(stage, "codex", "review")
    publishing = ("publish", draft, "--verdict", "approve", *NOT_RUN, "--status")
    assert f"--status {status}" in stage.refused("codex", *publishing, status).err
    stage.ok("codex", *publishing, "closed")
    assert stage.ok("claude", "export", "--statement").json["predicate"]["verdict"]


@pytest.mark.parametrize("status", ("cancelled", "failed"))
@pytest.mark.parametrize("author", ("claude", "codex"))
def test_what_was_given_up_after_its_approval_is_not_approved(stage, asked, status, author):
    assert approve(stage, *NOT_RUN).code == 0
    stage.ok("claude", "next")
    stage.send(author, "note", "# No\n", "drop it", "--status", status)
    for words in (("close", "--reason", "x", "--outcome", "approve"), ("export", "--statement")):
        assert f"the pair has ended: {status}" in stage.run("claude", *words).err
    done = stage.ok("claude", "close", "--reason", "dropped")
    assert "Reviewed-with" not in done.out
    assert stage.run("claude", "export", "--statement", "--pair-id", asked.name).code == 2


def test_no_verdict_is_forced_into_a_pair_that_has_ended(stage, asked):
    draft = drafted(stage, "codex", "review")
    assert close(stage, outcome="abandoned").code == 0
    forced = ("publish", draft, "--force", "--force-reason", "late", "--status", "closed")
    assert "--verdict" in stage.refused("codex", *forced, "--verdict", "approve", *NOT_RUN).err
    stage.ok("codex", *forced)
    assert stage.run("claude", "export", "--statement", "--pair-id", asked.name).code == 2


def test_a_long_command_that_failed_is_not_replaced_by_another_that_begins_alike(stage, asked):
    long = "#" * 40_000 + "\nexit "
    assert stage.run("codex", "run", "--", "sh", "-c", f"{long}1").code == 1
    stage.ok("codex", "run", "--", "sh", "-c", f"{long}0")
    refused_for(approve(stage), "exited with 1")
    words = ["#" * 100] * 300  # So many that not all are kept.
    assert stage.run("codex", "run", "--", "sh", "-c", "exit 1", "sh", *words, "a").code == 1
    stage.ok("codex", "run", "--", "sh", "-c", "exit 0", "sh", *words, "b")
    assert len(unmet(approve(stage))) == 2


def test_hints_name_the_pair_that_was_named(stage, asked):
    """Typed as printed, they go to that pair and not to the one that the session is bound to."""
    stage.ok("codex", "pair", "leave")
    stage.ok("codex", "bootstrap", "--topic", "other", "--force")
    named = ("--pair-id", asked.name)
    stage.ok("codex", "next", *named)
    _, way = refused_for(approve(stage, *named), "nothing was run on this change set")
    assert way.endswith(f"relay run --pair-id {asked.name} -- COMMAND")
    stage.ok("codex", "run", *way.partition("relay run ")[2].split()[:-1], "true")
    assert approve(stage, *named).code == 0
    assert "run --pair-id" not in stage.ok("codex", "next").out
    stage.ok("claude", "bootstrap", "--topic", "mine", "--force")
    file = asked / "001-claude-fix.md"
    file.chmod(0o600)
    file.write_text("")
    out = stage.ok("claude", "next", *named).out
    assert re.search(rf"your user agrees: .*relay continue --pair-id {asked.name}\n", out)


def test_a_run_counts_beside_the_text_that_is_sent_then_and_later(stage, asked):
    """The text is in the project, and no part of what it approves."""
    write(stage, "review.md", "# Fine\n\n## Next\nclose it\n")
    ran(stage, "true")
    words = ("send", "--kind", "review", "--verdict", "approve", "--file", "review.md")
    stage.ok("codex", *words)
    assert "review.md" not in sidecar(asked, 2)["changeset"]["files"]
    stage.ok("claude", "next")
    log = stage.ok("claude", "log").out
    assert "NOT SUPPORTED" not in log and "does not count" not in log
    stage.ok("claude", "export", "--statement")
    assert close(stage).code == 0


@pytest.mark.parametrize("outcome", ["abandoned", ""])
def test_an_approval_whose_pair_was_closed_as_something_else_has_no_statement(
    stage, asked, outcome
):
    assert approve(stage, *NOT_RUN).code == 0
    stage.ok("claude", "next")
    stage.ok("claude", "export", "--statement")
    stage.ok("claude", "close", "--reason", "dropped", *(("--outcome", outcome) if outcome else ()))
    done = stage.refused("claude", "export", "--statement", "--pair-id", asked.name)
    assert "no approval is on record" in done.err


def test_next_says_that_a_plan_beside_ones_own_work_hands_nothing_over(stage, asked):
    stage.send("codex", "plan", "# What comes next\n")
    shown = stage.ok("claude", "next")
    assert shown.action == "reply" and "002 hands nothing over" in shown.out
    assert "published since" not in shown.out, "it is delivered now"
    refused_for(approve_as(stage, "claude"), "002 hands nothing over")
    write(stage, "new.py", "codex was here\n")
    stage.send("codex", "plan", "# With an example\n")
    assert "hands nothing over" not in stage.ok("claude", "next").out
    assert approve_as(stage, "claude").code == 0


def test_work_that_the_approver_goes_on_with_is_not_handed_over_by_a_note(stage, asked):
    write(stage, "app.py", "claude goes on\n")
    stage.send("codex", "note", "# I look at it later\n")
    stage.ok("claude", "next")
    refused_for(approve_as(stage, "claude"), "002 hands nothing over")


def test_work_is_of_the_side_that_sent_it_first(stage, asked):
    stage.send("codex", "fix", "# It is fine as it is\n")
    stage.ok("claude", "next")
    refused_for(approve_as(stage, "claude"), "002 hands nothing over")
    assert approve(stage, *NOT_RUN, "--reply-to", 1).code == 0
    stage.ok("claude", "next")
    assert close(stage).code == 0


def test_hostile_plan_under_a_number_from_before_the_work_that_it_claims(stage):
    _project(stage)
    draft = stage.ok("codex", "claim", "--kind", "plan").out.strip()
    words = ("--body-file", stage.file("# Mine\n"), "--prompt-for-next-file")
    stage.ok("codex", "draft", "set", draft, *words, stage.file("go\n", "p"))
    write(stage, "app.py", "two\n")
    stage.send("claude", "fix")
    stage.ok("codex", "publish", draft)
    stage.ok("claude", "next")
    refused_for(approve_as(stage, "claude", "--reply-to", 1), "001 hands nothing over")


def test_ones_own_earlier_state_is_still_ones_own_work(stage, asked):
    write(stage, "app.py", "three\n")
    stage.send("claude", "fix")
    write(stage, "app.py", "two\n")
    stage.ok("codex", "next")
    stage.send("codex", "fix", "# As it was\n")
    stage.ok("claude", "next")
    refused_for(approve_as(stage, "claude"), "003 hands nothing over")


def test_what_is_again_as_it_was_when_the_finding_was_made_is_not_fixed(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    write(stage, "app.py", "three\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    reviewed(stage, "minor app.py:1 Ugly")
    write(stage, "app.py", "two\n")
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    stage.ok("codex", "next")
    refused_for(approve(stage, *NOT_RUN), "2.1 blocker", "nothing changed since")
    assert approve(stage, *NOT_RUN, text=dispositions("2.1 accepted")).code == 0


def test_hostile_answer_under_a_number_from_before_the_review_of_the_same_files(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    draft = stage.ok("claude", "claim", "--kind", "fix").out.strip()
    body, prompt = stage.file(dispositions("2.1 fixed so")), stage.file("go\n", "p")
    words = ("--body-file", body, "--prompt-for-next-file", prompt)
    stage.ok("claude", "draft", "set", draft, *words)
    write(stage, "app.py", "three\n")
    stage.send("claude", "fix", "# Better\n")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# As it was\n", "go", "--verdict", "changes")
    stage.ok("claude", "next")
    stage.ok("claude", "publish", draft)
    stage.ok("codex", "next")
    done = approve(stage, *NOT_RUN, "--reply-to", 3)
    refused_for(done, "2.1 blocker", "nothing changed since")


def test_what_came_before_the_request_is_delivered_before_it_is_approved(stage):
    _project(stage)
    write(stage, "app.py", "two\n")
    stage.send("claude", "note", "# Do not approve what comes next\n")
    stage.send("claude", "fix")
    refused_for(approve(stage, *NOT_RUN, "--reply-to", 2), "001 note by claude", "not delivered")
    stage.ok("codex", "next")
    assert approve(stage, *NOT_RUN, "--reply-to", 2).code == 0


def without(pair, stem, key):
    """An artifact as an earlier version recorded it, which did not know this key."""
    reseal(pair, stem, lambda s: {k: v for k, v in s.items() if k not in (key, "open", "settled")})


@pytest.mark.slow
def test_an_approval_of_2_0_accepts_what_was_fixed_before_it_and_no_more(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    write(stage, "app.py", "three\n")
    stage.send("claude", "fix", dispositions("2.1 fixed so"))
    stage.ok("codex", "next")
    approved(stage)
    without(asked, "004-codex-review", "accepts")
    stage.ok("claude", "next")
    stage.ok("claude", "export", "--statement")
    write(stage, "app.py", "four\n")
    stage.send("codex", "review", findings("major app.py:1 Wrong, too"))
    stage.ok("claude", "next")
    write(stage, "app.py", "three\n")
    stage.send("claude", "note", dispositions("5.1 fixed by what was approved"))
    refused_for(close(stage), "5.1 major", "codex has not accepted")


@pytest.mark.slow
def test_an_approval_that_does_not_name_the_runs_it_passes_over_passes_over_those_before_it(
    stage, asked
):
    stage.run("codex", "run", "--", "false")
    approved(stage, "--despite-failed", "known")
    without(asked, "002-codex-review", "excused")
    stage.ok("claude", "next")
    assert close(stage).code == 0
    assert "does not support" not in stage.ok("claude", "log", asked.name).out


def test_a_failed_run_of_the_peers_that_no_artifact_carries_is_excused_too(stage, asked):
    for _ in range(2):  # The first does not come to light where the second is excused.
        ran(stage, "false", author="claude", code=1)
    approved(stage, "--despite-failed", "it is known to")
    stage.ok("claude", "next")
    stage.send("claude", "note")
    assert len(sidecar(asked, 2)["excused"]) == 2
    ran(stage, "false", author="claude", code=1)
    refused_for(close(stage), "by claude exited with 1")
    stage.ok("codex", "next")
    approved(stage, "--reply-to", 1, "--despite-failed", "it is known to")
    stage.ok("claude", "next")
    assert close(stage).code == 0


def test_a_session_whose_slot_was_taken_over_acts_for_its_author_no_more(stage, asked):
    new = {"CODEX_THREAD_ID": "another"}
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    stage.ok("codex", "pair", "join", asked.name, "--take-over", **new)
    named = "--pair-id", asked.name
    assert "--take-over" in stage.refused("codex", "publish", draft).err
    for done in (approve(stage, *NOT_RUN, *named), stage.run("codex", "run", *named, "--", "true")):
        assert "--take-over" in done.err and done.code in (2, 125), done
    assert "--take-over" in close(stage, *named, author="codex", outcome="dropped").err
    assert approve(stage, *NOT_RUN, "--reply-to", 1, *named, **new).code == 0


def test_what_was_not_delivered_is_not_approved_by_a_draft_that_names_it(stage):
    stage.open_pair()
    write(stage, "app.py", "one\n")
    stage.send("claude", "fix")
    draft = stage.ok("codex", "claim", "--kind", "review").out.strip()
    words = ("--body-file", stage.file("# Fine\n"), "--prompt-for-next-file")
    stage.ok("codex", "draft", "set", draft, *words, stage.file("go\n", "p"))
    publishing = ("publish", draft, "--verdict", "approve", *NOT_RUN)
    refused_for(stage.run("codex", *publishing), "you have received nothing")
    assert stage.ok("codex", "next").action == "reply"
    assert stage.ok("codex", "next").action == "finish"
    stage.send("claude", "correction", "# It drops the table too\n", "go", "--corrects", "1")
    refused_for(stage.run("codex", *publishing), "003 correction by claude", "not delivered")
    assert "drops the table" in stage.ok("codex", "next").out
    stage.ok("codex", *publishing)


def test_a_base_branch_that_is_gone_is_named(stage):
    stage.git("checkout", "-q", "-b", "work")
    stage.ok("claude", "bootstrap", "--topic", "t", "--base", "main")
    stage.ok("codex", "next")
    write(stage, "app.py", "x\n")
    stage.send("claude", "fix")
    stage.ok("codex", "next")
    stage.git("branch", "-q", "-D", "main")
    ((why, hint),) = unmet(approve(stage, *NOT_RUN))
    assert "the base branch refs/heads/main is gone" in why
    for words in (
        ("next",),
        ("doctor",),
        ("show", "1", "--diff=now"),
        ("run", "--copy", "--", "true"),
    ):
        done = stage.run("codex", *words)
        assert hint in done.out + done.err, done
    stage.git(*hint.split()[1:])
    assert approve(stage, *NOT_RUN).code == 0


def test_what_the_user_confirmed_is_left_by_the_approval_itself(stage, asked):
    reviewed(stage, "blocker app.py:1 Wrong")
    write(stage, "app.py", "codex was here\n")
    stage.send("codex", "fix", "# Mine\n")
    stage.ok("claude", "next")
    answer = dispositions("2.1 wontfix too dear")
    ran(stage, "true", author="claude")
    assert "left only by the user" in approve_as(stage, "claude", text=answer).err
    stage.ok("claude", "continue")
    assert approve_as(stage, "claude", text=answer).code == 0


@pytest.mark.parametrize(
    "words", [("rm", "-q", "--cached", "new.py"), ("reset", "-q", "HEAD~1", "--", ".")]
)
def test_an_index_that_takes_back_what_head_has_is_in_the_way(stage, asked, words):
    approved(stage)
    stage.ok("claude", "next")
    commit(stage, "work")
    stage.git(*words)
    _, way = refused_for(close(stage), "the index differs", "new.py")
    assert stage.git(*shlex.split(way)[1:]), "it shows something"
    stage.git("add", "new.py", "app.py")
    assert close(stage).code == 0


def test_what_hands_ones_own_work_over_leads_to_its_approval(stage, asked):
    """Who was asked for changes sent what the other side had sent first: neither may approve that."""
    write(stage, "app.py", "codex was here\n")
    stage.send("codex", "fix", "# Mine\n")
    stage.send("codex", "review", "# No\n", "so", "--verdict", "changes")
    stage.ok("claude", "next")
    stage.send("claude", "fix", "# As yours\n")
    stage.ok("codex", "next")
    ran(stage, "true")
    _, way = refused_for(approve(stage), "004 hands nothing over")
    kind = re.search(r"--kind (\w+)", way)[1]
    stage.send("codex", kind, "# Then you\n")
    stage.ok("claude", "next")
    ran(stage, "true", author="claude")
    assert approve_as(stage, "claude").code == 0


def test_an_approval_is_of_the_request_and_not_of_a_note_after_it(stage, asked):
    write(stage, "app.py", "three\n")
    stage.send("claude", "note", "# By the way\n")
    stage.ok("codex", "next")
    ran(stage, "true")
    refused_for(approve(stage), "changed since 001: app.py (or")
    write(stage, "app.py", "two\n")
    approved(stage)
    assert sidecar(asked, 3)["request"]["name"] == "001-claude-fix"


@pytest.mark.slow
def test_next_takes_nothing_for_ones_own_work_because_who_sent_it_first_is_long_ago(stage, asked):
    for _ in range(10):
        stage.send("claude", "addendum")
    no_cap = {"RELAY_AUTO_ROUND_CAP": "0"}
    stage.send("codex", "fix", "# As you had it\n", **no_cap)
    stage.send("claude", "fix", "# Once more\n", **no_cap)
    stage.ok("codex", "next")
    ran(stage, "true")
    assert stage.ok("codex", "next", "--json", **no_cap).json["lacks"] == []
    assert approve(stage, "--dry-run").code == 0


def test_who_closes_over_ones_own_answered_finding_is_told_to_rule_on_it(stage, asked):
    """`next` says to wait there: it is nobody else's to settle."""
    write(stage, "app.py", "codex was here\n")
    stage.send("codex", "fix", "# Mine\n")
    stage.ok("claude", "next")
    stage.send("claude", "review", findings("blocker app.py:1 Wrong"), "mend it")
    stage.ok("codex", "next")
    stage.send("codex", "note", dispositions("3.1 refuted it is meant so"))
    stage.send("claude", "fix", "# As it is\n", "go", "--reply-to", 2)
    stage.ok("claude", "next")
    stage.send("claude", "note")
    assert stage.ok("claude", "next").action == "wait"
    rows = [why for why, _ in unmet(close(stage)) if why.startswith("3.1")]
    assert ["rule on it: `3.1 accepted`" in why for why in rows] == [True]


@pytest.mark.slow
def test_the_worktree_of_another_clone_is_as_one_on_another_machine(stage):
    """On one host, a synced ledger names a directory that exists, and is of another repository."""
    pair, place = worktree(stage)
    clone = stage.folder / "clone"
    shutil.copytree(stage.project, clone)
    stage.ok("codex", "next", cwd=clone)
    refused_for(approve(stage, *NOT_RUN, cwd=clone), "changed since 001", "app.py")
    shutil.copy(place / "app.py", clone / "app.py")
    ran(stage, "true", cwd=clone)
    assert approve(stage, cwd=clone).code == 0
    assert not (pair / "002-codex-review.ready").exists()
