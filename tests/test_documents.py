"""The documents tell the truth about the program: commands, flags, actions, codes, transcripts."""

import hashlib
import importlib.machinery
import importlib.util
import json
import re
import shlex

import pytest
from conftest import ROOT, SCRIPT

SKILL = ROOT / "skills/agent-relay/SKILL.md"
PROTOCOL = ROOT / "skills/agent-relay/references/file-protocol.md"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
DOCUMENTS = sorted([*TOP, SKILL, *SKILL.parent.glob("references/*.md"), *ROOT.glob("docs/*.md")])
GROUPS = {
    "relay sync",
    "relay hooks",
    "relay pair",
    "relay pairs",
    "relay issue",
    "relay heartbeat",
}
FILLED = {
    "KIND": "note",
    "N": "1",
    "SEQ": "1",
    "SECONDS": "5",
    "STATUS": "ready",
    "AREA": "cli",
    "SEVERITY": "minor",
    "HOW": "none",
    "VERDICT": "approve",
}


def code_in(text):
    """The code of a document: each line of a block, each span in backticks; prompts are dropped."""
    blocks = re.findall(r"(?ms)^ *```[^\n]*\n(.*?)^ *```", text)
    rest = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
    blocks += ["\n".join(re.findall(r"(?m)^    (.+)$", rest))]
    lines = [line for block in blocks for line in block.split("\n")]
    spans = re.findall(r"`([^`\n]+)`", rest)
    return [re.sub(r"^(next: |\w*\$ )", "", piece.strip()) for piece in [*lines, *spans]]


def commands_in(text):
    """The words of every relay command in a document's code, without relay itself."""
    for piece in code_in(text):
        piece = re.split(r"\s{2,}#|\s#\s", piece)[0].rstrip()
        found = re.match(r"(?:\S*/)?relay ((?:[a-z]|-)\S*.*)$", piece)
        if found and piece not in GROUPS and not found[1].startswith("2."):
            yield shlex.split(found[1])


COMMANDS = sorted(
    {(p.name, " ".join(words)) for p in DOCUMENTS for words in commands_in(p.read_text())}
)


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_every_command_in_the_documents_is_one_the_program_takes(relay, document, line):
    if document == "CHANGELOG.md":
        pytest.skip("it also names what is gone")
    words = [FILLED.get(word, word) for word in line.split()]
    words = words[: words.index("--reason") + 1] + ["TEXT"] if "'" in line else words
    try:
        relay.parse(words)
    except relay.Refusal as problem:
        # A span may name a command without what it requires; what it does name must be right.
        assert "required" in problem.message, problem.message
        assert document != "SKILL.md", f"SKILL.md shows it whole or not at all: {problem.message}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_flag_in_the_documents_exists(relay, path):
    known = {each.name for command in relay.COMMANDS for each in command.arguments} | {
        "--help",
        "--version",
    }
    pieces = [piece for piece in code_in(path.read_text()) if re.match("--[a-z]", piece)]
    named = {re.split(r"[= ]", piece)[0] for piece in pieces}
    assert path.name == "CHANGELOG.md" or named <= known | {"--mirror", "--ignore-existing"}


def test_the_documents_are_read_at_all():
    assert len(COMMANDS) > 50 and ("SKILL.md", "next --wait 1500") in COMMANDS


@pytest.mark.parametrize(("path", "lines"), [(TOP[0], 150), (SKILL, 120), (TOP[1], 60)], ids=str)
def test_documents_stay_short(path, lines):
    assert len(path.read_text().split("\n")) - 1 <= lines


def test_the_skill_costs_at_most_1300_tokens_and_says_when_to_use_it():
    text = SKILL.read_text()
    head = dict(line.split(": ", 1) for line in text.split("---\n")[1].strip().split("\n"))
    assert len(text.encode()) / 4 <= 1300
    assert head.keys() == {"name", "description", "license"} and head["name"] == SKILL.parent.name
    assert len(head["description"].strip('"')) <= 300
    assert head["description"].strip('"').startswith("Use when")
    assert "${" not in text  # Codex substitutes nothing.


def test_the_skill_says_what_to_do_for_every_action(relay):
    rows = re.findall(r"(?m)^\| `(\w+)` \| \S", SKILL.read_text())
    assert sorted(rows) == sorted(relay.ACTION_CODES)


@pytest.mark.parametrize("path", [SKILL, PROTOCOL, ROOT / "docs/concepts.md"], ids=lambda p: p.name)
def test_the_documents_list_every_kind_severity_and_verb(relay, path):
    text = " ".join(path.read_text().split())
    words = {*relay.RULINGS, *relay.VERDICTS}
    assert {word for word in words if not re.search(rf"\b{word}\b", text)} == set()
    for listed in (relay.KINDS, relay.SEVERITIES, relay.ANSWERS):
        pattern = r"`?(?: \([^)]+\))?(?:,| or| and) `?".join(listed)
        assert re.search(rf"\b{pattern}\b(?!, \w+\b)", text), f"expected: {', '.join(listed)}"


def test_the_schema_of_statements_lists_the_severities(relay):
    schema = json.loads((ROOT / "docs/statement.schema.json").read_text())
    found = re.findall(r"'severity': {'enum': (\[[^]]+\])}", str(schema))
    assert found == [str([*relay.SEVERITIES])]


def test_the_exit_codes_in_the_readme_are_the_programs(relay):
    section = TOP[0].read_text().partition("## Exit codes\n")[2]
    listed = {int(code) for code in re.findall(r"`(\d+)` ", section)}
    names = "DONE REPORT REFUSED CHOOSE TIMED_OUT PEER_GONE PAIR_OVER ASK_USER BUG INTERRUPTED"
    assert listed == {getattr(relay, name) for name in names.split()}


def test_troubleshooting_lists_every_variable_that_relay_reads():
    text = (SKILL.parent / "references/troubleshooting.md").read_text()
    section = text.partition("## Settings in the environment\n")[2].partition("\n## ")[0]
    read = set(re.findall(r"\bRELAY_[A-Z_]*[A-Z]\b", SCRIPT.read_text()))
    assert set(re.findall(r"RELAY_[A-Z_]+", section)) == read - {
        "RELAY_SKIP"
    }  # The launcher's own.


def test_the_documents_list_exactly_the_problems_that_doctor_reports(relay):
    text = (SKILL.parent / "references/troubleshooting.md").read_text()
    assert set(re.findall(r"(?m)^\| `([a-z]+\.[a-z-]+)` \|", text)) == set(relay.TROUBLES)


def test_the_design_and_the_protocol_name_only_what_the_program_has():
    source = SCRIPT.read_text()
    for path, pattern in (
        (ROOT / "docs/design.md", r"[A-Za-z_.]{3,}"),
        (PROTOCOL, r"[a-z]+_[a-z_]+"),
    ):
        names = set(re.findall(rf"`({pattern})`", path.read_text()))
        elsewhere = {"site", "python3", "flock", "stop_hook_active"}  # Python's, a client's.
        assert {name for name in names - elsewhere if name not in source} == set(), path.name
        assert len(names) > 30, path.name


def test_links_between_documents_lead_somewhere():
    def anchors(path):
        heads = re.findall(r"(?m)^#+ (.+)$", path.read_text())
        return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}

    for path in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?:)([^)]+)", path.read_text()):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{path.name}: {link}"


def test_the_protocol_names_everything_on_disk(relay, stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.process("codex", "run", "--", "true")
    stage.ok("codex", "continue")
    text = PROTOCOL.read_text()
    logs = [*pair.glob(".seen/*"), *pair.glob(".sent/*")]
    rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    files = [
        *stage.shared.glob("_relay/bindings/*"),
        *pair.glob("*.json"),
        *pair.glob(".evidence/*.json"),
    ]
    files += stage.shared.glob("_relay/tree/*")
    rows += [json.loads(path.read_text()) for path in files]
    keys = {key for row in rows for key in row} | {*relay.FRONTMATTER_KEYS, *relay.Process._fields}
    keys |= {"numbering", "numbering_after", "upto", "missing", "pending"}
    assert {key for key in keys if f"`{key}`" not in text and f'"{key}"' not in text} == set()
    names = {
        re.sub(r"\d{3}-[a-z]+-[a-z]+", "NNN-author-kind", path.name) for path in pair.iterdir()
    }
    for name in (relay.SENTINEL, relay.BINDINGS, "_archive/", "CLOSED", *names):
        assert name in text, name
    for word in (*relay.KINDS, *relay.STATUSES):
        assert re.search(rf"\b{word}\b", text), word
    assert "999" in text and f"`schema_version` {relay.SESSION_SCHEMA}" in text


def test_the_example_in_the_protocol_is_a_sound_artifact(relay, stage):
    text = PROTOCOL.read_text()
    example = text[text.index("An example") :]
    blocks = [found[1] for found in re.findall(r"(?ms)^(`{3,})[^\n]*\n(.*?)^\1\n", example)]
    artifact, sidecar, sums, logs = blocks[:4]
    pair = stage.open_pair()
    for suffix, content in (
        (".md", artifact),
        (".json", sidecar),
        (".md.sha256", sums),
        (".ready", ""),
    ):
        (pair / f"002-codex-review{suffix}").write_text(content)
    assert "# Review of 001" in stage.ok("codex", "show", "2").out
    hashes = [hashlib.sha256(part.encode()).hexdigest() for part in (artifact, sidecar)]
    assert sums.split() == [hashes[0], "002-codex-review.md", hashes[1], "002-codex-review.json"]
    named = [json.loads(line)["name"] for line in logs.split("\n") if line]
    assert named == ["002-codex-review", "001-claude-plan"]


def transcripts():
    """The script that writes the transcripts, as a module."""
    loader = importlib.machinery.SourceFileLoader("transcripts", str(ROOT / "docs/transcripts.py"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("transcripts", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", transcripts().DOCUMENTS)
def test_the_transcripts_in_the_documents_are_what_the_program_prints(stage, name):
    module = transcripts()
    shell = module.Scene.run

    def run(scene, who, line):
        """In this process, like all commands of the tests."""
        words = shlex.split(line)
        if words[0] != "relay":
            return shell(scene, who, line)
        env = {**scene.env, **module.SESSIONS[who]}
        done = stage.run(None, *words[1:], cwd=scene.project, **env)
        return scene.steady(done.out + done.err)

    module.Scene.run = run
    before = (ROOT / name).read_text()
    assert module.rewritten(before) == before, "run docs/transcripts.py"
    assert "```console" in before


def test_every_test_that_a_document_names_is_there():
    pages = (ROOT / "SECURITY.md", *ROOT.glob("docs/*.md"), TOP[1])
    text = "".join(path.read_text() for path in pages)
    files = set(re.findall(r"`tests/(\w+\.py)`", text))
    assert len(files) > 10
    assert [name for name in files if not (ROOT / "tests" / name).exists()] == []
    source = "".join(path.read_text() for path in ROOT.glob("tests/**/*.py"))
    names = set(re.findall(r"`(test_\w+)`", text))
    assert [name for name in names if f"def {name}(" not in source] == []


def test_contributing_and_the_design_name_every_section_and_contributing_every_test_file(relay):
    contents = re.findall(r"(?m)^ ?\d+ (\w+(?: \w+)*)  ", relay.__doc__)
    for path in (TOP[1], ROOT / "docs/design.md"):
        rows = ", ".join(re.findall(r"(?m)^\| ([a-z, ]+) \| ", path.read_text()))
        assert [name for name in contents if not re.search(rf"\b{name}\b", rows)] == [], path.name
    listed = re.findall(r"`tests/(test_\w+\.py)`", TOP[1].read_text())
    assert sorted(listed) == sorted(path.name for path in ROOT.glob("tests/test_*.py"))


def test_the_plugin_and_the_project_have_the_programs_version(relay):
    """A client takes an update of a plugin by its version."""
    plugin = json.loads((ROOT / ".claude-plugin/plugin.json").read_text())
    project = re.search(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text())
    assert plugin["version"] == project[1] == relay.VERSION
