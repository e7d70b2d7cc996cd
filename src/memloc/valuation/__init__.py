"""2D-OOB cell values and Data-OOB row values, and what to do with them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
