"""The documents tell the truth about the program: commands, flags, actions, codes, names on disk, transcripts."""

import hashlib
import json
import re
import shlex

import pytest
from conftest import ROOT

SKILL = ROOT / "skills/agent-relay/SKILL.md"
PROTOCOL = ROOT / "skills/agent-relay/references/file-protocol.md"
DOCUMENTS = sorted([ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
                   + [SKILL, *SKILL.parent.glob("references/*.md"), *ROOT.glob("docs/*.md")])  # fmt: skip
# What documents call by its first word alone.
GROUPS = {"relay sync", "relay hooks"}
FILLED = {"KIND": "note", "N": "1", "SEQ": "1", "SECONDS": "5", "STATUS": "ready", "AREA": "cli", "SEVERITY": "minor", "HOW": "none", "WORD": "approved", "VERDICT": "approve"}


def code_in(text):
    """The code of a document: each line of a block, each span in backticks; a prompt before it is dropped."""
    blocks = re.findall(r"(?ms)^ *```[^\n]*\n(.*?)^ *```", text)
    blocks += ["\n".join(re.findall(r"(?m)^    (.+)$", re.sub(r"(?ms)^ *```.*?^ *```", "", text)))]
    lines = [line for block in blocks for line in block.split("\n")]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^ *```.*?^ *```", "", text))
    return [re.sub(r"^(next: |\w*\$ )", "", piece.strip()) for piece in [*lines, *spans]]


def commands_in(text):
    """The words of every relay command in a document's code, without relay itself."""
    for piece in code_in(text):
        found = re.match(r"(?:\S*/)?relay ((?:[a-z]|-)\S*.*)$", piece.split("    #")[0].rstrip())
        if found and piece not in GROUPS and not found[1].startswith("2."):
            yield shlex.split(found[1])


COMMANDS = sorted({(path.name, " ".join(words)) for path in DOCUMENTS for words in commands_in(path.read_text())})


def flags_of(relay):
    return {flag.name for command in relay.ALL_COMMANDS for flag in command.flags} | {"--help", "--version"}


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_every_command_in_the_documents_is_one_the_program_takes(relay, document, line):
    words = [FILLED.get(word, word) for word in line.split()]
    words = words[: words.index("--reason") + 1] + ["TEXT"] if "'" in line else words
    try:
        relay.parsed(words)
    except relay.Refusal as problem:
        # A span may name a command without what it requires; what it does name must be right.
        assert "needs" in problem.sentence, problem.sentence
        assert document != "SKILL.md", f"SKILL.md shows it whole or not at all: {problem.sentence}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_flag_in_the_documents_exists(relay, path):
    named = {word.split("=")[0] for piece in code_in(path.read_text()) if re.match("--[a-z]", piece) for word in piece.split()[:1]}
    assert named <= flags_of(relay)


def test_the_documents_are_read_at_all():
    assert len(COMMANDS) > 50 and ("SKILL.md", "next --wait 1500") in COMMANDS


@pytest.mark.parametrize(("path", "lines"), [(ROOT / "README.md", 150), (SKILL, 120), (ROOT / "CONTRIBUTING.md", 59)], ids=lambda v: getattr(v, "name", v))
def test_documents_stay_short(path, lines):
    assert len(path.read_text().split("\n")) - 1 <= lines


def test_the_skill_costs_at_most_1300_tokens_and_says_when_to_use_it():
    text = SKILL.read_text()
    head = dict(line.split(": ", 1) for line in text.split("---\n")[1].strip().split("\n"))
    assert len(text.encode()) / 4 <= 1300
    assert head.keys() == {"name", "description", "license"} and head["name"] == SKILL.parent.name and head["license"] == "MIT"
    assert len(head["description"].strip('"')) <= 300 and head["description"].strip('"').startswith("Use when")
    assert "${" not in text  # Codex substitutes nothing


def test_the_skill_says_what_to_do_for_every_action(relay):
    rows = re.findall(r"(?m)^\| `(\w+)` \| \S", SKILL.read_text())
    assert sorted(rows) == sorted(relay.ACTION_CODES)


def test_the_wait_commands_of_the_skill_are_those_the_program_prints(relay):
    told = SKILL.read_text()
    for author in relay.HOSTS:
        who = relay.Identity(author, "test", "session", "test")
        assert f"`relay {relay.wait_command(who, {})}`" in told


def test_the_exit_codes_in_the_readme_are_the_programs(relay):
    section = (ROOT / "README.md").read_text().partition("## Exit codes\n")[2]
    told = {int(code) for code in re.findall(r"`(\d+)` ", section)}
    named = ("DONE", "REPORT", "REFUSED", "CHOOSE", "TIMED_OUT", "PEER_GONE", "PAIR_OVER", "ASK_USER", "A_BUG", "INTERRUPTED")
    assert told == {getattr(relay, name) for name in named}
    assert set(relay.ACTION_CODES.values()) <= told


def test_every_command_and_topic_has_its_help(relay, stage):
    overview = stage.ok(None, "help").out
    for command in relay.ALL_COMMANDS:
        if command.hidden:
            continue
        assert f"\n  {command.words} " in overview or f" {command.words}," in f"{overview.split('old names:')[1]},".replace("\n", ",")
        manual = stage.ok(None, "help", *command.words.split()).out
        assert f"relay {command.words}" in manual and command.summary.split(". ")[0][:40] in " ".join(manual.split())
        assert stage.ok(None, *command.words.split(), "--help").out == manual
        assert all(flag.name in manual and flag.help for flag in command.flags)
    for page in SKILL.parent.glob("references/*.md"):
        assert page.stem in overview
        assert stage.ok(None, "help", page.stem).out == page.read_text()


def test_links_between_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_protocol_names_everything_that_stands_on_disk(relay, stage):
    pair = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    stage.ok("codex", "run", "--", "true")
    stage.ok("codex", "continue")
    text = PROTOCOL.read_text()
    lines = [json.loads(line) for log in (*pair.glob(".seen/*"), *pair.glob(".sent/*")) for line in log.read_text().split("\n") if line]
    documents = [json.loads(path.read_text()) for path in (*stage.shared.glob("_relay/bindings/*"), *pair.glob("*.json"), *pair.glob(".evidence/*"), *stage.shared.glob("_relay/tree/*"))]
    keys = {key for document in (*lines, *documents) for key in document} | {*relay.FRONTMATTER_KEYS, *relay.Process.__slots__}
    keys |= {"numbering", "numbering_after", "upto", "missing", "pending", *relay.parse_closed(relay.closed_file("a", "b", "c", "d"))}
    assert {key for key in keys if f"`{key}`" not in text and f'"{key}"' not in text} == set()
    made = {re.sub(r"\d{3}-[a-z]+-[a-z]+", "NNN-author-kind", path.name) for path in pair.iterdir()}
    for name in (relay.SENTINEL, relay.BINDINGS, relay.CONFLICTS, f"{relay.ARCHIVE}/", "CLOSED", *made):
        assert name in text, name
    for word in (*relay.KINDS, *relay.STATUSES, relay.DRAFT):
        assert re.search(rf"\b{word}\b", text), word
    assert f"{relay.LAST_SEQ}" in text and f"`schema_version` {relay.SESSION_SCHEMA}" in text


def test_the_example_in_the_protocol_is_a_sound_artifact(relay, tmp_path):
    text = PROTOCOL.read_text()
    blocks = [found[1] for found in re.findall(r"(?ms)^(`{3,})[^\n]*\n(.*?)^\1\n", text[text.index("## An example") :])]
    artifact, sidecar, sums, logs = blocks[:4]
    for suffix, content in ((".md", artifact), (".json", sidecar), (".md.sha256", sums), (".ready", "")):
        (tmp_path / f"002-codex-review{suffix}").write_text(content)
    found = relay.artifact_at(relay.listing_of(str(tmp_path)), "002-codex-review")
    assert isinstance(found, relay.Artifact), found
    assert sums.split() == [found.sha256, f"{found.name.stem}.md", hashlib.sha256(sidecar.encode()).hexdigest(), f"{found.name.stem}.json"]
    assert [json.loads(line)["name"] for line in logs.split("\n") if line] == ["002-codex-review", "001-claude-plan"]


def plain(text):
    """A transcript without what differs from run to run: relay's path, the folder, times and fence tags."""
    text = re.sub(r"\S*/bin/relay|(?<=\$ )relay", "RELAY", text)
    text = re.sub(r"\S*/(?=\.shared/\d)", "", text)
    return re.sub(r"\d{8}(?=-refund)|\d+ s old|(?<=---- )\w{5}", "#", text)


def test_the_transcript_in_the_readme_is_what_the_program_prints(stage):
    readme = (ROOT / "README.md").read_text()
    told = [plain(block) for block in re.findall(r"(?s)```console\n(.*?)```", readme)]
    texts = {
        "claude": "# Plan\n\nLet refund() take the number of parts.\n\n## Next\nReview pay.py. Look at parts = 0.\n",
        "codex": re.findall(r"(?s)````markdown\n(.*?)````", readme)[0],
    }
    (stage.project / "pay.py").write_text("def refund(amount, parts):\n    return amount / parts\n")
    played = ""
    for author, line in re.findall(r"(?m)^(\w+)\$ RELAY (.*)$", "\n".join(told)):
        if "--file" in line:
            (stage.shared / f"_relay/{author}.md").write_text(texts[author])
        done = stage.run(author, *line.split())
        played += f"{author}$ RELAY {line}\n" + plain(done.out or done.err)
    assert played == "".join(told)


def test_every_test_that_a_document_names_is_there():
    named = {(path.name, name) for path in (ROOT / "SECURITY.md", *ROOT.glob("docs/*.md")) for name in re.findall(r"`tests/(\w+\.py)`", path.read_text())}
    assert len(named) > 15 and not [each for each in named if not (ROOT / "tests" / each[1]).exists()]
    source = "".join(path.read_text() for path in ROOT.glob("tests/**/*.py"))
    functions = {name for path in (ROOT / "SECURITY.md", *ROOT.glob("docs/*.md")) for name in re.findall(r"`(test_\w+)`", path.read_text())}
    assert functions and not [name for name in functions if f"def {name}(" not in source]
