"""A sealed stage for every test: its own home, environment, clock zone and scratch repository.

`relay` is the script as a module; `stage.run` types a command in this process, `stage.spawn` in a
real one. Nothing here reads or writes the real home: a test that does fails by name.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

sys.dont_write_bytecode = True
# A shell lets what it starts in the background ignore an interrupt; tests of interrupts want it back.
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "skills" / "agent-relay" / "bin" / "relay"
TEMPORARY = ("/tmp/", "/var/tmp/", "/dev/shm/", "/private/")


def cache_base():
    """Where bytecode is kept between runs: in this checkout, or, as the launcher trusts none in a temporary
    folder, in the user's own cache; nothing else of the real home is touched."""
    if str(ROOT).startswith(TEMPORARY):
        return pathlib.Path.home() / ".cache" / "agent-relay-tests"
    return ROOT / ".pytest_cache"


CACHE = cache_base() / "bytecode"
PATH = os.environ["PATH"]  # While another thread runs a command in this process, the environment is that command's.


def load_relay():
    loader = importlib.machinery.SourceFileLoader("relay", str(SCRIPT))
    spec = importlib.util.spec_from_loader("relay", loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["relay"] = module
    loader.exec_module(module)
    return module


RELAY = load_relay()


def pytest_addoption(parser):
    parser.addoption("--part", default="1/1", help="run only every M-th test from the N-th on: N/M")


def pytest_collection_modifyitems(config, items):
    number, parts = map(int, config.getoption("--part").split("/"))
    kept = items[number - 1 :: parts]
    config.hook.pytest_deselected(items=[item for at, item in enumerate(items) if at % parts != number - 1])
    items[:] = kept


class Done:
    """What a command printed and how it ended."""

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


class _Captured(io.StringIO):
    def __init__(self):
        super().__init__()
        self.buffer = io.BytesIO()

    def text(self):
        return self.buffer.getvalue().decode("utf-8", "surrogateescape") + self.getvalue()


SIGNALS = {
    "claude": {"CLAUDE_CODE_SESSION_ID": "session-of-claude"},
    "codex": {"CODEX_THREAD_ID": "thread-of-codex"},
}


_TEMPLATE: list[pathlib.Path] = []  # one repository, made once and copied for each test


class Stage:
    """One project with a ledger, and the authors who type in it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.home = folder / "home"
        self.project = folder / "project"
        self.home.mkdir(parents=True)
        self.project.mkdir()
        if _TEMPLATE:
            shutil.copytree(_TEMPLATE[0], self.project, dirs_exist_ok=True)
        else:
            self.git("init", "-q", "-b", "main", "--template=")
            self.git("commit", "-q", "--allow-empty", "-m", "start")
        self.shared = self.project / ".shared"

    def env(self, author=None, **more):
        env = {
            "HOME": str(self.home), "XDG_CACHE_HOME": str(CACHE), "PATH": os.environ.get("PATH", PATH), "LANG": "C.UTF-8", "TZ": "UTC",
            "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
        }
        if author in SIGNALS:
            env |= SIGNALS[author]
        elif author:
            env |= {"RELAY_AUTHOR": author, "RELAY_AGENT_SESSION_ID": f"session-of-{author}"}
        return {key: value for key, value in {**env, **more}.items() if value is not None}

    def git(self, *words, cwd=None):
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always")
        done = subprocess.run(("git", *who, *words), cwd=cwd or self.project, env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def run(self, author, *words, cwd=None, stdin=b"", **more) -> Done:
        """Types a command as `author`, in this process, with a sealed environment."""
        out, err = _Captured(), _Captured()
        kept = dict(os.environ), os.getcwd(), sys.stdout, sys.stderr, os.umask(0o022), os.dup(0)
        reading, writing = os.pipe()
        os.write(writing, stdin)
        os.close(writing)
        os.dup2(reading, 0)
        os.close(reading)
        env = self.env(author, **more)
        try:
            os.environ.clear()
            os.environ.update(env)
            os.chdir(cwd or self.project)
            sys.stdout, sys.stderr = out, err
            code = RELAY.main([str(word) for word in words], str(SCRIPT))
        finally:
            os.environ.clear()
            os.environ.update(kept[0])
            os.chdir(kept[1])
            sys.stdout, sys.stderr = kept[2], kept[3]
            os.umask(kept[4])
            os.dup2(kept[5], 0)
            os.close(kept[5])
        return Done(code, out.text(), err.text())

    def ok(self, author, *words, **more) -> Done:
        """The same, where success is expected."""
        done = self.run(author, *words, **more)
        assert done.code == 0, done
        return done

    def spawn(self, author, *words, cwd=None, before=(), **more) -> subprocess.Popen:
        """Types a command as `author` in a process of its own."""
        return subprocess.Popen(
            [*before, str(SCRIPT), *map(str, words)], cwd=cwd or self.project, env=self.env(author, **more), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def process(self, author, *words, timeout=30, **more) -> Done:
        """The same, run to its end."""
        child = self.spawn(author, *words, **more)
        out, err = child.communicate(timeout=timeout)
        return Done(child.returncode, out, err)

    def file(self, text, name="body.md") -> pathlib.Path:
        """A file outside the ledger, to send."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def send(self, author, kind, text="# Text\n", ask="look at it", *more) -> Done:
        """A whole turn's second half; the file is new each time."""
        self._count = getattr(self, "_count", 0) + 1
        path = self.file(text, f"{kind}-{self._count}.md")
        return self.ok(author, "send", "--kind", kind, "--file", path, "--next", ask, *more)

    def open_pair(self, topic="demo") -> pathlib.Path:
        """A pair that claude opened and codex joined."""
        slug = self.ok("claude", "bootstrap", "--topic", topic).out.split()[0]
        self.ok("codex", "next")
        return self.shared / slug

    def snapshot(self, *folders):
        """Every path below these folders (all of the stage's without any): mode, time of the last write, content."""
        found = {}
        for root in folders or (self.folder,):
            for path in [root, *root.rglob("*")]:
                status = os.lstat(path)
                held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
                found[str(path)] = status.st_mode, status.st_mtime_ns, held
        return found

    def litter(self):
        """Everything in the ledger that only a stopped run leaves behind."""
        found = []
        for path in self.shared.rglob("*"):
            if path.name.endswith(".tmp") or path.parent.name in (".seq", ".draft"):
                found.append(str(path.relative_to(self.shared)))
        return sorted(found)


_SCANNED: dict = {}  # What git said of a working tree, by all that it could have looked at.
_REALLY_SCANNED = RELAY._scanned


def state_of(top):
    """All bytes of a small working tree, and what git knows of it."""
    found = []
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(set(folders) - {".git", ".shared"})
        for name in sorted([*files, *folders]):
            path = os.path.join(folder, name)
            held = os.readlink(path) if os.path.islink(path) else pathlib.Path(path).read_bytes() if os.path.isfile(path) else None
            found.append((os.path.relpath(path, top), os.lstat(path).st_mode, held))
    git = pathlib.Path(top) / ".git"
    known = [git / "HEAD", git / "index", git / "config", git / "packed-refs", *sorted(git.glob("refs/heads/*"))]
    return tuple(found), tuple(path.read_bytes() for path in known if path.is_file())


def scanned_once(top, base, depth):
    """Asks git once for each state of a tree; most tests have the same. Those with ASKS_GIT ask each time."""
    if not os.path.isdir(os.path.join(top, ".git")):
        return _REALLY_SCANNED(top, base, depth)
    key = base, state_of(top)
    if key not in _SCANNED:
        _SCANNED[key] = _REALLY_SCANNED(top, base, depth)
    return _SCANNED[key]


@pytest.fixture
def relay():
    return RELAY


@pytest.fixture(scope="session", autouse=True)
def template(tmp_path_factory):
    made = Stage(tmp_path_factory.mktemp("template"))
    _TEMPLATE.append(made.project)


def woken_by_nobody(pair, _scratch, _env, world):
    """Stands for a real process that waits, in tests that are not about the doctor."""
    return RELAY.publish_note(pair, world), RELAY.Check("wait", "not tried")


@pytest.fixture
def stage(tmp_path, monkeypatch, request):
    monkeypatch.setattr(RELAY, "woken_by", woken_by_nobody)
    monkeypatch.setattr(RELAY, "launched_with", lambda: {"folder": str(tmp_path)})
    if not getattr(request.module, "ASKS_GIT", False):
        monkeypatch.setattr(RELAY, "_scanned", scanned_once)
    monkeypatch.setenv("HOME", "/nonexistent/the-real-home-is-off-limits")
    monkeypatch.setenv("TZ", "UTC")
    # Waiting for the disk is half of the time a test takes; real processes, and the tests that kill them, do wait.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return Stage(tmp_path)
