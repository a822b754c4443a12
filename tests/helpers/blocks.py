"""What the tests of the review record have in common: bodies with blocks, sidecars, forged artifacts."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import tempfile

from conftest import copy_tree

PEER = {"claude": "codex", "codex": "claude"}


def findings(*lines, fence="```"):
    """A body with one findings block; its first row stands on line 4."""
    return "\n".join(["# Review", "", f"{fence}findings", *lines, fence, ""])


def dispositions(*lines):
    """A body with one dispositions block; its first row stands on line 4."""
    return "\n".join(["# Answer", "", "```dispositions", *lines, "```", ""])


_PREPARED: dict = {}  # What a state looks like on disk, made once and copied for each test that begins with it.


def prepared(stage, build):
    """The project and ledger that `build` makes of a fresh stage; returns the pair's folder."""
    if type(stage).__name__ != "Stage":  # Its ledger may lie elsewhere.
        return build(stage)
    if build not in _PREPARED:
        path = build(stage)
        kept = tempfile.TemporaryDirectory()
        copy_tree(stage.project, pathlib.Path(kept.name) / "project")
        _PREPARED[build] = kept, path.name, stage.sent
        return path
    kept, slug, stage.sent = _PREPARED[build]
    shutil.rmtree(stage.project)
    copy_tree(pathlib.Path(kept.name) / "project", stage.project)
    return stage.shared / slug


def _asked(stage):
    path = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    return path


def asked(stage):
    """A pair with a plan of claude's that codex was shown."""
    return prepared(stage, _asked)


def _changed(stage):
    path = stage.open_pair()
    (stage.project / "work.py").write_text("work\n")
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    return path


def changed(stage):
    """As `asked`, with a change to review."""
    return prepared(stage, _changed)


def tried(stage, author, kind, text, *more, **env):
    """A send that may be refused; the file is new each time."""
    stage._tries = getattr(stage, "_tries", 0) + 1
    stage.places(text)
    return stage.run(
        author,
        "send",
        "--kind",
        kind,
        "--file",
        stage.file(text, f"try-{stage._tries}.md"),
        "--next",
        "go on",
        *more,
        **env,
    )


def sidecar(path, number):
    """The sidecar of the artifact with this number."""
    return json.loads(next(path.glob(f"{number:03}-*.json")).read_text())


def states(stage, *words):
    """Id to state, as `findings` tells it."""
    return {
        row["id"]: row["state"]
        for row in stage.ok("claude", "findings", "--json", *(words or ("--all",))).json["findings"]
    }


def lines_of(done):
    """The numbers of the lines that a refusal names."""
    return [int(number) for number in re.findall(r"line (\d+): ", done.err)]
