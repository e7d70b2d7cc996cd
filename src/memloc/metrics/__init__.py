"""Pure formulas, tensors in and out: alignment, SSLMem, LayerMem, UnitMem, ClassMem, separation and agreement."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
