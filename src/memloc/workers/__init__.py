"""How shards are computed and encoders trained: in this process, or in processes of their own on this machine."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
