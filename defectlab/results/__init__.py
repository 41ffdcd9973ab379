"""Run folders and their evaluation, comparison and workbook, without importing models."""
