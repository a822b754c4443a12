"""Bytes and values: what is written reads back as it was, to us and to 1.x, or is refused with
its place; and what others wrote is made safe to print."""

from __future__ import annotations

import json
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import time
import types
from types import SimpleNamespace

import pytest
from helpers import v1_ledgers as v1
from helpers import v1_reader

CORPUS = pathlib.Path(__file__).parent / "corpus"
GOOD = sorted((CORPUS / "good").glob("*.md"))
BAD = sorted((CORPUS / "bad").glob("*.md"))


def stem_of(path):
    return path.stem


# ---- the corpus


@pytest.mark.parametrize("path", GOOD, ids=stem_of)
def test_a_good_artifact_is_read_as_1_x_reads_it(relay, path):
    content = path.read_bytes()
    meta, body = relay.parse_artifact(relay.decode_text(content))
    # By repr, as 1, 1.0 and True are equal.
    assert repr(meta) == repr(json.loads(path.with_suffix(".json").read_text()))
    assert repr(v1_reader.frontmatter(content.decode())) == repr(meta)
    assert content.endswith(body.encode())
    assert content.removesuffix(body.encode()).endswith(b"\n---\n")


@pytest.mark.parametrize("path", BAD, ids=stem_of)
def test_a_bad_artifact_is_refused_with_the_line_in_its_name_and_never_shown(stage, relay, path):
    with pytest.raises(relay.Malformed) as refused:
        relay.parse_artifact(relay.decode_text(path.read_bytes()))
    line = re.match(r"line-(\d+)-", path.name)
    assert not line or re.search(rf"line {line[1]}\b", str(refused.value)), refused.value
    target = v1.ledger(stage.shared, "active") / "004-codex-note.md"
    v1.put(target, path.read_bytes())
    v1.put(f"{target}.sha256", f"{relay.sha256(path.read_bytes())}  {target.name}\n")
    v1.put(target.with_suffix(".ready"), "")
    shown = stage.run("claude", "show", "4", "--pair-id", v1.slug_of("active"))
    assert shown.code == 13 and "004-codex-note" in shown.err and shown.out == ""


# ---- frontmatter, by its functions

WORDS = """a seq author : :: --- - # ' " \\ \\n | > [] {} ~ null true False 12 -1 1_000 1e5 nan é
    infinity \uff11 \u0661 日本 👀 \U0010ffff status:\x20closed @user: """
BLANKS = ("\n", "\n  ", "\n\n", "\n---\n", ": ", "- ", " #", " ", "  ", "\u3000", "\xa0")
HOSTILE = "\t\r\v\f\0\x1b\x1c\x1d\x1e\x7f\x85\x9b\u2028\u2029\u200b\u202e\ufeff\ud800\udcff"
MILD = (*WORDS.split(" "), *BLANKS, "x" * 50)
PIECES = (*MILD, *HOSTILE, "\r\n")
ENCODABLE = [piece for piece in PIECES if not "\ud800" <= piece <= "\udfff"]


def a_text(dice):
    return "".join(dice.choices(MILD if dice.random() < 0.8 else PIECES, k=dice.randrange(6)))


def a_value(dice):
    odd = (None, True, False, 0, -7, 10**30, 1.5, {}, b"x", [None, 12, True, "12"])
    texts = [a_text(dice) for _ in range(dice.randrange(4))]
    long = ("x" * 4096, "x" * 4097, "é" * 2049)
    some = (a_text(dice), a_text(dice) + "\n", texts, dice.choice((*odd, *long)))
    return dice.choice(some)


@pytest.mark.slow
def test_random_frontmatter_reads_back_to_us_and_to_1_x_or_is_refused_by_key(relay):
    dice, kept, refused = random.Random(2), 0, 0
    for _ in range(4000):
        keys = dice.sample((*relay.FRONTMATTER_KEYS, "later"), dice.randrange(1, 4))
        meta = {key: a_value(dice) for key in keys}
        body = "".join(dice.choices(ENCODABLE, k=4))
        try:
            text = relay.format_frontmatter(meta) + body
        except relay.Malformed as problem:
            assert any(key in str(problem) for key in meta), (meta, problem)
            refused += 1
            continue
        read = relay.parse_artifact(relay.decode_text(text.encode()))
        assert (sorted(read[0]), read[1]) == (sorted(meta), body)
        assert all(repr(read[0][key]) == repr(meta[key]) for key in meta), meta
        assert repr(v1_reader.frontmatter(text)) == repr(read[0]), meta
        kept += 1
    assert kept > 1000 and refused > 700


def test_a_random_prompt_is_kept_line_for_line_or_refused_with_its_line(relay):
    dice, kept, refused = random.Random(3), 0, 0
    for _ in range(4000):
        typed = a_text(dice) + a_text(dice)
        try:
            prompt = relay.to_prompt(typed)
            meta = {"prompt_for_next": prompt, "status": "ready"}
            text = relay.format_frontmatter(meta) if prompt else ""
        except relay.Malformed as problem:
            assert "line" in str(problem), (typed, problem)
            refused += 1
            continue
        lines = [line for line in typed.split("\n") if line.strip()]
        assert [line for line in prompt.split("\n") if line] == lines
        if prompt:
            assert v1_reader.frontmatter(text) == meta, typed
            assert relay.to_prompt(prompt) == prompt
            kept += 1
    assert kept > 1000 and refused > 600


def test_whatever_text_we_accept_1_x_reads_alike(relay):
    """Random frontmatter, well formed or not."""
    lines = """seq: 1;author: codex;status: closed;a: |;b:;c: [];  - x;  - 'y';  deep;    deeper
        half;;  ;\u3000;x;d: 'q';e: "q";f: 1_0;g: ~;h:  two ;i:j;  - k: v;  \u3000wide;\tt;- z;a: x
          status: failed;l: ''""".replace("\n       ", ";").split(";")
    dice, kept = random.Random(4), 0
    for _ in range(8000):
        chosen = dice.choices(lines, k=dice.randrange(1, 6))
        text = "".join(f"{line}\n" for line in ("---", *chosen, "---", "body"))
        try:
            meta, body = relay.parse_artifact(text)
        except relay.Malformed as problem:
            assert "line" in str(problem)
            continue
        assert repr(v1_reader.frontmatter(text)) == repr(meta), text
        assert body == "body\n"
        kept += 1
    assert kept > 700


@pytest.mark.parametrize("c", "\u3000\xa0\u2003\u1680\u202f\u205f")
def test_a_prompt_that_begins_with_a_wide_blank_is_refused(relay, c):
    """1.x takes any blank for the block's indent, so the next line would be a key."""
    with pytest.raises(relay.Malformed):
        relay.to_prompt(f"{c}look\nauthor: claude\n")
    with pytest.raises(relay.Malformed):
        relay.format_frontmatter({"prompt_for_next": f"{c}look\nauthor: claude\n"})


STRINGS = """null ~ true false 12 -3 1.5 1_000 nan infinity 1e5 \uff11\uff12 \u0663 | [] 'x' "x"
    ' " it's a: : # &a *a !x C:\\x \\ --- é👀\U0010fffd"""
SPACED = ("", " x", "x ", "\u3000x", "- x", 'say "x"', "a: b", "a #b", "# a", "{a: b}", "\ttab")


@pytest.mark.parametrize("value", [*STRINGS.split(), *SPACED, "a\tb", "x" * 4096])
def test_a_string_stays_a_string_in_a_value_and_in_a_list(relay, value):
    meta = {"title": value, "touched_paths": [value, "z"]}
    text = relay.format_frontmatter(meta)
    assert relay.parse_artifact(text)[0] == meta == v1_reader.frontmatter(text)


LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\0\x1b\x7f\x9b\ud800"
FORMLESS = ("'\"", "' \"", 1.5, {}, b"x", object(), "x" * 4097, "é" * 2049, "\ufeffa")
BLOCKS = (" a\nb\n", "a\n\n", "a\n \nb\n", "\n", "a\nb")


@pytest.mark.parametrize("value", [*(f"a{c}b" for c in LINE_ENDS), *FORMLESS, *BLOCKS])
def test_a_value_without_a_form_is_refused_by_key(relay, value):
    with pytest.raises(relay.Malformed, match="title"):
        relay.format_frontmatter({"seq": 1, "title": value})


ITEMS = ("a\nauthor: claude", "a\nb", "\n", "a\r- b", "a\u2028b", "x" * 4097, ["nested"], {"a": 1})


@pytest.mark.parametrize("item", ITEMS)
def test_a_list_item_holds_one_line(relay, item):
    with pytest.raises(relay.Malformed, match="touched_paths"):
        relay.format_frontmatter({"touched_paths": ["fine", item]})


@pytest.mark.parametrize("key", ["", "a b", "a:", "A", "a\nb", "é", "---", " a", "a-b"])
def test_a_key_is_lower_case_letters(relay, key):
    with pytest.raises(relay.Malformed):
        relay.format_frontmatter({key: "x"})


def test_keys_are_in_the_order_of_1_x_and_ours_follow(relay):
    meta = {key: None for key in ("later", "sidecar_sha256", *reversed(v1.KEYS))}
    lines = relay.format_frontmatter(meta).split("\n")[1:-2]
    assert [line.split(":")[0] for line in lines] == [*v1.KEYS, "sidecar_sha256", "later"]


# ---- frontmatter, by the command line


@pytest.fixture
def pair(stage):
    directory = stage.open_pair()
    stage.send("claude", "plan")
    stage.ok("codex", "next")
    return directory


def published(relay, pair, done):
    """Frontmatter and body of what was published: the same to a 1.x reader, the hashes right."""
    path = pathlib.Path(done.out.split("\n")[0])
    text = path.read_bytes().decode()
    meta, body = relay.parse_artifact(text)
    assert repr(v1_reader.frontmatter(text)) == repr(meta)
    check = ["sha256sum", "-c", "--quiet", f"{path.name}.sha256"]
    subprocess.run(check, cwd=pair, check=True)
    return meta, body


def claim(stage, *words, body="# B\n", prompt="x\n"):
    """A draft of a note by codex, with this body and prompt."""
    draft = stage.ok("codex", "claim", "--kind", "note").out.split("\n")[0]
    files = "--body-file", stage.file(body, "b"), "--prompt-for-next-file", stage.file(prompt, "p")
    stage.ok("codex", "draft", "set", draft, *files, *words)
    return pathlib.Path(draft)


NOTE = ("send", "--kind", "note", "--file")
PROMPTS = (
    *("---\nseq: 9\nauthor: claude\nstatus: closed\n---\n", "null\n", "12\n", "true\n", "|\n"),
    *(
        "- a\n- b\n",
        "'quoted'\n",
        "a\n\n\n    deep: x\n  less\n",
        "key: |\n  block\n",
        "👀 𝔘 日本\n",
    ),
    *("# not a comment\n", "a\tb\n", "ends in blanks  \nnext\n", "\\n \\u0000\n", "seq: 9\n"),
    "@someone: hi\n",
)
BODIES = (
    *("# A\n---\nseq: 9\n---\n", "---\n", "---", "x", "a\r\nb\r\n", "a\rb\n", "a\u2028b\n"),
    *("\n\n  \n# A\n\n\n", "👀 日本 \ufeff\u202e", "prompt_for_next: |\n  forged\n"),
    "# A\n## Nextdoor\n ## Next\n```\n## Next\n```\n",
)


@pytest.mark.slow
def test_every_prompt_is_kept_exactly_through_send_and_draft(stage, relay, pair):
    for n, prompt in enumerate(PROMPTS):
        body, ask = stage.file("# B\n", f"b{n}"), stage.file(prompt, f"p{n}")
        both = stage.file(f"# B\n\n## Next\n{prompt}", f"j{n}")
        ways = ((*NOTE, body, "--next-file", ask), (*NOTE, body, f"--next={prompt}"), (*NOTE, both))
        words = (*ways, ("publish", claim(stage, prompt=prompt) if n % 4 == 3 else ""))[n % 4]
        meta, _ = published(relay, pair, stage.ok("codex", *words))
        assert meta["prompt_for_next"] == prompt


@pytest.mark.slow
def test_every_body_is_kept_byte_for_byte_through_send_and_draft(stage, relay, pair):
    for n, body in enumerate(BODIES):
        sent = stage.ok("codex", *NOTE, stage.file(body, f"b{n}"), "--next", "x")
        for done in (sent, stage.ok("codex", "publish", claim(stage, body=body))):
            meta, kept = published(relay, pair, done)
            assert kept == body
            shown = stage.run("claude", "show", str(meta["seq"]), "--json").json
            assert shown["artifacts"][0]["body"] == body


@pytest.mark.parametrize("flag", ["--next", "--next-file"])
def test_a_prompt_that_is_there_twice_is_refused_and_neither_is_lost(stage, pair, flag):
    text = stage.file("# Plan\n\n## Next\n\n@user: may we?\n")
    value = "look" if flag == "--next" else stage.file("look\n", "p")
    done = stage.refused("codex", *NOTE, text, flag, value)
    assert "## Next" in done.err and flag in done.err


@pytest.mark.slow
def test_a_large_text_is_kept_and_what_1_x_could_not_read_is_refused(stage, relay, pair):
    line = "0123456789abcde\n"
    body, prompt = line * 70_000, line * 7000
    words = (*NOTE, stage.file(body, "b"), "--next-file", stage.file(prompt, "p"))
    meta, kept = published(relay, pair, stage.ok("codex", *words))
    assert (kept, meta["prompt_for_next"]) == (body, prompt)
    small, large, long = ("# B\n", "x\n"), (line * 262_145, "x\n"), ("# B\n", line * 8200)
    many = [word for n in range(513) for word in ("--touched", f"f{n}")]
    for (text, ask), more in ((large, ()), (long, ()), (small, many), (("a\x1b[0m\n", "x"), ())):
        files = stage.file(text, "b"), "--next-file", stage.file(ask, "p")
        refused_with(stage, *NOTE, *files, *more)


def refused_with(stage, *words, says="", **more):
    """The refusal of a command of codex, which must write nothing."""
    before = stage.snapshot(stage.folder)
    done = stage.run("codex", *words, **more)
    assert done.code == 2 and says in done.err and "Traceback" not in done.err, done
    assert stage.snapshot(stage.folder) == before, words


@pytest.mark.parametrize("c", "\r\v\f\0\x1b\x1c\x1d\x1e\x7f\x85\u2028\u2029\x9b", ids=ascii)
def test_a_prompt_that_could_end_a_line_is_refused_with_its_line(stage, pair, c):
    prompt = f"fine\nmore\nab{c}status: closed\nlast\n"
    body, ask = stage.file("# B\n", "body"), stage.file(prompt, "ask")
    both, draft = stage.file(f"# B\n\n## Next\n{prompt}", "j"), claim(stage)
    refused_with(stage, *NOTE, body, "--next-file", ask, says="line 3")
    refused_with(stage, "draft", "set", draft, "--prompt-for-next-file", ask, says="line 3")
    refused_with(stage, *NOTE, both, says="line")
    if c != "\0":
        refused_with(stage, *NOTE, body, "--next", prompt, says="line 3")


NOT_UTF_8 = (
    *((b"\xef\xbb\xbf# B\n", 1), (b"# B\n\ncaf\xe9\n", 3), (b"# B\n\0\n", 2)),
    *((b"# B\n\n\xed\xa0\x80\n", 3), (b"\xff\xfe#\0", 1)),
)


@pytest.mark.parametrize(("content", "line"), NOT_UTF_8)
def test_a_file_that_is_no_plain_utf_8_is_refused_with_its_line(stage, pair, content, line):
    bad, fine, draft = stage.file(content, "bad"), stage.file("x\n", "fine"), claim(stage)
    for words in (
        (*NOTE, bad, "--next", "x"),
        (*NOTE, fine, "--next-file", bad),
        ("draft", "set", draft, "--body-file", bad),
        ("draft", "set", draft, "--prompt-for-next-file", bad),
        ("issue", "add", "--title", "x", "--body-file", bad),
    ):
        refused_with(stage, *words, says=f"line {line}")
    refused_with(stage, *NOTE, "-", "--next", "x", says=f"line {line}", stdin=content)


@pytest.mark.parametrize("prompt", [" indented\n", "\ttab\n", "", "\n \n\n", "TODO: later\n"])
def test_a_prompt_that_cannot_be_kept_or_says_nothing_is_refused(stage, pair, prompt):
    files = stage.file("# B\n"), "--next-file", stage.file(prompt, "p")
    refused_with(stage, *NOTE, *files, says="prompt")


PATHS = ("a: b", " x ", "- x", "null", "12", "'x'", "é👀", "#x", "it's", "C:\\x", "|", "a,b")


@pytest.mark.parametrize("path", [*PATHS, "x" * 4096])
def test_a_touched_path_is_kept_exactly(stage, relay, pair, path):
    words = (*NOTE, stage.file("# B\n"), "--next", "x", f"--touched={path}", "--touched", "z")
    assert published(relay, pair, stage.ok("codex", *words))[0]["touched_paths"] == [path, "z"]
    done = stage.ok("codex", "publish", claim(stage, f"--touched-path={path}"))
    assert published(relay, pair, done)[0]["touched_paths"] == [path]


FORMLESS_PATHS = ("a\nauthor: claude", "a\n", "a\rb", "a\u2028b", "a\x1bb", "a\udcffb", "'\"")


@pytest.mark.parametrize("path", [*FORMLESS_PATHS, "x" * 4097])
def test_a_touched_path_without_a_form_is_refused_and_nothing_is_written(stage, pair, path):
    words = (*NOTE, stage.file("# B\n", "body"), "--next", "x", f"--touched={path}")
    refused_with(stage, *words, says="touched_paths")
    draft = claim(stage)
    refused_with(stage, "draft", "set", draft, f"--touched-path={path}", says="touched_paths")


ONE_LINERS = (
    *("bootstrap --force --topic t --title=", "issue add --title=", "close --reason="),
    "close --reason x --outcome=",
)
NOT_ONE_LINE = "a\nb", "a\rb", "a\x1b[0m", "a\u2028b", "a\x85b", "a\udcff", "x" * 401, " ", "\n"


@pytest.mark.parametrize("words", ONE_LINERS)
def test_a_one_line_text_of_more_than_a_line_is_refused(stage, pair, words):
    for text in NOT_ONE_LINE:
        *before, last = words.split()
        refused_with(stage, *before, last + text)


TITLES = ("null", "12", "a: b", "'x'", '"', "it's", "- x", "# x", "é👀 日本", "\\n", "x" * 400)


@pytest.mark.parametrize("text", [*TITLES, " lead", "|", "\u202eabc"])
def test_a_title_is_kept_exactly(stage, relay, text):
    slug = stage.ok("codex", "bootstrap", "--topic", "t", f"--title={text}").out.split()[0]
    session = json.loads((stage.shared / slug / "session.json").read_text(encoding="utf-8"))
    assert session["title"] == text
    added = stage.ok("codex", "issue", "add", f"--title={text}", "--body", text).out
    path = pathlib.Path(added.strip().split("\n")[-1])
    assert v1_reader.frontmatter(path.read_text(encoding="utf-8"))["title"] == text
    issue = stage.ok("codex", "issue", "show", path.stem, "--json").json
    assert (issue["frontmatter"]["title"], issue["body"].strip("\n")) == (text, text)
    stage.ok("codex", "close", f"--reason={text}", f"--outcome={text}", "--no-archive")
    assert relay.parse_closed((stage.shared / slug / "CLOSED").read_bytes())["reason"] == text


@pytest.mark.slow
def test_an_issue_of_a_megabyte_can_be_shown_and_resolved(stage):
    text = "0123456789abcde\n" * 70_000
    words = "issue", "add", "--title", "long", "--body-file", stage.file(text)
    name = pathlib.Path(stage.ok("codex", *words).out.strip().split("\n")[-1]).stem
    assert stage.ok("codex", "issue", "list", "--json").json["unreadable"] == []
    shown = stage.ok("codex", "issue", "show", name, "--json").json["body"]
    assert shown.strip("\n") == text.strip("\n")
    stage.ok("codex", "issue", "resolve", name)
    refused_with(stage, "issue", "add", "--title", "x", "--body", "caf\udce9")


SPOILED = (
    ("peer: claude", "peer: claude\npeer: claude", "line 5"),
    *(("kind: note", "kind note", "line 5"), ("sync_needed: false", "sync_needed: 0", "sync_")),
    ("peer: claude", "peer: cl\rude", "line 4"),
    ("touched_paths: []", "touched_paths:\n  - 12", "touched_"),
    *(("corrects: null", "corrects: 1", "cor"), ("in_reply_to: 1", "in_reply_to: 2", "in_re")),
    ("in_reply_to: 1", "in_reply_to: true", "in_re"),
)


@pytest.mark.parametrize(("old", "new", "says"), SPOILED)
def test_a_draft_spoiled_by_hand_is_refused_with_the_key_or_line(stage, pair, old, new, says):
    path = claim(stage)
    text = path.read_text()
    assert text.count(f"\n{old}\n") == 1
    path.write_text(text.replace(f"\n{old}\n", f"\n{new}\n"), newline="")
    refused_with(stage, "publish", path, says=says)


@pytest.mark.parametrize(
    "spoiled", ["author: claude", "seq: 3", "seq: true", "kind: plan", "peer: x"]
)
def test_number_author_and_kind_are_those_in_the_name_of_the_draft(stage, relay, pair, spoiled):
    path, key = claim(stage), spoiled.split(":")[0]
    path.write_text(re.sub(f"(?m)^{key}: .*$", spoiled, path.read_text(), count=1))
    meta, _ = published(relay, pair, stage.ok("codex", "publish", path))
    names = [meta[key] for key in ("seq", "author", "peer", "kind")]
    assert names == [2, "codex", "claude", "note"] and meta["seq"] is not True


@pytest.mark.parametrize("more", ["status: closed\nforce_reason: 12\n", "later_key: 1_0\n"])
def test_what_else_a_draft_holds_is_published_the_same_to_both_readers(stage, relay, pair, more):
    path = claim(stage)
    head = more if "status" in more else f"status: draft\n{more}"
    path.write_text(path.read_text().replace("status: draft\n", head))
    assert published(relay, pair, stage.ok("codex", "publish", path))[0]["status"] == "ready"


@pytest.mark.slow
def test_random_texts_through_send_are_kept_or_refused_and_forge_nothing(stage, relay, pair):
    dice, sent, refused = random.Random(5), 0, 0
    for n in range(400):
        body, prompt, path = (a_text(dice) + a_text(dice) for _ in range(3))
        raw, ask = body.encode("utf-8", "surrogatepass"), prompt.encode("utf-8", "surrogatepass")
        before = sorted(path.name for path in pair.rglob("*"))
        files = stage.file(raw, f"b{n}"), "--next-file", stage.file(ask, "p")
        done = stage.run("codex", *NOTE, *files, f"--touched={path}")
        if done.code:
            assert done.code == 2 and sorted(path.name for path in pair.rglob("*")) == before
            refused += 1
            continue
        meta, kept = published(relay, pair, done)
        assert kept.encode() == raw and meta["touched_paths"] == [path]
        assert meta["author"] == "codex"
        sent += 1
    assert sent > 30 and refused > 40


@pytest.mark.parametrize("sums", ["{0}\n", "{0}", "{0}  a\n{1}  b\n", "\n {0} *x", "{2}  x"])
def test_the_first_word_of_a_hash_file_counts(stage, relay, pair, sums):
    _hash_file(relay, pair, sums)
    assert stage.run("codex", "show", "1").code == 0


@pytest.mark.parametrize("sums", ["", " \n", "{3}", "{0}0", "\\{0}  x", "\ufeff{0}", "{1}  x"])
def test_a_hash_file_without_the_right_first_word_is_damage(stage, relay, pair, sums):
    _hash_file(relay, pair, sums)
    assert stage.run("codex", "show", "1").code == 13


def _hash_file(relay, pair, sums):
    path = pair / "001-claude-plan.md"
    sidecar = relay.sha256((pair / "001-claude-plan.json").read_bytes())
    digest = relay.sha256(path.read_bytes())
    first = sums.format(digest, "f" * 64, digest.upper(), digest[:-1])
    target = pair / f"{path.name}.sha256"
    target.chmod(0o600)
    target.write_text(f"{first}\n{sidecar}  001-claude-plan.json\n", encoding="utf-8")


# ---- JSON

GOOD_JSON = (
    *("1", " 1 ", "[]", "{}", '"\\ud800"', '"\\u0000"', "-0", "-0.0", "1e5", "1E400", "[1,\n2]"),
    *('{"a": {"a": 1}}', "null", '"é👀"', "12345678901234567890", '"\u2028"', '"\x7f"'),
)
BAD_JSON = (
    *("", " ", "[1,]", "{,}", "NaN", "[Infinity]", "-Infinity", "{} x", "1 2", '{"a":1,"a":2}'),
    *('{"b":{"a":1,"a":1}}', "'a'", '"\n"', '"\x00"', '"\t"', "[", '"', "tru", "\ufeff1", "01"),
    *("1.", "[1 2]", "\x0b1", "\xa01", "{1:2}", '"\\x"', '"\\u12"', "//", "+1", ".5", "9" * 5000),
    *("[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000),
)


@pytest.mark.parametrize("text", GOOD_JSON)
def test_json_is_read_as_the_library_reads_it(relay, text):
    assert repr(relay.parse_json(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("text", BAD_JSON, ids=lambda text: repr(text[:12]))
def test_json_that_two_readers_could_take_differently_is_malformed(relay, text):
    if text == "9" * 5000 and not hasattr(sys, "get_int_max_str_digits"):
        pytest.skip("numbers of any length are read here")
    with pytest.raises(relay.Malformed):
        relay.parse_json(text.encode())


def test_json_that_is_no_utf_8_or_no_object_is_malformed(relay):
    with pytest.raises(relay.Malformed, match="line 2"):
        relay.parse_json(b'[1,\n"\xff"]')
    assert relay.parse_json_object(b'{"a": 1}') == {"a": 1}
    for content in (b"[]", b"null", b"1"):
        with pytest.raises(relay.Malformed):
            relay.parse_json_object(content)


@pytest.mark.parametrize(("depth", "fine"), [(1, True), (100, True), (200_000, False)])
def test_json_is_read_to_a_depth_that_all_that_handles_it_goes_to(relay, depth, fine):
    for content in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        try:
            value = relay.parse_json(content)
        except relay.Malformed:
            assert not fine
        else:
            assert fine and relay.parse_json(relay.json_document(value)) == value
            assert relay.json_document({"k": value}, None) and relay.one_line(value)


@pytest.mark.parametrize("value", [-1, -(10**12), 10**9 + 1, 10**400, True, 1.0, "1", None, [1]])
def test_a_count_that_no_writer_of_ours_writes_is_none(relay, value):
    assert relay.as_int(value) == 0


def a_document(dice, depth=0):
    """A random JSON value; a high surrogate before a low one would become one character."""
    words = [piece for piece in PIECES if piece != "\udcff"]
    kind = dice.randrange(2 if depth > 3 else 6)
    if kind == 0:
        return dice.choice((None, True, False, 0, -1, 2**70, 1.5, -0.0, 1e300))
    if kind == 1:
        return "".join(dice.choices(words, k=3))
    inside = [a_document(dice, depth + 1) for _ in range(dice.randrange(4))]
    return inside if kind < 4 else {"".join(dice.choices(words, k=2)): each for each in inside}


@pytest.mark.slow
def test_random_json_reads_back_from_both_of_our_writers(relay):
    dice = random.Random(6)
    for _ in range(800):
        document = {"value": a_document(dice)}
        written, line = relay.json_document(document), relay.json_document(document, None)
        assert repr(relay.parse_json(written)) == repr(document) == repr(json.loads(written))
        assert repr(relay.parse_json(line)) == repr(document)
        assert line.count(b"\n") == 1 == len(line.splitlines())
        text, plain = written.decode(), json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        assert relay.visible(text) == text and (text == plain or relay.visible(plain) != plain)


# ---- names, times, CLOSED, session, binding

STEMS = "001-codex-plan 999-my-own-agent-review 010-a-note 012-7-fix"
NO_STEMS = """000-codex-plan 1-codex-plan 0001-codex-plan 001-codex-plans 001-Codex-plan 001--plan
    001-plan 001_codex-plan \u0661\u0661\u0661-codex-plan 001--codex-plan - 001 001-../x-plan
    +01-codex-plan 001-codéx-plan 001-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-plan"""
SPACED_STEMS = ("", "001-codex-plan\n", " 01-codex-plan", "001-co dex-plan")


def test_a_stem_is_read_by_its_parts_or_not_at_all(relay):
    assert relay.parse_name("999-my-own-agent-review") == (999, "my-own-agent", "review")
    assert all(relay.parse_name(stem).stem == stem for stem in STEMS.split())
    for stem in (*NO_STEMS.split(), *SPACED_STEMS):
        assert relay.parse_name(stem) is None and relay.author_of(stem) == "", stem


TOPICS = ("a", "a-b-1", "1", "a" * 32, "a" * 48)
SLUGS = (*TOPICS, "a" * 49, "a" * 80, "A", "a_b", "a.b")
NEITHER = ("", "-a", ".a", "..", "a/b", "a b", "a\n", "é", "\u212a", "a\0", "\u0131", "a" * 81)


def test_a_word_is_a_slug_an_author_or_neither(relay):
    for word in (*SLUGS, *NEITHER, "_a", "\uff41"):
        assert bool(relay.is_slug(word)) == (word in SLUGS), word
        assert bool(relay.is_author(word)) == (word in TOPICS and len(word) <= 32), word


ZONES = [("UTC", "+00:00"), ("XYZ-5:45", "+05:45"), ("XYZ+3:30", "-03:30"), ("Pacific/Apia", "")]


@pytest.mark.parametrize(("zone", "offset"), ZONES)
def test_a_time_reads_back_to_the_second_in_every_zone(relay, monkeypatch, zone, offset):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for at in (0, 1, 951_782_400, 1_700_000_000.9, 4_102_444_800):
            text = relay.iso(at)
            assert relay.epoch(text) == math.floor(at) and text.endswith(offset)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", text)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_is_no_time_is_none_and_no_crash(relay):
    for text in (None, "", "soon", 12, "2024-13-01T00:00:00+00:00", "\0", [], "9" * 999):
        assert relay.epoch(text) is None
    for text in ("0001-01-01T00:00:00", "９９９９-01-01", "9999-12-31T23:59:59-14:00"):
        assert isinstance(relay.epoch(text), (float, type(None)))
    assert relay.epoch("2024-05-01T10:00:00Z") == relay.epoch("2024-05-01T12:00:00+02:00")
    assert relay.iso(-1e300) and relay.iso(1e300)


CLOSINGS = ("done", "", 'say "x"', "C:\\new\\tab", "é👀 日本", "a = b", "# x", "a\tb", "'''", "[x]")


@pytest.mark.parametrize("text", CLOSINGS)
def test_closed_is_toml_of_four_lines_that_reads_back(relay, text):
    content = relay.format_closed(text, text, "claude", v1.AT)
    closed = {"reason": text, "outcome": text, "closed_by": "claude", "closed_at": v1.AT}
    assert relay.parse_closed(content) == closed and content.count(b"\n") == 4
    if sys.version_info >= (3, 11):
        import tomllib

        assert tomllib.loads(content.decode()) == closed


def test_a_strange_closed_never_breaks_a_reader(relay):
    for content in (b"", b"\xff\n", b"reason\n", b"reason = \n", b'reason = "a', b"= x", b"\0"):
        assert all(isinstance(value, str) for value in relay.parse_closed(content).values())
    for content in (b"reason = 'x'\n", b"reason = [1", b"reason = [1]\n", b"reason = {}\n"):
        assert relay.parse_closed(content)["closed_at"] == ""


SESSION = {"schema_version": 3, "state": "active", "participants": ["codex", "claude"]}
INVALID = (
    *(("schema_version", each) for each in ("3", None, True, 3.0, [3])),
    *(("participants", each) for each in (["codex"], ["codex", "codex"], "ab", None)),
    *(("participants", each) for each in (["codex", "../x"], ["codex", 1], ["a", "b", "c"])),
    *(("state", each) for each in ("open", None, [])),
)


def test_a_session_is_ours_unsupported_or_invalid(relay, tmp_path):
    def problem(session):
        (tmp_path / "session.json").write_text(json.dumps(session))
        context = types.SimpleNamespace(changed_at={})
        ledger = types.SimpleNamespace(root=str(tmp_path.parent), ctx=context)
        return relay.Pair(ledger, str(tmp_path)).schema_error

    for change in ({}, {"later": 1}, {"state": "closed"}):
        assert problem(SESSION | change) is None
    for version in (0, 2, 4):
        change = {"schema_version": version, "participants": 1}
        assert problem(SESSION | change) == "unsupported_schema"
    for key, value in INVALID:
        assert problem(SESSION | {key: value}) == "invalid_schema", (key, value)
    for session in (None, [], "x", 3, {}):
        assert problem(session) == "invalid_schema"


KNOWN = ({}, {"host": None}, {"later": 1}, {"host": {"pid": 1}}, {"host": "x"})
PASSED_OVER = (
    *(*({"schema_version": each} for each in (2, "1", None, True, 1.0)), {"author": None}),
    *({"pair_slug": 3}, {"last_seen": None}, {"agent_session_id": []}),
)


def test_a_binding_is_of_schema_1_or_passed_over(relay, tmp_path):
    v1.put(tmp_path / "_relay/.sentinel", "")
    path = v1.bind(tmp_path, "claude", "a", "demo")
    binding = json.loads(path.read_text())
    ledger = relay.Ledger(
        SimpleNamespace(changed_at={}), relay.Project(str(tmp_path), str(tmp_path), None, "")
    )
    for change in KNOWN:
        path.write_text(json.dumps(binding | change))
        (found,) = ledger.bindings()
        fields = found.author, found.session_id, found.pair_slug
        assert fields == ("claude", "a", v1.slug_of("demo"))
    for change in PASSED_OVER:
        path.write_text(json.dumps(binding | change))
        assert not ledger.bindings(), change
    for content in (b"", b"[]", b"{", b"\xff", b'{"schema_version": 1}'):
        path.write_bytes(content)
        assert not ledger.bindings(), content


# ---- text for people

SHOWN = (
    *(("plain\n\ttext é 日本 👀", None), ("a\u3000b", None), ("\x1b[31m", "\\x1b[31m")),
    *(("a\rb", "a\\rb"), ("\x9b31m", "\\x9b31m"), ("\x07\x08\x00\x7f", "\\x07\\x08\\x00\\x7f")),
    *(("\u202eevil\u202c", "\\u202eevil\\u202c"), ("\u2066x\u2069", "\\u2066x\\u2069")),
    *(("\u200b\u2060\ufeff", "\\u200b\\u2060\\ufeff"), ("\u061c", "\\u061c"), ("\xad", "\\xad")),
    *(("\u2028\x85", "\\u2028\\x85"), ("\U000e0041", "\\U000e0041"), ("\ud800", "\\ud800")),
    *(("\u180e", "\\u180e"), ("\u3164", "\\u3164"), ("\U000e0101", "\\U000e0101")),
)


@pytest.mark.parametrize(("text", "shown"), SHOWN, ids=ascii)
def test_text_that_could_drive_a_terminal_is_shown_as_escapes(relay, text, shown):
    shown = shown or text
    assert relay.visible(text) == shown == relay.visible(shown)


@pytest.mark.slow
def test_no_character_at_all_gets_past_visible_that_hides_or_moves(relay):
    import unicodedata

    every = map(chr, (*range(0x20000), *range(0xE0000, 0xE1000)))
    shown = {c for c in every if relay.visible(c) == c}
    assert {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"} <= {"Cc"}
    assert {c for c in shown if unicodedata.category(c) == "Cc"} == {"\n", "\t"}


def test_text_in_a_line_of_ours_is_one_line_and_cannot_leave_its_quotes(relay):
    assert relay.one_line("a\nb\tc\x1b") == "a b c\\x1b" and relay.one_line(None) == "None"
    assert relay.one_line("x" * 500) == "x" * 117 + "..."
    assert relay.in_quotes('a" \\ next: b\n') == '"a\\" \\\\ next: b "'
    assert relay.word_or_quotes("20260101-x") == "20260101-x"
    assert relay.word_or_quotes("x next: y") == '"x next: y"'
    assert relay.display_path("src/a.py") == "src/a.py"
    assert relay.display_path("a\nb") == '"a\\012b"' and relay.display_path("a b") == '"a b"'
    assert relay.shell_quoted("a b") == "'a b'"
    for word in ("a\x1b'", "\n%s\\n\udcff\u202e", "$(x)\t`y`"):
        quoted = relay.shell_quoted(word)
        assert quoted.isascii() and quoted.isprintable()
        out = subprocess.run(["sh", "-c", f"printf %s {quoted}"], check=True, capture_output=True)
        assert os.fsdecode(out.stdout) == word


def test_a_wrapped_line_fits_its_width_and_loses_no_word(relay):
    dice = random.Random(8)
    words = ("a", "word", "漢字漢字", "é", "e\u0301", "x" * 90, "👀", "  ", "a-b", "src/a.py:12")
    for _ in range(400):
        text, width = " ".join(dice.choices(words, k=dice.randrange(9))), dice.randrange(2, 60)
        lines = relay.wrap(text, width, "  ")
        assert all(relay.display_width(line) <= width for line in lines), (text, width)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert relay.wrap("a b " * 99, 0) == ["a b " * 99] and relay.wrap("", 9) == [""]


# ---- one file that holds body and prompt

HEADINGS = "# A\n ## Next\n### Next\n## Nextdoor\n##Next\n> ## Next\n## next steps\n"
SPLIT = (
    *(("# A\n\n## Next\ndo it\n", "do it\n"), ("# A\n## Next", ""), ("# A\n## Next  \nx", "x")),
    *(("# A\n## next\nx", "x"), ("# A\n## NEXT:\nx", "x")),
    *(("# A\n", None), ("", None), ("## Next\nx\n", "x\n"), ("``in``\n## Next\nx\n", "x\n")),
    *(("# A\n## Next\none\n## Next\ntwo\n", "two\n"), ("```\n## Next\n```\n", None)),
    *(("```\n## Next\n```\n## Next\nx\n", "x\n"), ("```\n~~~\n## Next\n", None)),
    *(("~~~\n```\n## Next\n~~~\n## Next\nx\n", "x\n"), ("~~~ `a`\n## Next\n~~~\n", None)),
    ("````md\n```\n## Next\n```\n## Next\n````\n## Next\nx\n", "x\n"),
    *(("```py\n``` not a close\n## Next\n```\n", None), ("```\nx\n`````\n## Next\ny\n", "y\n")),
    ("# A\n## Next\nx\n```\n## Next\n```\n", "x\n```\n## Next\n```\n"),
    *(("# A\r\n## Next\r\nx\r\n", "x\r\n"), ("```in```\n## Next\nx\n", "x\n"), (HEADINGS, None)),
)


@pytest.mark.parametrize(("text", "prompt"), SPLIT)
def test_the_last_next_heading_outside_a_fence_begins_the_prompt(relay, text, prompt):
    body, found = relay.split_next(text)
    assert found == prompt and text.startswith(body)
    rest = text[len(body) :]
    assert (
        rest == ""
        if prompt is None
        else re.fullmatch("(?i)## next:? *\r?\n?", rest.removesuffix(found))
    )
