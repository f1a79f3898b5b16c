"""The house rules: imports point downwards, files stay small, heavy packages wait, and nothing runs foreign code."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quasinat
from forbidden import forbidden

SOURCE = Path(quasinat.__file__).parent
FILES = {str(path.relative_to(SOURCE)): path for path in sorted(SOURCE.rglob("*.py"))}
ROOMS = [
    "arrays",
    "errors",
    "parallel",
    "batches",
    "files",
    "artefact",
    "sparse_coding",
    "networks",
    "training",
    "strata",
    "layer_options",
    "layer",
    "tiling",
    "defended",
    "attacks",
    "data",
    "defences",
    "evaluation",
    "export",
    "interop",
    "experiments",
    "report",
    "serving",
    "cli",
]
HEAVY = {"faiss", "skimage", "sklearn", "matplotlib", "jinja2", "PIL", "rich", "pywt"}

every_file = pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())


def room_of(path: Path) -> str:
    """The first part of a file's name below the package: `layer` of `layer.py`, `data` of `data/folder.py`."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(tree: ast.AST, path: Path) -> Iterator[str]:
    """The dotted names that a tree imports, relative ones resolved; `from a import b` gives `a.b`."""
    package = ["quasinat", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def at_import(tree: ast.AST) -> Iterator[ast.stmt]:
    """The import statements that run when a module is imported: in no function and under no TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


@every_file
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):  # the front doors lead everywhere
        return
    assert room in ROOMS, f"{room} is a new room: give it its place in ROOMS"
    for name in imported(ast.parse(path.read_text(encoding="utf-8")), path):
        parts = name.split(".")
        if parts[0] != "quasinat" or name == "quasinat.__version__":
            continue
        if len(parts) == 1:
            assert room == ROOMS[-1], f"{path} imports the whole package, which only the topmost room may"
            continue
        assert parts[1] in ROOMS, f"{path} imports {name}"
        assert ROOMS.index(parts[1]) <= ROOMS.index(room), f"{path} ({room}) imports {name}, which lies above it"


@every_file
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    if room_of(path) == "cli":
        return
    for statement in at_import(ast.parse(path.read_text(encoding="utf-8"))):
        for name in imported(statement, path):
            assert name.split(".")[0] not in HEAVY, f"{path} imports {name} when it is itself imported"


@every_file
def test_nothing_runs_foreign_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(forbidden(tree)) == []
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"torch.load", "np.load", "numpy.load"}  # the package itself has no need of them


@every_file
def test_a_file_is_one_idea_and_says_which(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_importing_the_package_is_light() -> None:
    code = "import sys, quasinat; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(answer.stdout.split())
    assert {"quasinat", "torch"} <= loaded
    assert not loaded & {"matplotlib", "faiss", "skimage", "sklearn", "jinja2", "rich", "PIL"}


def test_the_public_names_exist() -> None:
    assert len(quasinat.__all__) == len(set(quasinat.__all__))
    for name in quasinat.__all__:
        assert hasattr(quasinat, name)
