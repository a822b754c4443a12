"""Relay's entries in the hosts' settings: nothing of anybody else's is touched, and uninstall takes out what install put in."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import re
import shutil
import stat
import subprocess

import pytest
from conftest import ROOT, SCRIPT, Done, copy_script

SCRATCH = "Edit(.shared/_relay/claude.md)"  # The host's own form, relative to the session.
OTHER = {"hooks": [{"type": "command", "command": "echo mine", "timeout": 7}]}
# Settings as people have them: laid out by hand, by other tools, with and without hooks.
FOUND = {
    "empty": "",
    "braces": "{}",
    "braces-line": "{}\n",
    "blanks": "  \n",
    "spaced": "{ }\n",
    "usual": json.dumps({"permissions": {"allow": ["Bash(ls:*)"]}, "model": "opus"}, indent=2)
    + "\n",
    "tabs": json.dumps({"a": 1, "hooks": {"Stop": [OTHER]}}, indent="\t"),
    "four": json.dumps({"hooks": {"Stop": [OTHER, OTHER], "PreToolUse": []}, "z": [1, 2]}, indent=4)
    + "\n\n",
    "one-line": json.dumps({"hooks": {"Stop": [OTHER]}, "b": {"c": []}}),
    "one-line-no-hooks": '{"a":1}',
    "odd": '{\n  "a" : 1e5 ,"b":\n[ 1.0,\t"\\u00e9é\\/" ] , "hooks" : { }\n}',
    "crlf": '{\r\n  "a": 1,\r\n  "hooks": {\r\n    "Stop": []\r\n  }\r\n}\r\n',
    "all": json.dumps(
        {
            "hooks": {
                e: [OTHER]
                for e in (
                    "SessionStart",
                    "UserPromptSubmit",
                    "PreToolUse",
                    "Stop",
                    "SessionEnd",
                    "FileChanged",
                    "Notification",
                )
            }
        },
        indent=2,
    ),
    "deep-strings": json.dumps(
        {
            "x": 'a "hooks": {} \\ }',
            "y": ["{", "]"],
            "statusLine": {"type": "command", "command": "mine"},
        },
        indent=1,
    ),
}
FOUND |= {
    "no-permissions": json.dumps({"permissions": {}, "a": 1}, indent=2),
    "no-rules": json.dumps({"permissions": {"allow": [], "ask": ["Bash(rm:*)"]}}, indent=2),
    "its-own-rule": json.dumps({"permissions": {"allow": [SCRATCH, "Edit(docs/**)"]}}, indent=2),
    "odd-permissions": json.dumps({"permissions": {"allow": "all"}}, indent=2),
}
HOSTS = ("claude", "codex")


@pytest.fixture
def relays(stage):
    """How each host types relay: by the user's own symlinks to this checkout."""
    return stage.link_skill()


@pytest.fixture
def homes(stage, relays):
    """Both hosts have been started once: their directories are there."""
    for host in HOSTS:
        (stage.home / f".{host}").mkdir(exist_ok=True)
    return {
        "claude": stage.home / ".claude/settings.json",
        "codex": stage.home / ".codex/hooks.json",
    }


def own(value, host):
    return [
        (event, entry)
        for event, groups in value.get("hooks", {}).items()
        for group in groups
        for entry in group.get("hooks", ())
        if f" hook {host} " in entry["command"]
    ]


def others(value):
    """What settings say without relay's entries and without what is empty."""
    hooks = {}
    for event, groups in value.get("hooks", {}).items():
        kept = [
            group
            for group in groups
            if not any("bin/relay" in entry["command"] for entry in group["hooks"])
            and group["hooks"]
        ]
        hooks |= {event: kept} if kept else {}
    permissions = {**value.get("permissions", {})}
    permissions["allow"] = [rule for rule in permissions.get("allow", []) if rule != SCRATCH]
    return {**value, "hooks": hooks, "permissions": permissions}


# These are laid out as a JSON writer does and hold nothing that is empty: they come back byte for byte.
PLAIN = ("usual", "tabs", "one-line", "all", "deep-strings")


def is_what_install_found(text, name):
    """Nothing of relay's is left, all else is, in its order and with its indentation."""
    before, after = json.loads(FOUND[name].strip() or "{}"), json.loads(text)
    assert others(after) == others(before)
    assert [key for key in before if key in after] == [*after]
    assert "relay" not in text
    assert name not in PLAIN or text.strip() == FOUND[name].strip()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", FOUND)
def test_uninstall_leaves_what_install_found(stage, homes, host, name):
    path = homes[host]
    path.write_bytes(FOUND[name].encode())
    stage.ok(None, "hooks", "install", "--target", host)
    installed = path.read_bytes()
    line_ends = installed.count(b"\r\n")
    assert line_ends == (installed.count(b"\n") if name == "crlf" else 0)
    value = json.loads(installed)
    before = json.loads(FOUND[name].strip() or "{}")
    assert others(value) == others(before), "nothing of anybody else's is touched"
    assert [event for event, _ in own(value, host)].count("Stop") == 1
    for event, groups in value["hooks"].items():
        was = before.get("hooks", {}).get(event, [])
        assert groups[: len(was)] == was, "own groups come last: a shift un-trusts others"
    stage.ok(None, "hooks", "install", "--target", host)
    assert path.read_bytes() == installed, "run again, it changes nothing"
    stage.ok(None, "hooks", "uninstall", "--target", host)
    if not (host == "codex" and name == "its-own-rule"):  # The rule is none of relay's there.
        is_what_install_found(path.read_text(), name)
    left = {p.name for p in path.parent.iterdir()} - {"skills"}
    assert left == {path.name}, "nothing is left beside it"


def test_a_file_that_was_not_there_is_empty_after_uninstall(stage, homes):
    stage.ok(None, "hooks", "install")
    assert all(own(json.loads(path.read_text()), host) for host, path in homes.items())
    stage.ok(None, "hooks", "uninstall")
    assert [json.loads(path.read_text()) for path in homes.values()] == [{}, {}]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", ["usual", "tabs", "four", "one-line", "all"])
def test_uninstall_keeps_what_others_changed_meanwhile(stage, homes, host, name):
    path = homes[host]
    path.write_text(FOUND[name])
    stage.ok(None, "hooks", "install", "--target", host)
    value = json.loads(path.read_text())
    value["hooks"]["Stop"].append(OTHER)
    value["new"] = {"of": "mine"}
    path.write_text(json.dumps(value, indent=3))
    stage.ok(None, "hooks", "uninstall", "--target", host)
    assert SCRATCH not in path.read_text()
    after = json.loads(path.read_text())
    assert (
        own(after, host) == [] and others(after) == others(value) and after["new"] == {"of": "mine"}
    )
    stops = after["hooks"]["Stop"]
    assert stops.index({"hooks": []}) == len(stops) - 2 and stops[-1] == OTHER, (
        "an empty group keeps the place that trust names"
    )


@pytest.mark.parametrize("host", HOSTS)
def test_a_moved_relay_renews_its_entries_in_their_places(stage, homes, relays, host):
    path = homes[host]
    path.write_text(json.dumps({"hooks": {"Stop": [OTHER]}}, indent=2))
    stage.ok(None, "hooks", "install", "--target", host)
    moved = path.read_text().replace(relays[host], "/old/place/bin/relay")
    assert "/old/place" in moved
    value = json.loads(moved)
    value["hooks"]["Stop"].append(OTHER)
    path.write_text(json.dumps(value, indent=2))
    stage.ok(None, "hooks", "install", "--target", host)
    renewed = json.loads(path.read_text())
    assert "/old/place" not in path.read_text() and len(own(renewed, host)) == len(own(value, host))
    assert renewed["hooks"]["Stop"][0] == renewed["hooks"]["Stop"][2] == OTHER


@pytest.fixture
def projects_own(stage, homes):
    """A copy of the skill that came with a project, and a home with no skill in it."""
    for link in stage.home.glob(".*/skills/agent-relay"):
        link.unlink()
    skill = stage.project / ".agents/skills/agent-relay"
    shutil.copytree(SCRIPT.parent.parent, skill)
    copy_script(skill / "bin/relay")
    return skill


def typed(stage, skill, *words, cwd=None):
    """Types the relay of one copy of the skill."""
    done = subprocess.run(
        (skill / "bin/relay", *words),
        cwd=cwd or stage.project,
        env=stage.env(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    ["clone", "by a symlink to the project"]
    + [pytest.param(how, marks=pytest.mark.slow) for how in ("worktree", "relative")],
)
def test_a_projects_own_copy_of_the_skill_installs_nothing_for_every_project(
    stage, homes, projects_own, how
):
    """A later pull of that repository would control every project of the user."""
    skill, cwd = projects_own, None
    if how == "worktree":
        stage.git("add", "-A")
        stage.git("commit", "-q", "-m", "skill")
        stage.git("worktree", "add", "-q", str(stage.folder / "linked"))
        skill = stage.folder / "linked/.agents/skills/agent-relay"
        copy_script(skill / "bin/relay")
    elif how == "by a symlink to the project":
        (stage.folder / "elsewhere").symlink_to(stage.project)
        skill = stage.folder / "elsewhere/.agents/skills/agent-relay"
    elif how == "relative":
        cwd, skill = skill / "references", pathlib.Path("..")
    before = stage.snapshot(stage.home)
    flags = ((), ("--dry-run",), ("--nudge",)) if how == "clone" else ()
    lines = [("hooks", "install", *more) for more in (("--target", "both"), *flags)]
    for words in (*lines, ("statusline", "install"), ("statusline", "install", "--force")):
        done = typed(stage, skill, *words, cwd=cwd)
        assert done.code == 2 and not done.out, done
        why, hint = done.err.splitlines()
        assert "git work tree" in why and why.count("agent-relay/bin/relay") == 1
        assert hint.startswith("hint: npx skills add ") and " -g " in hint and "README" in hint
        assert stage.snapshot(stage.home) == before and not stage.shared.exists()
    for word in ("status", "uninstall") if how == "clone" else ():
        assert typed(stage, skill, "hooks", word, cwd=cwd).code == 0
    assert how != "clone" or typed(stage, skill, "statusline", "uninstall").code == 0


@pytest.mark.parametrize("where", ["copy", "symlink", "dotfiles", "stray .git"])
def test_what_the_user_has_installed_installs_hooks(stage, homes, projects_own, where):
    """The user's own skills count wherever they lead to, and in a home that is in git too."""
    skill = stage.home / ".agents/skills/agent-relay"
    skill.parent.mkdir(parents=True, exist_ok=True)
    if where == "symlink":
        skill.symlink_to(projects_own)
    elif where == "stray .git":  # As Codex's sandbox leaves it behind in /tmp.
        (stage.folder / ".git").mkdir()
        skill = stage.folder / "opt/agent-relay"
    if where != "symlink":
        shutil.copytree(projects_own, skill)
        copy_script(skill / "bin/relay")
    if where == "dotfiles":
        stage.git("init", "-q", cwd=stage.home)
    assert typed(stage, skill, "hooks", "install").code == 0
    for host in HOSTS:
        entries = own(json.loads(homes[host].read_text()), host)
        assert all(f"{skill}/bin/relay" in entry["command"] for _, entry in entries) and entries


BAD = {
    "comments": '{\n  // mine\n  "a": 1\n}\n',
    "trailing-comma": '{"a": 1,}',
    "twice": '{"a": 1, "a": 2}',
    "list": "[]",
    "bom": "\ufeff{}",
    "text": "hello",
    "hooks-list": '{"hooks": []}',
    "event-object": '{"hooks": {"Stop": {}}}',
    "torn": '{"a": ',
    "too-large-a-number": '{"a": 1e999}',
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_are_no_plain_json_are_left_alone_with_a_clear_word(stage, homes, name):
    path = homes["claude"]
    path.write_bytes(BAD[name].encode())
    before = stage.snapshot(stage.home)
    for words in (("hooks", "install"), ("hooks", "uninstall"), ("statusline", "install")):
        done = stage.run(None, *words, *(("--target", "claude") if words[0] == "hooks" else ()))
        assert done.code == 2 and str(path) in done.err and "hint: " in done.err, done
        assert "--dry-run" not in done.err or words == ("hooks", "install"), "that prints no more"
        assert stage.snapshot(stage.home) == before
    assert stage.run(None, "hooks", "doctor", "--target", "claude").code == 1
    both = stage.run(None, "hooks", "install", "--target", "both")
    assert both.code == 1 and "refused" in both.out and homes["codex"].exists(), (
        "the other host is served"
    )
    assert path.read_bytes() == BAD[name].encode()
    homes["codex"].write_bytes(BAD[name].encode())
    for host in HOSTS:
        found = stage.run(None, "hooks", "doctor", "--target", host, "--json").json["findings"]
        assert [row["id"] for row in found] == ["settings.unreadable"], host
    for host in stage.ok(None, "hooks", "status", "--json").json["hosts"]:
        assert {row["state"] for row in host["events"].values()} == {"unreadable"}


@pytest.mark.parametrize(
    "odd",
    [
        {"enabledPlugins": True},
        {"enabledPlugins": ["agent-relay@x"]},
        {
            "hooks": {
                "Stop": ["x", None, {"hooks": "x"}, {"hooks": ["/x/bin/relay hook claude Stop"]}]
            }
        },
        {"hooks": {"Stop": [{"hooks": [5, None, ["bin/relay", " hook claude "]]}]}},
        {"permissions": ["x"], "statusLine": "bin/relay statusline", "env": 1},
    ],
)
def test_settings_of_another_shape_stop_no_command_and_stay(stage, homes, odd):
    homes["claude"].write_text(json.dumps(odd, indent=2))
    for words in ("hooks install", "hooks status", "hooks doctor", "doctor", "hooks uninstall"):
        done = stage.run(None, *words.split())
        assert done.code in (0, 1) and "check.failed" not in done.out, (words, done)
    assert json.loads(homes["claude"].read_text()) == odd


def test_links_and_modes_stay_as_they_are(stage, homes):
    real = stage.folder / "dotfiles/settings.json"
    real.parent.mkdir()
    real.write_text(FOUND["usual"])
    real.chmod(0o644)
    homes["claude"].symlink_to(real)
    stage.ok(None, "hooks", "install", "--target", "claude")
    assert (
        homes["claude"].is_symlink()
        and own(json.loads(real.read_text()), "claude")
        and stat.S_IMODE(real.stat().st_mode) == 0o644
    )
    stage.ok(None, "hooks", "uninstall", "--target", "claude")
    assert (
        homes["claude"].is_symlink()
        and real.read_text() == FOUND["usual"]
        and stat.S_IMODE(real.stat().st_mode) == 0o644
    )


def test_a_read_only_file_and_a_folder_in_its_place_are_not_written(stage, homes):
    homes["claude"].write_text(FOUND["usual"])
    homes["claude"].chmod(0o444)
    done = stage.run(None, "hooks", "install", "--target", "claude")
    assert (
        done.code == 2
        and "is read-only" in done.err
        and homes["claude"].read_text() == FOUND["usual"]
    )
    homes["codex"].mkdir()
    done = stage.run(None, "hooks", "install", "--target", "codex")
    assert done.code == 2 and "not a regular file" in done.err and homes["codex"].is_dir()


def test_dry_run_says_what_would_be_added_and_changes_nothing(stage, homes, relays):
    homes["claude"].write_text(FOUND["usual"])
    before = stage.snapshot(stage.home)
    done = stage.ok(None, "hooks", "install", "--dry-run", "--nudge")
    assert (
        f"{relays['claude']} hook claude Stop || true" in done.out
        and "would be changed" in done.out
    )
    rows = stage.ok(None, "hooks", "uninstall", "--dry-run", "--json").json["rows"]
    assert not [row for row in rows if "add" in row], "nothing would be added"
    assert stage.snapshot(stage.home) == before and not stage.shared.exists()


@pytest.mark.parametrize("name", ["comments", "hooks-list", "torn"])
def test_what_a_file_that_is_left_alone_lacks_can_be_pasted(stage, homes, relays, name):
    """The hint of the refusal leads to the entries, and never back to itself."""
    homes["claude"].write_text(BAD[name])
    done = stage.run(None, "hooks", "install", "--dry-run", "--target", "claude")
    assert done.code == 1 and "hint: " not in done.out and not done.err, done
    added = json.loads(done.out[done.out.index("{") :])
    assert own(added, "claude") and added["permissions"]["allow"] == [SCRATCH]
    homes["claude"].write_text(json.dumps(added))
    assert "unchanged" in stage.ok(None, "hooks", "install", "--target", "claude").out


def test_outside_a_project_hooks_are_installed_and_taken_out(stage, homes):
    outside = stage.folder / "outside"
    outside.mkdir()
    before = stage.snapshot(stage.home)
    nudged = stage.run(None, "hooks", "install", "--nudge", cwd=outside)
    assert nudged.code == 2 and stage.snapshot(stage.home) == before, "it is of one project"
    assert stage.ok(None, "hooks", "install", cwd=outside).out.count(": installed: ") == 2
    assert "unchanged" in stage.ok(None, "hooks", "install").out
    assert stage.ok(None, "hooks", "uninstall", cwd=outside).out.count(": removed: ") == 2


def test_without_home_the_users_own_home_is_meant(stage):
    home = pwd.getpwuid(os.getuid()).pw_dir.rstrip("/")
    rules = stage.process(None, "hooks", "rules", "--json", HOME=None).json
    assert rules["claude"]["file"] == f"{home}/.claude/settings.json"


def test_a_host_whose_directory_cannot_be_used_is_named_with_what_helps(stage, homes):
    homes["codex"].parent.rmdir()
    homes["codex"].parent.write_text("no directory")
    done = stage.run(None, "hooks", "install", "--target", "codex")
    assert done.code == 2 and "hint: " in done.err and "Errno" not in done.err, done


def test_a_hook_of_the_users_that_speaks_of_relay_stays(stage, homes):
    mine = [
        {"type": "command", "command": "mine hook claude Stop # beside bin/relay"},
        {"type": "command", "command": "mine", "statusMessage": "bin/relay hook claude Stop"},
    ]
    settings = {"hooks": {"Stop": [{"hooks": mine}]}}
    homes["claude"].write_text(json.dumps(settings))
    stage.ok(None, "hooks", "install", "--target", "claude")
    assert json.loads(homes["claude"].read_text())["hooks"]["Stop"][0] == {"hooks": mine}
    stage.ok(None, "hooks", "uninstall", "--target", "claude")
    assert json.loads(homes["claude"].read_text()) == settings


def test_no_host_here_is_said_and_a_named_one_is_made(stage):
    done = stage.run(None, "hooks", "install")
    assert done.code == 2 and "neither host" in done.err
    uninstall = stage.run(None, "hooks", "uninstall")
    hint = re.search("hint: .*/bin/relay (.*)", uninstall.err)[1].split()
    assert uninstall.code == 2 and hint[1] == "uninstall" and stage.ok(None, *hint)
    link = stage.home / ".agents/skills/agent-relay"
    link.parent.mkdir(parents=True)
    link.symlink_to(SCRIPT.parent.parent)
    stage.ok(None, "hooks", "install", "--target", "codex")
    assert (stage.home / ".codex/hooks.json").exists()


def test_entries_that_a_user_has_put_beside_relays_in_one_group_stay(stage, homes, relays):
    mine, old = (
        OTHER["hooks"][0],
        {"type": "command", "command": "/old/bin/relay hook claude Stop || true"},
    )
    homes["claude"].write_text(
        json.dumps({"hooks": {"Stop": [{"matcher": "x", "hooks": [mine, old, mine]}]}}, indent=2)
    )
    stage.ok(None, "hooks", "install", "--target", "claude")
    entries = json.loads(homes["claude"].read_text())["hooks"]["Stop"][0]["hooks"]
    assert (
        entries[0] == entries[2] == mine
        and entries[1]["command"] == f"{relays['claude']} hook claude Stop || true"
    )
    stage.ok(None, "hooks", "uninstall", "--target", "claude")
    assert json.loads(homes["claude"].read_text())["hooks"] == {
        "Stop": [{"matcher": "x", "hooks": [mine, mine]}]
    }


def test_rules_stand_for_paths_with_blanks_too(stage):
    relay = stage.folder / "with blank/bin/relay"
    relay.parent.mkdir(parents=True)
    copy_script(relay)
    done = subprocess.run(
        (relay, "hooks", "rules", "--json"),
        cwd=stage.project,
        env=stage.env(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    told = json.loads(done.stdout)
    assert (
        told["codex"]["rule"].startswith(f'prefix_rule(pattern=["{relay}", ["status", ')
        and f"Bash('{relay}' next)" in told["claude"]["permissions"]["allow"]
    )


def test_the_strings_are_the_same_in_every_version(stage, homes, relays):
    """Codex trusts a hook by its bytes. A change here un-trusts it for every user: is it worth that?"""
    stage.ok(None, "hooks", "install")
    told = json.loads(homes["codex"].read_text())["hooks"]
    command = f"{relays['codex']} hook codex %s || true"
    seconds = {"SessionStart": 5, "UserPromptSubmit": 5, "Stop": 5, "SessionEnd": 3}
    plain = {
        event: [{"hooks": [{"type": "command", "command": command % event, "timeout": timeout}]}]
        for event, timeout in seconds.items()
    }
    plain["PreToolUse"] = [
        {
            "matcher": "apply_patch",
            "hooks": [{"type": "command", "command": command % "PreToolUse", "timeout": 5}],
        }
    ]
    assert told == plain


@pytest.mark.parametrize("program", ["sh", "bash"])
def test_the_wake_of_the_settings_lets_only_relays_own_through(stage, homes, relays, program):
    stage.ok(None, "hooks", "install", "--target", "claude")
    entry = json.loads(homes["claude"].read_text())["hooks"]["FileChanged"][0]["hooks"][0]
    assert entry["asyncRewake"] is True
    fake = stage.folder / "fake/bin/relay"
    fake.parent.mkdir(parents=True)
    command = entry["command"].replace(relays["claude"], str(fake))
    event = json.dumps(
        {"session_id": "x", "file_path": "/p/.shared/x/001-codex-plan.ready", "event": "add"}
    )

    def called(text, given=event):
        fake.write_text(f"#!/bin/sh\n{text}\n")
        fake.chmod(0o755)
        done = subprocess.run(
            (program, "-c", command),
            input=given,
            env=stage.env(),
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.returncode, done.stdout, done.stderr

    assert called("cat >&2; exit 0") == (0, "", "")
    assert called("echo '[relay-action] x' >&2; exit 2") == (2, "", "[relay-action] x\n")
    assert called("echo 'usage: relay' >&2; exit 2") == (0, "", ""), (
        "an old relay ends with 2 for reasons of its own"
    )
    assert called("if") == (0, "", ""), "so does a torn one"
    assert called("echo ran >ran; exit 0", event.replace(".ready", ".md")) == (0, "", "")
    assert not (fake.parent / "ran").exists() and not os.path.exists("ran")
    fake.unlink()
    done = subprocess.run(
        (program, "-c", command),
        input=event,
        env=stage.env(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_plugin_calls_the_same_events_and_both_together_are_said(stage, homes, relay):
    plugin = json.loads((ROOT / "skills/agent-relay/hooks/hooks.json").read_text())["hooks"]
    assert set(plugin) == {
        "SessionStart",
        "UserPromptSubmit",
        "PreToolUse",
        "Stop",
        "SessionEnd",
        "FileChanged",
    }
    assert {e: g["hooks"][0]["timeout"] for e, (g,) in plugin.items()}.items() >= {
        ("SessionEnd", 3),
        ("Stop", 5),
    }
    homes["claude"].write_text(json.dumps({"enabledPlugins": {"agent-relay@agent-relay": True}}))
    (stage.home / ".codex/config.toml").write_text(
        '[plugins."agent-relay@agent-relay"]\nenabled = true\n'
    )
    done = stage.ok(None, "hooks", "install")
    assert (
        done.out.count("left alone") == 2
        and done.out.count("the plugin provides these hooks already") == 2
    )
    assert not homes["codex"].exists()


def test_a_hook_that_its_matcher_keeps_from_being_called_is_named_and_mended(stage, homes):
    stage.ok(None, "hooks", "install", "--target", "claude")
    settings = json.loads(homes["claude"].read_text())
    (group,) = settings["hooks"]["PreToolUse"]
    mine = {"type": "command", "command": "mine"}
    for there in (
        {**group, "matcher": "Read"},
        {"matcher": "Bash", "hooks": [mine, *group["hooks"]]},
        {"hooks": [mine, *group["hooks"]]},
    ):
        settings["hooks"]["PreToolUse"] = [there]
        homes["claude"].write_text(json.dumps(settings))
        assert "PreToolUse differs" in stage.run(None, "hooks", "doctor").out
        stage.ok(None, "hooks", "install", "--target", "claude")
        after = json.loads(homes["claude"].read_text())["hooks"]["PreToolUse"]
        kept = [{**there, "hooks": [mine]}] if mine in there["hooks"] else []
        assert after == [*kept, group]
        assert "PreToolUse differs" not in stage.run(None, "hooks", "doctor").out


@pytest.mark.parametrize(
    "config",
    [
        "[features]\nhooks = false\n",
        '[ features ] # mine\n"hooks" = false # off\n',
        "[features]\r\nhooks=false\r\n",
        "features.hooks = false # off\n[x]\n",
        'features = { web = { x = "y", z = 1 }, "hooks" = false }\n',
        "[features]\na = { b = 1 }\nhooks = false\n",
    ],
)
def test_hooks_that_codex_has_switched_off_are_named(stage, homes, config):
    stage.ok(None, "hooks", "install", "--target", "codex")
    (stage.home / ".codex/config.toml").write_bytes(config.encode())
    found = stage.run(None, "hooks", "doctor", "--target", "codex", "--json").json["findings"]
    assert "hooks.off" in [row["id"] for row in found]
    (stage.home / ".codex/config.toml").write_text(
        "features.web = { x = 1, hooks = false }\nfeatures.hooks = true # hooks = false\n\n[x]\nhooks = false\n"
    )
    found = stage.run(None, "hooks", "doctor", "--target", "codex", "--json").json["findings"]
    assert "hooks.off" not in [row["id"] for row in found]


def test_outside_a_project_a_problem_is_named_once(stage, homes):
    done = stage.run(None, "hooks", "doctor", cwd=stage.folder)
    assert done.code == 1 and done.out.count("not inside a git repository") == 1


BROAD = ("Bash({0}:*)", "Bash({0} *)", "Bash({0})", "Bash(python3 {0}:*)", "Bash({0}*)")


def test_rules_that_let_every_relay_command_through_are_findings(stage, homes, relays):
    stage.open_pair()
    told = stage.ok(None, "hooks", "rules", "--json").json
    narrow = told["claude"]["permissions"]["allow"]
    assert not any(
        re.search(rf"(?<!dry-)\b{word}\b", f"{narrow} {told['codex']['rule']} {told['unasked']}")
        for word in ("continue", "close", "run", "sync", "export", "restore", "force")
    )
    # A prefix lets every flag behind it through: only where none of them needs a question.
    assert [rule for rule in narrow if "*" in rule] == [
        f"Bash({relays['claude']} {word}:*)"
        for word in ("status", "brief", "show", "log", "findings")
    ]
    rules = stage.home / ".codex/rules"
    rules.mkdir()
    homes["claude"].write_text(json.dumps({"permissions": {"allow": narrow}}))
    (rules / "relay.rules").write_text(told["codex"]["rule"] + "\n")
    assert stage.ok(None, "doctor", "--json").json["findings"] == []
    for rule in BROAD:
        homes["claude"].write_text(json.dumps({"permissions": {"allow": [rule.format(SCRIPT)]}}))
        assert stage.run(None, "doctor").code == 1, rule
    homes["claude"].unlink()
    (stage.project / ".claude").mkdir()
    (stage.project / ".claude/settings.local.json").write_text(
        json.dumps({"permissions": {"allow": [BROAD[0].format(SCRIPT)]}})
    )
    (rules / "relay.rules").write_text(f'prefix_rule(pattern=["{SCRIPT}"], decision="allow")\n')
    found = stage.run(None, "doctor", "--json").json["findings"]
    assert len(found) == 2 and all("relay run -- ANYTHING" in row["why"] for row in found)
    for pattern in ('["relay"]', f"['{SCRIPT}']", '["relay", ["status", "close"]]'):
        (rules / "relay.rules").write_text(f"prefix_rule(pattern={pattern}, decision='allow')\n")
        assert len(stage.run(None, "doctor", "--json").json["findings"]) == 2, pattern
    (rules / "relay.rules").write_text("prefix_rule(pattern=['relay'], decision='prompt')\n")
    assert len(stage.run(None, "doctor", "--json").json["findings"]) == 1


# ---- the status line


def line(stage, author, **more):
    return stage.ok(author, "statusline", "--json", **more).json


@pytest.mark.parametrize("status", ["closed", "cancelled", "failed", "timed_out"])
def test_the_line_says_how_a_pair_ended(stage, status):
    stage.open_pair()
    stage.send("claude", "note", "# T\n", "none", "--status", status)
    assert line(stage, "codex")["state"] == status


def test_a_person_beside_both_agents_sees_whose_move_it_is(stage):
    slug = stage.open_pair().name
    stage.send("claude", "plan")
    assert line(stage, None)["text"] == f"relay {slug}: codex's move: reply to 001 plan, just now"
    assert stage.ok(None, "statusline", stdin=b"{}").out == line(stage, None)["text"] + "\n"


def test_without_an_id_in_the_environment_the_one_that_claude_code_hands_over_counts(stage):
    slug = stage.open_pair().name
    handed = json.dumps(
        {"session_id": "session-of-claude", "workspace": {"current_dir": "x"}}
    ).encode()
    told = stage.ok(None, "statusline", "--json", stdin=handed).json
    assert told["bound"] and told["pair"] == slug


@pytest.mark.slow
def test_the_line_never_waits_for_a_standard_input_that_stays_open(stage):
    stage.open_pair()
    for author in ("claude", None):
        child = subprocess.Popen(
            [SCRIPT, "statusline"],
            cwd=stage.project,
            env=stage.env(author),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        child.stdin.write('{"session_id": ')
        child.stdin.flush()
        assert child.wait(timeout=20) == 0 and child.stdout.read().startswith("relay ")
        child.stdin.close()


@pytest.mark.slow
def test_the_line_lives_until_nobody_reads_it(stage):
    stage.open_pair()
    child = subprocess.Popen(
        [SCRIPT, "statusline", "--watch", "--interval", "0.05"],
        cwd=stage.project,
        env=stage.env("codex"),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert "fresh" in child.stdout.readline()
    stage.send("claude", "plan")
    assert "your move: reply to 001 plan" in child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=20) == 0


@pytest.mark.parametrize("name", [n for n in FOUND if n != "deep-strings"])
def test_the_status_line_is_installed_and_taken_out(stage, homes, relays, name):
    path = homes["claude"]
    path.write_bytes(FOUND[name].encode())
    stage.ok(None, "statusline", "install")
    told = json.loads(path.read_text())["statusLine"]
    assert told == {
        "type": "command",
        "command": f"{relays['claude']} statusline",
        "padding": 0,
        "refreshInterval": 10,
    }
    once = path.read_bytes()
    stage.ok(None, "statusline", "install")
    assert path.read_bytes() == once
    stage.ok(None, "statusline", "uninstall")
    after = json.loads(path.read_text())
    assert after == json.loads(FOUND[name].strip() or "{}")
    assert name not in PLAIN or path.read_text().strip() == FOUND[name].strip()


def test_relays_own_line_from_another_place_is_renewed_with_force_only(stage, homes, relays):
    stage.ok(None, "statusline", "install")
    moved = homes["claude"].read_text().replace(relays["claude"], "/old/bin/relay")
    homes["claude"].write_text(moved)
    old = homes["claude"].read_text()
    assert (
        "--force" in stage.ok(None, "statusline", "install").out
        and homes["claude"].read_text() == old
    )
    assert stage.run(None, "statusline", "doctor").code == 1
    stage.ok(None, "statusline", "install", "--force", "--dry-run")
    assert homes["claude"].read_text() == old
    stage.ok(None, "statusline", "install", "--force")
    assert stage.ok(None, "statusline", "doctor").out.startswith("no problems")


def test_hooks_and_the_status_line_in_one_file_do_not_get_into_each_others_way(stage, homes):
    path = homes["claude"]
    for first, second in (("hooks", "statusline"), ("statusline", "hooks")):
        path.write_text(FOUND["usual"])
        for words in (
            (first, "install"),
            (second, "install"),
            (first, "uninstall"),
            (second, "uninstall"),
        ):
            stage.ok(None, *words)
        assert path.read_text() == FOUND["usual"], (first, second)


# ---- the spool of issues


def test_a_report_that_the_home_cannot_take_is_kept_in_the_ledger_and_moved_later(stage):
    blocked = stage.folder / "blocked"
    blocked.write_text("no folder")
    stage.open_pair()
    # As root no mode refuses, so a file stands where the folder would be made; that is another refusal, and no reason to spool.
    done = stage.run(
        "codex", "issue", "add", "--title", "t", "--body", "b", RELAY_ISSUES_DIR=str(blocked / "x")
    )
    assert done.code == 2 and not (stage.shared / "_relay/issues").exists()
