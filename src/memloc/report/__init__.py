"""Tables to a summary to one HTML file. Imports no torch."""

from memloc.report._coreset import render_coreset as render_coreset
from memloc.report._coreset import summarize_coreset as summarize_coreset
from memloc.report._coreset import write_coreset_report as write_coreset_report
from memloc.report._summary import summarize as summarize
from memloc.report._value import render_values as render_values
from memloc.report._value import summarize_values as summarize_values
from memloc.report._value import write_value_report as write_value_report
from memloc.report._write import render as render
from memloc.report._write import write_report as write_report
