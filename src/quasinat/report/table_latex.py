"""A table's result file as LaTeX (with the packages booktabs and graphicx): what its Markdown says."""

from collections.abc import Iterator, Sequence

from quasinat.report.table_content import Block, Result, blocks_of, described, legend, name_of

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"${character}$" for character in "<>|"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "–": "--",
}
PREAMBLE = r"% Needs \usepackage{booktabs} and \usepackage{graphicx}."
WIDEST = 8  # columns beside the defence's name; a wider table is cut into several
LINE = 66  # characters that fit a page's width as they are; what is wider is scaled down


def table_latex(result: Result) -> str:
    """One `table` environment for each strength of the attacks, or several where there are many columns.

    Args:
        result: what `run_tables` wrote.
    """
    environments = [
        _environment(result, block, part, parts) for block in blocks_of(result) for part, parts in _parts(block)
    ]
    return "\n".join([PREAMBLE, *environments])


def escaped(text: str) -> str:
    """Text as LaTeX sets it."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _parts(block: Block) -> Iterator[tuple[int, int]]:
    """The numbers of the parts that a block is cut into, and how many there are."""
    parts = -(-len(block.headings) // WIDEST)
    return ((part, parts) for part in range(parts))


def _environment(result: Result, block: Block, part: int, parts: int) -> str:
    columns = slice(part * WIDEST, (part + 1) * WIDEST)
    headings = block.headings[columns]
    label, caption = f"{name_of(result)}-{block.key}", f"{result['title']}, {result['preset']}. {block.title}"
    if part:
        label, caption = f"{label}-{part + 1}", f"{caption}, part {part + 1} of {parts}."
    else:
        caption += f": {block.note}" if block.note else "."
        caption += f" {described(result)} {legend(result)}"
    rows = [_row(name, in_paper, cells[columns]) for name, in_paper, cells in block.rows]
    printed = [("defence", *headings), *((name, *cells[columns]) for name, _, cells in block.rows)]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(headings)}}}", r"\toprule"]
    lines += [_line(["defence", *headings]), r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    if _width(printed) > LINE:
        lines = [r"\resizebox{\linewidth}{!}{%", *lines[:-1], lines[-1] + "}"]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}", rf"\label{{{label}}}"]
    return "\n".join([*head, *lines, r"\end{table}", ""])


def _width(lines: Sequence[Sequence[str]]) -> int:
    """About how many characters wide the columns are beside each other."""
    return sum(2 + max(map(len, column)) for column in zip(*lines, strict=True)) - 2


def _row(name: str, in_paper: bool, cells: tuple[str, ...]) -> str:
    first = escaped(name) if in_paper else rf"\emph{{{escaped(name)}}}"
    return " & ".join([first, *map(escaped, cells)]) + r" \\"


def _line(cells: list[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"
