"""One project has one ledger, from wherever in it relay is run; what is uncertain is refused, and nothing is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from conftest import SCRIPT, keyboard


def ledger(stage, cwd, **env):
    """The ledger that this folder leads to."""
    return stage.ok("claude", "pairs", "list", "--json", cwd=cwd, **env).json["shared_root"]


def refused(stage, cwd, *words, says, **env):
    before = stage.snapshot()
    done = stage.run("claude", *(words or ("bootstrap", "--topic", "t")), cwd=cwd, **env)
    assert done.code == 2, done
    assert says in done.err
    assert stage.snapshot() == before
    return done


@pytest.fixture
def elsewhere(stage):
    folder = stage.folder / "elsewhere"
    folder.mkdir()
    return folder


# ---------------------------------------------------------------- within a checkout


def test_every_subfolder_leads_to_the_same_ledger(stage):
    deep = stage.project / "a" / "b c" / "d'e"
    deep.mkdir(parents=True)
    for folder in (
        stage.project,
        deep,
        deep.parent,
        stage.project / ".git",
        stage.project / ".git" / "refs",
    ):
        assert ledger(stage, folder) == str(stage.shared)


def test_a_symlinked_checkout_is_the_same_project(stage):
    link = stage.folder / "link"
    link.symlink_to(stage.project)
    (stage.project / "sub").mkdir()
    slug = stage.open_pair().name
    for cwd in (link, link / "sub"):
        assert ledger(stage, cwd) == str(stage.shared)
        done = stage.process("claude", "pair", "show", "--json", cwd=cwd, PWD=str(cwd))
        assert done.json["bound_pair"]["session_id"] == slug


def test_a_linked_worktree_leads_to_the_main_ones_ledger(stage, elsewhere):
    for place in (elsewhere / "linked", stage.project / "inside"):
        stage.git("worktree", "add", "-q", "-b", place.name, place)
        (place / "sub").mkdir()
        for cwd in (place, place / "sub"):
            assert ledger(stage, cwd) == str(stage.shared)


def test_two_agents_in_two_worktrees_review_in_one_ledger(stage, elsewhere):
    linked = elsewhere / "linked"
    stage.git("worktree", "add", "-q", linked)
    stage.ok("claude", "bootstrap", "--topic", "t", cwd=linked)
    stage.ok("codex", "next")
    stage.ok(
        "claude",
        "send",
        "--kind",
        "plan",
        "--file",
        stage.file("# P\n"),
        "--next",
        "look",
        cwd=linked,
    )
    told = stage.ok("codex", "next", "--json").json
    assert told["action"] == "reply"
    assert told["artifacts"][0]["worktree_root"] == str(linked)
    assert not (linked / ".shared").exists()


def test_a_linked_worktree_through_a_link_and_with_relative_paths(stage, elsewhere):
    linked = elsewhere / "linked"
    stage.git("worktree", "add", "-q", linked)
    (stage.folder / "link").symlink_to(linked)
    assert ledger(stage, stage.folder / "link") == str(stage.shared)
    (linked / ".git").write_text(
        f"gitdir: {os.path.relpath(stage.project / '.git/worktrees/linked', linked)}\n"
    )
    assert ledger(stage, linked) == str(stage.shared)


def test_a_locked_or_detached_worktree_and_an_unborn_branch_are_places_too(stage, elsewhere):
    linked = elsewhere / "linked"
    stage.git("worktree", "add", "-q", "--detach", linked)
    stage.git("worktree", "lock", linked)
    assert ledger(stage, linked) == str(stage.shared)
    unborn = elsewhere / "unborn"
    unborn.mkdir()
    stage.git("init", "-q", cwd=unborn)
    stage.ok("claude", "bootstrap", "--topic", "t", cwd=unborn)
    assert ledger(stage, unborn) == f"{unborn}/.shared"


def test_an_environment_that_points_git_elsewhere_moves_nothing(stage, elsewhere):
    stage.git("init", "-q", cwd=elsewhere)
    env = {
        "GIT_DIR": f"{elsewhere}/.git",
        "GIT_WORK_TREE": str(elsewhere),
        "GIT_COMMON_DIR": f"{elsewhere}/.git",
    }
    assert ledger(stage, stage.project, **env) == str(stage.shared)


# ---------------------------------------------------------------- layouts of git


@pytest.fixture
def bare(stage, elsewhere):
    return (
        stage.git("clone", "-q", "--bare", stage.project, elsewhere / "repo.git")
        or elsewhere / "repo.git"
    )


def test_a_worktree_of_a_bare_repository_has_its_own_ledger(stage, elsewhere, bare):
    linked = elsewhere / "linked"
    stage.git("worktree", "add", "-q", linked, cwd=bare)
    (linked / "sub").mkdir()
    assert ledger(stage, linked / "sub") == f"{linked}/.shared"


def test_a_bare_repository_itself_is_no_place_for_a_ledger(stage, bare):
    refused(stage, bare, says="not inside a git repository")


def test_a_bare_repository_in_a_hidden_folder_with_worktrees_beside_it(stage, elsewhere):
    """The layout `project/.bare`, with a `.git` file that names it."""
    stage.git("clone", "-q", "--bare", stage.project, elsewhere / ".bare")
    (elsewhere / ".git").write_text("gitdir: ./.bare\n")
    stage.git("worktree", "add", "-q", "-b", "topic", elsewhere / "topic", cwd=elsewhere)
    assert ledger(stage, elsewhere / "topic") == f"{elsewhere}/topic/.shared"
    assert ledger(stage, elsewhere) == f"{elsewhere}/.shared"


@pytest.mark.parametrize("word", ["true", "yes"])
def test_a_bare_repository_named_dot_git(stage, elsewhere, word):
    stage.git("clone", "-q", "--bare", stage.project, elsewhere / ".git")
    stage.git("config", "core.bare", word, cwd=elsewhere / ".git")
    stage.git("worktree", "add", "-q", "-b", "topic", elsewhere / "topic", cwd=elsewhere / ".git")
    assert ledger(stage, elsewhere / "topic") == f"{elsewhere}/topic/.shared"


def test_a_submodule_has_its_own_ledger_and_shares_it_with_its_worktrees(stage, elsewhere):
    stage.git("init", "-q", cwd=elsewhere)
    stage.git("commit", "-q", "--allow-empty", "-m", "x", cwd=elsewhere)
    stage.git("submodule", "--quiet", "add", elsewhere, "sub")
    sub = stage.project / "sub"
    assert ledger(stage, sub) == f"{sub}/.shared"
    linked = stage.folder / "linked"
    stage.git("worktree", "add", "-q", linked, cwd=sub)
    assert ledger(stage, linked) == f"{sub}/.shared"


def test_a_git_folder_kept_apart_from_its_checkout(stage, elsewhere):
    stage.git("init", "-q", f"--separate-git-dir={elsewhere / 'apart'}", stage.folder / "checkout")
    assert ledger(stage, stage.folder / "checkout") == f"{stage.folder}/checkout/.shared"


def test_a_worktree_of_a_git_folder_kept_apart_leads_to_the_same_ledger_or_says_so(
    stage, elsewhere
):
    checkout, linked = stage.folder / "checkout", stage.folder / "linked"
    stage.git("init", "-q", f"--separate-git-dir={elsewhere / 'apart'}", checkout)
    stage.git("commit", "-q", "--allow-empty", "-m", "x", cwd=checkout)
    stage.git("worktree", "add", "-q", linked, cwd=checkout)
    done = stage.run("claude", "pairs", "list", "--json", cwd=linked)
    assert done.code == 2 or done.json["shared_root"] == f"{checkout}/.shared"


def test_a_dot_git_that_is_a_link(stage, elsewhere):
    shutil.move(stage.project / ".git", elsewhere / ".git")
    (stage.project / ".git").symlink_to(elsewhere / ".git")
    assert ledger(stage, stage.project) == str(stage.shared)


@pytest.mark.parametrize("stray", ["empty folder", "empty file", "text"])
def test_a_stray_dot_git_is_passed_over(stage, stray):
    folder = stage.project / "sub"
    folder.mkdir()
    if stray == "empty folder":
        (folder / ".git").mkdir()
    else:
        (folder / ".git").write_text({"empty file": "", "text": "hello\n"}[stray])
    assert ledger(stage, folder) == str(stage.shared)


def test_a_stray_dot_git_outside_every_repository_is_refused(stage, elsewhere):
    (elsewhere / ".git").mkdir()
    refused(stage, elsewhere, says="not inside a git repository")


def test_a_worktree_whose_repository_is_gone_is_refused(stage, elsewhere):
    linked = elsewhere / "linked"
    stage.git("worktree", "add", "-q", linked)
    stage.project.rename(stage.folder / "moved")
    refused(stage, linked, says="which does not exist")


def test_a_lost_worktree_inside_another_project_does_not_write_into_that_one(stage, elsewhere):
    """git itself refuses such a folder; its artifacts must not land in a stranger's ledger."""
    stage.git("init", "-q", cwd=elsewhere)
    linked = elsewhere / "linked"
    stage.git("worktree", "add", "-q", linked)
    stage.project.rename(stage.folder / "moved")
    refused(stage, linked, says="")


def test_outside_git_every_command_that_needs_a_ledger_says_what_to_do(stage, elsewhere):
    for words in (
        ("next",),
        ("status",),
        ("wait",),
        ("bootstrap", "--topic", "t"),
        ("init",),
        ("doctor",),
        ("pairs", "list"),
    ):
        assert (
            "RELAY_SHARED_ROOT"
            in refused(stage, elsewhere, *words, says="not inside a git repository").err
        )
    assert stage.ok("claude", "whoami", "--json", cwd=elsewhere).json["author"] == "claude"
    assert stage.run("claude", "preflight", cwd=elsewhere).code == 2
    stage.ok("claude", "version", cwd=elsewhere)


# ---------------------------------------------------------------- RELAY_SHARED_ROOT


def test_a_shared_root_is_used_from_everywhere(stage, elsewhere):
    root = str(stage.folder / "led ger" / ".shared")
    os.mkdir(os.path.dirname(root))
    slug = stage.ok("claude", "bootstrap", "--topic", "t", RELAY_SHARED_ROOT=root).out.split()[0]
    assert os.path.isdir(f"{root}/{slug}")
    assert stage.ok("codex", "next", cwd=elsewhere, RELAY_SHARED_ROOT=f"{root}/").action == "wait"
    assert not stage.shared.exists()


def test_a_shared_root_may_start_with_the_home_and_may_be_a_link(stage):
    (stage.home / "ledger").mkdir()
    (stage.home / "link").symlink_to(stage.home / "ledger")
    for given in ("~/ledger", "~/link", f"{stage.home}/link", f" {stage.home}/ledger "):
        assert ledger(stage, stage.project, RELAY_SHARED_ROOT=given) == f"{stage.home}/ledger"


@pytest.mark.parametrize("given", ["shared", "./shared", "../x", ".shared", "$HOME/x"])
def test_a_relative_shared_root_is_refused(stage, given):
    for words in (("bootstrap", "--topic", "t"), ("next",), ("status",)):
        refused(
            stage, stage.project, *words, says="is not an absolute path", RELAY_SHARED_ROOT=given
        )


def test_a_shared_root_on_a_mount_that_is_missing_is_refused(stage):
    root = f"{stage.folder}/mount/gone/.shared"
    """Also by what only reads: no pair in sight is not no pair, and no `next:` line can work."""
    before = stage.snapshot()
    for words in ("bootstrap --topic t", "init", "next", "status", "pairs list", "doctor"):
        refused(stage, stage.project, *words.split(), says="not exist", RELAY_SHARED_ROOT=root)
    assert stage.snapshot() == before


def test_what_the_user_types_finds_the_ledger_from_any_terminal(stage):
    place = {"RELAY_SHARED_ROOT": str(stage.folder / "led ger")}
    stage.ok("claude", "bootstrap", "--topic", "t", **place)
    stage.send("claude", "decision", ask="@user: may we?", **place)
    user_types = stage.refused("claude", "continue", typed=False, **place).err.partition("s: ")[2]
    with keyboard(True) as terminal:
        command, env = ["sh", "-c", user_types], stage.user_env("claude")
        done = subprocess.run(command, cwd="/", env=env, stdin=terminal, capture_output=True)
    assert b"the user decided to continue" in done.stdout, done


def test_a_shared_root_that_is_a_file_is_refused(stage):
    root = stage.file("text", "ledger")
    for words in (("bootstrap", "--topic", "t"), ("init",)):
        refused(
            stage, stage.project, *words, says="is not a directory", RELAY_SHARED_ROOT=str(root)
        )


def test_a_shared_root_that_is_the_checkout_itself_is_refused(stage):
    """The ledger's .gitignore of `*` would hide the whole project from git."""
    refused(stage, stage.project, says="", RELAY_SHARED_ROOT=str(stage.project))


def test_an_empty_shared_root_counts_as_unset(stage):
    assert ledger(stage, stage.project, RELAY_SHARED_ROOT=" ") == str(stage.shared)


# ---------------------------------------------------------------- what stands in the ledger's place


@pytest.mark.parametrize(
    "words",
    [("bootstrap", "--topic", "t"), ("next",), ("status",), ("init",), ("doctor",)],
    ids=" ".join,
)
def test_a_ledger_that_is_a_link_is_refused_with_the_way_to_mean_it(stage, elsewhere, words):
    stage.shared.symlink_to(elsewhere)
    assert (
        f"RELAY_SHARED_ROOT={elsewhere}"
        in refused(stage, stage.project, *words, says="is a symlink").err
    )


def test_a_file_in_the_ledgers_place_is_refused(stage):
    stage.shared.write_text("")
    refused(stage, stage.project, says="is not a directory")


@pytest.mark.parametrize("inner", ["_relay", "_relay/bindings"])
def test_a_link_within_the_ledger_is_not_followed(stage, elsewhere, inner):
    (stage.shared / inner).parent.mkdir(parents=True)
    (stage.shared / inner).symlink_to(elsewhere)
    before = stage.snapshot(elsewhere)
    assert stage.run("claude", "bootstrap", "--topic", "t").code == 2
    assert stage.snapshot(elsewhere) == before


def test_a_pair_that_is_a_link_is_named_to_everybody_until_it_is_moved_away(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    pair.rename(stage.folder / "moved")
    pair.symlink_to(stage.folder / "moved")
    for author in (None, "gemini", "claude"):
        for words in ("status", "log", "doctor", "verify --all", "next"):
            if author or words != "next":
                done = stage.run(author, *words.split())
                assert done.code and f"{pair} is a symlink" in done.out + done.err, (author, words)
    assert pair.name in stage.ok(None, "pairs", "list").out
    assert "'s terminal" not in stage.ok("claude", "pair", "show").out, "whose is not known"
    restored = stage.run("claude", "restore")
    assert restored.code == 1 and "nothing is missing" not in restored.out
    move = re.search("hint: move it away: mv (.*)", stage.run(None, "status").err)[1]
    os.rename(*move.split())
    assert f"relay restore {pair.name}" in stage.run(None, "status").err
    stage.ok(None, "restore", pair.name)
    assert stage.run("codex", "next").action == "reply"


@pytest.mark.parametrize("side", [".draft", ".seq", ".seen", ".sent"])
def test_a_folder_of_a_pair_that_is_a_link_is_not_written_through(stage, elsewhere, side):
    pair = stage.open_pair()
    shutil.rmtree(pair / side, ignore_errors=True)
    (pair / side).symlink_to(elsewhere)
    before = stage.snapshot(elsewhere)
    stage.run("claude", "send", "--kind", "plan", "--file", stage.file("# P\n"), "--next", "x")
    stage.run("codex", "next")
    stage.run("codex", "continue")
    assert stage.snapshot(elsewhere) == before


def test_an_archive_that_is_a_link_is_not_written_through(stage, elsewhere):
    stage.open_pair()
    (stage.shared / "_archive").symlink_to(elsewhere)
    stage.run("claude", "close", "--reason", "r")
    assert not os.listdir(elsewhere)


@pytest.mark.parametrize("command", ["next", "status", "whoami"])
def test_a_current_folder_that_is_gone_is_said_plainly(stage, elsewhere, command):
    script = f'cd "{elsewhere}" && rmdir "{elsewhere}" && exec "$0" {command}'
    done = stage.process("claude", command, before=("/bin/sh", "-c", script))
    assert done.code == 2
    assert "the current directory is gone" in done.err
    assert "Traceback" not in done.err


# ---------------------------------------------------------------- names


NAMES = [
    "with space",
    "qu'o\"te",
    "$(touch x)`touch y`;&",
    "ünïcödé 🦀",
    "-dash",
    "new\nline",
    "b\\s",
    "*?[a]",
    b"lat\xe9n",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_project_of_any_name_carries_a_turn(stage, name):
    place = os.fsencode(stage.folder) + b"/" + os.fsencode(name)
    os.rename(stage.project, place)
    place = os.fsdecode(place)
    send = "send", "--kind", "plan", "--next", "look", "--file"
    for words in (("bootstrap", "--topic", "t"), (*send, stage.file("# P\n"))):
        done = stage.run("claude", *words, cwd=place)
        assert done.code == 0, done
    told = stage.run("codex", "next", cwd=place)
    assert told.code == 0, told
    assert told.action == "reply"
    for words in (
        ("status",),
        ("status", "--json"),
        ("log",),
        ("brief",),
        ("doctor",),
        ("pairs", "list", "--json"),
        ("preflight",),
    ):
        done = stage.run("codex", *words, cwd=place)
        assert done.code in (0, 1), (words, done)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_relay_in_a_folder_of_any_name_prints_commands_that_can_be_pasted(
    stage, monkeypatch, name
):
    folder = os.path.join(os.fsencode(stage.folder), b"bin of " + os.fsencode(name))
    os.mkdir(folder)
    relay = os.fsdecode(folder) + "/relay"
    if name == NAMES[-1]:  # Compiled there, too.
        shutil.copy(SCRIPT, relay)
    else:
        os.symlink(SCRIPT, relay)
    stage.ok("claude", "bootstrap", "--topic", "t")
    env = stage.env("codex", LC_ALL="C.UTF-8")
    monkeypatch.setattr("conftest.SCRIPT", relay)
    told = os.fsencode(stage.ok("codex", "next").out)
    command = told.rstrip(b"\n").partition(b"next: ")[2].replace(b"--wait", b"--exit-code")
    again = subprocess.run(
        command, shell=True, cwd=stage.project, env=env, capture_output=True, timeout=30
    )
    assert again.returncode == 10, again
    assert again.stdout.startswith(b"action: wait")


def test_a_ledger_outside_the_project_is_nothing_that_preflight_fails_over(stage):
    """`unset RELAY_SHARED_ROOT`, as it would say then, leads to a project without the pair."""
    place = {"RELAY_SHARED_ROOT": str(stage.folder / "ledger")}
    stage.ok("claude", "bootstrap", "--topic", "t", **place)
    assert "env.elsewhere" not in stage.ok("claude", "preflight", **place).out


def test_preflight_warns_where_the_variable_passes_over_the_projects_own_ledger(stage):
    stage.open_pair()
    place = {"RELAY_SHARED_ROOT": str(stage.folder / "ledger")}
    stage.ok("claude", "bootstrap", "--topic", "t", **place)
    done = stage.run("claude", "preflight", **place)
    assert done.code == 1 and "env.elsewhere; hint: unset RELAY_SHARED_ROOT" in done.out
    place = {"RELAY_SHARED_ROOT": str(stage.shared)}
    assert "env.elsewhere" not in stage.run("claude", "preflight", **place).out


@pytest.mark.parametrize("wrong", [("--topic", "t", "--peer", "No!"), ("--topic", "!!!")])
def test_a_hint_after_a_forced_bootstrap_is_forced_too(stage, wrong):
    stage.open_pair()
    hint = stage.refused("claude", "bootstrap", "--force", *wrong).err.split("hint: ")[1]
    stage.ok("claude", *hint.split()[1:])
