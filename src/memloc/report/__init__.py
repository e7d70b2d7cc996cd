"""Tables to a summary to one HTML file. Imports no torch."""

from memloc.report._summary import summarize as summarize
from memloc.report._write import render as render
from memloc.report._write import write_report as write_report
