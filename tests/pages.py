"""The documentation's pages: their code, and the modules in `benchmarks/` that make their measured parts."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def code_blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def run_page(page: str, *, commands: bool) -> dict[str, object]:
    """What a page's Python named, run in order and in one namespace, with `commands` its `quasinat` ones in between."""
    from quasinat import cli

    names: dict[str, object] = {"__name__": "page"}
    for language, block in re.findall(r"^```(python|sh)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(block, "page.md", "exec"), names)
        elif commands:
            for words in command_lines(block):
                assert words[0] == "quasinat", words
                assert cli.run(words[1:]) == 0, words
    return names


def command_lines(block: str) -> list[list[str]]:
    """The words of each command in a block of shell, its comments left out and its continued lines joined."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def page_module(name: str, folder: str = "benchmarks") -> ModuleType:
    """`FOLDER/NAME.py`, imported once, with its neighbours in reach."""
    path = ROOT / folder / f"{name}.py"
    if (known := sys.modules.get(name)) is not None and known.__file__ == str(path):
        return known  # a second one's classes would be others, which no other process could send back
    sys.path.insert(0, str(ROOT / folder))
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # as data classes and other processes look it up there
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
