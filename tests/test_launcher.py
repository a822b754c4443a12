"""The launcher: which Python it takes, where bytecode goes, and that nothing of the project is run."""

from __future__ import annotations

import glob
import os
import pathlib
import pwd
import shutil
import stat
import subprocess
import sys

import pytest
from conftest import CACHE, SCRIPT, copy_script, short_script

THIS = os.path.realpath(sys.executable)
SHELLS = {"sh": ["/bin/sh"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}


class Launch:
    """A relay outside any project, a cache, and a PATH made of directories of its own."""

    def __init__(self, stage, folder):
        self.stage = stage
        self.cache = folder / "cache"
        self.folder = folder / "installed"
        self.relay = self.folder / "relay"
        if not self.folder.exists():
            self.folder.mkdir()
            short_script(self.relay)
        self.good = self.bin("good", python3=THIS)
        self.git = self.bin("git", git=shutil.which("git"))

    def bin(self, name, parent=None, **programs):
        """A directory with symlinks to programs, or with scripts where a text is given."""
        folder = (parent or self.stage.folder) / name
        folder.mkdir(parents=True, exist_ok=True)
        for program, what in programs.items():
            path = folder / program.replace("_", ".")
            if "\n" in what:
                path.write_text(what)
                path.chmod(0o755)
            else:
                path.symlink_to(what)
        return folder

    def run(self, *words, path=None, command=None, cwd=None, **env):
        """Start relay with exactly these directories on PATH."""
        path = [self.good] if path is None else path
        env = {
            "HOME": str(self.stage.home),
            "PATH": ":".join([*map(str, path), str(self.git)]),
            "XDG_CACHE_HOME": str(self.cache),
            **env,
        }
        return subprocess.run(
            [*map(str, command or [self.relay]), *(words or ("version",))],
            cwd=cwd or self.stage.project,
            env={key: value for key, value in env.items() if value is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def fine(self, *words, **more):
        done = self.run(*words, **more)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert words or done.stdout.startswith("relay 2."), done.stdout
        return done


def hostile(folder):
    """A program that leaves a file behind when it is run."""
    return f"#!/bin/sh\n: >'{folder}/OWNED'\nexec '{THIS}' \"$@\"\n"


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("launch")


@pytest.fixture
def launch(stage, shared):
    """With a script and a cache that all tests share."""
    return Launch(stage, shared)


@pytest.fixture
def fresh(stage):
    """With a script and a cache of its own."""
    return Launch(stage, stage.folder)


def old_pythons():
    """Interpreters before 3.10 that this machine happens to have."""
    homes = [pathlib.Path(THIS).parents[2]]
    homes.append(pathlib.Path(pwd.getpwuid(os.getuid()).pw_dir) / ".pyenv" / "versions")
    found = [p for home in homes for v in "6789" for p in glob.glob(f"{home}/*/bin/python3.{v}")]
    return sorted(set(map(os.path.realpath, found)))


OLD = old_pythons()
old = pytest.mark.skipif(not OLD, reason="no Python before 3.10 here")


# ---- which Python


@pytest.mark.parametrize("path", [[], ["/nonexistent"], ["", ".", "relative/bin"]], ids=str)
def test_without_python_it_says_what_it_needs_and_a_hook_is_silent(launch, path):
    done = launch.run(path=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("relay: no Python 3.10 or later") and "hint: " in done.stderr
    done = launch.run("hook", "claude", "Stop", path=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@old
def test_an_old_python_is_passed_over_for_a_later_one(launch):
    first, second = launch.bin("old", python3=OLD[0]), launch.bin("older", python3=OLD[-1])
    assert launch.run(path=[first, second]).returncode == 2
    launch.fine(path=[first, second, launch.bin("named", python3_12=THIS)])
    words = ["help", "a  b 'c' \"d\" $e *"]
    done = launch.run(*words, path=[first, launch.good])
    assert done.stderr == f"{words}\n", "arguments stay what they were"


@pytest.mark.parametrize("name", ["python3.10", "python3.14"])
def test_a_python_with_only_its_version_in_its_name_is_used(launch, name):
    launch.fine(path=[launch.bin("named", **{name.replace(".", "_"): THIS})])


def test_what_cannot_be_run_is_passed_over(launch):
    wrong = launch.bin("wrong")
    (wrong / "python3").mkdir()
    launch.fine(path=[wrong, launch.bin("dangling", python3="/nonexistent"), launch.good])


def test_the_shims_of_a_version_manager_come_last(launch):
    shims = launch.bin("shims", launch.stage.folder / "pyenv", python3=hostile(launch.stage.folder))
    launch.fine(path=[shims, launch.good])
    assert not (launch.stage.folder / "OWNED").exists()
    launch.fine(path=[shims])
    assert (launch.stage.folder / "OWNED").exists()


@pytest.mark.parametrize(
    "name", ["with space", "qu'o\"te", "st*r[a]", "do$HOME`ls`", "back\\slash"]
)
def test_a_python_in_a_directory_of_any_name_is_used(launch, name):
    launch.fine(path=[launch.bin(name, python3=THIS)])


def test_variables_of_python_and_of_the_shell_change_nothing(launch):
    evil = launch.bin("evil", sha="x")
    for module in ("os", "sitecustomize", "site", "errno", "time", "argparse"):
        (evil / f"{module}.py").write_text("print('PLANTED')")
    for env in (
        {"PYTHONPATH": str(evil), "PYTHONSTARTUP": f"{evil}/os.py"},
        {"PYTHONHOME": str(evil), "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1"},
        {"IFS": "/", "CDPATH": "/", "PWD": "/", "OLDPWD": "x", "ENV": f"{evil}/os.py"},
        {"PYTHONPYCACHEPREFIX": str(evil), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        {"here": "x", "project": "x", "skip": "9", "count": "9", "dir": "x"},
    ):
        launch.fine(**env)
    launch.fine(cwd=evil)


# ---- nothing of the project is run


@pytest.fixture
def venv(launch):
    """A python3 that came with the project."""
    parent = launch.stage.project / ".venv"
    return launch.bin("bin", parent=parent, python3=hostile(launch.stage.project))


@pytest.mark.parametrize("cwd", ["", "sub/deeper", "with a ledger", "repository"])
def test_a_python_of_the_project_is_not_run(launch, venv, cwd):
    project = launch.stage.project
    for folder in ("sub/deeper", "with a ledger/.shared", "repository/.git"):
        (project / folder).mkdir(parents=True, exist_ok=True)
    (project / "repository/.git/HEAD").write_text("ref: refs/heads/main\n")
    launch.fine(path=[venv, launch.good], cwd=project / cwd)
    assert launch.run(path=[venv], cwd=project / cwd).returncode == 2
    assert not (project / "OWNED").exists()


def test_a_python_of_the_project_is_not_run_through_symlinks_or_other_spellings(launch, venv):
    project = launch.stage.project
    link = launch.stage.folder / "link"
    link.symlink_to(project)
    (project / "sub").mkdir()
    spellings = [
        venv,
        link / ".venv/bin",
        f"{project}//.venv/bin",
        f"{project}/sub/../.venv/bin",
        ".venv/bin",
    ]
    for cwd in (project, link):
        launch.fine(path=[*spellings, launch.good], cwd=cwd, PWD=str(cwd))
    assert not (project / "OWNED").exists()


def test_a_home_under_git_is_no_project(launch):
    """People keep their dotfiles in git; the interpreters below such a home are their own."""
    home = launch.stage.home
    (home / ".git").mkdir()
    (home / ".git/HEAD").write_text("ref: refs/heads/main\n")
    own = launch.bin("bin", parent=home / ".local", python3=THIS)
    for slash in ("", "/"):
        launch.fine(path=[own], cwd=home, HOME=f"{home}{slash}")


def test_an_empty_git_directory_is_no_repository(launch):
    """Codex's sandbox leaves one in /tmp."""
    (launch.stage.folder / ".git").mkdir()
    launch.fine(cwd=launch.stage.folder)


# ---- bytecode


def test_bytecode_is_kept_in_the_users_cache_and_one_serves_every_symlink(fresh):
    link = fresh.bin("links", relay=str(fresh.relay)) / "relay"
    fresh.fine()
    fresh.fine(command=[link])
    kept = [path for path in fresh.cache.rglob("*") if path.is_file()]
    assert len(kept) == 1 and kept[0].suffix == ".pyc"
    assert os.listdir(fresh.folder) == ["relay"], "nothing is compiled beside the script"


def test_a_script_that_changed_is_compiled_anew(fresh):
    fresh.fine()
    text = fresh.relay.read_text()
    fresh.relay.write_text(text.replace('VERSION = "2.', 'VERSION = "2.9.', 1))
    assert fresh.run().stdout.startswith("relay 2.9.")


@pytest.mark.parametrize(
    "env",
    [
        {"XDG_CACHE_HOME": None, "HOME": None},
        {"XDG_CACHE_HOME": "relative"},
        {"XDG_CACHE_HOME": "/dev/null/x"},
        pytest.param({"XDG_CACHE_HOME": "/proc/x"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_without_a_place_for_a_cache_it_works_and_leaves_none(fresh, env):
    home = {} if env.get("HOME", "") is None else {"HOME": str(fresh.stage.home)}
    before = fresh.stage.snapshot(fresh.stage.project, fresh.folder)
    fresh.fine(**home, **env)
    assert fresh.stage.snapshot(fresh.stage.project, fresh.folder) == before


def test_a_cache_file_that_is_none_is_replaced(fresh):
    fresh.fine()
    (kept,) = [path for path in fresh.cache.rglob("*") if path.is_file()]
    for content in (b"", b"garbage"):
        kept.write_bytes(content)
        fresh.fine()


# ---- hooks and the ways to start it


def test_a_hook_far_from_any_ledger_is_answered_without_python(launch):
    broken = launch.bin("broken", python3="#!/bin/sh\nexit 9\n")
    for cwd, env in ((launch.stage.home, {}), (launch.stage.project, {})):
        done = launch.run("hook", "claude", "Stop", path=[broken], cwd=cwd, **env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    launch.stage.shared.mkdir()
    near = [
        {"cwd": launch.stage.project},
        {"cwd": launch.stage.home, "CLAUDE_PROJECT_DIR": str(launch.stage.project)},
        {"cwd": launch.stage.home, "RELAY_SHARED_ROOT": str(launch.stage.shared)},
    ]
    for more in near:
        assert launch.run("hook", "claude", "Stop", path=[broken], **more).returncode == 9


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_starts_it(launch, venv, shell):
    if not shutil.which(SHELLS[shell][0]):
        pytest.skip(f"no {shell} here")
    command = [shutil.which(SHELLS[shell][0]), *SHELLS[shell][1:], launch.relay]
    launch.fine(command=command, path=[venv, ".venv/bin", "", launch.good])
    assert not (launch.stage.project / "OWNED").exists()
    assert launch.run(command=command, path=[]).returncode == 2
    odd = ["help", "a  b", "*", "", "$x", "ü"]
    assert launch.run(*odd, command=command).stderr == f"{odd}\n"


@pytest.mark.slow
@pytest.mark.parametrize("umask", ["000", "002"])
def test_nobody_else_can_write_the_bytecode_that_is_run(stage, umask):
    """And what the user's command creates has the user's own mode."""
    cache = stage.folder / "fresh"
    under = ("/bin/sh", "-c", f'umask {umask}; exec "$0" "$@"')
    stage.ok("claude", "bootstrap", "--topic", "t")
    stage.process("claude", "run", "--", "touch", "made", before=under, XDG_CACHE_HOME=str(cache))
    assert list(cache.rglob("*.pyc"))
    assert not [path for path in (cache, *cache.rglob("*")) if path.stat().st_mode & 0o077]
    assert stat.S_IMODE((stage.project / "made").stat().st_mode) == 0o666 & ~int(umask, 8)


@pytest.mark.slow
def test_it_can_be_started_as_an_argument_of_python(launch):
    launch.fine(command=[THIS, SCRIPT])
    launch.fine(command=[THIS, "-I", launch.relay])


def test_a_copy_that_is_not_executable_prints_commands_that_work(fresh):
    copy_script(fresh.relay, fresh.cache).chmod(0o644)
    done = fresh.run("next", command=["/bin/sh", fresh.relay], CLAUDE_CODE_SESSION_ID="x")
    command = done.stdout.rstrip().split("next: ")[1]
    assert command.startswith(f"python3 {fresh.relay} "), "what it prints still works"


@pytest.mark.parametrize("env", [{"LANG": "C"}, {"LC_ALL": "POSIX"}], ids=str)
def test_text_is_utf_8_in_every_locale(launch, env):
    launch.relay, launch.cache = SCRIPT, CACHE
    text = "ünïcödé 🦀 漢字"
    launch.fine("issue", "add", "--title", text, **env)
    assert text in launch.fine("issue", "list", **env).stdout
