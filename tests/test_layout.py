"""The rooms of the script: what may be called where, and that every reference points up."""

import ast
import re

import pytest
from conftest import SCRIPT

SOURCE = SCRIPT.read_text()
TREE = ast.parse(SOURCE)
MARKED = re.findall(r"(?m)^# -{20,} (\d+) ([a-z ]+)(, when called|, with it)?$", SOURCE)
BANNERS = [(SOURCE.count("\n", 0, m.start()) + 1, m[2], int(m[1])) for m in re.finditer(r"(?m)^# -{20,} (\d+) ([a-z ]+)(?:, .*)?$", SOURCE)]
ROOMS = [name for _, name, _ in BANNERS]
PURE = ("words", "errors", "values", "format", "secrets", "findings", "rules")
# The names that reach outside, and the rooms that may use them.
OPENS = {"open", "os.open", "os.read", "os.write", "os.pread", "os.fdopen", "os.listdir", "os.scandir", "os.link", "os.replace", "os.rename",
         "os.unlink", "os.mkdir", "os.makedirs", "os.rmdir", "os.fsync", "os.stat", "os.lstat", "os.fstat", "os.path.exists", "os.path.lexists"}
WRITES = {"open", "os.open", "os.write", "os.link", "os.replace", "os.rename", "os.unlink", "os.mkdir", "os.makedirs", "os.rmdir", "os.fsync"}
STARTS = {"os.fork", "os.system", "os.popen", "os.kill", "os.posix_spawn", "os.execv"}
READS_ENV = {"os.environ", "os.getenv", "os.getcwd", "os.getppid"}
CLOCK = {"time.time", "time.monotonic", "time.sleep"}
PRINTS = {"print", "sys.stdout", "sys.stderr", "sys.stdout.buffer", "sys.stderr.buffer"}
EXITS = {"sys.exit", "os._exit", "exit", "quit", "SystemExit"}
LAST_LINES = next(node.lineno for node in TREE.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))


def room_at(line):
    return next((name for start, name, _ in reversed(BANNERS) if line >= start), "head")


def uses(names):
    """Every place that speaks one of these names: room, name, line; the last lines and the head apart."""
    found = set()
    for node in ast.walk(TREE):
        if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in names and node.lineno < LAST_LINES:
            found.add((room_at(node.lineno), ast.unparse(node), node.lineno))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "subprocess" in names and "subprocess" in ast.unparse(node):
            found.add((room_at(node.lineno), "subprocess", node.lineno))
    return sorted(use for use in found if use[0] != "head")


# What a room may use beyond its rule, each with its reason.
APART = {
    ("world", "os.open"), ("world", "os.read"),  # /proc, and the events of inotify and kqueue
    ("demo", "os.open"), ("demo", "os.write"), ("demo", "os.makedirs"),  # the scratch project, no part of a ledger
    ("demo", "subprocess"), ("demo", "os.environ"),  # its two authors are real processes
    ("demo", "time.time"), ("demo", "time.sleep"),  # it times real wakes
    ("world", "os.write"),  # what `run` runs prints goes on to our own streams as it comes
    ("disk", "time.sleep"),  # waiting for a lock
    ("terminal", "os.write"), ("terminal", "os.read"), ("terminal", "os.kill"),  # the screen is a device; Ctrl-Z is passed on to oneself
    ("turns", "time.monotonic"), ("turns", "os.getppid"),  # the wait's own deadline and parent
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "names", "rooms"),
    [
        ("rooms 1 to 5 do no I/O", OPENS | STARTS | READS_ENV | CLOCK | PRINTS | {"subprocess"}, set(ROOMS) - set(PURE)),
        ("only disk opens and changes files", WRITES, {"disk"}),
        ("only world starts processes", STARTS | {"subprocess"}, {"world"}),
        ("only world reads the environment", READS_ENV, {"world"}),
        ("only world knows the time", CLOCK, {"world"}),
        ("only output and main print", PRINTS, {"output", "command line"}),
        ("nothing but the last lines exits", EXITS, set()),
    ],
)
def test_each_room_keeps_to_its_own(what, names, rooms):
    strays = [use for use in uses(names) if use[0] not in rooms and use[:2] not in APART]
    assert not strays, what


def bound_inside(function):
    """The names a function binds itself; they are not the top level's."""
    names = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
    return names | {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def references():
    """Every use of a top-level name: the name and the line; imports, types and defaults included."""
    for top in TREE.body:
        own = set().union(*(bound_inside(f) for f in ast.walk(top) if isinstance(f, (ast.FunctionDef, ast.Lambda))))
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in own:
                yield node.id, node.lineno


def test_references_between_rooms_point_up():
    homes = {}
    for node in TREE.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        names = [getattr(node, "name", ""), *(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))]
        homes |= {name: room_at(node.lineno) for name in names}
    order = ["head", *ROOMS]
    pairs = [(name, line) for name, line in references() if name in homes]
    assert len(pairs) > 1000
    assert not [f"line {n}: {name} ({homes[name]})" for name, n in pairs if order.index(homes[name]) > order.index(room_at(n))]


def test_a_name_is_given_once():
    """A room's own name that a later room gives again would be the later one's for both."""
    given = [name for node in TREE.body for name in ([node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else
             [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else [])]  # fmt: skip
    assert not {name for name in given if given.count(name) > 1}


def test_a_leading_underscore_means_used_only_in_this_room():
    homes = {n.name: room_at(n.lineno) for n in TREE.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] == "_"}
    assert not [f"line {n}: {name} ({homes[name]})" for name, n in references() if name in homes and room_at(n) != homes[name]]


def test_the_table_of_contents_repeats_the_banners(relay):
    contents = re.findall(r"(?m)^ ?(\d+) (\w+(?: \w+)?)  ", relay.__doc__)
    assert [(int(number), name) for number, name in contents] == [(number, name) for _, name, number in BANNERS]
    assert [number for _, _, number in BANNERS] == list(range(1, len(BANNERS) + 1))


def units():
    """The rooms that the launcher loads together when one of their functions is called, by each of them."""
    found, unit = {}, ""
    for _, name, mark in MARKED:
        unit = {", when called": name, ", with it": unit}.get(mark, "")
        found |= {name: unit} if unit else {}
    return found


def test_of_a_room_that_is_loaded_when_called_others_only_call_functions():
    loaded = units()
    assert loaded["transport"] == loaded["code sync"] and "turns" not in loaded
    homes = {name.id: room_at(n.lineno) for n in TREE.body if isinstance(n, (ast.Assign, ast.AnnAssign))
             for t in (n.targets if isinstance(n, ast.Assign) else [n.target]) for name in ast.walk(t) if isinstance(name, ast.Name)}  # fmt: skip
    classes = {n.name: room_at(n.lineno) for n in TREE.body if isinstance(n, ast.ClassDef)}
    called = {(n.func.id, n.func.lineno) for n in ast.walk(TREE) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    typed = {(n.id, n.lineno) for f in ast.walk(TREE) if isinstance(f, (ast.FunctionDef, ast.AnnAssign))
             for part in ([f.annotation] if isinstance(f, ast.AnnAssign) else [f.returns, *(a.annotation for a in ast.walk(f.args) if isinstance(a, ast.arg))])
             if part for n in ast.walk(part) if isinstance(n, ast.Name)}  # fmt: skip
    wrong = [f"line {line}: {name} ({home})" for name, line in references() for home in [homes.get(name) or classes.get(name)]
             if loaded.get(home) and loaded[home] != loaded.get(room_at(line), "none")
             and (name in homes or (name, line) not in called | typed)]  # fmt: skip
    assert not wrong
