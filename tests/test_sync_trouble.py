"""Two machines when something is wrong between them: a clear word for each trouble, a far side that lies, and --delete."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import RELAY
from helpers.machines import MISSING, Machines, Sshd

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"needs {', '.join(MISSING)}: apt install openssh-server openssh-client rsync",
    ),
]


@pytest.fixture
def near(stage, tmp_path):
    """Two machines without ssh between them."""
    return Machines(tmp_path / "two")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("server") / "sshd")
    yield server
    server.stop()


@pytest.fixture
def machines(stage, sshd, tmp_path):
    yield Machines(tmp_path / "two", sshd)
    sshd.configure()


@pytest.fixture
def server(tmp_path):
    """Makes servers with settings of their own, and ends them."""
    made = []

    def make(*options, **how):
        made.append(Sshd(tmp_path / f"server-{len(made)}", *options, **how))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def refused(machines, sentence, hint="", way="push", **more):
    """A sync ends in a refusal that names what is wrong; what was there before is there still."""
    before = machines.here.snapshot(machines.here.project)
    done = machines.sync(way, **more)
    assert (
        done.code == 2
        and sentence in done.err
        and f"hint: {hint}" in done.err.replace("hint: /", "hint: /")
    ), done
    names = lambda found: {
        name: held[2]
        for name, held in found.items()
        if "/.shared" not in name and "/.git" not in name
    }
    assert names(machines.here.snapshot(machines.here.project)) == names(before)
    assert not list(machines.here.shared.rglob("*.tmp"))
    return done


# ---------------------------------------------------------------- trouble on the way


def test_a_missing_rsync_here_is_named(machines, tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("git", "ssh"):
        os.symlink(shutil.which(name), tmp_path / "bin" / name)
    refused(
        machines, "rsync is not installed on this machine", "install rsync", PATH=f"{tmp_path}/bin"
    )


def test_a_far_side_without_relay_needs_none(stage, tmp_path, server):
    (tmp_path / "bin").mkdir()
    for name in ("rsync", "sh"):
        os.symlink(shutil.which(name), tmp_path / "bin" / name)
    machines = Machines(tmp_path / "two", server(f"SetEnv PATH={tmp_path}/bin"))
    slug = machines.open_pair()
    assert machines.there.ok("codex", "status").out.startswith(slug)


def test_a_changed_host_key_is_refused(machines, sshd):
    known = (sshd.folder / "known").read_text()
    other = (sshd.folder / "user.pub").read_text()
    try:
        (sshd.folder / "known").write_text(f"{known.split()[0]} {other}")
        refused(machines, "the host key", "ssh far once by hand")
        (sshd.folder / "known").write_text("")
        refused(machines, "the host key", "ssh far once by hand")
    finally:
        (sshd.folder / "known").write_text(known)


@pytest.mark.parametrize("client", ["", " -o BatchMode=no"], ids=["plain", "asking"])
def test_nobody_is_asked_for_a_password(stage, tmp_path, server, client):
    """The server wants a password; whoever sits at a terminal is not asked, and nothing hangs."""
    machines = Machines(
        tmp_path / "two", server("PubkeyAuthentication no", "PasswordAuthentication yes")
    )
    machines.settings = {"RSYNC_RSH": machines.sshd.shell + client}
    in_terminal = [
        "script",
        "-qec",
        f"{shlex_join([str(RELAY.__file__), 'sync', 'push'])}",
        "/dev/null",
    ]
    env = machines.here.env("claude", **machines.env())
    done = subprocess.run(
        in_terminal,
        cwd=machines.here.project,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert (
        done.returncode == 2
        and "Permission denied" in done.stdout
        and "try: ssh far true" in done.stdout
        and "assword:" not in done.stdout
    ), done


def shlex_join(words):
    return " ".join(f"'{word}'" for word in words)


def test_an_unreachable_host_is_named(machines):
    machines.settings = {"RSYNC_RSH": machines.sshd.shell + " -p 1"}
    refused(machines, "Connection refused", "run the same command again, or try: ssh far true")
    machines.settings = {"RELAY_REMOTE_SSH": "no-such-host.invalid"}
    refused(machines, "Could not resolve", "run the same command again, or try: ssh no-such-host")


def set_client(sshd, *lines):
    """Puts lines of the user's own first into ssh's settings for the far host."""
    sshd.configure()
    path = sshd.folder / "config"
    told = "".join(f" {line}\n" for line in lines)
    path.write_text(path.read_text().replace("Host far\n", f"Host far\n{told}"))


def test_ssh_settings_for_people_do_not_get_in_the_way(machines, sshd):
    for lines in (
        ["RemoteCommand tmux attach"],
        ["RequestTTY force"],
        ["PermitLocalCommand yes", "LocalCommand echo hello"],
        ["LogLevel DEBUG"],
        ["LocalForward 22 localhost:1", "ExitOnForwardFailure yes"],
        ["ControlMaster auto", f"ControlPath {sshd.folder}/own", "ControlPersist 1"],
    ):
        set_client(sshd, *lines)
        (machines.here.project / "file").write_text(str(lines))
        done = machines.sync("push")
        assert done.code == 0, (lines, done)
        assert (machines.there.project / "file").read_text() == str(lines)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("NoSuchOption yes", "nosuchoption"),
        ("ConnectTimeout soon", "invalid time value"),
        ("ProxyCommand sleep 0.2", "Connection closed"),
        ("StdinNull yes", ""),
    ],
)
def test_ssh_settings_that_cannot_work_are_refused_with_what_ssh_says_of_them(
    machines, sshd, line, said
):
    set_client(sshd, line)
    done = refused(machines, "broke off")
    assert said in done.err and "try: ssh far true" in done.err, done


@pytest.mark.parametrize(
    ("command", "sentence", "hint"),
    [
        ("echo welcome", "a greeting or forced command at far", "try: ssh far true"),
        (r"echo hi; sh -c \"$SSH_ORIGINAL_COMMAND\"", "a greeting or forced command", "try: ssh"),
        ("internal-sftp", "a greeting or forced command", "try: ssh"),
        ("false", "broke off", "run the same command again, or try: ssh far true"),
    ],
)
def test_a_far_side_that_runs_something_else_is_named(machines, sshd, command, sentence, hint):
    key = sshd.folder / "user.pub"
    plain = key.read_text()
    try:
        key.write_text(f'command="{command}" {plain}')
        refused(machines, sentence, hint)
    finally:
        key.write_text(plain)


def slow_rsync(folder, seconds):
    """A far rsync that starts late, so that there is a time at which to break off."""
    folder.mkdir()
    for name in ("sh", "sleep"):
        os.symlink(shutil.which(name), folder / name)
    path = folder / "rsync"
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *--sender*) ;; *) sleep {seconds} ;; esac\nexec {shutil.which("rsync")} "$@"\n'
    )
    path.chmod(0o755)
    return f"SetEnv PATH={folder}"


def test_what_rsync_leaves_of_a_file_on_its_way_is_seen_by_nobody_and_cleared_by_doctor(near):
    slug = near.open_pair()
    near.here.send("claude", "plan")
    near.ledger("push")
    path = near.there.shared / slug / ".003-claude-note.md.aB3xYz"
    path.write_text("half")
    assert (
        near.there.ok("codex", "next").action == "reply"
        and near.there.run("codex", "doctor").code == 0
    )
    os.utime(path, (1, 1))
    done = near.there.run("codex", "doctor", "--fix")
    assert str(path) in done.out and not path.exists()


@pytest.mark.parametrize("victim", ["rsync", "ssh", "server"])
def test_what_is_killed_or_dropped_underway_is_said_and_finished_by_the_next_run(
    stage, tmp_path, server, victim
):
    machines = Machines(tmp_path / "two", server(slow_rsync(tmp_path / "bin", 2)))
    slug = machines.here.ok("claude", "bootstrap", "--topic", "demo", **machines.env()).out.split()[
        0
    ]
    machines.here.send("claude", "plan")
    running = machines.here.spawn("claude", "sync", "push", "--only", "ledger", **machines.env())
    deadline = time.monotonic() + 20
    while not (found := processes("--server", str(tmp_path), "--sender", absent=True)):
        assert time.monotonic() < deadline and running.poll() is None, running.communicate()
        time.sleep(0.05)
    if victim == "server":
        machines.sshd.stop()
    else:
        pids = [pid for pid, parent, args in processes(str(tmp_path)) if is_client(args, victim)]
        assert pids
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # The end of one may end another.
                os.kill(pid, signal.SIGKILL)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 2 and "broke off" in err or "reached" in err, (
        running.returncode,
        err,
        found,
    )
    if victim == "server":
        machines.sshd.start()
    done = machines.sync("push", "--only", "ledger")
    assert done.code == 0, done
    assert (machines.there.shared / slug / "001-claude-plan.ready").exists()


def is_client(args, victim):
    words = args.split()
    if victim == "rsync":
        return words[0].endswith("rsync") and "--rsh=" in args
    return words[0].endswith("ssh") or args.startswith("ssh:")


def processes(*words, absent=False):
    told = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True
    ).stdout
    rows = [
        (int(pid), int(ppid), args)
        for pid, ppid, args in (line.split(None, 2) for line in told.splitlines())
    ]
    wanted, unwanted = (words[:-1], words[-1:]) if absent else (words, ())
    return [
        row
        for row in rows
        if all(word in row[2] for word in wanted) and not any(word in row[2] for word in unwanted)
    ]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "two/small"
    folder.mkdir(parents=True)
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("a small disk needs root and mount")
    yield "small"
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_there_is_named_and_what_is_there_stays_whole(tmp_path, sshd, small_disk):
    machines = Machines(tmp_path / "two", sshd, there=small_disk)
    slug = machines.open_pair()
    for n in range(4):
        machines.here.send("claude", "note", f"# {n}\n" + "x" * 300_000 + "\n")
    done = machines.sync("push", "--only", "ledger")
    assert done.code == 2 and "hint: make room" in done.err and "No space left" in done.err, done
    assert len(list((machines.there.shared / slug).glob("*.ready"))) < 4
    assert machines.there.ok("codex", "next").action != "damaged"
    subprocess.run(["mount", "-o", "remount,size=8m", tmp_path / "two/small"], check=True)
    assert machines.sync("push", "--only", "ledger").code == 0
    assert len(list((machines.there.shared / slug).glob("*.ready"))) == 4


def test_a_clock_an_hour_off_changes_nothing(near, monkeypatch):
    slug = near.open_pair()
    near.here.send("claude", "plan")
    near.ledger("push")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3700)
    near.there.ok("codex", "next")
    near.there.send("codex", "review")
    monkeypatch.undo()
    for path in near.there.shared.rglob("*"):
        os.utime(path, (real() + 3700,) * 2, follow_symlinks=False)
    assert ("received", "002-codex-review") in near.ledger("pull")
    assert near.here.ok("claude", "next").action == "reply"
    near.here.send("claude", "fix")
    near.ledger("push")
    monkeypatch.setattr(time, "time", lambda: real() + 3700)
    assert near.there.ok("codex", "next", "--exit-code").action == "reply"
    monkeypatch.undo()
    # Who waits for a clock that is ahead is not told that its peer is gone.
    assert (
        near.here.run("claude", "next", "--wait", "0", "--exit-code", "--sync", **near.env()).code
        == 10
    )
    assert near.ledger("pull") == [] and near.ledger("push") == []
    assert slug


ODD = [
    " ",
    "-rf",
    "--delete",
    "a b",
    "new\nline",
    "tab\t",
    "*?[x]",
    "back\\slash",
    "back\\#012",
    "$(touch x)",
    ";x",
    "'q\"",
    "ümlaut",
    "#hash",
    ";semi",
    "!bang",
    "a:b",
    "~",
]


@pytest.mark.parametrize("strict", [(), ("--strict-gitignore",)], ids=["filter", "strict"])
@pytest.mark.parametrize("way", ["push", "pull"])
def test_odd_names_travel_as_they_are(machines, way, strict):
    source, target = (
        (machines.here, machines.there) if way == "push" else (machines.there, machines.here)
    )
    for name in [*ODD, os.fsdecode(b"\xff\xfe")]:
        folder = source.project / f"d{name}"
        folder.mkdir()
        (source.project / name).write_text(name.encode("utf-8", "replace").decode())
        (folder / name).write_text("below")
    done = machines.sync(way, *strict)
    assert done.code == 0, done
    assert tree(target.project) == tree(source.project)
    assert "nothing to do" in machines.sync(way, *strict).out


def tree(project):
    found = {}
    for path in project.rglob("*"):
        name = str(path.relative_to(project))
        if not name.startswith((".git/", ".shared")) and name != ".git" and not path.is_dir():
            found[name] = (
                os.readlink(path)
                if path.is_symlink()
                else (path.read_bytes(), path.stat().st_mode & 0o777)
            )
    return found


def fill(project, **files):
    for name, text in files.items():
        path = project / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


IGNORING = {
    "_dot_gitignore": "*.log\n!keep.log\nbuild/\nsecret.key \n",
    "keep_dot_log": "kept\n",
    "x_dot_log": "no\n",
    "build__out": "no\n",
    "secret_dot_key": "no\n",
    "src__a": "yes\n",
}


@pytest.mark.parametrize("way", ["push", "pull"])
def test_what_gitignore_names_stays_and_strict_reads_it_as_git_does(machines, way):
    source, target = (
        (machines.here, machines.there) if way == "push" else (machines.there, machines.here)
    )
    fill(source.project, **IGNORING)
    (source.project / ".git/info").mkdir(exist_ok=True)
    (source.project / ".git/info/exclude").write_text("private\n")
    fill(source.project, private="no\n", tracked_dot_log="yes\n")
    source.git("add", "-f", "tracked.log")
    done = machines.sync(way)
    assert done.code == 0, done
    # rsync knows neither `!` nor blanks at the end of a rule nor info/exclude: on a push git's own word is added.
    assert (
        {"src/a", ".gitignore"}
        <= tree(target.project).keys()
        <= {"src/a", ".gitignore", "secret.key", "private"}
    )
    assert way == "pull" or not {"secret.key", "private"} & tree(target.project).keys()
    done = machines.sync(way, "--strict-gitignore")
    assert done.code == 0 and {"keep.log", "tracked.log"} <= tree(target.project).keys()
    assert not {"x.log", "build/out"} & tree(target.project).keys()


def test_a_file_that_is_ignored_here_is_not_written_over_by_a_pull(near):
    fill(near.here.project, _dot_gitignore="*.env\n", my_dot_env="mine\n")
    fill(near.there.project, my_dot_env="theirs\n", a="a\n")
    done = near.sync("pull")
    assert done.code == 0 and "my.env" not in done.out, done
    assert (near.here.project / "my.env").read_text() == "mine\n" and (
        near.here.project / "a"
    ).exists()


@pytest.mark.parametrize("kind", ["file", "symlink", "ignored"])
def test_what_a_directory_replaces_in_a_pull_is_named_and_nothing_that_is_ignored(near, kind):
    (near.there.project / "x").mkdir()
    (near.there.project / "x/in").write_text("theirs\n")
    mine = near.here.project / "x"
    mine.symlink_to("elsewhere") if kind == "symlink" else mine.write_text("mine\n")
    if kind == "ignored":
        (near.here.project / ".git/info").mkdir(exist_ok=True)
        (near.here.project / ".git/info/exclude").write_text("x\n")
    rows = []
    for flags in (("--dry-run",), ()):
        assert mine.is_symlink() == (kind == "symlink") and not mine.is_dir()
        done = near.sync("pull", "--only", "code", "--json", *flags)
        rows.append([(row["what"], row["path"]) for row in done.json["code"]])
    wanted = [] if kind == "ignored" else [("deleted", "x"), ("new", "x/in")]
    assert rows == [wanted, wanted] and mine.is_dir() == bool(wanted)


def test_a_symlink_in_the_place_of_a_directory_stops_no_sync_that_deletes(near):
    near.here.project.joinpath("x").symlink_to("keep")
    for name in ("x/in", "gone"):
        path = near.there.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("theirs\n")
    done = near.sync("push", "--only", "code", "--delete")
    assert done.code == 1 and "make way" in done.out, done
    assert (near.there.project / "gone").exists()


def test_a_pull_counts_what_changed_and_not_what_only_looks_older(near):
    for stage in (near.here, near.there):
        fill(stage.project, same="same\n", other=f"{stage.folder.name}\n")
        os.utime(stage.project / "same", (1_000_000 + len(stage.folder.name),) * 2)
    (near.there.project / "run.sh").write_text("#!/bin/sh\n")
    (near.there.project / "run.sh").chmod(0o4775)
    done = near.sync("pull", "--json", "--only", "code")
    assert [(row["what"], row["path"]) for row in json.loads(done.out)["code"]] == [
        ("changed", "other"),
        ("new", "run.sh"),
    ]
    assert (near.here.project / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert "nothing to do" in near.sync("pull", "--only", "code").out


def test_an_edit_within_a_second_that_leaves_the_size_as_it_was_travels(near):
    here, there = near.here.project / "app.py", near.there.project / "app.py"
    for way, at in (("push", here), ("pull", there)):
        for text, part_ns in (("x = 1\n", 1), ("x = 2\n", 2)):
            at.write_text(text)
            os.utime(at, ns=(1_700_000_000_000_000_000 + part_ns,) * 2)
            assert near.sync(way, "--only", "code").code == 0
            assert here.read_text() == there.read_text() == text


def test_only_one_part_is_carried_where_only_that_is_wanted(near):
    slug = near.here.ok("claude", "bootstrap", "--topic", "demo", **near.env()).out.split()[0]
    fill(near.here.project, a="a\n")
    near.sync("push", "--only", "code")
    assert (near.there.project / "a").exists() and not near.there.shared.exists()
    fill(near.here.project, b="b\n")
    near.sync("push", "--only", "ledger")
    assert not (near.there.project / "b").exists() and (near.there.shared / slug).exists()


def test_a_linked_worktree_does_not_write_over_the_far_main_tree(near):
    near.here.git("worktree", "add", "-q", "../linked")
    done = near.here.run("claude", "sync", "push", cwd=near.here.folder / "linked", **near.env())
    assert done.code == 2 and "linked worktree" in done.err
    assert (
        near.here.run(
            "claude",
            "sync",
            "push",
            "--only",
            "ledger",
            cwd=near.here.folder / "linked",
            **near.env(),
        ).code
        == 0
    )


# ---------------------------------------------------------------- a far side that lies


# A far rsync that sends other names than its files have: what leaves it is rewritten on the way, byte for byte of the
# same length, which nothing in the protocol shows. `{when}` says in which of its runs.
LYING = """#!{python}
import os, subprocess, sys
argv = sys.argv[1:]
told = open("{folder}/runs", "a")
told.write(" ".join(argv) + chr(10))
told.close()
runs = open("{folder}/runs").read().count("--sender")
if "--sender" not in argv or not os.path.exists("{folder}/flag") or not ({when}):
    os.execv("{rsync}", ["rsync", *argv])
serving = subprocess.Popen(["{rsync}", *argv], stdout=subprocess.PIPE)
while chunk := os.read(serving.stdout.fileno(), 1 << 20):
    if {old!r} in chunk:
        open("{folder}/lied", "w").close()
    os.write(1, chunk.replace({old!r}, {new!r}))
sys.exit(serving.wait())
"""


def lying(folder, old, new, when):
    """The remote shell that leads to such a far side; it lies once there is a file `flag`, and says so with a file `lied`."""
    assert len(old) == len(new)
    (folder / "bin").mkdir(parents=True)
    path = folder / "bin/rsync"
    path.write_text(
        LYING.format(
            python=shutil.which("python3"),
            rsync=shutil.which("rsync"),
            folder=folder,
            old=old,
            new=new,
            when=when,
        )
    )
    (folder / "shell").write_text(f'#!/bin/sh\nshift\nPATH={folder}/bin:$PATH exec sh -c "$*"\n')
    for made in (path, folder / "shell"):
        made.chmod(0o755)
    return str(folder / "shell")


def trusting(folder):
    """A PATH on which this side's rsync takes whatever it is sent, as versions before 3.2.5 did."""
    folder.mkdir()
    (folder / "rsync").write_text(f'#!/bin/sh\nexec {shutil.which("rsync")} --trust-sender "$@"\n')
    (folder / "rsync").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def everything_outside(machines, tmp_path):
    """All that a pull must not touch: git's own, what lies beside the project, and the settings."""
    found = {}
    for path in tmp_path.rglob("*"):
        name = str(path)
        if (
            not name.startswith((str(machines.there.folder), str(tmp_path / "far")))
            and path.is_file()
            and not path.is_symlink()
        ):
            if f"{machines.here.project}/" not in name or "/.git/" in name or "/.envrc" in name:
                found[name] = path.read_bytes()
    return found


LIES = {
    "git": (b"QQQQ", b".git", "QQQQ/hooks/post-checkout"),
    "ledger": (b"QQQQQQQ", b".shared", "QQQQQQQ/_relay/bindings/claude-x.json"),
    "up": (b"QQ", b"..", "QQ/owned"),
    "absolute": (b"QtmpQrelay-owned", b"/tmp/relay-owned", "QtmpQrelay-owned"),
    "settings": (b"QQQQQQ.", b".envrc.", "QQQQQQ." + os.uname().nodename.partition(".")[0]),
    "link": (b"QQQQ", b"link", "QQQQ/owned"),
}


# Only rsync itself can refuse what it is sent under another name than it asked for; before 3.2.5 it did not.
@pytest.mark.parametrize(
    ("believing", "when"),
    [(False, "True"), (True, "True"), (False, "runs % 3 == 0")],
    ids=["careful", "believing", "careful-once-listed"],
)
@pytest.mark.parametrize("lie", LIES)
def test_a_far_side_that_lies_about_its_names_writes_nothing_outside(
    stage, tmp_path, lie, believing, when
):
    """Neither in its list, even where rsync believes it all, nor, where that was honest, in what it then sends."""
    machines = Machines(tmp_path / "two")
    old, new, name = LIES[lie]
    path = machines.there.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("owned\n")
    fill(machines.there.project, honest="h\n")
    os.symlink(machines.here.home, machines.here.project / "link")
    machines.here.ok("claude", "bootstrap", "--topic", "demo")
    machines.settings = {"RSYNC_RSH": lying(tmp_path / "far", old, new, when)}
    machines.settings |= {"PATH": trusting(tmp_path / "near")} if believing else {}
    before = everything_outside(machines, tmp_path)
    (tmp_path / "far/flag").write_text("")
    done = machines.sync("pull", "--only", "code")
    assert done.code in (0, 1, 2) and (tmp_path / "far/lied").exists(), done
    assert everything_outside(machines, tmp_path) == before
    assert not os.path.exists("/tmp/relay-owned") and not list(machines.here.folder.rglob("owned"))
    assert not [
        p for p in machines.here.shared.rglob("*") if "claude-x" in p.name or p.suffix == ".tmp"
    ]


@pytest.mark.parametrize("believing", [False, True], ids=["careful", "believing"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"002-codex-note", b"../../../owned"),
        (b"002-codex-note", b"001-claude-not"),
        (b"shared", b"./../o"),
    ],
)
def test_a_far_ledger_that_lies_about_its_names_changes_nothing_else(
    stage, tmp_path, old, new, believing
):
    machines = Machines(tmp_path / "two")
    slug = machines.open_pair()
    machines.here.send("claude", "note")
    machines.there.send("codex", "note")
    machines.settings = {"RSYNC_RSH": lying(tmp_path / "far", old, new, "runs % 2 == 0")}
    machines.settings |= {"PATH": trusting(tmp_path / "near")} if believing else {}
    before = everything_outside(machines, tmp_path)
    kept = {path.name: path.read_bytes() for path in (machines.here.shared / slug).glob("001-*")}
    (tmp_path / "far/flag").write_text("")
    done = machines.sync("pull", "--only", "ledger")
    assert done.code in (0, 1, 2) and (tmp_path / "far/lied").exists(), done
    assert everything_outside(machines, tmp_path) == before and not list(tmp_path.rglob("owned*"))
    assert {
        path.name: path.read_bytes() for path in (machines.here.shared / slug).glob("001-*")
    } == kept
    assert not list((machines.here.shared / slug).glob("002-*.ready"))


@pytest.mark.parametrize(
    "value",
    ["far; touch owned", "-oProxyCommand=touch owned", "$(touch owned)", "far\ntouch owned"],
)
def test_no_setting_runs_anything(near, value):
    machines = near
    for name in ("RELAY_REMOTE_SSH", "RELAY_REMOTE_PATH"):
        machines.settings = {name: value}
        assert machines.sync("push").code == 2
    machines.settings = {"RELAY_REMOTE_PATH": f"/{value}"}
    assert machines.sync("push").code == 2
    assert not [path for path in machines.here.folder.rglob("*owned*")] and not os.path.exists(
        "owned"
    )


def test_a_path_with_blanks_and_quotes_is_one_path(stage, sshd, tmp_path):
    machines = Machines(tmp_path / "two", sshd, there='it\'s a $HOME; "place"')
    slug = machines.open_pair()
    fill(machines.here.project, a="a\n")
    assert (
        machines.sync("push", "--strict-gitignore").code == 0
        and machines.sync("pull", "--strict-gitignore").code == 0
    )
    assert (machines.there.shared / slug / "session.json").exists() and (
        machines.there.project / "a"
    ).exists()


def test_a_far_artifact_never_replaces_one_here_and_a_far_link_is_none(near):
    slug = near.open_pair()
    near.here.send("claude", "plan")
    near.ledger("push")
    here, there = near.here.shared / slug, near.there.shared / slug
    kept = {path.name: path.read_bytes() for path in here.glob("001-*")}
    for suffix in ("md", "md.sha256"):
        path = there / f"001-claude-plan.{suffix}"
        path.write_bytes(path.read_bytes() + b"forged")
    for suffix in ("md", "md.sha256", "ready"):
        os.symlink("/etc/passwd", there / f"002-codex-note.{suffix}")
    done = near.sync("pull", "--only", "ledger")
    assert done.code == 1 and "damaged" in done.out, done
    assert {path.name: path.read_bytes() for path in here.glob("001-*")} == kept
    assert not list(here.glob("002-*"))


def test_a_session_that_lies_changes_nothing_here(near):
    slug = near.open_pair()
    far = near.there.shared / slug / "session.json"
    mine = (near.here.shared / slug / "session.json").read_bytes()
    told = json.loads(far.read_text())
    for lie in (
        {"participants": ["claude", "mallory"]},
        {"created_at": "x"},
        {"session_id": "../x"},
        {"schema_version": 4},
        {"schema_version": None},
    ):
        far.write_text(json.dumps(told | lie))
        assert near.sync("pull", "--only", "ledger").code == 1
        assert (near.here.shared / slug / "session.json").read_bytes() == mine
    far.write_bytes(b"[" * 100_000)
    assert near.sync("pull", "--only", "ledger").code == 1
    assert (near.here.shared / slug / "session.json").read_bytes() == mine


def test_a_file_larger_than_an_artifact_may_be_is_not_taken(near):
    slug = near.open_pair()
    pair = near.there.shared / slug
    near.there.send("codex", "note")
    with open(pair / "002-codex-note.md", "r+b") as file:
        file.truncate(RELAY.MAX_ARTIFACT_BYTES * 2 + 1)
    done = near.sync("pull", "--only", "ledger")
    assert (
        done.code == 1
        and "damaged" in done.out
        and not list((near.here.shared / slug).glob("002-*"))
    )


# ---------------------------------------------------------------- deleting


def test_a_push_without_delete_deletes_nothing(near):
    fill(near.there.project, gone="g\n")
    near.sync("push")
    assert (near.there.project / "gone").exists()


def test_pull_delete_takes_only_what_a_pull_would_bring(near):
    fill(near.there.project, keep="k\n")
    fill(
        near.here.project,
        _dot_gitignore="*.log\n",
        gone__deep="g\n",
        x_dot_log="l\n",
        _dot_envrc="mine\n",
    )
    (near.here.project / f".envrc.{os.uname().nodename.partition('.')[0]}").write_text("mine\n")
    near.here.ok("claude", "bootstrap", "--topic", "demo", **near.env())
    ledger = {str(path) for path in near.here.shared.rglob("*")}
    done = near.sync("pull", "--delete", "--only", "code")
    assert done.code == 0, done
    assert tree(near.here.project).keys() == {
        "keep",
        "x.log",
        f".envrc.{os.uname().nodename.partition('.')[0]}",
    }
    assert {str(path) for path in near.here.shared.rglob("*")} >= ledger and (
        near.here.project / ".git"
    ).exists()


@pytest.mark.parametrize("way", ["push", "pull"])
def test_nothing_is_deleted_after_a_list_that_is_not_whole(near, tmp_path, way):
    """rsync could not open a directory over there, and says so: what seems to be missing may be there."""
    fill(near.here.project, gone="g\n", both="1\n")
    fill(near.there.project, lost="l\n", both="1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/rsync").write_text(
        f'#!/bin/sh\n{shutil.which("rsync")} "$@"\ncode=$?\ncase "$*" in *--dry-run*)\n'
        'echo "rsync: opendir \\"/x\\" failed: Permission denied (13)" >&2; exit 23 ;; esac\nexit $code\n'
    )
    (tmp_path / "bin/rsync").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    done = near.sync(way, "--delete", "--only", "code", PATH=path)
    assert done.code == 1 and "nothing was deleted" in done.out, done
    assert (near.here.project / "gone").exists() and (near.there.project / "lost").exists()
    assert near.sync(way, "--delete", "--only", "code").code == 0
    assert (near.here.project / "gone").exists() == (way == "push")
    assert (near.there.project / "lost").exists() == (way == "pull")


@pytest.mark.parametrize("strict", [(), ("--strict-gitignore",)], ids=["filter", "strict"])
def test_linked_worktrees_inside_the_project_do_not_travel_and_stay(near, strict):
    for stage, name in ((near.here, "mine"), (near.there, "theirs")):
        stage.git("worktree", "add", "-q", f"inner/{name}")
        fill(stage.project, **{f"inner__{name}__loose": "x\n", "inner__file": "f\n"})
    for way in ("push", "pull"):
        assert near.sync(way, "--delete", "--only", "code", *strict).code == 0
    for stage, name, other in ((near.here, "mine", "theirs"), (near.there, "theirs", "mine")):
        assert (stage.project / "inner" / name / "loose").exists()
        assert (stage.project / "inner/file").exists()
        assert not (stage.project / "inner" / other).exists()


# ---------------------------------------------------------------- mounts


@pytest.fixture
def mounted(machines, sshd, tmp_path):
    """Codex's project, mounted here with sshfs."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if not shutil.which("sshfs") or not os.path.exists("/dev/fuse"):
        pytest.skip("needs sshfs and /dev/fuse")
    done = subprocess.run(
        ["sshfs", "-F", sshd.folder / "config", f"far:{machines.far}", folder],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"sshfs cannot mount here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_project_files_are_not_synced_from_a_mount(machines, mounted):
    for way in ("push", "pull"):
        done = machines.here.run("claude", "sync", way, cwd=mounted, **machines.env())
        assert done.code == 2 and "is on a fuse.sshfs mount" in done.err and "hint:" in done.err, (
            done
        )


def test_a_ledger_on_a_shared_mount_is_not_carried(machines, mounted):
    machines.settings = {"RELAY_SHARED_ROOT": f"{mounted}/.shared"}
    slug = machines.here.ok("claude", "bootstrap", "--topic", "demo", **machines.env()).out.split()[
        0
    ]
    assert (
        machines.there.ok("codex", "next").action == "wait"
        and (machines.there.shared / slug).exists()
    )
    fill(machines.here.project, a="a\n")
    done = machines.sync("push")
    assert (
        done.code == 0
        and "the ledger is on a shared mount" in done.err
        and (machines.there.project / "a").exists()
    ), done
    assert json.loads(machines.sync("pull", "--json").out)["ledger"] is None
