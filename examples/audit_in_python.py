"""Train a pair on a part of the embedded sample, audit it, and look at layers, points and units.

Usage: python examples/audit_in_python.py
"""

import memloc

images = memloc.open_images("sample:train").pixels[:120]
pair = memloc.train_pair(images, epochs=3, candidates=24)
found = memloc.audit(pair.f, pair.g, images=images, splits=pair.splits, views=memloc.Views("normal", n=8))

print(
    found.layers[["layer", "layermem", "layermem_calibrated", "calibrated_low", "calibrated_high"]]
    .round(4)
    .to_string(index=False)
)
print(found.points.query("split == 'candidate'").nlargest(5, "sslmem")[["name", "sslmem", "sslmem_low", "sslmem_high"]])
print(found.units.nlargest(5, "unitmem"))
