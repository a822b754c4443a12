"""Shell completion: one table, one hidden command, three shells."""

import os
import re
import shutil
import subprocess
import time

import pytest
from conftest import RELAY, SCRIPT


def offered(stage, *words, author="claude"):
    """The candidates, without what is said of them."""
    done = stage.ok(author, "complete", *words)
    assert done.err == ""
    return [line.split("\t")[0] for line in done.out.split("\n") if line]


def test_every_command_and_every_flag_of_the_table_is_offered(stage):
    for command in RELAY.ALL_COMMANDS:
        words = command.words.split()
        if command.hidden:
            assert words[0] not in offered(stage, words[0])
            continue
        assert words[-1] in offered(stage, *words[:-1], words[-1][:1])
        assert {flag.name for flag in command.flags if flag.name[:2] == "--"} | {"--help"} == {*offered(stage, *words, "--")}
        for flag in command.flags:
            if flag.choices:
                assert offered(stage, *words, flag.name, "") == list(flag.choices)
                assert offered(stage, *words, f"{flag.name}={flag.choices[-1][:3]}")[-1] == f"{flag.name}={flag.choices[-1]}"
                assert offered(stage, *words, flag.name, "=", flag.choices[-1][:3])[-1] == f"{flag.name}={flag.choices[-1]}"
            if flag.metavar in ("FILE", "PATH"):
                assert offered(stage, *words, flag.name, "x") == [":files"]


def test_pairs_numbers_and_authors_come_from_the_ledger(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.send("codex", "review")
    before = stage.snapshot(stage.shared)
    assert offered(stage, "show", "") == ["1", "2"]
    assert "2\treview by codex" in stage.ok("claude", "complete", "show", "").out
    assert offered(stage, "send", "--reply-to", "", author=None) == ["1", "2"]
    assert offered(stage, "log", "--pair-id", "2") == [pair.name]
    assert offered(stage, "pair", "join", "") == [pair.name] and offered(stage, "pairs", "restore", "") == ["--json"]
    assert {*offered(stage, "bootstrap", "--peer", "c")} == {"claude", "codex"}
    assert "file-protocol" in offered(stage, "help", "f") and "pair" in offered(stage, "help", "pa") and "join" in offered(stage, "help", "pair", "")
    assert stage.snapshot(stage.shared) == before


def test_what_was_given_already_is_not_offered_again_but_what_may_be_repeated_is(stage):
    assert "--json" not in offered(stage, "status", "--json", "--")
    assert "--touched" in offered(stage, "send", "--touched", "x", "--")
    assert offered(stage, "run", "--", "") == [":files"] and offered(stage, "completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("words", [(), ("nonsense", ""), ("--",), ("show", "--pair-id", "x/../y", ""), ("pair", "nonsense", ""), ("send", "--kind", "zzz"), ("show", "\x1b", "")])
def test_bad_words_are_met_with_silence(stage, words):
    done = stage.run("claude", "complete", *words)
    assert done.code == 0 and done.err == ""


def test_outside_any_project_and_with_a_broken_ledger_it_is_silent(stage, tmp_path):
    assert stage.run("claude", "complete", "show", "", cwd=tmp_path).err == ""
    stage.shared.mkdir()
    (stage.shared / "20260101-bad").mkdir()
    (stage.shared / "20260101-bad/session.json").write_text("\x1b{")
    done = stage.run("claude", "complete", "show", "")
    assert done.code == 0 and done.err == "" and "\x1b" not in done.out


def test_titles_from_the_ledger_cannot_drive_the_terminal(stage):
    pair = stage.open_pair()
    session = pair / "session.json"
    session.write_text(session.read_text().replace('"title": "', '"title": "\\u001b[2J\\n--evil\\t', 1))
    out = stage.ok("claude", "complete", "pair", "join", "").out
    assert "\x1b" not in out and out.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_this_relay_and_says_for_which_shell(stage, shell):
    out = stage.ok(None, "completion", shell).out
    assert f"relay completion {shell}`" in out and f"{SCRIPT} complete" in out
    assert stage.run(None, "completion", "tcsh").code == 2


# ---- in the shells themselves


@pytest.fixture
def in_shell(stage):
    """Runs a script in a shell, where a relay can be called by its name."""
    folder = stage.folder / "bin"
    folder.mkdir()
    (folder / "relay").symlink_to(SCRIPT)
    stage.pair = stage.open_pair()
    stage.send("claude", "plan")
    (stage.project / "my plan.md").write_text("x")

    def run(shell, script, *options):
        if not shutil.which(shell):
            pytest.skip(f"{shell} is not installed")
        env = stage.env(None, PATH=f"{folder}:{os.environ['PATH']}", TERM="dumb")
        words = (shell, *options, "-c", script)
        done = subprocess.run(words, cwd=stage.project, env=env, capture_output=True, text=True, timeout=60)
        assert done.stderr == "", done.stderr
        return done.stdout

    return run


BASH = r"""
%s
source <(relay completion bash)
ask() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  local spec=$(complete -p "${1##*/}" 2>/dev/null); local function=${spec##*-F }; ${function%% *} 2>/dev/null
  printf '%%s|' "${COMPREPLY[@]}"; echo
}
ask relay sta
ask relay send --kind pl
ask relay send --kind = r
ask relay send --file 'my'
ask relay show ''
ask /some/where/bin/relay pair join ''
ask relay nonsense ''
shopt -s expand_aliases
alias rl=PATH/relay
source <(relay completion bash)
ask rl verif
"""


@pytest.mark.slow
@pytest.mark.parametrize("helped", [False, True], ids=["alone", "with-bash-completion"])
def test_bash(stage, in_shell, helped):
    package = "/usr/share/bash-completion/bash_completion"
    if helped and not os.path.exists(package):
        pytest.skip("bash-completion is not installed")
    out = in_shell("bash", BASH.replace("PATH", str(stage.folder / "bin")) % (f". {package}" if helped else ""), "--norc")
    told = out.split("\n")
    assert told[:9] == ["status|statusline|", "plan|", "review|", "my plan.md|", "1|", f"{stage.pair.name}|", "|", "verify|", ""]


class Typed:
    """A shell in a terminal of its own, in which somebody presses Tab."""

    def __init__(self, stage, *shell):
        self.name = f"completion-{os.getpid()}-{time.monotonic_ns()}"
        env = stage.env(None, PATH=f"{stage.folder / 'bin'}:{os.environ['PATH']}", TERM="screen", PS1="$ ")
        self.do("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "40", "-c", str(stage.project), "env", "-i", *(f"{k}={v}" for k, v in env.items()), *shell)

    def do(self, *words):
        return subprocess.run(("tmux", "-L", self.name, *words), capture_output=True, text=True, timeout=20).stdout

    def until(self, pattern, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = self.do("capture-pane", "-p")
            if re.search(pattern, screen, re.M):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} did not come:\n{screen}")

    def tab(self, text, pattern):
        self.do("send-keys", "C-u")
        self.do("send-keys", "-l", text)
        self.do("send-keys", "Tab")
        return self.until(pattern)


@pytest.fixture
def typed(stage):
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    made = []

    def start(*shell):
        made.append(Typed(stage, *shell))
        return made[-1]

    yield start
    for each in made:
        each.do("kill-server")


@pytest.mark.slow
def test_bash_when_somebody_presses_tab(stage, in_shell, typed):
    shell = typed("bash", "--norc", "--noprofile")
    shell.do("send-keys", "-l", "source <(relay completion bash); echo re''ady\n")
    shell.until("^ready")
    shell.tab("relay verif", r"relay verify$")
    shell.tab("relay send --file my", r"--file my\\ plan.md$")
    shell.tab("relay send --kind=rev", r"--kind=review$")
    shell.tab(f"{stage.folder}/bin/relay com", r"completion$")


@pytest.mark.slow
@pytest.mark.parametrize("installed", [False, True], ids=["sourced", "in-fpath"])
def test_zsh_when_somebody_presses_tab(stage, in_shell, typed, installed):
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    functions = stage.folder / "zfunc"
    functions.mkdir()
    if installed:
        (functions / "_relay").write_text(in_shell("zsh", "relay completion zsh", "-f"))
    shell = typed("zsh", "-f")
    load = "" if installed else "source <(relay completion zsh);"
    shell.do("send-keys", "-l", f"PS1='$ '; fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; {load} echo re''ady\n")
    shell.until("^ready")
    shell.tab("relay verif", r"relay verify$")
    shell.tab("relay send --kind de", r"--kind decision")
    shell.tab("relay send --file my", r"--file my\\ plan.md")
    shell.tab("relay show ", r"show 1")
    shell.tab(f"{stage.folder}/bin/relay completion f", r"completion fish")
    shell.do("send-keys", "C-u")
    shell.do("send-keys", "-l", "alias rl=relay\n")
    shell.tab("rl send --kind=corr", r"--kind=correction")


@pytest.mark.slow
def test_fish(stage, in_shell):
    ask = "relay completion fish | source; complete -C '{}'"
    told = lambda line: [each.split("\t")[0] for each in in_shell("fish", ask.format(line), "--no-config").split("\n") if each]  # noqa: E731
    assert told("relay sta") == ["status", "statusline"]
    assert told("relay send --kind pl") == ["plan"]
    assert told("relay send --kind=pl") == ["--kind=plan"]
    assert told("relay send --file my") == ["my plan.md"]
    assert told(f"{stage.folder}/bin/relay pair join ") == [stage.pair.name]
    assert told("relay nonsense ") == []
    aliased = in_shell("fish", "relay completion fish | source; alias rl=relay; complete -C 'rl verif'", "--no-config")
    assert aliased.split("\t")[0].strip() == "verify"
