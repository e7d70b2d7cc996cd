"""Act on what was found: replace layers, fine-tune some, prune units, insert a point into a unit, retrain without
points."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
