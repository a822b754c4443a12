"""Ledgers as agent-relay 1.x left them, written from plain descriptions by 1.x's own rules."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib

DAY = "20240501"
AT = "2024-05-01T10:00:00+02:00"
KEYS = (
    "seq",
    "author",
    "peer",
    "kind",
    "status",
    "created",
    "in_reply_to",
    "prompt_for_next",
    "sync_needed",
    "touched_paths",
    "corrects",
    "worktree_root",
    "force_reason",
)

# A plan, its review and the fix: it is claude's move.
STORY = (
    {"seq": 1, "author": "codex", "kind": "plan", "touched_paths": []},
    {"seq": 2, "author": "claude", "kind": "review", "in_reply_to": 1, "sync_needed": True},
    {
        "seq": 3,
        "author": "codex",
        "kind": "fix",
        "in_reply_to": 2,
        "touched_paths": ["src/pay.py", "docs/a b.md"],
    },
)


def ending(status: str, **more) -> dict:
    return {
        "artifacts": (
            *STORY,
            {
                "seq": 4,
                "author": "codex",
                "kind": "note",
                "status": status,
                "in_reply_to": 3,
                **more,
            },
        )
    }


CLOSED = {"reason": "merged", "outcome": "approved", "closed_by": "codex", "closed_at": AT}
SHUT = {"state": "closed", "closed_at": AT, "close_reason": "merged"}

# One pair each; the key is its topic.
PAIRS = {
    "fresh": {},
    "active": {"artifacts": STORY},
    "paused": ending("timed_out"),
    "ended": ending("closed"),
    "cancelled": ending("cancelled"),
    "failed": ending("failed", force_reason="the plan: was dropped"),
    "closed": {"artifacts": STORY, "session": SHUT, "closed": CLOSED},
    "inactive": {"artifacts": STORY, "session": SHUT},
    "archived": {"artifacts": STORY, "session": SHUT, "closed": CLOSED, "archived": True},
    "future": {"artifacts": STORY, "session": {"schema_version": 4, "reviewers": 3}},
    "older": {"artifacts": STORY, "session": {"schema_version": 2}},
    "broken-missing": {"artifacts": STORY, "session": {"schema_version": None}},
    "broken-word": {"artifacts": STORY, "session": {"schema_version": "3"}},
    "broken-bool": {"artifacts": STORY, "session": {"schema_version": True}},
    "broken-null": {
        "artifacts": STORY,
        "session": {"schema_version": "3", "participants": None, "title": None},
    },
    "broken-list": {"artifacts": STORY, "session.json": b"[]\n"},
    "broken-text": {"artifacts": STORY, "session.json": b'{"schema_version": 3,\n'},
    "broken-bytes": {"artifacts": STORY, "session.json": b"\xff\xfe{}"},
    "doubled": {
        "artifacts": (
            *STORY[:1],
            {"seq": 2, "author": "claude", "kind": "review", "in_reply_to": 1},
            {"seq": 2, "author": "codex", "kind": "note", "in_reply_to": 1},
        )
    },
    "dashes": {
        "authors": ("my-agent", "agent"),
        "artifacts": (
            {"seq": 1, "author": "my-agent", "kind": "plan"},
            {"seq": 2, "author": "agent", "kind": "review", "in_reply_to": 1},
        ),
    },
    "worktree": {
        "artifacts": (
            {
                "seq": 1,
                "author": "codex",
                "kind": "plan",
                "worktree_root": "/home/u/tree",
                "touched_paths": ["a.py"],
            },
        )
    },
    "corrected": {
        "artifacts": (
            *STORY,
            {"seq": 4, "author": "claude", "kind": "correction", "corrects": 2, "in_reply_to": 2},
        )
    },
}

REFUSED = [name for name in PAIRS if name.startswith("broken") or name in ("future", "older")]


def slug_of(name: str) -> str:
    return f"{DAY}-{name}"


def ledger(shared: pathlib.Path, *names: str) -> pathlib.Path:
    """A ledger with these pairs; the folder of the first."""
    put(shared / "_relay" / ".sentinel", f"relay mount sentinel\ncreated_at: {AT}\n")
    for folder in ("bindings", "hook-state"):
        (shared / "_relay" / folder).mkdir(mode=0o700, exist_ok=True)
    return [pair(shared, name, **PAIRS[name]) for name in names][0]


def pair(
    shared,
    name,
    artifacts=(),
    session=None,
    closed=None,
    archived=False,
    authors=("codex", "claude"),
    **files,
):
    slug = slug_of(name)
    folder = shared / "_archive" / slug if archived else shared / slug
    told = {
        "schema_version": 3,
        "project": "shop",
        "session_id": slug,
        "title": f"Refunds: {name}",
        "state": "active",
        "created_at": AT,
        "closed_at": None,
        "close_reason": None,
        "participants": list(authors),
    } | (session or {})
    if told["schema_version"] is None:
        del told["schema_version"]
    put(folder / "session.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    put(folder / "README.md", f"# {told['title']}\n")
    for side in (".draft", "archive"):
        (folder / side).mkdir(mode=0o700)
    for meta in artifacts:
        publish(folder, authors, **meta)
    if closed:
        put(
            folder / "CLOSED",
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in closed.items()),
        )
    for base, content in files.items():
        put(folder / base, content)
    return folder


def publish(folder, authors, *, seq, author, kind, body=None, **more):
    """The three files of an artifact, `.ready` last."""
    path = folder / f"{seq:03}-{author}-{kind}.md"
    put(
        path,
        artifact(authors, seq=seq, author=author, kind=kind, **more)
        + (body or f"\n# {kind} {seq}\n\nText: of {author}.\n"),
    )
    put(f"{path}.sha256", f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    put(path.with_suffix(".ready"), "")
    return path


def artifact(authors, **meta) -> str:
    peer = next(author for author in authors if author != meta["author"])
    prompt = f"- look at {meta['seq']}\n\n  - closely: please\n"
    usual = {
        "peer": peer,
        "status": "ready",
        "created": AT,
        "in_reply_to": None,
        "prompt_for_next": prompt,
        "sync_needed": False,
        "touched_paths": ["src/pay.py"],
        "corrects": None,
    }
    told = usual | meta
    return "".join(["---\n", *(_line(key, told[key]) for key in KEYS if key in told), "---\n"])


def _line(key, value) -> str:
    if value is None or isinstance(value, bool):
        return f"{key}: {'null' if value is None else str(value).lower()}\n"
    if isinstance(value, list):
        return f"{key}:\n" + "".join(f"  - {item}\n" for item in value) if value else f"{key}: []\n"
    if "\n" in str(value):
        return f"{key}: |\n" + "".join(
            f"  {line}\n" if line else "\n" for line in value.rstrip("\n").split("\n")
        )
    return f"{key}: {value}\n"


def draft(folder, authors, **meta):
    """An unfinished draft with the sidecars of 1.x's heartbeat process."""
    stem = f"{meta['seq']:03}-{meta['author']}-{meta['kind']}"
    put(folder / ".draft" / f"{stem}.heartbeat", f"{AT}\n")
    put(folder / ".draft" / f"{stem}.pid", "4194300\n")
    return put(
        folder / ".draft" / f"{stem}.md",
        artifact(authors, status="draft", **meta) + f"\n# {meta['kind']}\n",
    )


def bind(shared, author, session_id, name, last_seen=AT, **more):
    """A binding; schema 1."""
    told = {
        "schema_version": 1,
        "instance_id": f"{author}:{session_id[:8]}",
        "author": author,
        "agent_session_id": session_id,
        "pair_slug": slug_of(name),
        "bound_at": AT,
        "last_seen": last_seen,
    } | more
    key = hashlib.sha256(session_id.encode()).hexdigest()[:24]
    return put(
        shared / "_relay" / "bindings" / f"{author}-{key}.json", json.dumps(told, indent=2) + "\n"
    )


def put(path, content) -> pathlib.Path:
    path = pathlib.Path(path)
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir(mode=0o700)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.chmod(path, 0o600)
    return path


def snapshot(folder) -> dict:
    """Every name under a folder with its bytes and mode, to compare."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.name == ".lock":
            continue
        content = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (
            content,
            path.lstat().st_mode,
            path.lstat().st_mtime_ns if content is not None else 0,
        )
    return found
