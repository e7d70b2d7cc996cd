"""Mergeable states of batches of points: of(batch), merge(a, b), nothing else."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
