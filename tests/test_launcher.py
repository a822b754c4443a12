"""The launcher: which Python it takes, which bytecode it trusts, and that nothing of the project at hand is run."""

from __future__ import annotations

import glob
import hashlib
import marshal
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import CACHE, TEMPORARY

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "skills" / "agent-relay" / "bin" / "relay"
THIS = os.path.realpath(sys.executable)
SHELLS = {"sh": ["/bin/sh"], "dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}


class Launch:
    """A copy of relay outside any project, a folder for its cache, and a PATH made of folders of its own."""

    def __init__(self, stage, cache):
        self.stage, self.cache = stage, cache
        self.folder = stage.folder / "installed"
        self.folder.mkdir()
        self.relay = self.folder / "relay"
        shutil.copy(SOURCE, self.relay)
        self.good = self.bin("good", python3=THIS)
        self.git = self.bin("git", git=shutil.which("git"))

    def bin(self, name, parent=None, **programs):
        """A folder with links to programs, or with scripts where a text is given."""
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
        """Starts relay with exactly these folders on PATH."""
        path = [self.good] if path is None else path
        env = {"HOME": str(self.stage.home), "PATH": ":".join([*map(str, path), str(self.git)]), "XDG_CACHE_HOME": str(self.cache), **env}
        return subprocess.run(
            [*map(str, command or [self.relay]), *(words or ("version",))], cwd=cwd or self.stage.project, text=True, timeout=30,
            env={key: value for key, value in env.items() if value is not None}, stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip

    @property
    def kept(self):
        """The bytecode in the cache."""
        return sorted(path for path in (self.cache / "agent-relay").glob("*") if path.suffix != ".stamp")

    def fine(self, *words, **more):
        done = self.run(*words, **more)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert words or done.stdout.startswith("relay 2."), done.stdout
        return done


def hostile(folder):
    """The text of a program that leaves a mark when it is run."""
    return f"#!/bin/sh\n: >'{folder}/OWNED'\nexec '{THIS}' \"$@\"\n"


def slashed(folder, name):
    return f"{folder}/" if name.endswith("/") else folder


PLANTED = marshal.dumps((compile("print('PLANTED')", "planted", "exec"), {}))


@pytest.fixture
def launch(stage):
    """Uses the cache that all tests share, which spares it compiling."""
    return Launch(stage, pathlib.Path(stage.env()["XDG_CACHE_HOME"]))


@pytest.fixture
def caching(stage):
    """Has a cache of its own, outside every temporary folder, for it would not be used there."""
    parent = CACHE.parent
    parent.mkdir(parents=True, exist_ok=True)
    if str(parent).startswith(TEMPORARY):
        pytest.skip("both this checkout and the home lie in temporary folders, where no bytecode is kept")
    cache = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix="cache-"))
    yield Launch(stage, cache)
    for folder in cache.rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)
    shutil.rmtree(cache)


def old_pythons():
    """Interpreters before 3.10 that this machine happens to have."""
    beside = pathlib.Path(THIS).parents[2]
    homes = [beside, pathlib.Path(pwd.getpwuid(os.getuid()).pw_dir) / ".pyenv" / "versions"]
    found = [path for home in homes for version in "6789" for path in glob.glob(f"{home}/*/bin/python3.{version}")]
    return sorted(set(map(os.path.realpath, found)))


OLD = old_pythons()
old = pytest.mark.skipif(not OLD, reason="no Python before 3.10 here")


# ---------------------------------------------------------------- which Python


def test_without_python_it_says_what_it_needs(launch):
    for path in ([], ["/nonexistent"], ["", ".", "relative/bin"], [launch.bin("other", ls="/bin/ls")]):
        done = launch.run(path=path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("relay: no Python 3.10 or later on PATH")
        assert "hint: " in done.stderr


def test_without_python_a_hook_is_silent(launch):
    done = launch.run("hook", "claude", "Stop", path=[])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@old
@pytest.mark.parametrize("python", OLD, ids=lambda path: os.path.basename(path))
def test_with_only_an_old_python_it_is_as_without_one(launch, python):
    done = launch.run(path=[launch.bin("old", python3=python)])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("relay: no Python 3.10 or later on PATH")
    done = launch.run("hook", "codex", "Stop", path=[launch.bin("old", **{"python3_10": python})])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@old
def test_an_old_python_is_passed_over_for_a_later_one(launch):
    first = launch.bin("old", python3=OLD[0])
    second = launch.bin("older", python3=OLD[-1])
    launch.fine(path=[first, launch.good])
    launch.fine(path=[first, second, launch.bin("named", python3_12=THIS)])
    done = launch.run("issue", "add", "--title", "a  b 'c' \"d\" $e *", "--body", "", path=[first, launch.good])
    assert done.returncode == 0, "arguments stay what they were"
    told = launch.run("issue", "list", "--json", path=[first, launch.good]).stdout
    assert "a  b 'c' \\\"d\\\" $e *" in told


@old
def test_an_old_python_that_is_named_says_so_with_the_code_of_a_refusal(launch):
    done = launch.run(command=[OLD[-1], launch.relay])
    assert done.returncode == 2
    assert "3.10" in done.stderr


@pytest.mark.parametrize("name", ["python3.10", "python3.12", "python3.14"])
def test_a_python_with_only_its_version_in_its_name_is_found(launch, name):
    launch.fine(path=[launch.bin("named", **{name.replace(".", "_"): THIS})])


def test_what_cannot_be_run_is_passed_over(launch):
    wrong = launch.bin("wrong", parent=None)
    (wrong / "python3").mkdir()
    dangling = launch.bin("dangling", python3="/nonexistent/python")
    plain = launch.bin("plain", python3="#!/bin/sh\nexit 3\n")
    (plain / "python3").chmod(0o644)
    if os.access(plain / "python3", os.X_OK):
        plain = dangling
    launch.fine(path=[wrong, dangling, plain, launch.good])


def test_the_shims_of_a_version_manager_come_last(launch):
    shims = launch.bin("shims", parent=launch.stage.folder / "pyenv", python3=hostile(launch.stage.folder))
    launch.fine(path=[shims, launch.good])
    assert not (launch.stage.folder / "OWNED").exists()
    launch.fine(path=[shims])
    assert (launch.stage.folder / "OWNED").exists(), "and are used where there is nothing else"


def test_a_python_in_a_folder_of_any_name_is_found(launch):
    for folder in ("with space", "qu'o\"te", "st*r[a]", "do$HOME`ls`", "trailing/", "back\\slash"):
        launch.fine(path=[slashed(launch.bin(folder, python3=THIS), folder)])


def test_variables_of_python_and_of_the_shell_change_nothing(launch):
    evil = launch.bin("evil", sha="x")
    for module in ("os", "marshal", "sitecustomize", "site", "_sha2", "_sha256", "errno", "time"):
        (evil / f"{module}.py").write_text("print('PLANTED')")
    for env in (
        {"PYTHONPATH": str(evil)}, {"PYTHONHOME": str(evil)}, {"PYTHONSTARTUP": f"{evil}/os.py"}, {"PYTHONOPTIMIZE": "2"},
        {"PYTHONINSPECT": "1"}, {"IFS": "/"}, {"CDPATH": "/"}, {"PWD": "/"}, {"OLDPWD": "x"}, {"ENV": f"{evil}/os.py"},
        {"PYTHONPYCACHEPREFIX": str(evil)}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0"}, {"found": "x", "skip": "9", "count": "9"},
    ):  # fmt: skip
        launch.fine(**env)
    launch.fine(cwd=evil)


# ---------------------------------------------------------------- nothing of the project at hand


def mark(launch):
    return launch.stage.project / "OWNED"


@pytest.fixture
def venv(launch):
    """A python3 that came with the project."""
    return launch.bin("bin", parent=launch.stage.project / ".venv", python3=hostile(launch.stage.project))


@pytest.mark.parametrize("cwd", ["", "sub", "sub/deeper", "of its own/with a ledger", "of its own/repository"])
def test_a_python_of_the_project_is_not_run(launch, venv, cwd):
    for folder, marker in (("sub/deeper", None), ("of its own/with a ledger", ".shared"), ("of its own/repository", ".git")):
        (launch.stage.project / folder / (marker or "")).mkdir(parents=True, exist_ok=True)
    launch.fine(path=[venv, launch.good], cwd=launch.stage.project / cwd)
    assert launch.run(path=[venv], cwd=launch.stage.project / cwd).returncode == 2
    assert not mark(launch).exists()


def test_a_python_of_the_project_is_not_run_from_a_symlinked_checkout(launch, venv):
    link = launch.stage.folder / "link"
    link.symlink_to(launch.stage.project)
    for path in (venv, link / ".venv" / "bin"):
        for cwd, told in ((launch.stage.project, None), (link, str(link)), (link, None)):
            launch.fine(path=[path, launch.good], cwd=cwd, PWD=told)
    assert not mark(launch).exists()


@pytest.mark.parametrize("spelling", ["{}/.venv/bin/", "{}//.venv/bin", "{}/./.venv/bin", "{}/sub/../.venv/bin", "/../{}/.venv/bin"])
def test_a_python_of_the_project_is_not_run_however_path_spells_it(launch, venv, spelling):
    (launch.stage.project / "sub").mkdir()
    launch.fine(path=[spelling.format(launch.stage.project), launch.good])
    assert not mark(launch).exists()


def test_relative_folders_of_path_are_passed_over(launch, venv):
    shutil.copy(venv / "python3", launch.stage.project / "python3")
    launch.fine(path=[".venv/bin", "./.venv/bin", "", ".", "../project/.venv/bin", launch.good, ""])
    assert not mark(launch).exists()


def test_a_python_of_a_linked_worktree_or_of_the_main_one_is_not_run(launch, venv):
    linked = launch.stage.folder / "linked"
    launch.stage.git("worktree", "add", "-q", linked)
    own = launch.bin("bin", parent=linked / ".venv", python3=hostile(launch.stage.project))
    launch.fine(path=[own, launch.good], cwd=linked)
    assert not mark(launch).exists()
    launch.fine(path=[venv, launch.good], cwd=linked)
    assert not mark(launch).exists(), "the main worktree is the same project"


def test_a_project_of_any_name_keeps_its_python_to_itself(launch, venv):
    (venv / "python3").write_text(hostile(launch.stage.folder))
    place = launch.stage.project
    for name in ("with space", "qu'o\"te", "st*r[a]", "$(: >OWNED)", "back\\slash"):
        place = place.rename(launch.stage.folder / name)
        launch.fine(path=[place / ".venv" / "bin", launch.good], cwd=place)
        assert not (launch.stage.folder / "OWNED").exists()
        assert not (place / "OWNED").exists()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_home_under_git_is_no_project(launch, slash):
    """Dotfiles are kept in git; the interpreters below such a home are the user's own."""
    home = launch.stage.home
    (home / ".git").mkdir()
    own = launch.bin("bin", parent=home / ".local", python3=THIS)
    (home / "work").mkdir()
    for cwd in (home, home / "work"):
        launch.fine(path=[own], cwd=cwd, HOME=f"{home}{slash}")


# ---------------------------------------------------------------- which bytecode


def cached(caching):
    caching.fine()
    (file,) = caching.kept
    return file


def test_the_second_start_runs_the_cache(caching):
    file = cached(caching)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.write_bytes(PLANTED)
    assert caching.run().stdout == "PLANTED\n", "what is ours is trusted: the proof that it is what runs"


UNTRUSTED = {
    "a file the group may write": lambda f: f.chmod(0o620),
    "a file all may write": lambda f: f.chmod(0o602),
    "a folder the group may write": lambda f: f.parent.chmod(0o720),
    "a folder all may write": lambda f: f.parent.chmod(0o702),
    "a sticky folder all may write": lambda f: f.parent.chmod(0o1777),
    "a link to a file": lambda f: (f.rename(f.parent / "real"), f.symlink_to(f.parent / "real")),
    "a link to a folder": lambda f: (f.parent.rename(f.parent.parent / "real"), f.parent.symlink_to(f.parent.parent / "real")),
    "a pipe": lambda f: (f.unlink(), os.mkfifo(f)),
    "a folder": lambda f: (f.unlink(), f.mkdir()),
    "a file of another user": lambda f: os.chown(f, 65534, -1),
    "a folder of another user": lambda f: os.chown(f.parent, 65534, -1),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", UNTRUSTED)
def test_bytecode_that_others_could_have_written_is_not_run(caching, how):
    if "another user" in how and os.geteuid():
        pytest.skip("only root can give files away")
    file = cached(caching)
    file.write_bytes(PLANTED)
    UNTRUSTED[how](file)
    for _ in range(2):
        caching.fine()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the project", "a subfolder", "a link to the project", "the main worktree", "/tmp", "TMPDIR", "a link to /tmp"])
def test_no_cache_is_used_in_the_project_or_in_a_temporary_folder(caching, where):
    file = cached(caching)
    project, env, cwd = caching.stage.project, {}, None
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        place = {"the project": project, "a subfolder": project / "sub", "the main worktree": project}.get(where, pathlib.Path(scratch))
        if where in ("the project", "a subfolder", "a link to the project", "the main worktree"):
            # The stage lies in a temporary folder itself: a project outside of one shows that this rule holds alone.
            project = caching.cache / "project"
            caching.stage.git("clone", "-q", caching.stage.project, project)
            place, cwd = project / "cache", project
            (project / "sub").mkdir()
        if where == "a subfolder":
            cwd = project / "sub"
        if where == "a link to the project":
            (caching.cache / "link").symlink_to(project)
            place = caching.cache / "link" / "cache"
        if where == "the main worktree":
            caching.stage.git("worktree", "add", "-q", caching.cache / "linked", cwd=project)
            cwd = caching.cache / "linked"
        if where == "TMPDIR":
            place = caching.cache / "temporary" / "cache"
            env = {"TMPDIR": str(place.parent)}
        if where == "a link to /tmp":
            (caching.cache / "link").symlink_to(place)
            place = caching.cache / "link"
        (place / "agent-relay").mkdir(parents=True, mode=0o700)
        (place / "agent-relay").chmod(0o700)
        (place / "agent-relay" / file.name).write_bytes(PLANTED)
        (place / "agent-relay" / file.name).chmod(0o600)
        caching.fine(XDG_CACHE_HOME=str(place), cwd=cwd, **env)
        assert os.listdir(place / "agent-relay") == [file.name]


def stamped(caching):
    """A start that spares itself hashing the script: the bytecode, and the stamp that names it."""
    age = time.time() - caching.relay.stat().st_ctime
    time.sleep(max(0, 2.1 - age))  # A script that was written just now gets no stamp.
    caching.fine()
    (stamp,) = (caching.cache / "agent-relay").glob("*.stamp")
    return caching.kept[0], stamp


def other_bytecode(file):
    """Bytecode of another script, kept as soundly; and its key."""
    key = "0" * 64
    (file.parent / file.name.replace(file.name[:64], key)).write_bytes(PLANTED)
    (file.parent / file.name.replace(file.name[:64], key)).chmod(0o600)
    return key


def test_a_stamp_spares_hashing_the_script(caching):
    caching.relay = SOURCE
    file, stamp = stamped(caching)
    assert stamp.read_text() == file.name[:64] == hashlib.sha256(caching.relay.read_bytes()).hexdigest()
    assert stamp.stat().st_mode & 0o777 == 0o600
    stamp.write_text(other_bytecode(file))
    assert caching.run().stdout == "PLANTED\n", "what is ours is trusted: the proof that it is read"


@pytest.mark.parametrize("how", [lambda f: f.chmod(0o602), lambda f: f.chmod(0o620), lambda f: f.write_text("x" * 64), lambda f: f.write_text("../" * 30)], ids=["all may write it", "the group may", "it names nothing", "it leads out"])
def test_a_stamp_that_cannot_be_trusted_is_none(caching, how):
    caching.relay = SOURCE
    file, stamp = stamped(caching)
    stamp.write_text(other_bytecode(file))
    how(stamp)
    caching.fine()


@pytest.mark.slow
def test_a_script_that_changed_at_the_same_size_and_time_has_no_stamp(caching):
    stamped(caching)
    before = caching.relay.stat()
    text = caching.relay.read_text()
    caching.relay.write_text(text.replace('VERSION = "2.0.0"', 'VERSION = "2.9.9"'))
    os.utime(caching.relay, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert caching.relay.stat().st_size == before.st_size
    assert caching.run().stdout.startswith("relay 2.9.9")


def test_a_script_that_changed_is_compiled_anew(caching):
    file = cached(caching)
    file.write_bytes(PLANTED)
    caching.relay.write_bytes(SOURCE.read_bytes() + b"# changed\n")
    caching.relay.chmod(0o755)
    caching.fine()
    assert len(caching.kept) == 2


@pytest.mark.slow
def test_a_cache_that_is_torn_or_holds_something_else_is_compiled_anew(caching):
    file = cached(caching)
    whole = file.read_bytes()
    other = (b"", b"\0", b"garbage", whole[:1], whole[: len(whole) // 2], whole[:-1], marshal.dumps(7), marshal.dumps("x"), b"\xff" * 64)
    for content in other:
        file.write_bytes(content)
        caching.fine()
        assert file.read_bytes() == whole


@pytest.mark.slow
def test_old_bytecode_does_not_pile_up(caching):
    for version in range(12):
        caching.relay.write_bytes(SOURCE.read_bytes() + b"# %d\n" % version)
        caching.relay.chmod(0o755)
        caching.fine()
    assert len(caching.kept) == 8


@pytest.mark.parametrize("env", [
    {"XDG_CACHE_HOME": None, "HOME": None}, {"XDG_CACHE_HOME": None, "HOME": ""}, {"XDG_CACHE_HOME": "", "HOME": "relative"},
    {"XDG_CACHE_HOME": "relative"}, {"XDG_CACHE_HOME": "/dev/null/x"}, {"XDG_CACHE_HOME": "/proc/x"},
], ids=str)  # fmt: skip
def test_without_a_place_for_a_cache_it_works_and_leaves_none(caching, env):
    there = os.path.exists("/.cache/agent-relay")
    before = caching.stage.snapshot()
    caching.fine(**env)
    assert caching.stage.snapshot() == before
    left = os.path.exists("/.cache/agent-relay")
    if left and not there:
        shutil.rmtree("/.cache/agent-relay")
        if not os.listdir("/.cache"):
            os.rmdir("/.cache")
    assert left == there, "a home that is not known is not the root folder"


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(caching):
    for what in ("a file", "a read-only folder", "a dangling link"):
        place = caching.cache / what
        {"a file": place.touch, "a read-only folder": lambda: place.mkdir(mode=0o500), "a dangling link": lambda: place.symlink_to("/nonexistent/x")}[what]()
        caching.fine(XDG_CACHE_HOME=str(place))


@pytest.mark.parametrize("umask", ["000", "0777"])
def test_a_cache_is_made_for_its_user_alone_under_any_umask(caching, umask):
    place = caching.cache / "new" / "cache"
    for _ in range(2):
        caching.fine(command=["/bin/sh", "-c", f'umask {umask}; exec "$0" "$@"', caching.relay], XDG_CACHE_HOME=str(place))
    (file,) = (place / "agent-relay").iterdir()
    assert [oct(path.stat().st_mode & 0o777) for path in (file.parent, file)] == ["0o700", "0o600"]
    assert all(path.stat().st_mode & 0o722 == 0o700 for path in (place.parent, place)), "nobody else may write above it"


@pytest.mark.slow
def test_a_cache_entry_that_cannot_be_replaced_leaves_no_litter(caching):
    file = cached(caching)
    file.unlink()
    file.mkdir()
    for _ in range(3):
        caching.fine()
    assert caching.kept == [file]


def test_nothing_is_compiled_beside_the_script(caching):
    caching.fine()
    caching.fine(command=[THIS, caching.relay])
    assert os.listdir(caching.folder) == ["relay"]


# ---------------------------------------------------------------- how it is called


def ways(launch):
    """Every way to start it, as a command."""
    link = launch.bin("links", relay=str(launch.relay)) / "relay"
    return [
        [launch.relay], [link], ["/bin/sh", launch.relay], [THIS, launch.relay], [THIS, "-I", launch.relay], [THIS, "-S", "-E", link],
        *([shutil.which(words[0]), *words[1:], launch.relay] for words in SHELLS.values() if shutil.which(words[0])),
    ]  # fmt: skip


@pytest.mark.slow
def test_every_way_to_start_it_gives_the_same(launch):
    told = {launch.fine("help", command=way).stdout for way in ways(launch)}
    assert len(told) == 1
    assert launch.run("help", command=["/bin/sh", "relay"], cwd=launch.folder).stdout in told
    assert launch.run("help", command=["./relay"], cwd=launch.folder).stdout in told
    assert launch.run("help", command=["relay"], path=[launch.folder, launch.good], cwd="/").stdout in told


@pytest.mark.slow
def test_every_way_to_start_it_passes_arguments_and_codes_on(launch):
    odd = ("help", "a  b", "*", "", "$x", "'\"", "\\n", "ü")
    done = [launch.run(*odd, command=way) for way in ways(launch)]
    assert {each.returncode for each in done} == {2}
    (sentence,) = {each.stderr.split("\n")[0] for each in done}
    assert repr(" ".join(odd[1:])) in sentence


def test_without_its_exec_bit_it_prints_commands_that_still_work(launch):
    launch.relay.chmod(0o644)
    env = {"CLAUDE_CODE_SESSION_ID": "x"}
    told = launch.run("next", command=["/bin/sh", launch.relay], **env).stdout
    command = told.rstrip().split("next: ")[1]
    assert command == f"python3 {launch.relay} bootstrap --topic review"
    assert launch.run(command=["/bin/sh", "-c", command], **env).returncode == 0


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_keeps_the_promises(launch, venv, shell):
    if not shutil.which(SHELLS[shell][0]):
        pytest.skip(f"no {shell} here")
    command = [shutil.which(SHELLS[shell][0]), *SHELLS[shell][1:], launch.relay]
    launch.fine(command=command, path=[venv, ".venv/bin", "", launch.good])
    assert not mark(launch).exists()
    assert launch.run(command=command, path=[]).returncode == 2
    done = launch.run("hook", command=command, path=[])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("env", [{"LANG": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "en_US.ISO-8859-1"}], ids=str)
def test_text_is_utf_8_in_every_locale(launch, env):
    text = "ünïcödé 🦀 漢字"
    for way in ([launch.relay], [THIS, launch.relay]):
        launch.run("issue", "add", "--title", text, command=way, **env)
    told = launch.run("issue", "list", "--json", LC_ALL="C.UTF-8").stdout
    assert told.count(f'"title": "{text}"') == 2
    assert text in launch.run("issue", "list", **env).stdout
