"""The examples in the docstrings give what they say, and the code on the pages of the documentation runs."""

import ast
import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import quasinat
from pages import DOCS, code_blocks, run_page

SOURCE = Path(quasinat.__file__).parent
# Whether the commands between the code run too; elsewhere they are of other images.
PAGES = {"index": False, "howto/own-data": True, "howto/own-classifier": False, "howto/evaluate-honestly": False}


def examples() -> Iterator[tuple[str, doctest.DocTest]]:
    """Every docstring with an example, read from the file: what decorators make of a function hides its docstring."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ">>>" not in text:
            continue
        module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ">>>" in (ast.get_docstring(node) or ""):
                name = f"{module}.{node.name}"
                written = ast.get_docstring(node) or ""
                yield name, doctest.DocTestParser().get_doctest(written, {}, name, str(path), node.lineno)


EXAMPLES = dict(examples())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_what_it_says(name: str) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(EXAMPLES[name], out=said.append)
    assert not said, "".join(said)


def test_the_main_functions_have_one() -> None:
    assert len(EXAMPLES) >= 25


@pytest.mark.filterwarnings("ignore:.*fall back to Unrolled")  # so small a layer is not solved as well as a real one
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert code_blocks(text, "python")
    with torch.random.fork_rng(devices=[]):
        run_page(text, commands=PAGES[page])
