"""memloc: which data points a vision encoder has memorized, in which layers and units, and what to do about it.

Every public name stands once, in `__init__.pyi`; each is imported when it is first used, so that `import memloc` and
the command line start without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
