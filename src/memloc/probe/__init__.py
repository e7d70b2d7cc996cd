"""Linear, k-nearest-neighbour and dense probes of a frozen encoder, and Déjà Vu, a baseline score of memorization."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
