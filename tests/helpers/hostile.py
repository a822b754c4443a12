"""Ledgers from elsewhere with everything wrong in them, and every command of the table to try them with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import socket
import sys

from conftest import RELAY

CANARY = "canary-that-must-never-be-read"
DOCUMENTED = {0, 1, 2, 3, 10, 11, 12, 13, 125, 126, 127}
SIDES = (".seq", ".seen", ".sent", ".evidence", ".draft", "archive")

# ---------------------------------------------------------------- every command

# What a word of a command line stands for; a new metavar needs a value here only where this one will not do.
WORDS = {
    "SLUG": "{pair}",
    "FILE": "{body}",
    "N": "1",
    "SEQ": "1",
    "DRAFT": "{draft}",
    "SECONDS": "0",
    "TOPIC": "other",
    "AGE": "1h",
    "AUTHOR": "codex",
    "COMMAND": "true",
    "HOST": "host",
    "ID": "x",
    "COMMAND|TOPIC": "next",
    "WORD": "claude",
}
NOT_ALONE = {
    "demo",
    "watch",
}  # the one has a scratch project of its own, the other goes on until it is stopped
MORE = {
    "wait": ["--timeout", "0"],
    "bootstrap": ["--force"],
    "hook": ["SessionStart"],
    "doctor": ["--fix"],
    "verify": ["--all"],
    "send": ["--file", "{body}", "--next", "go on"],
    "pair join": ["--take-over"],
    "findings": ["--all"],
}
AGAIN = [
    ["pairs", "archive", "--terminated"],
    ["pairs", "list", "--archived"],
    ["hook", "claude", "Stop"],
    ["hook", "claude", "UserPromptSubmit"],
    ["hook", "codex", "SessionStart"],
    ["verify"],
    ["show"],
    ["show", "1"],
    ["status", "--pair-id", "{pair}", "--last", "5"],
]


def lines_of(command) -> list[list[str]]:
    """The command lines to try a command with: as it is, and as JSON where it can."""
    words = command.words.split()
    for each in command.arguments:
        metavar = each.options.get("metavar", "")
        choices = each.options.get("choices", ())
        if each.options.get("required"):
            words += [each.name, choices[-1] if choices else WORDS.get(metavar, "some text")]
    words += MORE.get(command.words, [])
    operands = [each.options["metavar"] for each in command.arguments if not each.is_flag]
    words += [WORDS.get(metavar, metavar) for metavar in operands]
    if command.words == "hook":
        words = ["hook", "claude", "SessionStart"]
    json = any(each.name == "--json" for each in command.arguments)
    return [words, [*words, "--json"]] if json else [words]


def all_lines() -> list[list[str]]:
    """Every command, those that only look before those that change, `close` and the like last."""
    rows = [
        line
        for command in RELAY.COMMANDS
        if command.words not in NOT_ALONE
        for line in lines_of(command)
    ]
    late = ("close", "pairs", "pair")
    return sorted(
        [*rows, *AGAIN],
        key=lambda line: (line[0] in late, line[0] == "close", line[:2] == ["pairs", "restore"]),
    )


# ---------------------------------------------------------------- the watch


class Watch:
    """Sees what this process opens or lists; a link in the last place that is not followed is nothing opened."""

    def __init__(self):
        self.outside: list[tuple[str, str]] = []
        self.root = ""

    def __call__(self, event, given):
        if not self.root or event not in (
            "open",
            "os.listdir",
            "os.scandir",
            "os.link",
            "os.remove",
            "os.rename",
            "os.rmdir",
            "os.utime",
            "os.chmod",
            "os.truncate",
        ):
            return
        for path in given[:2] if event in ("os.link", "os.rename") else given[:1]:
            if not isinstance(path, (str, bytes)):
                continue
            path = os.fsdecode(path)
            unfollowed = event in ("os.link", "os.rename", "os.remove", "os.rmdir") or (
                event == "open" and isinstance(given[2], int) and given[2] & os.O_NOFOLLOW
            )
            root, self.root = self.root, ""
            real = (
                os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
                if unfollowed
                else os.path.realpath(path)
            )
            self.root = root
            if real.startswith(root):
                self.outside.append((event, path))


WATCH = Watch()
_WATCHING: list[bool] = []


@contextlib.contextmanager
def watched(folder):
    """Within, whatever touches this folder through any name is kept in the list that is given."""
    if not _WATCHING:
        sys.addaudithook(WATCH)
        _WATCHING.append(True)
    WATCH.root, WATCH.outside = os.path.realpath(folder), []
    try:
        yield WATCH.outside
    finally:
        WATCH.root = ""


def canaries(stage) -> pathlib.Path:
    """A folder outside the ledger, laid out like a ledger and like a pair, with words that must never be shown."""
    folder = stage.folder / "canary"
    folder.mkdir(exist_ok=True)
    for name in (*SIDES, "bindings", "hook-state", "tree", "issues"):
        (folder / name).mkdir(exist_ok=True)
        for leaf in ("note.md", "claude.jsonl", "file"):
            (folder / name / leaf).write_text(CANARY)
    for name in (
        "session.json",
        "CLOSED",
        "file",
        "001-claude-plan.md",
        "001-claude-plan.json",
        "README.md",
    ):
        (folder / name).write_text(CANARY)
    return folder


# ---------------------------------------------------------------- artifacts by the thousand

SESSION = {
    "schema_version": 3,
    "project": "p",
    "session_id": "",
    "title": "t",
    "state": "active",
    "created_at": "2026-01-01T00:00:00Z",
    "closed_at": None,
    "close_reason": None,
    "participants": ["claude", "codex"],
    "created_by": "codex",
    "base_commit": None,
}


def write_pair(shared, slug, artifacts=0, **session) -> pathlib.Path:
    """A pair as 1.x and 2.x know it, written straight to the disk."""
    folder = pathlib.Path(shared) / slug
    folder.mkdir(parents=True)
    (folder / "session.json").write_text(json.dumps({**SESSION, "session_id": slug, **session}))
    for seq in range(1, artifacts + 1):
        write_artifact(folder, seq, ("claude", "codex")[seq % 2])
    return folder


def write_artifact(folder, seq, author, kind="note", created="2026-01-01T00:00:00Z", body="text\n"):
    """One artifact of 1.x, whole."""
    peer = {"claude": "codex", "codex": "claude"}[author]
    text = (
        f"---\nseq: {seq}\nauthor: {author}\npeer: {peer}\nkind: {kind}\nstatus: ready\ncreated: {created}\nin_reply_to: null\n"
        f"prompt_for_next: |\n  go on\nsync_needed: false\ntouched_paths: []\n---\n{body}"
    ).encode()
    base = f"{folder}/{seq:03}-{author}-{kind}"
    for suffix, content in (
        (".md", text),
        (
            ".md.sha256",
            f"{hashlib.sha256(text).hexdigest()}  {os.path.basename(base)}.md\n".encode(),
        ),
        (".ready", b""),
    ):
        handle = os.open(base + suffix, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(handle, content)
        os.close(handle)


def make_socket(path):
    """A socket with this name; names too long for one are reached from their folder."""
    here = os.getcwd()
    os.chdir(os.path.dirname(path))
    try:
        socket.socket(socket.AF_UNIX).bind(os.path.basename(path))
    finally:
        os.chdir(here)
