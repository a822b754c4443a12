"""Bytes and values: what is written reads back as it was, to us and to 1.x, or is refused with its place."""

from __future__ import annotations

import json
import math
import pathlib
import random
import re
import subprocess
import sys

import pytest
import v1_ledgers as v1
import v1_reader

CORPUS = pathlib.Path(__file__).parent / "corpus"


def exact(value):
    """A form in which 1, 1.0 and True differ."""
    return repr(value)


# ---- the corpus


@pytest.mark.parametrize("path", sorted((CORPUS / "good").glob("*.md")), ids=lambda path: path.stem)
def test_a_good_artifact_is_read_as_1_x_reads_it(relay, path):
    content = path.read_bytes()
    meta, body = relay.parse_artifact(relay.utf8(content))
    assert exact(meta) == exact(json.loads(path.with_suffix(".json").read_text()))
    assert exact(v1_reader.frontmatter(content.decode())) == exact(meta)
    assert content.endswith(body.encode()) and content[: len(content) - len(body.encode())].endswith(b"\n---\n")


@pytest.mark.parametrize("path", sorted((CORPUS / "bad").glob("*.md")), ids=lambda path: path.stem)
def test_a_bad_artifact_is_refused_with_the_line_in_its_name(relay, path):
    with pytest.raises(relay.Malformed) as refused:
        relay.parse_artifact(relay.utf8(path.read_bytes()))
    line = re.match(r"line-(\d+)-", path.name)
    assert not line or re.search(rf"line {line[1]}\b", str(refused.value)), refused.value


@pytest.mark.parametrize("path", sorted((CORPUS / "bad").glob("*.md")), ids=lambda path: path.stem)
def test_a_bad_artifact_is_never_handed_over(stage, relay, path):
    folder = v1.ledger(stage.shared, "active")
    target = folder / "004-codex-note.md"
    v1.put(target, path.read_bytes())
    v1.put(f"{target}.sha256", f"{relay.sha256_of(path.read_bytes())}  {target.name}\n")
    v1.put(folder / "004-codex-note.ready", "")
    assert isinstance(relay.artifact_at(relay.listing_of(str(folder)), "004-codex-note"), relay.Fault)


# ---- frontmatter, by its functions

PIECES = (
    "a", "seq", "author", ": ", ":", "\n", "\n  ", "\n\n", "\n---\n", "---", "- ", "#", " #", " ", "  ", "\t", "'", '"', "\\", "\\n", "|", ">", "[]", "{}", "~",
    "null", "true", "False", "12", "-1", "1_000", "1e5", "nan", "infinity", "\uff11", "\u0661", "é", "日本", "👀", "\U0010ffff", "\ufeff", "\u3000", "\xa0",
    "\u200b", "\u202e", "\r", "\r\n", "\v", "\f", "\0", "\x1b", "\x1c", "\x1d", "\x1e", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\ud800", "\udcff",
    "status: closed", "@user:", "x" * 50,
)  # fmt: skip
MILD = [piece for piece in PIECES if piece.isprintable() or piece in ("\n", "\n\n", "\n  ", "\n---\n", "\u3000", "\xa0")]


def a_text(dice):
    return "".join(dice.choices(MILD if dice.random() < 0.8 else PIECES, k=dice.randrange(6)))


def a_value(dice):
    return dice.choice((
        lambda: a_text(dice), lambda: a_text(dice) + "\n", lambda: [a_text(dice) for _ in range(dice.randrange(4))],
        lambda: dice.choice((None, True, False, 0, -7, 10**30, 1.5, {}, b"x", "x" * 4096, "x" * 4097, "é" * 2049, [None, 12, True, "12"])),
    ))()  # fmt: skip


def test_random_frontmatter_reads_back_exactly_to_us_and_to_1_x_or_is_refused_by_key(relay):
    dice, kept, refused = random.Random(2), 0, 0
    for _ in range(6000):
        meta = {key: a_value(dice) for key in dice.sample((*relay.FRONTMATTER_KEYS, "later"), dice.randrange(1, 4))}
        body = "".join(dice.choices([p for p in PIECES if not "\ud800" <= p <= "\udfff"], k=4))
        try:
            text = relay.frontmatter(meta) + body
        except relay.Malformed as problem:
            assert any(key in str(problem) for key in meta), (meta, problem)
            refused += 1
            continue
        read = relay.parse_artifact(relay.utf8(text.encode()))
        assert (sorted(read[0]), read[1]) == (sorted(meta), body)
        assert all(exact(read[0][key]) == exact(meta[key]) for key in meta), meta
        assert exact(v1_reader.frontmatter(text)) == exact(read[0]), meta
        kept += 1
    assert kept > 2000 and refused > 1000


def test_a_random_prompt_is_kept_line_for_line_or_refused_with_its_line(relay):
    dice, kept, refused = random.Random(3), 0, 0
    for _ in range(6000):
        given = a_text(dice) + a_text(dice)
        try:
            prompt = relay.as_prompt(given)
            text = relay.frontmatter({"prompt_for_next": prompt, "status": "ready"}) if prompt else ""
        except relay.Malformed as problem:
            assert "line" in str(problem), (given, problem)
            refused += 1
            continue
        assert [line for line in prompt.split("\n") if line] == [line for line in given.split("\n") if line.strip(" \t")]
        if prompt:
            assert v1_reader.frontmatter(text) == {"prompt_for_next": prompt, "status": "ready"}, given
            assert relay.as_prompt(prompt) == prompt
            kept += 1
    assert kept > 1500 and refused > 1000


def test_whatever_text_we_accept_1_x_reads_alike(relay):
    """Random frontmatter, well formed or not: what is not refused means the same to both readers."""
    lines = ("seq: 1", "author: codex", "status: closed", "a: |", "b:", "c: []", "  - x", "  - 'y'", "  deep", "    deeper", " half", "", "  ", "\u3000", "x",
             "d: 'q'", "e: \"q\"", "f: 1_0", "g: ~", "h:  two ", "i:j", "  - k: v", "  \u3000wide", "\tt", "- z", "a: x", "  status: failed", "l: ''")  # fmt: skip
    dice, kept = random.Random(4), 0
    for _ in range(12000):
        text = "---\n" + "".join(f"{line}\n" for line in dice.choices(lines, k=dice.randrange(1, 6))) + "---\nbody\n"
        try:
            meta, body = relay.parse_artifact(text)
        except relay.Malformed as problem:
            assert "line" in str(problem)
            continue
        assert exact(v1_reader.frontmatter(text)) == exact(meta), text
        assert body == "body\n"
        kept += 1
    assert kept > 1000


@pytest.mark.parametrize("c", ["\u3000", "\xa0", "\u2003", "\u1680", "\u202f", "\u205f"])
def test_a_prompt_that_begins_with_a_wide_blank_forges_no_key(relay, c):
    """1.x takes any blank for the block's indent, so the next line would be less indented: a key."""
    try:
        text = relay.frontmatter({"status": "ready", "prompt_for_next": relay.as_prompt(f"{c}look\nauthor: claude\n")})
    except relay.Malformed:
        return
    assert v1_reader.frontmatter(text) == relay.parse_artifact(text)[0]


@pytest.mark.parametrize("value", [
    "null", "~", "true", "false", "12", "-3", "1.5", "1_000", "nan", "infinity", "1e5", "\uff11\uff12", "\u0663", "", " x", "x ", "\u3000x", "|", "[]", "- x", "'x'",
    '"x"', "'", '"', "it's", 'say "x"', "a: b", "a:", ":", "a #b", "# a", "&a", "*a", "{a: b}", "!x", "C:\\x", "\\", "---", "é👀\U0010fffd", "x" * 4096, "a\tb", "\ttab",
])  # fmt: skip
def test_a_string_stays_a_string_in_a_value_and_in_a_list(relay, value):
    meta = {"title": value, "touched_paths": [value, "z"]}
    text = relay.frontmatter(meta)
    assert relay.parse_artifact(text)[0] == meta == v1_reader.frontmatter(text)


@pytest.mark.parametrize("value", [
    "a\rb", "a\vb", "a\fb", "a\x1cb", "a\x1db", "a\x1eb", "a\x85b", "a\u2028b", "a\u2029b", "a\0b", "a\x1bb", "a\x7fb", "a\x9bb", "a\ud800b", "x" * 4097, "é" * 2049,
    "'\"", "' \"", 1.5, {}, b"x", object(), " a\nb\n", "a\n\n", "a\n \nb\n", "\n", "a\nb",
])  # fmt: skip
def test_a_value_without_a_form_is_refused_by_key(relay, value):
    with pytest.raises(relay.Malformed, match="title"):
        relay.frontmatter({"seq": 1, "title": value})


@pytest.mark.parametrize("item", ["a\nauthor: claude", "a\nb", "\n", "a\r- b", "a\u2028b", "x" * 4097, ["nested"], {"a": 1}])
def test_a_list_item_holds_one_line(relay, item):
    with pytest.raises(relay.Malformed, match="touched_paths"):
        relay.frontmatter({"touched_paths": ["fine", item]})


@pytest.mark.parametrize("key", ["", "a b", "a:", "A", "a\nb", "é", "---", " a", "a-b"])
def test_a_key_is_lower_case_letters(relay, key):
    with pytest.raises(relay.Malformed):
        relay.frontmatter({key: "x"})


def test_keys_stand_in_the_order_of_1_x_and_ours_behind(relay):
    meta = {key: None for key in ("later", "sidecar_sha256", *reversed(v1.KEYS))}
    assert [line.split(":")[0] for line in relay.frontmatter(meta).split("\n")[1:-2]] == [*v1.KEYS, "sidecar_sha256", "later"]


def test_a_megabyte_of_prompt_and_body_is_kept(relay):
    prompt = "".join(f"line {n}: 'é' \"👀\"\n" + ("\n" if n % 7 == 0 else "") for n in range(50_000))
    assert len(prompt.encode()) > 1 << 20
    text = relay.frontmatter({"prompt_for_next": relay.as_prompt(prompt)}) + prompt
    assert relay.parse_artifact(text) == ({"prompt_for_next": prompt}, prompt)
    assert v1_reader.frontmatter(text) == {"prompt_for_next": prompt}


# ---- frontmatter, by the command line

BAD_IN_PROMPT = ("\r", "\v", "\f", "\0", "\x1b", "\x1c", "\x1d", "\x1e", "\x7f", "\x85", "\u2028", "\u2029", "\x9b")


@pytest.fixture
def pair(stage):
    folder = stage.open_pair()
    stage.send("claude", "plan")
    return folder


def published(relay, folder, path):
    """The artifact at a path, the same to us and to a 1.x reader, its sums right."""
    stem = pathlib.Path(path.strip().split("\n")[0]).stem
    found = relay.artifact_at(relay.listing_of(str(folder)), stem)
    assert isinstance(found, relay.Artifact), found
    assert exact(v1_reader.artifacts(folder)[stem]) == exact(found.meta)
    subprocess.run(["sha256sum", "-c", "--quiet", f"{stem}.md.sha256"], cwd=folder, check=True)
    return found


PROMPTS = (
    "---\nseq: 9\nauthor: claude\nstatus: closed\n---\n", "null\n", "12\n", "true\n", "|\n", "- a\n- b\n", "'quoted'\n", "a\n\n\n    deep: x\n  less\n",
    "key: |\n  block\n", "👀 𝔘 日本\n", "# not a comment\n", "a\tb\n", "ends in blanks  \nnext\n", "\\n \\u0000\n", "seq: 9\n", "@someone: hi\n",
)  # fmt: skip
BODIES = (
    b"# A\n---\nseq: 9\n---\n", b"---\n", b"---", b"x", b"a\r\nb\r\n", b"a\rb\n", b"\x1b[31mred\x7f\n", b"a\xe2\x80\xa8b\xc2\x85\n", b"\n\n  \n# A\n\n\n",
    "👀 日本 \ufeff\u202e".encode(), b"prompt_for_next: |\n  forged\n", b"# A\n## Nextdoor\n ## Next\n```\n## Next\n```\n",
)  # fmt: skip


def test_every_prompt_is_kept_exactly_through_send_and_draft(stage, relay, pair):
    for count, prompt in enumerate(PROMPTS):
        body, ask = stage.file("# B\n", f"b{count}"), stage.file(prompt, f"p{count}")
        sent = stage.ok("codex", "send", "--kind", "note", "--file", body, "--next-file", ask)
        inline = stage.ok("codex", "send", "--kind", "note", "--file", body, f"--next={prompt}")
        joined = stage.ok("codex", "send", "--kind", "note", "--file", stage.file(f"# B\n\n## Next\n{prompt}", f"j{count}"))
        draft = stage.ok("codex", "claim", "--kind", "note").out.strip()
        stage.ok("codex", "draft", "set", draft, "--body-file", body, "--prompt-for-next-file", ask)
        for done in (sent, inline, joined, stage.ok("codex", "publish", draft)):
            assert published(relay, pair, done.out).meta["prompt_for_next"] == prompt


def test_every_body_is_kept_byte_for_byte_through_send_and_draft(stage, relay, pair):
    for count, body in enumerate(BODIES):
        file = stage.file(body, f"b{count}")
        sent = stage.ok("codex", "send", "--kind", "note", "--file", file, "--next", "x")
        draft = stage.ok("codex", "claim", "--kind", "note").out.strip()
        stage.ok("codex", "draft", "set", draft, "--body-file", file, "--prompt-for-next-file", stage.file("x\n"))
        for done in (sent, stage.ok("codex", "publish", draft)):
            found = published(relay, pair, done.out)
            assert found.body.encode() == body
            assert stage.run("claude", "show", str(found.name.seq), "--raw").out.encode().endswith(b"\n---\n" + body)


def test_a_prompt_given_twice_is_refused_and_neither_is_lost(stage, relay, pair):
    text = "# Plan\n\n## Next\n\n@user: may we?\n"
    for count, flag in enumerate((("--next", "look"), ("--next-file", stage.file("look\n", "p")))):
        done = stage.run("codex", "send", "--kind", "note", "--file", stage.file(text, f"b{count}"), *flag)
        assert done.code == 2 and "## Next" in done.err and flag[0] in done.err


@pytest.mark.slow
def test_a_megabyte_goes_through_send(stage, relay, pair):
    text = "0123456789abcde\n" * 70_000
    done = stage.ok("codex", "send", "--kind", "note", "--file", stage.file(text, "b"), "--next-file", stage.file(text, "p"))
    found = published(relay, pair, done.out)
    assert (found.body, found.meta["prompt_for_next"]) == (text, text)


def refused_with(stage, *words, line="", **more):
    """The refusal of a command that must write nothing."""
    before = v1.snapshot(stage.folder)
    done = stage.run("codex", *words, **more)
    assert done.code == 2 and line in done.err and "Traceback" not in done.err, done
    assert v1.snapshot(stage.folder) == before, words
    return done


@pytest.mark.parametrize("c", BAD_IN_PROMPT, ids=lambda c: f"U+{ord(c):04X}")
def test_a_prompt_that_could_end_a_line_is_refused_with_its_line(stage, pair, c):
    prompt = f"fine\nmore\nab{c}status: closed\nlast\n"
    body, ask, both = stage.file("# B\n", "b"), stage.file(prompt, "p"), stage.file(f"# B\n\n## Next\n{prompt}", "j")
    draft = stage.ok("codex", "claim", "--kind", "note").out.strip()
    refused_with(stage, "send", "--kind", "note", "--file", body, "--next-file", ask, line="line 3")
    refused_with(stage, "draft", "set", draft, "--prompt-for-next-file", ask, line="line 3")
    refused_with(stage, "send", "--kind", "note", "--file", both, line="line")
    if c != "\0":
        refused_with(stage, "send", "--kind", "note", "--file", body, "--next", prompt, line="line 3")


@pytest.mark.parametrize("content, line", [
    (b"\xef\xbb\xbf# B\n", "line 1"), (b"# B\n\ncaf\xe9\n", "line 3"), (b"# B\n\0\n", "line 2"), (b"# B\n\n\xed\xa0\x80\n", "line 3"), (b"\xff\xfe#\0", "line 1"),
])  # fmt: skip
def test_a_file_that_is_no_plain_utf_8_is_refused_with_its_line(stage, pair, content, line):
    bad, fine = stage.file(content, "bad"), stage.file("x\n", "fine")
    draft = stage.ok("codex", "claim", "--kind", "note").out.strip()
    refused_with(stage, "send", "--kind", "note", "--file", bad, "--next", "x", line=line)
    refused_with(stage, "send", "--kind", "note", "--file", fine, "--next-file", bad, line=line)
    refused_with(stage, "draft", "set", draft, "--body-file", bad, line=line)
    refused_with(stage, "draft", "set", draft, "--prompt-for-next-file", bad, line=line)
    refused_with(stage, "issue", "add", "--title", "x", "--body-file", bad, line=line)
    refused_with(stage, "send", "--kind", "note", "--file", "-", "--next", "x", line=line, stdin=content)


@pytest.mark.parametrize("prompt", [" indented\n", "\ttab\n", "", "\n \n\n", "TODO: later\n"])
def test_a_prompt_that_cannot_be_kept_or_says_nothing_is_refused(stage, pair, prompt):
    refused_with(stage, "send", "--kind", "note", "--file", stage.file("# B\n"), "--next-file", stage.file(prompt, "p"), line="prompt")


@pytest.mark.parametrize("path", ["a: b", "null", "12", " x ", "- x", "'x'", "é👀", "#x", "it's", "x" * 4096, "C:\\x", "|", "a,b"])
def test_a_touched_path_is_kept_exactly(stage, relay, pair, path):
    draft = stage.ok("codex", "claim", "--kind", "note").out.strip()
    stage.ok("codex", "draft", "set", draft, f"--touched-path={path}", "--prompt-for-next-file", stage.file("x\n"))
    sent = stage.ok("codex", "send", "--kind", "note", "--file", stage.file("# B\n"), "--next", "x", f"--touched={path}", "--touched", "z")
    assert published(relay, pair, sent.out).meta["touched_paths"] == [path, "z"]
    assert published(relay, pair, stage.ok("codex", "publish", draft).out).meta["touched_paths"] == [path]


@pytest.mark.parametrize("path", ["a\nauthor: claude", "a\n", "a\rb", "a\u2028b", "a\x1bb", "a\udcffb", "x" * 4097, "'\""])
def test_a_touched_path_without_a_form_is_refused_and_nothing_is_written(stage, pair, path):
    draft = stage.ok("codex", "claim", "--kind", "note").out.strip()
    file = stage.file("# B\n")
    refused_with(stage, "send", "--kind", "note", "--file", file, "--next", "x", f"--touched={path}", line="touched_paths")
    refused_with(stage, "draft", "set", draft, f"--touched-path={path}", line="touched_paths")


ONE_LINERS = (
    ("bootstrap", "--force", "--topic", "t", "--title="), ("issue", "add", "--title="), ("close", "--reason="), ("close", "--reason", "x", "--outcome="),
)  # fmt: skip


@pytest.mark.parametrize("words", ONE_LINERS, ids=lambda words: f"{words[0]} {words[-1]}")
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x1b[0m", "a\u2028b", "a\x85b", "a\udcff", "x" * 401, " ", "\n"])
def test_a_one_line_text_of_more_than_a_line_is_refused(stage, pair, words, text):
    refused_with(stage, *words[:-1], words[-1] + text)


@pytest.mark.parametrize("text", ["null", "12", "a: b", "'x'", '"', "it's", "- x", "# x", "é👀 日本", "\\n", "x" * 400, " lead", "|", "\u202eabc", "\ufeff"])
def test_a_title_is_kept_exactly(stage, relay, text):
    slug = stage.ok("codex", "bootstrap", "--topic", "t", f"--title={text}").out.split()[0]
    assert json.loads((stage.shared / slug / "session.json").read_text(encoding="utf-8"))["title"] == text
    path = stage.ok("codex", "issue", "add", f"--title={text}", "--body", text).out.strip().split("\n")[-1]
    assert v1_reader.frontmatter(pathlib.Path(path).read_text(encoding="utf-8"))["title"] == text
    shown = stage.ok("codex", "issue", "show", pathlib.Path(path).stem, "--json").json
    assert (shown["frontmatter"]["title"], shown["body"].strip("\n")) == (text, text)
    stage.ok("codex", "close", f"--reason={text}", f"--outcome={text}", "--no-archive")
    assert relay.parse_closed((stage.shared / slug / "CLOSED").read_bytes())["reason"] == text


def test_an_issue_of_a_megabyte_can_be_shown_and_resolved(stage):
    text = "0123456789abcde\n" * 70_000
    path = stage.ok("codex", "issue", "add", "--title", "long", "--body-file", stage.file(text)).out.strip().split("\n")[-1]
    assert stage.ok("codex", "issue", "list", "--json").json["unreadable"] == []
    assert stage.ok("codex", "issue", "show", pathlib.Path(path).stem, "--json").json["body"].strip("\n") == text.strip("\n")
    stage.ok("codex", "issue", "resolve", pathlib.Path(path).stem)


def test_an_issue_text_that_is_no_utf_8_is_refused(stage):
    refused_with(stage, "issue", "add", "--title", "x", "--body", "caf\udce9")


@pytest.mark.parametrize("old, new, told", [
    ("author: codex", "author: claude", "author"), ("seq: 2", "seq: 3", "seq"), ("kind: note", "kind: plan", "kind"), ("peer: claude", "peer: codex", "peer"),
    ("peer: claude", "peer: claude\npeer: claude", "line 5"), ("sync_needed: false", "sync_needed: 0", "sync_needed"), ("kind: note", "kind note", "line 5"),
    ("touched_paths: []", "touched_paths:\n  - 12", "touched_paths"), ("in_reply_to: 1", "in_reply_to: 2", "in_reply_to"), ("seq: 2", "seq: 2.0", "seq"),
    ("in_reply_to: 1", "in_reply_to: true", "in_reply_to"), ("corrects: null", "corrects: 1", "corrects"), ("peer: claude", "peer: cla\rude", "line 4"),
])  # fmt: skip
def test_a_draft_spoiled_by_hand_is_refused_with_the_key_or_line(stage, pair, old, new, told):
    path = pathlib.Path(stage.ok("codex", "claim", "--kind", "note").out.strip())
    stage.ok("codex", "draft", "set", path, "--prompt-for-next-file", stage.file("x\n"))
    text = path.read_text()
    assert text.count(f"\n{old}\n") == 1
    path.write_text(text.replace(f"\n{old}\n", f"\n{new}\n"), newline="")
    refused_with(stage, "publish", path, line=told)


def test_a_true_for_the_first_number_is_refused(stage):
    stage.open_pair()
    path = pathlib.Path(stage.ok("claude", "claim", "--kind", "plan").out.strip())
    stage.ok("claude", "draft", "set", path, "--prompt-for-next-file", stage.file("x\n"))
    path.write_text(path.read_text().replace("seq: 1\n", "seq: true\n"))
    assert stage.run("claude", "publish", path).code == 2


@pytest.mark.parametrize("head", ["status: closed\nforce_reason: 12\n", "worktree_root: /x\nlater_key: 1_0\n"])
def test_what_a_draft_holds_beside_is_published_the_same_to_both_readers(stage, relay, pair, head):
    path = pathlib.Path(stage.ok("codex", "claim", "--kind", "note").out.strip())
    stage.ok("codex", "draft", "set", path, "--prompt-for-next-file", stage.file("x\n"))
    path.write_text(path.read_text().replace("status: draft\n", head if "status" in head else "status: draft\n" + head))
    assert published(relay, pair, stage.ok("codex", "publish", path).out).meta["status"] == "ready"


@pytest.mark.slow
def test_random_texts_through_send_are_kept_or_refused_and_forge_nothing(stage, relay, pair):
    dice, sent, refused = random.Random(5), 0, 0
    for count in range(400):
        body, prompt, path = (a_text(dice) + a_text(dice) for _ in range(3))
        before = v1.snapshot(pair)
        words = ("--next-file", stage.file(prompt.encode("utf-8", "surrogatepass"), "p"), f"--touched={path}")
        raw = body.encode("utf-8", "surrogatepass")
        done = stage.run("codex", "send", "--kind", "note", "--file", stage.file(raw, f"b{count}"), *words)
        if done.code:
            assert done.code == 2 and v1.snapshot(pair) == before, done
            refused += 1
            continue
        found = published(relay, pair, done.out)
        assert found.body.encode() == raw and found.meta["touched_paths"] == [path] and found.meta["author"] == "codex"
        sent += 1
    assert sent > 40 and refused > 40


# ---- JSON

GOOD_JSON = ("1", " 1 ", "[]", "{}", '"\\ud800"', '"\\u0000"', "-0", "-0.0", "1e5", "1E400", "[1,\n2]", '{"a": {"a": 1}}', "null", '"é👀"', "12345678901234567890", '"\u2028"', '"\x7f"')
BAD_JSON = (
    "", " ", "[1,]", "{,}", "NaN", "[Infinity]", "-Infinity", "{} x", "1 2", '{"a":1,"a":2}', '{"b":{"a":1,"a":1}}', "'a'", '"\n"', '"\x00"', '"\t"', "[", '"', "tru", "\ufeff1",
    "01", "1.", "[1 2]", "\x0b1", "\xa01", "{1:2}", "[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, "9" * 5000, '"\\x"', '"\\u12"', "//", "+1", ".5",
)  # fmt: skip


@pytest.fixture(params=["with the C scanner", "without"])
def scanner(request, monkeypatch):
    if request.param == "without":
        for name in [name for name in sys.modules if name == "json" or name.startswith("json.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "_json", None)


@pytest.mark.parametrize("text", GOOD_JSON)
def test_json_is_read_as_the_library_reads_it(relay, scanner, text):
    assert exact(relay.json_value(text.encode())) == exact(json.loads(text))


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: repr(text[:12]))
def test_json_that_two_readers_could_take_differently_is_malformed(relay, scanner, text):
    if text == "9" * 5000 and not hasattr(sys, "get_int_max_str_digits"):
        pytest.skip("numbers of any length are read here")
    with pytest.raises(relay.Malformed):
        relay.json_value(text.encode())


def test_json_that_is_no_utf_8_is_malformed_with_its_line(relay, scanner):
    with pytest.raises(relay.Malformed, match="line 2"):
        relay.json_value(b'[1,\n"\xff"]')


IN_JSON = [piece for piece in PIECES if piece != "\udcff"]  # behind a \ud800 the two would become one character


def a_document(dice, depth=0):
    leaf = (lambda: dice.choice((None, True, False, 0, -1, 2**70, 1.5, -0.0, 1e300)), lambda: "".join(dice.choices(IN_JSON, k=3)))
    nest = (lambda: [a_document(dice, depth + 1) for _ in range(dice.randrange(4))],
            lambda: {"".join(dice.choices(IN_JSON, k=2)): a_document(dice, depth + 1) for _ in range(dice.randrange(4))})  # fmt: skip
    return dice.choice(leaf if depth > 3 else (*leaf, *nest, *nest))()


def test_random_json_reads_back_from_both_of_our_writers(relay, scanner):
    dice = random.Random(6)
    for _ in range(1500):
        value = a_document(dice)
        document = {"value": value}
        assert exact(relay.json_value(json.dumps(value).encode())) == exact(value)
        assert exact(relay.json_value(relay.json_document(document))) == exact(document) == exact(json.loads(relay.json_document(document)))
        line = relay.json_line(document)
        assert exact(relay.json_value(line)) == exact(document) and line.count(b"\n") == 1 and line.isascii()


def test_random_spoiled_json_is_refused_or_read_as_the_library_reads_it(relay):
    dice, kept = random.Random(7), 0
    for _ in range(4000):
        text = list(json.dumps(a_document(dice), indent=dice.choice((None, 1))))
        for _ in range(dice.randrange(3)):
            text[dice.randrange(len(text))] = dice.choice('{}[],:"\\0 1eEnNt\n\t')
        text = "".join(text)
        try:
            value = relay.json_value(text.encode())
        except relay.Malformed:
            continue
        assert exact(value) == exact(json.loads(text))
        kept += 1
    assert kept > 500


def test_an_object_is_asked_for_by_name(relay):
    assert relay.json_object(b'{"a": 1}') == {"a": 1}
    for content in (b"[]", b"null", b"1"):
        with pytest.raises(relay.Malformed):
            relay.json_object(content)


# ---- names, times, sums


@pytest.mark.parametrize("stem, parts", [
    ("001-codex-plan", (1, "codex", "plan")), ("999-my-own-agent-review", (999, "my-own-agent", "review")), ("010-a-note", (10, "a", "note")), ("012-7-fix", (12, "7", "fix")),
    ("000-codex-plan", None), ("1-codex-plan", None), ("0001-codex-plan", None), ("001-codex-plans", None), ("001-Codex-plan", None), ("001--plan", None), ("001-plan", None),
    ("001_codex-plan", None), ("\u0661\u0661\u0661-codex-plan", None), ("001-co dex-plan", None), ("001--codex-plan", None), ("", None), ("-", None), ("001", None),
    ("001-codex-plan\n", None), ("001-../x-plan", None), (" 01-codex-plan", None), ("+01-codex-plan", None), ("001-" + "a" * 33 + "-plan", None), ("001-codéx-plan", None),
])  # fmt: skip
def test_a_stem_is_read_by_its_parts_or_not_at_all(relay, stem, parts):
    name = relay.name_of(stem)
    assert name == (relay.Name(*parts) if parts else None)
    assert not name or name.stem == stem


@pytest.mark.parametrize("text, topic, slug, author", [
    ("a", 1, 1, 1), ("a-b-1", 1, 1, 1), ("1", 1, 1, 1), ("a" * 32, 1, 1, 1), ("a" * 48, 1, 1, 0), ("a" * 49, 0, 1, 0), ("a" * 80, 0, 1, 0), ("a" * 81, 0, 0, 0),
    ("A", 0, 1, 0), ("a_b", 0, 1, 0), ("a.b", 0, 1, 0), ("", 0, 0, 0), ("-a", 0, 0, 0), (".a", 0, 0, 0), ("..", 0, 0, 0), ("_a", 0, 0, 0), ("a/b", 0, 0, 0), ("a b", 0, 0, 0),
    ("a\n", 0, 0, 0), ("é", 0, 0, 0), ("\u212a", 0, 0, 0), ("a\0", 0, 0, 0), ("\u0131", 0, 0, 0), ("\uff41", 0, 0, 0),
])  # fmt: skip
def test_a_word_is_a_topic_a_slug_an_author_or_none(relay, text, topic, slug, author):
    assert (relay.is_topic(text), relay.is_slug(text), relay.is_author(text)) == (bool(topic), bool(slug), bool(author))


@pytest.mark.parametrize("zone, shown", [("UTC", "+00:00"), ("XYZ-5:45", "+05:45"), ("XYZ+3:30", "-03:30"), ("Pacific/Kiritimati", None)])
def test_a_time_reads_back_to_the_second_in_every_zone(relay, monkeypatch, zone, shown):
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for at in (0, 1, 951_782_400, 1_700_000_000.9, 4_102_444_800):
            text = relay.iso(at)
            assert relay.epoch(text) == math.floor(at) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", text)
            assert shown is None or text.endswith(shown)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", [None, "", "soon", 12, "2024-13-01T00:00:00+00:00", "2024-05-01T25:00:00+00:00", "\0", [], "9" * 999, "0001-01-01T00:00:00", "９９９９-01-01"])
def test_what_is_no_time_is_none_and_no_crash(relay, text):
    found = relay.epoch(text)
    assert found is None or isinstance(found, float)


def test_a_time_with_z_is_one(relay):
    assert relay.epoch("2024-05-01T10:00:00Z") == relay.epoch("2024-05-01T12:00:00+02:00")


SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize("content, word", [
    (f"{SHA}  001-codex-plan.md\n", SHA), (f"{SHA}\n", SHA), (SHA, SHA), (f"{SHA}  a\n{'f' * 64}  b\n", SHA), (f"\n {SHA} *x", SHA), (f"{SHA.upper()}  x", SHA),
    ("", None), (" \n", None), (SHA[:-1], None), (SHA + "0", None), (f"\\{SHA}  x", None), (f"\ufeff{SHA}", None), (SHA[:-1] + "g", None), (SHA[:-1] + "\u0661", None),
])  # fmt: skip
def test_the_first_word_of_a_sum_is_a_sha256_or_malformed(relay, content, word):
    if word:
        assert relay.first_word(content.encode()) == word
    else:
        with pytest.raises(relay.Malformed):
            relay.first_word(content.encode())


def test_a_sum_file_passes_sha256sum_and_names_the_artifact_first(relay, tmp_path):
    for name in ("b.md", "a.json"):
        (tmp_path / name).write_text(name)
    content = relay.sha256_file([(relay.sha256_of(name.encode()), name) for name in ("b.md", "a.json")])
    (tmp_path / "sums").write_bytes(content)
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "sums"], cwd=tmp_path, check=True)
    assert relay.first_word(content) == relay.sha256_of(b"b.md")


@pytest.mark.parametrize("text", ["done", "", 'say "x"', "C:\\new\\tab", "é👀 日本", "a = b", "# x", "a\tb", "'''", "\ufeff", "[x]"])
def test_closed_is_toml_of_four_lines_that_reads_back(relay, text):
    content = relay.closed_file(text, text, "claude", v1.AT)
    told = {"reason": text, "outcome": text, "closed_by": "claude", "closed_at": v1.AT}
    assert relay.parse_closed(content) == told and content.count(b"\n") == 4
    if sys.version_info >= (3, 11):
        import tomllib

        assert tomllib.loads(content.decode()) == told


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"reason\n", b"reason = \n", b'reason = "a', b"= x", b"\0", b"reason = 'x'\n", b"reason = [1"])
def test_a_strange_closed_never_breaks_a_reader(relay, content):
    assert all(isinstance(value, str) for value in relay.parse_closed(content).values())


# ---- text for people


@pytest.mark.parametrize("text, shown", [
    ("plain\n\ttext é 日本 👀", "plain\n\ttext é 日本 👀"), ("\x1b[31m", "\\x1b[31m"), ("a\rb", "a\\rb"), ("\x9b31m", "\\x9b31m"), ("\x07\x08\x00\x7f", "\\x07\\x08\\x00\\x7f"),
    ("\u202eevil\u202c", "\\u202eevil\\u202c"), ("\u2066x\u2069", "\\u2066x\\u2069"), ("\u200b\u200d\u2060\ufeff", "\\u200b\\u200d\\u2060\\ufeff"), ("\u061c", "\\u061c"),
    ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"), ("\xad", "\\xad"), ("\U000e0041", "\\U000e0041"), ("\ud800", "\\ud800"), ("\u180e", "\\u180e"), ("a\u3000b", "a\u3000b"),
])  # fmt: skip
def test_text_that_could_drive_a_terminal_is_shown_as_escapes(relay, text, shown):
    assert relay.visible(text) == shown
    assert relay.visible(relay.visible(text)) == shown


def test_no_character_at_all_gets_past_visible_that_hides_or_moves(relay):
    import unicodedata

    shown = {chr(n) for n in (*range(0x20000), *range(0xE0000, 0xE1000)) if relay.visible(chr(n)) == chr(n)}
    assert {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"} <= {"Cc"}
    assert {c for c in shown if unicodedata.category(c) == "Cc"} == {"\n", "\t"}


def test_one_line_is_one_and_no_longer_than_it_may_be(relay):
    assert relay.one_line("a\nb\tc\x1b") == "a b c\\x1b"
    assert relay.one_line("x" * 500) == "x" * 117 + "..." and relay.one_line(None) == "None"


# ---- one file that holds body and prompt


@pytest.mark.parametrize("text, body, prompt", [
    ("# A\n\n## Next\ndo it\n", "# A\n\n", "do it\n"),
    ("# A\n## Next", "# A\n", ""),
    ("# A\n## Next  \nx", "# A\n", "x"),
    ("# A\n", "# A\n", None),
    ("", "", None),
    ("## Next\nx\n", "", "x\n"),
    ("# A\n## Next\none\n## Next\ntwo\n", "# A\n## Next\none\n", "two\n"),
    ("```\n## Next\n```\n", "```\n## Next\n```\n", None),
    ("```\n## Next\n```\n## Next\nx\n", "```\n## Next\n```\n", "x\n"),
    ("~~~\n```\n## Next\n~~~\n## Next\nx\n", "~~~\n```\n## Next\n~~~\n", "x\n"),
    ("````md\n```\n## Next\n```\n## Next\n````\n## Next\nx\n", "````md\n```\n## Next\n```\n## Next\n````\n", "x\n"),
    ("~~~ `a`\n## Next\n~~~\n", "~~~ `a`\n## Next\n~~~\n", None),
    ("```\n~~~\n## Next\n", "```\n~~~\n## Next\n", None),
    ("```py\n``` not a close\n## Next\n```\n", "```py\n``` not a close\n## Next\n```\n", None),
    ("```\nx\n`````\n## Next\ny\n", "```\nx\n`````\n", "y\n"),
    ("# A\n## Next\nx\n```\n## Next\n```\n", "# A\n", "x\n```\n## Next\n```\n"),
    ("# A\r\n## Next\r\nx\r\n", "# A\r\n", "x\r\n"),
    ("# A\n ## Next\n### Next\n## Nextdoor\n##Next\n> ## Next\n## next\n", "# A\n ## Next\n### Next\n## Nextdoor\n##Next\n> ## Next\n## next\n", None),
    ("``inline``\n## Next\nx\n", "``inline``\n", "x\n"),
    ("```inline```\n## Next\nx\n", "```inline```\n", "x\n"),
])  # fmt: skip
def test_the_last_next_heading_outside_a_fence_begins_the_prompt(relay, text, body, prompt):
    assert relay.split_next(text) == (body, prompt)


# ---- session and binding


@pytest.mark.parametrize("change, fault", [
    ({}, None), ({"later": 1}, None), ({"state": "closed"}, None), ({"schema_version": 4}, "unsupported_schema"), ({"schema_version": 2}, "unsupported_schema"),
    ({"schema_version": 0}, "unsupported_schema"), ({"schema_version": "3"}, "invalid_schema"), ({"schema_version": None}, "invalid_schema"),
    ({"schema_version": True}, "invalid_schema"), ({"schema_version": 3.0}, "invalid_schema"), ({"schema_version": [3]}, "invalid_schema"),
    ({"participants": ["codex"]}, "invalid_schema"), ({"participants": ["codex", "codex"]}, "invalid_schema"), ({"participants": "ab"}, "invalid_schema"),
    ({"participants": ["codex", "../x"]}, "invalid_schema"), ({"participants": None}, "invalid_schema"), ({"participants": ["codex", 1]}, "invalid_schema"),
    ({"state": "open"}, "invalid_schema"), ({"state": None}, "invalid_schema"), ({"state": []}, "invalid_schema"),
])  # fmt: skip
def test_a_session_is_ours_unsupported_or_invalid(relay, change, fault):
    session = {"schema_version": 3, "state": "active", "participants": ["codex", "claude"]}
    assert relay.session_fault(session | change) == fault


@pytest.mark.parametrize("session", [None, [], "x", 3, {}])
def test_a_session_that_is_no_object_is_invalid(relay, session):
    assert relay.session_fault(session) == "invalid_schema"


@pytest.mark.parametrize("change, known", [
    ({}, True), ({"host": None}, True), ({"later": 1}, True), ({"host": {"pid": 1}}, True), ({"host": "x"}, True), ({"host": {"pid": 1, "start": "2", "namespace": "3", "boot": "4"}}, True),
    ({"schema_version": 2}, False), ({"schema_version": "1"}, False), ({"schema_version": None}, False), ({"schema_version": True}, False), ({"schema_version": 1.0}, False),
    ({"author": None}, False), ({"pair_slug": 3}, False), ({"last_seen": None}, False), ({"agent_session_id": []}, False),
])  # fmt: skip
def test_a_binding_is_of_schema_1_or_passed_over(relay, tmp_path, change, known):
    path = v1.bind(tmp_path, "claude", "a", "demo")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = relay.binding_at(str(path))
    assert (found is not None) == known
    assert not found or (found.author, found.session_id, found.pair_slug) == ("claude", "a", v1.slug_of("demo"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"schema_version": 1}'])
def test_a_file_that_is_no_binding_is_passed_over(relay, tmp_path, content):
    assert relay.binding_at(str(v1.put(tmp_path / "x.json", content))) is None
    assert relay.binding_at(str(tmp_path / "none.json")) is None


# ---- values


def test_a_value_is_made_from_its_fields_and_equal_by_them(relay):
    name = relay.Name(1, "codex", kind="plan")
    assert name == relay.Name(seq=1, author="codex", kind="plan") and hash(name) == hash(relay.Name(1, "codex", "plan"))
    assert name != relay.Name(2, "codex", "plan") and name != (1, "codex", "plan")
    assert repr(name) == "Name(seq=1, author='codex', kind='plan')"
    assert name.but(seq=2) == relay.Name(2, "codex", "plan") and name.seq == 1
    assert relay.Fault("a", "b", "c") != relay.Move("a", "b")


def test_a_default_stands_in_and_is_not_shared(relay):
    assert relay.Answered() == relay.Answered(0, frozenset()) and relay.Move("wait").why == ""
    assert relay.Answered(missing=frozenset({1})).upto == 0


@pytest.mark.parametrize("given, named", [
    ((), {}), ((1, "a"), {}), ((1, "a", "b", "c"), {}), ((1, "a", "b"), {"other": 1}), ((1, "a"), {"other": 1}), ((1, "a", "b"), {"seq": 2}),
])  # fmt: skip
def test_a_value_with_a_field_too_few_too_many_or_twice_is_refused(relay, given, named):
    with pytest.raises(TypeError):
        relay.Name(*given, **named)


def test_a_value_cannot_be_changed(relay):
    name = relay.Name(1, "codex", "plan")
    for change in (lambda: setattr(name, "seq", 2), lambda: setattr(name, "other", 2), lambda: delattr(name, "seq")):
        with pytest.raises(AttributeError):
            change()
    with pytest.raises(TypeError):
        name.but(other=1)
    assert name == relay.Name(1, "codex", "plan")


def test_a_json_document_is_laid_out_as_the_standard_library_does(relay):
    chance = random.Random(7)
    texts = ["", "plain", "caf\u00e9", 'a "quote"', "back\\slash", "a\nb", "\x1b[0m", "\u2028", "\U0001f600", "\x7f", "\xa0"]

    def value(depth):
        if depth and chance.random() < 0.5:
            items = [value(depth - 1) for _ in range(chance.randrange(4))]
            return items if chance.random() < 0.5 else {chance.choice(texts) + str(n): item for n, item in enumerate(items)}
        return chance.choice([None, True, False, 0, -7, 10**20, 1.5, *texts])

    for _ in range(500):
        made = value(4)
        plain = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        assert relay.json_document(made).decode() == "".join(c if relay.visible(c) == c else relay.json_escape(c) for c in plain)
        assert json.loads(relay.json_document(made)) == made
        assert json.loads(relay.json_line({"k": made})) == {"k": made}
