"""The page: texts become a fixed set of elements, whatever they hold; what is on it is proven; it loads and leads nowhere."""

import base64
import hashlib
import json
import os
import pathlib
import random
import re
import subprocess
from html.parser import HTMLParser

import chromium
import pytest
from conftest import ROOT

PROSE = {"h4", "h5", "h6", "p", "ul", "ol", "li", "pre", "code", "blockquote", "strong", "em", "hr", "table", "thead", "tbody", "tr", "th", "td"}
PAGE = PROSE | {"html", "head", "meta", "title", "style", "body", "a", "header", "nav", "main", "section", "article", "footer", "h1", "h2", "h3",
                "dl", "dt", "dd", "span", "time", "q", "caption", "details", "summary", "div", "br"}  # fmt: skip
VOID = {"hr", "br", "meta"}
# Pieces that mean something to Markdown, to HTML or to a terminal; the words are looked for in what comes out.
PIECES = ["\n", "\n\n", "\n", " ", "  ", "    ", "\t", "# ", "###### ", "#", "- ", "* ", "+ ", "1. ", "12) ", "> ", ">", "```", "~~~", "````py\n", "`", "``", "*", "**",
          "_", "|", "|-|", "---", "|---|:-:|\n", "[", "](", ")", "![", "[a](javascript:alert(1))", "<script>", "</pre>", "<img src=x onerror=y>", "&", "&lt;", "\"", "'",
          "\\", "\r", "\x00", "\x1b[31m", "\u202e", "\u2066", "\u200b", "\ufeff", "\ud800", "é", "漢", "```findings\n", "-->", "]]>", "<!--", "=", "~"]  # fmt: skip


class Tree(HTMLParser):
    """What a browser would see: elements with their attributes, the text, the deepest nesting; fails where a tag is not closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open, self.deepest = [], [], [], 0
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.deepest = max(self.deepest, len(self.open))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    def handle_comment(self, text):
        raise AssertionError("a comment")

    handle_pi = unknown_decl = handle_comment

    @property
    def tags(self):
        return [tag for tag, _ in self.elements]

    @property
    def text(self):
        return "".join(self.texts)


def headings(tree):
    return [int(tag[1]) for tag in tree.tags if re.fullmatch("h[1-6]", tag)]


def in_order(levels):
    return all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:]))


@pytest.mark.parametrize("seed", range(8))
def test_a_text_can_become_nothing_but_the_fixed_set_and_loses_no_word(relay, seed):
    made = random.Random(seed)
    for _ in range(60):
        words = [f"w{n}w" for n in range(made.randrange(12))]
        pieces = made.choices(PIECES, k=made.randrange(60)) + words
        made.shuffle(pieces)
        text = "".join(pieces)
        html = relay.prose(text)
        tree = Tree(html)
        assert {*tree.tags} <= PROSE, text
        assert all(attributes.keys() <= {"scope", "start"} for _, attributes in tree.elements), text
        levels = headings(tree)
        assert in_order([3, *levels]), text
        assert tree.deepest <= 3 * relay._MOST_NESTED + 5, text
        if "|" not in text:  # A row has no more cells than the first.
            assert all(word in tree.text for word in words), text
        assert html.replace("\n", "").replace("\t", "").isprintable(), text


@pytest.mark.parametrize("unit", [">", "> ", "- ", "1. ", "*", "**", "*a ", "`", "[", "[a](", "|", "a|b\n-|-\n", "# a\n", "\n", "- \n\n", "```\n", "&", "\u202e", "  - a\n"])
def test_a_hostile_text_grows_by_a_small_factor_and_nests_no_deeper_than_the_limit(relay, unit):
    text = unit * (20_000 // len(unit))
    html = relay.prose(text)
    assert len(html) < 12 * len(text) + 100
    assert Tree(html).deepest <= 3 * relay._MOST_NESTED + 5


def test_what_agents_write_reads_as_they_meant_it(relay):
    told = relay.prose(
        "# Plan\n\nLet `f(a)` **split *it* up**, see [docs](https://x/a_b), ![shot](http://e/x.png).\ngoes on\n\n## Sub\n\n- a\n  more\n- b\n    - in\n\n"
        "3. three\n4. four\n\n> said\n\n| a | b |\n|---|:-:|\n| `x` | y \\| z | w |\n\n```py\n<b> & `x`\n```\n\n---\n\n# Next one\n"
    )
    assert told == (
        "<h4>Plan</h4><p>Let <code>f(a)</code> <strong>split <em>it</em> up</strong>, see docs (https://x/a_b), image: shot (http://e/x.png).\ngoes on</p>"
        "<h5>Sub</h5><ul><li><p>a\nmore</p></li><li><p>b</p><ul><li><p>in</p></li></ul></li></ul><ol start=\"3\"><li><p>three</p></li><li><p>four</p></li></ol>"
        "<blockquote><p>said</p></blockquote>"
        "<table><thead><tr><th scope=\"col\">a</th><th scope=\"col\">b</th></tr></thead><tbody><tr><td><code>x</code></td><td>y | z | w</td></tr></tbody></table>"
        "<p><code>py</code></p><pre><code>&lt;b&gt; &amp; `x`</code></pre><hr><h4>Next one</h4>"
    )  # fmt: skip


@pytest.mark.parametrize("text", ["2 * 3 * 4", "f(*args, **kwargs)", "__init__.py", "a*b*c", "*.py and *.md", "a ` tick", "[x] done", "C:\\*.*", "1.2 is no list", "#hash", "a | b"])
def test_a_mark_that_is_none_stays_as_it_was_written(relay, text):
    assert relay.prose(text) == f"<p>{text}</p>"


def test_every_character_that_could_drive_a_reader_is_shown_as_an_escape(relay):
    assert relay.escaped("a\x1b[0m\u202eb\u2066\u200b\r<\"&") == "a\\x1b[0m\\u202eb\\u2066\\u200b\\r&lt;&quot;&amp;"


def test_only_elements_are_html_and_everything_put_into_one_is_escaped(relay):
    assert relay.element("p", "<b>", relay.element("code", "&"), class_="x\"y", open=None, aria_label="l") == (
        '<p class="x&quot;y" aria-label="l">&lt;b&gt;<code>&amp;</code></p>'
    )


def review(stage):
    """A pair with all there is to tell: findings and their fates, runs, a user's word, an approval, an override."""
    pair = stage.open_pair()
    (stage.project / "pay.py").write_text("a\n")
    stage.send("claude", "plan", "# Plan\n\nDo <it> [here](http://x.example/).\n")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "sh", "-c", "echo '<b>out</b>'; exit 3")
    stage.send("codex", "review", "# Review\n\n```findings\nblocker pay.py:1 Zero <i>divides</i>\nnit - `x` is odd\n```\n", "mend", "--verdict", "changes")
    (stage.project / "pay.py").write_text("b\n")
    stage.send("claude", "fix", "# Fix\n\n```dispositions\n2.1 fixed guarded\n2.2 refuted no\n```\n")
    stage.ok("codex", "next")
    stage.ok("codex", "continue")
    stage.ok("codex", "run", "--", "true")
    stage.send("codex", "review", "# Again\n\n```dispositions\n2.1 accepted\n2.2 accepted\n```\n", "ship", "--verdict", "approve")
    return pair


def exported(stage, *more, code=0, author="claude"):
    """The page as text, and as a browser would see it."""
    path = stage.folder / "page.html"
    done = stage.run(author, "export", "--html", path, "--force", *more)
    assert done.code == code, done
    html = path.read_text()
    return html, Tree(html)


def check_page(tree):
    """What holds for each page: only known elements, places that exist, headings in order, nothing that loads."""
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert {*tree.tags} <= PAGE and len(ids) == len({*ids})
    assert tree.tags.count("h1") == tree.tags.count("title") == tree.tags.count("main") == tree.tags.count("nav") == 1
    assert in_order(headings(tree)) and headings(tree)[0] == 1
    assert tree.elements[0] == ("html", {"lang": "en"})
    for tag, attributes in tree.elements:
        assert attributes.keys() <= {"class", "id", "href", "scope", "start", "datetime", "open", "lang", "tabindex", "aria-label", "aria-labelledby",
                                     "charset", "http-equiv", "content", "name"}, tag  # fmt: skip
        assert "href" not in attributes or (tag == "a" and attributes["href"][0] == "#" and attributes["href"][1:] in ids)
        assert tag != "th" or attributes.get("scope") in ("col", "row")
        assert attributes.get("aria-labelledby", ids[0]) in ids
    first = [tag for tag in tree.tags if tag in ("a", "header", "nav", "main", "footer")]
    assert first[0] == "a" and [tag for tag in dict.fromkeys(first[1:]) if tag != "a"] == ["header", "nav", "main", "footer"]


def test_the_page_tells_the_whole_review(stage):
    pair = review(stage)
    html, tree = exported(stage)
    check_page(tree)
    text = " ".join(tree.text.split())
    for told in ("Round 1", "Round 2", "blocker", "pay.py:1", "fixed in 003: guarded", "accepted in 004", "exit 3", "sh -c ", "<b>out</b>", "Verdict: changes of 001",
                 "Verdict: approve of 003", "moved since 002: pay.py", "The user decided to go on", "all proven", "Nothing was overridden", "Zero <i>divides</i>",
                 "here (http://x.example/)", "Next for claude", "reply", "Next for codex", "wait", "sha256sum -c"):  # fmt: skip
        assert told in text, told
    for path in pair.glob("0*.md"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert str(stage.folder) not in html


def test_the_style_is_the_only_thing_that_the_page_lets_take_effect(stage):
    stage.open_pair()
    html, tree = exported(stage)
    check_page(tree)
    style = re.search("<style>(.*)</style>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(attributes["content"] for _, attributes in tree.elements if attributes.get("http-equiv"))
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style and "@import" not in style and "script" not in tree.tags


def test_titles_reasons_paths_and_commands_are_as_harmless_as_texts(stage):
    evil = "<script>x</script>\u202e\"onload=\"y"
    stage.ok("claude", "bootstrap", "--topic", "evil", "--title", evil)
    stage.ok("codex", "next")
    (stage.project / "a<b>&\"c").write_text("x")
    stage.run("codex", "run", "--", "printf", evil)
    stage.send("codex", "review", f"# {evil}\n\n```findings\nmajor \"<p>\":3 {evil}\n```\n{evil}\n", "no", "--verdict", "changes", "--not-run", "because <b>")
    stage.ok("claude", "close", "--reason", evil, "--outcome", "</q><b>")
    html, tree = exported(stage)
    check_page(tree)
    assert "\u202e" not in html and "<script" not in html and "onload=\"" not in html and "</q><b>" not in html
    assert tree.text.count("<script>x</script>\\u202e") >= 6 and "</q><b>" in tree.text


def test_a_damaged_artifact_is_named_and_none_of_its_bytes_are_shown(stage):
    pair = review(stage)
    with open(pair / "001-claude-plan.md", "a") as file:
        file.write("smuggled words\n")
    html, tree = exported(stage, code=1)
    check_page(tree)
    assert "smuggled" not in html and "Do &lt;it&gt;" not in html
    assert "Damaged, and not shown" in tree.text and "bytes do not match" in tree.text and "Wrong with this record" in tree.text and "all proven" not in tree.text
    (pair / "004-codex-review.ready").unlink()
    assert "lost: was " in exported(stage, code=1)[1].text


def test_what_a_later_artifact_contradicts_is_not_shown_either(stage):
    """Text and hash rewritten together: only the one written after it tells."""
    pair = review(stage)
    path = pair / "001-claude-plan.md"
    path.write_text(path.read_text().replace("Do <it>", "forged words"))
    sums = (pair / "001-claude-plan.md.sha256").read_text().split("\n")
    sums[0] = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
    (pair / "001-claude-plan.md.sha256").write_text("\n".join(sums))
    html, _ = exported(stage, code=1)
    assert "forged" not in html and "Damaged, and not shown" in html


def test_a_pair_in_the_archive_is_told_to_its_end(stage):
    pair = review(stage)
    stage.ok("claude", "close", "--reason", "done", "--outcome", "approve")
    _, tree = exported(stage, "--pair-id", pair.name)
    text = " ".join(tree.text.split())
    assert "Closed by claude, on the strength of 004-codex-review: done" in text and "approve, by claude" in text
    assert f"cd .shared/_archive/{pair.name}" in text and "Next for" not in text


def test_what_was_overridden_stands_on_the_page(stage):
    review(stage)
    (stage.project / "pay.py").write_text("c\n")
    stage.ok("claude", "close", "--reason", "now", "--outcome", "approve", "--force")
    text = " ".join(exported(stage)[1].text.split())
    assert "Overridden, on record:" in text and "the tree moved in 1 of 1 reviewed files" in text and "Nothing was overridden" not in text


def test_where_there_is_no_room_early_texts_stand_by_their_beginning_and_the_page_says_so(relay, stage, monkeypatch):
    stage.open_pair()
    for n in range(6):
        stage.send("claude" if n % 2 == 0 else "codex", "note", f"# Note {n}\n\n" + "plain words " * 60 + f"\n\nend{n}end\n")
    monkeypatch.setattr(relay, "WHOLE_TEXTS_BYTES", 5000)
    html, tree = exported(stage)
    check_page(tree)
    shown = [n for n in range(6) if f"end{n}end" in html]
    assert shown and shown == list(range(6))[-len(shown) :] and len(shown) < 6
    assert f"The latest {len(shown)} of 6 texts are whole" in tree.text
    assert "Only its beginning is on this page; the whole is in 001-claude-note.md." in tree.text and "Note 0" in tree.text
    monkeypatch.setattr(relay, "WHOLE_TEXTS_BYTES", 100_000)
    monkeypatch.setattr(relay, "LONGEST_SHOWN", 100)
    html, tree = exported(stage)
    assert "end5end" not in html and "the whole is in 006-codex-note.md" in tree.text and "at most 100 characters" in tree.text


def test_a_file_that_is_there_stays_unless_force_is_said(stage):
    stage.open_pair()
    path = stage.file("mine", "page.html")
    done = stage.run("claude", "export", "--html", path)
    assert done.code == 2 and "exists already; nothing was written" in done.err and "--force" in done.err and path.read_text() == "mine"
    assert stage.ok("claude", "export", "--html", path, "--force").out == f"{path}\n"
    assert path.read_text().startswith("<!doctype html>")
    assert [name for name in os.listdir(stage.folder) if name.endswith(".tmp")] == []


def test_a_file_that_appears_while_the_page_is_made_stays_too(relay, stage, monkeypatch):
    stage.open_pair()
    path = stage.file("mine", "page.html")
    monkeypatch.setattr(relay, "kind_of", lambda path: "")
    assert "exists already; nothing was written" in stage.run("claude", "export", "--html", path).err and path.read_text() == "mine"


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_link_a_folder_and_a_pairs_own_folder_are_refused(stage, force):
    pair = stage.open_pair()
    (stage.folder / "link.html").symlink_to(stage.file("other", "target.html"))
    os.mkfifo(stage.folder / "pipe")
    (stage.folder / "in").symlink_to(pair)
    before = stage.snapshot(stage.shared, stage.folder / "target.html")
    wanted = (("link.html", "is a link"), ("pipe", "no regular file"), ("project", "is a folder"), ("none/x.html", "there is no folder"),
              (pair / "x.html", "a pair's folder"), ("in/x.html", "a pair's folder"), (pair / ".seen/x.html", "a pair's folder"))  # fmt: skip
    for name, why in wanted:
        done = stage.run("claude", "export", "--html", stage.folder / name, *force)
        assert done.code == 2 and why in done.err and "hint: " in done.err, done
    assert stage.snapshot(stage.shared, stage.folder / "target.html") == before


def test_a_dash_is_standard_output_and_json_says_what_was_written(stage):
    review(stage)
    printed = stage.ok("claude", "export", "--html", "-").out
    check_page(Tree(printed))
    path = stage.folder / "new.html"
    done = stage.ok("claude", "export", "--html", path, "--json")
    assert done.json == {"path": str(path), "pair": done.json["pair"], "bytes": path.stat().st_size, "artifacts": 4, "faults": []}
    assert stage.run("claude", "export", "--html", "-", "--json").code == 2
    assert "needs --html FILE" in stage.run("claude", "export").err


def test_looking_by_a_page_changes_nothing_in_the_ledger(stage):
    review(stage)
    before = stage.snapshot(stage.shared)
    exported(stage, author="codex")
    assert stage.snapshot(stage.shared) == before


@pytest.mark.slow
def test_the_kept_demo_has_what_its_last_words_say_to_look_at(stage):
    done = stage.process(None, "demo", "--keep", cwd=stage.folder, TMPDIR=str(stage.folder), timeout=120)
    assert done.code == 0, done
    folder = re.search(r"(?m)^  cd (\S+)", done.out)[1]
    looks = [line.split("    #")[0].split()[1:] for line in done.out.split("To look at it:")[1].split("\n") if "/relay " in line]
    assert [words[0] for words in looks] == ["status", "watch", "log", "export"]
    told = {words[0]: stage.ok(None, *words, cwd=folder).out for words in looks}
    assert "claude's move" in told["status"] and "1 major, 1 minor" in told["status"] and re.search(r"(?m)^  closed: .*, approve, ", told["log"])
    check_page(Tree((pathlib.Path(folder).parent / "page.html").read_text()))


@pytest.mark.slow
def test_the_pictures_in_the_documents_are_what_the_program_shows(stage):
    made = subprocess.run([ROOT / "docs/pictures/make", stage.folder], capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stderr
    for path in (ROOT / "docs/pictures").glob("*.svg"):
        assert (stage.folder / path.name).read_text() == path.read_text(), f"{path.name} is out of date: docs/pictures/make"
        assert str(ROOT) not in path.read_text() and "/tmp" not in path.read_text()
    assert (ROOT / "docs/pictures/page.png").stat().st_size < 150_000


# ---- in a browser

BODY = ("# Note on the work\n\nIt **changes** `pay.py`; see [the rules](https://example.com/rules) and ![a picture](https://example.com/x.png).\n\n"
        + "".join(f"## Part {n}\n\n- first, `refund({n})` is guarded & tested\n- second, *nothing* else in <pay>\n\nA paragraph about part {n}, as an agent writes it.\n\n"
                  f"```python\nreturn amount / parts if parts > {n} else 0\n```\n\n" for n in range(36)))  # fmt: skip


def fill(relay, pair, count):
    """So many sound artifacts of 8 KB, as 1.x wrote them."""
    for seq in range(1, count + 1):
        author, peer = ("claude", "codex") if seq % 2 else ("codex", "claude")
        stem = f"{seq:03}-{author}-note"
        meta = {"seq": seq, "author": author, "peer": peer, "kind": "note", "status": "ready", "created": "2026-11-25T10:00:00+00:00",
                "in_reply_to": seq - 1 or None, "prompt_for_next": "go on\n", "sync_needed": False}  # fmt: skip
        content = (relay.frontmatter(meta) + BODY[:8192]).encode()
        (pair / f"{stem}.md").write_bytes(content)
        (pair / f"{stem}.md.sha256").write_bytes(relay.sha256_file([(relay.sha256_of(content), f"{stem}.md")]))
        (pair / f"{stem}.ready").write_bytes(b"")


# The least contrast of any text with what lies behind it, as WCAG counts it, and whose that is.
CONTRAST = """(() => {
  const light = c => { const v = c.map(x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2] };
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3]) return c } return [255, 255, 255] };
  let least = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 200)];
  }
  return least })()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not chromium.PROGRAM:
        (pytest.fail if os.environ.get("NEEDS_CHROMIUM") else pytest.skip)(chromium.MISSING)
    made = chromium.Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["empty", "small", "900"])
def test_a_browser_shows_the_page_without_a_request_or_a_complaint(relay, stage, browser, size):
    pair = review(stage) if size == "small" else stage.open_pair()
    if size == "900":
        fill(relay, pair, 900)
    html, tree = exported(stage)
    check_page(tree)
    assert len(html.encode()) < 5_000_000
    url = (stage.folder / "page.html").as_uri()
    for dark in (False, True):
        for width in (1100, 400, 320)[: 1 + 2 * (size != "900" or dark)]:
            browser.requests.clear()
            browser.complaints.clear()
            browser.open(url, dark, width)
            assert browser.requests == [url] and browser.complaints == []
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, "it has to be pushed sideways"
        if size != "900":
            least, whose = browser.evaluate(CONTRAST)
            assert least >= 4.5, whose
        assert browser.evaluate("getComputedStyle(document.documentElement).backgroundColor") == ("rgb(21, 23, 26)" if dark else "rgb(251, 250, 247)")
    assert browser.evaluate("document.querySelectorAll('article').length") == {"empty": 0, "small": 4, "900": 900}[size]
    assert browser.evaluate("document.querySelectorAll('script, img, link, iframe, form, [onclick]').length") == 0


@pytest.mark.slow
def test_the_page_is_used_with_the_keyboard_alone_and_prints_whole(stage, browser):
    review(stage)
    exported(stage)
    browser.open((stage.folder / "page.html").as_uri())
    pressed = {"type": "keyDown", "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    browser.ask("Input.dispatchKeyEvent", **pressed)
    at = "document.activeElement"
    assert browser.evaluate(f"{at}.textContent + {at}.getBoundingClientRect().left.toFixed()") == "Skip to the record17"
    assert browser.evaluate(f"getComputedStyle({at}).outlineStyle") == "solid"
    browser.ask("Input.dispatchKeyEvent", type="char", key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    browser.ask("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    assert browser.evaluate("location.hash") == "#main"
    folded = "[...document.querySelectorAll('details:not([open]) pre')].map(e => e.checkVisibility())"
    assert not any(browser.evaluate(folded))
    browser.dress(False, "print")
    assert all(browser.evaluate(folded)) and browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.printed().startswith(b"%PDF")
    browser.dress(False)


@pytest.mark.slow
def test_what_reads_a_page_aloud_finds_landmarks_names_and_tables(stage, browser):
    review(stage)
    exported(stage)
    browser.open((stage.folder / "page.html").as_uri())
    browser.ask("Accessibility.enable")
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    browser.ask("Accessibility.disable")
    for role in ("banner", "main", "contentinfo"):
        assert [told for told, _ in roles].count(role) == 1
    assert ("navigation", "Contents") in roles and ("region", "Findings") in roles and ("article", "002 review by codex") in roles
    assert [name for role, name in roles if role == "columnheader"][:3] == ["Id", "Finding", "Fate"]
    assert ("rowheader", "exit 3") in roles and ("table", "What was run") in roles


@pytest.mark.slow
def test_hostile_texts_do_nothing_in_a_browser(stage, browser):
    stage.open_pair()
    evil = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"><iframe src=http://127.0.0.1:9/></iframe><style>*{display:none}</style>"
    stage.send("claude", "plan", f"# {evil}\n\n[a](javascript:alert(1)) ![b](http://127.0.0.1:9/x.png)\n\n{evil}\n\n```\n</code></pre>{evil}\n```\n", "go")
    exported(stage)
    url = (stage.folder / "page.html").as_uri()
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(url)
    assert browser.requests == [url] and browser.complaints == []
    assert browser.evaluate("document.title") == "demo: review record" and json.dumps(browser.evaluate("document.querySelector('h4').textContent")).count("script") == 2
    assert browser.evaluate("document.querySelector('h1').getBoundingClientRect().height > 0")
