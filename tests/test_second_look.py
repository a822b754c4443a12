"""Promises that broke where two things met: words lost between runs, a pair ended or damaged meanwhile,
foreign bytes where relay reads its own."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess

import pytest
from conftest import SCRIPT

LAST = "# Last words\n"


def asked(stage, author, text="# Drop the database?\n"):
    """`author` leaves a question for the user."""
    return stage.send(author, "decision", text, "@user: may I?")


@pytest.fixture
def reviewed(stage):
    """A pair where claude has not yet read the review."""
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.send("codex", "review", LAST)
    return pair


@pytest.fixture
def ended(stage, reviewed):
    """The same, closed by the reviewer."""
    stage.ok("codex", "close", "--reason", "done")
    return reviewed


@pytest.fixture
def meanwhile(monkeypatch, relay):
    """Has something happen once, just before a function of relay's runs or just after."""

    def hook(name, act, after=False):
        function = getattr(relay, name)

        def once(*given):
            monkeypatch.setattr(relay, name, function)
            done = function(*given) if after else None
            act(*given)
            return done if after else function(*given)

        monkeypatch.setattr(relay, name, once)

    return hook


def bodies(pair):
    return {path.name: path.read_text() for path in pair.glob("*.md") if path.name[0].isdigit()}


def binding(stage, author):
    return next((stage.shared / "_relay" / "bindings").glob(f"{author}*"))


def last_seen(stage, author, when):
    path = binding(stage, author)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"last_seen": when}))


def mounted(stage, author, mount, *words):
    """Runs a command behind mounts of its own."""
    command = "unshare", "-m", "sh", "-c", f"{mount} && exec {shlex.join(map(str, words))}"
    done = subprocess.run(
        command, cwd=stage.project, env=stage.env(author), capture_output=True, text=True
    )
    if done.stderr.startswith(("unshare", "mount")):
        pytest.skip("no mounts of its own here")
    return done


# ---- lost or misdirected words


def test_an_answer_goes_to_the_pair_that_was_looked_at(stage):
    one = stage.open_pair("one")
    stage.send("claude", "plan")
    two = stage.ok("claude", "bootstrap", "--topic", "two", "--force").out.split()[0]
    stage.ok("codex", "pair", "join", two)
    stage.send("claude", "plan", "# Other\n")
    told = stage.ok("codex", "next", "--pair-id", one.name)
    words = shlex.split(
        told.next.replace("VERDICT", "changes").replace(
            "FILE", str(stage.file("# Review of one\n"))
        )
    )
    assert one.name in stage.ok("codex", *words, "--next", "go on").out


def test_last_words_that_could_not_be_printed_come_again(stage, ended):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [SCRIPT, "next"],
            cwd=stage.project,
            env=stage.env("claude"),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 2
    assert LAST in stage.ok("claude", "next").out


def test_doctor_fix_leaves_the_peer_its_last_words(stage, ended):
    stage.ok("codex", "doctor", "--fix")
    assert LAST in stage.ok("claude", "next").out


def test_bootstrap_waits_until_last_words_are_read(stage, ended):
    done = stage.run("claude", "bootstrap", "--topic", "again")
    assert done.code == 2 and "002-codex-review" in done.err
    assert done.err.endswith("relay next\n")
    assert LAST in stage.ok("claude", "next").out
    stage.ok("claude", "bootstrap", "--topic", "again")


def test_who_closes_over_unread_words_is_told(stage, reviewed):
    named = ("--pair-id", stage.ok("claude", "pair", "show", "--json").json["pair"])
    stage.ok("claude", "bootstrap", "--topic", "another", "--force")
    for number in (1, 2):
        stage.send("claude", "note", f"# {number} of the other pair\n")
    done = stage.ok("claude", "close", "--reason", "done", *named)
    (command,) = re.findall("002-codex-review unread: .*relay (show .*)", done.err)
    assert LAST in stage.ok("claude", *command.split()).out, "typed as printed"


def test_a_pair_archived_while_active_is_over(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan", LAST)
    stage.ok("claude", "pairs", "archive", pair.name, "--force")
    told = stage.ok("codex", "next")
    assert told.action == "over" and LAST in told.out


def test_the_end_of_a_pair_that_was_in_the_archive_before_is_delivered_too(stage):
    pair = stage.open_pair()
    stage.ok("claude", "pairs", "archive", pair.name, "--force")
    assert stage.ok("codex", "next").action == "over"
    stage.ok("claude", "pairs", "restore", pair.name)
    assert stage.ok("codex", "next").action == "wait"
    stage.ok("claude", "next")
    stage.ok("claude", "close", "--reason", "it is done")
    over = stage.ok("codex", "next")
    assert over.action == "over" and "it is done" in over.out
    assert stage.ok("codex", "next").action == "bootstrap", "once"


def test_a_send_repeated_after_the_end_stays_out_of_the_next_pair(stage):
    stage.open_pair("one")
    words = "send", "--kind", "plan", "--file", stage.file("# Secret of one\n"), "--next", "go"
    stage.ok("claude", *words)
    stage.ok("claude", "close", "--reason", "done")
    stage.ok("codex", "next")
    two = stage.ok("codex", "bootstrap", "--topic", "two").out.split()[0]
    assert two not in stage.run("claude", *words).out
    assert not bodies(stage.shared / two)


# ---- what continue clears


def test_continue_past_damage_leaves_a_question_that_was_not_shown(stage, reviewed):
    stage.ok("claude", "next")
    with open(reviewed / "002-codex-review.md", "a") as file:
        file.write("x")
    asked(stage, "codex")
    told = stage.ok("claude", "next")
    assert told.action == "damaged" and "database" not in told.out
    stage.ok("claude", "continue")
    assert stage.ok("claude", "next").action == "ask_user"


def test_continue_leaves_a_question_that_came_after_the_shown_one(stage):
    stage.open_pair()
    asked(stage, "codex", "# First?\n")
    assert stage.ok("claude", "next").action == "ask_user"
    stage.ok("codex", "continue")
    asked(stage, "codex", "# Second?\n")
    stage.ok("claude", "continue")
    told = stage.ok("claude", "next")
    assert told.action == "ask_user" and "# Second?" in told.out


@pytest.mark.parametrize("author", ["claude", "codex"])
def test_one_continue_answers_for_both_sides(stage, reviewed, author):
    asked(stage, "codex")
    assert stage.ok("claude", "next").action == "ask_user"
    stage.ok(author, "continue")
    assert stage.ok("claude", "next").action == "reply"


def test_continue_by_a_stranger_is_refused(stage, reviewed):
    assert stage.run("gemini", "continue", "--pair-id", reviewed.name).code == 2
    done = stage.run("gemini", "continue", "--pair-id", reviewed.name, typed=False)
    assert done.code == 2


def test_a_draft_left_beside_its_artifact_takes_no_more_words(stage):
    stage.open_pair()
    draft = pathlib.Path(stage.ok("claude", "claim", "--kind", "plan").out.strip())
    stage.ok("claude", "draft", "set", draft, "--prompt-for-next-file", stage.file("- go\n"))
    kept = draft.read_bytes()
    stage.ok("claude", "publish", draft)
    draft.write_bytes(kept)
    done = stage.run(
        "claude", "draft", "set", draft, "--body-file", stage.file("# Better\n", "better.md")
    )
    assert done.code == 2 and "001 is published" in done.err


# ---- foreign bytes in sidecars and logs

LOOKING = ("next",), ("status",), ("log",), ("doctor",), ("wait", "--timeout", "0"), ("show",)


@pytest.mark.parametrize("stem", ["00²-codex-review", "٠٠٣-codex-review"])
def test_a_name_with_digits_of_another_script_breaks_no_command(stage, stem):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    content = (pair / "001-claude-plan.md").read_bytes()
    (pair / f"{stem}.md").write_bytes(content)
    (pair / f"{stem}.md.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {stem}.md\n")
    (pair / f"{stem}.ready").touch()
    assert [words for words in LOOKING if stage.run("codex", *words).code == 70] == []


@pytest.mark.parametrize(
    "line",
    [
        {"user": "continue", "accepted": 5},
        {"user": 1, "upto": 1, "accepted": True},
        {"name": "001-claude-plan", "sha256": [1]},
    ],
)
def test_a_seen_line_of_other_types_breaks_nothing(stage, line):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    with open(next((pair / ".seen").glob("codex*")), "a") as file:
        file.write(json.dumps(line) + "\n")
    assert [words for words in LOOKING if stage.run("codex", *words).code == 70] == []


@pytest.mark.parametrize(
    "answered",
    [{"upto": 1, "missing": 5}, {"upto": 1, "missing": [], "pending": 7}, {"missing": [[1]]}],
)
def test_a_sidecar_of_other_types_breaks_nothing(stage, reviewed, answered):
    sidecar, text = reviewed / "002-codex-review.json", reviewed / "002-codex-review.md"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"answered": answered}))
    sums = [hashlib.sha256(sidecar.read_bytes()).hexdigest()]
    text.write_text(re.sub(r"sidecar_sha256: \S+", f"sidecar_sha256: {sums[0]}", text.read_text()))
    sums.insert(0, hashlib.sha256(text.read_bytes()).hexdigest())
    (reviewed / f"{text.name}.sha256").write_text(
        f"{sums[0]}  {text.name}\n{sums[1]}  {sidecar.name}\n"
    )
    assert [words for words in LOOKING if stage.run("claude", *words).code == 70] == []


# ---- closing meanwhile


def test_a_cap_that_is_no_number_does_not_stop_a_close(stage):
    stage.open_pair()
    stage.ok("claude", "close", "--reason", "done", RELAY_AUTO_ROUND_CAP="many")


def test_a_cap_of_half_a_round_stops_no_start(stage):
    stage.open_pair()
    assert stage.ok("claude", "next", RELAY_AUTO_ROUND_CAP="0.5").action == "start"


# ---- clocks, files and places without /proc


def test_a_peer_last_seen_in_the_future_does_not_hold_its_slot(stage):
    stage.open_pair()
    last_seen(stage, "codex", "2099-01-01T00:00:00+00:00")
    stage.send("claude", "plan")
    assert stage.ok("codex", "next", CODEX_THREAD_ID="another-thread").action == "reply"


def test_looking_by_pair_id_counts_as_being_there(stage):
    pair = stage.open_pair()
    last_seen(stage, "codex", "2020-01-01T00:00:00+00:00")
    stage.ok("codex", "next", "--pair-id", pair.name)
    assert not json.loads(binding(stage, "codex").read_text())["last_seen"].startswith("2020")


@pytest.fixture
def one_host(monkeypatch, relay):
    """claude's sessions all run in this process, as after a /clear."""
    host = relay.process(os.getpid())
    monkeypatch.setattr(relay, "host_process", lambda author: host if author == "claude" else None)


def test_a_new_session_of_the_same_host_answers_what_the_old_one_read(stage, one_host, reviewed):
    stage.ok("claude", "next")
    after = {"CLAUDE_CODE_SESSION_ID": "after-clear"}
    stage.ok(
        "claude", "send", "--kind", "fix", "--file", stage.file("# Fix\n"), "--next", "go", **after
    )
    assert json.loads((reviewed / "003-claude-fix.json").read_text())["answers"] == [2]
    assert stage.ok("claude", "next", **after).action == "wait"


def test_looking_at_the_log_moves_no_binding(stage, one_host):
    stage.open_pair()
    before = stage.snapshot(stage.shared / "_relay" / "bindings")
    stage.ok("claude", "log", CLAUDE_CODE_SESSION_ID="another-session")
    assert stage.snapshot(stage.shared / "_relay" / "bindings") == before


def test_a_heap_of_strange_drafts_and_marks_is_looked_through(stage):
    pair = stage.open_pair()
    for number in range(1, 300):
        (pair / ".draft" / f"{number:03}-claude-note.md").write_text("---\nseq: 1\n---\n")
    for number in range(60):
        (pair / ".seq" / f".{number:024}.1-2-3-4.mark").write_text('{"seq": 1}')
    assert stage.ok("claude", "next").action == "finish"
    stage.ok("claude", "status")


@pytest.mark.slow
@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
@pytest.mark.parametrize("call", ["link", "replace", "unlink", "fsync", "mkdir", "open"])
def test_after_ctrl_c_at_any_call_the_same_send_ends_it(stage, monkeypatch, call, links):
    """The interrupted run is a process of its own, so that its end can be seen."""

    def refused(*_, **__):
        raise PermissionError(1, "no links here")

    def interrupted(trial, words, at):
        original, count = getattr(os, call), 0

        def counted(*given, **more):
            nonlocal count
            count += 1
            done = original(*given, **more)
            if count == at:
                raise KeyboardInterrupt
            return done

        if links or call != "link":
            setattr(os, call, counted)
        try:
            trial.run("claude", *words)
        except KeyboardInterrupt:
            pass
        finally:
            os._exit(count >= at)

    if not links:
        monkeypatch.setattr(os, "link", refused)
    for at in range(1, 100):
        trial = type(stage)(stage.folder / str(at))
        pair = trial.open_pair()
        words = "send", "--kind", "plan", "--file", trial.file("# A\n"), "--next", "go"
        child = os.fork()
        if not child:
            interrupted(trial, words, at)
        reached = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        done = trial.run("claude", *words)
        assert (done.code, list(bodies(pair)), trial.litter()) == (0, ["001-claude-plan.md"], []), (
            at,
            done,
        )
        if not reached:
            break


def read_only(stage, author, *words):
    shared = shlex.quote(str(stage.shared))
    return mounted(
        stage,
        author,
        f"mount --bind {shared} {shared} && mount -o remount,ro,bind {shared}",
        *words,
    )


READ_ONLY = [
    ("next", 0),
    ("status", 0),
    ("show", 0),
    ("wait --timeout 0", 0),
    ("brief", 0),
    ("log", 0),
    ("doctor", 1),
    ("doctor --fix", 1),
    ("whoami", 0),
    ("send --kind review --file FILE --next go", 2),
    ("claim --kind review", 2),
    ("close --reason done", 2),
]


@pytest.mark.parametrize("words, code", READ_ONLY, ids=[words for words, _ in READ_ONLY])
def test_a_ledger_that_cannot_be_written_is_read_all_the_same(stage, words, code):
    stage.open_pair()
    stage.send("claude", "plan")
    file = stage.file("# Review\n")
    done = read_only(
        stage, "codex", SCRIPT, *(file if word == "FILE" else word for word in words.split())
    )
    assert done.returncode == code, done
    assert code < 2 or "hint: stop and tell your user" in done.stderr


def test_preflight_answers_in_json_over_a_read_only_ledger(stage):
    stage.open_pair()
    done = read_only(stage, "codex", SCRIPT, "preflight", "--json")
    assert json.loads(done.stdout)
