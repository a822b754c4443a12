"""Who is asking, and how an instance gets its pair: each case as promised; a refusal writes nothing."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import time

import pytest

linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to see processes")
BOTH = {"CLAUDE_CODE_SESSION_ID": "a-claude", "CODEX_THREAD_ID": "a-codex"}


def refused(stage, author, *words, code=2, says="", **more):
    """A command that must end with this code, say this, and leave every file as it was."""
    before = stage.snapshot()
    done = stage.run(author, *words, **more)
    assert done.code == code, done
    assert says in done.out + done.err
    assert stage.snapshot() == before
    return done


@pytest.fixture
def host(stage):
    """Makes a program that hosts see as `claude` or `codex`: a shell under that name, which runs relay as a child."""

    def script(name, *lines):
        program = stage.folder / "hosts" / name
        if not program.exists():
            program.parent.mkdir(exist_ok=True)
            shutil.copy(os.path.realpath("/bin/sh"), program)
        # The colon keeps the shell from replacing itself by its last command.
        return [str(program), "-c", "\n".join([*lines, ":"])]

    return script


def run(stage, command, author=None, **env):
    """Runs a host's command line in the project; what it printed, checked for success."""
    done = subprocess.run(
        command,
        cwd=stage.project,
        env=stage.env(author, RELAY=str(SCRIPT), **env),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done
    return done.stdout


SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "skills" / "agent-relay" / "bin" / "relay"


# ---------------------------------------------------------------- the author


@pytest.mark.parametrize(
    "env, author, source",
    [
        ({"CLAUDE_CODE_SESSION_ID": "x"}, "claude", "CLAUDE_CODE_SESSION_ID"),
        ({"CODEX_THREAD_ID": "x"}, "codex", "CODEX_THREAD_ID"),
        ({"CODEX_THREAD_ID": "x", "CLAUDE_CODE_SESSION_ID": " "}, "codex", "CODEX_THREAD_ID"),
        ({"CODEX_THREAD_ID": "x", "RELAY_AUTHOR": "codex"}, "codex", "CODEX_THREAD_ID"),
        ({"RELAY_AUTHOR": "gemini"}, "gemini", "RELAY_AUTHOR"),
        ({"RELAY_AUTHOR": "claude"}, "claude", "RELAY_AUTHOR"),
        ({"RELAY_PEER": "codex", "RELAY_ROLE": "claude"}, None, "none"),
        ({}, None, "none"),
    ],
)
def test_one_signal_names_the_author(stage, env, author, source):
    done = stage.run(None, "whoami", "--json", **env)
    assert (done.json["author"], done.json["author_source"]) == (author, source)
    assert done.code == (0 if author else 2)
    assert done.json["diagnostics"] == []


WRITERS = (
    ("bootstrap", "--topic", "t"),
    ("next",),
    ("pair", "ensure"),
    ("pair", "join", "20200101-t"),
    ("pair", "leave"),
    ("send", "--kind", "note", "--file", "F", "--next", "x"),
    ("claim", "--kind", "note"),
    ("close", "--reason", "r"),
    ("draft", "set", "D"),
    ("publish", "D"),
    ("wait", "--timeout", "0"),
    ("continue",),
    ("heartbeat", "tick"),
)


@pytest.mark.parametrize(
    "env, hint",
    [({}, "RELAY_AUTHOR=NAME"), (BOTH, "RELAY_AUTHOR=claude")],
    ids=["none", "both"],
)
def test_nothing_is_written_where_nobody_is_known_to_ask(stage, monkeypatch, relay, env, hint):
    monkeypatch.setattr(relay, "_ancestors", lambda: iter(()))
    for words in WRITERS:
        assert "hint: export " + hint in refused(stage, None, *words, typed=False, **env).err


@linux
@pytest.mark.parametrize(
    "wanted, author", [(None, None), ("codex", "codex"), ("claude", "claude"), ("gemini", None)]
)
def test_of_two_signals_relay_author_chooses_where_no_host_is_around(stage, wanted, author):
    """The tests may run inside a host: a pid namespace of its own hides that."""
    env = stage.env(None, **BOTH, RELAY_AUTHOR=wanted)
    command = (
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        str(SCRIPT),
        "whoami",
        "--json",
    )
    done = subprocess.run(command, cwd=stage.project, env=env, capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip("no pid namespace of its own here")
    told = json.loads(done.stdout)
    assert (told["author"], told["author_source"]) == (
        author,
        "RELAY_AUTHOR" if author else "dual_platform",
    )
    assert bool(told["diagnostics"]) == (author is None)


def test_a_contradicting_relay_author_loses_and_is_reported(stage):
    stage.open_pair()
    told = stage.ok("claude", "whoami", "--json", RELAY_AUTHOR="codex").json
    assert told["author"] == "claude"
    assert [note.split(":")[0] for note in told["diagnostics"]] == ["author_conflict"]
    checks = {
        c["name"]: c
        for c in stage.run("claude", "preflight", "--json", RELAY_AUTHOR="codex").json["checks"]
    }
    assert checks["identity.author"]["status"] == "warn"
    assert "author_conflict" in checks["identity.author"]["detail"]


BAD_NAMES = ("Gemini", "a b", "../x", "-x", "x" * 33, "é", "a\nb")


def test_a_relay_author_that_cannot_be_a_name_is_no_author(stage):
    for name in BAD_NAMES:
        done = stage.run(None, "whoami", "--json", RELAY_AUTHOR=name)
        assert done.code == 2
        assert done.json["author"] is None
        assert "cannot name an author" in done.json["diagnostics"][0]
        refused(stage, None, "bootstrap", "--topic", "t", "--peer", "codex", RELAY_AUTHOR=name)
        assert stage.run("claude", "whoami", "--json", RELAY_AUTHOR=name).json["author"] == "claude"


def test_a_refusal_says_what_is_wrong_with_the_name_that_was_given(stage):
    refused(
        stage,
        None,
        "bootstrap",
        "--topic",
        "t",
        "--peer",
        "codex",
        RELAY_AUTHOR="Gemini",
        says="cannot name an author",
    )


@linux
@pytest.mark.parametrize("outer, inner", [("claude", "codex"), ("codex", "claude")])
def test_of_two_signals_the_nearest_host_decides(stage, host, outer, inner):
    nested = host(outer, " ".join(f"'{word}'" for word in host(inner, '"$RELAY" whoami --json')))
    told = json.loads(run(stage, nested, **BOTH, RELAY_AUTHOR=outer))
    assert (told["author"], told["author_source"]) == (inner, "ancestor")
    assert told["agent_session_id"] == f"a-{inner}"


@linux
def test_a_session_id_that_leaked_through_the_daemon_of_codex_does_not_make_it_claude(stage, host):
    daemon = [*host("codex", '"$RELAY" whoami --json'), "app-server", "--listen", "unix://"]
    assert json.loads(run(stage, daemon, **BOTH))["author"] == "codex"


# ---------------------------------------------------------------- the instance


@pytest.mark.parametrize(
    "env, words, wanted, source",
    [
        ({}, (), "session-of-claude", "CLAUDE_CODE_SESSION_ID"),
        ({"RELAY_AGENT_SESSION_ID": "mine"}, (), "mine", "RELAY_AGENT_SESSION_ID"),
        (
            {"RELAY_AGENT_SESSION_ID": "mine"},
            ("--agent-session-id", "given"),
            "given",
            "--agent-session-id",
        ),
    ],
)
def test_a_session_id_is_taken_from_the_first_place_that_has_one(stage, env, words, wanted, source):
    told = stage.ok("claude", "whoami", "--json", *words, **env).json
    assert (told["agent_session_id"], told["agent_session_id_source"]) == (wanted, source)
    assert told["instance_id"] == f"claude:{wanted[:8]}"


def test_a_terminal_of_atuin_has_a_lasting_id(stage):
    one, two = (
        stage.ok(None, "whoami", "--json", RELAY_AUTHOR="gemini", ATUIN_SESSION="x").json
        for _ in range(2)
    )
    assert one["agent_session_id"] == two["agent_session_id"] != ""
    assert one["agent_session_id_source"] == "terminal"


def test_without_a_terminal_there_is_no_lasting_id_and_nothing_binds(stage):
    stage.open_pair()
    before = stage.snapshot()
    env = {"RELAY_AUTHOR": "claude", "before": ("setsid",)}
    assert (
        json.loads(stage.process(None, "whoami", "--json", **env).out)["agent_session_id_source"]
        == "degraded"
    )
    assert stage.process(None, "next", "--exit-code", **env).code == 3
    assert stage.process(None, "pair", "ensure", "--json", **env).json["action"] == "degraded"
    for words in (
        ("bootstrap", "--topic", "t", "--force"),
        ("pair", "join", os.listdir(stage.shared)[0]),
    ):
        assert stage.process(None, *words, **env).code == 2
    assert stage.snapshot() == before


def in_a_terminal(stage, script, words=("sh", "-s"), **env):
    """What a shell prints in a pseudo-terminal that is its own, and lasts."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(stage.project)
        path = stage.file(script, "script.sh")
        words = ["sh", str(path)] if words == ("sh", "-s") else [*words, script]
        os.execve("/bin/sh", words, stage.env(None, RELAY=str(SCRIPT), **env))
    printed = b""
    try:
        while chunk := os.read(terminal, 65536):
            printed += chunk
    except OSError:
        pass
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, printed
    return printed.decode()


@pytest.mark.slow
def test_a_terminal_gives_a_lasting_id_and_another_terminal_another(stage):
    twice = '"$RELAY" whoami --json >one; "$RELAY" whoami --json | cat >two; sh -c \'"$RELAY" whoami --json\' >three'
    in_a_terminal(stage, twice, RELAY_AUTHOR="gemini")
    ids = [
        json.loads((stage.project / name).read_text())["agent_session_id"]
        for name in ("one", "two", "three")
    ]
    assert ids[0] and len(set(ids)) == 1
    in_a_terminal(stage, '"$RELAY" whoami --json >one', RELAY_AUTHOR="gemini")
    assert json.loads((stage.project / "one").read_text())["agent_session_id"] not in (ids[0], None)


def test_a_custom_author_in_a_terminal_opens_a_pair_and_stays_bound_to_it(stage):
    told = in_a_terminal(
        stage, '"$RELAY" bootstrap --topic t --peer claude && "$RELAY" next', RELAY_AUTHOR="gemini"
    )
    assert "action: start" in told


@pytest.mark.slow
def test_a_terminal_made_for_one_command_gives_no_lasting_id(stage):
    """As Gemini CLI starts each command: `bash -c COMMAND` leads a terminal of its own."""
    whoami = '"$RELAY" whoami --json >one; true'
    for words, env in (
        (("sh", "-c"), {"RELAY_AUTHOR": "other"}),
        (("sh", "-s"), {"RELAY_AUTHOR": "gemini", "GEMINI_CLI": "1"}),
        (("sh", "-s"), {"OPENCODE": "1"}),
    ):
        in_a_terminal(stage, whoami, words, **env)
        row = json.loads((stage.project / "one").read_text())
        assert row["agent_session_id_source"] == "degraded", (words, env)


@pytest.mark.parametrize(
    "env, author",
    [
        ({"OPENCODE": "1"}, "opencode"),
        ({"GEMINI_CLI": "1"}, "gemini"),
        ({"OPENCODE": "1", "GEMINI_CLI": "1"}, None),
        ({"GEMINI_CLI": "1", "RELAY_AUTHOR": "other"}, "other"),
        ({"GEMINI_CLI": "1", "CLAUDE_CODE_SESSION_ID": "x"}, "claude"),
        ({"OPENCODE": "1", "CODEX_THREAD_ID": "x"}, "codex"),
    ],
)
def test_other_agents_are_known_by_their_variables_where_nothing_else_says_who_runs(
    stage, env, author
):
    assert stage.run(None, "whoami", "--json", **env).json["author"] == author


def test_an_agent_without_a_session_id_gets_the_lines_to_export_and_then_reviews(stage):
    slug = stage.ok("claude", "bootstrap", "--topic", "t", "--peer", "gemini").out.split()[0]
    stage.send("claude", "plan")
    told = stage.process(None, "next", GEMINI_CLI="1", before=("setsid",))
    line = told.out.rstrip().rpartition("next: ")[2]
    found = re.fullmatch(
        r"export RELAY_AUTHOR=gemini; export RELAY_AGENT_SESSION_ID=([0-9a-f]{16}); (\S+) next",
        line,
    )
    assert found and found[2] == str(SCRIPT), told
    shell = ("sh", "-c", line.replace("export RELAY_AUTHOR=gemini; ", ""))
    done = subprocess.run(
        shell,
        cwd=stage.project,
        env=stage.env(None, GEMINI_CLI="1"),
        capture_output=True,
        text=True,
    )
    assert "action: reply to 001 plan" in done.stdout and slug in done.stdout
    env = {"RELAY_AUTHOR": "gemini", "RELAY_AGENT_SESSION_ID": found[1]}
    text = stage.file("# R\n\n## Next\ngo\n", "r.md")
    stage.ok(None, "send", "--kind", "note", "--file", text, **env)
    assert "from gemini, " in stage.ok("claude", "next").out


# ---------------------------------------------------------------- starting the other side


def programs(stage, *names):
    """A directory on the PATH with programs of these names; none is ever started."""
    directory = stage.folder / "programs"
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_text("#!/bin/sh\nexit 9\n")
        (directory / name).chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


def test_the_line_that_starts_the_peer_is_printed_until_it_is_there(stage):
    line = 'codex "use agent-relay: relay next"\n'
    env = programs(stage, "codex")
    opened = stage.ok("claude", "bootstrap", "--topic", "t", **env).out
    assert line in opened and f" pair join {opened.split()[0]}\n" in opened, "as 1.x printed"
    stage.send("claude", "plan", **env)
    waiting = stage.ok("claude", "next", **env)
    assert waiting.action == "wait" and line in waiting.out
    for look in ("status", "watch"):
        shown = stage.ok(None, look, **env).out
        assert line in shown and "in codex's terminal: " in shown
    assert "second terminal" not in stage.ok("claude", "next", PATH="/usr/bin:/bin").out
    far = {**env, "RELAY_SYNC": "rsync"}
    assert "second terminal" not in stage.ok("claude", "next", **far).out, (
        "it is on another machine"
    )
    stage.ok("codex", "next")
    assert "second terminal" not in stage.ok("claude", "next", **env).out
    assert "second terminal" not in stage.ok(None, "status", **env).out
    stage.ok("codex", "pair", "leave")
    assert "second terminal" not in stage.ok("claude", "next", **env).out, "it was there"


@pytest.mark.parametrize(
    "peer, installed, line",
    [
        ("claude-2", "claude", 'claude "use agent-relay: relay pair join {} --as claude-2"'),
        ("codex", "claude", "pair join {}"),
        ("gemini", "gemini", "pair join {}"),
    ],
)
def test_each_peer_is_started_by_its_own_program_or_joins_where_it_runs(
    stage, peer, installed, line
):
    words = ("bootstrap", "--topic", "t", "--peer", peer)
    printed = stage.ok("claude", *words, **programs(stage, installed)).out
    assert line.format(printed.split()[0]) in printed
    assert ("second terminal" in printed) == (peer == "claude-2")


# ---------------------------------------------------------------- opening a pair


def test_two_authors_told_to_start_a_review_meet_in_one_pair(stage):
    slug = stage.ok("claude", "bootstrap", "--topic", "one").out.split()[0]
    done = refused(stage, "codex", "bootstrap", "--topic", "two", says=f"pair join {slug}")
    assert "free slot for codex" in done.err
    stage.ok("codex", "pair", "join", slug)
    assert len(list(stage.shared.glob("2*"))) == 1


def test_force_opens_a_parallel_pair(stage):
    stage.ok("claude", "bootstrap", "--topic", "one")
    stage.ok("codex", "bootstrap", "--topic", "two", "--force")
    assert len(list(stage.shared.glob("2*"))) == 2


def test_an_instance_that_is_bound_opens_no_second_pair(stage):
    slug = stage.ok("claude", "bootstrap", "--topic", "one").out.split()[0]
    refused(stage, "claude", "bootstrap", "--topic", "two", says=f"bound to {slug}")
    peer = ("--peer", "gemini")
    refused(stage, "claude", "bootstrap", "--topic", "one", *peer, says=f"bound to {slug}")
    stage.ok("codex", "next")
    refused(stage, "codex", "bootstrap", "--topic", "two", says=f"bound to {slug}")


def test_the_same_bootstrap_again_names_the_pair_and_opens_no_second_one(stage):
    slug = stage.ok("claude", "bootstrap", "--topic", "one").out.split()[0]
    refused(stage, "claude", "bootstrap", "--topic", "one", says=f"bound to {slug}")
    assert len(list(stage.shared.glob("2*"))) == 1


def test_the_same_topic_again_on_one_day_gets_a_number(stage):
    slug = stage.ok("claude", "bootstrap", "--topic", "one").out.split()[0]
    assert (
        stage.ok("claude", "bootstrap", "--topic", "one", "--force").out.split()[0] == f"{slug}-2"
    )
    stage.ok("claude", "close", "--reason", "r")
    assert (
        stage.ok("claude", "bootstrap", "--topic", "one", "--force").out.split()[0] == f"{slug}-3"
    )


def test_where_both_slots_are_held_a_third_may_open_its_own_pair(stage):
    stage.open_pair()
    stage.ok("claude", "bootstrap", "--topic", "mine", CLAUDE_CODE_SESSION_ID="another")
    assert len(list(stage.shared.glob("2*"))) == 2


def test_a_peer_that_cannot_be_one_is_refused(stage):
    for peer in ("claude", *BAD_NAMES):
        refused(stage, "claude", "bootstrap", "--topic", "t", f"--peer={peer}")


def test_a_custom_author_names_its_peer_and_carries_a_review(stage):
    refused(stage, "gemini", "bootstrap", "--topic", "t", says="--peer")
    stage.ok("gemini", "bootstrap", "--topic", "t", "--peer", "my-agent-2")
    refused(stage, "claude", "pair", "join", os.listdir(stage.shared)[-1], says="")
    stage.send("gemini", "plan")
    assert stage.ok("my-agent-2", "next").action == "reply"
    stage.send("my-agent-2", "review")
    assert stage.ok("gemini", "next").action == "reply"


# ---------------------------------------------------------------- two of one author


def second(stage, *words, **more):
    return stage.run("claude", *words, CLAUDE_CODE_SESSION_ID="second", **more)


def binding_file(stage, author):
    return next((stage.shared / "_relay" / "bindings").glob(f"{author}-*.json"))


def aged(stage, author, seconds):
    """Sets an instance's last sign of life back."""
    path = binding_file(stage, author)
    document = json.loads(path.read_text())
    at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - seconds))
    path.write_text(json.dumps({**document, "last_seen": at}))


def test_a_slot_is_not_shared_by_two_instances_of_one_author(stage):
    slug = stage.open_pair().name
    env = {"CLAUDE_CODE_SESSION_ID": "second"}
    done = refused(stage, "claude", "next", "--exit-code", code=3, **env)
    assert done.action == "full"
    assert done.next == f"pair join {slug} --take-over"
    assert (
        refused(stage, "claude", "pair", "ensure", "--json", code=3, **env).json["action"] == "full"
    )
    refused(stage, "claude", "pair", "join", slug, says="--take-over", **env)


def test_a_slot_that_is_taken_over_is_the_new_instances_alone(stage):
    slug = stage.open_pair().name
    assert second(stage, "pair", "join", slug, "--take-over").code == 0
    assert second(stage, "next").action == "start"
    assert stage.run("claude", "next").action == "full"
    assert len(list((stage.shared / "_relay" / "bindings").glob("claude-*.json"))) == 1


@pytest.mark.parametrize(
    "threshold, silent_s, joins",
    [
        (None, 3500, False),
        (None, 3700, True),
        ("60", 50, False),
        ("60", 90, True),
        ("86400", 3700, False),
    ],
)
def test_a_slot_is_free_again_once_its_holder_was_silent_too_long(
    stage, threshold, silent_s, joins
):
    slug = stage.open_pair().name
    aged(stage, "claude", silent_s)
    if joins:
        assert second(
            stage, "pair", "ensure", "--json", RELAY_RENEWAL_STALE_THRESHOLD=threshold
        ).json == {
            "action": "joined",
            "pair": slug,
            "instance_id": "claude:second",
        }
    else:
        env = {"CLAUDE_CODE_SESSION_ID": "second", "RELAY_RENEWAL_STALE_THRESHOLD": threshold}
        refused(stage, "claude", "pair", "ensure", code=3, **env)


@pytest.mark.slow
@linux
def test_a_silent_instance_whose_process_is_seen_keeps_its_slot(stage, host):
    code = 'CLAUDE_CODE_SESSION_ID=one "$RELAY" bootstrap --topic t >/dev/null; echo; read line'
    with living(stage, host("claude", code)):
        aged(stage, "claude", 10**5)
        assert second(stage, "next").action == "full"
    assert second(stage, "next").action == "start"


@pytest.mark.slow
def test_a_silent_instance_that_holds_a_wait_keeps_its_slot(stage):
    stage.open_pair()
    waiting = stage.spawn("codex", "wait", "--timeout", "30")
    marks = stage.shared / "_relay" / "hook-state"
    until = time.monotonic() + 20
    while not list(marks.glob("waiting-*-codex-*")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    aged(stage, "codex", 10**5)
    assert stage.run("codex", "next", CODEX_THREAD_ID="second").action == "full"
    stage.send("claude", "note")
    assert waiting.communicate(timeout=20)[0].endswith("001-claude-note.md\n")
    assert stage.run("codex", "next", CODEX_THREAD_ID="second").action == "reply"


@pytest.mark.slow
@linux
def test_a_session_that_was_resumed_in_another_terminal_does_not_end_with_the_first(stage, host):
    stage.ok("claude", "bootstrap", "--topic", "t")
    speak = 'export CODEX_THREAD_ID=one; "$RELAY" next >/dev/null; echo; read line'
    end = """echo '{"session_id": "one"}' | "$RELAY" hook codex SessionEnd; echo; read line"""
    with living(stage, host("codex", speak, end)) as first:
        with living(stage, host("codex", speak)):
            first.stdin.write("\n")
            first.stdin.flush()
            assert first.stdout.readline() == "\n"
            assert " left" not in stage.ok("claude", "status").out
            assert stage.run("codex", "next", CODEX_THREAD_ID="second").action == "full"


def test_a_sign_of_life_from_the_future_is_no_presence(stage):
    stage.open_pair()
    aged(stage, "codex", -5 * 3600)
    shown = stage.ok("claude", "status").out
    assert "is there" not in shown and "last seen an unknown time ago" in shown


def test_an_instance_that_was_silent_comes_back_to_its_own_slot(stage):
    stage.open_pair()
    aged(stage, "claude", 10**6)
    assert stage.ok("claude", "next").action == "start"


@pytest.mark.parametrize("value", ["abc", "59", "-1", "nan", "inf", "0", "1e12", "1 h"])
def test_a_number_in_the_environment_that_is_none_counts_as_unset_with_a_warning(stage, value):
    stage.open_pair()
    env = {"CLAUDE_CODE_SESSION_ID": "second", "RELAY_RENEWAL_STALE_THRESHOLD": value}
    done = stage.run("claude", "pair", "ensure", **env)
    assert done.code == 3 and "RELAY_RENEWAL_STALE_THRESHOLD" in done.err
    env = {"RELAY_AUTO_ROUND_CAP": "abc", "RELAY_WAIT_POLL_INTERVAL": "abc"}
    done = stage.run("claude", "next", "--wait", "0", **env)
    assert done.code == 0 and done.err.count("RELAY_AUTO_ROUND_CAP") == 1
    done = stage.run("claude", "status", **env)
    assert done.code == 0 and done.err.count("RELAY_AUTO_ROUND_CAP") == 1


def test_several_pairs_with_a_free_slot_are_listed_and_none_is_taken(stage):
    one = stage.ok("claude", "bootstrap", "--topic", "one").out.split()[0]
    two = stage.ok("claude", "bootstrap", "--topic", "two", "--force").out.split()[0]
    told = refused(stage, "codex", "pair", "ensure", "--json", code=3).json
    assert (told["action"], told["candidates"]) == ("choose", [one, two])
    stage.ok("codex", "pair", "join", two)
    assert stage.ok("codex", "pair", "show", "--json").json["bound_pair"]["session_id"] == two


def test_one_who_left_gives_the_slot_back(stage):
    stage.open_pair()
    stage.ok("claude", "pair", "leave")
    assert second(stage, "next").action == "start"


def test_a_stranger_to_the_pair_can_neither_join_nor_write_in_it(stage):
    slug = stage.open_pair().name
    for words in (
        ("pair", "join", slug),
        ("next", "--pair-id", slug),
        ("claim", "--kind", "note", "--pair-id", slug),
    ):
        refused(stage, "gemini", *words, says="claude and codex")


def test_a_pair_that_does_not_exist_or_could_not_is_refused(stage):
    stage.open_pair()
    for slug in ("20200101-none", "../x", ".hidden", "_relay", "a/b"):
        refused(stage, "claude", "pair", "join", slug)


# ---------------------------------------------------------------- /clear: a new session in the same host process


@linux
def test_a_new_session_of_the_same_host_takes_the_binding_over_in_silence(stage, host):
    told = run(
        stage,
        host(
            "claude",
            'CLAUDE_CODE_SESSION_ID=one "$RELAY" bootstrap --topic t >/dev/null',
            'CLAUDE_CODE_SESSION_ID=two "$RELAY" next',
            'CLAUDE_CODE_SESSION_ID=two "$RELAY" whoami --json >whoami',
        ),
    )
    assert told.startswith("action: start")
    assert json.loads((stage.project / "whoami").read_text())["bound_pair"].endswith("-t")
    assert json.loads(binding_file(stage, "claude").read_text())["agent_session_id"] == "two"
    assert len(list((stage.shared / "_relay" / "bindings").glob("*.json"))) == 1


@linux
@pytest.mark.parametrize(
    "command, ends",
    [
        ("bootstrap --topic u", 2),  # bound by its host already: no second pair
        pytest.param("pair join $SLUG", 0, marks=pytest.mark.slow),
        pytest.param("pair ensure", 0, marks=pytest.mark.slow),
        ("claim --kind note", 0),
        ("wait --timeout 0", 10),
        pytest.param("pair leave", 0, marks=pytest.mark.slow),
    ],
)
def test_whatever_a_new_session_types_first_finds_its_hosts_pair(stage, host, command, ends):
    run(
        stage,
        host(
            "claude",
            'CLAUDE_CODE_SESSION_ID=one "$RELAY" bootstrap --topic t >slug; read -r SLUG rest <slug',
            f'CLAUDE_CODE_SESSION_ID=two "$RELAY" {command} >out 2>&1; echo $? >code',
            'CLAUDE_CODE_SESSION_ID=two "$RELAY" pair leave >left',
        ),
    )
    assert (stage.project / "code").read_text() == f"{ends}\n", (stage.project / "out").read_text()
    assert len(list(stage.shared.glob("2*"))) == 1
    assert not list((stage.shared / "_relay" / "bindings").glob("*.json")), (
        "the host's one binding was left"
    )


@linux
def test_after_clear_what_the_peer_said_last_is_still_handed_over(stage, host):
    """The peer published and closed; the new session of the same host hears of it."""
    with subprocess.Popen(
        host(
            "claude",
            'read line; CLAUDE_CODE_SESSION_ID=one "$RELAY" bootstrap --topic t; echo opened',
            'read line; CLAUDE_CODE_SESSION_ID=two "$RELAY" next >told',
        ),
        cwd=stage.project,
        env=stage.env(None, RELAY=str(SCRIPT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as claude:
        claude.stdin.write("\n")
        claude.stdin.flush()
        while claude.stdout.readline() != "opened\n":
            pass
        stage.ok("codex", "next")
        stage.send("codex", "note", "# The last word\n")
        stage.ok("codex", "close", "--reason", "r")
        claude.stdin.write("\n")
    told = (stage.project / "told").read_text()
    assert told.startswith("action: over")
    assert "# The last word" in told


@linux
def test_a_new_session_in_another_host_takes_nothing_over(stage, host):
    code = 'CLAUDE_CODE_SESSION_ID=one "$RELAY" bootstrap --topic t >/dev/null; echo; read line'
    with living(stage, host("claude", code)):
        assert run(stage, host("claude", 'CLAUDE_CODE_SESSION_ID=two "$RELAY" next')).startswith(
            "action: full"
        )
    assert run(stage, host("claude", 'CLAUDE_CODE_SESSION_ID=two "$RELAY" next')).startswith(
        "action: start"
    )


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    "words", [("app-server", "--listen", "unix://", "--managed-daemon"), ("mcp-server",)]
)
def test_a_server_of_codex_serves_many_and_is_nobodys_host(stage, host, words):
    stage.ok("claude", "bootstrap", "--topic", "t")
    script = 'CODEX_THREAD_ID=one "$RELAY" next >/dev/null', 'CODEX_THREAD_ID=two "$RELAY" next'
    assert run(stage, [*host("codex", *script), *words]).startswith("action: full")
    assert json.loads(binding_file(stage, "codex").read_text())["host"] is None


@linux
@pytest.mark.parametrize(
    "name, words",
    [("claude", ("-p", "mend the app-server")), ("codex", ("exec", "mend the app-server"))],
)
def test_a_task_that_speaks_of_an_app_server_makes_no_daemon(stage, host, name, words):
    author = {"claude": "CLAUDE_CODE_SESSION_ID", "codex": "CODEX_THREAD_ID"}[name]
    run(stage, [*host(name, '"$RELAY" bootstrap --topic t'), *words], **{author: "x"})
    assert json.loads(binding_file(stage, name).read_text())["host"] is not None


# ---------------------------------------------------------------- a host that has ended


class living:
    """A host that has printed a line and lives until the block ends."""

    def __init__(self, stage, command, **env):
        env = stage.env(None, RELAY=str(SCRIPT), **env)
        self.child = subprocess.Popen(
            command,
            cwd=stage.project,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self):
        assert self.child.stdout.readline()
        return self.child

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()


def until_it_watches(child):
    """Returns once a waiting relay has its file events set up."""
    for _ in range(500):
        shown = subprocess.run(
            ("ls", "-l", f"/proc/{child.pid}/fd"), capture_output=True, text=True
        ).stdout
        if "inotify" in shown:
            return
        time.sleep(0.01)
    raise AssertionError("it never began to wait")


@linux
@pytest.mark.parametrize(
    "reaped", [pytest.param(True, marks=pytest.mark.slow), False], ids=["reaped", "a zombie"]
)
@pytest.mark.slow
def test_a_wait_ends_with_11_when_the_peers_process_dies(stage, host, reaped):
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.send("claude", "plan")
    with living(
        stage, host("codex", '"$RELAY" next >/dev/null; echo', "read line"), CODEX_THREAD_ID="x"
    ) as codex:
        waiting = stage.spawn("claude", "wait", "--timeout", "6")
        until_it_watches(waiting)
        assert waiting.poll() is None
        os.kill(codex.pid, signal.SIGKILL)
        if reaped:
            codex.wait()
        _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 11, err
    assert "process has ended" in err


@linux
def test_next_says_that_the_peers_process_has_ended(stage, host):
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.send("claude", "plan")
    run(stage, host("codex", '"$RELAY" next'), CODEX_THREAD_ID="x")
    done = stage.run("claude", "next", "--exit-code")
    assert done.code == 11
    assert "codex's process has ended" in done.out


@linux
def test_the_slot_of_a_host_that_has_ended_is_free_at_once(stage, host):
    run(stage, host("claude", '"$RELAY" bootstrap --topic t'), CLAUDE_CODE_SESSION_ID="one")
    assert stage.ok("claude", "next").action == "start"


@linux
@pytest.mark.parametrize(
    "field, value", [("boot", "other"), ("namespace", "1"), ("boot", "0"), ("namespace", "0")]
)
def test_a_pid_of_another_boot_or_namespace_proves_nothing(stage, field, value):
    """No such pid is not proof where the pid was counted elsewhere."""
    stage.open_pair()
    stage.send("claude", "plan")
    path = binding_file(stage, "codex")
    document = json.loads(path.read_text())
    here = {
        "pid": 4_000_000,
        "start": "1",
        "namespace": os.readlink("/proc/self/ns/pid")[5:-1],
        "boot": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()[:8],
    }
    path.write_text(json.dumps({**document, "host": here}))
    assert stage.run("claude", "next", "--exit-code").code == 11
    path.write_text(json.dumps({**document, "host": {**here, field: value}}))
    assert stage.run("claude", "next", "--exit-code").code == 10


@pytest.mark.parametrize(
    "later_s, threshold, code",
    [(3500, None, 10), (3700, None, 11), (90, "60", 11), (3700, "7200", 10)],
)
def test_a_peer_that_holds_the_turn_and_is_silent_for_too_long_counts_as_gone(
    stage, monkeypatch, relay, later_s, threshold, code
):
    stage.open_pair()
    stage.send("claude", "plan")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + later_s)
    assert (
        stage.run("claude", "next", "--exit-code", RELAY_RENEWAL_STALE_THRESHOLD=threshold).code
        == code
    )
    assert (
        stage.run("claude", "wait", "--timeout", "0", RELAY_RENEWAL_STALE_THRESHOLD=threshold).code
        == code
    )
