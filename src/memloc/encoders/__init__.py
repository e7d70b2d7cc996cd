"""Encoders and layers: the built-in nets, any nn.Module, taps, and safe checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
