"""The workbook models_comparing.xlsx: all finished runs, written from their records; users' additions are preserved."""

from defectlab.results.comparison.best_table import best_table
from defectlab.results.workbook.hand_kept_import import imported_rows
from defectlab.results.workbook.workbook import WorkbookUpdate, read_workbook, update_workbook
from defectlab.results.workbook_row import ranking_key, row_of

__all__ = ["WorkbookUpdate", "best_table", "imported_rows", "ranking_key", "read_workbook", "row_of", "update_workbook"]
