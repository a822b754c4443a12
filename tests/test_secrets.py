"""What is certainly a secret is not published, whatever carries it; what only looks like one passes.

No secret-looking literal stands here: each is put together when the tests run.
"""

import json
import random
import string
import sys

import pytest
from conftest import RELAY

MADE = random.Random(2)
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def some(length, letters=ALNUM):
    """Letters as a generator of keys gives them, the same in each run."""
    return "a7Bc"[: length if letters is ALNUM else 0] + "".join(MADE.choice(letters) for _ in range(length - (min(4, length) if letters is ALNUM else 0)))


def key_block(name="RSA ", joint="\n"):
    lines = [some(64, ALNUM + "+/") for _ in range(6)]
    return joint.join([f"-----BEGIN {name}PRIV" + "ATE KEY-----", *lines, f"-----END {name}PRIV" + "ATE KEY-----"])


UUID = "-".join(some(length, HEX) for length in (8, 4, 4, 4, 12))
GITHUB = "gh" + "p_" + some(36)
AWS = "AK" + "IA" + "Q7" + some(14, string.ascii_uppercase + "234567")
CAUGHT = {
    "private-key": [
        key_block(), key_block("EC "), key_block(""), key_block("OPENSSH "), key_block("ENCRYPTED "), key_block(joint="\r\n"),
        key_block(joint="\\n"), key_block(joint='\\n" +\n  "'), key_block(joint="\n> "), key_block(joint=" "),
        "-----BEGIN PGP PRIV" + f"ATE KEY BLOCK-----\nVersion: 1\n\n{some(64)}\n{some(64)}\n",
        "PuTTY-User-Key-File-2: ssh-rsa\nPrivate" + f"-Lines: 8\n{some(64)}\n{some(64)}\nPrivate-MAC: 0\n",
    ],
    "aws-access-key": [AWS, f"X-Amz-Credential={AWS}%2F2026", "AS" + "IA" + AWS[4:]],
    "aws-secret-key": ["aws_secret_access" + f"_key = {some(40, ALNUM + '/+')}", f'"Secret' + f'AccessKey": "{some(40)}"'],
    "gcp-api-key": ["AI" + "za" + some(35, ALNUM + "-_")],
    "gcp-client-secret": ["GOC" + "SPX-" + some(28)],
    "gcp-access-token": ["ya" + "29." + some(120, ALNUM + "-_")],
    "azure-storage-key": ["Account" + f"Key={some(86)}==;EndpointSuffix=core.windows.net"],
    "azure-client-secret": ["x7Q8" + "Q~" + some(34)],
    "azure-sas": [f"https://a.blob.core.windows.net/c?sv=2024-01-01&si" + f"g={some(20)}%2F{some(20)}%3D"],
    "azure-devops-token": [some(76) + "AZ" + "DO" + some(4)],
    "digitalocean-token": ["dop" + "_v1_" + some(64, HEX)],
    "databricks-token": ["da" + "pi" + some(32, HEX)],
    "vault-token": ["hv" + "s." + some(95)],
    "terraform-token": [some(14) + ".atlas" + "v1." + some(67)],
    "github-token": [GITHUB, "gh" + "o_" + some(36), "gh" + "s_" + some(36), f"_{GITHUB}_", f"https://{GITHUB}@github.com/o/r.git"],
    "github-fine-grained-token": ["github" + "_pat_" + some(22) + "_" + some(59)],
    "gitlab-token": ["gl" + "pat-" + some(20), f"https://oauth2:{'gl' + 'pat-' + some(20)}@gitlab.com/o/r.git", "gl" + "ptt-" + some(40, HEX)],
    "bitbucket-token": ["AT" + "BB" + some(32)],
    "atlassian-token": ["ATA" + "TT3xFf" + some(180)],
    "npm-token": ["np" + "m_" + some(36), "//registry.npmjs.org/:_auth" + f"Token={UUID}"],
    "pypi-token": ["py" + "pi-AgE" + "IcHlwaS5vcmc" + some(120)],
    "rubygems-token": ["ruby" + "gems_" + some(48, HEX)],
    "cargo-token": ["ci" + "o" + some(32)],
    "nuget-token": ["oy" + "2" + some(43, string.ascii_lowercase + string.digits)],
    "docker-token": ["dckr" + "_pat_" + some(27)],
    "openai-key": ["s" + "k-" + some(48), "s" + "k-proj-" + some(120), "s" + "k-svcacct-" + some(120)],
    "anthropic-key": ["s" + "k-ant-api03-" + some(93, ALNUM + "-_") + "AA"],
    "openrouter-key": ["s" + "k-or-v1-" + some(64, HEX)],
    "huggingface-token": ["h" + "f_" + some(34)],
    "groq-key": ["gs" + "k_" + some(52)],
    "replicate-token": ["r" + "8_" + some(37)],
    "slack-token": ["xo" + "xb-" + f"{some(12, '98765')}-{some(12, '98765')}-{some(24)}", "xa" + "pp-1-" + f"A0B9C8D7E6F-{some(13, '98765')}-{some(64, HEX)}"],
    "slack-webhook": ["https://hooks.slack.com/serv" + f"ices/T0A9B8C7D/B0A9B8C7D/{some(24)}"],
    "discord-token": ["M" + "T" + some(24) + "." + some(6) + "." + some(38)],
    "discord-webhook": [f"https://discord.com/api/web" + f"hooks/{some(18, '98765')}/{some(68)}"],
    "telegram-token": [some(10, "98765") + ":A" + "A" + some(33)],
    "twilio-key": ["S" + "K" + some(32, HEX)],
    "sendgrid-key": ["S" + "G." + some(22) + "." + some(43)],
    "mailchimp-key": [some(32, HEX) + "-us" + "12"],
    "stripe-key": ["sk" + "_live_" + some(24), "rk" + "_live_" + some(99), "sk" + "_test_" + some(24)],
    "stripe-webhook-secret": ["wh" + "sec_" + some(32)],
    "square-token": ["sq" + "0atp-" + some(22)],
    "shopify-token": ["shp" + "at_" + some(32, HEX)],
    "url-password": [
        "postgres://app:Wq8" + "zR3vT@db.internal/x", "https://me:hun" + "ter2@git.company.io/r", "redis://:Wq8" + "zR3vT@cache:6379/0",
        "amqp://me@corp.io:Wq8" + "zR3v%40T@mq", "mongodb+srv://u:Wq8" + "zR3vT@${HOST}/x", "https://u:%40Wq8" + "zR3vT@git.company.io",
    ],
    "bearer-token": [f"Authorization: Bea" + f"rer {some(32)}", f'"bea' + f'rer {some(40, HEX)}"', "Authorization: Bea" + f"rer eyJ{some(20)}.eyJ{some(60)}.{some(43)}"],
    "basic-auth": ["Authorization: Ba" + "sic " + "YXBwOldxOHpSM3ZUIQ=="],
}  # fmt: skip
SHAPES = [(kind, text) for kind, texts in CAUGHT.items() for text in texts]

HARMLESS = [
    # names and code
    "struct sk_buff *skb = alloc_skb_with_frags(header_len, data_len);", "sk_stream_wait_memory_locked()", 'class="sk-folding-cube-animation sk-circle-fade-dot"',
    ".sk-chase-dot-before-the-second-animation { width: 1px }", "npm_config_registry_and_npm_lifecycle_event", "hf_hub_download_and_load_the_model",
    "pypi-publish-action-with-trusted-publishers", "ghp_import", "gho_", "glpat-", "def test_github_pat_is_refused_when_it_has_expired():",
    "xoxb-not-a-real-token-this-will-not-work", "const AIzaLoader = require('aiza-loader-with-a-long-name-of-35-letters')", "SG.Console.WriteLine",
    "SKIP_THE_TESTS_WHEN_THE_NETWORK_IS_DOWN", "dapiVersionOfTheDatabricksClient", "shpat_", "risk-free-and-task-based-desk-review",
    "com.example.service.http.token.TokenService", "from sq0 import idp", "LTAI", "EAAAAAAAA", "oy2", "patternMatchingIsFun.withDots",
    # hashes, ids, data
    "commit 0123456789abcdef0123456789abcdef01234567", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "index 83db48f..bf269f4 100644",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  file", "123e4567-e89b-42d3-a456-426614174000",
    "sha512-" + some(86) + "==", "data:image/png;base64," + "iVBORw0KGgo" + some(900, ALNUM + "+/"), "go.sum h1:" + some(43) + "=", some(64, HEX),
    "docker.io/library/nginx@sha256:" + some(64, HEX), "docker://nginx:1.25.3-alpine-slim@sha256:" + some(64, HEX), "ssh-ed25519 AAAA" + some(64) + " me@host",
    # documentation
    "AK" + "IAIOSFODNN7EXAMPLE", "aws_secret_access" + "_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "AK" + "IAI44QH8DHBEXAMPLE",
    "sk" + "_test_4eC39HqLyjWDarjtT1zdp7dc", "gh" + "p_1234567890abcdefghijklmnopqrstuvwxyz", "gh" + "p_" + "x" * 36, "gh" + "p_" + "0" * 36, "gh" + "p_" + "X" * 36,
    "110201543:AAHdqTcv" + "CH1vGWJxfSeofSAs0K5PALDsaw", "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    "sk-ant-api03-...", "sk-proj-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "s" + "k-" + "your-openai-api-key-goes-in-here-please-and-thank-you1",
    "Account" + "Key=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    # placeholders
    "TODO: say which token", "password=changeme", "password = os.environ['PASSWORD']", "PASSWORD=", "token: ${{ secrets.GITHUB_TOKEN }}", "api_key: <your key>",
    "GITHUB_TOKEN=$TOKEN", "export NPM_TOKEN=xxxx", "Authorization: Bearer <token>", "Authorization: Bearer $TOKEN", "Authorization: Bearer ${TOKEN_WITH_A_LONG_NAME_12345}",
    "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_IN_HERE_1", "Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...", "Bearer authentication-and-authorization-2",
    "the bearer of this message is authorized for oauth2", "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic authentication is a basic scheme", "Basic dXNlcjpwYXNzd29yZA==",
    # addresses
    "https://user:password@example.com/", "https://user:pass@host/", "postgres://postgres:postgres@localhost:5432/postgres", "https://user:Wq8" + "zR3vT@example.com/",
    "https://$USER:$PASSWORD@host/", "https://${USER}:${PASS}@host", "https://<user>:<password>@host", "https://x-access-token:${{ secrets.T }}@github.com/o/r",
    "http://localhost:8080/a@b", "git@github.com:a/b.git", "ssh://git@github.com:22/a/b", "https://medium.com/@user/a:b", "mailto:me@example.com", "redis://:secret@localhost",
    "https://user:********@host/", "https://user:[REDACTED]@host", "https://user:xxxx@host", "https://u:p@h", "https://host:8443/path?x=a:b@c", "ftp://anonymous:guest@ftp.host",
    "https://{username}:{password}@{host}/", "https://%s:%s@%s", "http://gebruiker:wachtwoord@server:poort/", "http://jschmoe:xyzzy@www.bogus.net:8000/", "https://%USER%:%PASSWORD%@host", "this is clearer " + some(32, HEX), "see http://a.b/c: me@host",
    # keys, in words
    "-----BEGIN PUBLIC KEY-----\n" + some(64) + "\n-----END PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----\n" + some(64) + "\n", "-----BEGIN PRIV" + "ATE KEY-----",
    "-----BEGIN RSA PRIV" + "ATE KEY-----\n...\n-----END RSA PRIV" + "ATE KEY-----", "-----BEGIN PRIV" + "ATE KEY-----\n<your key>\n-----END PRIV" + "ATE KEY-----", "the PRIVATE KEY stays at home",
    "it begins with `-----BEGIN PRIV" + "ATE KEY-----` as of\ncommit 0123456789abcdef0123456789abcdef01234567 and " + some(64),
    # patterns that describe secrets
    r"gh[pousr]_[A-Za-z0-9]{36,255}", r"AKIA[0-9A-Z]{16}", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]+?-----END", r"xox[baprs]-([0-9a-zA-Z]{10,48})", r"://[^/\s:@]+:([^/\s@]{3,50})@",
    r"sk-ant-api03-[\w\-]{93}AA", "gh" + "p_" + some(35), "AI" + "za" + some(30), "np" + "m_" + some(30),
]  # fmt: skip


def kinds_in(text):
    return {each.kind for each in RELAY.secrets_in(text)}


def test_the_tables_are_as_long_as_promised():
    assert len({text for _, text in SHAPES}) >= 40 and len({*HARMLESS}) >= 60
    assert {*CAUGHT} <= RELAY.secret_kinds()


@pytest.mark.parametrize(("kind", "text"), SHAPES, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(SHAPES)])
def test_a_real_shape_is_caught_wherever_it_stands(kind, text):
    """In a line, in quotes, in brackets, in JSON, behind its escapes, with other line ends, in blocks of the record."""
    for around in ("{}", "a {} b", '"{}"', "'{}',", "`{}`", "({})", "KEY={}", "x: {}\r", "令牌{}", "- {}.", "[{}]", "<{}>", "**{}**", '{{\\"k\\":\\"{}\\"}}', "a\\n{}\\n", "a\\u0022{}\\u0022"):
        held = around.format(text)
        found = RELAY.secrets_in(f"one\n\nthree {held}\nfour")
        assert [(each.kind, each.line) for each in found] == [(kind, 3 + (text.find("Private-Lines") > 0))], around
        assert all(text[at : at + 24] not in repr(found) for at in range(len(text) - 24))
    for around in ("```findings\nmajor src/a.py:1 it holds {}\n```", "```dispositions\n4.1 fixed {}\n```"):
        assert kinds_in(around.format(text)) == {kind}


@pytest.mark.parametrize("text", HARMLESS, ids=lambda text: text[:40])
def test_a_look_alike_passes(text):
    for around in ("{}", "a {} b", '"{}"', "`{}`", "({})", "KEY={}", "{}\r\n"):
        assert not kinds_in(around.replace("{}", text)), around


@pytest.mark.parametrize("text", ["sk_buff", "npm_lifecycle_event", "tests/test_github.py", "password = None", "TODO"])
def test_the_words_beside_a_secret_do_not_hide_it(text):
    assert kinds_in(f"{text}\n{text} {GITHUB} {text}") == {"github-token"}


def test_each_line_is_named_once_and_in_order():
    found = RELAY.secrets_in(f"{AWS}\n{GITHUB} {GITHUB}\n\n{AWS}\n")
    assert [(each.kind, each.line) for each in found] == [("aws-access-key", 1), ("github-token", 2), ("github-token", 2), ("aws-access-key", 4)]


def pad(unit, length=60_000):
    return (unit * (length // len(unit) + 1))[:length]


HOSTILE = ["ghp_", "(ghp_", "://:@", "a://b:c@", "sk-", ".sk-", "MT", "(MT", "12345678:AA", "Bearer ", "bearer:", "Basic dXNlcjpw ", "-----BEGIN ", "-----BEGIN PRIV" + "ATE KEY-----",
           "Private-Lines: ", "sig=", "://" + "a" * 297, "a" * 76 + "AZDO", "%ghp_", "\\nghp_", "\n", "A", "Bearer " + "a1B" * 7 + " "]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE, ids=lambda unit: unit[:20])
def test_the_work_grows_with_the_text_and_not_faster(unit):
    """Calls are counted, not time: three times the text, at most three times the calls and some; no call sees far."""
    counts = []
    for length in (60_000, 180_000):
        calls = 0

        def count(_frame, event, _argument):
            nonlocal calls
            calls += event in ("call", "c_call")

        text = pad(unit, length)
        sys.setprofile(count)
        try:
            RELAY.secrets_in(text)
        finally:
            sys.setprofile(None)
        counts.append(calls)
    assert counts[1] <= 3.2 * counts[0] + 2000


def test_a_text_without_a_suspicion_costs_no_import_of_re(stage, monkeypatch):
    monkeypatch.delitem(sys.modules, "re")
    RELAY.secrets_in("# Plan\nsee https://example.org/a and me@example.org, `sk_buff`, a bearer token, " + some(64, HEX) + "\n" + GITHUB)
    assert "re" not in sys.modules


# ---- what is published


def opened(stage):
    path = stage.open_pair()
    return path, {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file() and ".seen" not in file.parts}


def unchanged(path, before):
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file() and ".seen" not in file.parts} == before


def silent(done, *secrets):
    """Nothing printed holds a secret, or any part of one that is worth something."""
    return all(secret[at : at + 12] not in done.out + done.err for secret in secrets for at in range(len(secret) - 11))


WAYS = {
    "the body": (f"# Plan\n\nuse {GITHUB}\n", ["--next", "go"], "body.md, line 3: github-token"),
    "the prompt in the file": (f"# Plan\n\n## Next\n\nuse {GITHUB}\n", [], "body.md, line 5: github-token"),
    "the prompt typed": ("# Plan\n", ["--next", f"use {GITHUB}"], "--next, line 1: github-token"),
    "a path": ("# Plan\n", ["--next", "go", "--touched", "a", "--touched", f"src/{GITHUB}"], "--touched, line 1: github-token"),
    "the reason": ("# Plan\n", ["--next", "go", "--reason", GITHUB], "--reason, line 1: github-token"),
    "why nothing ran": ("# Plan\n", ["--next", "go", "--not-run", GITHUB], "--not-run, line 1: github-token"),
    "what should be an override": (f"# Plan\n{AWS}\n", ["--next", "go", "--allow-secret", GITHUB, "--reason", "r"], "expected KIND:LINE"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["send", "dry run"])
def test_a_send_with_a_secret_is_refused_and_leaves_nothing(stage, way, more):
    text, words, told = WAYS[way]
    path, before = opened(stage)
    done = stage.run("claude", "send", "--kind", "plan", "--file", stage.file(text), *words, *more)
    assert done.code == 2 and told in done.err and not done.out and silent(done, GITHUB, AWS)
    assert unchanged(path, before) and not stage.litter()


def test_the_file_with_the_prompt_is_looked_at_too(stage):
    stage.open_pair()
    prompt = stage.file(f"look\n{AWS}\n", "ask.md")
    done = stage.run("claude", "send", "--kind", "plan", "--file", stage.file("# Plan\n"), "--next-file", prompt)
    assert done.code == 2 and "ask.md, line 2: aws-access-key" in done.err and silent(done, AWS)


def test_standard_input_is_looked_at_too(stage):
    stage.open_pair()
    done = stage.run("claude", "send", "--kind", "plan", "--file", "-", "--next", "go", stdin=f"# Plan\n{AWS}\n".encode())
    assert done.code == 2 and "standard input, line 2: aws-access-key" in done.err and silent(done, AWS)


def test_every_line_is_named_with_the_flags_that_would_allow_it(stage):
    stage.open_pair()
    text = "".join(f"line {AWS if n % 2 else GITHUB}\r\n" for n in range(1, 41))
    done = stage.run("claude", "send", "--kind", "plan", "--file", stage.file(text), "--next", "go")
    for n in range(1, 41):
        kind = "aws-access-key" if n % 2 else "github-token"
        assert f"line {n}: {kind}" in done.err and f"--allow-secret {kind}:{n} " in done.err


def test_an_override_publishes_and_stands_on_record(stage):
    path = stage.open_pair()
    file = stage.file(f"# Plan\n{AWS}\n{GITHUB}\n## Next\ngo\n")
    words = ["send", "--kind", "plan", "--file", file, "--allow-secret", "github-token:3"]
    assert stage.run("claude", *words, "--reason", "a test key").code == 2  # The other line is not allowed.
    words += ["--allow-secret", "aws-access-key:2", "--reason", "a test key"]
    assert stage.ok("claude", *words, "--dry-run").code == 0 and not [*path.glob("001*")]
    first = stage.ok("claude", *words)
    assert stage.ok("claude", *words).out.split("\n")[0] == first.out.split("\n")[0]  # A retry of the same.
    rows = [{"kind": kind, "in": "body.md", "line": line, "reason": "a test key"} for kind, line in (("aws-access-key", 2), ("github-token", 3))]
    assert json.loads((path / "001-claude-plan.json").read_text())["allowed_secrets"] == rows
    assert stage.ok("codex", "show", "1", "--json").json["artifacts"][0]["allowed_secrets"] == rows
    assert stage.ok("codex", "log", "--json").json["artifacts"][0]["record"]["allowed_secrets"] == rows
    assert 'allowed: github-token in body.md, line 3: "a test key"' in stage.ok("codex", "log").out
    assert 'allowed: github-token in body.md, line 3: "a test key"' in stage.ok("codex", "show", "1").out
    assert stage.ok("codex", "verify").code == 0


def test_another_override_is_another_intent(stage):
    stage.open_pair()
    file = stage.file(f"# Plan\n{AWS}\n")
    words = ["send", "--kind", "note", "--file", file, "--next", "go", "--allow-secret", "aws-access-key:2", "--reason"]
    assert stage.ok("claude", *words, "one").out.split("\n")[0] != stage.ok("claude", *words, "two").out.split("\n")[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--allow-secret", "aws-access-key:2"], "--reason TEXT is missing"), (["--reason", "r"], "--allow-secret KIND:LINE is missing"),
        (["--allow-secret", "aws-access-key:3", "--reason", "r"], "there is no aws-access-key in that line"), (["--allow-secret", "all:2", "--reason", "r"], "expected KIND:LINE"),
        (["--allow-secret", "aws-access-key", "--reason", "r"], "expected KIND:LINE"), (["--allow-secret", "aws-access-key:2", "--reason", "a\nb"], "one line"),
        (["--allow-secret", "aws-access-key:02", "--reason", "r"], "there is no aws-access-key"),
    ],
)  # fmt: skip
def test_an_override_that_is_none_is_refused(stage, words, told):
    path, before = opened(stage)
    done = stage.run("claude", "send", "--kind", "plan", "--file", stage.file(f"# Plan\n{AWS}\n"), "--next", "go", *words)
    assert done.code == 2 and told in done.err and unchanged(path, before) and silent(done, AWS)


def test_what_is_typed_cannot_be_allowed(stage):
    """It would stand in the shell's history too."""
    stage.open_pair()
    words = ["--next", f"use {AWS}", "--allow-secret", "aws-access-key:1", "--reason", "r"]
    assert stage.run("claude", "send", "--kind", "plan", "--file", stage.file("# Plan\n"), *words).code == 2


def drafted(stage, body, prompt="go\n"):
    draft = stage.ok("claude", "claim", "--kind", "plan").out.split()[0]
    stage.ok("claude", "draft", "set", draft, "--body-file", stage.file(body), "--prompt-for-next-file", stage.file(prompt, "ask.md"))
    return draft


@pytest.mark.parametrize(("body", "prompt"), [(f"# Plan\n{GITHUB}\n", "go\n"), ("# Plan\n", f"go\nwith {GITHUB}\n")])
def test_publish_refuses_by_the_lines_of_the_draft_and_leaves_it(stage, body, prompt):
    path, _ = opened(stage)
    draft = drafted(stage, body, prompt)
    text = open(draft).read()
    line = next(n for n, each in enumerate(text.split("\n"), 1) if GITHUB in each)
    before = {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    done = stage.run("claude", "publish", draft)
    assert done.code == 2 and f"line {line}: github-token" in done.err and silent(done, GITHUB)
    assert {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    stage.ok("claude", "publish", draft, "--allow-secret", f"github-token:{line}", "--reason", "revoked")
    told = stage.ok("codex", "show", "1", "--json").json["artifacts"][0]["allowed_secrets"]
    assert [(row["kind"], row["line"], row["reason"]) for row in told] == [("github-token", line, "revoked")]


def test_a_draft_s_paths_and_a_forced_reason_are_looked_at(stage):
    stage.open_pair()
    draft = drafted(stage, "# Plan\n")
    stage.ok("claude", "draft", "set", draft, "--touched-path", f"src/{GITHUB}")
    assert "github-token" in stage.run("claude", "publish", draft).err
    done = stage.run("claude", "publish", drafted(stage, "# Plan\n"), "--force", "--status", "closed", "--force-reason", GITHUB)
    assert done.code == 2 and "--force-reason, line 1: github-token" in done.err and silent(done, GITHUB)


@pytest.mark.parametrize(
    "words",
    [
        ["close", "--reason", GITHUB], ["close", "--reason", "r", "--outcome", GITHUB], ["bootstrap", "--topic", "gh" + "p-x", "--title", GITHUB],
        ["bootstrap", "--topic", GITHUB], ["issue", "add", "--title", GITHUB], ["issue", "add", "--title", "t", "--body", f"a\n{GITHUB}"],
    ],
    ids=lambda words: " ".join(word for word in words if GITHUB not in word),
)  # fmt: skip
def test_other_texts_that_are_kept_are_looked_at(stage, words):
    path, before = opened(stage)
    done = stage.run("claude", *words)
    assert done.code == 2 and "github-token" in done.err and silent(done, GITHUB) and unchanged(path, before)


def test_a_run_with_secrets_is_kept_without_them_and_says_their_kinds(stage):
    path = stage.open_pair()
    password = "Wq8" + "zR3vT"
    program = f"print('a {GITHUB} b'); print('postgres://app:{password}@db/x'); print({key_block()!r}); print('end')"
    stage.ok("codex", "run", "--", sys.executable, "-c", program, f"--header=Authorization: Bea" + f"rer {some(32)}", AWS)
    stage.send("codex", "note")
    (run,) = json.loads((path / "001-codex-note.json").read_text())["evidence"]
    assert run["tail"] == "a [secret:github-token] b\npostgres://app:[secret:url-password]@db/x\n[secret:private-key]\nend\n"
    assert run["argv"][-2:] == ["--header=Authorization: Bearer [secret:bearer-token]", "[secret:aws-access-key]"]
    assert GITHUB not in json.dumps(run) and password not in json.dumps(run)


# ---- what is too large


def test_a_body_over_the_limit_is_refused_before_it_is_read(stage, monkeypatch):
    path, before = opened(stage)
    file = stage.file("# Plan\n")
    with open(file, "r+b") as held:
        held.truncate(RELAY.MAX_ARTIFACT_BYTES + 1)
    monkeypatch.setattr(RELAY, "secrets_in", lambda text: pytest.fail("looked at"))
    done = stage.run("claude", "send", "--kind", "plan", "--file", file, "--next", "go")
    assert done.code == 2 and "larger than 16777216 bytes (16 MiB)" in done.err and unchanged(path, before)


def test_body_and_prompt_together_keep_to_the_limit(stage, monkeypatch):
    path, before = opened(stage)
    monkeypatch.setattr(RELAY, "MAX_ARTIFACT_BYTES", 1000)
    more = stage.file("b" * 600, "ask.md")
    done = stage.run("claude", "send", "--kind", "plan", "--file", stage.file("a" * 600), "--next-file", more)
    assert done.code == 2 and "body and prompt together are larger than 1000 bytes" in done.err and unchanged(path, before)
    stage.ok("claude", "send", "--kind", "plan", "--file", stage.file("a" * 1000), "--next", "go")
    assert stage.ok("codex", "next").action == "reply"
