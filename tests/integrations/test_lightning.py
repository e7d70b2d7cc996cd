"""The Lightning callback: splits are kept, audits every few epochs, a series, a report, and messages."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from memloc import Audit, Views
from memloc.errors import DataError, ResultsError, SpecError

pytest.importorskip("lightning")


def images(count=40):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def module_of(tiny):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone = tiny(0)
            self.head = nn.Linear(5, 2)

        def training_step(self, batch, _number):
            pixels, rows = batch
            self.seen = [*getattr(self, "seen", []), *rows.tolist()]
            return nn.functional.cross_entropy(self.head(self.backbone(pixels)), rows % 2)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05)

    return Module()


def fit(callback, module, epochs):
    import lightning
    from torch.utils.data import DataLoader, Subset, TensorDataset

    pixels = torch.from_numpy(images()).permute(0, 3, 1, 2).float() / 255
    loader = DataLoader(Subset(TensorDataset(pixels, torch.arange(40)), callback.training_rows), batch_size=8)
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)


def test_a_series_of_audits(tiny, tmp_path):
    from memloc.integrations import AuditCallback

    callback = AuditCallback(
        images(), out=tmp_path / "found", encoder="backbone", every=2, held_out=0.25, views=Views(n=4)
    )
    module = module_of(tiny)
    fit(callback, module, 5)
    assert len(callback.training_rows) == 30
    external = {row for row, split in enumerate(callback.splits) if split == "external"}
    assert not external & set(module.seen)  # no external point was trained on
    series = pd.read_parquet(tmp_path / "found/series.parquet")
    assert sorted(series["epoch"].unique()) == [2, 4, 5]
    assert {"unitmem_mean", "alignment_gap", "layer"} <= set(series)
    assert module.backbone.training  # the audit left the module as it was
    found = Audit.load(tmp_path / "found")
    last = series[series["epoch"] == 5].set_index("layer")["alignment_gap"]
    assert np.allclose(last, found.layers.set_index("layer")["alignment_gap"])
    page = (tmp_path / "found/report.html").read_text()
    assert "By epoch" in page
    assert "output · epoch 4:" in page
    again = AuditCallback(
        images(), out=tmp_path / "found", encoder="backbone", every=2, held_out=0.25, views=Views(n=4)
    )
    fit(again, module_of(tiny), 2)  # begun again: later epochs are another training's
    assert sorted(pd.read_parquet(tmp_path / "found/series.parquet")["epoch"].unique()) == [2]
    with pytest.raises(ResultsError, match="holds the work of other settings"):
        fit(
            AuditCallback(images(), out=tmp_path / "found", encoder="backbone", every=1, views=Views(n=4)),
            module_of(tiny),
            1,
        )


def test_the_callbacks_audit_is_the_functions(tiny, tmp_path):
    from memloc import audit
    from memloc.integrations import AuditCallback

    reference = tiny(1)
    callback = AuditCallback(
        images(), out=tmp_path / "found", encoder=lambda m: m.backbone, every=1, g=reference, views=Views(n=4)
    )
    module = module_of(tiny)
    fit(callback, module, 1)
    direct = audit(module.backbone, reference, images=images(), splits=callback.splits, views=Views(n=4))
    pd.testing.assert_frame_equal(direct.layers, Audit.load(tmp_path / "found").layers)


def test_messages(tiny, tmp_path):
    from memloc.integrations import AuditCallback

    with pytest.raises(SpecError, match="every is 0"):
        AuditCallback(images(), out=tmp_path, every=0)
    with pytest.raises(SpecError, match="held_out is 1.5"):
        AuditCallback(images(), out=tmp_path, held_out=1.5)
    with pytest.raises(DataError, match="the splits are candidate"):
        AuditCallback(images(), out=tmp_path, splits=["candidate"] * 40)
    with pytest.raises(SpecError, match="no module 'backbon'. Nearest: 'backbone'"):
        fit(AuditCallback(images(), out=tmp_path / "x", encoder="backbon"), module_of(tiny), 1)
