"""Augmented views: policies as data, counter-based and Sobol draws, batched application on the device."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
