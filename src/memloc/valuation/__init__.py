"""2D-OOB cell values and Data-OOB row values, and what to do with them."""

from memloc.valuation._estimator import TwoDOOB as TwoDOOB
