#!/usr/bin/env python3
"""Rewrites the transcripts of the documents with what the program prints.

    docs/transcripts.py            rewrite them
    docs/transcripts.py --check    exit with 1 and name each document that is out of date

A transcript is a block that begins with ```console. Its lines `claude$ COMMAND` and `codex$ COMMAND` are
run in a scratch project, and `you$ COMMAND` as the person, without an agent's identity; the lines
between them are what was printed. Commands in a comment (<!--) are run, and what they print is not shown.
All blocks of one document are one session. Before the first command the
project holds pay.py, and each author's scratch file is the document's block of that name (`SCENE` has the
others). Paths, dates, times, hashes and the random word of the fence are shown as in `steady`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELAY = ROOT / "skills/agent-relay/bin/relay"
DOCUMENTS = ("README.md", "docs/looking.md")
SESSIONS = {
    "claude": {"CLAUDE_CODE_SESSION_ID": "session-of-claude"},
    "codex": {"CODEX_THREAD_ID": "thread-of-codex"},
    "you": {},
}
SCENE = {
    "pay.py": "def refund(amount, parts):\n    return amount / parts\n",
    "plan.md": "refund() takes the number of parts.\n\n"
    "## Next\nReview pay.py. Look at parts = 0.\n",
    "review.md": "# Review\n\n```findings\nblocker pay.py:2 refund(5, 0) divides by zero\n"
    "nit - The plan does not say who calls it\n```\n\n## Next\nGuard it.\n",
    "fix.md": "# Fix\n\n```dispositions\n2.1 fixed a guard\n"
    "2.2 refuted the billing job alone does\n```\n\n## Next\nLook again.\n",
    "approval.md": "# Second look\n\n```dispositions\n2.2 accepted\n```\n\n## Next\nShip it.\n",
}


class Scene:
    """A scratch project in which the commands of one document are run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "pay"
        self.home = folder / "home"
        self.home.mkdir()
        self.project.mkdir()
        programs = {str(Path(shutil.which(name) or name).parent) for name in ("git", "python3")}
        (folder / "agents").mkdir()
        for name in SESSIONS:  # Found on PATH, never started.
            (folder / "agents" / name).write_text("#!/bin/sh\nexit 9\n")
            (folder / "agents" / name).chmod(0o755)
        self.env = {
            "HOME": str(self.home),
            "PATH": ":".join([str(folder / "agents"), *sorted(programs), os.defpath]),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_DATE": "2026-11-30T10:00:00Z",
            "GIT_COMMITTER_DATE": "2026-11-30T10:00:00Z",
        }
        who = ("-c", "user.name=you", "-c", "user.email=you@example.invalid")
        for words in (
            ["init", "-q", "-b", "main"],
            [*who, "commit", "-q", "--allow-empty", "-m", "x"],
        ):
            subprocess.run(["git", *words], cwd=self.project, env=self.env, check=True)
        (self.project / "pay.py").write_text(SCENE["pay.py"])

    def run(self, who: str, line: str) -> str:
        """What one line of a transcript prints, stdout before stderr."""
        words = shlex.split(line)
        program = [str(RELAY), *words[1:]] if words[0] == "relay" else ["sh", "-c", line]
        done = subprocess.run(
            program,
            cwd=self.project,
            env={**self.env, **SESSIONS[who]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return self.steady(done.stdout + done.stderr)

    def steady(self, text: str) -> str:
        """Without what differs from run to run, and with `relay` for its path."""
        text = text.replace(str(self.project), "/home/you/pay").replace(str(RELAY), "relay")
        text = re.sub(r"20\d{6}(?=-[a-z])", "20261130", text)
        text = re.sub(
            r"20\d\d-\d\d-\d\d(?: \d\d:\d\d)?", lambda m: "2026-11-30 10:00"[: len(m[0])], text
        )
        text = re.sub(r"(?m)^(  )\d\d:\d\d(?=  )", r"\g<1>10:00", text)
        text = re.sub(r"\b\d+ s (old|ago)", r"0 s \1", text)
        text = re.sub(r"\d+\.\d+ s\b", "0.1 s", text)
        return re.sub(r"(?<=---- )\w{5}(?= )", "k7wq3", text)


def rewritten(text: str) -> str:
    """A document with its transcripts as the program prints them now."""
    files = dict(SCENE)
    for name, block in re.findall(
        r"(?s)`\.shared/_relay/(\w+\.md)`:\n\n````markdown\n(.*?)````", text
    ):
        files[name] = block
    with tempfile.TemporaryDirectory(prefix="relay-transcripts-") as folder:
        scene = Scene(Path(os.path.realpath(folder)))

        def block(found: re.Match[str]) -> str:
            begin, inside, end = found.groups()
            lines = [begin]
            for who, line in re.findall(r"(?m)^(claude|codex|you)\$ (.*)$", inside):
                for name in re.findall(r"\.shared/_relay/(\w+\.md)", line):
                    (scene.project / ".shared/_relay" / name).write_text(files[name])
                printed = scene.run(who, line).rstrip("\n")
                lines.append(f"{who}$ {line}")
                lines += [printed] if printed and begin == "```console" else []
            return "\n".join([*lines, end])

        return re.sub(r"(?ms)^(```console|<!--)\n(.*?)^(```|-->)", block, text)


def main() -> int:
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text()
        if (after := rewritten(before)) != before:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(after)
    for name in stale:
        print(f"{name}: {'out of date' if '--check' in sys.argv[1:] else 'rewritten'}")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
