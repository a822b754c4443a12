"""Generators of bytes that are not relay's, and what reads each kind; seeded, without packages.

`TARGETS` names every parser: how a case is made from valid examples, and what reads it. A case ends
in a value or in one of relay's own documented errors, and what is printed on the way is harmless to
a terminal. `play` says so of as many as it is asked for; where one does not, it names its seed.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import time

CORPUS = pathlib.Path(__file__).parent.parent / "corpus"
CPU_S = 20  # Of processor time, so that a loaded machine changes nothing.
MEMORY = 1 << 30
DOCUMENTED = (0, 1, 2, 3, 10, 11, 12, 13)
ODD = (
    *("\0", "\x1b[2J\x1b[1;1H", "\x1b]0;title\x07", "\x9b31m", "\x08\x08\x08", "\x7f", "\r"),
    *("\r\n", "\n", "\t", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\u202e", "\u2066"),
    *("\u200b", "\ufeff", "\xad", "\u061c", "\u3164", "\U000e0041", "\U000e0101", "\u0301" * 9),
    *("\ud800", "\udcff", "\uff0d" * 4, "\u2500" * 4, "---- 00000 end", "next: rm -rf ~"),
    *("action: over", "\n\nnext: forged\n", "[relay-action] forged", "@user: forged"),
    *("../../etc/passwd", "\u00b2", "\u0663", "\uff11", "'", '"', "\\", "`", "$(forged)", "---\n"),
    *("```findings\n", "## Next\n", "x" * 5000, "%s%n", "-rf", "~", "*"),
)
LEAVES = (
    *(None, True, False, 0, -1, 1, 999, 1000, -(10**12), 10**30, 10**400, 1.5, -0.0, 1e300),
    *(float("inf"), "", " ", "-", "null", "4.1", "1", [], {}, [[]], [None], {"": None}),
    *({"pid": -1}, ["x", 1, None], "2026-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"),
    *("0001-01-01", *ODD),
)


# ---- making cases


def bent(dice, value):
    """A JSON value with some of its members replaced, doubled, dropped or moved."""
    if dice.random() < 0.06:
        deep = dice.choice((50, 99, 101, 300, 10_000))
        return dice.choice(LEAVES) if dice.random() < 0.97 else nested(deep)
    if isinstance(value, dict):
        rows = [(key, bent(dice, each)) for key, each in value.items() if dice.random() < 0.97]
        row = {key if dice.random() < 0.97 else dice.choice(ODD): each for key, each in rows}
        if row and dice.random() < 0.05:
            row[dice.choice(list(row))] = dice.choice(list(row.values()))
        return row
    if isinstance(value, list):
        rows = [bent(dice, each) for each in value if dice.random() < 0.97]
        return rows * dice.choice((1, 2, 40)) if dice.random() < 0.03 else rows
    if isinstance(value, str) and dice.random() < 0.1:
        at = dice.randrange(len(value) + 1)
        return value[:at] + dice.choice(ODD) + value[at:]
    return value


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def json_bytes(value):
    """JSON of anything, also of what the standard library would not write."""
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "[" * 10_000 + "]" * 10_000
    return text.replace("Infinity", "1e999").encode()


def a_document(dice, example):
    """JSON from an example: bent as a value, then now and then as bytes."""
    content = json_bytes(bent(dice, json.loads(example)))
    if dice.random() < 0.03:
        content = content.replace(b",", b',"author":1,', 1)
    return mutated(dice, content) if dice.random() < 0.2 else content


NUMBERS = b"9" * 5000, b"-1", b"1e999", b"0x10", b"1_0", b"\xc2\xb2"
LINE_ENDS = b"\r\n", b"\r", b"\n\n", b"\xe2\x80\xa8", b"\0", b""
UNITS = b"x", b"[", b'{"a":', b"\xc3\xa9", b" ", b"`", b"-"


def mutated(dice, content):
    """Bytes flipped, cut, spliced, doubled, with odd characters and line ends."""
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        at, how = dice.randrange(len(content) + 1), dice.randrange(200)
        before, after = content[:at], content[at:]
        if how < 30:
            content = before + bytes((dice.randrange(256),)) + after[1:]
        elif how < 50:
            content = before if how % 2 else after
        elif how < 70:
            content = before + after[dice.randrange(1, 20) :]
        elif how < 90:
            content = before + after[: dice.randrange(1, 200)] * dice.choice((2, 3, 50)) + after
        elif how < 140:
            content = before + dice.choice(ODD).encode("utf-8", "surrogatepass") + after
        elif how < 155:
            lines = content.split(b"\n")
            dice.shuffle(lines)
            content = b"\n".join(lines)
        elif how < 170:
            content = content.replace(b"\n", dice.choice(LINE_ENDS))
        elif how < 184:
            content = dice.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x80")) + content
        elif how < 198:
            content = before + dice.choice(NUMBERS) + after
        else:
            content += dice.choice(UNITS) * dice.choice((5000, 5000, 5000, 1_000_000))
    return content


def text_of(dice, pieces):
    """A text out of pieces of a grammar and odd ones."""
    parts = (
        dice.choice(pieces if dice.random() < 0.85 else ODD) for _ in range(dice.randrange(24))
    )
    return "".join(parts).encode("utf-8", "surrogatepass")


def mutations(key):
    """Cases that are mutated from the ground's examples of this kind."""
    return lambda dice, ground: mutated(dice, dice.choice(ground.examples[key]))


def documents(key):
    """JSON cases from the ground's examples of this kind."""
    return lambda dice, ground: a_document(dice, dice.choice(ground.examples[key]))


def pieces(*words):
    """Cases out of these pieces."""
    return lambda dice, ground: text_of(dice, words)


def published_case(dice, ground):
    """An artifact whose frontmatter has any values."""
    rows = dict(line.split(": ", 1) for line in ARTIFACT.split("\n"))
    for key in dice.sample(list(rows), dice.randrange(4)):
        rows[key] = dice.choice(VALUES)
        if dice.random() < 0.2:
            del rows[key]
    head = "".join(f"{key}: {value}\n" for key, value in rows.items())
    body = text_of(dice, ("# Body\n", "text\n", "## Next\n", "```findings\n", "```\n"))
    return f"---\n{head}---\n".encode() + body


ARTIFACT = """seq: 3
author: codex
peer: claude
kind: review
status: ready
created: 2026-01-01T00:00:00+00:00
in_reply_to: 1
prompt_for_next: go
sync_needed: false
touched_paths: []
corrects: null
worktree_root: /x"""
VALUES = (
    *("null", "x", "-1", "1e999", "\n  - a\n  - 1", "|\n  line\n  next: x", "[]", "\u202ex"),
    *("\u200b", "9" * 4000, "'quoted'", "@user: x", "true", "|"),
)


def sidecar_case(dice, ground):
    row = json.loads(dice.choice(ground.examples["sidecar"]))
    if dice.random() < 0.7:
        row["folded"] = ground.relay.set_id(ground.relay.Listing(ground.pair()).stems)
    about = {"digest": "f" * 64, "base": "a" * 40, "head": "b" * 40, "tree": "t", "count": 2}
    row["changeset"] = about | {"files": {"pay.py": "x", "a b": "deleted"}}
    answer = {"id": "2.1", "verb": "fixed", "text": "x", "detail": "", "of": "002-codex-review"}
    content = json_bytes(bent(dice, row | {"dispositions": [answer], "not_run": "why"}))
    return mutated(dice, content) if dice.random() < 0.05 else content


def command_case(dice, ground):
    command = dice.choice(ground.relay.COMMANDS)
    words = command.words.split() if dice.random() < 0.95 else [dice.choice(ODD)]
    for _ in range(dice.randrange(5)):
        if dice.random() < 0.6 and command.arguments:
            argument = dice.choice(command.arguments)
            words += [argument.name] if argument.is_flag else []
            if "metavar" in argument.options or "choices" in argument.options:
                choices = argument.options.get("choices", ())
                words.append(dice.choice((*choices, *OPERANDS, dice.choice(ODD))))
        else:
            words.append(dice.choice((*OPERANDS, ground.slug, dice.choice(ODD))))
    if dice.random() < 0.2:
        dice.shuffle(words)
    return "\x1f".join(words).encode("utf-8", "surrogatepass")


OPERANDS = (
    *("1", "0", "999", "-1", "2", "x", "1h", "1e9", "9" * 400, "FILE", "--", "-", "-h", "--help"),
    *("--nope", "001", "claude"),
)


# ---- what reads them


class Ground:
    """A ledger with a pair of two rounds, in which each target puts its case and has it read."""

    def __init__(self, relay, stage, monkeypatch):
        self.relay, self.stage = relay, stage
        self.directory = stage.open_pair()
        self.slug = self.directory.name
        (stage.project / "pay.py").write_text("x = 1\n")
        stage.send("claude", "plan", "# Plan\n", "review it", "--touched", "pay.py")
        stage.ok("codex", "run", "--", "true")
        shutil.copytree(self.directory / ".evidence", stage.folder / "evidence")
        stage.ok("codex", "next")
        found = "# R\n\n```findings\nblocker pay.py:1 Boom\n  more\nnit - Typo\n```\n"
        stage.send("codex", "review", found, "fix", "--verdict", "changes")
        stage.ok("claude", "next")
        (stage.home / ".claude").mkdir()
        (stage.home / ".codex" / "rules").mkdir(parents=True)
        self.issues = stage.folder / "issues"
        self.issues.mkdir()
        self.ctx = relay.Context(relay.__file__, stage.env("claude"), str(stage.project), 0o22)
        self.project = relay.find_project(self.ctx)
        self.pristine = stage.folder / "pristine"
        shutil.copytree(stage.shared, self.pristine)
        self.kept = self.files()
        self.examples = examples_of(self)
        files = {"pay.py": "100644 " + "d" * 40}
        now = relay.ChangeSet("a" * 40, "b" * 40, "c" * 64, 1, files, {}, "e" * 16)
        self.change_set, self.monkeypatch = relay.change_set, monkeypatch
        monkeypatch.setattr(relay, "change_set", lambda *_: now)

    def pair(self):
        return self.relay.Ledger(self.ctx, self.project).find(self.slug)

    def files(self):
        files = (path for path in self.stage.shared.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files}

    def back(self):
        """The ledger as it was."""
        if self.files() != self.kept:
            shutil.rmtree(self.stage.shared)
            shutil.copytree(self.pristine, self.stage.shared)

    def run(self, author, *words, **more):
        """A command whose outcome must be a documented one, and harmless to a terminal."""
        more = {"RELAY_ISSUES_DIR": str(self.issues), **more}
        done, visible = self.stage.run(author, *words, **more), self.relay.visible
        assert done.code in DOCUMENTED, done
        assert "Traceback" not in done.err and "bug in relay" not in done.err, done
        assert visible(done.out) == done.out, done
        assert visible(done.err) == done.err, done
        if done.code == 2 and not {"whoami", "preflight"} & {*words}:
            assert done.err.startswith("relay: ") and "hint: " in done.err, done
        return done

    def read(self, where, case, dice, looks=()):
        """Puts a case in the place of a file of the ledger and looks at it by two commands."""
        path = self.stage.shared / where.replace("PAIR", self.slug)
        self.put(path, case)
        try:
            for words in dice.sample(looks or LOOKS, min(2, len(looks or LOOKS))):
                self.run(dice.choice(("claude", "codex")), *words.split(), stdin=b"{}")
        finally:
            self.back()

    def put(self, path, content):
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    def publish(self, content, dice, sidecar=b""):
        """An artifact with the right hashes and any content: all of it is the peer's."""
        stem, sha256 = "003-codex-review", self.relay.sha256
        sums = f"{sha256(content)}  {stem}.md\n"
        sums += f"{sha256(sidecar)}  {stem}.json\n" if sidecar else ""
        for suffix, text in ((".json", sidecar), (".md.sha256", sums.encode()), (".ready", b"")):
            self.put(self.directory / f"{stem}{suffix}", text)
        self.read(f"PAIR/{stem}.md", content, dice, (*LOOKS, "show 3", "show 3 --json"))


LOOKS = (
    *("next", "next --json", "status", "status --json", "log", "log --json", "log --markdown"),
    *("log -p", "show", "verify", "findings", "pairs list", "pair show", "brief", "watch"),
    *("wait --timeout 0", "export --html -", "statusline", "whoami", "pairs list --json", "show 2"),
    *("export --github", "export --sarif", "export --statement"),
)
LAID_OUT = (
    b'{\n\t"statusLine": {"type": "command", "command": "mine"},\n\t"hooks": {"SessionStart": '
    b'[{"matcher": "x", "hooks": []}, {"hooks": [null]}]}\n}\n'
)
MINE = b'{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"mine"}]}]}}'
SETTINGS = (b"{}", b'{"hooks": {}, "model": "x"}\n', MINE, LAID_OUT)
SEEN = (
    b'{"user":"continue","upto":1,"accepted":["001-claude-plan x"],"by":"claude:x","at":"2026-01-01'
    b'T00:00:00+00:00"}\n{"prompt":"user","upto":2}\n{"over":"closed"}\n'
)
LISTED = (
    b"drwxr-xr-x          4,096 2026/01/01 00:00:00 .\n-rw-r--r--     12 2026/01/01 00:00:00 .shared"
    b"/20260101-x/session.json\nlrwxrwxrwx 5 2026/13/01 25:00:00 a -> b\n-rw-r--r-- 7 2026/01/01 "
    b"00:00:00 .shared/20260101-x/001-claude-plan.ready\n-rw-r--r-- 12 2026/01/01 00:00:00 l\\#377\n"
)
COUNTED = b"Total bytes sent: 12,345\n  1,234  56%  1.2MB/s\nrsync error: Permission denied (13)\n"
TREE = (
    b"100644 001-claude-plan.md\0" + b"x" * 20 + b"100644 001-claude-plan.md.sha256\0" + b"y" * 20,
    b"100644 claude-" + b"0" * 24 + b".jsonl\0" + b"z" * 20 + b"100644 session.json\0" + b"s" * 20,
)
MOUNTS = b"tmpfs /tmp tmpfs rw 0 0\nx@y:/z /home/u/a\\040b fuse.sshfs rw 0 0\n"
CONFIG = (
    b'[features]\nhooks = false\n[hooks.state."x:stop:0:0"]\ntrusted_hash = "sha256:x"\n'
    b'[plugins."agent-relay@x"]\nenabled = false\n'
)
RULES = b'prefix_rule(pattern=["/x/bin/relay"], decision="allow")\n'


def examples_of(ground):
    """Valid bytes of each kind."""

    def contents(*paths):
        return [path.read_bytes() for path in paths]

    pair, stage, relay = ground.directory, ground.stage, ground.relay
    closed = ("overrode", ["a", "b"]), ("reason_2", "x")
    tool = {"file_path": f"{pair}/001-claude-plan.md", "path": ".shared/x"}
    tool["command"] = f"*** Update File: {pair}/session.json\n"
    event = {"session_id": "session-of-claude", "cwd": str(stage.project), "workspace": {}}
    event |= {"hook_event_name": "Stop", "prompt": "go on", "source": "startup"}
    event["tool_name"] = "Edit"
    event |= {"file_path": f"{pair}/002-codex-review.ready", "event": "add", "tool_input": tool}
    note = {"pair": pair.name, "at": "2026-01-01T00:00:00+00:00", "reviewed": 1, "unchanged": True}
    examples = {"settings": SETTINGS, "rsync": (LISTED, COUNTED), "toml": (CONFIG, RULES)}
    examples["git-tree"] = TREE
    at = "2026-01-01T00:00:00+00:00"
    return examples | {
        "artifact": contents(*(CORPUS / "good").glob("*.md"), *pair.glob("0*.md")),
        "sidecar": contents(*pair.glob("0*.json")),
        "session": contents(pair / "session.json"),
        "binding": contents(*(stage.shared / "_relay/bindings").glob("*.json")),
        "seen": [each + SEEN for each in contents(*(pair / ".seen").iterdir())],
        "evidence": contents(*(stage.folder / "evidence").iterdir()),
        "event": [json.dumps(event).encode()],
        "closed": [relay.format_closed("done", "approve", "codex", at, closed)],
        "reservation": [b'{"intent":"abc","seq":3,"status":"ready","owner":"1-2-3-4"}\n'],
        "sent": [b'{"intent":"abc","name":"001-claude-plan"}\n'],
        "tree": [json.dumps(note).encode()],
        "mounts": [MOUNTS],
        "dotgit": [
            b"gitdir: /nowhere/.git/worktrees/x\n",
            b"[core]\n\tbare = no\n\tworktree = x\n",
        ],
    }


def read_artifact(ground, case, dice):
    relay = ground.relay
    meta, body = relay.parse_artifact(relay.decode_text(case))
    relay.parse_record(body)
    text = relay.format_frontmatter(meta)
    assert relay.parse_artifact(text + body)[1] == body


def read_published(ground, case, dice):
    ground.publish(case, dice)


def read_sidecar(ground, case, dice):
    """A sidecar that its artifact's frontmatter names, with the right hash."""
    meta = f"---\n{ARTIFACT}\nsidecar_sha256: {ground.relay.sha256(case)}\n---\n# Body\n"
    ground.publish(meta.encode(), dice, case)


def in_place(where, *looks):
    """A target that puts its case in the place of one of the ledger's files."""
    return lambda ground, case, dice: ground.read(where, case, dice, looks)


def read_issue(ground, case, dice):
    ground.put(ground.issues / "20260101-x.md", case)
    for words in ("list", "list --json", "show 20260101", "show 20260101 --json"):
        ground.run("claude", "issue", *words.split())


def read_closed(ground, case, dice):
    relay = ground.relay
    if dice.random() < 0.1:
        ground.read("PAIR/CLOSED", case, dice)
    relay.closing_lines(relay.parse_closed(case))


def read_blocks(ground, case, dice):
    text = case.decode("utf-8", "replace")
    body = ground.relay.parse_record(text)
    for row in body.findings:
        assert "\n" not in row["text"] and re.fullmatch(r"[\d-]*", row["line"])
    last = 1 + text.count("\n")
    assert all(0 < line <= last and why for line, why in (*body.problems, *body.asides))


def read_split(ground, case, dice):
    relay = ground.relay
    text = relay.decode_text(case)
    body, prompt = relay.split_next(text)
    assert text.startswith(body) and (prompt is None or text.endswith(prompt))
    relay.format_frontmatter({"prompt_for_next": relay.to_prompt(prompt or "") or None})


def read_event(ground, case, dice):
    """Every host and event: the answer is relay's own words, in one line of JSON."""
    host, event = dice.choice(ground.relay.HOSTS), dice.choice(EVENTS)
    try:
        done = ground.run(host, "hook", host, event, stdin=case[:60_000])
    finally:
        ground.back()
    answer = re.sub(r'\\"[^"]*\\"', "", done.out)  # A name it was asked about is in quotes.
    assert answer.isascii() and answer.count("\n") <= 1 and "forged" not in answer, done
    assert all(line.startswith("[relay-") for line in done.err.splitlines()), done


EVENTS = ("SessionStart", "UserPromptSubmit", "PreToolUse", "Stop", "SessionEnd", "FileChanged")


def read_status_line(ground, case, dice):
    ground.run("claude", "statusline", stdin=case[:60_000])


def said_by_settings(content):
    """What settings say without the rule for the scratch file and without what is empty."""
    value = json.loads(content.strip() or b"{}")
    hooks = value.get("hooks")
    if isinstance(hooks, dict):
        value["hooks"] = {event: groups for event, groups in hooks.items() if groups}
    permissions = value.get("permissions")
    if isinstance(permissions, dict) and isinstance(permissions.get("allow"), list):
        allow = [r for r in permissions["allow"] if r != "Edit(.shared/_relay/claude.md)"]
        rest = {key: each for key, each in permissions.items() if key != "allow"}
        value["permissions"] = rest | ({"allow": allow} if allow else {})
    may_be_empty = ("hooks", "permissions", "statusLine")
    return {key: each for key, each in value.items() if each or key not in may_be_empty}


def read_settings(ground, case, dice):
    """Either nothing is touched, or all else says the same, and at the end nothing is left."""
    host = dice.choice(ground.relay.HOSTS)
    name = "settings.json" if host == "claude" else "hooks.json"
    path = ground.stage.home / f".{host}" / name
    path.write_bytes(case)
    kinds = ("hooks", "statusline") if host == "claude" else ("hooks",)
    for kind in kinds:
        force = ("--force",) if kind == "statusline" else ()
        target = ("--target", host) if kind == "hooks" else ()
        ground.run(None, kind, "install", *target, *force)
        if path.read_bytes() != case:
            before, after = said_by_settings(case), said_by_settings(path.read_bytes())
            own = {"hooks", "statusLine"}
            assert {k: v for k, v in after.items() if k not in own} == {
                k: v for k, v in before.items() if k not in own
            }
            ground.run(None, kind, "uninstall", *target)
            left = said_by_settings(path.read_bytes())
            assert left == before or b"relay" in case, (case, left)
        path.write_bytes(case)
    ground.run(None, "hooks", "status")
    for file in path.parent.glob("*"):
        if file.is_file():
            file.unlink()


def read_toml(ground, case, dice):
    for path in (".codex/config.toml", ".codex/rules/x.rules", ".claude/settings.local.json"):
        (ground.stage.home / path).write_bytes(case)
    ground.run(None, "hooks", "doctor")


def read_words(ground, case, dice):
    words = case.decode("utf-8", "surrogatepass").split("\x1f")
    assert {"-h", "--help"} & {*words} or ground.relay.parse(words).command


LASTING = {"demo", "wait", "watch", "run", "hook", "statusline", "sync", "hooks", "init", "doctor"}


def read_command(ground, case, dice):
    """A whole command line."""
    text = case.decode("utf-8", "surrogatepass").replace("\0", "0").encode("utf-8", "replace")
    words = text.decode("utf-8", "surrogateescape").split("\x1f")
    if not {*words} & (LASTING | {"preflight"}) and not any(
        word.startswith("--wait") for word in words
    ):
        try:
            ground.run(dice.choice(("claude", "codex", None)), *words)
        finally:
            ground.back()


def read_number(ground, case, dice):
    relay, text = ground.relay, case.decode("utf-8", "replace")
    relay.age(relay.epoch(text))
    assert relay.age(relay.parse_duration(text))
    ctx = relay.Context("relay", {"X": text}, "/", 0o22)
    notes = ctx.progress = lambda note: None
    assert relay.number_setting(ctx, "X", 1.0) >= 0 and notes is ctx.progress
    for words in (("wait", "--timeout"), ("show",), ("status", "--last"), ("watch", "--interval")):
        try:
            relay.parse((*words, text))
        except relay.Refusal as problem:
            assert relay.visible(problem.message) == problem.message
        except SystemExit as ended:  # It asked for help.
            assert "-h" in text and ended.code == 0


def read_rsync(ground, case, dice):
    relay = ground.relay
    far = relay.Far.__new__(relay.Far)
    far.left, far.scratch, far.host, far.name = [], "/x", "host", "host:/x"
    far._remote, far.remote = far.name, ""
    far._rsync = lambda *_: case + b"\ndrwxr-xr-x 1 2026/01/01 00:00:00 .git\n"
    far.pairs = []
    far.ledger()
    for pair in far.pairs:
        assert relay.is_slug(pair.slug) and None not in map(relay.owner, pair.names)
    relay.one_line(far._trouble(12, case.decode("utf-8", "replace")).message)


def read_git_tree(ground, case, dice):
    relay = ground.relay
    try:
        names = relay.tree_names("claude", case, 20)
    except ValueError:  # The ref is refused.
        return
    assert {*map(relay.owner, names)} <= {"", "claude"}


def read_dotgit(ground, case, dice):
    relay, directory = ground.relay, ground.stage.folder / "elsewhere"
    common = directory / "common"
    common.mkdir(parents=True, exist_ok=True)
    (common / "HEAD").write_text("ref: x\n")
    for name in ("config", "commondir", "gitdir"):
        (common / name).write_bytes(case)
    for content in (case, b"gitdir: " + bytes(common) + b"\n"):
        (directory / ".git").write_bytes(content)
        relay.is_worktree_of(str(directory), str(ground.stage.project))
        ctx = relay.Context("relay", {"HOME": "/nonexistent"}, str(directory), 0o22)
        try:
            relay.find_project(ctx)
        except relay.Refusal as problem:
            assert problem.hint


def read_name(ground, case, dice):
    """Names of files, in every place where a name alone says something."""
    relay, text = ground.relay, case.decode("utf-8", "surrogateescape")
    stem = text.replace("/", "")
    name = relay.parse_name(stem)
    assert name is None or name.stem == stem
    assert (name.author if name else "") == relay.author_of(stem)
    for test in (relay.is_author, relay.is_slug, relay.is_remote_host):
        assert not test(text) or relay.visible(text) == text
    for test in (relay.is_remote_path, relay.owner, relay.is_secret_name):
        test(text)
    for show in (relay.display_path, relay.shell_quoted, relay.in_quotes, relay.word_or_quotes):
        assert relay.visible(show(text)) == show(text) and "\n" not in show(text)
    listing = relay.Listing(ground.pair())
    listing.files = frozenset([stem])
    listing.incomplete()
    relay.nearest(text[:60], ("next", "send"))


def read_secret(ground, case, dice):
    relay, text = ground.relay, case.decode("utf-8", "replace")
    relay.redact(text[:100_000], ["known-value"])
    relay.redact_words(text[:2000].split(), [])


def read_json(ground, case, dice):
    relay = ground.relay
    value = relay.parse_json(case)
    written = relay.json_document(value)
    again = relay.parse_json(written) if "inf" not in repr(value) else value
    assert repr(again) == repr(value)
    json.loads(relay.json_document({"k": value}, indent=None))
    assert relay.visible(written.decode()) == written.decode()
    relay.record_of(value if isinstance(value, dict) else {})


def read_mounts(ground, case, dice):
    with ground.monkeypatch.context() as patch:
        patch.setattr(ground.relay, "read_file", lambda path: case)
        ground.relay.mount_type("/home/u/a b/c")
        ground.relay.is_network_mount("/")


def round_trip(ground, case, dice):
    """What is written reads back as it was."""
    relay, text = ground.relay, case.decode("utf-8", "surrogateescape")
    assert relay.parse_json_object(relay.json_document({"k": text}))["k"] == text
    clean = case.decode("utf-8", "replace")
    closed = relay.parse_closed(relay.format_closed(clean, "o", "b", "t"))
    assert closed["reason"] == clean and closed["outcome"] == "o"
    finding = relay.Finding("2.1", "002-codex-review", "minor", clean[:50], "3", clean[:900])
    state = relay.FindingState((finding,), 3, ((2, 1),), "x" * 12)
    row = relay.parse_json_object(relay.json_document(relay.carried(state)))
    assert relay.carried_state(row).findings in (state.findings, ())
    files = {text: "100644 " + "d" * 40}
    change_set = relay.ChangeSet("a" * 40, "", "c" * 64, 1, files, {}, "t")
    row = relay.parse_json(relay.json_document(relay.change_set_row(change_set)))
    assert relay.change_set_from(row) in (change_set, None)
    meta = {"title": clean[:300], "paths": [clean[:90]]}
    meta["prompt_for_next"] = relay.to_prompt(clean[:2000]) or None
    assert relay.parse_artifact(relay.format_frontmatter(meta) + clean) == (meta, clean)


BLOCKS = (
    *("```findings\n", "~~~findings\n", "```dispositions\n", "```\n", "~~~\n", "````\n"),
    *("## Next\n", "blocker a.py:1 Boom\n", 'minor "a b":2 Text\n', "nit - x\n", "  detail\n"),
    *("4.1 fixed it\n", "4.1 accepted\n", "999999999.1 refuted x\n", "major ", '"', "a:1-2 ", "\t"),
    *(" ", "\n", "> ```findings\n", "``` findings x\n"),
)
NAMES = (
    *("001", "000", "999", "-", ".", "claude", "codex", "plan", "review", ".md", ".md.sha256"),
    *(".json", ".ready", ".tmp", ".seen/", "_relay/", "/", "..", "_archive/", "session.json"),
    *("CLOSED", "1-2-3-4", "99999999999-2-3-4", "\u00b2-1-2-3", "20260101-x", "@", "host", "["),
    *("]", "~", "*** Add File: ", "<a-b>", "relay: "),
)
TIMES = (
    *("1", "0", ".", "30", "m", "h", "d", "s", "-", "e", "9" * 400, "nan", "inf", "\u0663"),
    *("\u00b2", "2026-01-01T00:00:00", "+00:00", "Z", "0001-01-01", "9999"),
)
KEY = "0" * 24
# By name: how often, how a case is made, what reads it.
TARGETS = {
    "frontmatter": (60, mutations("artifact"), read_artifact),
    "json": (25, documents("sidecar"), read_json),
    "published": (4, published_case, read_published),
    "sidecar": (6, sidecar_case, read_sidecar),
    "session": (3, documents("session"), in_place("PAIR/session.json")),
    "binding": (3, documents("binding"), in_place(f"_relay/bindings/codex-{KEY}.json")),
    "seen": (3, mutations("seen"), in_place(f"PAIR/.seen/claude-{KEY}.jsonl")),
    "sent": (2, mutations("sent"), in_place("PAIR/.sent/codex.jsonl")),
    "evidence": (3, documents("evidence"), in_place("PAIR/.evidence/codex-009.json")),
    "reservation": (3, documents("reservation"), in_place("PAIR/.seq/003")),
    "draft": (2, mutations("artifact"), in_place("PAIR/.draft/003-codex-note.md")),
    "tree": (2, documents("tree"), in_place(f"_relay/tree/claude-{KEY}.json", "statusline")),
    "issue": (3, mutations("artifact"), read_issue),
    "closed": (10, mutations("closed"), read_closed),
    "blocks": (90, pieces(*BLOCKS), read_blocks),
    "split": (70, pieces(*BLOCKS), read_split),
    "hook": (10, documents("event"), read_event),
    "status-line": (4, documents("event"), read_status_line),
    "settings": (4, documents("settings"), read_settings),
    "toml": (4, mutations("toml"), read_toml),
    "words": (40, command_case, read_words),
    "command": (6, command_case, read_command),
    "number": (20, pieces(*TIMES), read_number),
    "rsync": (60, mutations("rsync"), read_rsync),
    "git-tree": (30, mutations("git-tree"), read_git_tree),
    "dotgit": (3, mutations("dotgit"), read_dotgit),
    "names": (60, pieces(*NAMES), read_name),
    "secrets": (10, mutations("artifact"), read_secret),
    "mounts": (30, mutations("mounts"), read_mounts),
    "round-trip": (25, pieces(*NAMES, *BLOCKS), round_trip),
}


# ---- playing them


class Hangs(BaseException):
    """A case took more processor time than any may."""


def feed(ground, target, case, dice):
    """One case; raises AssertionError where it ends in anything but a value or relay's errors."""
    relay = ground.relay

    def hangs(_number, _frame):
        raise Hangs

    kept = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        TARGETS[target][2](ground, case, dice)
    except (relay.Refusal, relay.Malformed):
        pass
    except (Exception, Hangs) as problem:
        raise AssertionError(f"{type(problem).__name__}: {str(problem)[:2000]}") from problem
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, kept)


def play(ground, seed, numbers, of=""):
    """Plays these cases; how often each target was played, and how long. The same seed and number
    make the same case on any machine."""
    played, spent = dict.fromkeys(TARGETS, 0), dict.fromkeys(TARGETS, 0.0)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    memory = pathlib.Path("/proc/self/statm")
    if memory.exists():
        used = int(memory.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        for number in numbers:
            dice = random.Random(f"{seed} {number}")
            weights = [row[0] for row in TARGETS.values()]
            target = of or dice.choices(list(TARGETS), weights)[0]
            case, began = TARGETS[target][1](dice, ground), time.perf_counter()
            try:
                feed(ground, target, case, dice)
            except AssertionError as problem:
                shown = case if len(case) < 4000 else case[:2000] + b" ... " + case[-2000:]
                where = f"RELAY_FUZZ_SEED={seed} RELAY_FUZZ_CASE={number}"
                again = f"{where} tests/run tests/test_fuzz.py -m slow -k again"
                raise AssertionError(f"{target}: {problem}\n{shown!r}\nagain: {again}") from problem
            played[target] += 1
            spent[target] += time.perf_counter() - began
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return played, spent
