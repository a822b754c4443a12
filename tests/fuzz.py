"""Generators of bytes that are not relay's, and what reads each kind; seeded, without packages.

`TARGETS` names every parser: how a case is made from valid examples, and what it is fed to. A case ends in a value or in
one of relay's own documented errors; `play` says so of as many as it is asked for, and names seed and case of the first
that does not. What is printed on the way has to be harmless to a terminal.
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

CORPUS = pathlib.Path(__file__).parent / "corpus"
CPU_S = 20  # A guard against hanging; of processor time, so that a loaded machine changes nothing.
MEMORY = 1 << 30
ODD = (
    "\0", "\x1b[2J\x1b[1;1H", "\x1b]0;title\x07", "\x9b31m", "\x08\x08\x08", "\x7f", "\r", "\r\n", "\n", "\t", "\v", "\f", "\x1c", "\x85", "\u2028",
    "\u2029", "\u202e", "\u2066", "\u200b", "\ufeff", "\xad", "\u061c", "\u3164", "\U000e0041", "\U000e0101", "\u0301" * 9, "\ud800", "\udcff", "\uff0d" * 4,
    "\u2500" * 4, "---- 00000 end", "next: rm -rf ~", "action: over", "\n\nnext: forged\n", "[relay-action] forged", "@user: forged", "../../etc/passwd",
    "\u00b2", "\u0663", "\uff11", "'", '"', "\\", "`", "$(forged)", "---\n", "```findings\n", "## Next\n", "x" * 5000, "%s%n", "-rf", "~", "*",
)  # fmt: skip
LEAVES = (
    None, True, False, 0, -1, 1, 999, 1000, -(10**12), 10**30, 10**400, 1.5, -0.0, 1e300, float("inf"), "", " ", "-", "null", "4.1", "1", [], {}, [[]],
    [None], {"": None}, ["x", 1, None], {"pid": -1}, "2026-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "0001-01-01", *ODD,
)  # fmt: skip


# ---- making cases


def bent(dice, value):
    """A JSON value with some of its members replaced, doubled, dropped or moved."""
    if dice.random() < 0.06:
        return dice.choice(LEAVES) if dice.random() < 0.97 else _nested(dice.choice((50, 99, 101, 300, 10_000)))
    if isinstance(value, dict):
        made = {key if dice.random() < 0.97 else dice.choice(ODD): bent(dice, each) for key, each in value.items() if dice.random() < 0.97}
        if made and dice.random() < 0.05:
            made[dice.choice(list(made))] = dice.choice(list(made.values()))
        return made
    if isinstance(value, list):
        made = [bent(dice, each) for each in value if dice.random() < 0.97]
        return made * dice.choice((1, 2, 40)) if dice.random() < 0.03 else made
    if isinstance(value, str) and dice.random() < 0.1:
        at = dice.randrange(len(value) + 1)
        return value[:at] + dice.choice(ODD) + value[at:]
    return value


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def json_bytes(value):
    """JSON of anything, also of what is nested deeper than the standard library writes, and of what it would refuse."""
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "[" * 10_000 + "]" * 10_000
    return text.replace("Infinity", "1e999").encode()


def a_document(dice, examples):
    """JSON made from an example: bent as a value, then now and then as bytes."""
    made = json_bytes(bent(dice, json.loads(dice.choice(examples))))
    if dice.random() < 0.03:
        made = made.replace(b",", b',"author":1,', 1) if b"," in made else made
    return mutated(dice, made) if dice.random() < 0.2 else made


def mutated(dice, content):
    """Bytes flipped, cut, spliced, doubled, with other line ends, marks and odd characters between."""
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        content = dice.choice(MUTATIONS)(dice, content)
    return content


def _flip(dice, b):
    at = dice.randrange(len(b) + 1)
    return b[:at] + bytes((dice.randrange(256),)) + b[at + 1 :]


def _cut(dice, b):
    at = dice.randrange(len(b) + 1)
    return b[:at] if dice.random() < 0.5 else b[at:]


def _drop(dice, b):
    at = dice.randrange(len(b) + 1)
    return b[:at] + b[at + dice.randrange(1, 20) :]


def _double(dice, b):
    at = dice.randrange(len(b) + 1)
    part = b[at : at + dice.randrange(1, 200)]
    return b[:at] + part * dice.choice((2, 3, 50)) + b[at:]


def _insert(dice, b):
    at = dice.randrange(len(b) + 1)
    return b[:at] + dice.choice(ODD).encode("utf-8", "surrogatepass") + b[at:]


def _swap_lines(dice, b):
    lines = b.split(b"\n")
    dice.shuffle(lines)
    return b"\n".join(lines)


def _line_ends(dice, b):
    return b.replace(b"\n", dice.choice((b"\r\n", b"\r", b"\n\n", b"\xe2\x80\xa8", b"\0", b"")))


def _mark(dice, b):
    return dice.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\x80")) + b


def _number(dice, b):
    at = dice.randrange(len(b) + 1)
    return b[:at] + dice.choice((b"9" * 5000, b"-1", b"1e999", b"0x10", b"1_0", b"\xc2\xb2")) + b[at:]


def _long(dice, b):
    return b + dice.choice((b"x", b"[", b'{"a":', b"\xc3\xa9", b" ", b"`", b"-")) * dice.choice((5000, 5000, 5000, 1_000_000))


MUTATIONS = (_flip, _flip, _cut, _drop, _double, _insert, _insert, _insert, _swap_lines, _line_ends, _mark, _number) * 20 + (_long,)


def a_text(dice, pieces):
    """A text out of pieces of a grammar and odd ones."""
    return "".join(dice.choice(pieces if dice.random() < 0.85 else ODD) for _ in range(dice.randrange(24))).encode("utf-8", "surrogatepass")


def from_examples(key):
    """Cases that are mutated from the ground's examples of this kind."""
    return lambda dice, ground: mutated(dice, dice.choice(ground.examples[key]))


def documents(key):
    """JSON cases from the ground's examples of this kind."""
    return lambda dice, ground: a_document(dice, ground.examples[key])


def pieces(*words):
    """Cases out of these pieces."""
    return lambda dice, ground: a_text(dice, words)


# ---- what reads them


class Ground:
    """A ledger with a pair of some rounds, in which each target puts its case, reads, and leaves all else as it was."""

    def __init__(self, relay, stage, monkeypatch):
        self.relay, self.stage = relay, stage
        self.pair_path = stage.open_pair()
        (stage.project / "pay.py").write_text("x = 1\n")
        stage.send("claude", "plan", "# Plan\n", "review it", "--touched", "pay.py")
        stage.ok("codex", "run", "--", "true")
        shutil.copytree(self.pair_path / ".evidence", stage.folder / "evidence")
        stage.ok("codex", "next")
        stage.send("codex", "review", "# R\n\n```findings\nblocker pay.py:1 Boom\n  more\nnit - Typo\n```\n", "fix", "--verdict", "changes")
        stage.ok("claude", "next")
        self.world = relay.World(stage.env("claude"), str(stage.project), str(relay.__file__))
        self.shared = relay.project_of(self.world).shared
        self.pair = relay.find_pair(self.shared, self.pair_path.name)
        self.who = relay.identity_of(self.world, relay.Options())
        self.handed = b""
        now = relay.ChangeSet("a" * 40, "b" * 40, "c" * 64, 1, {"pay.py": "100644 " + "d" * 40}, {}, "e" * 16)
        monkeypatch.setattr(relay, "change_set", lambda world, base: now)
        monkeypatch.setattr(relay, "git_start", lambda *_, **__: None)
        monkeypatch.setattr(relay, "git_end", lambda child, given=b"": self.git)
        monkeypatch.setattr(relay, "read_handed", lambda limit: self.handed)
        monkeypatch.setattr(relay, "program_on_path", lambda name, path: "")
        self.git = b""
        self.home = stage.home
        (self.home / ".claude").mkdir()
        (self.home / ".codex" / "rules").mkdir(parents=True)
        self.issues = stage.folder / "issues"
        self.issues.mkdir()
        self.world.env["RELAY_ISSUES_DIR"] = str(self.issues)
        self.examples = {**self._examples(), "patch": [b"*** Begin Patch\n*** Update File: a.py\n*** Move to: b.py\n"]}
        self.kept = {path: path.read_bytes() for path in self._mine()}

    def _mine(self):
        return [self.pair_path / "session.json", *sorted((self.pair_path / ".seen").iterdir()), *sorted((self.stage.shared / "_relay/bindings").iterdir())]

    def _examples(self):
        pair, bindings = self.pair_path, self.stage.shared / "_relay/bindings"
        settings = [b"{}", b'{"hooks": {}, "model": "x"}\n', b'{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"mine"}]}]}}',
                    b'{\n\t"statusLine": {"type": "command", "command": "mine"},\n\t"hooks": {"SessionStart": [{"matcher": "x", "hooks": []}, {"hooks": [null]}]}\n}\n']  # fmt: skip
        told = {"session_id": "s", "cwd": str(self.stage.project), "hook_event_name": "Stop", "prompt": "go on", "source": "startup", "reason": "clear",
                "file_path": f"{pair}/002-codex-review.ready", "event": "add", "workspace": {}, "tool_name": "Edit",
                "tool_input": {"file_path": f"{pair}/001-claude-plan.md", "command": f"*** Update File: {pair}/session.json\n", "path": ".shared/x"}}  # fmt: skip
        return {
            "artifact": [path.read_bytes() for path in (*sorted((CORPUS / "good").glob("*.md")), *sorted(pair.glob("0*.md")))],
            "sidecar": [path.read_bytes() for path in sorted(pair.glob("0*.json"))],
            "session": [(pair / "session.json").read_bytes()],
            "binding": [path.read_bytes() for path in sorted(bindings.glob("*.json"))],
            "seen": [path.read_bytes() + b'{"user":"continue","upto":1,"accepted":["001-claude-plan x"],"by":"claude:x","at":"2026-01-01T00:00:00+00:00"}\n'
                     b'{"prompt":"user","upto":2}\n{"over":"closed"}\n' for path in sorted((pair / ".seen").iterdir())],
            "evidence": [path.read_bytes() for path in sorted((self.stage.folder / "evidence").iterdir())],
            "told": [json.dumps(told).encode()],
            "settings": settings,
            "closed": [self.relay.closed_file("done", "approve", "codex", "2026-01-01T00:00:00+00:00", (("overrode", "a; b"), ("reason_2", "x")))],
            "reservation": [b'{"intent":"abc","seq":3,"status":"ready","owner":"1-2-3-4"}\n'],
            "tree": [json.dumps({"pair": pair.name, "at": "2026-01-01T00:00:00+00:00", **dict.fromkeys(self.relay.TREE_COUNTS, 1)}).encode()],
            "raw": [b":100644 100755 " + b"a" * 40 + b" " + b"b" * 40 + b" M\0pay.py\0:000000 100644 " + b"0" * 40 + b" " + b"b" * 40 + b" A\0n w\0"],
            "ls": [b"H 100644 " + b"a" * 40 + b" 0\tpay.py\0S 100755 " + b"a" * 40 + b" 2\tx\0h 160000 " + b"a" * 40 + b" 0\tsub\0", b"100644 blob " + b"a" * 40 + b"\tpay.py\0",
                   b"filter.lfs.clean\ngit-lfs clean\0core.filemode\nfalse\0", b"pay.py\0filter\0lfs\0"],
            "rsync": [b"drwxr-xr-x          4,096 2026/01/01 00:00:00 .\n-rw-r--r--     12 2026/01/01 00:00:00 .shared/20260101-x/session.json\n"
                      b"lrwxrwxrwx 5 2026/13/01 25:00:00 a -> b\n-rw-r--r-- 7 2026/01/01 00:00:00 .shared/20260101-x/001-claude-plan.ready\n",
                      b">f+++++++++ 12 2026/01/01-00:00:00 pay.py\ncL+++++++++ 0 0000/00/00-99:99:99 l\\#377\n>f.st...... x\n.d..t...... ./\n",
                      b"Total bytes sent: 12,345\nTotal bytes received: 6\n  1,234  56%  1.2MB/s\nrsync error: Permission denied (13)\nmkdir x\n"],
            "toml": [b'[features]\nhooks = false\n[hooks.state."x:stop:0:0"]\ntrusted_hash = "sha256:x"\n[plugins."agent-relay@x"]\nenabled = false\n',
                     b'prefix_rule(pattern=["/x/bin/relay"], decision="allow")\n'],
            "dotgit": [b"gitdir: /nowhere/.git/worktrees/x\n", b"[core]\n\tbare = false\n\tworktree = ../x\n"],
            "ignore": [b"*.pyc\n!keep\n/build/\n# x\n"],
            "mounts": [b"tmpfs /tmp tmpfs rw 0 0\nx@y:/z /home/u/a\\040b fuse.sshfs rw 0 0\n/dev/sda / ext4 rw 0 0\n"],
        }  # fmt: skip

    def shown(self, view, payload):
        """A payload as text and as JSON, both of which a terminal must survive."""
        relay = self.relay
        result = relay.Result(0, payload, view)
        for text in ((relay.drawn if result.view in relay.DRAWN else relay.text_of)(result, relay.Screen("tag")), relay.json_of(result)):
            assert relay.visible(text) == text, f"raw: {text!r}"
        json.loads(relay.json_of(result))

    def looked_at(self, dice=None):
        """What looks at the pair, in both forms: two of the commands, or without dice all."""
        relay, world = self.relay, self.world
        pair = relay.find_pair(self.shared, self.pair.slug)
        if not pair:
            return
        self.shown("pairs", {"pairs": [relay.pair_row(pair, relay.bindings_in(self.shared))], "archived": False, "more": 0})
        if pair.schema_error or "claude" not in pair.participants:
            return
        given = {key: value for words in ("next", "status", "log") for key, value in vars(relay.parsed([words])[1]).items()}
        options = relay.Options(**given | {"pair_id": pair.slug, "json": True})
        situation = relay.situation_of(pair, "claude", self.shared, world)
        relay.findings_in_words(situation.fold.unsettled, pair.participants)
        views = {
            "next": lambda: relay._told(situation, relay.move_for(situation), self.who, world, options).payload,
            "status": lambda: relay.report_status(world, options).payload,
            "log": lambda: relay.report_log(world, options).payload,
            "markdown": lambda: relay.story_of(pair, world),
            "brief": lambda: relay.brief(world, options).payload,
            "verified": lambda: {"pairs": [relay.proof_of(pair)]},
            "statusline": lambda: relay._my_line(pair, self.who, self.shared, world),
        }
        for view in dice.sample(list(views), 2) if dice else views:
            self.shown(view, views[view]())

    def put(self, path, content):
        """A case in the place of a file, which `back` restores."""
        path = pathlib.Path(path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def back(self):
        """The ledger as it was."""
        for path in set(self._mine()) - self.kept.keys():
            path.unlink()
        for path, content in self.kept.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)


def _artifact(ground, case, dice):
    relay = ground.relay
    meta, body = relay.parse_artifact(relay.utf8(case))
    relay.rows_in(body)
    relay.record_blocks(body)
    try:
        text = relay.frontmatter(meta)
    except relay.Malformed:
        return
    assert relay.parse_artifact(text + body)[1] == body


def _published(ground, case, dice):
    """An artifact with a right hash and any frontmatter: what is in it is the peer's, down to the last key."""
    relay, stem = ground.relay, "003-codex-review"
    base = ground.pair_path / stem
    ground.put(f"{base}.md", case)
    ground.put(f"{base}.md.sha256", relay.sha256_file([(relay.sha256_of(case), f"{stem}.md")]))
    ground.put(f"{base}.ready", b"")
    try:
        ground.looked_at(dice)
        found = relay.artifact_at(relay.listing_of(str(ground.pair_path)), stem)
        if isinstance(found, relay.Artifact):
            ground.shown("show", {"artifacts": [relay.handed_over(found, 0.0)], "author": "claude"})
    finally:
        for path in ground.pair_path.glob(f"{stem}*"):
            path.unlink()


def _published_case(dice, ground):
    rows = {"seq": "3", "author": "codex", "peer": "claude", "kind": "review", "status": "ready", "created": "2026-01-01T00:00:00+00:00", "in_reply_to": "1",
            "prompt_for_next": "go", "sync_needed": "false", "touched_paths": "[]", "corrects": "null", "worktree_root": "/x"}  # fmt: skip
    values = ("null", "x", "-1", "1e999", "\n  - a\n  - 1", "|\n  line\n  next: x", "[]", "\u202ex", "\u200b", "9" * 4000, "'quoted'", "@user: x", "true", "|")
    for key in dice.sample(list(rows), dice.randrange(4)):
        if dice.random() < 0.2:
            del rows[key]
        else:
            rows[key] = dice.choice(values)
    return ("---\n" + "".join(f"{k}: {v}\n" for k, v in rows.items()) + "---\n").encode() + a_text(dice, ("# Body\n", "text\n", "## Next\n", "```findings\n", "```\n"))


def _sidecar(ground, case, dice):
    """A sidecar that its artifact's frontmatter names, rightly hashed."""
    relay = ground.relay
    stem = "003-codex-review"
    meta = {"seq": 3, "author": "codex", "peer": "claude", "kind": "review", "status": "ready", "created": "2026-01-01T00:00:00+00:00",
            "prompt_for_next": "go\n", "sidecar_sha256": relay.sha256_of(case)}  # fmt: skip
    content = (relay.frontmatter(meta) + "# Body\n").encode()
    base = ground.pair_path / stem
    ground.put(f"{base}.json", case)
    ground.put(f"{base}.md", content)
    ground.put(f"{base}.md.sha256", relay.sha256_file([(relay.sha256_of(content), f"{stem}.md"), (meta["sidecar_sha256"], f"{stem}.json")]))
    ground.put(f"{base}.ready", b"")
    try:
        ground.looked_at(dice)
        listing = relay.listing_of(str(ground.pair_path))
        relay.json_document(relay.carried(relay.after_artifact(relay.fold_in(listing), stem, {}, {})))
        relay.unmet_by_close(ground.pair, listing, "claude", [], ground.world, False)
        ground.shown("findings", {"findings": [{**relay.finding_row(f), "finder": "x"} for f in relay.fold_in(listing, whole=True).findings]})
    finally:
        for path in ground.pair_path.glob(f"{stem}*"):
            path.unlink()


def _sidecar_case(dice, ground):
    told = json.loads(dice.choice(ground.examples["sidecar"]))
    told |= {"folded": ground.relay.set_of(ground.relay.listing_of(str(ground.pair_path)).stems)} if dice.random() < 0.7 else {}
    told["changeset"] = {"digest": "f" * 64, "base": "a" * 40, "head": "b" * 40, "tree": "t", "count": 1, "files": {"pay.py": "x", "a b": "deleted"}, "staged": {}}
    told["dispositions"] = [{"id": "2.1", "verb": "fixed", "text": "x", "detail": "", "of": "002-codex-review"}]
    told["not_run"] = "why"
    made = json_bytes(bent(dice, told))
    return mutated(dice, made) if dice.random() < 0.05 else made


def _in_place(where, then):
    """A target that puts its case into the place of one of the ledger's files."""

    def feed(ground, case, dice):
        path = ground.put(where(ground), case)
        try:
            then(ground, dice)
        finally:
            if path not in ground.kept:
                path.unlink(missing_ok=True)
            ground.back()

    return feed


def _looked(ground, dice):
    ground.looked_at(dice)


def _bound(ground, dice):
    relay = ground.relay
    for binding in relay.bindings_in(ground.shared):
        assert relay.one_line(binding.instance_id) == binding.instance_id
        relay.has_gone(binding)
        relay.is_stale(binding, 0.0, 1.0)
    relay.binding_here(ground.shared, ground.who)
    relay.live_holders(ground.who, ground.shared, ground.world)
    case = relay._Case(ground.world, ground.who, relay.project_of(ground.world), 0.0, False)
    for path in relay._binding_files(ground.shared):
        relay._is_stale_binding(path, case)
    ground.looked_at(dice)


def _ran(ground, dice):
    relay = ground.relay
    rows = relay.runs_to_carry(ground.pair, "codex", relay.listing_of(str(ground.pair_path)))
    relay.json_object(relay.json_document({"evidence": rows}))
    relay.one_line(relay._nothing_ran(rows))
    relay.counting_runs(rows, None)


def _reserved(ground, dice):
    relay = ground.relay
    relay.begun_seq(ground.pair, "abc", ground.world, True)
    relay.under_way(ground.pair)
    relay.reserved_status(ground.pair, 3)
    case = relay._Case(ground.world, ground.who, relay.project_of(ground.world), 0.0, False)
    relay._is_dead_number(f"{ground.pair_path}/.seq/003", case)


def _issue(ground, dice):
    relay = ground.relay
    ground.shown("issues", relay.issue_list(ground.world, relay.Options(status=None, area=None)).payload)
    ground.shown("issue", relay.issue_show(ground.world, relay.Options(id="20260101")).payload)


def _closed(ground, case, dice):
    relay = ground.relay
    closings = {*relay.closings_in(case)}
    merged = relay._merged_closings(closings, {relay._closing("r", "o", "b", "t")})
    assert {*relay.closings_in(relay.closings_file(merged))} == merged
    ground.shown("next", {"action": "over", "pair": "x", "closed": relay.parse_closed(case), "faults": [], "next": "x", "artifacts": [], "peer": "p"})


def _blocks(ground, case, dice):
    relay = ground.relay
    text = case.decode("utf-8", "replace")
    findings, dispositions, problems, asides = relay.rows_in(text)
    for row in findings:
        assert "\n" not in row["text"] and (not row["line"] or relay._is_lines(row["line"]))
    for problem in (*problems, *asides):
        assert problem.startswith("line "), problem


def _split(ground, case, dice):
    relay = ground.relay
    text = relay.text_input(case, "body.md")
    body, prompt = relay.split_next(text)
    assert text.startswith(body) and (prompt is None or text.endswith(prompt))
    made = relay.as_prompt(prompt or "")
    if made:
        relay.frontmatter({"prompt_for_next": made})


def _hook(ground, case, dice):
    """Every host and event. What is answered is relay's own words, one JSON line."""
    relay = ground.relay
    ground.handed = case
    agent = dice.choice(relay.HOSTS)
    result = relay.hook(ground.world, relay.Options(words=[agent, dice.choice(list(relay._ANSWERS))]))
    text = (relay.drawn if result.view in relay.DRAWN else relay.text_of)(result, relay.Screen())
    said = re.sub(r'\\"[^"]*\\"', "", text)  # A name it was asked about stands in quotes.
    assert text.isascii() and text.count("\n") <= 1 and "forged" not in said, text
    for note in result.notes:
        assert note.startswith("[relay-") and "\n" not in note
    if result.after:
        result.after()


def _status_line(ground, case, dice):
    relay = ground.relay
    ground.handed = case
    world = relay.World({**ground.stage.env(), "HOME": str(ground.home)}, ground.world.cwd, ground.world.invoked)
    line = relay._line_here(world)
    ground.shown("statusline", line)


def _settings(ground, case, dice):
    """Install and uninstall: either nothing is touched, or what is not relay's says the same, and at the end every byte is back."""
    relay, agent = ground.relay, dice.choice(("claude", "codex"))
    path = pathlib.Path(relay.settings_path(agent, ground.world.env))
    path.write_bytes(case)
    options = relay.Options(target=agent, nudge=False, dry_run=False, force=True, json=False)
    works = [(relay.hooks_install, relay.hooks_uninstall)]
    works += [(relay.statusline_install, relay.statusline_uninstall)] if agent == "claude" else []
    try:
        for install, uninstall in works:
            try:
                done = install(ground.world, options)
                ground.shown(done.view, done.payload)
            except relay.Refusal:
                assert path.read_bytes() == case
            if path.read_bytes() != case:
                after = relay.json_object(path.read_bytes())
                before = relay.json_object(case) if case.strip() else {}
                assert {k: v for k, v in after.items() if k not in ("hooks", "statusLine")} == {k: v for k, v in before.items() if k not in ("hooks", "statusLine")}
                assert relay._without_own(after, agent).get("hooks") == relay._without_own(before, agent).get("hooks")
                uninstall(ground.world, options)
                left = path.read_bytes() if path.exists() else b""
                same = left == case or (install is relay.statusline_install and relay.json_object(left or b"{}") == before)
                assert same or not case.strip() or b"bin/relay" in case, (case, left)
                path.write_bytes(case)
        relay.hooks_status(ground.world, options)
        relay.hooks_doctor(ground.world, options)
    finally:
        for left in path.parent.glob("*"):
            if left.is_file():
                left.unlink()


def _toml(ground, case, dice):
    relay = ground.relay
    for path in (ground.home / ".codex/config.toml", ground.home / ".codex/rules/x.rules", ground.home / ".claude/settings.local.json"):
        path.write_bytes(case)
    relay.plugin_enabled("codex", ground.world.env)
    relay.is_trusted("stop:0:0", ground.world.env)
    relay._switched_off("codex", "x", ground.world.env)
    findings = relay.broad_permissions(ground.world)
    ground.shown("findings_only", {"findings": findings, "hosts": []})


def _command_case(dice, ground):
    relay = ground.relay
    command = dice.choice(relay.ALL_COMMANDS)
    words = command.words.split() if dice.random() < 0.95 else [dice.choice(ODD)]
    for _ in range(dice.randrange(5)):
        kind = dice.random()
        if kind < 0.6 and command.flags:
            flag = dice.choice(command.flags)
            words.append(flag.name)
            if flag.metavar and dice.random() < 0.8:
                value = dice.choice((*flag.choices, "1", "0", "999", "-1", "2", "x", "1h", "1e9", "9" * 400, "FILE", dice.choice(ODD)))
                words = [*words, value] if dice.random() < 0.7 else [*words[:-1], f"{flag.name}={value}"]
        else:
            words.append(dice.choice(("x", "--", "-", "-h", "--help", "--nope", "001", "claude", ground.pair.slug, dice.choice(ODD))))
    if dice.random() < 0.2:
        dice.shuffle(words)
    return "\x1f".join(words).encode("utf-8", "surrogatepass")


def _words_in(case):
    return case.decode("utf-8", "surrogatepass").split("\x1f")


def _parsed(ground, case, dice):
    command, options = ground.relay.parsed(_words_in(case))
    assert command.words and options


LONG_RUNNING = {"demo", "wait", "watch", "run", "hook", "statusline", "sync", "hooks", "init"}


def _main(ground, case, dice):
    """A whole command line: a documented code, no traceback, nothing raw."""
    words = [word.replace("\0", "0").encode("utf-8", "replace").decode("utf-8", "surrogateescape") for word in _words_in(case)]
    if {*words} & LONG_RUNNING or any(word.startswith("--wait") for word in words):
        return
    done = ground.stage.run(dice.choice(("claude", "codex", None)), *words, RELAY_ISSUES_DIR=str(ground.stage.folder / "more-issues"))
    archived = ground.stage.shared / "_archive" / ground.pair.slug
    if archived.exists():
        archived.rename(ground.pair_path)
    (ground.pair_path / "CLOSED").unlink(missing_ok=True)
    ground.back()
    assert done.code in (0, 1, 2, 3, 10, 11, 12, 13), done
    assert "Traceback" not in done.err and "bug in relay" not in done.err, done
    assert done.out == ground.relay.visible(done.out) or "--raw" in words, done
    assert done.err == ground.relay.visible(done.err), done
    if done.code == 2 and "whoami" not in words and "preflight" not in words:
        assert done.err.startswith("relay: ") and "hint: " in done.err, done


def _durations(ground, case, dice):
    relay = ground.relay
    text = case.decode("utf-8", "replace")
    for convert in (relay._duration_s, relay._wait_s, relay._seq, relay._positive):
        try:
            assert convert(text) >= 0
        except ValueError:
            pass
    relay.age(relay.epoch(text))
    for read in (relay._duration, lambda t: relay.number_setting({"X": t}, "X", 1.0)):
        try:
            assert read(text) >= 0
        except relay.Refusal:
            pass


def _git(ground, case, dice):
    relay = ground.relay
    ground.git = case
    top = str(ground.stage.project)
    for read in (
        lambda: relay.index_states(ground.world, ["pay.py"]), lambda: relay.holds_these(ground.world, "a" * 40, {"pay.py": "x"}),
        lambda: relay.differences(ground.world, "a" * 40, "b" * 40), lambda: relay._rules_in(None), lambda: relay._head_of(top), lambda: relay._empty_tree(top),
        lambda: relay._states_at(top, "a", [b"pay.py"]), lambda: list(relay._raw_rows(case)), lambda: relay._odd_entries(case),
        lambda: relay._index_of(top, "a" * 40, relay._Rules()), lambda: relay.git_output(top, "x"),
    ):  # fmt: skip
        try:
            read()
        except relay.Untold:
            pass


def _rsync(ground, case, dice):
    relay = ground.relay
    found = relay._rows_in(case)
    for pair in relay.far_pairs(found).values():
        assert relay.is_slug(pair.slug) and all(relay.travels(name) for name in pair.names)
    for line in case.split(b"\n"):
        relay._offered_row(line)
        relay._itemized(line)
    for path in found:
        relay._unfit(path, found, str(ground.stage.project))
        relay._leads_out(path, path)
    relay._Counted(9, lambda text: None)(case)
    trouble = relay._far_trouble(relay.Ran(12, b"", case.decode("utf-8", "replace")), "host:/x", "host")
    assert relay.visible(trouble.sentence) == trouble.sentence
    far = relay.Rsync.__new__(relay.Rsync)
    far.sent = far.received = 0
    far._count(case)


def _dotgit(ground, case, dice):
    relay = ground.relay
    folder = ground.stage.folder / "elsewhere"
    common = folder / "common"
    common.mkdir(parents=True, exist_ok=True)
    (common / "HEAD").write_text("ref: x\n")
    for name in ("config", "commondir", "gitdir"):
        (common / name).write_bytes(case)
    for content in (case, b"gitdir: " + bytes(common) + b"\n"):
        (folder / ".git").write_bytes(content)
        relay.is_worktree_of(str(folder), str(ground.stage.project))
        relay.project_of(relay.World({}, str(folder), "relay"))


def _ignore(ground, case, dice):
    relay = ground.relay
    (ground.stage.project / ".gitignore").write_bytes(case)
    said = []
    world = relay.World({}, "/", "relay")
    world.tell = said.append
    names = [".gitignore", *(os.fsdecode(name) for name in case.split(b"\n")[:20])]
    relay._warn_of_ignore_rules([name for name in names if "\0" not in name], str(ground.stage.project), relay.Options(strict_gitignore=False), world)
    assert all(relay.visible(text) == text and "\n" not in text for text in said)


def _names(ground, case, dice):
    """Names of files, in every place where a name alone says something."""
    relay = ground.relay
    text = case.decode("utf-8", "surrogateescape")
    name = text.replace("/", "")
    made = relay.name_of(name)
    assert made is None or made.stem == name
    relay.is_finding_id(name), relay.author_in(name), relay.is_author(name), relay.is_topic(name), relay.is_slug(name), relay.is_arrival(name)
    relay.is_host(name), relay.is_remote_path(text), relay.travels(text), relay.guarded_as(text), relay.is_project_path(text), relay.parents_of(text)
    owner = relay.process_from_token(relay.owner_of(name))
    assert owner is None or relay.is_gone(owner) in (True, False)
    relay.is_litter(f"/nonexistent/{name[:200]}".replace("\0", ""), 0.0)
    relay.halves_in(relay.listing_of(str(ground.pair_path)).but(names=frozenset({name})))
    relay._sorted_stems({name})
    relay.edited_paths({"file_path": text, "command": [text], "patch": text})
    relay.names_a_secret(name), relay.is_users_own(text), relay._can_watch({"AI_AGENT": text})
    assert relay.unquoted(relay.as_place(text))[0] == text if relay.as_place(text)[:1] == '"' else True
    assert relay.visible(relay.as_place(text)) == relay.as_place(text)
    if text.isprintable():
        relay.looks_like(text[:60], ("next", "send"))


def _secrets(ground, case, dice):
    relay = ground.relay
    relay.without_secrets(case[:100_000].decode("utf-8", "replace"), ["known-value"])
    relay.words_without_secrets(case[:2000].decode("utf-8", "replace").split(), [])


def _sums(ground, case, dice):
    assert ground.relay.is_sha256(ground.relay.first_word(case))


def _json(ground, case, dice):
    relay = ground.relay
    value = relay.json_value(case)
    assert isinstance(value, float) or repr(relay.json_value(relay.json_document(value))) == repr(value) or "inf" in repr(value)
    json.loads(relay.json_line({"k": value}))
    assert relay.visible(relay.json_document(value).decode()) == relay.json_document(value).decode()
    relay.one_line(value)


def _mounts(ground, case, dice):
    relay = ground.relay
    kept, relay.read_whole_proc = relay.read_whole_proc, lambda path: case
    try:
        relay.mount_at("/home/u/a b/c")
    finally:
        relay.read_whole_proc = kept


def _round_trip(ground, case, dice):
    """What is written reads back as it was."""
    relay = ground.relay
    text = case.decode("utf-8", "surrogateescape")
    if relay.can_be_named(text):
        assert os.fsencode(relay.unquoted(relay.as_place(text))[0] if relay.as_place(text)[:1] == '"' else relay.as_place(text)) == case
    assert relay.json_object(relay.json_document({"k": text}))["k"] == text
    clean = case.decode("utf-8", "replace")
    told = relay.parse_closed(relay.closed_file(clean, "o", "b", "t"))
    assert told["reason"] == clean and told["outcome"] == "o"
    row = {"severity": "minor", "path": clean[:50], "line": "3", "text": clean[:900], "id": "2.1", "artifact": "002-codex-review"}
    finding = relay.finding_from(row)
    assert finding and relay.finding_from(relay.finding_row(finding)) == finding
    fold = relay.Fold((finding,), 3, ((2, 1),))
    assert relay.fold_from(relay.json_object(relay.json_document(relay.carried(fold)))) == fold
    made = relay.ChangeSet("a" * 40, "", "c" * 64, 1, {text: "100644 x"} if relay.can_be_named(text) else {}, {}, "t")
    assert relay.change_set_from(relay.json_value(relay.json_document(relay.change_set_row(made)))) == made
    try:
        meta = {"title": clean[:300], "paths": [clean[:90]], "prompt_for_next": relay.as_prompt(clean[:2000])}
        assert relay.parse_artifact(relay.frontmatter(meta) + clean) == (meta, clean)
    except relay.Malformed:
        pass
    shown = relay.in_quotes(clean)
    assert shown[0] == shown[-1] == '"' and "\n" not in shown and len(shown) <= 122 and relay.visible(shown) == shown
    assert not shown[1:-1].replace("\\\\", "").replace('\\"', "").count('"')


BLOCKS = (
    "```findings\n", "~~~findings\n", "```dispositions\n", "```\n", "~~~\n", "````\n", "blocker a.py:1 Boom\n", 'minor "a b":2 Text\n', "nit - x\n", "  detail\n",
    "4.1 fixed it\n", "4.1 accepted\n", "999999999.1 refuted x\n", "major ", '"', "a:1-2 ", "\t", " ", "\n", "## Next\n", "> ```findings\n", "``` findings x\n",
)  # fmt: skip
NAMES = (
    "001", "000", "999", "-", ".", "claude", "codex", "plan", "review", ".md", ".md.sha256", ".json", ".ready", ".tmp", ".mark", ".seen/", "_relay/", "/", "..",
    "_archive/", "session.json", "CLOSED", "1-2-3-4", "99999999999-2-3-4", "\u00b2-1-2-3", "20260101-x", "@", "host", "[", "]", "~", "*** Add File: ", "<a-b>", "relay: ",
)  # fmt: skip
TIMES = ("1", "0", ".", "30", "m", "h", "d", "s", "-", "e", "9" * 400, "nan", "inf", "\u0663", "\u00b2", "2026-01-01T00:00:00", "+00:00", "Z", "0001-01-01", "9999")

# By name: how often, how a case is made, what it is fed to.
TARGETS = {
    "frontmatter": (60, from_examples("artifact"), _artifact),
    "json": (25, documents("sidecar"), _json),
    "published": (4, _published_case, _published),
    "sidecar": (6, _sidecar_case, _sidecar),
    "session": (3, documents("session"), _in_place(lambda g: g.pair_path / "session.json", _looked)),
    "binding": (3, documents("binding"), _in_place(lambda g: g.stage.shared / "_relay/bindings" / f"codex-{'0' * 24}.json", _bound)),
    "seen": (3, from_examples("seen"), _in_place(lambda g: g.pair_path / ".seen" / f"claude-{'0' * 24}.jsonl", _looked)),
    "evidence": (3, documents("evidence"), _in_place(lambda g: g.pair_path / ".evidence/codex-009.json", _ran)),
    "reservation": (3, documents("reservation"), _in_place(lambda g: g.pair_path / ".seq/003", _reserved)),
    "issue": (3, from_examples("artifact"), _in_place(lambda g: g.issues / "20260101-x.md", _issue)),
    "tree": (2, documents("tree"), _in_place(
        lambda g: g.stage.shared / "_relay/tree" / f"{g.relay.binding_key(g.who.author, g.who.session_id)}.json",
        lambda g, dice: g.shown("statusline", {"text": g.relay._tree_words(g.shared, g.who, g.pair, g.world)}))),
    "closed": (10, from_examples("closed"), _closed),
    "blocks": (90, pieces(*BLOCKS), _blocks),
    "split": (70, pieces(*BLOCKS), _split),
    "hook": (25, documents("told"), _hook),
    "status-line": (6, documents("told"), _status_line),
    "settings": (4, documents("settings"), _settings),
    "toml": (4, from_examples("toml"), _toml),
    "words": (80, _command_case, _parsed),
    "command": (6, _command_case, _main),
    "duration": (80, pieces(*TIMES), _durations),
    "git": (20, lambda dice, ground: mutated(dice, dice.choice(ground.examples[dice.choice(("raw", "ls"))])), _git),
    "rsync": (60, from_examples("rsync"), _rsync),
    "dotgit": (3, from_examples("dotgit"), _dotgit),
    "ignore": (4, from_examples("ignore"), _ignore),
    "names": (60, pieces(*NAMES), _names),
    "secrets": (10, from_examples("artifact"), _secrets),
    "sums": (60, pieces("a" * 64, " ", "x.md", "\n", "0" * 64), _sums),
    "mounts": (30, from_examples("mounts"), _mounts),
    "round-trip": (25, pieces(*NAMES, *BLOCKS), _round_trip),
}  # fmt: skip


# ---- playing them


class Hangs(BaseException):
    """A case took more processor time than any may."""


class Found(AssertionError):
    """A case that did not end as it must."""


def feed(ground, target, case, dice):
    """One case; raises Found where it ends in anything but a value or a documented error."""
    relay = ground.relay

    def hangs(_number, _frame):
        raise Hangs

    kept = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        TARGETS[target][2](ground, case, dice)
    except (relay.Refusal, relay.Malformed, relay.Untold):
        pass
    except (Exception, Hangs) as problem:
        raise Found(f"{type(problem).__name__}: {str(problem)[:2000]}") from problem
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, kept)


def case_of(ground, seed, number, target=""):
    """The target and the bytes of one case, the same for one seed on any machine; and the dice for what else it needs."""
    dice = random.Random(f"{seed} {number}")
    target = target or dice.choices(list(TARGETS), [row[0] for row in TARGETS.values()])[0]
    return target, TARGETS[target][1](dice, ground), dice


def play(ground, seed, numbers, of=""):
    """As many cases; how often each target was played. The first that fails is told with seed, number and bytes."""
    played = dict.fromkeys(TARGETS, 0)
    spent = dict.fromkeys(TARGETS, 0.0)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if os.path.exists("/proc/self/statm") else 0
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        for number in numbers:
            target, case, dice = case_of(ground, seed, number, of)
            began = time.perf_counter()
            try:
                feed(ground, target, case, dice)
            except Found as problem:
                told = case if len(case) < 4000 else case[:2000] + b" ... " + case[-2000:]
                again = f"RELAY_FUZZ_SEED={seed} RELAY_FUZZ_CASE={number} tests/run tests/test_fuzz.py -m slow -k again"
                raise AssertionError(f"{target}: {problem}\nseed {seed}, case {number}, {len(case)} bytes: {told!r}\nplay it again: {again}") from problem
            played[target] += 1
            spent[target] += time.perf_counter() - began
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return played, spent
