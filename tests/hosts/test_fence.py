"""Published files are not edited: hooks deny it in every editing tool, and what they cannot see is detected by the reader."""

import json
import re

import pytest

pytestmark = pytest.mark.hosts

CLAUDES, CODEXS = "11111111-1111-4111-8111-111111111111", "01a00000-0000-7000-8000-000000000001"


@pytest.fixture
def published(scene):
    """The folder of a pair with one artifact of each side."""
    scene.relay("init")
    scene.as_agent("claude", "bootstrap", "--topic", "t", session=CLAUDES)
    scene.as_agent("codex", "next", session=CODEXS)
    text = scene.file("# Text\n\n## Next\nLook.\n")
    scene.as_agent("claude", "send", "--kind", "plan", "--file", text, session=CLAUDES)
    scene.as_agent("codex", "next", session=CODEXS)
    scene.as_agent(
        "codex",
        "send",
        "--kind",
        "note",
        "--file",
        scene.file("# Answer\n\n## Next\nGo on.\n", "b.md"),
        session=CODEXS,
    )
    scene.relay("hooks", "install")
    return next(scene.shared.glob("2*"))


def results(scene, host):
    """What the host's tools answered, in order."""
    return [turn.text for turn in scene.model.of(host)[-1].turns if turn.kind == "result"]


def frozen(pair):
    return {
        path.name: path.read_bytes()
        for path in pair.iterdir()
        if path.is_file() and path.name[:3].isdigit()
    }


def test_claude_code_is_denied_by_every_tool_that_edits(scene, published):
    """Scene 3, Claude Code: Edit, Write and NotebookEdit; by absolute path, through a link, into a new sidecar."""
    (scene.project / "link").symlink_to(published)
    (scene.project / "file.md").symlink_to(published / "001-claude-plan.md")
    artifact = str(published / "001-claude-plan.md")
    part = [
        {"tool": "Read", "input": {"file_path": artifact}},
        {
            "tool": "Edit",
            "input": {"file_path": artifact, "old_string": "# Text", "new_string": "# Other"},
        },
        {
            "tool": "Write",
            "input": {"file_path": str(published / "002-codex-note.md"), "content": "x"},
        },
        {
            "tool": "Write",
            "input": {
                "file_path": str(scene.project / "link/001-claude-plan.md.sha256"),
                "content": "x",
            },
        },
        {"tool": "Write", "input": {"file_path": str(scene.project / "file.md"), "content": "x"}},
        {
            "tool": "Write",
            "input": {"file_path": str(published / "003-claude-note.ready"), "content": ""},
        },
        {
            "tool": "NotebookEdit",
            "input": {
                "notebook_path": artifact,
                "new_source": "x",
                "cell_id": "0",
                "edit_mode": "replace",
            },
        },
        {"tool": "Write", "input": {"file_path": str(scene.project / "own.md"), "content": "x"}},
        {"say": "done"},
    ]
    before = frozen(published)
    scene.claude("go", part=part)
    told = results(scene, "claude")
    offered = {tool.get("name") for tool in scene.model.of("claude")[-1].body["tools"]}
    editing = {
        name
        for name in offered
        if name and re.search("Edit|Write", name) and not name.startswith("Todo")
    }
    assert editing <= {step["tool"] for step in part if "tool" in step}, (
        "a tool that edits was not tried"
    )
    assert frozen(published) == before
    assert "send --kind correction --corrects 1 --file FILE" in told[1], told[1]
    assert (
        "send --kind note --reply-to 2 --file FILE" in told[2]
        and "never edited" in told[3]
        and "never edited" in told[4]
    )
    assert "send --kind KIND --file FILE" in told[5], "a sidecar is relay's to write"
    assert "never edited" in told[6] or "not a Jupyter notebook" in told[6] or "ipynb" in told[6], (
        told[6]
    )
    assert (scene.project / "own.md").read_text() == "x", "everything else is let through"


def test_codex_is_denied_patches_and_what_the_shell_does_is_detected(scene, published):
    """Scene 3, Codex: patches by relative path, moves, deletions; in the shell, which hooks
    do not see, the file's mode denies, and who gets around that leaves damage."""
    pair = f".shared/{published.name}"
    (scene.project / "link").symlink_to(published)
    (scene.project / "new.md").write_text("x\n")
    part = [
        {
            "patch": f"*** Begin Patch\n*** Update File: {pair}/001-claude-plan.md\n@@\n-# Text\n+# Other\n*** End Patch"
        },
        {
            "patch": f"*** Begin Patch\n*** Update File: new.md\n*** Move to: {pair}/003-codex-note.md\n@@\n-x\n+y\n*** End Patch"
        },
        {"patch": "*** Begin Patch\n*** Delete File: link/002-codex-note.md\n*** End Patch"},
        {"patch": "*** Begin Patch\n*** Add File: fine.txt\n+x\n*** End Patch"},
        f"echo forged >> {pair}/001-claude-plan.md",
        f"chmod u+w {pair}/001-claude-plan.md; echo forged >> {pair}/001-claude-plan.md; "
        f"CODEX_THREAD_ID={CODEXS} {scene.relays['codex']} next",
        {"say": "done"},
    ]
    before = frozen(published)
    scene.codex("go", part=part)
    told = results(scene, "codex")
    assert all(
        "Command blocked by PreToolUse hook" in text and "bin/relay send" in text
        for text in told[:3]
    ), told[:3]
    assert (scene.project / "fine.txt").exists() and not (published / "003-codex-note.md").exists()
    changed = {name for name, content in frozen(published).items() if before.get(name) != content}
    assert "Permission denied" in told[4], told[4]
    assert changed == {"001-claude-plan.md"} and re.search(
        "action: damaged: 001-claude-plan", told[5]
    ), told[5]
    assert json.loads(scene.relay("show", "1", "--json", code=13))["artifacts"] == [], (
        "what was forged is handed to nobody"
    )
