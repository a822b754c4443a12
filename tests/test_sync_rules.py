"""What sync decides without a second machine: numbers by author, merged endings, names that may travel, settings."""

import os
import subprocess

import pytest
from conftest import SCRIPT

RSYNC = {"RELAY_SYNC": "rsync", "RELAY_REMOTE_SSH": "far", "RELAY_REMOTE_PATH": "/srv/project"}


def test_a_pair_that_travels_numbers_by_author(stage):
    slug = stage.ok("claude", "bootstrap", "--topic", "demo", **RSYNC).out.split()[0]
    stage.ok("codex", "next")
    for author in ("claude", "claude", "codex", "codex", "claude"):
        stage.ok(author, "next")
        stage.send(author, "note")
    names = sorted(path.name for path in (stage.shared / slug).glob("*.ready"))
    assert names == [
        "001-claude-note.ready",
        "003-claude-note.ready",
        "004-codex-note.ready",
        "006-codex-note.ready",
        "007-claude-note.ready",
    ]


def test_a_claim_too_takes_a_number_of_its_author(stage):
    stage.ok("claude", "bootstrap", "--topic", "demo", **RSYNC)
    stage.ok("codex", "next")
    assert (
        os.path.basename(stage.ok("codex", "claim", "--kind", "note").out.strip())
        == "002-codex-note.md"
    )


def test_a_pair_that_stays_numbers_as_before(stage):
    pair = stage.open_pair()
    assert "numbering" not in (pair / "session.json").read_text()
    stage.send("claude", "plan")
    assert os.path.basename(stage.send("claude", "note").out.split()[0]) == "002-claude-note.md"


SESSION = {
    "schema_version": 3,
    "state": "active",
    "participants": ["claude", "codex"],
    "created_at": "x",
    "session_id": "p",
}
KEYS = ("reason", "outcome", "closed_by", "closed_at")
CLOSINGS = [
    tuple(zip(KEYS, ("shipped", "approved", "claude", "2026-11-25T10:00:00+01:00"))),
    (
        *zip(KEYS, ('given "up"\nat last', "", "codex", "2026-11-25T09:30:00+00:00")),
        ("forced", "an override that is kept"),
    ),
    tuple(zip(KEYS, ("done", "x", "codex", "2026-11-25T08:59:59+00:00"))),
]


@pytest.mark.parametrize(
    "host",
    ["far", "me@far", "me@far.example.org", "10.0.0.7", "me@[fe80::1%eth0]", "[::1]", "a_b-c.d"],
)
def test_a_host_is_a_host(relay, host):
    assert relay.is_remote_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-oProxyCommand=touch /tmp/x",
        "me@-oProxyCommand=x",
        "-l@far",
        "far:2",
        "far::module",
        "rsync://far",
        "far /x",
        "far\n",
        "a;b",
        "$(x)",
        "@far",
        "me@",
        ".far",
        "[]",
        "a@b@c d",
    ],
)
def test_what_could_be_an_option_or_more_than_a_host_is_refused(stage, host):
    done = stage.run("claude", "sync", "push", **{**RSYNC, "RELAY_REMOTE_SSH": host})
    assert done.code == 2 and "RELAY_REMOTE_SSH" in done.err, done
    assert not stage.shared.exists()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "-x",
        "project",
        ":module",
        "../x",
        "/a*",
        "/a?b",
        "/a[b]",
        "/a\\b",
        "/a\nb",
        "/a\x1b[31m",
    ],
)
def test_a_far_path_is_absolute_and_plain(stage, path):
    done = stage.run("claude", "sync", "pull", **{**RSYNC, "RELAY_REMOTE_PATH": path})
    assert done.code == 2 and "RELAY_REMOTE_PATH" in done.err and "\x1b" not in done.err, done


def test_sync_is_refused_where_this_side_does_not_own_the_transport(stage):
    for words in (("sync", "push"), ("sync", "pull"), ("next", "--sync")):
        done = stage.run("claude", *words)
        assert done.code == 2 and "RELAY_SYNC" in done.err, done


def entries(relay, *paths):
    return {path: relay.Entry("-", 1, 1) for path in paths}


def test_only_what_belongs_to_a_pair_is_seen_of_a_far_ledger(relay):
    key = "codex-" + "0" * 24
    good = [
        "session.json",
        "CLOSED",
        "001-codex-note.md",
        "001-codex-note.md.sha256",
        "001-codex-note.json",
        "001-codex-note.ready",
        f".seen/{key}.jsonl",
    ]
    bad = [
        ".draft/001-codex-note.md",
        "README.md",
        ".seq/001",
        ".sent/codex.jsonl",
        "000-codex-note.md",
        "001-../x-note.md",
        "001-codex-note.md.tmp",
        ".seen/../x.jsonl",
        f".seen/{key}.jsonl/x",
        ".evidence/x",
        "001-codex-bogus.md",
        "archive/001-codex-note.md",
        f".seen/{key[:-1]}.jsonl",
    ]
    found = relay.far_pairs(entries(relay, *(f".shared/p/{name}" for name in (*good, *bad))))
    assert set(found) == {"p"} and set(found["p"].names) == set(good)
    for slug in ("..", ".x", "_relay", "-x", "a b", "a/b"):
        assert relay.far_pairs(entries(relay, f".shared/{slug}/session.json")) == {}
    assert (
        relay.far_pairs(entries(relay, "x/p/session.json", "session.json", ".shared/session.json"))
        == {}
    )
    assert relay.far_pairs({".shared/p/session.json": relay.Entry("l", 1, 1)}) == {}


def test_init_writes_the_settings_of_this_machine_and_never_over_the_users_own(stage, relay):
    host = os.uname().nodename.partition(".")[0]
    done = stage.ok(
        "claude",
        "init",
        "--sync",
        "rsync",
        "--remote-ssh",
        "me@far",
        "--remote-path",
        "/srv/it's here",
    )
    template = (SCRIPT.parent.parent / "templates/envrc.dispatcher.example").read_text()
    assert (
        stage.project / ".envrc"
    ).read_text() == template and f"wrote {stage.project}/.envrc\n" in done.out
    # What stands there is what a shell reads: through the dispatcher, and with the quote in it.
    told = subprocess.run(
        ["sh", "-c", '. ./.envrc; echo "$RELAY_SYNC|$RELAY_REMOTE_SSH|$RELAY_REMOTE_PATH"'],
        cwd=stage.project,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "rsync|me@far|/srv/it's here\n" and not told.stderr
    (stage.project / ".envrc").write_text("mine\n")
    before = {path.name: path.read_bytes() for path in stage.project.glob(".envrc*")}
    done = stage.ok("claude", "init", "--sync", "rsync", "--remote-ssh", "other")
    assert {path.name: path.read_bytes() for path in stage.project.glob(".envrc*")} == before
    assert f"{stage.project}/.envrc is yours" in done.err and f".envrc.{host} is yours" in done.err


def test_init_without_the_other_machine_says_what_to_fill_in(stage, relay):
    done = stage.ok("claude", "init", "--sync", "rsync")
    assert "hint: name the other machine" in done.err
    assert (
        "# export RELAY_REMOTE_SSH="
        in (stage.project / f".envrc.{os.uname().nodename.partition('.')[0]}").read_text()
    )


def test_the_waits_that_are_printed_look_at_the_other_machine_where_this_one_owns_the_transport(
    stage,
):
    stage.ok("claude", "bootstrap", "--topic", "demo", **RSYNC)
    path = stage.file("# Text\n")
    assert (
        stage.ok("claude", "send", "--kind", "plan", "--file", path, "--next", "x", **RSYNC).next
        == "next --wait 1500 --sync"
    )
    assert stage.ok("codex", "next").action == "reply"


def test_the_other_machine_is_looked_at_before_a_pair_is_opened(stage):
    done = stage.ok("claude", "next", **RSYNC)
    assert done.action == "bootstrap" and done.next == "next --sync"
    assert stage.ok("claude", "next").next == "bootstrap --topic review"


def test_a_close_says_how_the_other_machine_learns_of_it(stage):
    stage.ok("claude", "bootstrap", "--topic", "demo", **RSYNC)
    assert "sync push --only ledger" in stage.ok("claude", "close", "--reason", "done", **RSYNC).err
