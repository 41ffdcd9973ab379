"""models_comparing.xlsx: every finished run side by side, rendered from the records, with what people added to it."""

from defectlab.results.comparison.best_table import best_table
from defectlab.results.rows import group_of, row_of
from defectlab.results.workbook.workbook import Outcome, imported_rows, read_workbook, update_workbook

__all__ = ["Outcome", "best_table", "group_of", "imported_rows", "read_workbook", "row_of", "update_workbook"]
