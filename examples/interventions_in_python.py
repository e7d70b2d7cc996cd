"""Probe an encoder, silence the units of highest UnitMem, and probe again: python examples/interventions_in_python.py

Runs on the embedded sample in a quarter of a minute; on a real encoder the lines are the same.
"""

import torch

import memloc
from memloc.interventions import choose_units, prune_units
from memloc.probe import paired_difference, probe_encoder

images = memloc.open_images("sample:train")
trained, labelled, held_out = (images.take(torch.arange(start, start + 80)) for start in (0, 80, 160))

pair = memloc.train_pair(trained, epochs=3, candidates=16, batch_size=32)
found = memloc.audit(pair.f, pair.g, images=trained, splits=pair.splits, views=memloc.Views(n=4))

before = probe_encoder(pair.f, labelled, held_out)
print(f"linear probe before: {before.accuracy:.2f} (95 % interval {before.low:.2f} to {before.high:.2f})")
for order in ("top", "low", "random"):
    units = choose_units(pair.f, found.units, fraction=0.1, order=order)
    after = probe_encoder(prune_units(pair.f, units), labelled, held_out)
    change = paired_difference(after, before)
    print(
        f"without a tenth of the units, {order} UnitMem: {change['change']:+.2f} ({change['low']:+.2f} to {change['high']:+.2f})"
    )
