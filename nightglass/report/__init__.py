"""What people read: summary, errors by cause, exposure log."""

from nightglass.report.summary import StageReport, update_error_report, write_reports
from nightglass.report.tables import error_table, error_text, exposure_log

__all__ = ["StageReport", "error_table", "error_text", "exposure_log", "update_error_report", "write_reports"]
