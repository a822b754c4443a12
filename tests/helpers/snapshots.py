"""What git said of a working tree, remembered by everything that it read to say so."""

from __future__ import annotations

import os
import stat

LARGEST = 1 << 20


def tree_state(top: str, ours, path: str) -> tuple | None:
    """Every byte, mode and time in a working tree and its repository. None where it is large or has
    anything but directories and files, which git is asked about each time."""
    rows, size, pending = [], 0, [top]
    while pending:
        directory = pending.pop()
        rows.append((directory[len(top) :], os.lstat(directory).st_mode))
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            below = entry.path[len(top) + 1 :]
            if ours.match(below) or below == ".git/relay":
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                continue
            status = entry.stat(follow_symlinks=False)
            size += status.st_size
            if not stat.S_ISREG(status.st_mode) or size > LARGEST or entry.name == ".git":
                return None
            if below.startswith(".git/objects/"):
                rows.append(below)
                continue
            with open(entry.path, "rb") as file:
                row = below, status.st_mode, file.read()
            if not below.startswith(".git/"):
                row += status.st_ino, status.st_mtime_ns, status.st_ctime_ns
            rows.append(row)
    home = os.environ.get("HOME", "")
    settings = {k: v for k, v in os.environ.items() if k.startswith("GIT_")}
    if os.environ.get("PATH") != path or "XDG_CONFIG_HOME" in os.environ:
        return None
    if not settings.get("GIT_CONFIG_GLOBAL") or os.path.exists(f"{home}/.config/git"):
        return None
    return *rows, *sorted(settings.items())


def remembering(relay, path: str):
    """`change_set` that asks git only about a state of the tree that it has not seen yet.

    A session of tests takes thousands of snapshots of the same few trees, by several processes each.
    """
    take, known = relay.change_set, {}

    def remembered(ctx, base, onto="", pack=False):
        top = relay.find_project(ctx).top
        state = tree_state(top, relay.own_paths(ctx), path)
        aside = [os.path.relpath(file, top) for file in ctx.input_files]
        limits = relay.MAX_HASHED_BYTES, relay.MAX_UNTRACKED_BYTES, relay.MAX_LISTED_FILES
        key = base, onto, pack, state, tuple(sorted(aside)), limits
        if state is None or key not in known:
            taken = take(ctx, base, onto, pack)
            if state is None or any("unhashed" in row for row in taken.files.values()):
                return taken
            known[key] = taken
        return known[key]._replace(tree=relay.tree_id(top))

    return remembered
