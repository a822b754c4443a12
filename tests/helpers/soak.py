"""A whole day in fast motion: many pairs, both authors, sessions that come and go, and kills at any call to the disk.

The clock is the soak's own, and so are the processes: each run of a command is another process, which a kill ends
for certain. All choices come from one seed.
"""

from __future__ import annotations

import bisect
import functools
import gc
import json
import os
import random
import time
from collections import Counter

from conftest import RELAY

DAY_S = 86_400
AUTHORS = ("claude", "codex")
CHANGES = ("open", "write", "link", "unlink", "replace", "rename", "mkdir", "rmdir", "utime")
COSTS = ("open", "listdir", "scandir", "link", "unlink", "replace", "rename", "mkdir")
NO_SUCH_PID = 5_000_000  # Above every pid_max.


class Killed(BaseException):
    """kill -9, at a call to the disk."""


class Session:
    """An agent's session: its id, and the process it runs in."""

    def __init__(self, author, number, host):
        self.author, self.id, self.host = author, f"{number:08x}-89ab-cdef-0123-456789abcdef", host


class Soak:
    def __init__(self, stage, monkeypatch, seed, turns, pairs, at_once=5):
        self.stage, self.dice, self.turns, self.wanted, self.at_once = (
            stage,
            random.Random(seed),
            turns,
            pairs,
            at_once,
        )
        self.now, self.looks = 1_800_000_000.0, [(time.time(), 1_800_000_000.0)]
        self.pids, self.numbers, self.live = (
            iter(range(NO_SUCH_PID, 2**31)),
            iter(range(1, 2**31)),
            {},
        )
        self.lit, self.fuse, self.dead, self.cost = 0, 0, False, Counter()
        self.who = self.own = None
        self.told = {}  # slug: {nonce: author}
        self.count, self.samples, self.done_pairs, self.events = 0, [], 0, Counter()
        self._patch(monkeypatch)

    # ---- the world as the soak has it

    def _patch(self, monkeypatch):
        change_set, trees = RELAY.change_set, {}  # The tree stays as it is.
        monkeypatch.setattr(
            RELAY,
            "change_set",
            lambda ctx, *of: trees.get(of) or trees.setdefault(of, change_set(ctx, *of)),
        )
        Context = RELAY.Context

        def in_fast_motion(*where, **how):
            ctx = Context(*where, **how)
            ctx.now = lambda: self.now
            return ctx

        monkeypatch.setattr(RELAY, "Context", in_fast_motion)
        monkeypatch.setattr(RELAY, "main", functools.partial(self._main, RELAY.main))
        monkeypatch.setattr(RELAY, "open", self._opened, raising=False)
        seen_process, modified_at = RELAY.process, RELAY.modified_at
        self.here = seen_process(os.getpid())
        monkeypatch.setattr(
            RELAY,
            "process",
            lambda pid: self.live.get(pid) or (None if pid >= NO_SUCH_PID else seen_process(pid)),
        )
        monkeypatch.setattr(
            RELAY,
            "host_process",
            lambda author: self.who.host if self.who and author == self.who.author else None,
        )
        monkeypatch.setattr(RELAY, "nearest_host", lambda: self.who.author if self.who else "")
        monkeypatch.setattr(RELAY, "is_attended", lambda ctx, host: True)
        monkeypatch.setattr(RELAY, "modified_at", lambda path: self._then(modified_at(path)))
        for name in {*CHANGES, *COSTS}:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _main(self, really, *given):
        """Only relay's own calls are counted down, not those of the stage."""
        self.fuse = self.lit
        try:
            return really(*given)
        finally:
            self.fuse, self.dead = 0, False

    def _then(self, at):
        """A time of the real clock as the soak's clock has it."""
        return (
            None
            if at is None
            else self.looks[max(0, bisect.bisect_left(self.looks, (at, 0.0)) - 1)][1]
        )

    def _counted(self, name, really):
        def call(*given, **named):
            self.cost[name] += 1
            if name in CHANGES and (name != "open" or given[1] & (os.O_CREAT | os.O_WRONLY)):
                self._burn()
            return really(*given, **named)

        return call

    def _burn(self, last=lambda: None):
        """A step that the kill may come before, and `last` what it still does then."""
        self.fuse -= 1
        if self.dead or self.fuse == 0:
            if not self.dead:
                last()
            self.dead = True
            raise Killed

    def _opened(self, *given, **named):
        """A file whose `write` may be killed when half of it is there."""
        file = open(*given, **named)
        if not hasattr(file, "raw") or not file.writable():
            return file
        really = file.write

        class Writer:
            __enter__ = lambda writer: writer
            __exit__ = lambda writer, *_: file.close()
            flush = lambda writer: file.flush()

            def write(writer, content):
                self._burn(lambda: (really(content[: len(content) // 2]), file.flush()))
                return really(content)

        return Writer()

    def process(self):
        pid = next(self.pids)
        self.live[pid] = self.here._replace(pid=pid, start="1")
        return self.live[pid]

    def session(self, author):
        return Session(author, next(self.numbers), self.process())

    def run(self, who, *words, stdin=b"", kill=0.0):
        """One command, killed first where the dice say so; then the same again."""
        for again in (False, True):
            self.who, self.own = who, self.process()
            self.lit = self.dice.randint(1, 45) if not again and self.dice.random() < kill else 0
            name = "CLAUDE_CODE_SESSION_ID" if who.author == "claude" else "CODEX_THREAD_ID"
            signal = {} if words[:1] == ("continue",) else {name: who.id}
            author = None if signal else who.author
            try:
                return self.stage.run(
                    author, *words, stdin=stdin, RELAY_AUTO_ROUND_CAP="0", **signal
                )
            except Killed:
                self.events["killed"] += 1
            finally:
                del self.live[self.own.pid]
        raise AssertionError("killed twice")

    def ok(self, who, *words, **more):
        done = self.run(who, *words, **more)
        assert done.code == 0, (self.count, words, done)
        return done

    def hook(self, who, event, **told):
        done = self.run(
            who,
            "hook",
            who.author,
            event,
            stdin=json.dumps({"session_id": who.id, **told}).encode(),
        )
        assert done.code == 0, (event, done)

    # ---- what happens in it

    def opened(self):
        sides = {author: self.session(author) for author in AUTHORS}
        for who in sides.values():
            self.hook(who, "SessionStart", source="startup")
        slug = self.ok(
            sides["claude"], "bootstrap", "--topic", f"t{next(self.numbers)}", "--force"
        ).out.split()[0]
        self.ok(sides["codex"], "pair", "join", slug, kill=0.05)
        self.told[slug] = {}
        return slug, sides

    def another(self, slug, sides, author):
        """A session goes: it is cleared, resumed, ended or killed; another stands in its place."""
        old, how = sides[author], self.dice.choice(("clear", "resume", "end", "kill", "kill"))
        self.events[how] += 1
        if how == "clear":
            self.hook(old, "SessionEnd", reason="clear")
            sides[author] = Session(author, next(self.numbers), old.host)
        else:
            if how == "end":
                self.hook(old, "SessionEnd", reason="other")
            del self.live[old.host.pid]
            sides[author] = self.session(author)
            sides[author].id = old.id if how == "resume" else sides[author].id
        self.hook(sides[author], "SessionStart", source=how)
        if how in ("end", "kill"):
            self.ok(sides[author], "pair", "join", slug)

    def turn(self, slug, sides):
        """Whoever's move it is looks, and sends."""
        for _ in range(4):
            author = AUTHORS[len(self.told[slug]) % 2]
            found = self.ok(sides[author], "next", "--json", kill=0.03).json
            if found["action"] != "ask_user":
                break
            self.ok(sides[author], "continue", "--pair-id", slug, kill=0.05)
            if found["action"] == "ask_user" and self.dice.random() < 0.5:
                self.ok(sides[AUTHORS[1 - AUTHORS.index(author)]], "continue", "--pair-id", slug)
        assert found["action"] in ("start", "reply", "resume", "wait"), (slug, author, found)
        self.sent(slug, sides, author, found)
        if self.dice.random() < 0.02:
            self.late(slug)
        if self.dice.random() < 0.3:
            self.hook(sides[author], "Stop")

    def sent(self, slug, sides, author, found):
        nonce, kind = (
            f"nonce-{next(self.numbers)}",
            self.dice.choice(("plan", "note", "fix", "review", "review", "question", "decision")),
        )
        if kind == "decision" and self.dice.random() < 0.7:
            kind = "note"
        more, text = [], f"# {kind} {nonce}\n\nWords.\n"
        if kind == "review":
            text += f"\n```findings\nmajor pay.py:{self.dice.randint(1, 99)} {nonce} is wrong\nnit - {nonce} is dull\n```\n"
            more = ["--verdict", "changes", "--not-run", "a soak"]
        rows = (
            [
                row["id"]
                for row in json.loads(self.ok(sides[author], "findings", "--json").out)["findings"]
            ]
            if kind == "fix" and found.get("open")
            else []
        )
        if rows:
            text += (
                "\n```dispositions\n"
                + "".join(f"{each} withdrawn {nonce}\n" for each in rows[:3])
                + "```\n"
            )
        self.stage.places(text)
        path = self.stage.file(text, f"{author}.md")
        before = self.cost.total()
        words = ("send", "--kind", kind, "--file", path, "--next", "go on", *more)
        done = self.run(sides[author], *words, kill=0.06)
        if done.code == 2 and rows:  # Not the finder's, or not open any more.
            path = self.stage.file(text.partition("\n```")[0], f"{author}.md")
            done = self.run(sides[author], *words)
        assert done.code == 0, (self.count, slug, done)
        published = done.out.split("\n")[0].removeprefix("already published as ")
        assert nonce in open(published).read(), (slug, done)
        self.told[slug][nonce] = author
        self.samples.append((self.count, len(self.told[slug]), self.cost.total() - before))

    def late(self, slug):
        """The last artifact comes after what is sent next, as from a sync."""
        pair = self.stage.shared / slug
        ready = max(pair.glob("*.ready"))
        ready.rename(self.stage.folder / "late.ready")
        self.events["late"] += 1
        other = AUTHORS[len(self.told[slug]) % 2]
        self.sent(slug, self.sides[slug], other, {})
        (self.stage.folder / "late.ready").rename(ready)

    def ended(self, slug, sides):
        how = ("--no-archive",) if self.dice.random() < 0.15 else ()
        done = self.run(
            sides["claude"], "close", "--reason", "the day ends", "--pair-id", slug, *how, kill=0.2
        )
        assert done.code == 0 or "is closed already" in done.err, (slug, done)
        restored = not how and self.dice.random() < 0.1
        if restored:
            self.ok(sides["claude"], "pairs", "restore", slug)
            self.ok(sides["claude"], "close", "--reason", "again", "--pair-id", slug)
            self.events["restored"] += 1
        # Nobody is bound to a pair that was restored.
        named = ("--pair-id", slug) if restored else ()
        found = self.ok(sides["codex"], "next", "--json", *named).json
        assert found["action"] == "over", (slug, how, found)
        for who in sides.values():
            if self.dice.random() < 0.6:
                self.hook(who, "SessionEnd", reason="other")
            del self.live[who.host.pid]
        self.done_pairs += 1

    def day(self, each_turn=lambda soak: None):
        """The whole of it."""
        length = self.turns // self.wanted
        self.sides, begun = {}, 0
        while self.sides or begun < self.wanted:
            while len(self.sides) < self.at_once and begun < self.wanted:
                slug, sides = self.opened()
                self.sides[slug] = sides
                begun += 1
            slug = self.dice.choice(list(self.sides))
            if self.dice.random() < 0.03:
                self.another(slug, self.sides[slug], self.dice.choice(AUTHORS))
            self.turn(slug, self.sides[slug])
            self.count += 1
            self.now += DAY_S / self.turns
            self.looks.append((time.time(), self.now))
            if len(self.told[slug]) >= length:
                self.ended(slug, self.sides.pop(slug))
            each_turn(self)
        gc.collect()

    # ---- what must hold

    def lost_or_doubled(self):
        """Each text that was sent and does not stand in exactly one published artifact."""
        wrong = []
        for slug, nonces in self.told.items():
            pair = next(
                p
                for p in (self.stage.shared / slug, self.stage.shared / "_archive" / slug)
                if p.is_dir()
            )
            texts = Counter(
                path.read_text().split("\n# ")[1].split("\n")[0].split()[-1]
                for path in pair.glob("*.md")
                if path.with_suffix(".ready").exists()
            )
            wrong += [(slug, nonce, texts[nonce]) for nonce in nonces if texts[nonce] != 1] + [
                (slug, n, "unknown") for n in texts if n not in nonces
            ]
        return wrong

    def kept(self):
        """How many files of each kind stand in the ledger's own folder."""
        folder = self.stage.shared / "_relay"
        return Counter(
            str(path.parent.relative_to(folder)) + "/" + path.name.partition("-")[0]
            for path in folder.rglob("*")
            if path.is_file()
        )
