"""`relay run`: a command runs as it would without relay, and its result is recorded once, for its author, with the tree it ran on."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import RELAY, SCRIPT, Stage
from helpers.blocks import asked, changed, findings, sidecar, tried


def records(stage):
    """What waits to be carried, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(stage.shared.rglob(".evidence/*.json"))]


def the_record(stage):
    (row,) = records(stage)
    return row


def started(stage, *argv, stdin=subprocess.DEVNULL, **more):
    """`relay run` in a process of its own, bytes in and out."""
    return subprocess.Popen(
        [str(SCRIPT), "run", "--", *argv],
        cwd=stage.project,
        env=stage.env("codex"),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def until(check, seconds=10):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def approve(stage, *more, text="# Fine\n"):
    return tried(stage, "codex", "review", text, "--verdict", "approve", *more)


# ---- exit codes


def test_the_commands_exit_code_is_passed_on(stage):
    asked(stage)
    codes = [0, 1, 3, 124, 125, 255]
    assert [
        stage.run("codex", "run", "--", "sh", "-c", f"exit {code}").code for code in codes
    ] == codes
    assert [(row["code"], row["signal"]) for row in records(stage)] == [
        (code, None) for code in codes
    ]


def test_a_command_that_a_signal_ends_gives_the_code_a_shell_gives(stage):
    asked(stage)
    assert stage.run("codex", "run", "--", "sh", "-c", "kill -9 $$").code == 137
    assert (the_record(stage)["code"], the_record(stage)["signal"]) == (137, 9)


def test_what_cannot_be_started_ends_as_env_ends_and_leaves_no_record(stage):
    asked(stage)
    plain = stage.file("no program\n")
    for argv in (
        ["no-such-command-anywhere"],
        [plain],
        [stage.folder],
        [plain / "below"],
        [stage.folder / "none"],
    ):
        done = stage.run("codex", "run", "--", *argv)
        theirs = subprocess.run(["env", *map(str, argv)], capture_output=True).returncode
        assert done.code == theirs and done.code in (126, 127) and "hint: " in done.err, argv
    assert records(stage) == []


def test_relays_own_failure_is_125_and_nothing_is_run(stage):
    mark = stage.folder / "ran"
    command = ["--", "touch", mark]
    assert stage.run("codex", "run", *command).code == 125, "no ledger"
    asked(stage)
    cases = {
        "no command": ("codex", ["run"]),
        "nothing behind the dashes": ("codex", ["run", "--"]),
        "an unknown flag": ("codex", ["run", "--bogus", *command]),
        "a flag without its value": ("codex", ["run", "--pair-id"]),
        "no such pair": ("codex", ["run", "--pair-id", "20200101-none", *command]),
        "an unknown author": (None, ["run", *command]),
        "an author of another pair": ("other", ["run", *command]),
    }
    for why, (author, words) in cases.items():
        done = stage.run(author, *words)
        assert done.code == 125 and "hint: " in done.err, (why, done)
    assert not mark.exists() and records(stage) == []


# ---- streams and signals


def test_output_is_seen_before_the_command_ends_and_input_reaches_it(stage):
    asked(stage)
    child = started(
        stage,
        "sh",
        "-c",
        "echo one; echo two >&2; read said; echo got $said; exit 5",
        stdin=subprocess.PIPE,
    )
    assert child.stdout.readline() == b"one\n"
    assert child.stderr.readline() == b"two\n"
    assert the_record(stage).get("code") is None
    out, err = child.communicate(b"hello\n", timeout=10)
    assert (child.returncode, out) == (5, b"got hello\n")
    assert err.startswith(b"relay: run 1 recorded: exit 5")
    assert sorted(the_record(stage)["tail"].split()) == ["got", "hello", "one", "two"]


def test_the_two_streams_are_kept_apart_and_nothing_of_relays_is_on_the_first(stage):
    asked(stage)
    out, err = started(
        stage,
        sys.executable,
        "-c",
        "import sys; sys.stdout.write('o' * 300000); sys.stderr.write('e' * 300000)",
    ).communicate(timeout=20)
    assert out == b"o" * 300000
    assert err.startswith(b"e" * 300000 + b"relay: run 1 recorded") and err.count(b"\n") == 1


@pytest.mark.parametrize(
    "name",
    [
        "SIGINT",
        "SIGTERM",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGHUP", "SIGQUIT")),
    ],
)
def test_a_signal_to_relay_reaches_the_command_and_its_end_is_kept(stage, name):
    asked(stage)
    program = f"import signal, sys, time\nsignal.signal(signal.{name}, lambda *_: sys.exit(7))\nprint('ready', flush=True)\ntime.sleep(20)"
    child = started(stage, sys.executable, "-c", program)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(getattr(signal, name))
    child.communicate(timeout=10)
    assert child.returncode == 7 and the_record(stage)["code"] == 7


@pytest.mark.slow
def test_a_command_that_does_not_catch_the_signal_ends_with_its_code(stage):
    asked(stage)
    child = started(stage, "sh", "-c", "echo ready; exec sleep 20")
    assert child.stdout.readline() == b"ready\n"
    child.terminate()
    child.communicate(timeout=10)
    assert child.returncode == 143 and (the_record(stage)["code"], the_record(stage)["signal"]) == (
        143,
        15,
    )


@pytest.mark.slow
def test_an_interrupt_at_a_terminal_reaches_the_command_once(stage):
    asked(stage)
    program = (
        "import signal, time\ncount = []\nsignal.signal(signal.SIGINT, lambda *_: count.append(1))\nprint('ready', flush=True)\n"
        "end = time.monotonic() + 20\nwhile not count and time.monotonic() < end: time.sleep(0.05)\ntime.sleep(0.3)\nprint('times', len(count), flush=True)"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(stage.project)
        os.execve(
            str(SCRIPT),
            [str(SCRIPT), "run", "--", sys.executable, "-c", program],
            stage.env("codex"),
        )
    told = b""
    while b"ready" not in told:
        told += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"recorded" not in told:
        told += os.read(terminal, 1000)
    assert b"times 1" in told
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


@pytest.mark.slow
def test_a_grandchild_that_keeps_the_pipe_open_does_not_keep_the_run_open(stage):
    asked(stage)
    child = started(stage, "sh", "-c", "sleep 600 & echo $!; exit 3")
    grandchild = int(child.stdout.readline())
    try:
        assert child.wait(60) == 3
    finally:
        os.kill(grandchild, signal.SIGKILL)
    child.stdout.close(), child.stderr.close()


@pytest.mark.slow
def test_all_that_a_command_wrote_before_its_end_is_passed_on(stage):
    asked(stage)
    child = started(stage, sys.executable, "-c", "print('line\\n' * 200000, end='')")
    time.sleep(0.5)  # The reader is slow: the pipe is full when the command ends.
    assert len(child.communicate(timeout=20)[0]) == 1_000_000
    assert the_record(stage)["printed_bytes"] == 1_000_000


def test_output_into_a_pipe_that_nobody_reads_any_more_ends_the_command_as_it_would_without_relay(
    stage,
):
    asked(stage)
    line = f"'{SCRIPT}' run -- yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=stage.project,
        env=stage.env("codex"),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout == "y\n141\n" and "Traceback" not in done.stderr
    assert the_record(stage)["code"] == 141


@pytest.mark.slow
def test_a_standard_output_that_does_not_block_loses_nothing(stage):
    """Programs that start others, Node among them, hand down pipes that refuse a write while they are full."""
    asked(stage)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    child = subprocess.Popen(
        [str(SCRIPT), "run", "--", "seq", "100000"],
        cwd=stage.project,
        env=stage.env("codex"),
        stdout=writing,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    time.sleep(0.5)
    told = b""
    while chunk := os.read(reading, 1 << 16):
        told += chunk
    os.close(reading)
    assert child.wait(10) == 0
    assert told.count(b"\n") == 100000


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_changes_nothing_in_the_exit_code(stage, closed):
    asked(stage)
    line = f"'{SCRIPT}' run -- sh -c 'exit 3' {closed}"
    assert (
        subprocess.run(
            ["bash", "-c", line],
            cwd=stage.project,
            env=stage.env("codex"),
            capture_output=True,
            timeout=20,
        ).returncode
        == 3
    )
    assert the_record(stage)["code"] == 3


def test_of_big_output_head_and_tail_are_kept_in_whole_lines(stage):
    asked(stage)
    stage.ok("codex", "run", "--", sys.executable, "-c", "for n in range(100000): print('line', n)")
    row = the_record(stage)
    lines = row["tail"].split("\n")
    assert len(row["tail"]) <= RELAY.OUTPUT_BYTES
    assert lines[0] == "line 0" and lines[-2:] == ["line 99999", ""]
    (gap,) = [n for n, line in enumerate(lines[:-1]) if not line.startswith("line ")]
    assert 50 < gap < len(lines) - 50 and "left out" in lines[gap]
    assert row["printed_bytes"] == sum(len(f"line {n}\n") for n in range(100000))


FRAMES = (
    "for n in range(4000): print(f'\\r\\x1b[2Kfetching [{n:4}/4000]', end='', flush=n % 97 == 0)\n"
)
LINES = "print()\nfor n in range(9000): print('line', n)\n"


@pytest.mark.parametrize(
    "after", [LINES, FRAMES, "print('x' * 99999)\n" + FRAMES], ids=["lines", "frames", "both"]
)
@pytest.mark.parametrize("before", ["", FRAMES], ids=["", "frames"])
def test_a_progress_bar_pushes_nothing_out_of_what_is_kept(stage, before, after):
    """Whatever was printed last and first is there once, as a terminal shows it at the end."""
    asked(stage)
    code = f"{before}print('\\rE  the error')\n{after}print('\\rlast')\n"
    stage.ok("codex", "run", "--", sys.executable, "-c", code)
    kept = records(stage)[-1]["tail"].split("\n")
    assert kept[0] == "E  the error" and kept[-2:] == ["last", ""]
    assert kept.count("E  the error") == kept.count("last") == 1
    assert not [line for line in kept if "fetching" in line]
    assert ("left out" in "".join(kept)) == (after != FRAMES)


@pytest.mark.slow
def test_many_long_words_are_kept_in_bounds_too(stage):
    """A record that is too long to be read again would be lost in silence."""
    path = asked(stage)
    stage.ok("codex", "run", "--", "true", *["x" * 100_000] * 12)
    stage.send("codex", "note")
    (row,) = sidecar(path, 2)["evidence"]
    assert row["argv"][:1] == ["true"] and not list(path.glob(".evidence/*"))
    assert len(row["argv"][-1]) < 100 and (path / "002-codex-note.json").stat().st_size < 50_000


def test_the_command_has_the_callers_umask_environment_and_folder(stage):
    asked(stage)
    below = stage.project / "below"
    below.mkdir()
    done = stage.process(
        "codex",
        "run",
        "--",
        "sh",
        "-c",
        "umask; pwd; echo $OF_MINE",
        before=("sh", "-c", 'umask 027; exec "$0" "$@"'),
        cwd=below,
        OF_MINE="told",
    )
    assert done.out.split() == ["0027", str(below), "told"]
    assert the_record(stage)["cwd"] == "below"


def test_words_of_any_bytes_reach_the_command_and_the_record(stage):
    path = asked(stage)
    strange = [b"\xff\xfe", b"a\nb", b"\x1b[31m", b"", b" ", "köln".encode()]
    child = started(
        stage,
        sys.executable,
        "-c",
        "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))",
        *strange,
    )
    assert child.communicate(timeout=10)[0] == b"|".join(strange) and child.returncode == 0
    stage.send("codex", "note")
    (row,) = sidecar(path, 2)["evidence"]
    assert [os.fsencode(word) for word in row["argv"][3:]] == strange
    for words in (["log"], ["show", "2"], ["verify"], ["next"]):
        assert "\x1b" not in stage.ok("claude", *words).out


def test_flags_behind_the_command_are_the_commands(stage):
    asked(stage)
    assert stage.run("codex", "run", "sh", "-c", "exit 4", "--help", "--json").code == 4
    assert the_record(stage)["argv"][-2:] == ["--help", "--json"]


# ---- secrets


LONG = "A1b2C3z4" * 8
KEY_BODY = "\n".join([LONG] * 4)
SECRETS = {
    "GitHub": "ghp_" + "a1B2" * 9,
    "GitHub, fine-grained": "github_pat_" + "a1B2" * 5 + "c3_" + "D4e" * 19 + "f5",
    "GitLab": "glpat-" + "a1B2" * 5,
    "npm": "npm_" + "a1B2" * 9,
    "PyPI": "pypi-AgE" + "a1B2" * 15,
    "Google": "AIza" + "a1B2c" * 7,
    "Stripe": "rk_live_" + "a1B2" * 6,
    "Stripe's secret": "sk_test_" + "a1B2" * 6,
    "Hugging Face": "hf_" + "a1B2" * 9,
    "SendGrid": "SG." + "a1B2" * 5 + "ab." + "c3D4" * 10 + "e5F",
    "DigitalOcean": "dop_v1_" + "a1b2" * 16,
    "OpenAI": "sk-proj-" + "a1B2" * 10,
    "Anthropic": "sk-ant-api03-" + "a1B2" * 20,
    "AWS": "AKIA" + "A2B3" * 4,
    "Slack": "xoxb-" + "9876504321-" * 2 + "a1B2" * 6,
    "a web token": "eyJ" + "a1B2" * 5 + ".eyJ" + "a1B2" * 5 + "." + "c3D4" * 5,
}
TELLTALE = {
    "Azure": ("AccountKey=", "a1B2" * 20 + "=="),
    "bearer": ("Authorization: Bearer ", "a1B2" * 6),
    "basic": ("Authorization: Basic ", "dXNlcjpw" + "YXNzd29yZA=="),
    "an address": ("postgres://", "user:" + "p4ss", "@host/db"),
    "a password": ("password=", "correcthorse9"),
    "a password in quotes": ('"password": "', "correcthorse9", '"'),
    "a client's secret": ('"client_secret": "', "a1B2" * 4, '"'),
    "an npm config": ("//registry.npmjs.org/:_authToken=", "a1B2" * 5),
    "AWS, its other half": ("aws_secret_access_key = ", "a1B2/" * 8),
    "a password with symbols": ("password=", "p@sswo,w0rdlong;x'yzzz!z"),
    "a password of words": ('password: "', "correct horse battery", '"'),
    "a Slack hook": (
        "https://hooks.slack.com/services/",
        "T" + "0A1B2C3D4/B" + "0A1B2C3D4/" + "a1B2" * 6,
    ),
    "a key": ("", f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_BODY}\n-----END RSA PRIVATE KEY-----"),
    "a key for ssh": (
        "",
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY_BODY}\n-----END OPENSSH PRIVATE KEY-----",
    ),
    "a key for mail": (
        "",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{KEY_BODY}\n-----END PGP PRIVATE KEY BLOCK-----",
    ),
    "a key that is cut behind": ("", f"-----BEGIN PRIVATE KEY-----\n{KEY_BODY}\n"),
    "a key that is cut before": ("", f"{KEY_BODY}\n-----END PRIVATE KEY-----"),
    "a key that is cut before, its last line short": (
        "",
        f"{KEY_BODY}\nAb1=\n-----END PRIVATE KEY-----",
    ),
    "a key's bare lines": ("", KEY_BODY),
}


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_a_secret_by_its_own_look_is_not_kept(name):
    for text in (
        SECRETS[name],
        f"x {SECRETS[name]} y",
        f'{{"k": "{SECRETS[name]}"}}',
        f"KEY={SECRETS[name]}\n",
    ):
        made = RELAY.redact(text, ())
        assert SECRETS[name] not in made and "[secret:" in made


@pytest.mark.parametrize("name", TELLTALE)
def test_what_is_a_secret_by_the_word_before_it_is_not_kept(name):
    before, secret, *behind = TELLTALE[name]
    made = RELAY.redact(before + secret + "".join(behind), ())
    pieces = [
        piece
        for piece in secret.replace(",", " ").replace(";", " ").split()
        if "-----" not in piece and len(piece) > 5 and piece not in ("PRIVATE", "OPENSSH")
    ]
    assert pieces and not any(piece in made for piece in pieces), made


HARMLESS = [
    "sk_stream_wait_memory_locked()",
    'class="sk-folding-cube-animation"',
    "MAX_TOKENS=claude-sonnet-4-20250514",
    "secret_name: prod-db-credentials-v2",
    "TODO: mend this",
    "tests/test_token.py::test_token_refresh PASSED",
    "token=None",
    "def token(self) -> str:",
    "http://localhost:8080/a@b",
    "git@github.com:a/b.git",
    "the token: see docs/auth.md",
    "password=",
    "a basic understanding of git",
    "bearer of bad news",
    "sk-learn-1.4.0-py3-none-any.whl",
    "commit 0123456789abcdef0123456789abcdef01234567",
    "\n".join(["0123456789abcdef" * 4 + "  file"] * 4),
    "tokens: 123456789",
    "risk-free",
    "npm_config_registry",
]


@pytest.mark.parametrize("text", HARMLESS, ids=lambda text: text[:30])
def test_harmless_text_stays(text):
    assert RELAY.redact(text, ()) == text


def test_secrets_of_the_environment_and_of_the_words_are_not_kept(stage):
    path = asked(stage)
    env = {
        "GITHUB_TOKEN": "value-of-token-1",
        "DB_PASSWORD": "value of password 2",
        "MY_SECRET": "value-of-secret-3",
        "SHORT_TOKEN": "ab",
        "OPENAI_API_KEY": "value-of-key-4",
    }
    text = "; ".join(f"echo ${name}" for name in env)
    stage.ok(
        "codex",
        "run",
        "--",
        "sh",
        "-c",
        text,
        "value-of-token-1",
        f"--header=Authorization: Bearer {LONG}",
        "plain ab",
        **env,
    )
    stage.send("codex", "note")
    held = "".join(file.read_text() for file in path.glob("002*"))
    for name, value in env.items():
        assert len(value) < 8 or value not in held, name
    assert LONG not in held and '"plain ab"' in held and "\\nab\\n" in held


@pytest.mark.parametrize(
    "name", ["DB_PASS", "MYSQL_PWD", "SSH_PASSPHRASE", "SIGNING_KEY", "NPM_AUTH"]
)
def test_other_names_for_a_secret_count_too(name):
    assert RELAY.is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "MAX_TOKENS",
        "TOKENIZERS_PARALLELISM",
        "PWD",
        "OLDPWD",
        "PATH",
        "KEYBOARD",
        "SECRETARY",
        "AUTHOR",
    ],
)
def test_a_name_that_only_holds_such_a_word_does_not(name):
    """Its value would be cut out of everything that is kept."""
    assert not RELAY.is_secret_name(name)


def test_a_secret_that_is_a_word_of_its_own_is_not_kept(stage):
    asked(stage)
    words = [
        "--password",
        "correcthorse9",
        "--token",
        "correcthorse9",
        "-u",
        "user:correcthorse9",
        "--api-key",
        "correcthorse9",
        "--verbose",
        "plain",
    ]
    stage.ok("codex", "run", "--", "true", *words)
    assert the_record(stage)["argv"][1:] == [
        word.replace("correcthorse9", "[secret:named]") for word in words
    ]


def test_a_secret_is_not_kept_where_the_kept_end_cuts_it_in_two(stage):
    asked(stage)
    program = (
        f"print('x' * 100); print('{SECRETS['GitHub']}' + ' ' + 'y' * (8192 - 20)); print('end')"
    )
    stage.ok(
        "codex", "run", "--", sys.executable, "-c", "exec(input())", stdin=f"{program}\n".encode()
    )
    tail = the_record(stage)["tail"]
    assert SECRETS["GitHub"][-15:] not in tail and tail.endswith("end\n")


@pytest.mark.parametrize(
    "text",
    [
        "sk-" * 5000,
        "eyJ-" * 5000,
        "password " * 3000,
        "-----BEGIN PRIVATE KEY-----" * 900,
        "SG." * 8000,
        "a://" * 6000,
        "A" * 24000,
    ],
    ids=lambda t: t[:8],
)
def test_looking_for_secrets_takes_no_longer_for_hostile_text(text):
    began = time.process_time()
    RELAY.redact(text, ())
    assert time.process_time() - began < 0.3


# ---- kept, carried, and for whom


def test_runs_are_carried_in_the_order_they_began(stage):
    path = asked(stage)
    for n in range(3):
        stage.ok("codex", "run", "--", "echo", n)
    stage.send("codex", "note")
    assert [row["tail"] for row in sidecar(path, 2)["evidence"]] == ["0\n", "1\n", "2\n"]


def test_what_one_side_ran_is_neither_carried_by_nor_proof_for_the_other(stage):
    path = asked(stage)
    stage.ok("claude", "run", "--", "true")
    assert "nothing was run on this change set" in approve(stage).err
    stage.send("codex", "note")
    assert sidecar(path, 2)["evidence"] == [] and the_record(stage)["author"] == "claude"
    stage.send("claude", "note")
    assert len(sidecar(path, 3)["evidence"]) == 1


def test_a_new_session_of_the_same_author_carries_what_the_old_one_ran(stage):
    path = changed(stage)
    stage.ok("codex", "run", "--", "true")
    new = {"CODEX_THREAD_ID": "thread-after-clear"}
    stage.ok("codex", "pair", "join", path.name, "--take-over", **new)
    stage.ok("codex", "next", **new)
    done = stage.run(
        "codex",
        "send",
        "--kind",
        "review",
        "--file",
        stage.file("# R\n"),
        "--next",
        "x",
        "--verdict",
        "approve",
        **new,
    )
    assert done.code == 0, done
    assert len(sidecar(path, 2)["evidence"]) == 1


def test_a_run_counts_only_on_the_tree_it_ran_on(stage):
    changed(stage)
    (stage.project / "work.py").write_text("other\n")
    stage.ok("codex", "run", "--", "true")
    (stage.project / "work.py").write_text("work\n")
    assert "run 1 was on another change set; nothing was run on this one" in approve(stage).err
    stage.ok("codex", "run", "--", "true")
    assert approve(stage).code == 0


def test_a_run_that_changes_the_tree_proves_nothing_and_is_told_so(stage):
    changed(stage)
    done = stage.run("codex", "run", "--", "sh", "-c", "echo more >>work.py")
    assert "it changed the working tree, so it does not count: work.py" in done.err
    (stage.project / "work.py").write_text("work\n")
    assert "run 1" in approve(stage).err
    stage.ok("codex", "run", "--", "true")
    assert approve(stage).code == 0


def test_a_run_that_only_creates_files_is_told_so_and_counts(stage):
    path = changed(stage)
    done = stage.run("codex", "run", "--", "touch", "new.txt")
    assert "it created new.txt" in done.err and approve(stage).code == 0
    assert sidecar(path, 2)["evidence"][0]["created"] == ["new.txt"]


def test_a_failed_run_is_shown_and_blocks_unless_it_is_said_why_it_does_not_matter(stage):
    changed(stage)
    stage.run("codex", "run", "--", "false")
    assert '"false" by codex exited with 1' in approve(stage).err
    assert approve(stage, "--not-run", "it fails").code == 2
    assert approve(stage, "--despite-failed", "it is about another part").code == 0
    shown = stage.ok("claude", "next").out
    assert "exit 1" in shown and 'despite a failed run: "it is about another part"' in shown


def killed_run(stage):
    """A run whose relay was killed; the command goes on for a moment without it."""
    child = started(stage, "sh", "-c", "echo ready; exec sleep 0.3")
    assert child.stdout.readline() == b"ready\n"
    child.kill()
    child.wait(10)
    child.stdout.close(), child.stderr.close()


def test_a_killed_run_stays_unfinished_is_carried_and_proves_nothing(stage):
    path = changed(stage)
    killed_run(stage)
    assert the_record(stage)["code"] is None
    assert "run 1 did not finish" in approve(stage).err
    assert approve(stage, "--not-run", "it was killed").code == 0
    (row,) = sidecar(path, 2)["evidence"]
    assert row["argv"][0] == "sh" and row["code"] is None and "owner" not in row
    assert records(stage) == [] and "did not finish" in stage.ok("claude", "log").out


def test_a_run_that_goes_on_is_not_carried_before_it_ends(stage):
    path = asked(stage)
    child = started(stage, "cat", stdin=subprocess.PIPE)
    until(lambda: records(stage))
    stage.send("codex", "note")
    assert sidecar(path, 2)["evidence"] == []
    child.communicate(b"end\n", timeout=10)
    stage.send("codex", "note")
    assert [row["tail"] for row in sidecar(path, 3)["evidence"]] == ["end\n"]


@pytest.mark.slow
def test_runs_at_once_are_all_kept(stage):
    path = asked(stage)
    children = [started(stage, "echo", str(n)) for n in range(6)]
    assert [child.communicate(timeout=20)[0] for child in children] == [
        b"%d\n" % n for n in range(6)
    ]
    stage.send("codex", "note")
    assert sorted(row["tail"] for row in sidecar(path, 2)["evidence"]) == [
        f"{n}\n" for n in range(6)
    ]


def test_a_torn_record_stops_nothing(stage):
    path = asked(stage)
    stage.ok("codex", "run", "--", "true")
    (path / ".evidence" / "codex-002.json").write_text('{"id": ')
    stage.send("codex", "review", findings("nit - One"))
    assert len(sidecar(path, 2)["evidence"]) == 1


def test_a_link_in_the_place_of_a_record_is_not_followed(stage):
    path = asked(stage)
    stage.ok("codex", "run", "--", "true")
    (path / ".evidence" / "codex-002.json").symlink_to(path / ".evidence" / "codex-001.json")
    stage.send("codex", "note")
    assert len(sidecar(path, 2)["evidence"]) == 1


class WithoutGit(Stage):
    """A project that is no repository; its ledger is where a setting says."""

    def env(self, author=None, **more):
        return super().env(author, **{"RELAY_SHARED_ROOT": str(self.shared), **more})


def test_without_git_a_run_is_kept_and_nothing_can_be_approved(stage):
    stage.__class__ = WithoutGit
    shutil.rmtree(stage.project / ".git")
    asked(stage)
    stage.ok("codex", "run", "--", "true")
    assert (the_record(stage)["before"], the_record(stage)["after"]) == (None, None)
    assert "not in git" in approve(stage, "--not-run", "x").err


def test_without_git_a_killed_run_proves_nothing_either(stage):
    stage.__class__ = WithoutGit
    shutil.rmtree(stage.project / ".git")
    asked(stage)
    killed_run(stage)
    assert "run 1 did not finish" in approve(stage).err


def test_where_both_streams_are_one_the_order_of_what_was_printed_is_kept(stage):
    asked(stage)
    words = "for n in 1 2 3; do echo out$n; echo err$n >&2; done"
    done = subprocess.run(
        [SCRIPT, "run", "--", "sh", "-c", words],
        cwd=stage.project,
        env=stage.env("codex"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.stdout.startswith("out1\nerr1\nout2\nerr2\nout3\nerr3\n")
    assert records(stage)[-1]["tail"] == "out1\nerr1\nout2\nerr2\nout3\nerr3\n"


def test_a_key_that_begins_before_what_is_kept_of_an_output_is_taken_out_too(stage):
    asked(stage)
    key = "".join(f"    {'%064x' % (n * 7919**9)}\n" for n in range(110))
    words = f"-----BEGIN PRIVATE KEY-----\n{key}    -----END PRIVATE KEY-----\n" + "done\n" * 400
    stage.ok("codex", "run", "--", "printf", "%s", f"cert: |\n    {words}")
    tail = records(stage)[-1]["tail"]
    assert (
        len(tail.encode()) <= RELAY.OUTPUT_BYTES
        and tail.endswith("done\n")
        and not [line for line in key.split() if line in tail]
    )


def test_of_a_known_secret_of_several_lines_each_is_taken_out(stage):
    asked(stage)
    stage.ok(
        "codex",
        "run",
        "--",
        "sh",
        "-c",
        "echo \"$DEPLOY_KEY\" | sed 's/^/> /'",
        DEPLOY_KEY="first-line-of-it\nsecond-line-of-it",
    )
    assert "line-of-it" not in records(stage)[-1]["tail"]


def test_a_run_that_ends_while_the_pair_is_closed_is_kept_in_the_archive(stage):
    asked(stage)
    closed = stage.folder / "closed"
    command = 'until [ -e "$0" ]; do sleep 0.02; done'
    child = stage.spawn("codex", "run", "--", "sh", "-c", command, closed)
    while not list(stage.shared.glob("*/.evidence/*.json")):
        time.sleep(0.01)
    stage.ok("claude", "close", "--reason", "enough")
    closed.touch()
    assert child.wait(timeout=20) == 0
    row = json.loads(next(stage.shared.glob("_archive/*/.evidence/codex-001.json")).read_text())
    assert row["code"] == 0
