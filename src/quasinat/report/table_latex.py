"""A table's result file as LaTeX (with the package booktabs): what its Markdown says."""

from quasinat.report.table_content import Block, Result, blocks_of, described, legend

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "–": "--",
}


def table_latex(result: Result) -> str:
    """One `table` environment for each strength of the attacks.

    Args:
        result: what `run_tables` wrote.
    """
    return "\n".join(_environment(result, block) for block in blocks_of(result))


def escaped(text: str) -> str:
    """Text as LaTeX sets it."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _environment(result: Result, block: Block) -> str:
    caption = f"{result['title']}, {result['preset']}. {block.title}{': ' if block.note else '. '}{block.note} "
    caption += f"{described(result)} {legend(result)}"
    lines = [r"\begin{table}", rf"\caption{{{escaped(caption)}}}", rf"\label{{{result['table']}-{block.key}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(block.headings)}}}", r"\toprule"]
    lines += [_line(["defence", *block.headings]), r"\midrule"]
    for name, in_paper, cells in block.rows:
        first = escaped(name) if in_paper else rf"\emph{{{escaped(name)}}}"
        lines.append(" & ".join([first, *map(escaped, cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _line(cells: list[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"
