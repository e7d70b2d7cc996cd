"""What other tools read: exports."""

from memloc.integrations._exports import issues_table as issues_table
from memloc.integrations._exports import write_any as write_any
