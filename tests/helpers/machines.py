"""Two machines on one: two clones, and a real sshd on loopback with keys and settings of its own between them."""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import subprocess
import time

from conftest import Stage, copy_tree

SSHD = shutil.which("sshd") or next(
    (p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if os.path.exists(p)), None
)
MISSING = [
    name
    for name in ("sshd", "ssh", "rsync", "ps", "script")
    if not (SSHD if name == "sshd" else shutil.which(name))
]


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Sshd:
    """A server on loopback; `options` are lines of its configuration, `shell` what the client is started with."""

    def __init__(self, folder, *options, known=True):
        self.folder = folder
        folder.mkdir(parents=True)
        os.chmod(folder, 0o700)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
        self.port = free_port()
        (folder / "sshd_config").write_text(
            "\n".join(
                [
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {folder}/host",
                    f"AuthorizedKeysFile {folder}/user.pub",
                    "StrictModes no",
                    "UsePAM no",
                    "PidFile none",
                    "PermitRootLogin yes",
                    "MaxStartups 100",
                    "Subsystem sftp internal-sftp",
                    *options,
                    "",
                ]
            )
        )
        key = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {key}" if known else "")
        self.configure()
        self.start()

    def configure(self, *lines):
        """The client's settings, where `far` is this server."""
        told = [
            "Host far",
            " HostName 127.0.0.1",
            f" Port {self.port}",
            f" IdentityFile {self.folder}/user",
            " IdentitiesOnly yes",
            f" UserKnownHostsFile {self.folder}/known",
            " GlobalKnownHostsFile /dev/null",
            " StrictHostKeyChecking yes",
            *lines,
            "",
        ]
        (self.folder / "config").write_text("\n".join(told))

    @property
    def shell(self):
        return f"ssh -F {self.folder}/config"

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", self.folder / "sshd_config"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.02)

    def stop(self):
        """Ends the server and the connections it holds."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        ).stdout.split()
        self.process.terminate()
        self.process.wait()
        for pid in children:
            try:
                os.kill(int(pid), 15)
            except ProcessLookupError:
                pass


class LocalShell:
    """In place of ssh where the connection is not the point: rsync's far end as a child of its near end."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "shell"
        path.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
        path.chmod(0o700)
        self.shell = str(path)


class Machines:
    """Claude's machine `here`, which owns the transport, and codex's machine `there`; without a server, no ssh between them."""

    def __init__(self, folder, sshd=None, there="there"):
        self.sshd = sshd or LocalShell(folder)
        self.here = Stage(folder / "here")
        self.there = Stage(folder / there)
        self.here.git("commit", "-q", "--allow-empty", "-m", "same start")
        shutil.rmtree(self.there.project)
        self.there.git(
            "clone",
            "-q",
            "--template=",
            self.here.project,
            self.there.project,
            cwd=self.there.folder,
        )
        self.far = str(self.there.project)
        self.settings = {}

    def env(self, **more):
        return {
            "RELAY_SYNC": "rsync",
            "RELAY_REMOTE_SSH": "far",
            "RELAY_REMOTE_PATH": self.far,
            "RSYNC_RSH": self.sshd.shell,
            **self.settings,
            **more,
        }

    def sync(self, way, *flags, **more):
        return self.here.run("claude", "sync", way, *flags, **self.env(**more))

    def ledger(self, way, *flags, **more):
        """The same for the ledger alone, where success is expected; the rows of its report."""
        done = self.sync(way, "--only", "ledger", "--json", *flags, **more)
        assert done.code == 0, done
        return [(row["what"], row["name"]) for row in json.loads(done.out)["ledger"]]

    def open_pair(self, topic="demo"):
        """A pair that claude opened here and that has travelled; codex joined it there."""
        slug = self.here.ok("claude", "bootstrap", "--topic", topic, **self.env()).out.split()[0]
        self.ledger("push")
        self.there.ok("codex", "next")
        return slug


def published(pair):
    """The files of a pair that both sides must have alike, by name."""
    names = {
        path.name: path.read_bytes()
        for path in pair.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix != ".pack"
        and path.name != "README.md"
    }
    names["session.json"] = json.dumps(json.loads(names["session.json"]), sort_keys=True).encode()
    return names


class Clones:
    """Clones of one project with a bare remote between them, in which claude, codex and others work."""

    def __init__(self, folder, *authors, url=None, init=()):
        self.folder = folder
        self.bare = folder / "remote.git"
        self.stages = {}
        folder.mkdir(parents=True, exist_ok=True)
        for author in authors or ("claude", "codex"):
            stage = Stage(folder / author)
            shutil.rmtree(stage.project)
            if not self.bare.exists():
                seed = folder / "seed"
                stage.git("init", "-q", "--bare", *init, "-b", "main", self.bare, cwd=folder)
                stage.git("init", "-q", *init, "-b", "main", seed, cwd=folder)
                stage.git("remote", "add", "origin", "../remote.git", cwd=seed)
                (seed / "code.txt").write_text("1\n")
                stage.git("add", ".", cwd=seed)
                stage.git("commit", "-q", "-m", "start", cwd=seed)
                stage.git("push", "-q", "origin", "HEAD:main", cwd=seed)
            stage.git(
                *("clone", "-q", "--template=", "-b", "main", self.bare, stage.project), cwd=folder
            )
            stage.git("remote", "set-url", "origin", url or "../../remote.git")
            self.stages[author] = stage
        self.claude, self.codex = self.stages["claude"], self.stages["codex"]
        self.settings = {"RELAY_SYNC": "git"}

    def copied(self, folder):
        """The same clones and remote in another place, which costs less than making them anew."""
        copy_tree(self.folder, folder)
        other = copy.copy(self)
        other.folder, other.bare, other.stages = folder, folder / "remote.git", {}
        other.settings = dict(self.settings)
        for author, stage in self.stages.items():
            other.stages[author] = there = copy.copy(stage)
            there.folder = folder / author
            there.home, there.project = there.folder / "home", there.folder / "project"
            there.shared = there.project / ".shared"
        other.claude, other.codex = other.stages["claude"], other.stages["codex"]
        return other

    def sync(self, author, way, *flags, who=None, **more):
        """`sync` in the clone of this author."""
        stage = self.stages[author]
        return stage.run(who or author, "sync", way, *flags, **{**self.settings, **more})

    def rows(self, author, way, *flags, **more):
        """The same where success is expected: the rows of its report."""
        done = self.sync(author, way, "--json", *flags, **more)
        assert done.code == 0, done
        return [(row["what"], row["name"]) for row in done.json["ledger"]]

    def open_pair(self):
        """A pair that claude opened and codex joined."""
        slug = self.claude.ok("claude", "bootstrap", "--topic", "demo", **self.settings).out.split()
        self.rows("claude", "push")
        assert self.codex.ok("codex", "next", "--sync", **self.settings).action == "wait"
        return slug[0]

    def refs(self):
        """The refs of the remote and their tips."""
        rows = self.claude.git("show-ref", cwd=self.bare).splitlines()
        return {ref: tip for tip, ref in (row.split() for row in rows)}

    def commit(self, ref, *entries, parent=None, **files):
        """Sets a ref of the remote to a commit with these files and raw entries (mode, name, id)."""
        import hashlib
        import zlib

        git, rows = self.claude.git, list(entries)
        for name, content in files.items():
            path = self.folder / "content"
            path.write_bytes(content)
            rows.append(("100644", name, git("hash-object", "-w", path, cwd=self.bare)))
        tree = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(blob)
            for mode, name, blob in sorted(rows, key=lambda row: row[1])
        )
        whole = b"tree %d\0" % len(tree) + tree
        tip = hashlib.sha1(whole).hexdigest()
        place = self.bare / "objects" / tip[:2] / tip[2:]
        place.parent.mkdir(exist_ok=True)
        if not place.exists():
            place.write_bytes(zlib.compress(whole))
        above = ("-p", parent) if parent else ()
        commit = git("commit-tree", tip, *above, "-m", "x", cwd=self.bare)
        git("update-ref", ref, commit, cwd=self.bare)
        return commit

    def files(self, ref):
        """The raw entries of a ref."""
        rows = self.claude.git("ls-tree", ref, cwd=self.bare).splitlines()
        return [(row.split()[0], row.split("\t")[1], row.split()[2]) for row in rows]
