"""MkDocs hook: a figure in a table stays on one line with what it is given with: `70.7 ± 2.8`, `[80.0, 84.7]`."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

CELL = re.compile(r"<td.*?</td>", flags=re.DOTALL)
GAP = re.compile(r"(?<=\d) ± (?=\d)|(?<=\d,) (?=[−-]?[\d.]+[\])])")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page's HTML with the spaces inside of such figures made unbreakable."""
    return CELL.sub(lambda cell: GAP.sub(lambda gap: gap[0].replace(" ", "\u00a0"), cell[0]), html)
