"""The pages' templates and their style, which lie beside this file."""

from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def environment() -> Any:
    """Jinja's environment for the templates: what is put in is escaped, and a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def style() -> Any:
    """The style sheet, as markup."""
    from markupsafe import Markup

    return Markup((_HERE / "page.css").read_text(encoding="utf-8"))
