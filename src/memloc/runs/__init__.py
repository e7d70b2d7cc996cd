"""Training runs on disk: the encoders, who was trained on what, and the images; trains nothing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
