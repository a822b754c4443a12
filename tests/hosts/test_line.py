"""The status line where people look: under Claude Code's prompt, in tmux, in a terminal's title beside Codex."""

import json
import re
import subprocess

import pytest
from conftest import ROOT

from hosts.clients import PATH, until

pytestmark = pytest.mark.hosts

CLAUDES, CODEXS = "11111111-1111-4111-8111-111111111111", "01a00000-0000-7000-8000-000000000001"


@pytest.fixture
def documented():
    """The commands for tmux and for the title, as hook-protocol.md gives them."""
    text = (ROOT / "skills/agent-relay/references/hook-protocol.md").read_text()
    return re.findall(r"(?m)^    (set -g status-right .*)$", text)[0], re.findall(
        r"(?m)^    (while sleep 5; .*) & codex$", text
    )[0]


def test_claude_code_shows_the_line_and_keeps_it_new(scene):
    scene.relay("init")
    slug = scene.as_agent("codex", "bootstrap", "--topic", "t", session=CODEXS).split()[0]
    scene.relay("statusline", "install")
    settings = scene.home / ".claude/settings.json"
    value = json.loads(settings.read_text())
    assert value["statusLine"]["refreshInterval"] == 10
    value["statusLine"]["refreshInterval"] = 1
    settings.write_text(json.dumps(value))
    claude = scene.terminal("claude", part=[f"{scene.relays['claude']} next", {"say": "joined"}])
    claude.ask("join")
    claude.see(f"relay {slug}: fresh; codex's move")
    scene.as_agent(
        "codex",
        "send",
        "--kind",
        "plan",
        "--file",
        scene.file("# Text\n\n## Next\nLook.\n"),
        session=CODEXS,
    )
    claude.see("your move: reply to 001 plan", seconds=5)
    assert len(scene.model.of("claude")) == 2, "the line is new though nothing woke the model"


def test_tmux_and_a_terminals_title_show_whose_move_it_is(scene, documented):
    line, title = (text.replace("~", str(scene.home)) for text in documented)
    scene.as_agent("claude", "bootstrap", "--topic", "t", session=CLAUDES)
    scene.as_agent("codex", "next", session=CODEXS)
    scene.as_agent(
        "claude",
        "send",
        "--kind",
        "plan",
        "--file",
        scene.file("# Text\n\n## Next\nLook.\n"),
        session=CLAUDES,
    )
    conf = scene.folder / "tmux.conf"
    conf.write_text(f"{line}\nset -g status-right-length 120\nset -g status-interval 1\n")
    env = {"PATH": PATH, "HOME": str(scene.home), "TERM": "xterm-256color", "LANG": "C.UTF-8"}

    def call(socket, *words):
        command = (
            "tmux",
            "-S",
            f"{scene.folder}/{socket}",
            "-f",
            str(conf) if socket == "inner" else "/dev/null",
            *words,
        )
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=20).stdout

    # tmux runs the command of a status line for a client that looks at it: a second tmux is that client's terminal.
    shell = f"{title.replace('sleep 5', 'sleep 0.2')} & exec sleep 60"
    call(
        "inner",
        "new-session",
        "-d",
        "-s",
        "s",
        "-x",
        "180",
        "-c",
        str(scene.project),
        "sh",
        "-c",
        shell,
    )
    call(
        "outer",
        "new-session",
        "-d",
        "-s",
        "o",
        "-x",
        "180",
        "-y",
        "10",
        f"env -u TMUX tmux -S {scene.folder}/inner attach",
    )
    try:
        until(
            lambda: (
                "codex's move: reply to 001 plan" in call("outer", "capture-pane", "-p", "-t", "o")
            ),
            10,
            "the line in tmux",
        )
        until(
            lambda: (
                "codex's move: reply to 001 plan"
                in call("inner", "display-message", "-p", "-t", "s", "#{pane_title}")
            ),
            10,
            "the title",
        )
    finally:
        call("outer", "kill-server")
        call("inner", "kill-server")
