"""A table's result file as Markdown: ours with its interval, what the paper prints, and how far the two are apart."""

from collections.abc import Iterable

from quasinat.report.table_content import (
    Block,
    Result,
    blocks_of,
    calibration_of,
    described,
    legend,
    strengths_of,
    why_empty,
)


def table_markdown(result: Result) -> str:
    """The table at the stated budgets and strength-matched, with the sizes of the run and how strong the attacks were.

    Args:
        result: what `run_tables` wrote.
    """
    stated, *matched = blocks_of(result)
    lines = [f"## {result['title']}, preset {result['preset']}", "", described(result), "", *_lines(stated)]
    lines += ["", legend(result)]
    for block in matched:
        lines += ["", f"**{block.title}**: {block.note}", "", *_lines(block)]
    reasons = why_empty(result)
    if reasons:
        lines += ["", *(f"- {reason}" for reason in reasons)]
    errors = calibration_of(result)
    if errors:
        lines += ["", *_table(("defence", "expected calibration error on clean images, per cent"), errors)]
    strengths = strengths_of(result)
    if strengths:
        headings = ("attack", "mean L2-dissimilarity", "mean L∞", "mean PSNR, dB")
        lines += ["", *_table(headings, strengths)]
    return "\n".join(lines) + "\n"


def _lines(block: Block) -> list[str]:
    rows = [(label if in_paper else f"*{label}*", *cells) for label, in_paper, cells in block.rows]
    return _table(("defence", *block.headings), rows)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(headings)
    return [_line(titles), "|" + "---|" * len(titles), *(_line(row) for row in rows)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
