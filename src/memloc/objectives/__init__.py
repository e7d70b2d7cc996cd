"""Objectives: what a training minimizes, the head it does so behind, what it needs, and how it is usually trained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
