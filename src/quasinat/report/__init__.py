"""Reports: pure functions of a run's result file and pictures. The page, the table, and what the table supports."""

from quasinat.report.claims import Comparison, claims
from quasinat.report.page import page, write_page
from quasinat.report.sentences import sentences
from quasinat.report.table import markdown_table, table_cells, terminal_table

__all__ = [
    "Comparison",
    "claims",
    "markdown_table",
    "page",
    "sentences",
    "table_cells",
    "terminal_table",
    "write_page",
]
