"""doctor proves by doing, names each trouble with its remedy, and removes only what is provably dead.

The troubles here are real: mounts that are read-only, processes that were killed, settings that hold such rules.
"""

import ast
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import _REALLY_SCANNED, RELAY, ROOT, SCRIPT
from test_second_look import bodies, meanwhile, mounted, read_only  # noqa: F401
from test_layout import TREE
from tracing import links_refused

TROUBLESHOOTING = ROOT / "skills/agent-relay/references/troubleshooting.md"
REALLY_WOKEN = RELAY.woken_by
HOUR = 3600


def told(stage, *words, author="claude", code=None, **more):
    """All that doctor finds, by id; whatever it finds has a severity, a sentence and something to do."""
    done = stage.run(author, "doctor", "--json", *words, **more)
    rows = [*done.json["findings"], *done.json["infos"]]
    for row in rows:
        assert row["severity"] == RELAY.SEVERITY_OF[row["id"]] and row["why"] and row["remedy"], row
        assert "\n" not in row["why"] + row["remedy"] and len(row["why"]) > 8, row
    assert done.code == ((1 if done.json["findings"] else 0) if code is None else code), done
    return {row["id"]: row for row in reversed(rows)}


@pytest.fixture
def host(stage):
    """Claude Code and Codex were started here."""
    for name in (".claude", ".codex"):
        (stage.home / name).mkdir()
    return stage


def old(path, text="left", hours=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - hours * HOUR,) * 2)
    return path


# ---- ids, sentences, remedies


def test_every_id_is_one_the_program_can_say_and_the_documents_explain():
    said = set()
    for node in ast.walk(TREE):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("trouble", "_if_dead", "Dead"):
            said |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    assert said | {"fs.no-links", "fs.odd"} == set(RELAY.SEVERITY_OF)  # those two are chosen by a variable
    rows = re.findall(r"(?m)^\| `([a-z]+\.[a-z-]+)` \| (\S.*) \| (\S.*) \|$", TROUBLESHOOTING.read_text())
    assert [name for name, _, _ in rows] == list(RELAY.SEVERITY_OF), "the same ids in the same order"
    for severity in ("error", "warning", "info"):
        part = TROUBLESHOOTING.read_text().split(f"| {severity} | what it means | do |")[1].split("\n\n")[0]
        assert re.findall(r"(?m)^\| `(\S+)`", part) == [name for name, each in RELAY.SEVERITY_OF.items() if each == severity]


def test_a_fresh_project_is_told_what_to_do_and_a_set_up_one_is_well(stage):
    done = stage.run("claude", "doctor")
    assert done.code == 1 and f"warning ledger.missing: {stage.shared}" in done.out and f"hint: {SCRIPT} init\n" in done.out
    stage.ok("claude", "init")
    before = stage.snapshot(stage.shared)
    assert told(stage) == {}
    assert {path: row[2] for path, row in before.items()} == {path: row[2] for path, row in stage.snapshot(stage.shared).items()}


def test_the_gravest_comes_first_and_what_is_well_is_short(host):
    host.open_pair()
    host.send("claude", "plan")
    artifact = next(host.shared.glob("*/001-*.md"))
    artifact.chmod(0o600)
    artifact.write_text("changed")
    old(artifact.with_name("009-codex-note.md"), "---\n")  # a warning that is found before the error of the setup
    done = host.run("codex", "doctor", RELAY_SYNC="rsync")
    kinds = [line.split()[0] for line in done.out.split("\n")[1:] if line and line[0] != " "]
    assert kinds == sorted(kinds, key=["error", "warning", "info", "ok"].index) and kinds[0] == "error" and kinds.count("ok") == 4
    assert len(done.out.split("\n")) < 26
    assert len(host.run("codex", "doctor", "--verbose").out.split("\nok ")) > 20


def test_preflight_says_the_same_of_the_setup_by_the_same_names(host):
    host.ok("claude", "init")
    broad = {"permissions": {"allow": [f"Bash({SCRIPT}:*)"]}}
    (host.home / ".claude/settings.json").write_text(json.dumps(broad))
    env = {"RELAY_SYNC": "rsync", "RELAY_REMOTE_SSH": "a@b", "RELAY_WAIT_TIMEOUT": "long", "TMPDIR": "/dev/null"}
    told(host, **env)
    rows = [row for row in host.run("claude", "preflight", "--json", **env).json["checks"] if "id" in row]
    assert {row["id"] for row in rows} >= {"env.remote", "env.contradicts", "permissions.broad", "tmpdir.unusable", "hooks.missing", "pair.unbound"}
    done = host.run("claude", "doctor", "--json", **env).json
    said = {(row["id"], row["remedy"]): row["why"] for row in done["findings"] + done["infos"]}
    for row in [row for row in rows if row["id"] not in RELAY._OF_AN_AGENT]:
        assert said[row["id"], row["remedy"]] in row["detail"]
    text = host.run("claude", "preflight", **env).out
    assert f"permissions.broad; hint: remove that rule, and paste what this prints: {SCRIPT} hooks rules" in text


def test_one_check_that_fails_or_hangs_hides_no_other(stage, monkeypatch, relay):
    stage.open_pair()
    (stage.shared / ".active-session").write_text("x")

    def broken(*_):
        raise ZeroDivisionError("no\n\x1b[31m")

    monkeypatch.setattr(relay, "change_set", broken)
    found = told(stage)
    assert found["check.failed"]["why"].startswith("git could not be looked at, by a bug in relay: ZeroDivisionError: no")
    assert {"check.failed", "ledger.old-mark"} <= set(found)
    monkeypatch.setattr(relay, "change_set", lambda *_: time.sleep(5))
    monkeypatch.setattr(relay, "EXAMINED_S", 0.3)
    found = told(stage)
    assert {"check.overdue", "ledger.old-mark"} <= set(found) and "git took longer" in found["check.overdue"]["why"]


def test_a_pair_that_cannot_be_read_hides_no_other_and_time_is_bounded(stage, monkeypatch, relay):
    stage.open_pair("one")
    stage.ok("claude", "bootstrap", "--topic", "two", "--force")
    faults = relay.record_faults

    def refused(pair, listing):
        if "one" in pair.slug:
            raise PermissionError(errno.EACCES, "Permission denied", pair.path)
        return faults(pair, listing)

    monkeypatch.setattr(relay, "record_faults", refused)
    found = told(stage)
    assert "one" in found["pair.unreadable"]["path"]
    assert len(stage.run("claude", "doctor", "--json").json["sessions"]) == 2
    monkeypatch.setattr(relay, "PAIRS_READ_S", -1.0)
    assert "0 of 2 pairs were read" in told(stage)["pairs.unread"]["why"]


# ---- writing, waiting, clocks


def test_a_publish_and_a_wake_are_really_done_and_leave_nothing(stage, monkeypatch, relay):
    monkeypatch.setattr(relay, "woken_by", REALLY_WOKEN)
    stage.open_pair()
    before = sorted(stage.shared.rglob("*"))
    done = stage.run("claude", "doctor")
    woken = re.search(r"(?m)^ok wait: a waiting process woke (\d+) ms after a publish, by (inotify|kqueue)$", done.out)
    assert done.code == 0 and woken and int(woken[1]) < 1000, done
    assert "ok ledger.write: an artifact was published, read back and removed" in done.out
    assert sorted(stage.shared.rglob("*")) == before


def test_a_wait_that_does_not_wake_or_only_by_looking_is_named(stage, relay):
    pair = relay.pair_at(str(stage.shared), stage.open_pair().name, False)
    (deaf,) = relay._wake_check(relay.Ran(10, b"", "nothing in 5 s"), 5.0, pair).troubles
    (looking,) = relay._wake_check(relay.Ran(0, b"", ""), 1.9, pair).troubles
    assert (deaf["id"], looking["id"]) == ("wait.deaf", "wait.by-looking") and "after 1.9 s" in looking["why"]
    assert relay._wake_check(relay.Ran(0, b"", ""), 0.02, pair).troubles == ()


def test_without_hard_links_it_says_so_and_publishes_all_the_same(stage):
    stage.open_pair()
    with links_refused():
        found = told(stage, code=0)
    assert set(found) == {"fs.no-links"} and "O_EXCL" in found["fs.no-links"]["why"]


def test_an_artifact_from_the_future_and_a_file_system_with_another_clock_are_named(stage, monkeypatch, relay):
    stage.open_pair()
    now = relay.World.now
    monkeypatch.setattr(relay.World, "now", lambda self: now(self) + 3 * HOUR)
    stage.send("claude", "plan")
    assert "behind this machine's" in told(stage)["clock.file-system"]["why"]
    monkeypatch.setattr(relay.World, "now", now)
    ahead = told(stage)["clock.ahead"]
    assert "2 h" in ahead["why"] and "claude's clock" in ahead["why"]


@pytest.mark.slow
def test_a_ledger_that_cannot_be_written_is_named_with_the_line_that_lets_each_host(stage):
    stage.open_pair()
    for author, line in (("codex", f"codex --add-dir {stage.shared}; or in {stage.home}/.codex/config.toml under [sandbox_workspace_write]: writable_roots = [\"{stage.shared}\"]"),
                         ("claude", f"claude --add-dir {stage.shared}"), ("me", f"sudo mount -o remount,rw {stage.shared}")):  # fmt: skip
        done = read_only(stage, author, SCRIPT, "doctor", "--json")
        (row,) = [row for row in json.loads(done.stdout)["findings"] if row["id"] == "ledger.unwritable"][:1]
        assert done.returncode == 1 and line in row["remedy"] and "Read-only file system" in row["why"], row


def test_from_a_linked_worktree_it_says_where_the_ledger_lies(stage):
    stage.open_pair()
    stage.git("worktree", "add", "-q", str(stage.folder / "aside"))
    assert told(stage, cwd=stage.folder / "aside", code=0) == {}
    line = f"mount --bind {stage.shared} {stage.shared} && mount -o remount,ro,bind {stage.shared} && cd {stage.folder / 'aside'}"
    done = mounted(stage, "codex", line, SCRIPT, "doctor")
    assert done.returncode == 1 and "which lies in the main worktree" in done.stdout.split("\n")[1], done
    assert f"hint: codex --add-dir {stage.shared}; or in" in done.stdout.split("\n")[2]


def test_a_full_disk_and_an_odd_refusal_have_names_of_their_own(stage, monkeypatch, relay):
    stage.open_pair()
    for code, name in ((errno.ENOSPC, "ledger.full"), (errno.EIO, "fs.refused"), (errno.EACCES, "ledger.unwritable")):
        def refuse(*_, code=code):
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(relay, "publish_note", refuse)
            found = told(stage)
        assert set(found) == {name} and not list((stage.shared / "_relay").glob(".doctor*")), found
    assert "chmod -R u+rwX" in found["ledger.unwritable"]["remedy"]


def test_an_artifact_that_does_not_read_back_and_odd_probes_are_named(stage, monkeypatch, relay):
    stage.open_pair()
    with monkeypatch.context() as patch:
        patch.setattr(relay, "artifact_at", lambda listing, stem: relay.Fault(stem, "p", "its bytes do not match"))
        found = stage.run("claude", "doctor", "--json").json["findings"]
    assert "publish.failed" in {row["id"] for row in found}
    monkeypatch.setattr(relay, "sha256_of", lambda content, real=relay.sha256_of, seen=[]: real(content + bytes(len(seen))) if len(content) != 16384 else seen.append(1) or str(len(seen)))
    assert "fs.odd" in {row["id"] for row in stage.run("claude", "doctor", "--json").json["findings"]}


def test_a_ledger_that_others_may_write_is_a_finding(stage):
    stage.open_pair()
    (stage.shared / "_relay").chmod(0o777)
    assert told(stage)["ledger.open"]["remedy"] == f"chmod go-w {stage.shared}/_relay"


@pytest.mark.parametrize("kind, words", [("nfs4", "every 2 s"), ("fuse.sshfs", "hard links"), ("9p", "machine outside"), ("overlay", "container"), ("tmpfs", "restart")])
def test_the_kind_of_file_system_is_said_with_what_it_means(stage, monkeypatch, relay, kind, words):
    stage.ok("claude", "init")
    monkeypatch.setattr(relay, "mount_at", lambda path: ("/mnt", kind))
    assert words in told(stage, code=0)["fs.kind"]["why"]


# ---- environment, git, installs, sandbox, sync


@pytest.mark.parametrize("more, name", [
    ({"RELAY_SYNC": "git"}, "env.contradicts"), ({"RELAY_REMOTE_SSH": "a@b"}, "env.contradicts"),
    ({"RELAY_AUTO_ROUND_CAP": "many"}, "env.contradicts"), ({"RELAY_RENEWAL_STALE_THRESHOLD": "1"}, "env.contradicts"),
    ({"RELAY_SYNC": "rsync", "RELAY_REMOTE_SSH": "a@b"}, "env.remote"), ({"RELAY_AUTHOR": "codex"}, "identity.conflict"),
    ({"HOME": None}, "home.unset"), ({"HOME": "/dev/null"}, "home.unset"), ({"TMPDIR": "/dev/null"}, "tmpdir.unusable"),
    ({"CODEX_SANDBOX_NETWORK_DISABLED": "1"}, "sandbox.codex"), ({"CODEX_PERMISSION_PROFILE": ":workspace"}, "sandbox.codex"),
])  # fmt: skip
def test_what_is_odd_in_the_environment_is_named(stage, more, name):
    stage.ok("claude", "init")
    assert name in told(stage, **more)


def test_what_git_cannot_tell_is_said_with_the_reason(stage, monkeypatch, relay):
    monkeypatch.setattr(relay, "_scanned", _REALLY_SCANNED)
    stage.open_pair()
    bare = stage.folder / "bin"
    bare.mkdir()
    assert "git is not installed" in told(stage, PATH=str(bare))["git.untold"]["why"]
    apart = stage.folder / "apart"
    apart.mkdir()
    assert set(told(stage, cwd=apart, RELAY_SHARED_ROOT=str(apart / ".shared"))) == {"ledger.missing", "git.none"}
    stage.git("config", "core.fsmonitor", "true")
    (stage.project / ".gitattributes").write_text("*.bin filter=lfs\n")
    done = stage.run("claude", "doctor").out
    assert "core.fsmonitor is set, and not asked; files in LFS are told by their pointers" in done


def test_two_relays_that_differ_are_named_and_links_to_one_are_not(stage):
    stage.open_pair()
    (stage.home / "bin").mkdir()
    (stage.home / "bin/relay").symlink_to(SCRIPT)
    path = f"{stage.home}/bin:{os.environ['PATH']}"
    assert told(stage, PATH=path, code=0) == {}
    second = stage.home / ".claude/skills/agent-relay/bin/relay"
    second.parent.mkdir(parents=True)
    second.write_text(SCRIPT.read_text().replace(f'\nVERSION = "{RELAY.VERSION}"', '\nVERSION = "2.9.9"'))
    row = told(stage, PATH=path)["installs.differ"]
    assert f"2.9.9 at {second}" in row["why"] and f"{RELAY.VERSION} at {SCRIPT}" in row["why"]


@pytest.mark.slow
def test_how_relay_was_started_is_said_with_what_it_costs(stage, monkeypatch, relay):
    stage.open_pair()
    done = stage.process("claude", "doctor", "--json", "--verbose", XDG_CACHE_HOME="/tmp/no")
    row = next(row for row in done.json["infos"] if row["id"] == "bytecode.off")
    assert re.search(r"temporary folder; each start takes \d+ ms longer", row["why"])
    kept = next(row for row in stage.process("claude", "doctor", "--json").json["passed"] if row["name"] == "python")
    assert "picked by the launcher" in kept["detail"]
    copy = stage.folder / "skill/bin/relay"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(SCRIPT, copy)
    done = subprocess.run([sys.executable, copy, "doctor", "--json"], cwd=stage.project, env=stage.env("claude"), capture_output=True, text=True)
    assert {"bytecode.off", "install.not-executable"} <= {row["id"] for row in json.loads(done.stdout)["infos"]}


def test_a_umask_and_a_home_that_share_or_forbid_are_named(stage, monkeypatch, relay):
    stage.open_pair()
    monkeypatch.setattr(relay, "world_here", lambda invoked: relay.World(dict(os.environ), os.getcwd(), invoked, 0))
    assert "umask 000" in told(stage, code=0)["umask.open"]["why"]
    monkeypatch.setattr(os, "access", lambda path, how, real=os.access: path != str(stage.home) and real(path, how))
    assert "home.read-only" in told(stage, code=0)


def test_sync_is_looked_at_where_this_side_owns_it_and_the_network_only_when_asked(stage, monkeypatch, relay):
    stage.open_pair()
    env = {"RELAY_SYNC": "rsync", "RELAY_REMOTE_SSH": "a@far.invalid", "RELAY_REMOTE_PATH": "/p"}
    monkeypatch.setattr(relay, "program_on_path", lambda name, path: f"/usr/bin/{name}")
    asked = []

    class Far:
        name = "far"

        def __init__(self, world):
            asked.append(1)
            raise relay.Refusal("cannot be reached", "ssh a@far.invalid")

    monkeypatch.setattr(relay, "Rsync", Far)
    assert told(stage, code=0, **env) == {} and not asked
    assert told(stage, "--sync", **env)["sync.unreachable"]["remedy"] == "ssh a@far.invalid" and asked
    monkeypatch.setattr(relay, "program_on_path", lambda name, path: "")
    assert told(stage, **env)["sync.missing"]["remedy"] == "install rsync and ssh"
    old(stage.shared / "_relay/conflicts/x/004-codex-fix.md")
    assert "sync.aside" in told(stage)


@pytest.mark.slow
def test_the_other_machine_is_really_asked_and_its_silence_is_bounded(stage):
    if not (shutil.which("rsync") and shutil.which("ssh")):
        pytest.skip("no rsync and ssh here")
    stage.open_pair()
    began = time.monotonic()
    done = stage.process("claude", "doctor", "--sync", "--json", RELAY_SYNC="rsync", RELAY_REMOTE_SSH="a@far.invalid", RELAY_REMOTE_PATH="/p", timeout=60)
    assert "sync.unreachable" in {row["id"] for row in done.json["findings"]} and time.monotonic() - began < 40


# ---- hooks and rules


def test_hooks_are_told_by_what_really_fired(host):
    host.open_pair()
    settings = host.home / ".claude/settings.json"
    assert told(host, code=0)["hooks.missing"]["remedy"] == "relay hooks install --target claude"
    host.ok(None, "hooks", "install")
    found = told(host)
    assert found["hooks.silent"]["path"] == str(settings) and "/hooks" in found["hooks.untrusted"]["remedy"]
    host.run(None, "hook", "claude", "SessionStart", stdin=b'{"session_id": "x"}')
    assert "hooks.silent" not in told(host)
    assert re.search(r"ok hooks.claude: installed; last called: SessionStart 2\d+-", host.run("claude", "doctor", "--verbose").out)
    text = settings.read_text()
    settings.write_text(text.replace(str(SCRIPT), "/gone/bin/relay"))
    row = told(host)["hooks.broken"]
    assert "calls /gone/bin/relay, which is not there: SessionStart, " in row["why"] and row["remedy"].endswith("--target claude")
    value = json.loads(text)
    value["hooks"].pop("Stop")
    value["hooks"]["SessionStart"][0]["hooks"][0]["timeout"] = 9
    value["disableAllHooks"] = True
    settings.write_text(json.dumps(value))
    assert {"hooks.partial", "hooks.differ", "hooks.off"} <= set(told(host))
    settings.write_text(json.dumps({**json.loads(text), "enabledPlugins": {"agent-relay@agent-relay": True}}))
    assert "hooks.doubled" in told(host)
    settings.write_text("{ // mine\n}")
    assert "settings.unreadable" in told(host)


def test_a_nudge_that_cannot_reach_codex_is_named(host):
    host.open_pair()
    host.ok(None, "hooks", "install", "--nudge", "--target", "codex")
    empty = host.folder / "empty"
    empty.mkdir()
    (empty / "git").symlink_to(shutil.which("git"))
    (host.shared / "_relay/hook-state/nudge-missed").write_text("")
    assert {"nudge.no-codex", "nudge.missed"} <= set(told(host, PATH=str(empty)))


CLAUDE_RULES = [
    ("{0}:*", True), ("{0} *", True), ("{0}", True), ("{0}*", True), ("python3 {0}:*", True), ('"{0}" *', True), ("{0} run:*", True),
    ("{0} run -- pytest", True), ("{0} sync *", True), ("{0} hooks install", True), ("{0} close:*", True), ("{0} r*", True),
    ("*/bin/relay *", True), ("*relay*", True), ("{0} next:*", False), ("{0} send *", False), ("{0} show 1", False),
    ("{0} continue:*", False), ("git *", False), ("{0} runner:*", False), ("*", False),
]  # fmt: skip


@pytest.mark.parametrize("rule, broad", CLAUDE_RULES, ids=[rule for rule, _ in CLAUDE_RULES])
def test_a_rule_is_too_broad_where_it_covers_what_is_to_be_asked_about(rule, broad):
    assert RELAY._is_broad(f"Bash({rule.format(SCRIPT)})") is broad


CODEX_RULES = [
    ('prefix_rule(pattern=["{0}"], decision="allow")', True), ('prefix_rule(pattern = [\n  "python3",\n  "{0}",\n],\n decision = "allow")', True),
    ('prefix_rule(pattern=["{0}"])', True), ('prefix_rule(pattern=["{0}", ["next", "run"]], decision="allow")', True),
    ('prefix_rule(pattern=["{0}", "sync"], decision="allow")', True), ('prefix_rule(pattern=["{0}", ["next", "send"]], decision="allow")', False),
    ('prefix_rule(pattern=["{0}"], decision="prompt")', False), ('# prefix_rule(pattern=["{0}"], decision="allow")', False),
    ("prefix_rule(pattern=[", False), ('prefix_rule(pattern=["git"], decision="allow")', False),
]  # fmt: skip


@pytest.mark.parametrize("rule, broad", CODEX_RULES, ids=[rule[:60].replace("\n", " ") for rule, _ in CODEX_RULES])
def test_a_codex_rule_is_too_broad_where_it_covers_what_is_to_be_asked_about(host, rule, broad, relay):
    (host.home / ".codex/rules").mkdir()
    (host.home / ".codex/rules/mine.rules").write_text(rule.replace("{0}", str(SCRIPT)) + "\n")
    world = relay.World(host.env(), str(host.project), str(SCRIPT))
    assert [row["id"] for row in relay.broad_permissions(world)] == ["permissions.broad"] * broad


def test_the_rules_that_are_printed_end_both_findings(host):
    host.open_pair()
    rules = host.ok(None, "hooks", "rules", "--json").json
    assert [row["id"] for row in host.run(None, "doctor", "--json").json["infos"]].count("permissions.missing") == 2
    (host.home / ".claude/settings.json").write_text(json.dumps({"permissions": rules["claude"]["permissions"]}))
    (host.home / ".codex/rules").mkdir()
    (host.home / ".codex/rules/relay.rules").write_text(rules["codex"]["rule"] + "\n")
    assert not {"permissions.missing", "permissions.broad"} & set(told(host))


# ---- --fix and the living


def test_doctor_ends_with_0_or_1_and_mends_only_with_fix(stage):
    stage.open_pair()
    assert stage.run("claude", "doctor").code == 0
    stage.ok("claude", "close", "--reason", "r")
    litter = old(stage.shared / "_relay" / ".x.1-1-1-1.tmp")
    done = stage.run("claude", "doctor")
    assert done.code == 1 and ".x." in done.out and "hint: " in done.out and litter.exists()
    done = stage.run("claude", "doctor", "--fix", "--older-than", "1h")
    assert done.code == 0 and f"removed {litter}" in done.out and "fixed litter.stopped" in done.out
    assert not litter.exists() and stage.run("claude", "doctor").code == 0
    assert stage.run("claude", "doctor", cwd=stage.home).code == 2


@pytest.mark.slow
def test_doctor_fix_leaves_a_living_run_its_number(stage, meanwhile):  # noqa: F811
    pair = stage.open_pair()

    def fix(*_):
        os.utime(pair / ".seq" / "001", (1, 1))  # as if it had been stopped for a while
        assert stage.process("codex", "doctor", "--fix").code == 0
        assert (pair / ".seq" / "001").exists()

    meanwhile("_keep_draft", fix)
    stage.send("claude", "note", "# Mine\n")
    assert list(bodies(pair)) == ["001-claude-note.md"] and not stage.litter()


LEAVES = """
import os, sys, time, types
relay = sys.modules["relay"] = types.ModuleType("relay")
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), relay.__dict__)
world = relay.world_here(sys.argv[1])
path = relay.temporary(os.path.join(sys.argv[2], "left"), world.owner)
open(path, "w").write("x")
os.utime(path, (1, 1))
print(path, flush=True)
time.sleep(60)
"""


def test_what_a_live_process_writes_stays_and_what_a_killed_one_left_goes(stage):
    stage.open_pair()
    child = subprocess.Popen([sys.executable, "-IB", "-c", LEAVES, SCRIPT, stage.shared / "_relay"], cwd=stage.project, env=stage.env("claude"), stdout=subprocess.PIPE, text=True)
    left = pathlib.Path(child.stdout.readline().strip())
    try:
        assert told(stage, "--fix", "--older-than", "0s") == {} and left.exists()
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    done = stage.run("codex", "doctor", "--fix", "--dry-run")
    assert done.code == 1 and f"would remove {left}" in done.out and left.exists()
    assert stage.run("codex", "doctor", "--fix").code == 0 and not left.exists()


KILLED = """
import os, sys, types
relay = sys.modules["relay"] = types.ModuleType("relay")
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), relay.__dict__)
relay.publish_note = lambda *_: os.kill(os.getpid(), 9)
relay.main(["doctor"], sys.argv[1])
"""


@pytest.mark.slow
def test_what_a_killed_doctor_left_goes_with_the_next_one(stage):
    stage.open_pair()
    before = sorted(stage.shared.rglob("*"))
    ended = subprocess.run([sys.executable, "-IB", "-c", KILLED, SCRIPT], cwd=stage.project, env=stage.env("claude"), capture_output=True)
    assert ended.returncode == -signal.SIGKILL and list((stage.shared / "_relay").glob(".doctor.*"))
    assert stage.run("claude", "doctor").code == 0 and sorted(stage.shared.rglob("*")) == before


def littered(stage):
    """A ledger with everything in it that doctor can name as left over, and things that look alike and live."""
    pair = stage.open_pair()
    stage.send("claude", "plan")
    draft = pathlib.Path(stage.ok("codex", "claim", "--kind", "review").out.strip())
    relay_ = stage.shared / "_relay"
    key = "claude-" + "0" * 24
    gone = [
        old(relay_ / ".a.1-1-1-1.tmp"), old(pair / ".b.tmp"), old(pair / ".seq/.c.1-1-1-1.mark"), old(pair / ".seq/077", "{}"),
        old(pair / ".003-codex-note.md.AbCdEf"), old(relay_ / f"hook-state/woken-{key}-12345678-004"),
        old(relay_ / f"hook-state/waiting-{key}"), old(relay_ / f"hook-state/idle-{key}"), old(relay_ / ".doctor.1-1-1-1.tmp/.x/y").parent.parent,
        old(relay_ / ".sync.ab.1-1-1-1.tmp/pair/x").parent.parent,
    ]  # fmt: skip
    binding = json.loads(next((relay_ / "bindings").glob("claude-*.json")).read_text())
    stale = relay_ / f"bindings/{key[:-1]}1.json"
    stale.write_text(json.dumps({**binding, "pair_slug": "20200101-gone", "host": None}))
    gone.append(stale)
    for folder in gone[-3:-1]:
        os.utime(folder, (1, 1))
    bound = next((relay_ / "bindings").glob("codex-*.json")).stem
    kept = [draft, old(relay_ / f"hook-state/waiting-{bound}"), old(relay_ / f"hook-state/woken-{bound}-12345678-001"), old(relay_ / "hook-state/fired-claude-Stop"), old(relay_ / "mine.md")]
    return gone, kept


def everything(folder):
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_fix_removes_what_is_dead_and_says_so_before_and_twice_changes_nothing_more(stage):
    gone, kept = littered(stage)
    before = everything(stage.shared)
    dry = stage.run("codex", "doctor", "--fix", "--dry-run", "--json").json
    # The killed doctor's own is gone at once.
    gone = [path for path in gone if ".doctor." not in path.name]
    left = {path: held for path, held in before.items() if ".doctor." not in path}
    assert {line.removeprefix("would remove ") for line in dry["actions"]} == set(map(str, gone)) and everything(stage.shared) == left
    assert {row["id"] for row in dry["findings"] + dry["infos"]} == {"litter.stopped", "litter.number", "litter.arrival", "state.spent", "binding.stale", "draft.unfinished"}
    done = stage.run("codex", "doctor", "--fix", "--json")
    assert done.code == 0 and {line.removeprefix("removed ") for line in done.json["actions"]} == set(map(str, gone))
    once = everything(stage.shared)
    assert not [path for path in gone if path.exists()] and all(path.exists() for path in kept)
    assert set(left) - set(once) - {path for path in left if any(path.startswith(f"{each}/") for each in gone)} == set(map(str, gone))
    again = stage.run("codex", "doctor", "--fix", "--json")
    assert again.code == 0 and again.json["actions"] == [] and everything(stage.shared) == once


def test_what_came_to_life_between_the_look_and_the_fix_stays(stage, relay):
    pair = stage.open_pair()
    path = old(pair / ".seq/005", "{}")
    alive = []
    dead = [relay.Dead("litter.number", str(path), "why", lambda: not alive, str(pair))]
    alive.append(1)
    assert relay._mend(dead, False)[0] == [] and path.exists()
    alive.clear()
    assert relay._mend(dead, False)[0] == [f"removed {path}"] and not path.exists()


def test_a_binding_that_cannot_be_read_a_half_and_uncarried_runs_are_named_and_stay(stage):
    pair = stage.open_pair()
    strange = old(stage.shared / "_relay/bindings/gemini-x.json", "{}")
    half = old(pair / "009-codex-note.md", "---\n")
    stage.ok("claude", "run", "--", "true")
    stage.ok("claude", "close", "--reason", "r", "--no-archive")
    found = told(stage, "--fix")
    assert {"binding.unreadable", "pair.half", "evidence.uncarried"} <= set(found) and strange.exists() and half.exists()
    (pair / "session.json").write_text("{}")
    assert "invalid_schema" in told(stage)["pair.schema"]["why"]


def test_foreign_names_reach_no_terminal_raw_and_many_of_one_kind_are_few_lines(stage):
    stage.open_pair()
    for n in range(40):
        old(stage.shared / f"_relay/.\x1b[31m{n}\n.1-1-1-1.tmp")
    done = stage.run("claude", "doctor", "--fix", "--dry-run")
    assert "\x1b" not in done.out and "and 35 more of litter.stopped" in done.out
    assert stage.run("claude", "doctor", "--verbose").out.count("warning litter.stopped") == 40


@pytest.mark.slow
def test_a_doctor_that_fixes_beside_live_turns_loses_nothing(stage):
    pair = stage.open_pair()
    stop = time.monotonic() + 12
    env = stage.env("codex")
    fixing = [subprocess.Popen(["sh", "-c", f"while :; do '{SCRIPT}' doctor --fix --older-than 0s; done"], cwd=stage.project, env=env,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)]  # fmt: skip
    sent = 0
    try:
        while time.monotonic() < stop:
            waiting = stage.spawn("codex", "wait", "--timeout", "20", RELAY_AUTO_ROUND_CAP="9999")
            stage.process("claude", "send", "--kind", "note", "--file", stage.file(f"# {sent}\n", f"n{sent}.md"), "--next", "go")
            assert waiting.wait(25) == 0, waiting.communicate()
            waiting.communicate()
            assert stage.process("codex", "next", RELAY_AUTO_ROUND_CAP="9999").action == "reply"
            assert stage.process("codex", "send", "--kind", "note", "--file", stage.file(f"# r{sent}\n", f"r{sent}.md"), "--next", "go").code == 0
            sent += 1
    finally:
        for each in fixing:
            os.killpg(each.pid, signal.SIGKILL)
            said = each.communicate()[0]
    assert "Traceback" not in said and sent > 2
    assert len(list(pair.glob("*.ready"))) == 2 * sent and stage.run("claude", "verify").code == 0
    assert stage.run("claude", "doctor", "--fix", "--older-than", "0s").code == 0 and stage.run("claude", "doctor").code == 0
    assert not stage.litter()


@pytest.mark.slow
def test_ten_thousand_pairs_are_read_within_bounds(stage):
    pair = stage.open_pair()
    for n in range(10_000):
        shutil.copytree(pair, stage.shared / f"20200101-p{n}")
    began = time.monotonic()
    done = stage.process("claude", "doctor", "--json", timeout=240)
    assert done.code in (0, 1) and time.monotonic() - began < RELAY.PAIRS_READ_S + 60
    assert len(done.json["sessions"]) == 10_001 or "pairs.unread" in {row["id"] for row in done.json["findings"]}
