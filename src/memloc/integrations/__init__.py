"""What joins memloc to other tools: a callback of Lightning, exports that others open, and the demo."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
