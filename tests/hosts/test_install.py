"""Every way to install, each from a home that has never seen relay: npx skills, a plugin in both hosts, and what installs lose."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from hosts.clients import BASE, PATH, until

pytestmark = pytest.mark.hosts

TOOLS = ("node@22", "skills@1.7.4")


@pytest.fixture(scope="session")
def tools():
    """The folder of a Node that `npx skills` runs on, and of skills itself."""
    folder = pathlib.Path(os.environ.get("RELAY_TEST_NODE") or BASE / "node22-skills-1.7.4")
    if not (folder / "node_modules/.bin/skills").exists():
        if not shutil.which("npm"):
            pytest.skip("there is no npm, so no `npx skills`")
        folder.mkdir(parents=True, exist_ok=True)
        command = (
            "npm",
            "install",
            "--loglevel=error",
            "--no-audit",
            "--no-fund",
            "--fetch-retries=1",
            "--prefix",
            str(folder),
            *TOOLS,
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm could not bring {' and '.join(TOOLS)}: {done.stderr.strip()[-200:]}")
    return folder / "node_modules/.bin"


@pytest.fixture
def checkout(scene):
    """A clone of this repository as it stands here, with a bare one that a URL leads to; no skill in the home."""
    shutil.rmtree(scene.home / ".agents")
    (scene.home / ".claude/skills/agent-relay").unlink()
    folder = scene.folder / "checkout"
    listed = subprocess.run(
        ("git", "ls-files", "-co", "--exclude-standard"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "as it is")):
        subprocess.run((*git, *words), cwd=folder, env=scene.env(), check=True)
    subprocess.run(
        ("git", "clone", "-q", "--bare", folder, scene.folder / "bare.git"),
        env=scene.env(),
        check=True,
    )
    (scene.home / ".gitconfig").write_text(
        f'[url "file://{scene.folder}/bare.git"]\n\tinsteadOf = https://git.example.invalid/agent-relay.git\n'
    )
    return folder


def skills(scene, tools, *words):
    env = scene.env(PATH=f"{tools}:{PATH}", DISABLE_TELEMETRY="1", DO_NOT_TRACK="1", CI="1")
    done = subprocess.run(
        (tools / "skills", *map(str, words)),
        cwd=scene.project,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def version(scene, path):
    done = subprocess.run(
        (path, "version"),
        cwd=scene.project,
        env=scene.env(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0 and done.stdout.startswith("relay 2."), done


ASKED = ("--agent", "claude-code", "codex", "--skill", "agent-relay", "-y")


def test_npx_skills_installs_globally_again_over_an_old_one_and_removes(scene, tools, checkout):
    skills(scene, tools, "add", checkout, "-g", *ASKED)
    agents, claude = (
        scene.home / ".agents/skills/agent-relay",
        scene.home / ".claude/skills/agent-relay",
    )
    for skill in (agents, claude):
        version(scene, skill / "bin/relay")
        for name in (
            "SKILL.md",
            "references/hook-protocol.md",
            "templates/envrc.dispatcher.example",
            "hooks/hooks.json",
            "agents/openai.yaml",
        ):
            assert (skill / name).is_file(), name
    scene.relay("hooks", "install")
    settings = (scene.home / ".claude/settings.json").read_text()
    assert f"{claude}/bin/relay hook claude Stop" in settings, "each host is given its own path"
    assert f"{agents}/bin/relay hook codex Stop" in (scene.home / ".codex/hooks.json").read_text()

    (agents / "bin/relay").write_text("an older one\n")
    (agents / "bin/gone.py").write_text("")
    skills(scene, tools, "add", checkout, "-g", *ASKED)
    assert not (agents / "bin/gone.py").exists()
    version(scene, claude / "bin/relay")
    scene.relay("hooks", "install")
    assert (scene.home / ".claude/settings.json").read_text() == settings, (
        "the same strings after an update"
    )

    skills(scene, tools, "remove", "agent-relay", "-g", "-y")
    assert not agents.exists() and not claude.exists()
    done = scene.claude("go", part=[{"say": "all is well"}])
    assert done.code == 0 and "all is well" in done.out, "hooks that are left behind change nothing"


def test_npx_skills_installs_from_a_git_url_into_a_project(scene, tools, checkout):
    skills(scene, tools, "add", "https://git.example.invalid/agent-relay.git", *ASKED)
    version(scene, scene.project / ".agents/skills/agent-relay/bin/relay")
    version(scene, scene.project / ".claude/skills/agent-relay/bin/relay")
    assert not (scene.home / ".agents").exists()
    for folder in (".agents", ".claude"):
        done = subprocess.run(
            (scene.project / folder / "skills/agent-relay/bin/relay", "hooks", "install"),
            cwd=scene.project,
            env=scene.env(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and "hint: npx skills add " in done.stderr, done
    scene.codex("go", part=[{"say": "done"}])
    scene.claude("go", part=[{"say": "done"}])
    for host in ("claude", "codex"):
        assert "- agent-relay: " in scene.model.of(host)[0].text, f"{host} lists it"


def test_the_repository_is_a_plugin_of_both_hosts(scene, checkout):
    env = scene.env()
    for words in (
        ("plugin", "marketplace", "add", str(checkout)),
        ("plugin", "install", "agent-relay@agent-relay"),
    ):
        done = subprocess.run(
            (scene.home / "bin/claude", *words),
            cwd=scene.project,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done
    for words in (
        ("plugin", "marketplace", "add", str(checkout)),
        ("plugin", "add", "agent-relay@agent-relay"),
    ):
        done = subprocess.run(
            (scene.home / "bin/codex", *words),
            cwd=scene.project,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done
    relay = str(checkout / "skills/agent-relay/bin/relay")
    done = subprocess.run(
        (relay, "init"),
        cwd=scene.project,
        env={**env, "CODEX_THREAD_ID": "x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
    scene.claude("go", part=[{"say": "done"}])
    scene.codex("go", part=[{"say": "done"}])
    for host in ("claude", "codex"):
        assert "agent-relay:agent-relay" in scene.model.of(host)[0].text, (
            f"{host} lists the plugin's skill"
        )
    trail = (scene.shared / "_relay/hook-trail.log").read_text()
    assert "claude SessionStart claude:" in trail and "codex SessionStart codex:" in trail, trail
    claude = scene.terminal(
        "claude", part=[f"{relay} bootstrap --topic t", {"say": "opened"}, {"say": "woken"}]
    )
    claude.see("❯")
    claude.ask("open")
    trail = scene.shared / "_relay/hook-trail.log"
    until(
        lambda: "claude Stop" in trail.read_text(),
        10,
        "the end of the turn, at which what is there already would be named",
    )
    scene.relays["codex"] = relay
    scene.as_agent("codex", "next", session="01a00000-0000-7000-8000-000000000001")
    scene.as_agent(
        "codex",
        "send",
        "--kind",
        "plan",
        "--file",
        scene.file("# T\n\n## Next\nLook.\n"),
        session="01a00000-0000-7000-8000-000000000001",
    )
    until(
        lambda: "001 plan by codex waits in" in scene.model.of("claude")[-1].text,
        10,
        "the wake by the plugin's hook",
    )
    told = subprocess.run(
        (relay, "hooks", "install", "--json"),
        cwd=scene.project,
        env=env,
        capture_output=True,
        text=True,
    )
    assert [row["state"] for row in json.loads(told.stdout)["rows"]] == [
        "left alone",
        "left alone",
    ], "not twice"


def test_a_lost_exec_bit_and_a_read_only_install_work_as_well(scene):
    relay = scene.home / ".agents/skills/agent-relay/bin/relay"
    relay.chmod(0o644)
    done = subprocess.run(
        ("python3", relay, "next"),
        cwd=scene.project,
        env=scene.env(CODEX_THREAD_ID="x"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and f"next: python3 {relay} bootstrap" in done.stdout, done
    installed = subprocess.run(
        ("python3", relay, "hooks", "install"),
        cwd=scene.project,
        env=scene.env(),
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0
    scene.relays = {}
    (scene.shared / "_relay").mkdir(parents=True)
    scene.claude("go", part=[{"say": "done"}])
    assert "SessionStart" in (scene.shared / "_relay/hook-trail.log").read_text(), (
        "hooks run it by python3"
    )

    relay.chmod(0o555)
    before = {
        path: path.stat().st_mtime_ns for path in [relay.parents[1], *relay.parents[1].rglob("*")]
    }
    for path in before:
        path.chmod(0o555)
    for words in ("version", "help", "next", "status"):
        subprocess.run(
            (relay, words),
            cwd=scene.project,
            env=scene.env(CODEX_THREAD_ID="x"),
            capture_output=True,
            check=words != "status",
        )
    assert {
        path: path.stat().st_mtime_ns for path in [relay.parents[1], *relay.parents[1].rglob("*")]
    } == before, "nothing is written there"


def test_the_hosts_own_validator_takes_the_repository(scene, checkout):
    done = subprocess.run(
        (scene.home / "bin/claude", "plugin", "validate", "--strict", "."),
        cwd=checkout,
        env=scene.env(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "Validation passed" in done.stdout, done.stdout + done.stderr


def test_the_format_of_skills_is_kept(tmp_path):
    """By skills-ref, which the skill format's authors publish."""
    folder = BASE / "skills-ref"
    program = folder / "bin/agentskills"
    if not program.exists():
        made = subprocess.run(
            (sys.executable, "-m", "venv", folder), capture_output=True, text=True
        )
        done = (
            made
            if made.returncode
            else subprocess.run(
                (folder / "bin/pip", "install", "-q", "skills-ref"),
                capture_output=True,
                text=True,
                timeout=200,
            )
        )
        if done.returncode:
            pytest.skip(f"pip could not bring skills-ref: {done.stderr.strip()[-200:]}")
    done = subprocess.run(
        (program, "validate", ROOT / "skills/agent-relay"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "Valid skill" in done.stdout, done
