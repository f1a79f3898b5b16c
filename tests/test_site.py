"""The site: it builds without a broken link, its commands exist, and the wheel carries the type information."""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pages import DOCS, ROOT, code_blocks, command_lines, page_module

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """`tools/commands_page.py`."""
    return page_module("commands_page", "tools")


def test_the_commands_page_is_the_command_line(tool: ModuleType) -> None:
    assert (DOCS / "reference" / "commands.md").read_text(encoding="utf-8") == tool.page(), "run tools/commands_page.py"


def complaints(words: list[str], known: dict[str, Any]) -> list[str]:
    """What is wrong with a command line: no such command, or an option that it does not have."""
    words = words[words.index("quasinat") :]
    name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known), None)
    if name is None:
        return [f"there is no {' '.join(words[:3])}"]
    options = {option for item in known[name].params for option in (*item.opts, *item.secondary_opts)} | {"--help"}
    return [
        f"{name} has no {word}" for word in words if re.match("--[a-z]", word) and word.split("=")[0] not in options
    ]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_command_of_a_page_exists(page: Path, tool: ModuleType) -> None:
    known = dict(tool.commands())
    for block in code_blocks(page.read_text(encoding="utf-8"), "sh"):
        for words in command_lines(block):
            if "quasinat" in words[:6] and words[:2] != ["pip", "install"]:
                assert not complaints(words, known), shlex.join(words)


def test_a_command_that_does_not_exist_is_found(tool: ModuleType) -> None:
    known = dict(tool.commands())
    assert complaints(shlex.split("quasinat learn layers --out a"), known) == ["there is no quasinat learn layers"]
    assert complaints(shlex.split("quasinat project a b --lair c"), known) == ["quasinat project has no --lair"]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site: pip install 'quasinat[docs]'")
    pytest.importorskip("mkdocstrings", reason="the site: pip install 'quasinat[docs]'")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    pages = {str(path.relative_to(site)): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert {"index.html", "tutorial.html", "concepts.html", "howto/own-data.html", "results.html"} <= pages.keys()
    for source in (DOCS / "reference").glob("*.md"):
        for room in re.findall(r"<!-- names of (\S+) -->", source.read_text(encoding="utf-8")):
            for name in importlib.import_module(room).__all__:
                assert re.search(rf'id="{room}\.(\w+\.)?{name}"', pages[f"reference/{source.stem}.html"]), name
    for name, page in pages.items():  # nothing is fetched from elsewhere
        assert not re.findall(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//', page), name
        assert not re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//', page), name


def test_type_information_is_shipped() -> None:
    assert (ROOT / "src" / "quasinat" / "py.typed").is_file()
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["quasinat"]
    assert "py.typed" in shipped
