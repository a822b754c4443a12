"""The commands of 1.x: names, flags, exit codes and JSON keys that scripts and habits rely on."""

from __future__ import annotations

import os
import shlex
import time

import pytest
from conftest import RELAY


def tree(stage):
    """Every file of the project's ledger with its bytes, what was seen and who lives apart."""
    return {
        str(path.relative_to(stage.folder)): path.read_bytes()
        for path in stage.folder.rglob("*")
        if path.is_file()
        and path.name != ".lock"
        and not path.is_symlink()
        and not {".seen", "bindings", ".git"} & {*path.parts}
    }


def filled(stage, author, draft, body="# Text\n", prompt="go on\n"):
    stage.ok(
        author,
        "draft",
        "set",
        draft,
        "--body-file",
        stage.file(body, "b"),
        "--prompt-for-next-file",
        stage.file(prompt, "p"),
    )
    return draft


def published(stage, author, kind, *words, claim=()):
    """One turn the 1.x way; the artifact's path."""
    draft = stage.ok(author, "claim", "--kind", kind, *claim).out.strip()
    return stage.ok(author, "publish", filled(stage, author, draft), *words).out.strip()


# ---- keys


def keys_of(stage, *words, author="claude"):
    return set(stage.run(author, *words, "--json").json)


PAIRS_ROW = {
    "session_id",
    "project",
    "title",
    "state",
    "category",
    "is_active",
    "bound_instances",
    "authors",
    "open_slots",
    "closed_sentinel",
    "next_seq",
    "latest",
    "path",
    "archived",
}
STATUS = {
    "session",
    "session_dir",
    "is_active",
    "resumable",
    "next_seq",
    "published",
    "drafts",
    "closed_sentinel",
    "bound_pair",
}
PUBLISHED = {
    "seq",
    "author",
    "peer",
    "kind",
    "status",
    "created",
    "in_reply_to",
    "sync_needed",
    "corrects",
    "worktree_root",
    "path",
    "first_line",
}
CHECKS = {
    "identity.author",
    "identity.session_id",
    "identity.peer",
    "env.RELAY_SHARED_ROOT",
    "env.RELAY_SYNC",
    "env.RELAY_REMOTE_SSH",
    "env.RELAY_REMOTE_PATH",
    "project.shape",
    "project.worktree",
    "project.consistency",
    "shared_root.location",
    "mount.sentinel",
    "pair.binding",
    "pair.schema",
    "fs.tmp_rename",
    "fs.mtime_monotonic",
    "fs.symlink_ops",
    "fs.sha256_stable",
    "fs.fsync_readback",
    "fs.posix_mode",
}


def test_the_json_keys_of_1x_are_all_there(stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("claude", "claim", "--kind", "note")
    assert STATUS <= keys_of(stage, "status")
    status = stage.ok("claude", "status", "--json").json
    assert PUBLISHED <= set(status["published"][0])
    assert status["published"][0]["first_line"] == "# Text"
    assert (
        status["next_seq"] == 3
        and status["bound_pair"] == pair.name
        and status["session_dir"] == str(pair)
    )
    assert len(status["drafts"]) == 1
    listed = stage.ok("claude", "pairs", "list", "--json").json
    assert {"shared_root", "archived", "pairs"} <= set(listed) and PAIRS_ROW <= set(
        listed["pairs"][0]
    )
    assert listed["pairs"][0]["latest"]["seq"] == 1 and listed["pairs"][0]["open_slots"] == 0
    assert {"action", "pair", "instance_id"} <= keys_of(stage, "pair", "ensure")
    assert {
        "author",
        "author_source",
        "agent_session_id",
        "agent_session_id_source",
        "instance_id",
        "bound_pair",
        "peer",
        "diagnostics",
    } <= keys_of(stage, "whoami")
    assert {"version", "session_schema", "binding_schema"} <= keys_of(stage, "version")
    assert {
        "shared_root",
        "author",
        "sessions",
        "actions",
        "stale_bindings",
        "unsupported_bindings",
        "legacy_active_session",
        "findings_count",
    } <= keys_of(stage, "doctor")
    session = stage.ok("claude", "doctor", "--json").json["sessions"][0]
    assert {
        "session_id",
        "is_active",
        "drafts",
        "heartbeat_pidfile",
        "heartbeat_sidecars",
        "incomplete_triads",
    } <= set(session)
    assert {"name", "age_seconds"} <= set(session["drafts"][0])
    assert {"issues", "unreadable"} == keys_of(stage, "issue", "list")
    preflight = stage.ok("claude", "preflight", "--json").json
    assert {"exit_code", "env", "checks"} == set(preflight)
    assert CHECKS <= {check["name"] for check in preflight["checks"]}
    for check in preflight["checks"]:
        assert {"name", "status", "detail", "elapsed_ms"} <= set(check), check
        assert check["elapsed_ms"] >= 0


# ---- status


def test_status_unbound_and_strict_prints_nulls_and_exits_0(stage):
    stage.open_pair()
    for env in ({"CODEX_THREAD_ID": "another"}, {"CODEX_THREAD_ID": None}):
        made = stage.ok("codex", "status", "--json", "--require-binding", **env).json
        assert made == {**dict.fromkeys(STATUS), "published": [], "drafts": []}


def test_status_lists_the_last_and_all_of_one_pair(stage):
    pair = stage.open_pair()
    for _ in range(3):
        stage.send("claude", "note")
    assert [row["seq"] for row in stage.ok("claude", "status", "--json").json["published"]] == [
        1,
        2,
        3,
    ]
    assert [
        row["seq"]
        for row in stage.ok("claude", "status", "--json", "--last", "2").json["published"]
    ] == [2, 3]
    assert stage.ok("claude", "status", "--last", "1").out.count(" claude note:") == 1
    other = stage.ok("claude", "bootstrap", "--topic", "other", "--force").out.split()[0]
    assert (
        stage.ok("claude", "status", "--json", "--pair-id", pair.name).json["session"]["session_id"]
        == pair.name
    )
    assert stage.ok("claude", "status", "--json").json["session"]["session_id"] == other


def test_status_reads_a_paused_pair_as_resumable(stage):
    stage.open_pair()
    stage.send("claude", "note", "# P\n", "ask", "--status", "timed_out")
    made = stage.ok("claude", "status", "--json").json
    assert made["resumable"] is True and made["is_active"] is False
    assert stage.ok("claude", "claim", "--kind", "note")


# ---- pairs


def test_pair_ensure_says_what_it_did_and_its_code(stage):
    def ensure(code, **env):
        done = stage.run("codex", "pair", "ensure", "--json", **env)
        assert done.code == code
        return done.json

    assert ensure(3)["action"] == "bootstrap"
    slug = stage.ok("claude", "bootstrap", "--topic", "one").out.split()[0]
    assert ensure(0)["action"] == "joined"
    assert ensure(0) == {"action": "use", "pair": slug, "instance_id": "codex:thread-o"}
    full = ensure(3, CODEX_THREAD_ID="second")
    assert full["action"] == "full" and full["pairs"] == [slug]
    assert ensure(3, CODEX_THREAD_ID=None, RELAY_AUTHOR="codex")["action"] == "degraded"
    stage.ok("codex", "pair", "leave")
    stage.ok("claude", "bootstrap", "--topic", "two", "--force")
    chosen = ensure(3)
    assert chosen["action"] == "choose" and len(chosen["candidates"]) == 2
    assert stage.run(None, "pair", "ensure", "--json").code == 2


def test_bootstrap_names_the_pair_by_day_and_topic(stage):
    day = time.strftime("%Y%m%d", time.gmtime())
    slugs = [
        stage.ok("claude", "bootstrap", "--topic", "t", "--force").out.split()[0] for _ in range(3)
    ]
    assert slugs in ([f"{day}-t", f"{day}-t-2", f"{day}-t-3"],) or day != time.strftime(
        "%Y%m%d", time.gmtime()
    )
    assert stage.run("claude", "bootstrap", "--topic", "u").code == 2, (
        "this instance is bound to an active pair"
    )
    session = RELAY.parse_json_object((stage.shared / slugs[0] / "session.json").read_bytes())
    assert (
        session["participants"] == ["claude", "codex"]
        and session["schema_version"] == 3
        and session["title"] == "t"
    )
    made = stage.ok(
        "claude", "bootstrap", "--topic", "g", "--peer", "gemini", "--force", "--json"
    ).json
    assert made["peer"] == "gemini"


def test_the_projects_name_is_relay_project_or_the_main_worktrees(stage, tmp_path):
    stage.git("worktree", "add", "-q", tmp_path / "My Tree", "-b", "other")
    issues = {"RELAY_ISSUES_DIR": str(tmp_path / "issues")}

    def names(**env):
        place = {"cwd": tmp_path / "My Tree", **env}
        path = stage.ok("claude", "bootstrap", "--topic", "t", "--force", "--json", **place).json
        stage.ok("claude", "issue", "add", "--title", "t", **place, **issues)
        (report,) = stage.ok("claude", "issue", "list", "--json", **issues).json["issues"]
        stage.ok("claude", "issue", "resolve", report["id"], **issues)
        with open(f"{path['path']}/session.json", "rb") as file:
            return RELAY.parse_json_object(file.read())["project"], report["project"]

    assert names() == ("project", "project")
    assert names(RELAY_PROJECT="shop-2") == ("shop-2", "shop-2")
    for wrong in ("My Shop", "-shop", "shop/a", "s" * 49):
        env = {"RELAY_PROJECT": wrong}
        done = stage.refused("claude", "bootstrap", "--topic", "t", "--force", **env)
        assert "RELAY_PROJECT" in done.err
    stage.project.rename(stage.project.with_name("My Shop"))
    stage.project = stage.project.with_name("My Shop")
    made = stage.ok("claude", "bootstrap", "--topic", "u", "--force", "--json").json
    with open(f"{made['path']}/session.json", "rb") as file:
        assert RELAY.parse_json_object(file.read())["project"] == "my-shop"


# ---- drafts


def test_claim_is_strict_and_prints_the_drafts_path(stage):
    pair = stage.open_pair()
    assert stage.run("codex", "claim", "--kind", "note", CODEX_THREAD_ID="unbound").code == 2
    draft = stage.ok("claude", "claim", "--kind", "plan").out
    assert draft == f"{pair}/.draft/001-claude-plan.md\n"
    assert "TODO" in open(draft.strip()).read()
    assert stage.run("claude", "publish", draft.strip()).code == 2, "the placeholder is refused"
    assert stage.run("claude", "claim", "--kind", "correction").code == 2
    named = ("claim", "--kind", "note", "--pair-id", pair.name)
    stage.refused("claude", *named, CLAUDE_CODE_SESSION_ID="unbound")
    stage.ok("claude", "pair", "leave")
    assert "002" in stage.ok("claude", *named, CLAUDE_CODE_SESSION_ID="unbound").out


def test_a_session_without_the_slot_changes_no_draft_of_the_one_that_has_it(stage):
    stage.open_pair()
    draft = stage.ok("claude", "claim", "--kind", "plan").out.strip()
    words = ("draft", "set", draft, "--body-file", stage.file("# Mine\n"))
    done = stage.refused("claude", *words, CLAUDE_CODE_SESSION_ID="another")
    assert "holds the claude slot" in done.err and "# Mine" not in open(draft).read()


def test_next_names_all_that_keeps_a_draft_from_being_published_with_its_line(stage):
    stage.open_pair()
    draft = stage.ok("claude", "claim", "--kind", "note").out.strip()
    body = stage.file("# N\n\n```findings\nnit - x\n```\n\n> ```dispositions\n> 1.1 fixed\n")
    stage.ok("claude", "draft", "set", draft, "--body-file", body)
    told = stage.ok("claude", "next")
    prompt = next(line for line in told.out.split("\n") if "no prompt" in line)
    assert "--prompt-for-next-file" in prompt
    stage.ok("claude", "draft", "set", draft, "--prompt-for-next-file", stage.file("go\n"))
    told = stage.ok("claude", "next")
    done = stage.refused("claude", *told.next.split())
    lines = [
        1 + open(draft).read().split("\n").index(text) for text in ("nit - x", "> ```dispositions")
    ]
    for line in lines:
        assert f"missing: line {line}: " in told.out and f"line {line}: " in done.err


def test_draft_set_takes_files_and_standard_input_and_only_my_drafts(stage):
    stage.open_pair()
    draft = stage.ok("claude", "claim", "--kind", "addendum").out.strip()
    stage.ok("claude", "draft", "set", draft, "--body-file", "-", stdin=b"# From stdin\n")
    stage.ok("claude", "draft", "set", draft, "--prompt-for-next-file", "-", stdin=b"go on\n")
    stage.ok(
        "claude",
        "draft",
        "set",
        draft,
        "--sync-needed",
        "--touched-path",
        "a.py",
        "--touched-path",
        "b c.py",
    )
    assert stage.run("codex", "draft", "set", draft, "--body-file", stage.file("x")).code == 2
    assert (
        stage.run("claude", "draft", "set", stage.file("x"), "--body-file", stage.file("x")).code
        == 2
    )
    path = stage.ok("claude", "publish", draft).out.strip()
    meta, body = RELAY.parse_artifact(open(path).read())
    assert body == "# From stdin\n" and meta["prompt_for_next"] == "go on\n"
    assert (
        meta["sync_needed"] is True
        and meta["touched_paths"] == ["a.py", "b c.py"]
        and meta["status"] == "ready"
    )


def test_one_standard_input_cannot_be_both_body_and_prompt(stage):
    stage.open_pair()
    draft = stage.ok("claude", "claim", "--kind", "note").out.strip()
    kept = open(draft).read()
    done = stage.run(
        "claude",
        "draft",
        "set",
        draft,
        "--body-file",
        "-",
        "--prompt-for-next-file",
        "-",
        stdin=b"# Both?\n",
    )
    assert done.code == 2 and open(draft).read() == kept
    done = stage.run(
        "claude", "send", "--kind", "note", "--file", "-", "--next-file", "-", stdin=b"# Both?\n"
    )
    assert done.code == 2 and "standard input" in done.err


@pytest.mark.parametrize("status", RELAY.STATUSES)
def test_publish_takes_every_status(stage, status):
    stage.open_pair()
    path = published(stage, "claude", "note", "--status", status)
    assert RELAY.parse_artifact(open(path).read())[0]["status"] == status


def test_publish_again_says_so(stage):
    stage.open_pair()
    draft = filled(stage, "claude", stage.ok("claude", "claim", "--kind", "note").out.strip())
    first = stage.ok("claude", "publish", draft)
    again = stage.ok("claude", "publish", draft)
    assert first.out == again.out and "already published" in again.err
    assert stage.litter() == []


def test_force_publishes_only_a_terminal_note_with_its_reason(stage):
    stage.open_pair()
    draft = filled(stage, "claude", stage.ok("claude", "claim", "--kind", "note").out.strip())
    stage.send("codex", "note", "# End\n", "none", "--status", "failed")
    assert stage.run("claude", "publish", draft).code == 2
    for words in (
        ("--force",),
        ("--force", "--status", "closed"),
        ("--force", "--force-reason", "r"),
        ("--force", "--status", "ready", "--force-reason", "r"),
        ("--force-reason", "r"),
        ("--status", "closed", "--force-reason", "r"),
    ):
        assert stage.run("claude", "publish", draft, *words).code == 2, words
    path = stage.ok(
        "claude", "publish", draft, "--status", "closed", "--force", "--force-reason", "on record"
    ).out.strip()
    assert RELAY.parse_artifact(open(path).read())[0]["force_reason"] == "on record"


# ---- wait


def test_wait_ends_with_the_codes_of_1x(stage):
    stage.open_pair()
    assert stage.run("claude", "wait", "--timeout", "0").code == 10
    assert (
        stage.run(
            "codex", "wait", "--require-binding", "--timeout", "0", CODEX_THREAD_ID="unbound"
        ).code
        == 2
    )
    assert stage.run("codex", "wait", "--timeout", "0", CODEX_THREAD_ID="unbound").code == 10
    stage.send("claude", "plan")
    assert stage.run("codex", "wait", "--no-timeout").code == 0
    stage.ok("codex", "close", "--reason", "r")
    done = stage.run("claude", "wait", "--timeout", "0")
    assert (done.code, done.out) == (12, "closed\n")


# ---- upkeep


def test_heartbeat_is_accepted_and_refreshes_presence(stage):
    stage.open_pair()
    path = next((stage.shared / "_relay" / "bindings").glob("claude-*.json"))
    path.write_text(path.read_text().replace('"last_seen": "20', '"last_seen": "19'))
    for word in ("start", "tick", "stop"):
        stage.ok("claude", "heartbeat", word)
        assert "usage: relay heartbeat" in stage.ok("claude", "heartbeat", word, "--help").out
    assert '"last_seen": "20' in path.read_text()


@pytest.mark.parametrize(
    "words",
    [
        "--same-host --sync git",
        "--remote-ssh u@host --remote-path /p",
        "--remote origin",
        "--sync git --yes --remote-ssh u@host",
        "--sync rsync --remote origin",
    ],
)
def test_init_takes_no_flag_of_another_transport(stage, words):
    before = stage.snapshot(stage.project)
    assert "goes with --sync" in stage.refused("claude", "init", *words.split()).err
    assert stage.snapshot(stage.project) == before


def test_init_makes_the_ledgers_root(stage):
    done = stage.ok("claude", "init", "--author", "claude", "--sync", "none")
    assert done.out.startswith(f"{stage.shared}\n") and "claude" in done.out
    assert (stage.shared / ".gitignore").read_text() == "*\n"
    assert (
        (stage.shared / "_relay" / ".sentinel")
        .read_text()
        .startswith("relay mount sentinel\ncreated_at: ")
    )
    stage.ok("claude", "init", "--same-host")
    stage.ok(None, "init", "--author", "gemini")


# ---- issues


def test_an_issue_is_named_by_a_unique_beginning_only(stage):
    env = {"RELAY_ISSUES_DIR": str(stage.folder / "issues")}
    names = [
        os.path.basename(stage.ok("claude", "issue", "add", "--title", t, **env).out.strip())[:-3]
        for t in ("one", "two", "one")
    ]
    assert names[0] == names.pop(), "the same report again is no second one"
    for wanted in (names[0][:4], "", "9999", "../x", "*", "a b"):
        assert stage.run("claude", "issue", "show", wanted, **env).code == 2, wanted
    assert stage.run("claude", "issue", "resolve", names[0][:4], **env).code == 2
    assert stage.run("claude", "issue", "show", names[0], **env).code == 0


def test_unreadable_issues_are_listed_with_exit_code_1(stage):
    folder = stage.folder / "issues"
    env = {"RELAY_ISSUES_DIR": str(folder)}
    stage.ok("claude", "issue", "add", "--title", "fine", **env)
    (folder / "20260101T000000-00000000.md").write_bytes(b"\xff\xfe")
    (folder / "20260101T000000-00000001.md").write_text("no frontmatter")
    (folder / "20260101T000000-00000002.md").symlink_to("/etc/hostname")
    done = stage.run("claude", "issue", "list", "--json", **env)
    assert done.code == 1 and len(done.json["issues"]) == 1 and len(done.json["unreadable"]) == 3
    assert stage.run("claude", "issue", "list", **env).out.count("cannot be read") == 3
    assert stage.run("claude", "issue", "show", "20260101T000000-00000001", **env).code == 2


# ---- bad input, for every command in the table

# `run` has exit codes of its own: tests/test_evidence.py.
SHOWN = [
    c
    for c in RELAY.COMMANDS
    if c.purpose and c.words.split()[0] not in ("demo", "run", "heartbeat")
]
OPERANDS = {"slug": "20260101-none", "draft": "none.md", "seq": "1", "id": "none", "words": "send"}


def usual(command):
    """Words that are right for a command, as far as they can be."""
    words = command.words.split()
    for each in command.arguments:
        if each.options.get("required"):
            words += [each.name, each.options.get("choices", ["text"])[0]]
    required = [a for a in command.arguments if not a.is_flag and not a.options.get("nargs")]
    return [*words, *(OPERANDS[each.name] for each in required)]


def wrong_lines():
    for command in SHOWN:
        good = usual(command)
        yield [*good, "--no-such-flag"]
        yield [*good, "--no-such-flag=1"]
        if command.words != "help":
            yield [*good, "one", "two", "three"]
        for each in command.arguments:
            if each.is_flag and not each.options.get("metavar"):
                yield [*good, f"{each.name}=yes"]
            elif each.is_flag:
                if not each.options.get("nargs"):
                    yield [*good, each.name]
                if each.options.get("choices"):
                    yield [*good, each.name, "nonsense"]
                if each.options.get("type"):
                    yield from (
                        [*good, f"{each.name}={value}"] for value in ("x", "0.5x", "", "-1")
                    )
                if each.options.get("required"):
                    at = good.index(each.name)
                    yield good[:at] + good[at + 2 :]
            elif not each.options.get("nargs"):
                yield good[:-1]
        yield command.words.split()[:-1] + [command.words.split()[-1] + "x"]
    yield from (
        ["pair"],
        ["pairs", "remove"],
        ["issue"],
        ["nonsense"],
        ["-x"],
        ["--nonsense"],
        [""],
        ["show", "0"],
        ["show", "1000"],
        ["show", "x"],
    )
    yield from (
        ["draft", "get"],
        ["doctor", "--older-than", "soon"],
        ["issue", "add", "--title", ""],
        ["close", "--reason", "a\nb"],
    )


WRONG = list(wrong_lines())


def assert_helps(stage, done, words):
    """One sentence, with all that is to be mended below it, then a hint whose command, where it is one, is taken by the
    parser and a shell."""
    assert done.code == 2, (words, done)
    assert done.out == "", (words, done)
    lines = [line for line in done.err.rstrip("\n").split("\n") if not line.startswith("  - ")]
    assert len(lines) == 2 and lines[0].startswith("relay: ") and lines[1].startswith("hint: "), (
        words,
        done,
    )
    prefix = str(RELAY.__spec__.origin)
    if lines[1].startswith(f"hint: {prefix} "):
        command = lines[1].removeprefix(f"hint: {prefix} ").replace("--kind KIND", "--kind note")
        assert not set("();|&<>*?`$") & set(command), (words, command)
        RELAY.parse(shlex.split(command))
        if command.startswith("help"):
            assert stage.run("claude", *shlex.split(command)).code == 0, (words, command)


def test_every_wrong_line_is_refused_with_a_hint_that_parses(stage):
    stage.open_pair()
    before = tree(stage)
    problems = []
    for words in WRONG:
        done = stage.run("claude", *words, RELAY_WAIT_TIMEOUT="0")
        try:
            assert_helps(stage, done, words)
        except (AssertionError, RELAY.Refusal) as problem:
            problems.append(f"{' '.join(words)}: {str(problem).splitlines()[0][:250]}")
    assert tree(stage) == before, "nothing is written"
    assert not problems, "\n".join(problems)


REFUSED = [
    ("send", "--kind", "note"),
    ("send", "--kind", "note", "--file", "none.md"),
    ("send", "--kind", "note", "--file", "."),
    ("send", "--kind", "plan", "--file", "EMPTY"),
    ("send", "--kind", "plan", "--file", "NUL"),
    ("send", "--kind", "plan", "--file", "LATIN"),
    ("send", "--kind", "plan", "--file", "BODY", "--next", "a", "--next-file", "BODY"),
    ("send", "--kind", "plan", "--file", "BODY"),
    ("send", "--kind", "plan", "--file", "BODY", "--next", "TODO: x"),
    ("send", "--kind", "plan", "--file", "BODY", "--next", "go", "--reply-to", "9"),
    ("send", "--kind", "plan", "--file", "BODY", "--next", "go", "--corrects", "1"),
    ("send", "--kind", "plan", "--file", "BODY", "--next", "go", "--touched", "a\nb"),
    ("send", "--kind", "plan", "--file", "BODY", "--next", "go", "--touched", ""),
    ("send", "--kind", "plan", "--file", "BODY", "--next", "\r\n--x"),
    ("show",),
    ("show", "5"),
    ("pair", "join", "20260101-none"),
    ("pair", "join", "../.."),
    ("pair", "join", "_relay"),
    ("status", "--pair-id", "20260101-none"),
    ("status", "--pair-id", "../x"),
    ("next", "--pair-id", "20260101-none"),
    ("wait", "--pair-id", "/etc"),
    ("pairs", "restore", ".."),
    ("pairs", "archive"),
    ("pairs", "archive", "20260101-none"),
    ("pairs", "archive", "PAIR"),
    ("bootstrap", "--topic", "Bad Topic"),
    ("bootstrap", "--topic", ""),
    ("bootstrap", "--topic", "t" * 49),
    ("bootstrap", "--topic", "ok"),
    ("bootstrap", "--topic", "ok", "--peer", "claude", "--force"),
    ("bootstrap", "--topic", "ok", "--title", "a\nb", "--force"),
    ("draft", "set", "none.md"),
    ("publish", "none.md"),
    ("publish", "/etc/passwd"),
    ("claim", "--kind", "correction"),
    ("claim", "--kind", "plan", "--corrects", "1"),
    ("claim", "--kind", "plan", "--in-reply-to", "7"),
    ("close", "--reason", ""),
    ("issue", "show", "zzz"),
    ("help", "nonsense"),
    ("doctor", "--older-than", "-1h"),
    ("init", "--sync", "rsync", "--remote-ssh", "-oProxyCommand=x"),
]


@pytest.mark.parametrize(
    "command",
    [
        "next",
        "send --kind plan --file BODY --next go",
        "claim --kind note",
        "close --reason r",
        "continue",
        "pair ensure",
    ],
)
@pytest.mark.parametrize(
    "env",
    [
        {},
        {"RELAY_AUTHOR": "Not An Author"},
        {"CLAUDE_CODE_SESSION_ID": "a", "CODEX_THREAD_ID": "b"},
    ],
    ids=["none", "bad", "both"],
)
def test_without_a_known_author_nothing_is_written(stage, command, env):
    stage.open_pair()
    before = tree(stage)
    file = str(stage.file("# B\n"))
    before = tree(stage)
    done = stage.run(None, *command.replace("BODY", file).split(), typed=False, **env)
    assert done.code == 2 and "hint: export RELAY_AUTHOR=" in done.err
    assert tree(stage) == before


def test_outside_git_the_way_out_is_named(stage):
    for words in (
        ("next",),
        ("init",),
        ("bootstrap", "--topic", "t"),
        ("pairs", "list"),
        ("doctor",),
    ):
        done = stage.run("claude", *words, cwd=stage.home)
        assert done.code == 2 and "RELAY_SHARED_ROOT" in done.err


def test_a_pair_that_is_where_it_is_to_go_is_refused_as_by_1x(stage):
    pair = stage.open_pair()
    stage.refused("claude", "pairs", "restore", pair.name)
    stage.ok("claude", "close", "--reason", "done")
    stage.refused("claude", "pairs", "archive", pair.name)
    stage.ok("claude", "pairs", "restore", pair.name)
    stage.refused("claude", "pairs", "restore", pair.name)
