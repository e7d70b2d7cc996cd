"""Where models that memloc 0.1 stored look for the encoder of their table."""

from memloc.data import TableEncoder as TableEncoder
