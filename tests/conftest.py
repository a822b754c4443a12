"""A sealed stage for every test: its own home, environment, time zone and scratch repository.

`stage.run` types a command in this process, `stage.spawn` in one of its own. A test that touched the
real home would fail by name.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import importlib.machinery
import importlib.util
import io
import itertools
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback

import pytest
from helpers.snapshots import remembering

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "skills" / "agent-relay" / "bin" / "relay"
CACHE = ROOT / ".pytest_cache" / "bytecode"
# Of the tests and the script too; nothing is written beside them.
sys.pycache_prefix, sys.dont_write_bytecode = str(CACHE / "tests"), False
# A shell lets what it starts in the background ignore an interrupt; tests of interrupts need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
PATH, TMPDIR = os.environ["PATH"], os.environ.get("TMPDIR")
SESSIONS = {
    "claude": {"CLAUDE_CODE_SESSION_ID": "session-of-claude"},
    "codex": {"CODEX_THREAD_ID": "thread-of-codex"},
}
# How many times more the slow tests try of what they only sample; 8 tries nearly everything.
MORE = int(os.environ.get("RELAY_TEST_MORE", "1"))
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.invalid")


def load_relay():
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("relay", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("relay", loader))
    sys.modules["relay"] = module
    loader.exec_module(module)
    return module


RELAY = load_relay()


def cached(function):
    """A function of one command, called once for each."""
    results = {}

    @functools.wraps(function)
    def once(command):
        if command.words not in results:
            results[command.words] = function(command)
        return results[command.words]

    return once


RELAY._parser_of = cached(RELAY._parser_of)  # A fifth of a command in this process.


_NUMBERS = itertools.count(1)
_FAILED: set[str] = set()  # Tests whose directories stay.
_TAKEN: dict[str, bool] = {}  # What of the shared tests this run takes.


def pytest_addoption(parser):
    parser.addoption("--share", help="a directory: several runs with it share the tests")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--share"):  # The large files first: the last one to be taken is short.
        items.sort(key=lambda item: -item.path.stat().st_size)


def pytest_runtest_protocol(item):
    """Leaves to another run what that has taken: a file, for what its tests make once, or one slow
    test."""
    if shared := item.config.getoption("--share"):
        slow = item.get_closest_marker("slow")
        name = hashlib.sha256(item.nodeid.encode()).hexdigest() if slow else item.path.name
        if name not in _TAKEN:
            try:
                os.mkdir(f"{shared}/{name}")
                _TAKEN[name] = True
            except FileExistsError:
                _TAKEN[name] = False
        if not _TAKEN[name]:
            return True
        # What the tests in between, which another run took, would have torn down.
        item.session._setupstate.teardown_exact(item)
    return None


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # What pytest holds to its end is not searched again and again.


class Done:
    """What a command printed, and its exit code."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def action(self):
        """The word of the first line of `next`."""
        return self.out.split("\n")[0].removeprefix("action: ").split(" ")[0].rstrip(":;")

    @property
    def next(self):
        """The command of the last line, without relay's path."""
        last = self.out.rstrip("\n").split("\n")[-1]
        assert last.startswith("next: "), self.out
        return last.split(" ", 2)[2]

    def __repr__(self):
        return f"Done({self.code}, {self.out!r}, {self.err!r})"


@functools.cache
def bytecode():
    """The script's, by the Python that starts it here."""
    env = {"PATH": PATH, "XDG_CACHE_HOME": str(CACHE)}
    subprocess.run([SCRIPT, "version"], env=env, check=True, capture_output=True)
    return [*(CACHE / "agent-relay" / SCRIPT.parent.relative_to("/")).glob("relay*.pyc")]


def copy_script(relay, cache=CACHE):
    """A copy of the script, compiled already: that takes longer than most tests."""
    shutil.copy2(SCRIPT, relay)
    below = os.path.realpath(os.path.dirname(relay)).lstrip("/")
    compiled = cache / "agent-relay" / below
    compiled.mkdir(parents=True, exist_ok=True)
    for file in bytecode():
        shutil.copy(file, compiled)
    return relay


def short_script(relay):
    """The launcher before a program that is compiled in no time."""
    launcher = SCRIPT.read_text().partition("\n# fmt: on\n")[0]
    program = """
import sys
VERSION = "2.1"
if sys.argv[1:] != ["version"]:
    sys.exit(repr(sys.argv[1:]))
print("relay", VERSION)
"""
    relay.write_text(launcher + program)
    relay.chmod(0o755)
    return relay


def forked(function, *given):
    """Calls a function in a copy of this process. What it returns waits for the result."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            result = pickle.dumps(function(*given))
            with open(writing, "wb") as file:
                file.write(result)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)

    def ended():
        with open(reading, "rb") as file:
            result = file.read()
        assert os.waitpid(child, 0)[1] == 0, "the copy failed; its traceback is on stderr"
        return pickle.loads(result)

    return ended


class _Captured(io.StringIO):
    def __init__(self):
        super().__init__()
        self.buffer = io.BytesIO()

    def text(self):
        return self.buffer.getvalue().decode("utf-8", "surrogateescape") + self.getvalue()


def set_environ(wanted):
    """As clear and update of os.environ, which take a millisecond. Returns what was there."""
    held = os.environ._data
    before = dict(held)
    for name in before.keys() - wanted.keys():
        os.unsetenv(name)
        del held[name]
    for name, value in wanted.items() - before.items():
        os.putenv(name, value)
        held[name] = value
    return before


def read_tree(root):
    """The files and (None) the directories below."""
    paths = sorted(root.rglob("*"))
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in paths}


def copy_tree(source, target):
    """As shutil.copytree, which takes five times as long, with symlinks as they are."""
    subprocess.run(["cp", "-a", f"{source}/.", target], check=True)


def write_tree(root, tree, umask=0o022):
    before = os.umask(umask)
    root.mkdir(exist_ok=True)
    for name, content in tree.items():
        if content is None:
            os.mkdir(f"{root}/{name}")
        else:
            with open(f"{root}/{name}", "xb") as file:
                file.write(content)
    os.umask(before)


_TEMPLATE: dict[str, bytes | None] = {}  # A repository with one commit.
_OPENED: dict[
    tuple[str, str], tuple[str, dict[str, bytes | None]]
] = {}  # Ledgers by topic and day.
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


@contextlib.contextmanager
def keyboard(typed):
    """The standard input of a command: a terminal where the user types it, else nothing."""
    if not typed:
        yield subprocess.DEVNULL
        return
    master, slave = os.openpty()
    try:
        yield slave
    finally:
        os.close(slave)
        os.close(master)


class Stage:
    """One project with a ledger, and the authors who work in it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.home = folder / "home"
        self.project = folder / "project"
        self.shared = self.project / ".shared"
        self.sent = self.committed = 0
        self.home.mkdir(parents=True)
        self.project.mkdir()
        write_tree(self.project, _TEMPLATE)
        if not _TEMPLATE:
            self.git("init", "-q", "-b", "main", "--template=")
            self.git("commit", "-q", "--allow-empty", "-m", "start")

    def env(self, author=None, **more):
        """The whole environment of a command; None takes a variable out."""
        env = {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(CACHE),
            "PATH": os.environ.get("PATH", PATH),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "TMPDIR": TMPDIR,
        }
        if author in SESSIONS:
            env |= SESSIONS[author]
        elif author:
            env |= {"RELAY_AUTHOR": author, "RELAY_AGENT_SESSION_ID": f"session-of-{author}"}
        return {key: value for key, value in {**env, **more}.items() if value is not None}

    def git(self, *words, cwd=None):
        env = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            # Equal commits in equal places: what git said of a state of one stage is so in others.
            "GIT_AUTHOR_DATE": f"{1_700_000_000 + self.committed} +0000",
            "GIT_COMMITTER_DATE": f"{1_700_000_000 + self.committed} +0000",
        }
        self.committed += "commit" in words
        command = ("git", *IDENTITY, "-c", "protocol.file.allow=always", *words)
        done = subprocess.run(
            command, cwd=cwd or self.project, env=env, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def user_env(self, author, **more):
        """The environment of the user's own terminal, which says for whom it speaks at the most."""
        return self.env(None, **{"RELAY_AUTHOR": author, **more})

    def run(self, author, *words, cwd=None, stdin=b"", umask=0o022, typed=None, **more) -> Done:
        """Type a command as `author`, in this process, with a sealed environment. `continue` is
        typed by the user, at a terminal."""
        typed = words[:1] == ("continue",) if typed is None else typed
        out, err = _Captured(), _Captured()
        kept = os.getcwd(), sys.stdout, sys.stderr, os.umask(umask), os.dup(0)
        writing, reading = os.openpty() if typed else reversed(os.pipe())
        os.write(writing, stdin)
        if not typed:
            os.close(writing)
        os.dup2(reading, 0)
        os.close(reading)
        env = self.user_env(author, **more) if typed else self.env(author, **more)
        env = {os.fsencode(k): os.fsencode(v) for k, v in env.items()}
        before = set_environ(env)
        try:
            os.chdir(cwd or self.project)
            sys.stdout, sys.stderr = out, err
            code = RELAY.main([str(word) for word in words], str(SCRIPT))
        finally:
            set_environ(before)
            os.chdir(kept[0])
            sys.stdout, sys.stderr = kept[1], kept[2]
            os.umask(kept[3])
            os.dup2(kept[4], 0)
            os.close(kept[4])
            if typed:
                os.close(writing)
        return Done(code, out.text(), err.text())

    def ok(self, author, *words, **more) -> Done:
        """As `run`; the command has to succeed."""
        done = self.run(author, *words, **more)
        assert done.code == 0, done
        return done

    def refused(self, author, *words, **more) -> Done:
        """As `run`; the command has to be refused with one sentence and a hint, and nothing else."""
        done = self.run(author, *words, **more)
        assert done.code == 2 and done.out == "" and done.err.startswith("relay: "), done
        return done

    def spawn(self, author, *words, cwd=None, before=(), **more) -> subprocess.Popen:
        """Type a command as `author` in a process of its own; `continue` as the user types it."""
        typed = words[:1] == ("continue",)
        held = contextlib.ExitStack()
        child = subprocess.Popen(
            [*before, str(SCRIPT), *map(str, words)],
            cwd=cwd or self.project,
            env=self.user_env(author, **more) if typed else self.env(author, **more),
            text=True,
            stdin=held.enter_context(keyboard(typed)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        child.held = held  # The terminal is there for as long as somebody looks at the process.
        return child

    def process(self, author, *words, timeout=30, **more) -> Done:
        """As `spawn`, run to its end."""
        child = self.spawn(author, *words, **more)
        out, err = child.communicate(timeout=timeout)
        return Done(child.returncode, out, err)

    def file(self, text, name="body.md") -> pathlib.Path:
        """A file outside the ledger, to send."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def places(self, text):
        """Makes the places exist that the findings of a text name; git ignores the new files."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        severities = "|".join(RELAY.SEVERITIES)
        names = rf'(?m)^[-* ]*(?i:{severities}):?[ \t]+("[^"\n]+"|[^\s"]\S*)'
        for name in re.findall(names, text):
            name = re.sub(r":[0-9-]*:?$", "", name.strip('"')).rstrip(":")
            path = self.project / name
            inside = name not in ("", "-") and ".." not in name and "\\" not in name
            inside &= max(map(len, name.encode().split(b"/"))) < 256
            if inside and not name.startswith("/") and not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("line\n" * 2000)
                exclude = self.project / ".git" / "info" / "exclude"
                if exclude.parent.parent.is_dir():
                    exclude.parent.mkdir(exist_ok=True)
                    with exclude.open("a") as file:
                        file.write(re.sub(r"([*?\[!# ])", r"\\\1", f"/{name}") + "\n")

    def send(self, author, kind, text="# Text\n", ask="look at it", *more, **env) -> Done:
        """The second half of a turn; the file is new each time."""
        self.sent += 1
        self.places(text)
        path = self.file(text, f"{kind}-{self.sent}.md")
        return self.ok(author, "send", "--kind", kind, "--file", path, "--next", ask, *more, **env)

    def try_send(self, author, kind, text="# Text\n", *more) -> Done:
        """As `send`, which may be refused."""
        self.sent += 1
        self.places(text)
        path = self.file(text, f"{kind}-{self.sent}.md")
        return self.run(author, "send", "--kind", kind, "--file", path, "--next", "go on", *more)

    def link_skill(self) -> dict[str, str]:
        """Symlinks to this checkout among the user's own skills; how each host types relay then."""
        relays = {}
        for host, place in (("claude", ".claude"), ("codex", ".agents")):
            link = self.home / place / "skills/agent-relay"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(SCRIPT.parent.parent)
            relays[host] = f"{link}/bin/relay"
        return relays

    def open_pair(self, topic="demo") -> pathlib.Path:
        """A pair that claude opened and codex joined. The first of its kind is; of the others, the
        files are written as it left them."""
        made = topic, time.strftime("%Y%m%d", time.gmtime())
        usual = self.untouched()
        if usual and made in _OPENED:
            now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()).encode()
            slug, files = _OPENED[made]
            write_tree(self.shared, {n: c and STAMP.sub(now, c) for n, c in files.items()}, 0o077)
            return self.shared / slug
        slug = self.ok("claude", "bootstrap", "--topic", topic).out.split()[0]
        self.ok("codex", "next")
        if usual:
            _OPENED[made] = slug, read_tree(self.shared)
        return self.shared / slug

    def untouched(self):
        """Whether nothing was done yet in this project and nothing is special about it."""
        git = self.project / ".git"
        told = "HEAD", "config", "refs/heads/main"
        return (
            "env" not in vars(self)
            and {RELAY.host_process.__module__, RELAY._ancestors.__module__} == {"relay"}
            and self.project.name == "project"
            and os.listdir(self.project) == [".git"]
            and {f".git/{name}" for name in os.listdir(git)} <= _TEMPLATE.keys()
            and all((git / name).read_bytes() == _TEMPLATE[f".git/{name}"] for name in told)
        )

    def snapshot(self, *folders):
        """Every path below these directories (without any: the stage's): mode, mtime and content."""
        found = {}
        for root in folders or (self.folder,):
            for path in [root, *root.rglob("*")]:
                if path.name == ".lock" or "/.git/relay" in str(path):
                    continue
                status = os.lstat(path)
                content = None
                if path.is_symlink():
                    content = os.readlink(path)
                elif path.is_file():
                    content = path.read_bytes()
                moved = (
                    0 if path.name == ".git" else status.st_mtime_ns
                )  # The second copy is in it.
                found[str(path)] = status.st_mode, moved, content
        return found

    def litter(self):
        """Everything in the ledger that only an interrupted command leaves behind."""
        paths = self.shared.rglob("*")
        left = [p for p in paths if p.name.endswith(".tmp") or p.parent.name in (".seq", ".draft")]
        return sorted(str(path.relative_to(self.shared)) for path in left)


def seeds(first, count):
    """Seeds from `first` on, for tests of random histories."""
    return range(first, first + count * MORE)


def sidecar(pair, number):
    """The sidecar of the artifact with this number."""
    return json.loads(next(pair.glob(f"{number:03}-*.json")).read_text())


def findings(*lines, fence="```"):
    """A body with one findings block; its first row is line 4."""
    return "\n".join(["# Review", "", f"{fence}findings", *lines, fence, ""])


def dispositions(*lines):
    """A body with one dispositions block; its first row is line 4."""
    return "\n".join(["# Answer", "", "```dispositions", *lines, "```", ""])


def reseal(pair, stem, change=lambda sidecar: None, text=lambda text: text):
    """Change a published artifact's sidecar and text, and make all of its hashes agree again."""

    def write(path, content):
        path.chmod(0o600)
        path.write_bytes(content)

    file = pair / f"{stem}.json"
    document = json.loads(file.read_text())
    document = change(document) or document
    write(file, json.dumps(document).encode())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    artifact = pair / f"{stem}.md"
    changed = re.sub(
        r"(?m)^sidecar_sha256: \w+$", f"sidecar_sha256: {digest}", artifact.read_text()
    )
    content = text(changed).encode()
    write(artifact, content)
    sums = f"{hashlib.sha256(content).hexdigest()}  {stem}.md\n{digest}  {stem}.json\n"
    write(pair / f"{stem}.md.sha256", sums.encode())


@pytest.fixture
def tmp_path(tmp_path_factory, request):
    """As pytest's, which takes as long as two commands."""
    path = tmp_path_factory.getbasetemp() / f"{next(_NUMBERS)}-{request.node.name[:30]}".replace(
        "/", "-"
    )
    path.mkdir(0o700)
    failed = request.session.testsfailed
    yield path
    if request.session.testsfailed == failed:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def relay():
    """The script as a module, for tests of its pure sections."""
    return RELAY


@pytest.fixture(scope="session", autouse=True)
def template(tmp_path_factory):
    project = Stage(tmp_path_factory.mktemp("template")).project
    shutil.rmtree(project / ".git" / "logs")
    _TEMPLATE.update(read_tree(project))
    yield
    made = str(tmp_path_factory.getbasetemp()).lstrip("/")
    shutil.rmtree(CACHE / "agent-relay" / made, ignore_errors=True)  # Of copies of the script.


REAL = RELAY.change_set, RELAY.Git.run, RELAY.ScratchProject.run, RELAY.ScratchProject.send
REMEMBERED = remembering(RELAY, PATH)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    _FAILED.update([item.nodeid] if report.failed else [])
    return report


@pytest.fixture(scope="session")
def trash(tmp_path_factory):
    """Removes directories, some time. `rm` takes a fifth of the time that Python would."""
    heap, removers = tmp_path_factory.mktemp("trash"), []

    def throw_away(path):
        path.rename(heap / path.name)
        if len(os.listdir(heap)) >= 50:
            heap.rename(gone := f"{heap}-{len(removers)}")
            heap.mkdir()
            removers.append(subprocess.Popen(["rm", "-rf", gone]))

    yield throw_away
    for remover in removers:
        remover.wait()


@pytest.fixture
def tmp_path(request, tmp_path_factory, trash):
    """As pytest's own, which removes it in Python; it stays where the test failed."""
    number = next(_NUMBERS)
    path = (
        tmp_path_factory.getbasetemp()
        / f"{number}-{re.sub('[^a-z0-9]+', '-', request.node.name)[:40]}"
    )
    path.mkdir()
    yield path
    if request.node.nodeid not in _FAILED:
        trash(path)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage without what takes most of the time and proves nothing new in each test: waiting for
    the disk, git asked again about a tree it knows, and doctor's proof that publishing works.
    Processes of their own do all of it."""
    monkeypatch.setenv("HOME", "/nonexistent/the-real-home-is-off-limits")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(RELAY, "change_set", REMEMBERED[0])
    monkeypatch.setattr(RELAY.Git, "run", REMEMBERED[1])
    monkeypatch.setattr(RELAY.ScratchProject, "run", lambda *_: "")
    monkeypatch.setattr(RELAY.ScratchProject, "send", lambda *_: ("", 1.0))
    return Stage(tmp_path)


@pytest.fixture
def real_snapshots(stage, monkeypatch):
    """Git is asked for every snapshot."""
    monkeypatch.setattr(RELAY, "change_set", REAL[0])


@pytest.fixture
def real_git(real_snapshots, monkeypatch):
    """Git is asked each time."""
    monkeypatch.setattr(RELAY.Git, "run", REAL[1])


@pytest.fixture
def real_proof(stage, monkeypatch):
    """Doctor publishes and waits, in processes of its own."""
    monkeypatch.setattr(RELAY.ScratchProject, "run", REAL[2])
    monkeypatch.setattr(RELAY.ScratchProject, "send", REAL[3])
