"""Writes docs/reference/commands.md: every command with its arguments and options, out of the command line itself.

python tools/commands_page.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from quasinat.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands.md"
HEAD = """# Commands

Made by `python tools/commands_page.py` from the command line itself; `quasinat COMMAND --help` says the same. Data go
to stdout, progress to stderr; `--json` is for machines. The exit status is 0, 1 for a failure, 2 for bad usage, 130
when interrupted. `quasinat --version` prints the version.
"""


def commands(command: Any = None, name: str = "quasinat") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name: ("quasinat learn layer", the command)."""
    command = command or get_command(app)
    below = getattr(command, "commands", None)
    if not below:
        yield name, command
        return
    for part in sorted(below):
        yield from commands(below[part], f"{name} {part}")


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(name, command) for name, command in commands())


def _section(name: str, command: Any) -> str:
    shown = [item for item in command.params if item.name != "help" and not getattr(item, "hidden", False)]
    arguments = [item for item in shown if not item.opts[0].startswith("-")]
    usage = " ".join([name, *(_argument(item) for item in arguments), "[OPTIONS]"])
    rows = "".join(f"| {_called(item)} | {_cell(item.help or '')} | {_default(item)} |\n" for item in shown)
    table = f"\n| option or argument | what it is | default |\n| --- | --- | --- |\n{rows}" if rows else ""
    return f"\n## {name}\n\n```text\n{usage}\n```\n\n{_help(command.help or '')}{table}"


def _help(text: str) -> str:
    """The help's paragraphs; those with an example as code."""
    lines = [" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")]
    examples = [line for line in lines if "quasinat " in line]
    prose = "\n\n".join(line for line in lines if line and line not in examples)
    code = "\n".join(re.sub(r" \((.*)\)$", r"  # \1", line[line.index("quasinat ") :]) for line in examples)
    return f"{prose}\n" + (f"\n```sh\n{code}\n```\n" if code else "")


def _argument(item: Any) -> str:
    name = item.metavar or item.name.upper()
    return name if item.required else f"[{name}]"


def _called(item: Any) -> str:
    names = item.opts if item.opts[0].startswith("-") else [_argument(item)]
    return ", ".join(f"`{name}`" for name in [*names, *item.secondary_opts]) + (" (required)" if item.required else "")


def _default(item: Any) -> str:
    value = item.default
    return "" if value is None or value is False or value in ("", (), []) or callable(value) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
