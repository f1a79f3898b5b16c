"""MkDocs hook: `<!-- names of ROOM -->` on a page becomes an entry for every name in the room's `__all__`.

The names are read from the room's `__init__.py`, which is not run. Each entry has the path of the file that defines
the name: below `quasinat.attacks`, `fgsm` is a file and the function in it, and the shorter path would mean the file.
"""

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

MARK = re.compile(r"^<!-- names of ([\w.]+) -->$", flags=re.MULTILINE)
ENTRY = "::: {path}\n    options: {{show_root_heading: true, show_root_toc_entry: true, show_root_full_path: false}}\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its entries."""
    source = Path(config.docs_dir).parent / "src"
    return MARK.sub(lambda mark: "\n".join(ENTRY.format(path=path) for path in paths(mark[1], source)), markdown)


def paths(room: str, source: Path) -> list[str]:
    """Where each public name of a room is defined, in the order of its `__all__`."""
    tree = ast.parse((source.joinpath(*room.split(".")) / "__init__.py").read_text(encoding="utf-8"))
    imported, public = {}, []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = ast.literal_eval(node.value)
    return [imported.get(name, f"{room}.{name}") for name in public]
