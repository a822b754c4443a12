"""What git said of a working tree, remembered by everything that it read to say so."""

from __future__ import annotations

import os
import re
import stat
import struct

LARGEST = 1 << 20
USUAL = {
    ("ls-files", "-z"),
    ("worktree", "list"),
    ("rev-parse", "--git-path"),
    ("ls-tree", "-r"),
    ("cat-file", "--batch"),
}
LEDGER = re.compile(r"\.shared(?:/|\Z)")
# Of an entry: two times, device, inode, mode, owner, group, size, id, flags.
ENTRY = struct.Struct(">10I20sH")


def index_rows(path: str, content: bytes, written: int) -> list:
    """What git reads from an index: of times and inodes only how they compare with the file's, and
    with when the index was written, as git does. All else as it is."""
    rows: list = [content[:12]]
    top, at = os.fsencode(os.path.dirname(os.path.dirname(path))), 12
    for _ in range(struct.unpack_from(">I", content, 8)[0]):
        *noted, size, oid, flags = ENTRY.unpack_from(content, at)
        end = content.index(b"\0", at + ENTRY.size)
        same = None
        try:
            now = os.lstat(top + b"/" + content[at + ENTRY.size : end])
        except OSError:
            pass
        else:
            times = (*divmod(now.st_ctime_ns, 10**9), *divmod(now.st_mtime_ns, 10**9))
            found = *times, now.st_dev, now.st_ino, noted[6], now.st_uid, now.st_gid, now.st_size
            same = [a & 0xFFFFFFFF == b for a, b in zip(found, (*noted, size))]
        second, rest = divmod(written, 10**9)
        younger = noted[2] - second or (noted[3] > rest) - (noted[3] < rest)
        rows.append((content[at + 40 : end], size, same, (younger > 0) - (younger < 0)))
        at += (end - at + 8) // 8 * 8
    return [*rows, content[at:-20]]


def tree_state(top: str, ours, path: str) -> str | None:
    """Every byte, mode and link in a working tree and its repository, and what the index knows of
    them. None where it is large or git reads from elsewhere: it is asked each time then."""
    home, settings = os.environ.get("HOME", ""), {}
    for name, value in os.environ.items():
        if name.startswith("GIT_"):
            settings[name] = value
    if os.environ.get("PATH") != path or "XDG_CONFIG_HOME" in os.environ:
        return None
    if not settings.get("GIT_CONFIG_GLOBAL") or os.path.exists(f"{home}/.config/git"):
        return None
    rows, size, pending = [sorted(settings.items())], 0, [top]
    while pending:
        directory = pending.pop()
        rows.append((directory[len(top) :], os.lstat(directory).st_mode))
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            below = entry.path[len(top) + 1 :]
            if ours.match(below) or below in (".git/relay", ".git/logs"):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                continue
            if entry.is_symlink():
                rows.append((below, os.readlink(entry.path)))
                continue
            status = entry.stat(follow_symlinks=False)
            size += status.st_size
            if not stat.S_ISREG(status.st_mode) or size > LARGEST or entry.name == ".git":
                return None
            with open(entry.path, "rb", 0) as file:
                content = file.read()
            rows.append((below, status.st_mode, content))
            if f"/{below}".endswith("/.git/index") and content[4:8] == b"\0\0\0\2":
                rows[-1] = below, *index_rows(entry.path, content, status.st_mtime_ns)
    return repr(rows)


def remembering(relay, path: str):
    """`change_set` and `Git.run` that ask git only about a state of the tree not seen yet: a session
    of tests asks thousands of times about the same few trees, and each time is several processes."""
    take, run, known = relay.change_set, relay.Git.run, {}

    def change_set(ctx, base, onto="", pack=False):
        top = relay.find_project(ctx).top
        state = tree_state(top, relay.own_paths(ctx), path)
        aside = [os.path.relpath(file, top) for file in ctx.input_files]
        aside = sorted(name for name in aside if not name.startswith("../"))
        limits = relay.MAX_HASHED_BYTES, relay.MAX_UNTRACKED_BYTES, relay.MAX_LISTED_FILES
        key = base, onto, pack, state, tuple(aside), limits
        if state is None or key not in known:
            taken = take(ctx, base, onto, pack)
            if state is None or any("unhashed" in row for row in taken.files.values()):
                return taken
            known[key] = taken
        return known[key]._replace(tree=relay.tree_id(top))

    def git_run(git, *args, stdin=b"", env=None, ok=(0,)):
        top, folder = git.directory, os.fsencode(os.path.dirname(git.directory))
        is_usual = args[:2] in USUAL and os.path.isdir(f"{top}/.git")
        state = tree_state(top, LEDGER, path) if is_usual else None
        key = args, stdin, tuple(ok), git._command, state
        if state is None or key not in known:
            printed = run(git, *args, stdin=stdin, env=env, ok=ok)
            if state is None:
                return printed
            known[key] = printed.replace(folder, b"\0folder\0")
        return known[key].replace(b"\0folder\0", folder)

    return change_set, git_run
