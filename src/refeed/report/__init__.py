"""From a results folder to tables, figures and one self-contained page. Needs neither the models nor torch."""

from refeed.report.page import write
from refeed.report.results import Results
from refeed.report.table import summary_rows

__all__ = ["Results", "summary_rows", "write"]
