"""The page: texts become a fixed set of elements, whatever they hold; what is on it is proven; it
loads nothing and leads nowhere."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import random
import re
from html.parser import HTMLParser

import pytest
from conftest import dispositions, findings
from helpers import chromium

PROSE_TAGS = "h4 h5 h6 p ul ol li pre code blockquote strong hr"
PAGE_TAGS = "html head meta title style body a header nav main section article footer h1 h2 h3"
ATTRIBUTES = "class id href start open lang tabindex aria-label aria-labelledby charset http-equiv"
PROSE = {*PROSE_TAGS.split()}
PAGE = PROSE | {*PAGE_TAGS.split(), "span", "details", "summary", "div"}
VOID = {"hr", "meta"}
# Pieces that mean something to Markdown, HTML or a terminal.
PIECES = """# |###### |#|- |* |+ |1. |12) |> |>|```|~~~|````py~|`|``|*|**|_|---|[|](|)|![|&|&lt;|"|'|\\
[a](javascript:alert(1))|<script>|</pre>|<img src=x onerror=y>|```findings~|-->|]]>|<!--|=|é|漢"""
PIECES = [piece.replace("~", "\n") for piece in re.split(r"[|\n]", PIECES)]
PIECES += ["\n", "\n\n", " ", "  ", "    ", "\t", "|", "|-|", "|---|:-:|\n", "~~~", "~", "\r", "\0"]
PIECES += ["\x1b[31m", "\u202e", "\u2066", "\u200b", "\ufeff", "\ud800"]


class Tree(HTMLParser):
    """What a browser would make of it: elements with attributes, text, the deepest nesting. Fails
    where a tag is not closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open, self.deepest = [], [], [], 0
        self.feed(html)
        self.close()
        assert not self.open
        self.tags = [tag for tag, _ in self.elements]
        self.text = "".join(self.texts)
        self.words = " ".join(self.text.split())
        self.headings = [int(tag[1]) for tag in self.tags if re.fullmatch("h[1-6]", tag)]

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


def in_order(levels):
    return all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


# ---- Markdown


@pytest.mark.parametrize("seed", range(8))
def test_a_text_becomes_nothing_but_the_fixed_set_and_loses_no_word(relay, seed):
    dice = random.Random(seed)
    for _ in range(60):
        words = [f"w{n}w" for n in range(dice.randrange(12))]
        pieces = dice.choices(PIECES, k=dice.randrange(60)) + words
        dice.shuffle(pieces)
        text = "".join(pieces)
        html = relay.prose(text)
        tree = Tree(html)
        assert {*tree.tags} <= PROSE, text
        assert all(attributes.keys() <= {"start", "class"} for _, attributes in tree.elements), text
        assert in_order([3, *tree.headings]), text
        assert tree.deepest <= 20, text
        assert all(word in tree.text for word in words), text
        assert html.replace("\n", "").replace("\t", "").isprintable(), text


UNITS = "> |>|- |1. |*|**|*a |`|[|[a](|# a~|~|- ~~|```~|&|\u202e|  - a~"


@pytest.mark.parametrize("unit", [*UNITS.replace("~", "\n").split("|"), "|", "a|b\n-|-\n"])
def test_a_hostile_text_grows_by_a_small_factor_and_nests_to_a_limit(relay, unit):
    text = unit * (20_000 // len(unit))
    html = relay.prose(text)
    assert len(html) < 12 * len(text) + 100
    assert Tree(html).deepest <= 20


def test_what_agents_write_reads_as_they_meant_it(relay):
    html = relay.prose(
        "# Plan\n\nLet `f(a)` **split *it* up**, see [docs](https://x/a_b), ![shot](http://e/x.png)."
        "\ngoes on\n\n## Sub\n\n- a\n  more\n- b\n    - in\n\n3. three\n4. four\n\n> said\n\n"
        "| a | b |\n|---|:-:|\n| `x` | y |\n\n```py\n<b> & `x`\n```\n\n---\n\n# Next one\n"
    )
    assert html == (
        "<h4>Plan</h4><p>Let <code>f(a)</code> <strong>split *it* up</strong>, see "
        "[docs](https://x/a_b), ![shot](http://e/x.png).\ngoes on</p><h5>Sub</h5>"
        '<ul class="in0"><li>a\nmore</li><li>b</li></ul><ul class="in2"><li>in</li></ul>'
        '<ol class="in0" start="3"><li>three</li><li>four</li></ol>'
        "<blockquote><p>said</p></blockquote>"
        "<pre><code>| a | b |\n|---|:-:|\n| `x` | y |</code></pre>"
        "<p><code>py</code></p><pre><code>&lt;b&gt; &amp; `x`</code></pre><hr><h4>Next one</h4>"
    )


NO_MARKS = r"2 * 3 * 4; f(*args, **kwargs); __init__.py; a*b*c; *.py and *.md; a ` tick; [x] done"
NO_MARKS += r"; C:\*.*; 1.2 is no list; #hash; a | b"


@pytest.mark.parametrize("text", NO_MARKS.split("; "))
def test_what_is_no_mark_stays_as_it_was_written(relay, text):
    assert relay.prose(text) == f"<p>{text}</p>"


def test_whatever_is_put_into_an_element_is_escaped_and_made_visible(relay):
    hostile = 'a\x1b[0m\u202eb\u2066\u200b\r<"&'
    assert relay.escaped(hostile) == "a\\x1b[0m\\u202eb\\u2066\\u200b\\r&lt;&quot;&amp;"
    code = relay.element("code", "&")
    element = relay.element("p", "<b>", code, class_='x"y', open=None, aria_label="l")
    html = '<p class="x&quot;y" aria-label="l">&lt;b&gt;<code>&amp;</code></p>'
    assert element == html


# ---- the page


def review(stage):
    """A pair with all there is to tell: findings and fates, runs, the user's word, an approval."""
    pair, pay = stage.open_pair(), stage.project / "pay.py"
    pay.write_text("a\n")
    stage.send("claude", "plan", "# Plan\n\nDo <it> [here](http://x.example/).\n")
    stage.ok("codex", "next")
    stage.run("codex", "run", "--", "sh", "-c", "echo '<b>out</b>'; exit 3")
    body = findings("blocker pay.py:1 Zero <i>divides</i>", "  in detail", "nit - `x` is odd")
    stage.send("codex", "review", body, "mend", "--verdict", "changes")
    pay.write_text("b\n")
    stage.send("claude", "fix", dispositions("2.1 fixed guarded", "2.2 refuted no"))
    stage.ok("codex", "next")
    stage.ok("codex", "continue")
    stage.ok("codex", "run", "--", "true")
    body = dispositions("2.1 accepted", "2.2 accepted")
    stage.send("codex", "review", body, "ship", "--verdict", "approve")
    return pair


def exported(stage, *more, code=0):
    """The page as text, and as a browser would see it; it is checked for what holds for each page."""
    path = stage.folder / "page.html"
    done = stage.run("claude", "export", "--html", path, "--force", *more)
    assert done.code == code, done
    html = path.read_text()
    return html, check_page(Tree(html))


def check_page(tree):
    """Only known elements, places that exist, headings in order, nothing that loads."""
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert {*tree.tags} <= PAGE and len(ids) == len({*ids})
    for tag in ("h1", "title", "main", "nav"):
        assert tree.tags.count(tag) == 1
    assert in_order(tree.headings) and tree.headings[0] == 1
    assert tree.elements[0] == ("html", {"lang": "en"})
    for tag, attributes in tree.elements:
        assert attributes.keys() <= {*ATTRIBUTES.split(), "content", "name"}, tag
        assert attributes.get("aria-labelledby", ids[0]) in ids
        if "href" in attributes:
            assert tag == "a" and attributes["href"][0] == "#" and attributes["href"][1:] in ids
    landmarks = [tag for tag in tree.tags if tag in ("header", "nav", "main", "footer")]
    assert landmarks == ["header", "nav", "main", "footer"]
    assert tree.tags.index("a") < tree.tags.index("header"), "the way past the contents comes first"
    return tree


def test_the_page_tells_the_whole_review(stage):
    pair = review(stage)
    html, tree = exported(stage)
    for words in (
        "Round 1, 20",
        "Round 2, 20",
        'Resolved 2.1 blocker pay.py:1 "Zero <i>divides</i>"',
        'fixed in 003: "guarded"',
        "accepted in 004",
        "in detail",
        "exit 3, ",
        "<b>out</b>",
        "codex review changes: ",
        "codex review approve: ",
        "allowed: the working tree was that of 003",
        "changed since 002: pay.py",
        "the user decided to continue",
        "all verified",
        "[here](http://x.example/)",
        "sha256sum -c",
    ):
        assert words in tree.words, words
    assert tree.text.count("Zero <i>divides</i>") == 1, "each finding is shown once"
    for path in pair.glob("0*.md"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in tree.text
    assert str(stage.folder) not in html


def test_the_style_is_the_only_thing_that_the_page_lets_take_effect(stage):
    stage.open_pair()
    html, tree = exported(stage)
    style = re.search("<style>(.*)</style>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policies = [made["content"] for _, made in tree.elements if made.get("http-equiv")]
    allowed = f"style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policies == [f"default-src 'none'; {allowed}"]
    assert "url(" not in style and "@import" not in style


def test_titles_reasons_paths_and_commands_are_as_harmless_as_texts(stage):
    evil = '<script>x</script>\u202e"onload="y'
    stage.ok("claude", "bootstrap", "--topic", "evil", "--title", evil)
    stage.ok("codex", "next")
    (stage.project / 'a<b>&"c').write_text("x")
    stage.run("codex", "run", "--", "printf", evil)
    body = f"# {evil}\n\n" + findings(f'major "<p>":3 {evil}') + f"{evil}\n"
    stage.send("codex", "review", body, "no", "--verdict", "changes", "--not-run", "because <b>")
    stage.ok("claude", "close", "--reason", evil, "--outcome", "</q><b>")
    html, tree = exported(stage)
    assert "\u202e" not in html and "<script" not in html and 'onload="' not in html
    assert "</q><b>" not in html and "</q><b>" in tree.text
    assert tree.text.count("<script>x</script>\\u202e") >= 6


def test_a_damaged_artifact_is_named_and_none_of_its_bytes_are_shown(stage):
    pair = review(stage)
    path = pair / "001-claude-plan.md"
    path.chmod(0o600)
    path.write_text(path.read_text() + "smuggled words\n")
    html, tree = exported(stage, code=1)
    assert "smuggled" not in html and "Do &lt;it&gt;" not in html
    assert "001 claude plan DAMAGED: " in tree.words and "all verified" not in tree.text
    (pair / "004-codex-review.ready").unlink()
    assert "LOST: 004-codex-review" in exported(stage, code=1)[1].text


def test_what_a_later_artifact_contradicts_is_not_shown_either(stage):
    """Text and hash are rewritten together: only the artifact written after it tells."""
    pair = review(stage)
    path, sums = pair / "001-claude-plan.md", pair / "001-claude-plan.md.sha256"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("Do <it>", "forged words"))
    lines = sums.read_text().split("\n")
    lines[0] = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
    sums.chmod(0o600)
    sums.write_text("\n".join(lines))
    html, tree = exported(stage, code=1)
    assert "forged" not in html and "001 claude plan DAMAGED: " in tree.words


def test_an_ended_pair_is_told_to_its_end(stage):
    pair = review(stage)
    (stage.project / "pay.py").write_text("c\n")
    stage.ok("claude", "close", "--reason", "done", "--outcome", "approve", "--force")
    text = exported(stage, "--pair-id", pair.name)[1].words
    assert "forced against unmet conditions" in text.lower() and 'reason: "done"' in text
    assert "approved in" not in text.lower()
    assert "overridden by claude: " in text and f"cd .shared/_archive/{pair.name}" in text


# ---- the file


def test_a_file_stays_unless_force_is_given(stage, monkeypatch):
    stage.open_pair()
    path = stage.file("mine", "page.html")
    done = stage.refused("claude", "export", "--html", path)
    assert "nothing was written" in done.err and "--force" in done.err
    monkeypatch.setattr(os.path, "islink", lambda path: False)
    (stage.folder / "link.html").symlink_to(path)  # As one that appears while the page is made.
    stage.refused("claude", "export", "--html", stage.folder / "link.html")
    assert path.read_text() == "mine"
    assert stage.ok("claude", "export", "--html", path, "--force").out == f"{path}\n"
    assert path.read_text().startswith("<!doctype html>")
    assert not [name for name in os.listdir(stage.folder) if name.endswith(".tmp")]


@pytest.mark.parametrize("force", [(), ("--force",)], ids=str)
def test_what_is_no_file_and_a_pairs_own_directory_are_refused(stage, force):
    pair = stage.open_pair()
    (stage.folder / "link.html").symlink_to(stage.file("other", "target.html"))
    os.mkfifo(stage.folder / "pipe")
    (stage.folder / "in").symlink_to(pair)
    before = stage.snapshot(stage.shared, stage.folder / "target.html")
    paths = ("project", "none/x.html", pair / "x.html", "in/x.html", pair / ".seen/x.html")
    for name in ("link.html", "pipe", *paths):
        done = stage.refused("claude", "export", "--html", stage.folder / name, *force)
        assert "hint: " in done.err, done
        # A hint names no --force that would not help, and moves nothing of the user's away.
        assert "--force" not in done.err and "hint: move" not in done.err, done
    assert (stage.folder / "link.html").is_symlink() and (stage.folder / "pipe").is_fifo()
    assert stage.snapshot(stage.shared, stage.folder / "target.html") == before


def test_a_dash_is_standard_output_and_json_says_what_was_written(stage):
    review(stage)
    before = stage.snapshot(stage.shared)
    check_page(Tree(stage.ok("claude", "export", "--html", "-").out))
    path = stage.folder / "new.html"
    row = stage.ok("claude", "export", "--html", path, "--json").json
    size = path.stat().st_size
    rest = {"pair": row["pair"], "bytes": size, "artifacts": 4, "faults": []}
    assert row == {"path": str(path), **rest}
    stage.refused("claude", "export", "--html", "-", "--json")
    stage.refused("claude", "export")
    assert stage.snapshot(stage.shared) == before, "looking changes nothing"


# ---- in a browser


PART = """## Part {n}

- first, `refund({n})` is guarded & tested
- second, *nothing* else in <pay>

A paragraph about part {n}, as an agent writes it.

```python
return amount / parts if parts > {n} else 0
```

"""
BODY = "# Note\n\nIt **changes** `pay.py`; see [the rules](https://example.com/) and ![a picture](x).\n\n"
BODY += "".join(PART.format(n=n) for n in range(36))


def fill(relay, pair, count):
    """So many sound artifacts of 8 KB, as 1.x wrote them."""
    meta = {"status": "ready", "created": "2026-11-25T10:00:00+00:00"}
    for seq in range(1, count + 1):
        author, peer = ("claude", "codex") if seq % 2 else ("codex", "claude")
        name = {"seq": seq, "author": author, "peer": peer, "kind": "note"}
        rest = {"in_reply_to": seq - 1 or None, "prompt_for_next": "go on\n", "sync_needed": False}
        content = (relay.format_frontmatter(name | meta | rest) + BODY[:8192]).encode()
        stem = f"{seq:03}-{author}-note"
        (pair / f"{stem}.md").write_bytes(content)
        (pair / f"{stem}.md.sha256").write_text(f"{relay.sha256(content)}  {stem}.md\n")
        (pair / f"{stem}.ready").write_bytes(b"")


# The least contrast of any text with what is behind it, as WCAG computes it, and whose that is.
CONTRAST = """(() => {
  const linear = x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3]) return c;
    }
    return [255, 255, 255];
  };
  let least = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 200)];
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not chromium.PROGRAM:
        (pytest.fail if os.environ.get("NEEDS_CHROMIUM") else pytest.skip)(chromium.MISSING)
    browser = chromium.Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("artifacts", [0, 4, 900])
def test_a_browser_shows_the_page_without_a_request_or_a_complaint(
    relay, stage, browser, artifacts
):
    if artifacts == 4:
        review(stage)
    else:
        fill(relay, stage.open_pair(), artifacts)
    exported(stage)
    url = (stage.folder / "page.html").as_uri()
    for dark, paper in ((False, "rgb(251, 250, 247)"), (True, "rgb(21, 23, 26)")):
        for width in (1100, 400, 320):
            browser.open(url, dark, width)
            assert browser.requests == [url] and browser.complaints == []
            wide = browser.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, "it has to be scrolled sideways"
        if artifacts < 900:
            least, element = browser.evaluate(CONTRAST)
            assert least >= 4.5, element
        colour = "getComputedStyle(document.documentElement).backgroundColor"
        assert browser.evaluate(colour) == paper
    count = "document.querySelectorAll('{}').length"
    assert browser.evaluate(count.format("article")) == artifacts
    assert browser.evaluate(count.format("script, img, link, iframe, form, [onclick]")) == 0


@pytest.mark.slow
def test_the_page_is_used_with_the_keyboard_alone_and_prints_whole(stage, browser):
    review(stage)
    exported(stage)
    browser.open((stage.folder / "page.html").as_uri())
    tab = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    browser.ask("Input.dispatchKeyEvent", type="keyDown", **tab)
    focus = "document.activeElement"
    assert browser.evaluate(f"{focus}.textContent") == "Skip to the record"
    assert browser.evaluate(f"{focus}.getBoundingClientRect().left") >= 0
    assert browser.evaluate(f"getComputedStyle({focus}).outlineStyle") == "solid"
    enter = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
    for kind in ("char", "keyDown"):
        browser.ask("Input.dispatchKeyEvent", type=kind, **enter)
    assert browser.evaluate("location.hash") == "#main"
    folded = (
        "[...document.querySelectorAll('details:not([open]) pre')].map(e => e.checkVisibility())"
    )
    assert browser.evaluate(folded) and not any(browser.evaluate(folded))
    browser.show_as(media="print")
    assert all(browser.evaluate(folded))
    nav = "getComputedStyle(document.querySelector('nav')).display"
    assert browser.evaluate(nav) == "none"
    assert base64.b64decode(browser.ask("Page.printToPDF")["data"]).startswith(b"%PDF")


@pytest.mark.slow
def test_a_screen_reader_is_given_landmarks_and_names(stage, browser):
    review(stage)
    exported(stage)
    browser.open((stage.folder / "page.html").as_uri())
    browser.ask("Accessibility.enable")
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    browser.ask("Accessibility.disable")
    seen = [node for node in nodes if not node["ignored"]]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in seen]
    roles = [role for role, _ in named]
    assert [roles.count(role) for role in ("banner", "main", "contentinfo")] == [1, 1, 1]
    assert ("navigation", "Contents") in named and ("region", "Findings") in named
    assert len([name for role, name in named if role == "article" and "review" in name]) == 2


@pytest.mark.slow
def test_hostile_texts_do_nothing_in_a_browser(stage, browser):
    stage.open_pair()
    taken = "document.title='taken'"
    evil = f'<script>{taken}</script><img src=x onerror="{taken}"><style>*{{display:none}}</style>'
    evil += "<iframe src=http://127.0.0.1:9/></iframe>"
    links = "[a](javascript:alert(1)) ![b](http://127.0.0.1:9/x.png)"
    body = f"# {evil}\n\n{links}\n\n{evil}\n\n```\n</code></pre>{evil}\n```\n"
    stage.send("claude", "plan", body, "go")
    exported(stage)
    url = (stage.folder / "page.html").as_uri()
    browser.open(url)
    assert browser.requests == [url] and browser.complaints == []
    assert browser.evaluate("document.title") == "demo: review record"
    heading = browser.evaluate("document.querySelector('h4').textContent")
    assert json.dumps(heading).count("script") == 2
    assert browser.evaluate("document.querySelector('h1').getBoundingClientRect().height > 0")
