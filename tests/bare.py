"""A job without encoders or images: what is computed from readings alone, for simulations."""

from types import SimpleNamespace

import numpy as np
import torch

from memloc.engine import Options
from memloc.engine._job import Job
from memloc.engine._scores import Scores

KINDS = ("convolution", "residual", "output", "head", "loss")


def bare_job(membership, split, mode, *, kinds=KINDS, held_out=True, **options):
    """A Job of that membership; its images are a mere count."""
    split = np.asarray(split, dtype=object)
    job = object.__new__(Job)
    layers = tuple(SimpleNamespace(name=f"{kind}", kind=kind) for kind in kinds)
    job.__dict__.update(
        images=range(len(split)), split=split, membership=torch.as_tensor(membership), mode=mode, f_count=1, paired=False,
        options=Options(**options), layers=layers, output=list(kinds).index("output"),
        held_out=torch.from_numpy(split == "external") & held_out, chosen=torch.zeros(len(split), dtype=torch.bool), earlier=False,
    )  # fmt: skip
    return job


def bare_scores(job, align):
    """What naming takes of scores, from alignments (point, layer, encoder)."""
    scores = object.__new__(Scores)
    scores.align = torch.as_tensor(align)
    scores.regressed = torch.zeros(scores.align.shape[:2])
    return scores


def simulated(mode, *, candidates=60, unseen=150, memorized=20, effect=2.5, seed=0, encoders=4, **options):
    """A job and scores in which the first `memorized` candidates are read as closer by `effect` behind the encoder."""
    random = np.random.default_rng(seed)
    split = ["candidate"] * candidates + ["external"] * unseen
    count = {"alone": 1, "pair": 2, "ensemble": encoders}[mode]
    seen = np.zeros((count, candidates + unseen), dtype=bool)
    for point in range(candidates):
        seen[random.permutation(count)[: count // 2] if mode == "ensemble" else 0, point] = True
    noise = (
        random.normal(size=(len(split), len(KINDS), 1)) * 0.5
        + random.normal(size=(len(split), len(KINDS), count)) * 0.5
    )
    remembered = np.zeros((len(split), len(KINDS), count))
    remembered[:memorized, KINDS.index("head") :] = effect * seen.T[:memorized, None]
    job = bare_job(seen, split, mode, seed=seed, **options)
    return job, bare_scores(job, np.exp(noise - remembered))
