"""models_comparing.xlsx: every finished run side by side, rendered from the records, with what people added to it."""

from defectlab.results.comparison.best_table import best_table
from defectlab.results.workbook.workbook import WorkbookUpdate, imported_rows, read_workbook, update_workbook
from defectlab.results.workbook_row import ranking_key, row_of

__all__ = ["WorkbookUpdate", "best_table", "imported_rows", "ranking_key", "read_workbook", "row_of", "update_workbook"]
