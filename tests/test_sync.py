"""Two machines: the ledger and the project's files over a real sshd and a real rsync, broken off, in trouble, and hostile."""

import functools
import json
import os
import random
import re
import shutil
import signal
import time

import pytest
from conftest import RELAY
from helpers import v1_ledgers
from helpers.machines import MISSING, Machines, Sshd, published
from helpers.tracing import sound

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"needs {', '.join(MISSING)}: apt install openssh-server openssh-client rsync",
    ),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("server") / "sshd")
    yield server
    server.stop()


@pytest.fixture
def machines(stage, sshd, tmp_path):
    """Two machines with ssh between them."""
    return Machines(tmp_path / "two", sshd)


@pytest.fixture
def near(stage, tmp_path):
    """Two machines without ssh between them, for what is not about the connection and is done often."""
    return Machines(tmp_path / "two")


def pair_of(stage, slug):
    active, archived = stage.shared / slug, stage.shared / "_archive" / slug
    assert not (active.exists() and archived.exists())
    return active if active.exists() else archived


def exchange(machines, *ways):
    for way in ways:
        done = machines.sync(way, "--only", "ledger")
        assert done.code in (0, 1), done


def assert_same(machines, slug):
    here, there = pair_of(machines.here, slug), pair_of(machines.there, slug)
    assert published(here) == published(there)
    stems = [path.name[:-6] for path in here.glob("*.ready")]
    for stage in (machines.here, machines.there):
        assert sorted(path.name[:-6] for path in pair_of(stage, slug).glob("*.ready")) == sorted(
            stems
        )
        sound(stage)
        assert not list(stage.shared.rglob("*.tmp"))
    return sorted(stems)


def test_a_push_whose_rsync_stops_between_any_two_files_is_finished_by_the_next(near, monkeypatch):
    near.open_pair()
    near.here.send("claude", "plan")
    near.here.send("claude", "note")
    slug = next(path.name for path in near.here.shared.iterdir() if path.name.endswith("-demo"))
    real = RELAY.Far.store
    for count in range(12):
        shutil.rmtree(near.there.shared)
        gone = [count]

        def broken(self, folder, paths, over):
            now, gone[0] = paths[: gone[0]], gone[0] - len(paths)
            real(self, folder, now, over)
            if gone[0] < 0:
                raise RELAY.Refusal("the connection broke off")

        with monkeypatch.context() as patch:
            patch.setattr(RELAY.Far, "store", broken)
            assert near.sync("push", "--only", "ledger").code == (
                2 if count < 11 else 2 if gone[0] < 0 else 0
            )
        if (near.there.shared / slug / "session.json").exists():
            sound(near.there)
        exchange(near, "push")
        assert assert_same(near, slug) == ["001-claude-plan", "003-claude-note"]


def test_killed_processes_and_both_ways_at_once_end_in_one_ledger(machines):
    for stage in (machines.here, machines.there):  # Six artifacts without a word from the user.
        stage.env = functools.partial(stage.env, RELAY_AUTO_ROUND_CAP="0")
    slug = machines.open_pair()
    chance = random.Random(5)
    for turn in range(6):
        machines.here.send("claude", "note", f"# Here {turn}\n")
        machines.there.send("codex", "note", f"# There {turn}\n")
        running = [
            machines.here.spawn("claude", "sync", way, "--only", "ledger", **machines.env())
            for way in ("push", "pull")
        ]
        time.sleep(chance.uniform(0.1, 0.8))
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        for stage in (machines.here, machines.there):
            sound(stage)
    exchange(machines, "push", "pull")
    stems = assert_same(machines, slug)
    assert len(stems) == len({stem[:3] for stem in stems}) == 12


def test_a_pair_closed_and_archived_here_stays_so_and_its_last_artifact_reaches_the_other_side(
    near,
):
    slug = near.open_pair()
    near.here.send("claude", "plan")
    near.here.ok("claude", "close", "--reason", "shipped")
    near.there.send("codex", "note", "# Late\n")
    exchange(near, "push", "pull", "push", "pull")
    assert assert_same(near, slug) == ["001-claude-plan", "002-codex-note"]
    assert not (near.here.shared / slug).exists()
    assert (
        near.there.ok("codex", "next").action == "over"
        and near.there.ok("codex", "log", "--pair-id", slug).out.count("001 claude") == 1
    )
    assert near.here.ok("claude", "next", "--pair-id", slug).out.count("# Late") == 1


def test_a_pair_closed_and_archived_there_ends_here_too_with_its_last_artifact(near):
    slug = near.open_pair()
    near.there.send("codex", "note", "# Last\n")
    near.there.ok("codex", "close", "--reason", "dropped")
    near.here.send("claude", "note", "# Unsent\n")
    exchange(near, "pull", "push")
    assert_same(near, slug)
    assert (near.here.shared / "_archive" / slug).exists() and not (
        near.there.shared / slug
    ).exists()
    told = near.here.ok("claude", "next").out
    assert told.startswith("action: over") and "# Last" in told and "dropped" in told
    near.here.ok("claude", "pairs", "restore", slug)
    exchange(near, "pull", "push")
    assert (near.here.shared / slug).exists()  # Who brings it back to look at it keeps it.


def test_a_pair_closed_on_both_sides_stays_as_each_closed_it_and_its_artifacts_travel(near):
    slug = near.open_pair()
    near.here.send("claude", "note")
    near.here.ok("claude", "close", "--reason", "ours")
    near.there.ok("codex", "close", "--reason", "theirs", "--no-archive")
    before = [endings(stage, slug) for stage in (near.here, near.there)]
    for way in ("pull", "push"):
        done = near.sync(way, "--only", "ledger")
        assert done.code == 0 and f"{slug}/CLOSED: was closed there too" in done.out, done
    assert [endings(stage, slug) for stage in (near.here, near.there)] == before
    assert (near.there.shared / slug / "001-claude-note.ready").exists()


def endings(stage, slug):
    """How a pair ended on one side, byte for byte."""
    return [(pair_of(stage, slug) / name).read_bytes() for name in ("CLOSED", "session.json")]


def test_a_push_does_not_open_again_what_was_closed_there(near):
    """Not even where the closing there is half done, and only its session.json says so."""
    slug = near.open_pair()
    near.there.ok("codex", "close", "--reason", "theirs", "--no-archive")
    (pair_of(near.there, slug) / "CLOSED").unlink()
    near.here.send("claude", "note")
    exchange(near, "push")
    assert json.loads((pair_of(near.there, slug) / "session.json").read_text())["state"] == "closed"
    exchange(near, "pull")
    assert near.here.ok("claude", "next").action == "over" and assert_same(near, slug) == [
        "001-claude-note"
    ]


@pytest.mark.parametrize("git", ["directory", "file"])
def test_a_pair_that_was_forgotten_there_is_not_brought_back_by_a_push(near, git):
    """Also where the git directory is elsewhere, as a submodule's is."""
    if git == "file":
        there = near.there.project / ".git"
        moved = there.rename(near.there.folder / "separate")
        there.write_text(f"gitdir: {moved}\n")
        near.there.ok("codex", "init")
    slug = near.open_pair()
    near.here.send("claude", "plan")
    exchange(near, "push")
    near.there.ok("codex", "forget", slug, "--yes")
    done = near.sync("push", "--only", "ledger")
    assert done.code == 1 and f"{slug}: was forgotten there" in done.out, done
    assert not (near.there.shared / slug).exists() and (near.here.shared / slug).exists()


def test_a_pair_that_is_in_the_archive_too_is_sent_as_it_is_active(near):
    """As somebody may have copied it by hand."""
    slug = near.open_pair()
    shutil.copytree(near.here.shared / slug, near.here.shared / "_archive" / slug)
    near.here.send("claude", "plan")
    assert near.ledger("push") == [("sent", "001-claude-plan")]
    assert near.there.ok("codex", "next").action == "reply"
    assert near.ledger("push") == []


def test_a_linked_worktree_there_is_not_taken_for_the_place_of_its_ledger(near, tmp_path):
    near.here.ok("claude", "bootstrap", "--topic", "demo", **near.env())
    near.here.send("claude", "plan")
    near.there.git("worktree", "add", "-q", tmp_path / "linked")
    main, near.far = near.far, str(tmp_path / "linked")
    for _ in range(2):
        done = near.sync("push", "--only", "ledger")
        assert done.code == 1 and "there is a linked worktree" in done.out, done
        assert not (tmp_path / "linked/.shared").exists()
        near.there.ok("codex", "init", cwd=tmp_path / "linked")  # In the main one.
    near.far = main
    near.ledger("push")
    assert near.there.ok("codex", "next", cwd=tmp_path / "linked").action == "reply"


def test_a_worktree_of_a_bare_repository_there_has_a_ledger_of_its_own(near, tmp_path):
    near.here.ok("claude", "bootstrap", "--topic", "demo", **near.env())
    near.here.send("claude", "plan")
    near.there.git("clone", "-q", "--bare", near.there.project, tmp_path / "bare")
    near.there.git("worktree", "add", "-q", "--detach", tmp_path / "tree", cwd=tmp_path / "bare")
    near.far = str(tmp_path / "tree")
    done = near.sync("push", "--only", "ledger")
    assert done.code == 1 and "run `relay init` there" in done.out, done
    near.there.ok("codex", "init", cwd=tmp_path / "tree")
    assert ("sent", "001-claude-plan") in near.ledger("push")
    assert near.there.ok("codex", "next", cwd=tmp_path / "tree").action == "reply"


def test_a_closing_that_comes_between_the_list_and_the_push_is_kept(near, monkeypatch):
    slug = near.open_pair()
    near.here.send("claude", "note")
    near.here.ok("claude", "close", "--reason", "ours", "--no-archive")
    real = RELAY.Far.store

    def store(self, *given, **named):
        monkeypatch.setattr(RELAY.Far, "store", real)
        near.there.ok("codex", "close", "--reason", "theirs", "--no-archive")
        real(self, *given, **named)

    monkeypatch.setattr(RELAY.Far, "store", store)
    exchange(near, "push")
    for _ in range(2):
        assert "theirs" in (pair_of(near.there, slug) / "CLOSED").read_text()
        assert "ours" in (pair_of(near.here, slug) / "CLOSED").read_text()
        exchange(near, "pull", "push")


def test_a_last_artifact_ends_the_pair_although_the_other_side_went_on(near):
    slug = near.open_pair()
    near.here.send("claude", "note", "# End\n", "stop", "--status", "cancelled")
    for _ in range(2):
        near.there.send("codex", "note")
    exchange(near, "pull", "push")
    stems = assert_same(near, slug)
    assert stems[-1] == "004-codex-note"
    for stage, author in ((near.here, "claude"), (near.there, "codex")):
        assert stage.ok(author, "next").action == "over"
        assert "ended by 001-claude-note" in (stage.shared / slug / "CLOSED").read_text()


def test_a_pair_of_1x_is_switched_to_numbers_by_author_when_it_first_travels(near):
    v1_ledgers.ledger(near.here.shared, "active")
    slug = v1_ledgers.slug_of("active")
    near.here.ok("claude", "pair", "join", slug)
    draft = near.here.ok("claude", "claim", "--kind", "review").out.strip()
    assert os.path.basename(draft) == "004-claude-review.md"
    exchange(near, "push")
    near.there.ok("codex", "pair", "join", slug)
    assert os.path.basename(near.there.send("codex", "note").out.split()[0]) == "005-codex-note.md"
    near.here.ok(
        "claude", "draft", "set", draft, "--prompt-for-next-file", near.here.file("go on\n")
    )
    near.here.ok("claude", "publish", draft)
    assert os.path.basename(near.here.send("claude", "note").out.split()[0]) == "006-claude-note.md"
    exchange(near, "push", "pull")
    stems = assert_same(near, slug)
    assert stems[3:] == ["004-claude-review", "005-codex-note", "006-claude-note"]


def test_old_collisions_travel_and_are_shown_in_one_order_everywhere(near):
    for stage, own in (
        (near.here, {"author": "claude", "kind": "review"}),
        (near.there, {"author": "codex", "kind": "note"}),
    ):
        pair = v1_ledgers.ledger(stage.shared, "active")
        v1_ledgers.publish(pair, ("codex", "claude"), seq=4, in_reply_to=3, **own)
    slug = v1_ledgers.slug_of("active")
    exchange(near, "pull", "push")
    assert assert_same(near, slug)[3:] == ["004-claude-review", "004-codex-note"]
    shown = []
    for stage, author in ((near.here, "claude"), (near.there, "codex")):
        told = stage.ok(author, "log", "--pair-id", slug).out
        shown.append(re.findall(r"(?m)(\d{3} \w+ +\w+).*$", told))
        assert told.count("shares its number") == 2
        (row,) = stage.ok(author, "verify", "--json").json["pairs"]
        assert any("004-claude-review, 004-codex-note" in note for note in row["notes"])
    assert shown[0] == shown[1]


def test_another_artifact_under_the_same_name_is_named_and_nothing_is_written_over(near):
    for stage, text in ((near.here, "\n# Ours\n"), (near.there, "\n# Theirs\n")):
        pair = v1_ledgers.ledger(stage.shared, "active")
        v1_ledgers.publish(
            pair, ("codex", "claude"), seq=4, author="claude", kind="note", body=text
        )
    slug = v1_ledgers.slug_of("active")
    before = [published(pair_of(stage, slug)) for stage in (near.here, near.there)]
    for way in ("pull", "push", "pull"):
        done = near.sync(way, "--only", "ledger")
        assert done.code == 1 and f"conflict  {slug}/004-claude-note" in done.out, done
    for stage, names in zip((near.here, near.there), before):
        now = published(pair_of(stage, slug))
        assert {k: v for k, v in now.items() if k != "session.json"} == {
            k: v for k, v in names.items() if k != "session.json"
        }
    assert near.here.run("claude", "show", "4", "--pair-id", slug).out.count("# Ours") == 1


def test_two_pairs_of_one_name_are_never_mixed(near):
    for stage, author in ((near.here, "claude"), (near.there, "codex")):
        stage.ok(author, "bootstrap", "--topic", "demo")
        stage.send(author, "plan", f"# By {author}\n")
        time.sleep(1.1)  # They are told apart by the second in which they were opened.
    slug = next(path.name for path in near.here.shared.iterdir() if path.name.endswith("-demo"))
    before = [stage.snapshot(stage.shared / slug) for stage in (near.here, near.there)]
    for way in ("pull", "push"):
        done = near.sync(way, "--only", "ledger")
        assert done.code == 1 and "is another pair there" in done.out, done
    assert [stage.snapshot(stage.shared / slug) for stage in (near.here, near.there)] == before


def test_what_was_seen_travels_and_only_grows(near):
    slug = near.open_pair()
    near.here.send("claude", "plan")
    exchange(near, "push")
    near.there.ok("codex", "next")
    assert "001 plan not seen" in near.here.ok("claude", "next").out
    exchange(near, "pull")
    assert "001 plan seen" in near.here.ok("claude", "next").out
    log = next((pair_of(near.here, slug) / ".seen").glob("codex-*"))
    known = log.read_bytes()
    far = pair_of(near.there, slug) / ".seen" / log.name
    far.write_bytes(known.replace(b"001-claude-plan", b"001-claude-xxxx") + known)
    done = near.sync("pull", "--only", "ledger")
    assert done.code == 1 and "has a different history" in done.out and log.read_bytes() == known


def test_nobody_elsewhere_can_say_that_the_user_here_has_decided(near):
    slug = near.open_pair()
    near.there.send("codex", "decision", "# Ship it?\n")
    exchange(near, "pull")
    assert near.here.ok("claude", "next").action == "ask_user"
    key = RELAY.Identity("claude", "", "another-session", "").key
    line = {
        "user": "continue",
        "upto": 999,
        "accepted": [],
        "by": "claude:x",
        "terminal": True,
        "at": "x",
    }
    for name in (f"{key}.jsonl", next((pair_of(near.here, slug) / ".seen").glob("claude-*")).name):
        path = pair_of(near.there, slug) / ".seen" / name
        mine = pair_of(near.here, slug) / ".seen" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            (mine.read_bytes() if mine.exists() else b"") + json.dumps(line).encode() + b"\n"
        )
    exchange(near, "pull")
    assert near.here.ok("claude", "next").action == "ask_user"


def test_nor_in_a_pair_that_comes_from_elsewhere(near):
    slug = near.there.ok("codex", "bootstrap", "--topic", "theirs").out.split()[0]
    near.there.send("codex", "decision", "# Ship it?\n")
    line = {
        "user": "continue",
        "upto": 999,
        "accepted": [],
        "by": "claude:x",
        "terminal": True,
        "at": "x",
    }
    (
        near.there.shared / slug / ".seen" / f"{RELAY.Identity('claude', '', 'x', '').key}.jsonl"
    ).write_text(json.dumps(line) + "\n")
    assert near.here.ok("claude", "next", "--sync", **near.env()).action == "ask_user"


def test_a_damaged_artifact_is_named_and_neither_sent_nor_taken(near):
    slug = near.open_pair()
    for stage, author in ((near.here, "claude"), (near.there, "codex")):
        stage.send(author, "note")
        path = next(pair_of(stage, slug).glob(f"*-{author}-note.md"))
        path.write_text(path.read_text() + "forged\n")
    for way, name in (("push", "001-claude-note"), ("pull", "002-codex-note")):
        done = near.sync(way, "--only", "ledger")
        assert done.code == 1 and f"damaged   {slug}/{name}" in done.out, done
    assert not list(pair_of(near.there, slug).glob("001-*")) and not list(
        pair_of(near.here, slug).glob("002-*")
    )


def test_a_damaged_artifact_is_not_mended_by_force_but_a_missing_part_comes_back(near):
    slug = near.open_pair()
    near.there.send("codex", "note")
    exchange(near, "pull")
    pair = pair_of(near.here, slug)
    kept = (pair / "002-codex-note.md").read_bytes()
    (pair / "002-codex-note.md").unlink()
    exchange(near, "pull")
    assert (pair / "002-codex-note.md").read_bytes() == kept


def test_a_dry_run_tells_the_same_and_changes_nothing(near):
    slug = near.open_pair()
    near.here.send("claude", "plan")
    near.there.send("codex", "note")
    (near.here.project / "mine.txt").write_text("1\n")
    (near.there.project / "theirs.txt").write_text("2\n")
    before = near.here.snapshot(near.here.project), near.there.snapshot(near.there.project)
    sent, got = near.sync("push", "--dry-run"), near.sync("pull", "--dry-run")
    assert (
        near.here.snapshot(near.here.project),
        near.there.snapshot(near.there.project),
    ) == before
    assert (
        sent.out.startswith("would push to far:")
        and f"sent      {slug}/001-claude-plan" in sent.out
        and "new       mine.txt" in sent.out
    )
    assert (
        got.out.startswith("would pull from far:")
        and f"received  {slug}/002-codex-note" in got.out
        and "new       theirs.txt" in got.out
    )
    for way, told in (("push", sent), ("pull", got)):
        real = json.loads(near.sync(way, "--json").out)
        rows = {
            (row["what"], row.get("path") or row["name"])
            for row in (*real["code"], *real["ledger"])
        }
        assert rows == {
            (line[:9].strip(), line[10:].split(": ")[0].rpartition("/")[2])
            for line in told.out.splitlines()[1:]
        }
