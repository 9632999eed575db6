"""The rules of the house, held by reading the source: imports go one way, functions stay short."""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "qsmnet"
SOURCES = sorted(PACKAGE.rglob("*.py"))

LEVELS = (
    {"geometry", "units", "errors", "summary"},
    {"volumes", "frame", "conjugate_gradient"},
    {"dipole"},
    {"io", "phase", "mask", "background", "inversion", "networks", "simulate", "weights", "r2star"},
    {"training", "evaluate"},
    {"pipeline"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
#: Who alone may import what.
CONFINED = {
    "hydra": "cli",
    "omegaconf": "cli",
    "lightning": "training",
    "pytorch_lightning": "training",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def part_of(path: Path) -> str:
    """First name below the package: ``inversion`` for qsmnet/inversion/tkd.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all imports of a file, lazy ones too; relative ones are refused."""
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Parts of qsmnet that a file imports, its own left out."""
    parts = {name.split(".")[1] for name in imported(path) if name.startswith("qsmnet.")}
    return (parts & LEVEL.keys()) - {part_of(path)}


def functions(path: Path) -> Iterator[Function]:
    tree = ast.parse(path.read_text("utf8"))
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_part_has_a_level():
    parts = {part_of(path) for path in SOURCES} - {"__init__", "__main__"}
    assert parts <= LEVEL.keys()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path):
    if part_of(path) in {"__init__", "__main__"}:
        return
    level = LEVEL[part_of(path)]
    upward = {part for part in own_imports(path) if LEVEL[part] > level}
    assert not upward, f"{name_of(path)} imports upward: {sorted(upward)}"


def test_parts_do_not_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(part_of(path), set()).update(own_imports(path))
    graph.pop("__init__")
    done: set[str] = set()
    while ready := {part for part in graph.keys() - done if graph[part] <= done}:
        done |= ready
    assert done == graph.keys(), f"in or above a circle: {sorted(graph.keys() - done)}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_frameworks_stay_where_they_belong(path):
    for name in imported(path):
        home = CONFINED.get(name.split(".")[0])
        assert home in {None, part_of(path)}, f"{name_of(path)} imports {name}, for {home} alone"


def test_nothing_imports_studies_scripts_or_tests():
    for path in SOURCES:
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"simulations", "scripts", "tests", "qsm_ci", "pytest"}, name_of(path)


def test_the_rules_would_notice(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from qsmnet.cli import main\n    import lightning.pytorch\n")
    assert set(imported(bad)) == {"qsmnet.cli.main", "lightning.pytorch"}
    assert own_imports(PACKAGE / "volumes.py") == {"geometry"}


def test_no_function_is_longer_than_a_page():
    long = [
        f"{name_of(path)}:{function.lineno} {function.name}: {body_lines(function)}"
        for path in SOURCES
        for function in functions(path)
        if body_lines(function) > 60
    ]
    assert not long


def test_functions_are_short_on_the_whole(record_property):
    lengths = sorted(body_lines(function) for path in SOURCES for function in functions(path))
    record_property("median_function_lines", statistics.median(lengths))
    assert statistics.median(lengths) <= 8
    assert lengths[int(0.9 * len(lengths))] <= 30


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_stay_below_400_lines(path):
    assert len(path.read_text("utf8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text("utf8"))
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    members = [node for each in classes for node in each.body]
    missing = [
        node.name
        for node in [*tree.body, *members]
        if isinstance(node, Function | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert not missing


def tracked_text() -> Iterator[tuple[str, str]]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (data := path.read_bytes())[:4096]:
            yield name, data.decode("utf8")


def test_project_text_speaks_of_the_project_alone():
    # paths of one machine, places outside the repository, trackers and work in progress
    foreign = re.compile(
        r"/(?:work|root|home/\w+)/|\bshared/(?:data|design|reference)"
        r"|\bissue #?\d|\bTODO\b|\bFIXME\b",
        re.IGNORECASE,
    )
    allowed = {".ci/run", name_of(Path(__file__))}
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in tracked_text()
        if name not in allowed
        for number, line in enumerate(text.splitlines(), 1)
        if foreign.search(line)
    ]
    assert not found
