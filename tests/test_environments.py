"""A whole review, played by real processes, on machines that are set up in odd ways."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest
from conftest import SCRIPT

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parent.parent
NO_NAMESPACE = (
    os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
)
# Outside this checkout and the temporary folders, where the launcher trusts neither bytecode nor a Python.
CACHE = pathlib.Path.home() / ".cache" / "agent-relay-tests"
SFTP = next(
    (
        path
        for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
        if os.path.exists(path)
    ),
    None,
)


@pytest.fixture
def place():
    """A folder for an installed relay, a home and scratch projects."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="relay environments '", dir=CACHE))
    (folder / "home").mkdir()
    shutil.copytree(SCRIPT.parents[1], folder / "agent-relay")
    yield folder
    shutil.rmtree(folder)


def played(place, before=(), **env):
    """What the demo printed: nine relay processes, two waits, git, evidence, a refusal, a close and a proof."""
    env = {
        "HOME": str(place / "home"),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(place),
        "LANG": "C.UTF-8",
        "XDG_CACHE_HOME": str(CACHE),
        **env,
    }
    done = subprocess.run(
        [*before, place / "agent-relay/bin/relay", "demo"],
        env={key: value for key, value in env.items() if value is not None},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and not done.stderr, done
    assert (
        "5 artifacts, 2 findings: all well" in done.stdout
        and "nothing was published" in done.stdout
    ), done.stdout
    assert not [
        path for path in place.iterdir() if path.name not in ("home", "agent-relay", "tools")
    ], "litter"
    return done.stdout


def mounts(script):
    """A command prefix: these mounts are made in a namespace of its own, then the program runs."""
    return "unshare", "-m", "sh", "-c", f'{script} || exit 99; exec "$0" "$@"'


@pytest.mark.skipif(bool(NO_NAMESPACE), reason="needs a mount namespace")
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_with_another_shell_as_bin_sh(place, shell):
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"{shell} is not here")
    asked = subprocess.run(
        [
            *mounts(f"mount --bind {program} $(readlink -f /bin/sh)"),
            "/bin/sh",
            "-c",
            "echo $BASH_VERSION; readlink /proc/$$/exe",
        ],
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0 and shell in asked.stdout.splitlines()[-1] + os.path.realpath(
        program
    ), asked
    played(place, mounts(f"mount --bind {program} $(readlink -f /bin/sh)"))


def test_with_no_python3_but_a_python_of_a_version(place):
    tools = place / "tools"
    tools.mkdir()
    version = "python{}.{}".format(*sys.version_info[:2])
    for name, program in {version: sys.executable, "git": shutil.which("git")}.items():
        (tools / name).symlink_to(os.path.realpath(program))
    played(place, PATH=str(tools))


@pytest.mark.parametrize(
    "env",
    [
        {"HOME": None},
        {"HOME": ""},
        {"HOME": "/nonexistent"},
        {"LANG": "C"},
        {"LANG": None, "LC_ALL": "POSIX"},
        {"TERM": "dumb", "COLUMNS": "20"},
        {"GIT_DIR": "/nonexistent", "GIT_INDEX_FILE": "/nonexistent/index"},
        {"PYTHONPATH": "/nonexistent", "PYTHONSTARTUP": "/nonexistent"},
    ],
    ids=str,
)
def test_with_an_odd_environment(place, env):
    played(place, **env)


@pytest.mark.parametrize("umask", ["000", "077", "0777"])
def test_under_any_umask(place, umask):
    if umask == "0777" and os.geteuid():
        pytest.skip("git itself needs to read what it wrote")
    played(place, ("sh", "-c", f'umask {umask}; exec "$0" "$@"'))


@pytest.mark.skipif(bool(NO_NAMESPACE), reason="needs a mount namespace")
def test_with_a_home_that_cannot_be_written(place):
    played(place, mounts(f'mount -t tmpfs -o ro none "{place}/home"'))


def test_in_a_path_with_blanks_and_quotes(place):
    odd = place / "home" / 'it\'s a "place" $HOME `x` \\ ü'
    odd.mkdir()
    played(place, TMPDIR=str(odd))
    assert not list(odd.iterdir())


@pytest.fixture
def without_links(place):
    """A FUSE mount on which hard links are refused: sshfs over an sftp server of its own, without a network."""
    if not shutil.which("sshfs") or not SFTP or not os.path.exists("/dev/fuse"):
        pytest.skip("needs sshfs, sftp-server and /dev/fuse")
    (place / "tools").mkdir()
    behind, server = place / "tools/behind", place / "tools/server"
    behind.mkdir()
    mount = pathlib.Path(tempfile.mkdtemp(prefix="mount-", dir=CACHE))
    server.write_text(f"#!/bin/sh\nexec {SFTP}\n")
    server.chmod(0o755)
    link = (
        pathlib.Path(tempfile.mkdtemp(prefix="relay-sftp-")) / "s"
    )  # sshfs splits the command at blanks.
    link.symlink_to(place)
    for more in (
        ",no_contain_symlinks",
        "",
    ):  # Newer versions refuse to read links that lead out of the mount: so pytest's own.
        options = f"disable_hardlink,ssh_command={link}/tools/server{more}"
        done = subprocess.run(
            ["sshfs", "-o", options, f"here:{link}/tools/behind", mount],
            capture_output=True,
            text=True,
        )
        if not done.returncode:
            break
    if done.returncode:
        pytest.skip(f"sshfs cannot mount here: {done.stderr.strip()}")
    with pytest.raises(OSError):
        (mount / "a").write_text("")
        os.link(mount / "a", mount / "b")
    (mount / "a").unlink()
    yield mount
    subprocess.run(["umount", mount], check=True)
    mount.rmdir()
    shutil.rmtree(link.parent)


def test_a_review_on_a_mount_without_hard_links(place, without_links):
    played(place, TMPDIR=str(without_links))


def test_the_suite_of_the_record_on_a_mount_without_hard_links(without_links):
    """The tests whose subject is what stands on disk, with every ledger on that mount. It has no FIFOs, and no time of
    change that a writer cannot set: what only that would show, `verify` alone finds there. On a FUSE mount each
    author has every other number, so tests that expect consecutive ones are left out."""
    names = ("turns", "tampering")
    left_out = (
        "fifo",
        "keeps_size_and_time",
        "upper_row_of_the_table",
        "again_publishes_once_more",
        "another_option_makes_another",
        "last_number_of_a_pair",
        "pause_ends_with_the_next",
        "corrections_and_addenda_answer",
        "does_not_skip_to_an_older",
        "damaged_artifact_sent_again",
        "rewritten_with_all_its_sums",
    )
    words = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow and not hosts",
        "-k",
        " and ".join(f"not {name}" for name in left_out),
        f"--basetemp={without_links}/t",
        *(f"tests/test_{name}.py" for name in names),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]


def test_a_read_only_ledger_is_one_refusal_with_the_way_out(stage):
    """As `codex exec` has it in an untrusted project; an instance that is not bound is sent in no circle."""
    slug = stage.ok("claude", "bootstrap", "--topic", "t").out.split()[0]
    stage.send("claude", "plan")
    text = stage.file("# N\n\n## Next\ngo\n")
    ledger = shlex.quote(str(stage.shared))
    mount = f"mount --bind {ledger} {ledger} && mount -o remount,bind,ro {ledger} || exit 99; "
    for words in (
        ("next",),
        ("send", "--kind", "note", "--file", str(text)),
        ("pair", "join", slug),
        ("bootstrap", "--topic", "t", "--force"),
        ("run", "--", "true"),
    ):
        command = ("unshare", "-m", "sh", "-c", mount + shlex.join([str(SCRIPT), *words]))
        env = stage.env("codex")
        done = subprocess.run(command, cwd=stage.project, env=env, capture_output=True, text=True)
        if done.returncode == 99 or "unshare" in done.stderr:
            pytest.skip("nothing can be mounted here")
        assert done.returncode in (2, 125), done
        assert f"{stage.shared} is read-only here" in done.stderr and ".tmp" not in done.stderr
        assert "trust this project" in done.stderr and "relay next" not in done.stderr
        assert len(done.stderr.splitlines()) == 2, done.stderr
