"""The sections of the script: what each may use, and that references point up."""

import ast
import functools
import re
from collections import Counter

import pytest
from conftest import SCRIPT

SOURCE = SCRIPT.read_text()
TREE = ast.parse(SOURCE)
BANNERS = [
    (SOURCE.count("\n", 0, m.start()) + 1, m[2], int(m[1]))
    for m in re.finditer(r"(?m)^# -{20,} (\d+) ([a-z ]+)$", SOURCE)
]
SECTIONS = [name for _, name, _ in BANNERS]
PURE = {"values", "format", "secrets", "findings"}
OPENS = {"open", "os.open", "os.read", "os.listdir", "os.scandir", "os.stat", "os.lstat"}
WRITES = {"os.write", "os.link", "os.replace", "os.rename", "os.unlink", "os.mkdir", "os.fsync"}
STARTS = {"os.fork", "os.system", "os.popen", "os.execv", "subprocess"}
ENVIRONMENT = {"os.environ", "os.getenv", "os.getcwd"}
CLOCK = {"time.time", "time.monotonic", "time.sleep"}
PRINTS = {"print", "sys.stdout", "sys.stderr"}
APART = {
    ("sync", "os.mkdir"),  # Its private staging directory is no part of a ledger;
    ("sync", "os.rename"),  # whole files are moved from it into place.
}


def section_at(line):
    return next((name for start, name, _ in reversed(BANNERS) if line >= start), "head")


@functools.cache
def named():
    """Every name, dotted name and import in the script with its line, above the last lines."""
    kinds = ast.Name, ast.Attribute, ast.Import, ast.ImportFrom
    nodes = [node for node in ast.walk(TREE) if isinstance(node, kinds)]
    rows = [(node.lineno, ast.unparse(node)) for node in nodes]
    return [row for row in rows if row[0] < TREE.body[-1].lineno]


def uses(names):
    """Every section that uses one of these names, below the header."""
    found = set()
    for line, text in named():
        imported = "import " in text and "subprocess" in text
        if text in names or (imported and "subprocess" in names):
            found.add((section_at(line), "subprocess" if imported else text))
    return {use for use in found if use[0] != "head"}


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        (OPENS | WRITES | STARTS | ENVIRONMENT | CLOCK | PRINTS, set(SECTIONS) - PURE),
        (WRITES, {"files", "environment"}),
        (STARTS, {"environment"}),
        (ENVIRONMENT, {"environment"}),
        (PRINTS, {"command line"}),
    ],
    ids=["pure sections do no I/O", "writes", "processes", "environment", "printing"],
)
def test_each_section_keeps_to_its_own(names, allowed):
    assert {use for use in uses(names) if use[0] not in allowed} - APART == set()


def names_bound_in(function):
    names = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
    stores = (
        n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    )
    return names | {n.id for n in stores}


@functools.cache
def references():
    """Every use of a top-level name at run time: the name and the line."""
    return [*each_reference()]


def each_reference():
    for top in TREE.body:
        functions = (f for f in ast.walk(top) if isinstance(f, (ast.FunctionDef, ast.Lambda)))
        own = set().union(*map(names_bound_in, functions))
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in own:
                yield node.id, node.lineno


def definitions():
    """Every top-level name and the section it is defined in."""
    found = []
    for node in TREE.body:
        if isinstance(node, ast.AugAssign) or (isinstance(node, ast.AnnAssign) and not node.value):
            continue
        targets = getattr(node, "targets", None) or [getattr(node, "target", node)]
        names = [getattr(node, "name", "")]
        names += [
            n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name) and t is not node
        ]
        found += [(name, section_at(node.lineno)) for name in names if name]
    return found


def test_references_between_sections_point_up():
    homes = dict(definitions())
    order = ["head", *SECTIONS]
    down = [
        f"line {line}: {name} of {homes[name]}"
        for name, line in references()
        if name in homes and order.index(homes[name]) > order.index(section_at(line))
    ]
    assert not down


def test_a_leading_underscore_means_used_in_this_section_only():
    homes = {
        name: home for name, home in definitions() if name.startswith("_") and name != "__doc__"
    }
    strays = {(n, section_at(line)) for n, line in references() if n in homes}
    assert {(name, used) for name, used in strays if homes[name] != used} == set()


def test_no_name_is_defined_twice_and_none_is_unused():
    names = [name for name, _ in definitions() if name not in ("CODE", "__doc__")]
    assert {name for name, count in Counter(names).items() if count > 1} == set()
    words = Counter(re.findall(r"\w+", SOURCE))
    assert {name for name in names if words[name] == 1} == set()


def test_only_public_modules_of_the_standard_library_are_imported():
    import sys

    modules = set()
    for node in ast.walk(TREE):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    private = {name for name in modules if name.startswith("_") and name != "__future__"}
    assert not private
    assert modules <= set(sys.stdlib_module_names)


def test_the_table_of_contents_repeats_the_banners(relay):
    contents = re.findall(r"(?m)^ ?(\d+) (\w+(?: \w+)*)  ", relay.__doc__)
    assert [(int(n), name) for n, name in contents] == [(n, name) for _, name, n in BANNERS]
    assert [n for _, _, n in BANNERS] == list(range(1, len(BANNERS) + 1))


def test_formatting_is_switched_off_in_the_header_only():
    assert re.findall(r"fmt: (?:off|skip)", SOURCE) == ["fmt: off"]
    assert SOURCE.index("fmt: off") < SOURCE.index("exec ")


def test_no_helper_of_the_tests_is_unused():
    """One that lost its last use is often a test that was lost."""
    sources = [path.read_text() for path in SCRIPT.parents[3].glob("tests/**/*.py")]
    words = Counter(word for source in sources for word in re.findall(r"\w+", source))
    names = {getattr(node, "name", "") for source in sources for node in ast.parse(source).body}
    helpers = {name for name in names if not re.match("test_|pytest_", name)}
    assert {name for name in helpers if words[name] == 1} == set()
