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

import pytest
from conftest import ROOT
from helpers import chromium

PROSE = {
    "h4",
    "h5",
    "h6",
    "p",
    "ul",
    "ol",
    "li",
    "pre",
    "code",
    "blockquote",
    "strong",
    "em",
    "hr",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
PAGE = PROSE | {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "a",
    "header",
    "nav",
    "main",
    "section",
    "article",
    "footer",
    "h1",
    "h2",
    "h3",
    "dl",
    "dt",
    "dd",
    "span",
    "time",
    "q",
    "caption",
    "details",
    "summary",
    "div",
    "br",
}
VOID = {"hr", "br", "meta"}
# Pieces that mean something to Markdown, to HTML or to a terminal; the words are looked for in what comes out.
PIECES = [
    "\n",
    "\n\n",
    "\n",
    " ",
    "  ",
    "    ",
    "\t",
    "# ",
    "###### ",
    "#",
    "- ",
    "* ",
    "+ ",
    "1. ",
    "12) ",
    "> ",
    ">",
    "```",
    "~~~",
    "````py\n",
    "`",
    "``",
    "*",
    "**",
    "_",
    "|",
    "|-|",
    "---",
    "|---|:-:|\n",
    "[",
    "](",
    ")",
    "![",
    "[a](javascript:alert(1))",
    "<script>",
    "</pre>",
    "<img src=x onerror=y>",
    "&",
    "&lt;",
    '"',
    "'",
    "\\",
    "\r",
    "\x00",
    "\x1b[31m",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\ud800",
    "é",
    "漢",
    "```findings\n",
    "-->",
    "]]>",
    "<!--",
    "=",
    "~",
]


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


@pytest.mark.parametrize(
    "unit",
    [
        ">",
        "> ",
        "- ",
        "1. ",
        "*",
        "**",
        "*a ",
        "`",
        "[",
        "[a](",
        "|",
        "a|b\n-|-\n",
        "# a\n",
        "\n",
        "- \n\n",
        "```\n",
        "&",
        "\u202e",
        "  - a\n",
    ],
)
def test_a_hostile_text_grows_by_a_small_factor_and_nests_no_deeper_than_the_limit(relay, unit):
    text = unit * (20_000 // len(unit))
    html = relay.prose(text)
    assert len(html) < 12 * len(text) + 100
    assert Tree(html).deepest <= 3 * relay._MOST_NESTED + 5


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 * 4",
        "f(*args, **kwargs)",
        "__init__.py",
        "a*b*c",
        "*.py and *.md",
        "a ` tick",
        "[x] done",
        "C:\\*.*",
        "1.2 is no list",
        "#hash",
        "a | b",
    ],
)
def test_a_mark_that_is_none_stays_as_it_was_written(relay, text):
    assert relay.prose(text) == f"<p>{text}</p>"


def test_every_character_that_could_drive_a_reader_is_shown_as_an_escape(relay):
    assert (
        relay.escaped('a\x1b[0m\u202eb\u2066\u200b\r<"&')
        == "a\\x1b[0m\\u202eb\\u2066\\u200b\\r&lt;&quot;&amp;"
    )


def test_only_elements_are_html_and_everything_put_into_one_is_escaped(relay):
    assert relay.element(
        "p", "<b>", relay.element("code", "&"), class_='x"y', open=None, aria_label="l"
    ) == ('<p class="x&quot;y" aria-label="l">&lt;b&gt;<code>&amp;</code></p>')


def review(stage):
    """A pair with all there is to tell: findings and their fates, runs, a user's word, an approval, an override."""
    pair = stage.open_pair()
    (stage.project / "pay.py").write_text("a\n")
    stage.send("claude", "plan", "# Plan\n\nDo <it> [here](http://x.example/).\n")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "sh", "-c", "echo '<b>out</b>'; exit 3")
    stage.send(
        "codex",
        "review",
        "# Review\n\n```findings\nblocker pay.py:1 Zero <i>divides</i>\nnit - `x` is odd\n```\n",
        "mend",
        "--verdict",
        "changes",
    )
    (stage.project / "pay.py").write_text("b\n")
    stage.send(
        "claude", "fix", "# Fix\n\n```dispositions\n2.1 fixed guarded\n2.2 refuted no\n```\n"
    )
    stage.ok("codex", "next")
    stage.ok("codex", "continue")
    stage.ok("codex", "run", "--", "true")
    stage.send(
        "codex",
        "review",
        "# Again\n\n```dispositions\n2.1 accepted\n2.2 accepted\n```\n",
        "ship",
        "--verdict",
        "approve",
    )
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
    assert (
        tree.tags.count("h1")
        == tree.tags.count("title")
        == tree.tags.count("main")
        == tree.tags.count("nav")
        == 1
    )
    assert in_order(headings(tree)) and headings(tree)[0] == 1
    assert tree.elements[0] == ("html", {"lang": "en"})
    for tag, attributes in tree.elements:
        assert attributes.keys() <= {
            "class",
            "id",
            "href",
            "scope",
            "start",
            "datetime",
            "open",
            "lang",
            "tabindex",
            "aria-label",
            "aria-labelledby",
            "charset",
            "http-equiv",
            "content",
            "name",
        }, tag
        assert "href" not in attributes or (
            tag == "a" and attributes["href"][0] == "#" and attributes["href"][1:] in ids
        )
        assert tag != "th" or attributes.get("scope") in ("col", "row")
        assert attributes.get("aria-labelledby", ids[0]) in ids
    first = [tag for tag in tree.tags if tag in ("a", "header", "nav", "main", "footer")]
    assert first[0] == "a" and [tag for tag in dict.fromkeys(first[1:]) if tag != "a"] == [
        "header",
        "nav",
        "main",
        "footer",
    ]


def test_the_style_is_the_only_thing_that_the_page_lets_take_effect(stage):
    stage.open_pair()
    html, tree = exported(stage)
    check_page(tree)
    style = re.search("<style>(.*)</style>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(
        attributes["content"] for _, attributes in tree.elements if attributes.get("http-equiv")
    )
    assert (
        policy
        == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in style and "@import" not in style and "script" not in tree.tags


def test_titles_reasons_paths_and_commands_are_as_harmless_as_texts(stage):
    evil = '<script>x</script>\u202e"onload="y'
    stage.ok("claude", "bootstrap", "--topic", "evil", "--title", evil)
    stage.ok("codex", "next")
    (stage.project / 'a<b>&"c').write_text("x")
    stage.run("codex", "run", "--", "printf", evil)
    stage.send(
        "codex",
        "review",
        f'# {evil}\n\n```findings\nmajor "<p>":3 {evil}\n```\n{evil}\n',
        "no",
        "--verdict",
        "changes",
        "--not-run",
        "because <b>",
    )
    stage.ok("claude", "close", "--reason", evil, "--outcome", "</q><b>")
    html, tree = exported(stage)
    check_page(tree)
    assert (
        "\u202e" not in html
        and "<script" not in html
        and 'onload="' not in html
        and "</q><b>" not in html
    )
    assert tree.text.count("<script>x</script>\\u202e") >= 6 and "</q><b>" in tree.text


def test_a_file_that_is_there_stays_unless_force_is_said(stage):
    stage.open_pair()
    path = stage.file("mine", "page.html")
    done = stage.run("claude", "export", "--html", path)
    assert (
        done.code == 2
        and "exists already; nothing was written" in done.err
        and "--force" in done.err
        and path.read_text() == "mine"
    )
    assert stage.ok("claude", "export", "--html", path, "--force").out == f"{path}\n"
    assert path.read_text().startswith("<!doctype html>")
    assert [name for name in os.listdir(stage.folder) if name.endswith(".tmp")] == []


def test_looking_by_a_page_changes_nothing_in_the_ledger(stage):
    review(stage)
    before = stage.snapshot(stage.shared)
    exported(stage, author="codex")
    assert stage.snapshot(stage.shared) == before


@pytest.mark.slow
def test_the_kept_demo_has_what_its_last_words_say_to_look_at(stage):
    done = stage.process(
        None, "demo", "--keep", cwd=stage.folder, TMPDIR=str(stage.folder), timeout=120
    )
    assert done.code == 0, done
    folder = re.search(r"(?m)^  cd (\S+)", done.out)[1]
    looks = [
        line.split("    #")[0].split()[1:]
        for line in done.out.split("To look at it:")[1].split("\n")
        if "/relay " in line
    ]
    assert [words[0] for words in looks] == ["status", "watch", "log", "export"]
    told = {words[0]: stage.ok(None, *words, cwd=folder).out for words in looks}
    assert (
        "claude's move" in told["status"]
        and "1 major, 1 minor" in told["status"]
        and re.search(r"(?m)^  closed: .*, approve, ", told["log"])
    )
    check_page(Tree((pathlib.Path(folder).parent / "page.html").read_text()))


@pytest.mark.slow
def test_the_pictures_in_the_documents_are_what_the_program_shows(stage):
    made = subprocess.run(
        [ROOT / "docs/pictures/make", stage.folder], capture_output=True, text=True, timeout=200
    )
    assert made.returncode == 0, made.stderr
    for path in (ROOT / "docs/pictures").glob("*.svg"):
        assert (stage.folder / path.name).read_text() == path.read_text(), (
            f"{path.name} is out of date: docs/pictures/make"
        )
        assert str(ROOT) not in path.read_text() and "/tmp" not in path.read_text()
    assert (ROOT / "docs/pictures/page.png").stat().st_size < 150_000


# ---- in a browser

BODY = (
    "# Note on the work\n\nIt **changes** `pay.py`; see [the rules](https://example.com/rules) and ![a picture](https://example.com/x.png).\n\n"
    + "".join(
        f"## Part {n}\n\n- first, `refund({n})` is guarded & tested\n- second, *nothing* else in <pay>\n\nA paragraph about part {n}, as an agent writes it.\n\n"
        f"```python\nreturn amount / parts if parts > {n} else 0\n```\n\n"
        for n in range(36)
    )
)


def fill(relay, pair, count):
    """So many sound artifacts of 8 KB, as 1.x wrote them."""
    for seq in range(1, count + 1):
        author, peer = ("claude", "codex") if seq % 2 else ("codex", "claude")
        stem = f"{seq:03}-{author}-note"
        meta = {
            "seq": seq,
            "author": author,
            "peer": peer,
            "kind": "note",
            "status": "ready",
            "created": "2026-11-25T10:00:00+00:00",
            "in_reply_to": seq - 1 or None,
            "prompt_for_next": "go on\n",
            "sync_needed": False,
        }
        content = (relay.format_frontmatter(meta) + BODY[:8192]).encode()
        (pair / f"{stem}.md").write_bytes(content)
        (pair / f"{stem}.md.sha256").write_bytes(
            relay.sha256_file([(relay.sha256(content), f"{stem}.md")])
        )
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
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, (
                "it has to be pushed sideways"
            )
        if size != "900":
            least, whose = browser.evaluate(CONTRAST)
            assert least >= 4.5, whose
        assert browser.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
            "rgb(21, 23, 26)" if dark else "rgb(251, 250, 247)"
        )
    assert (
        browser.evaluate("document.querySelectorAll('article').length")
        == {"empty": 0, "small": 4, "900": 900}[size]
    )
    assert (
        browser.evaluate(
            "document.querySelectorAll('script, img, link, iframe, form, [onclick]').length"
        )
        == 0
    )


@pytest.mark.slow
def test_the_page_is_used_with_the_keyboard_alone_and_prints_whole(stage, browser):
    review(stage)
    exported(stage)
    browser.open((stage.folder / "page.html").as_uri())
    pressed = {"type": "keyDown", "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    browser.ask("Input.dispatchKeyEvent", **pressed)
    at = "document.activeElement"
    assert (
        browser.evaluate(f"{at}.textContent + {at}.getBoundingClientRect().left.toFixed()")
        == "Skip to the record17"
    )
    assert browser.evaluate(f"getComputedStyle({at}).outlineStyle") == "solid"
    browser.ask(
        "Input.dispatchKeyEvent",
        type="char",
        key="Enter",
        code="Enter",
        text="\r",
        windowsVirtualKeyCode=13,
    )
    browser.ask(
        "Input.dispatchKeyEvent",
        type="keyDown",
        key="Enter",
        code="Enter",
        text="\r",
        windowsVirtualKeyCode=13,
    )
    assert browser.evaluate("location.hash") == "#main"
    folded = (
        "[...document.querySelectorAll('details:not([open]) pre')].map(e => e.checkVisibility())"
    )
    assert not any(browser.evaluate(folded))
    browser.dress(False, "print")
    assert (
        all(browser.evaluate(folded))
        and browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    )
    assert browser.printed().startswith(b"%PDF")
    browser.dress(False)


@pytest.mark.slow
def test_what_reads_a_page_aloud_finds_landmarks_names_and_tables(stage, browser):
    review(stage)
    exported(stage)
    browser.open((stage.folder / "page.html").as_uri())
    browser.ask("Accessibility.enable")
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    roles = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    browser.ask("Accessibility.disable")
    for role in ("banner", "main", "contentinfo"):
        assert [told for told, _ in roles].count(role) == 1
    assert (
        ("navigation", "Contents") in roles
        and ("region", "Findings") in roles
        and ("article", "002 review by codex") in roles
    )
    assert [name for role, name in roles if role == "columnheader"][:3] == ["Id", "Finding", "Fate"]
    assert ("rowheader", "exit 3") in roles and ("table", "What was run") in roles


@pytest.mark.slow
def test_hostile_texts_do_nothing_in_a_browser(stage, browser):
    stage.open_pair()
    evil = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"><iframe src=http://127.0.0.1:9/></iframe><style>*{display:none}</style>"
    stage.send(
        "claude",
        "plan",
        f"# {evil}\n\n[a](javascript:alert(1)) ![b](http://127.0.0.1:9/x.png)\n\n{evil}\n\n```\n</code></pre>{evil}\n```\n",
        "go",
    )
    exported(stage)
    url = (stage.folder / "page.html").as_uri()
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(url)
    assert browser.requests == [url] and browser.complaints == []
    assert (
        browser.evaluate("document.title") == "demo: review record"
        and json.dumps(browser.evaluate("document.querySelector('h4').textContent")).count("script")
        == 2
    )
    assert browser.evaluate("document.querySelector('h1').getBoundingClientRect().height > 0")
