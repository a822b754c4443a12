"""An agent-relay 1.x reader, written from the format's description alone and sharing no code with relay.

It is as trusting as 1.x was, traps included: it splits lines wherever Python does, lets a later line
that is less indented than its block's first become a key, knows no escapes and keeps the last of two
equal keys. Whatever relay publishes must mean to it what it means to relay.
"""

from __future__ import annotations

import hashlib
import pathlib

KINDS = ("plan", "review", "fix", "note", "question", "decision", "correction", "addendum")


def frontmatter(text: str) -> dict:
    """The keys between the two `---` lines."""
    lines = text.splitlines()
    if not lines or lines[0] != "---":
        raise ValueError("no frontmatter")
    lines = lines[1 : lines.index("---", 1)]
    meta, at = {}, 0
    while at < len(lines):
        key, colon, value = lines[at].strip().partition(":")
        value = value.strip()
        at += 1
        if not colon:
            continue
        if value == "|":
            meta[key], at = _block(lines, at)
        elif value == "[]":
            meta[key] = []
        elif value == "" and at < len(lines) and lines[at].strip().startswith("- "):
            meta[key], at = _items(lines, at)
        else:
            meta[key] = scalar(value)
    return meta


def _block(lines: list[str], at: int) -> tuple[str, int]:
    taken, indent = [], None
    while at < len(lines):
        line = lines[at]
        width = len(line) - len(line.lstrip())
        if line.strip():
            if indent is None and width:
                indent = width
            if indent is None or width < indent:
                break
        taken.append(line[indent:] if line.strip() else "")
        at += 1
    text = "\n".join(taken).rstrip("\n")
    return (text + "\n" if text else ""), at


def _items(lines: list[str], at: int) -> tuple[list, int]:
    items = []
    while at < len(lines) and lines[at].strip().startswith("- "):
        items.append(scalar(lines[at].strip()[2:].strip()))
        at += 1
    return items, at


def scalar(text: str):
    """A value on one line."""
    if text in ("", "null", "~"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def artifacts(folder: pathlib.Path) -> dict[str, dict]:
    """All that 1.x would consume in a pair's folder: file stem to frontmatter, in order."""
    found = {}
    for ready in sorted(folder.glob("[0-9][0-9][0-9]-*-*.ready")):
        path = ready.with_suffix(".md")
        said = ready.with_suffix(".md.sha256").read_text().split()[0]
        if said != hashlib.sha256(path.read_bytes()).hexdigest():
            raise ValueError(f"{path.name}: hash")
        meta = frontmatter(path.read_text(encoding="utf-8"))
        if (
            f"{meta['seq']:03}-{meta['author']}-{meta['kind']}" != ready.stem
            or meta["kind"] not in KINDS
        ):
            raise ValueError(f"{path.name}: name")
        found[ready.stem] = meta
    return found
