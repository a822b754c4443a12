"""The real Claude Code and Codex, from npm, each in a home and an environment of its own, against the scripted model.

`Scene` is one project with the skill installed as `npx skills` lays it out; it runs a client in print mode to its
end, or as a TUI under tmux. Nothing of the machine's own accounts or settings is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ROOT

from hosts.model import Model

CLAUDE_VERSION, CODEX_VERSION = "2.1.330", "0.169.0"
OPENCODE_VERSION = "1.18.33"
PACKAGES = (
    f"@anthropic-ai/claude-code@{CLAUDE_VERSION}",
    f"@openai/codex@{CODEX_VERSION}",
    f"opencode-ai@{OPENCODE_VERSION}",
)
# Outside the temporary folders: Codex's sandbox may write those, and the launcher keeps no bytecode there.
BASE = (
    pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    / "agent-relay-tests"
)
SKILL = ROOT / "skills" / "agent-relay"
KEY = "test-key-0000000000000000000000000000"
PATH = "/usr/local/bin:/usr/bin:/bin"


def installed():
    """The folder of the clients' packages: RELAY_TEST_CLIENTS, else one that npm fills once. Skips where it cannot."""
    folder = pathlib.Path(
        os.environ.get("RELAY_TEST_CLIENTS")
        or BASE / f"clients-{CLAUDE_VERSION}-{CODEX_VERSION}-{OPENCODE_VERSION}"
    )
    if not all(path.exists() for path in programs(folder).values()):
        if not shutil.which("npm"):
            pytest.skip("there is no npm, so no real clients")
        folder.mkdir(parents=True, exist_ok=True)
        # The native programs come as packages of their own; --force, for npm under Node 20 would refuse the exact version.
        command = (
            "npm",
            "install",
            "--force",
            "--loglevel=error",
            "--no-audit",
            "--no-fund",
            "--fetch-retries=1",
            "--prefix",
            str(folder),
            *PACKAGES,
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm could not bring the clients: {done.stderr.strip()[-200:]}")
    return folder


def programs(folder):
    modules = folder / "node_modules"
    found = {
        "claude": sorted(modules.glob("@anthropic-ai/claude-code-*/claude")),
        "codex": sorted(modules.glob("@openai/codex-*/vendor/*/bin/codex")),
        "opencode": sorted(modules.glob("opencode-linux-*/bin/opencode")),
    }
    return {name: paths[0] if paths else modules / "missing" for name, paths in found.items()}


def until(true, seconds, what):
    """Waits for something; fails by name."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class Ended:
    """A client's run: exit code and what it printed."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"Ended({self.code}, {self.out!r}, {self.err!r})"


class Scene:
    """One user with both clients, one project in git, the skill installed, one model."""

    def __init__(self, folder, clients):
        self.folder = pathlib.Path(os.path.realpath(folder))
        self.home, self.project = self.folder / "home", self.folder / "project"
        self.shared = self.project / ".shared"
        self.model = Model()
        self._terminals = []
        for made in (
            self.home / ".claude/skills",
            self.home / ".codex",
            self.home / ".agents/skills",
            self.home / "bin",
            self.project,
        ):
            made.mkdir(parents=True)
        for name, path in programs(clients).items():
            (self.home / "bin" / name).symlink_to(path)
        shutil.copytree(SKILL, self.home / ".agents/skills/agent-relay")
        (self.home / ".claude/skills/agent-relay").symlink_to("../../.agents/skills/agent-relay")
        self.relays = {
            "claude": f"{self.home}/.claude/skills/agent-relay/bin/relay",
            "codex": f"{self.home}/.agents/skills/agent-relay/bin/relay",
            "opencode": f"{self.home}/.agents/skills/agent-relay/bin/relay",
        }
        for words in (
            ("init", "-q", "-b", "main"),
            (
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.invalid",
                "commit",
                "-q",
                "--allow-empty",
                "-m",
                "start",
            ),
        ):
            subprocess.run(("git", *words), cwd=self.project, env=self.env(), check=True)
        self.settings(
            "claude",
            {
                "permissions": {
                    "allow": ["Bash", "Edit", "Write", "Read", "NotebookEdit"],
                    "defaultMode": "default",
                }
            },
        )
        self._claude_state()
        self.codex_config()

    def env(self, **more):
        base = {"HOME": str(self.home), "PATH": f"{self.home}/bin:{PATH}", "TERM": "xterm-256color", "LANG": "C.UTF-8",
                "SHELL": "/bin/bash", "USER": "tester", "GIT_CONFIG_SYSTEM": "/dev/null"}  # fmt: skip
        claude = {
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self.model.port}", "ANTHROPIC_API_KEY": KEY, "DISABLE_TELEMETRY": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_ERROR_REPORTING": "1",
        }  # fmt: skip
        return {**base, **claude, "MOCK_KEY": KEY, **more}

    def _claude_state(self):
        project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        # Else a question about auto mode comes up in the middle of a turn, and takes what is typed.
        state = {
            "hasCompletedOnboarding": True,
            "hasSeenAutoDefaultNudge": True,
            "theme": "dark",
            "numStartups": 3,
            "projects": {str(self.project): project},
            "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        }
        (self.home / ".claude.json").write_text(json.dumps(state))

    def settings(self, host, given):
        path = self.home / (".claude/settings.json" if host == "claude" else ".codex/hooks.json")
        path.write_text(json.dumps(given, indent=2) + "\n")

    def codex_config(self, top="", more="", trusted=True):
        trust = f'[projects."{self.project}"]\ntrust_level = "trusted"\n' if trusted else ""
        (self.home / ".codex/config.toml").write_text(
            f'{top}\nmodel = "gpt-5.5"\nmodel_provider = "mock"\ncheck_for_update_on_startup = false\n'
            "[analytics]\nenabled = false\n[feedback]\nenabled = false\n"
            '[notice.model_migrations]\n"gpt-5.5" = "gpt-6-sol"\n'
            f'[model_providers.mock]\nname = "mock"\nbase_url = "http://127.0.0.1:{self.model.port}/v1"\nenv_key = "MOCK_KEY"\n'
            f'wire_api = "responses"\nrequest_max_retries = 0\nstream_max_retries = 0\n{trust}{more}\n'
        )  # fmt: skip

    def relay(self, *words, host="claude", code=0, **more):
        """A relay command that the person types."""
        done = subprocess.run(
            (self.relays[host], *words),
            cwd=self.project,
            env=self.env(**more),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == code, done
        return done.stdout

    def as_agent(self, host, *words, session, code=0):
        """A relay command typed by an agent that no client stands for."""
        name = {"claude": "CLAUDE_CODE_SESSION_ID", "codex": "CODEX_THREAD_ID"}[host]
        return self.relay(*words, host=host, code=code, **{name: session})

    def file(self, text, name="text.md"):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def claude(self, prompt="go", *arguments, part=None, seconds=90, **env):
        """Claude Code in print mode, to its end."""
        return self._run("claude", ("-p", prompt, *arguments), part, seconds, env)

    def codex(self, prompt="go", *arguments, part=None, seconds=90, **env):
        """`codex exec`, to its end; hooks count as trusted for this one run."""
        return self._run(
            "codex",
            (
                "exec",
                "--skip-git-repo-check",
                "--dangerously-bypass-hook-trust",
                *arguments,
                prompt,
            ),
            part,
            seconds,
            env,
        )

    def opencode(self, prompt="go", *arguments, part=None, seconds=90, **env):
        """`opencode run`, to its end; its provider is the same model."""
        options = {"baseURL": f"http://127.0.0.1:{self.model.port}/v1", "apiKey": KEY}
        config = {"provider": {"anthropic": {"options": options}}, "autoupdate": False}
        config |= {"model": "anthropic/claude-sonnet-4-5", "share": "disabled"}
        path = self.home / ".config/opencode/opencode.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
        return self._run("opencode", ("run", *arguments, prompt), part, seconds, env)

    def _run(self, host, words, part, seconds, env):
        if part is not None:
            self.model.parts[host] = part
        child = subprocess.Popen((self.home / "bin" / host, *words), cwd=self.project, env=self.env(**env), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
        try:
            out, err = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            raise AssertionError(
                f"{host} did not end within {seconds} s: {out[-2000:]}{err[-2000:]}"
            ) from None
        return Ended(child.returncode, out, err)

    def terminal(self, host, *arguments, part=None, **env):
        """The client's TUI."""
        if not shutil.which("tmux"):
            pytest.skip("there is no tmux, so no TUI")
        if part is not None:
            self.model.parts[host] = part
        made = Terminal(self, host, arguments, env)
        self._terminals.append(made)
        return made

    def close(self):
        for terminal in self._terminals:
            terminal.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._daemons():
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            for _ in range(20):
                if not self._daemons():
                    break
                time.sleep(0.05)
        self.model.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _daemons(self):
        """What the Codex TUI leaves running, by the copy of the program that it runs, which lies in our home."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    entry.joinpath("cmdline")
                    .read_bytes()
                    .startswith(f"{self.home}/.codex/packages/".encode())
                ):
                    found.append(int(entry.name))
        return found


class Terminal:
    """A client's TUI in a tmux of its own."""

    def __init__(self, scene, host, arguments, env):
        self.scene, self.host = scene, host
        self._tmux = (
            "tmux",
            "-S",
            f"{scene.folder}/tmux-{host}-{len(scene._terminals)}",
            "-f",
            "/dev/null",
        )
        given = [f"{key}={value}" for key, value in scene.env(**env).items()]
        self._call(
            "new-session",
            "-d",
            "-s",
            "s",
            "-x",
            "180",
            "-y",
            "50",
            "-c",
            scene.project,
            "env",
            "-i",
            *given,
            scene.home / "bin" / host,
            *arguments,
        )
        self._call("set-option", "-t", "s", "remain-on-exit", "on")

    def _call(self, *words):
        env = {
            "PATH": PATH,
            "HOME": str(self.scene.home),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        return subprocess.run(
            (*self._tmux, *map(str, words)), env=env, capture_output=True, text=True, timeout=20
        ).stdout

    @property
    def screen(self):
        return self._call("capture-pane", "-p", "-t", "s")

    def see(self, text, seconds=30):
        """Waits until the screen shows one of some texts; which."""
        texts = (text,) if isinstance(text, str) else text

        def shown():
            screen = self.screen
            return next((t for t in texts if t in screen), None)

        try:
            return until(shown, seconds, f"{texts} on the screen of {self.host}")
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{self.screen}") from None

    def urge(self, text):
        """A slow start can swallow an Enter, or all that was typed."""
        if text in self.screen:
            self._call("send-keys", "-t", "s", "Enter")
        else:
            self.type(text)

    def trust_hooks(self):
        """Answers Codex's question at its start, as a user does who trusts them all."""
        self.see("› 1. Review hooks")
        # It shows its question before it listens: a key that comes too soon is lost.
        until(
            lambda: self.keys("Down") or "› 1. Review hooks" not in self.screen,
            30,
            "the choice moves",
        )
        self.see("› 2. Trust all and continue")
        self.keys("Enter")
        self.see("Ask Codex")

    def keys(self, *names):
        for name in names:
            self._call("send-keys", "-t", "s", name)
            time.sleep(0.3)

    def type(self, text):
        self._call("send-keys", "-t", "s", "-l", text)
        time.sleep(0.4)
        self._call("send-keys", "-t", "s", "Enter")

    def ask(self, text, seconds=60):
        """Types a prompt and waits for the end of the turn it starts."""
        model = self.scene.model
        ended, asked = model.ended_turns(self.host), len(model.of(self.host))
        self.type(text)
        end = time.monotonic() + seconds
        again = time.monotonic() + 4
        while model.ended_turns(self.host) == ended:
            if len(model.of(self.host)) == asked and time.monotonic() > again:
                self.urge(text)
                again = time.monotonic() + 4
            assert time.monotonic() < end, (
                f"no answer from {self.host} within {seconds} s\n{self.screen}"
            )
            time.sleep(0.05)

    def close(self):
        pid = self._call("display-message", "-p", "-t", "s", "#{pane_pid}").strip()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._call("display-message", "-p", "-t", "s", "#{pane_dead}").strip() in ("1", ""):
                break
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid), number)
            for _ in range(20):
                if not pathlib.Path(f"/proc/{pid or 0}").exists():
                    break
                time.sleep(0.05)
        self._call("kill-server")
