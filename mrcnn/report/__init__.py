"""The report of a training run: one HTML page with everything in it, which a browser shows without a network."""

from mrcnn.report.page import write_report
from mrcnn.report.reading import ReportError, Run, read_run

__all__ = ["ReportError", "Run", "read_run", "write_report"]
