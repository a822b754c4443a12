"""Runs relay under strace and stops it, or makes it fail, at one system call after the other.

A state is prepared once and copied for each run. The same command is then played on two copies: one
undisturbed, which shows what must be there at the end, and one disturbed and run again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from unittest import mock

import pytest
from conftest import RELAY, SCRIPT, Done, Stage, keyboard

WORKERS = 2
CHANGING = (
    "write",
    "pwrite64",
    "openat",
    "open",
    "creat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "fsync",
    "fdatasync",
    "ftruncate",
    "truncate",
    "symlink",
    "symlinkat",
    "chmod",
    "fchmod",
)
LINKS_REFUSED = "link,linkat:error=EPERM"
SAYS = re.compile(r"^(\w+)\((.*)$")
RUNNER = (
    "import marshal, sys; code = marshal.loads(open(sys.argv[1], 'rb').read()); path = sys.argv[2]; sys.argv = sys.argv[2:];"
    "exec(code, {'__name__': '__main__', '__file__': path, '__builtins__': __builtins__})"
)


def needs_strace():
    """Skips, with the reason, where processes cannot be traced."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt install strace")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")


class Copy(Stage):
    """A copy of a prepared stage, with a home of its own; files to send stay the ones of the original, for their inode is part of the intent."""

    def __init__(self, original: Stage, folder: pathlib.Path):
        self.folder = original.folder
        self.place = folder
        self.home = folder / "home"
        self.project = folder / "project"
        self.shared = self.project / ".shared"
        shutil.copytree(original.project, self.project, symlinks=True)
        shutil.copytree(original.home, self.home, symlinks=True)

    def discard(self):
        shutil.rmtree(self.place, ignore_errors=True)

    def names(self):
        """Every file and folder of the ledger."""
        return sorted(str(path.relative_to(self.shared)) for path in self.shared.rglob("*"))

    def texts(self):
        """Every published artifact as it reads, without its time and what follows from it."""
        return {
            path.name: re.sub(r"(?m)^(created|sidecar_sha256): .*\n", "", path.read_text())
            for path in sorted(self.shared.rglob("[0-9][0-9][0-9]-*.md"))
        }


class Point:
    """The k-th call of one system call in a run."""

    def __init__(self, call, k, what):
        self.call, self.k, self.what = call, k, what

    def __repr__(self):
        return f"{self.call} {self.k}: {self.what}"


class Tracer:
    """Starts relay under strace; `folder` keeps the bytecode and the traces."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.code = folder / "relay.marshal"
        program = f"import marshal, sys; sys.stdout.buffer.write(marshal.dumps(compile(open({str(SCRIPT)!r}).read(), {str(SCRIPT)!r}, 'exec', 0, True)))"
        self.code.write_bytes(
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True
            ).stdout
        )
        self.python = os.path.realpath(sys.executable)

    def run(self, stage, author, words, *injections, log=None) -> Done:
        """One run with calls disturbed as strace's `inject=` says; with `log`, all that change files are written there."""
        calls = (
            CHANGING
            if log
            else {call for injection in injections for call in injection.split(":")[0].split(",")}
        )
        command = [
            "strace",
            "-o",
            str(log or "/dev/null"),
            "-y",
            "-s",
            "16",
            "-e",
            f"trace={','.join(calls)}",
        ]
        for injection in injections:
            command += ["-e", f"inject={injection}"]
        command += [
            self.python,
            "-I",
            "-S",
            "-X",
            "utf8",
            "-c",
            RUNNER,
            str(self.code),
            str(SCRIPT),
            *map(str, words),
        ]
        typed = words[:1] == ["continue"]
        with keyboard(typed) as stdin:
            done = subprocess.run(
                command,
                cwd=stage.project,
                env=stage.user_env(author) if typed else stage.env(author),
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=60,
            )
        return Done(done.returncode, done.stdout, done.stderr)

    def points(self, stage, author, words, *injections, stdout=True) -> list[Point]:
        """Every call that changes the project or the home, and the one that prints, in a dry run of the command."""
        log = self.folder / "dry-run"
        done = self.run(stage, author, words, *injections, log=log)
        assert done.code == 0, done
        counts, found = {}, []
        for line in log.read_text().splitlines():
            match = SAYS.match(line)
            if not match:
                continue
            call, rest = match[1], match[2]
            counts[call] = counts.get(call, 0) + 1
            reads_only = call in ("openat", "open") and not re.search(
                r"O_WRONLY|O_RDWR|O_CREAT", rest
            )
            notes_holder = (
                call in ("ftruncate", "pwrite64") and "/.lock>" in rest
            )  # For people only.
            prints = call == "write" and rest.startswith("1<")
            place = re.search(f'{re.escape(str(stage.place))}/([^">]*)', rest)
            if not (reads_only or notes_holder) and (place or (prints and stdout)):
                what = "stdout" if prints else place[1]
                found.append(Point(call, counts[call], what))
        assert found
        return found

    def kill(self, stage, author, words, point, *injections):
        """Kills the command on entering one call."""
        done = self.run(
            stage, author, words, *injections, f"{point.call}:signal=KILL:when={point.k}"
        )
        assert done.code == -signal.SIGKILL, (point, done)

    def fail(self, stage, author, words, point, error, *injections) -> Done:
        """Lets one call fail."""
        return self.run(
            stage, author, words, *injections, f"{point.call}:error={error}:when={point.k}"
        )


@contextlib.contextmanager
def links_refused(refused=True):
    """Within, this process cannot make hard links, as on some mounts."""
    real = os.link

    def refuse(source, path, **_more):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)

    os.link = refuse if refused else real
    try:
        yield
    finally:
        os.link = real


def in_parallel(work, items):
    """Does the work for each item in two threads; yields (item, result) as they come."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        futures = {pool.submit(work, item): item for item in items}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def sound(stage):
    """Checks, without relay's help, that whatever has a `.ready` is whole and matches its hashes."""
    for ready in stage.shared.rglob("*.ready"):
        if "/.staging/" in str(ready):  # A scratch ledger, or a pair, that is being removed.
            continue
        text = ready.with_suffix(".md").read_bytes()
        sums = ready.with_suffix(".md.sha256").read_text()
        assert sums.split()[0] == hashlib.sha256(text).hexdigest(), f"{ready.stem} is torn"
        told = re.search(r"(?m)^sidecar_sha256: (\w+)$", text.decode())
        if told:
            assert told[1] == hashlib.sha256(ready.with_suffix(".json").read_bytes()).hexdigest(), (
                f"{ready.stem}: its sidecar is torn"
            )


def reader_sees_only_whole_artifacts(stage, reader):
    """A reader looks in every way; nothing torn, nothing damaged, no error."""
    sound(stage)
    if not stage.shared.exists():
        return
    for words in (["status"], ["next"], ["log"]):
        done = stage.run(reader, *words)
        assert "Traceback" not in done.err, (words, done)
        assert "damaged" not in done.out + done.err, (words, done)
        assert words != ["next"] or done.code == 0, (words, done)


def doctor_is_content(stage, author="claude"):
    """Doctor finds nothing, but for bindings of the side that has not heard yet that the pair ended.

    It publishes nothing by way of trial, which takes three processes each time.
    """
    scratch = RELAY.ScratchProject
    with (
        mock.patch.object(scratch, "run", lambda *_: ""),
        mock.patch.object(scratch, "send", lambda *_: ("", 1.0)),
    ):
        done = stage.run(author, "doctor", "--json")
    found = [
        f"{finding['path']} {finding['why']}"
        for finding in done.json["findings"]
        if "binds to a pair that has ended" not in finding["why"]
    ]
    assert not found, found
