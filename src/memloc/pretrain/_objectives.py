"""The objective that a spec names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memloc.encoders import features_of
from memloc.pretrain._dino import DINO
from memloc.pretrain._mae import MAE
from memloc.pretrain._objective import Objective
from memloc.pretrain._simclr import SimCLR
from memloc.pretrain._simsiam import SimSiam
from memloc.pretrain._spec import TrainSpec
from memloc.pretrain._supervised import Supervised
from memloc.pretrain._vicreg import VICReg


def make_objective(spec: TrainSpec, module: nn.Module, example: Tensor, *, classes: int, seed: int) -> Objective:
    """The objective that a spec names, with seeded weights.

    Args:
        example: prepared images to find the width of the features with. classes: of the labels, for supervised
            training.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.objective == "mae":
            return _with_pairs(MAE(module), spec)
        was_training = module.training
        with torch.no_grad():
            features = features_of(module.eval()(example)).shape[1]
        module.train(was_training)
        if spec.objective == "simclr":
            return SimCLR(features, temperature=spec.temperature)
        if spec.objective == "dino":
            return DINO(module, features, local_crops=spec.local_crops)
        if spec.objective == "supervised":
            return _with_pairs(Supervised(features, classes), spec)
        return SimSiam(features) if spec.objective == "simsiam" else VICReg(features)


def _with_pairs(objective: Objective, spec: TrainSpec) -> Objective:
    """Two views of each point where their alignment is penalized."""
    if spec.alignment_penalty:
        objective.views = 2
    return objective
