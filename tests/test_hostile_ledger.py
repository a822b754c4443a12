"""A ledger from elsewhere, with everything wrong in it: every command is bounded, names the fault, follows nothing."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest
from conftest import RELAY, SCRIPT, Stage
from helpers.hostile import (
    CANARY,
    DOCUMENTED,
    NOT_ALONE,
    SESSION,
    SIDES,
    all_lines,
    canaries,
    make_socket,
    watched,
    write_artifact,
    write_pair,
)

LINES = all_lines()
HOT = [
    line
    for line in LINES
    if line[0] in ("next", "status", "wait", "brief", "statusline", "hook", "show", "verify")
    and "--json" not in line
]
PLAIN = [
    line
    for line in LINES
    if "--json" not in line
    and line[0] not in ("hooks", "issue", "help", "version", "completion", "doctor")
]
TOLD = b'{"session_id": "session-of-claude", "source": "startup"}'


def two_pairs(stage):
    """A pair with a turn each way, a draft and a run, and an older one beside it."""
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "review", "# R\n", "fix", "--reply-to", "1")
    stage.ok("claude", "next")
    draft = stage.ok("claude", "claim", "--kind", "note").out.strip()
    write_pair(stage.shared, "20260101-old", 2)
    return pair, draft


def filled(stage, line, pair, draft="nothing"):
    return [
        word.format(pair=pair.name, body=stage.file("# B\n", "b.md"), draft=draft) for word in line
    ]


def tame(done, most=100_000):
    """An ending that is documented, without a traceback, a raw escape or a word of the canary, and not endless."""
    said = done.out + done.err
    assert done.code in DOCUMENTED, done
    assert "Traceback" not in said
    assert CANARY not in said
    assert not {"\x1b", "\x9b", "\r"} & set(said), repr(done)
    assert len(said) < most, len(said)
    assert not any(
        raw in said for raw in ("Errno", "Not a directory", "Is a directory", "No such device")
    ), done
    return done


def all_tame(stage, pair, lines, draft="nothing", most=100_000):
    """Types every line; nothing outside the ledger is opened or changed."""
    canary = canaries(stage)
    before = stage.snapshot(canary)
    with watched(canary) as touched:
        for line in lines:
            words = filled(stage, line, pair, draft)
            tame(stage.run("claude", *words, stdin=TOLD), most)
            assert not touched, (words, touched)
    assert stage.snapshot(canary) == before


def put(path, what, canary):
    """Something else in the place of a file or folder."""
    target = (
        canary / path.name
        if (canary / path.name).exists()
        else canary
        if path.is_dir()
        else canary / "file"
    )
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if what == "huge":
        path.touch()
        os.truncate(path, 10 << 30)
        return
    {
        "link": lambda: path.symlink_to(target),
        "dangling link": lambda: path.symlink_to(canary / "nothing"),
        "link to itself": lambda: path.symlink_to(path.name),
        "hard link": lambda: os.link(canary / "file", path),
        "fifo": lambda: os.mkfifo(path),
        "socket": lambda: make_socket(path),
        "folder": lambda: (path / "in it").mkdir(parents=True),
        "device": lambda: os.mknod(path, 0o020600, os.makedev(1, 5)),
        "file": lambda: path.write_text(CANARY[:6]),
    }[what]()


# ---------------------------------------------------------------- small, in every run

FOLDERS = (
    "_relay",
    "_relay/bindings",
    "_relay/hook-state",
    "_relay/tree",
    "_relay/issues",
    "_archive",
    "{pair}",
    *(f"{{pair}}/{side}" for side in SIDES),
)


def test_every_command_of_the_table_is_among_those_that_are_tried():
    tried = {" ".join(line[:length]) for line in LINES for length in (1, 2)}
    assert {command.words for command in RELAY.COMMANDS} - tried == NOT_ALONE


@pytest.mark.parametrize("place", FOLDERS)
def test_a_link_in_a_folders_place_is_named_and_nothing_goes_through_it(stage, place):
    pair, draft = two_pairs(stage)
    path = stage.shared / place.format(pair=pair.name)
    put(path, "link", canaries(stage))
    done = tame(stage.run("claude", "next"))
    assert f"{path} is a symlink" in done.err
    all_tame(
        stage,
        pair,
        [
            ["status"],
            ["send", "--kind", "note", "--file", "{body}", "--next", "x"],
            ["hook", "claude", "Stop"],
        ],
        draft,
    )
    path.unlink()
    assert stage.run("claude", "next").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["link", "fifo", "socket", "folder", "huge"])
@pytest.mark.parametrize("place", ["session.json", ".seen/{log}", "002-codex-review.md"])
def test_anything_in_a_files_place_is_told_and_not_waited_for(stage, place, what):
    pair, draft = two_pairs(stage)
    log = next((pair / ".seen").glob("claude-*")).name
    put(pair / place.format(log=log), what, canaries(stage))
    all_tame(
        stage,
        pair,
        [
            ["next"],
            ["status"],
            ["continue"],
            ["verify"],
            ["hook", "claude", "SessionStart"],
            ["publish", "{draft}"],
        ],
        draft,
    )


def test_a_torn_session_is_told_also_where_json_was_never_imported(stage):
    """The scanner's own error is an exception of a module that a real process has not imported."""
    stage.open_pair()
    (stage.shared / "20260101-torn").mkdir()
    (stage.shared / "20260101-torn" / "session.json").write_text("{broken")
    done = stage.process("claude", "pairs", "list")
    assert done.code == 0, done
    assert "20260101-torn  invalid_schema" in done.out and "damaged: relay doctor" in done.out


def test_one_bad_pair_leaves_the_good_one_usable_and_its_turn_reads_no_other(stage):
    pair, draft = two_pairs(stage)
    os.unlink(draft)
    for number in range(30):
        write_pair(stage.shared, f"20260102-bad-{number}", 1, schema_version=number)
    with (
        watched(stage.shared / "20260102-bad-7") as other,
        watched_also(stage.shared, pair) as touched,
    ):
        for words in (
            ["next"],
            ["status"],
            ["wait", "--timeout", "0"],
            ["brief"],
            ["statusline"],
            ["show"],
            ["verify"],
            ["hook", "claude", "Stop"],
        ):
            assert stage.run("claude", *words, stdin=TOLD).code in (0, 1, 10)
    assert not other and not touched


class watched_also:
    """Keeps the paths of other pairs whose session.json is read."""

    def __init__(self, shared, pair):
        self.found, self.pair, self.real = [], pair.name, RELAY.read_file

    def __enter__(self):
        def read(path, *limit):
            *_, slug, name = path.split("/")
            if name == "session.json" and slug != self.pair:
                self.found.append(path)
            return self.real(path, *limit)

        RELAY.read_file = read
        return self.found

    def __exit__(self, *_):
        RELAY.read_file = self.real


@pytest.mark.slow
def test_a_log_that_lies_cannot_flood_what_is_printed(stage):
    pair, _ = two_pairs(stage)
    with open(next((pair / ".seen").glob("claude-*")), "a") as log:
        log.writelines(
            json.dumps(
                {
                    "seq": 1,
                    "name": f"{number % 999 + 1:03}-x{number // 999}-note",
                    "sha256": "0" * 64,
                    "at": "\x1b[31m",
                }
            )
            + "\n"
            for number in range(1200)
        )
    done = tame(stage.run("claude", "next"), 10_000)
    assert done.action == "damaged" and f"more: {SCRIPT} verify" in done.out
    all_tame(stage, pair, HOT)


HARD_NAMES = (
    b"\x1b[31mred",
    b"new\nline",
    b"inv\xff\xfealid",
    b"n" * 255,
    b"Case",
    b"case",
    "caf\u00e9".encode(),
    "cafe\u0301".encode(),
    b"\xe2\x80\xae",
    b"\xc2\x9bc1",
)


@pytest.mark.slow
def test_names_that_could_drive_a_terminal_or_break_a_line_do_neither(stage):
    pair, draft = two_pairs(stage)
    places = (
        "",
        "_relay",
        "_relay/bindings",
        pair.name,
        *(f"{pair.name}/{each}" for each in SIDES),
    )
    starts, ends = (
        (b"", b"001-claude-", b".", b"claude-"),
        (b"", b".md", b".ready", b".jsonl", b".tmp"),
    )
    for place in places:
        directory = stage.shared / place
        directory.mkdir(exist_ok=True)
        for name in HARD_NAMES:
            for start, end in itertools.product(starts, ends):
                whole = (start + name)[: 255 - len(end)] + end
                with open(os.fsencode(directory) + b"/" + whole, "wb"):
                    pass
    title = {"title": "\x1b[31mred\x9b", "project": "\x1b[0m", "created_at": "\x1b[31m"}
    write_pair(stage.shared, "20260102-title", 1, **title)
    all_tame(stage, pair, HOT, draft)


def test_clocks_in_the_future_stop_nothing(stage):
    pair, draft = two_pairs(stage)
    os.unlink(draft)
    write_artifact(pair, 50, "codex", created="9999-12-31T23:59:59+00:00")
    write_artifact(pair, 51, "codex", created="99999-13-45T99:99:99Z")
    session = {
        **json.loads((pair / "session.json").read_text()),
        "created_at": "9999-12-31T23:59:59+00:00",
    }
    (pair / "session.json").write_text(json.dumps(session))
    for path in stage.shared.rglob("*"):
        os.utime(path, (4e9, 4e9))
    assert stage.ok("claude", "next").action in ("reply", "damaged")
    all_tame(stage, pair, HOT)


# ---------------------------------------------------------------- large, or many


@pytest.mark.slow
@pytest.mark.parametrize("what", ["link", "dangling link", "file", "fifo"])
@pytest.mark.parametrize("place", FOLDERS)
def test_every_command_with_something_else_in_a_folders_place(stage, place, what):
    pair, draft = two_pairs(stage)
    put(stage.shared / place.format(pair=pair.name), what, canaries(stage))
    all_tame(stage, pair, LINES if what == "link" else PLAIN, draft)


KINDS = ["link", "link to itself", "hard link", "fifo", "socket", "folder", "huge", "device"]
FILES = (
    "session.json",
    "CLOSED",
    ".seen/{log}",
    ".sent/claude.jsonl",
    "002-codex-review.md",
    "002-codex-review.md.sha256",
    "002-codex-review.json",
    "002-codex-review.ready",
    ".seq/003",
    ".draft/003-claude-note.md",
)


@pytest.mark.slow
@pytest.mark.parametrize("what", KINDS)
def test_every_command_with_something_else_in_a_files_place(stage, what):
    if what == "device" and os.geteuid():
        pytest.skip("only root makes devices")
    pair, draft = two_pairs(stage)
    log = next((pair / ".seen").glob("claude-*")).name
    shutil.copytree(stage.shared, stage.folder / "kept")
    own = [path.relative_to(stage.shared) for path in (stage.shared / "_relay").rglob("*.json")]
    for place in [pair.relative_to(stage.shared) / file.format(log=log) for file in FILES] + own:
        if what == "hard link" and str(place).endswith(".jsonl"):
            continue  # A log grows in place.
        put(stage.shared / place, what, canaries(stage))
        all_tame(stage, pair, PLAIN if what != "link" else [*PLAIN, ["doctor", "--fix"]], draft)
        shutil.rmtree(stage.shared)
        shutil.rmtree(stage.folder / "canary")
        shutil.copytree(stage.folder / "kept", stage.shared)


UNPRIVILEGED = 65534
AS_ANOTHER = """
import os, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
os.execv({relay!r}, [{relay!r}, *sys.argv[2:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become another user")
@pytest.mark.parametrize(
    "place",
    [
        "",
        "_relay",
        "_relay/bindings",
        "{pair}",
        "{pair}/.seen",
        "{pair}/session.json",
        "20260101-old",
    ],
)
def test_what_may_not_be_read_is_told_with_the_way_out(stage, place):
    # pytest closes its own temporary directories to others, again with each session that begins.
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chmod(elsewhere, 0o755)
        may_not_be_read(Stage(pathlib.Path(elsewhere) / "stage"), place)


def may_not_be_read(stage, place):
    pair, draft = two_pairs(stage)
    os.chmod(draft, 0o600)
    relay = stage.folder / "relay"  # The checkout may lie where only its user comes.
    shutil.copy(SCRIPT, relay)
    temporary = pathlib.Path(tempfile.gettempdir())
    for folder in (stage.folder, *stage.folder.parents):
        if temporary in folder.parents:
            os.chmod(folder, 0o755)
    subprocess.run(["chown", "-R", str(UNPRIVILEGED), str(stage.folder)], check=True)
    locked = stage.shared / place.format(pair=pair.name)
    os.chmod(locked, 0)
    for words in (
        ["next"],
        ["pairs", "list"],
        ["doctor"],
        ["verify", "--all"],
        ["hook", "claude", "SessionStart"],
    ):
        done = stage.process(
            "claude",
            *words,
            before=(sys.executable, "-c", AS_ANOTHER.format(uid=UNPRIVILEGED, relay=str(relay))),
        )
        tame(done)
        if words == ["pairs", "list"] and place in ("{pair}", "20260101-old"):
            assert done.code == 0 and re.search(rf"{locked.name} +unusable_folder", done.out), done
        if words == ["next"] and place in ("_relay", "{pair}/.seen", ""):
            assert (
                done.code == 2 and f"relay: {locked} " in done.err and "chmod u+rwx" in done.err
            ), done
        if words == ["next"] and place == "20260101-old":
            assert done.code == 0, done


@pytest.mark.slow
def test_among_a_thousand_pairs_that_are_broken_or_strange_the_bound_one_goes_on(stage):
    pair, draft = two_pairs(stage)
    os.unlink(draft)
    for number in range(998):
        slug = f"2026{number % 12 + 1:02}{number % 28 + 1:02}-p{number}"
        if number % 2:
            (stage.shared / slug).mkdir()
            (stage.shared / slug / "session.json").write_text(
                "{broken" if number % 4 == 1 else json.dumps({**SESSION, "schema_version": 9})
            )
        else:
            write_pair(stage.shared, slug, 5 if number % 10 == 0 else 1)
    assert stage.process("claude", "next").action in ("reply", "wait")
    for words in (["status"], ["brief"], ["statusline"]):
        tame(stage.process("claude", *words), 20_000)
    for words in (["next"], ["status"], ["statusline"]):
        tame(stage.process("claude", *words, CLAUDE_CODE_SESSION_ID="another"))


@pytest.mark.slow
def test_a_pair_with_far_more_artifacts_than_numbers_is_bounded(stage):
    pair, draft = two_pairs(stage)
    for kind in ("plan", "note"):
        for number in range(1, 1000):
            write_artifact(pair, number, "codex", kind)
    all_tame(stage, pair, HOT, draft, 200_000)


def test_a_directory_that_is_moved_while_it_is_looked_at_is_no_obstacle(tmp_path, monkeypatch):
    """A close moves a pair to the archive; a wait that was looking at it once ended with 2."""
    directory = tmp_path / "pair"
    directory.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: directory.rmdir() or False)
    assert RELAY.obstacle(str(directory)) is None
