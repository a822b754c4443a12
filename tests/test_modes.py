"""What relay writes is its user's alone, hidden from git, and nowhere but in the ledger and the issue directory."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

UMASKS = ("000", "022", "077", "0777")


def under(umask):
    """A command prefix that runs a program under this umask."""
    return "/bin/sh", "-c", f'umask {umask}; exec "$0" "$@"'


def play(stage, step):
    """A short review that writes every kind of file; `step` runs one command."""
    text = stage.file("# Text\n\n## Next\nLook.\n")
    slug = step("claude", "bootstrap", "--topic", "t").out.split()[0]
    step("codex", "next")
    step("claude", "send", "--kind", "plan", "--file", text)
    step("codex", "next")
    draft = step("codex", "claim", "--kind", "review").out.split("\n")[0]
    step("codex", "draft", "set", draft, "--body-file", text, "--prompt-for-next-file", text)
    step("codex", "publish", draft)
    step("codex", "claim", "--kind", "note")
    step("claude", "next")
    step("claude", "continue")
    step("claude", "issue", "add", "--title", "t", "--body", "b")
    step("claude", "preflight")
    step("claude", "bootstrap", "--topic", "u", "--force")
    step("claude", "close", "--reason", "r", "--pair-id", slug)
    step("claude", "doctor", "--fix")


def open_to_others(*roots):
    """Every path below that is not 0700 or 0600."""
    found = {}
    for root in roots:
        for path in [root, *root.rglob("*")]:
            mode = path.lstat().st_mode
            private = (0o700,) if stat.S_ISDIR(mode) else (0o600, 0o400)
            if stat.S_IMODE(mode) not in private:
                found[str(path)] = oct(mode)
    return found


@pytest.mark.parametrize("umask", UMASKS)
@pytest.mark.parametrize("process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_folders_are_0700_and_files_0600_under_any_umask(stage, umask, process):
    def step(author, *words):
        if process:
            done = stage.process(author, *words, before=under(umask))
        else:
            done = stage.run(author, *words, umask=int(umask, 8))
        assert done.code == 0, (words, done)
        return done

    play(stage, step)
    written = (stage.shared, stage.home / ".agent-ledger")
    assert open_to_others(*written) == {}
    kinds = {path.name.split(".", 1)[-1] for path in stage.shared.rglob("*") if path.is_file()}
    assert kinds >= {"md", "md.sha256", "ready", "json", "jsonl", "CLOSED", "gitignore", "sentinel"}


def test_folders_that_lead_to_a_folder_of_issues_are_its_users_alone_too(stage):
    stage.process(
        "claude",
        "issue",
        "add",
        "--title",
        "t",
        before=under("000"),
        RELAY_ISSUES_DIR=f"{stage.home}/a/b/c",
    )
    assert open_to_others(stage.home / "a") == {}


def test_git_sees_nothing_of_the_ledger(stage):
    play(stage, stage.ok)
    assert (stage.shared / ".gitignore").read_text() == "*\n"
    assert stage.git("status", "--porcelain", "--untracked-files=all") == ""
    stage.git("add", "-A")
    assert stage.git("diff", "--cached", "--name-only") == ""


def test_a_gitignore_that_is_there_is_left_as_it_is(stage):
    stage.shared.mkdir()
    (stage.shared / ".gitignore").write_text("mine\n")
    stage.open_pair()
    assert (stage.shared / ".gitignore").read_text() == "mine\n"


LOOKING = (
    "status",
    "status --json",
    "status --last 2",
    "status --require-binding",
    "show",
    "show 1",
    "show 1 --json",
    "log",
    "log --json",
    "brief",
    "brief --json",
    "pairs list",
    "pairs list --archived --json",
    "pair show",
    "whoami",
    "whoami --json",
    "version",
    "version --json",
    "issue list",
    "issue list --json",
    "help",
    "help send",
    "hook claude Stop",
    "--version",
    "--help",
    "pair ensure",
    "findings",
    "findings --all --json",
    "verify",
    "verify --all --json",
    "hooks status",
    "hooks doctor",
    "hooks rules",
    "hooks install --dry-run --target both",
    "hooks uninstall --dry-run --target both",
    "statusline",
    "statusline --json",
    "statusline install --dry-run",
    "statusline uninstall --dry-run",
    "statusline doctor",
    "watch",
    "watch --all",
    "help topics",
)


@pytest.mark.slow
def test_no_command_writes_outside_the_ledger_and_the_folder_of_issues(stage, relay):
    """Every row of the table of commands, from a subfolder; the demo plays in a temporary folder that it removes."""
    sub, scratch = stage.project / "sub", stage.folder / "scratch"
    sub.mkdir()
    scratch.mkdir()
    text = stage.file("# Text\n\n## Next\nLook.\n")
    stage.link_skill()
    slug = stage.open_pair().name
    before = outside(stage)
    done = []

    def step(line, author="claude"):
        words = [str(text) if word == "FILE" else word for word in line.split()]
        ended = stage.process(author, *words, cwd=sub, TMPDIR=str(scratch))
        assert ended.code not in (2, 70), (line, ended)
        done.append(line)
        return ended.out.split("\n")[0]

    for line in (
        "init",
        "preflight",
        *LOOKING[:4],
        "wait --timeout 0",
        "next",
        "next --wait 0.1",
        "send --kind plan --file FILE",
        "send --kind plan --file FILE",
        "heartbeat start",
        "heartbeat tick",
        "heartbeat stop",
        "continue",
        "run -- true",
    ):
        step(line)
    step("wait --timeout 0", "codex")
    step("next", "codex")
    draft = step("claim --kind review", "codex")
    step(f"draft set {draft} --body-file FILE --prompt-for-next-file FILE", "codex")
    step(f"publish {draft}", "codex")
    issue = os.path.basename(step("issue add --title t --body-file FILE"))[:-3]
    step(f"issue show {issue}")
    step(f"issue resolve {issue}")
    for line in (
        *LOOKING[4:],
        "export --html -",
        "pair leave",
        f"pair join {slug}",
        "close --reason r --no-archive",
        f"pairs archive {slug}",
        f"pairs restore {slug}",
        "bootstrap --topic u",
        "doctor --fix",
        "restore",
        "pairs prune --older-than 30d",
        f"forget {slug} --yes",
        "demo",
    ):
        step(line)
    untried = {c.words for c in relay.COMMANDS} - {
        " ".join(line.split()[:n]) for line in done for n in (1, 2)
    }
    # Where sync writes, which takes a second machine, is held by test_sync_trouble.py.
    assert untried == {"sync push", "sync pull"}
    after = outside(stage)
    assert after == before, {
        path for path in {*before, *after} if before.get(path) != after.get(path)
    }


def outside(stage):
    """The whole stage but for the ledger and the issues; a folder counts by its mode, for it holds those two."""
    ours = str(stage.shared), str(stage.home / ".agent-ledger"), str(stage.project / ".git/relay")
    found = stage.snapshot().items()
    return {
        path: (held[0], held[2])
        for path, held in found
        if path not in ours and not path.startswith(tuple(f"{own}/" for own in ours))
    }


@pytest.mark.parametrize("code", [2, 12])
def test_a_failing_command_leaves_no_temporary(stage, code):
    stage.open_pair()
    words = (
        ("send", "--kind", "plan", "--file", "/nonexistent")
        if code == 2
        else ("next", "--exit-code")
    )
    if code == 12:
        stage.ok("codex", "close", "--reason", "r")
    assert stage.run("claude", *words).code == code
    assert stage.litter() == []


def test_another_homes_issues_are_not_touched(stage):
    other = stage.folder / "issues"
    stage.ok("claude", "issue", "add", "--title", "t", RELAY_ISSUES_DIR=str(other))
    assert len([*other.glob("*.md")]) == 1
    assert not (stage.home / ".agent-ledger").exists()
    shutil.rmtree(other)
