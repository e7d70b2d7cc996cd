"""An encoder with a linear layer on top: what is trained on labelled images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from memloc.coreset._estimator import TableClassifier, load_table_classifier
from memloc.encoders import RANDOM, Encoder, features_of, load_encoder, load_weights, read_weights
from memloc.errors import ResultsError
from memloc.results import read_record
from memloc.runs import check_trust


class Classifier(nn.Module):
    """Logits from images in [0, 1], shape (point, channel, height, width).

    Args:
        encoder: its module becomes part of this one. classes: how many. shape: (channel, height, width) of the images.

    >>> from memloc.encoders import load_encoder
    >>> Classifier(load_encoder("resnet9", weights="random"), 3, (3, 16, 16))(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 3])
    """

    def __init__(self, encoder: Encoder, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder, self._prepare = encoder.module, encoder.prepare
        training = self.encoder.training
        with torch.no_grad():
            width = features_of(self.encoder.eval()(encoder.prepare(torch.zeros(1, *shape)))).shape[1]
        self.encoder.train(training)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (point, class)."""
        features = features_of(self.encoder(self._prepare(images))).float()
        # Wide features would need a lower learning rate: their gradient grows with their squared length.
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features * self.head.in_features**-0.5)
        return logits


def load_classifier(folder: str | Path, *, trust: bool = False) -> Classifier | TableClassifier:
    """The trained model of a folder that `memloc coreset` filled: of images a module in eval mode, of a table one with
    `predict`.

    Args:
        trust: whether a function that the folder names as its encoder may be run, and a model that memloc 0.1 pickled
            be opened.
    Raises:
        DataNotFoundError: no coreset there. ResultsError: one of representations, which has no model, or a damaged one.
            TrustError: opening it would run code that the folder brings.
    """
    folder = Path(folder)
    record = read_record(folder, "coreset.json", "coreset", f"memloc coreset DATA --out {folder}")
    if "saved" not in record:
        raise ResultsError(
            f"{str(folder)!r} holds no trained model. Expected a coreset by gradient. Make one with memloc coreset DATA"
            f" --out {folder}."
        )
    if "shape" not in record:
        return load_table_classifier(folder, trust=trust)
    check_trust(folder, str(record["encoder"]), trust=trust)
    channels, height, width = record["shape"]
    shape = (channels, height, width)
    model = Classifier(load_encoder(record["encoder"], weights=RANDOM, shape=shape), record["classes"], shape)
    load_weights(model, read_weights(folder / "model.safetensors")[0], name="model.safetensors")
    return model.eval()
