"""Label noise, the sampler, robust training of modules and estimators, and agreement with other scores."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from memloc.coreset import (
    Classifier,
    Coreset,
    Crust,
    CrustSampler,
    agreement,
    asymmetric_noise,
    representation_run,
    scores_of,
    symmetric_noise,
    train_robust,
)
from memloc.coreset._spec import RobustSpec
from memloc.coreset._train import _Partners
from memloc.data import as_images
from memloc.encoders import load_encoder
from memloc.errors import DataError, MemlocWarning, ResultsError, ShapeError, SpecError, TrainingError

CENTRAL = Crust(objective="centrality", group_by="prediction")


def blobs(n=600, classes=3, seed=0):
    """Well separated classes, and labels of which 30 % are wrong."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = (np.eye(classes)[y] * 4 + rng.normal(size=(n, classes))).astype(np.float32)
    return x, y, symmetric_noise(y, 0.3, seed=seed)


def net(seed=0, width=64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 3))


def test_symmetric_noise_is_exact_even_and_seeded():
    y = np.repeat(np.arange(5), 200)
    noisy = symmetric_noise(y, 0.3, seed=1)
    assert [(noisy[y == label] != label).sum() for label in range(5)] == [60] * 5
    flips = np.array([[((y == a) & (noisy == b)).sum() for b in range(5)] for a in range(5)])
    assert (flips[~np.eye(5, dtype=bool)] > 5).all()  # 15 of each on average
    assert (symmetric_noise(y, 0.3, seed=1) == noisy).all()
    assert (symmetric_noise(y, 0.3, seed=2) != noisy).any()
    assert (symmetric_noise(y, 0.0) == y).all()
    assert (symmetric_noise(y, 1.0) != y).all()


def test_asymmetric_noise_flips_pairs_alone():
    y = np.repeat(np.arange(10), 50)
    noisy = asymmetric_noise(y, 0.4)
    for label, other in {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}.items():
        assert ((y == label) & (noisy == other)).sum() == 20
    assert (noisy == y).sum() == 500 - 5 * 20
    own = asymmetric_noise(np.array([0, 0, 1, 1]), 0.5, pairs={0: 1})
    assert own.tolist().count(1) == 3


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (SpecError, r"noise rate is 1\.2", lambda: symmetric_noise(np.arange(4), 1.2)),
        (DataError, "labels are float64", lambda: symmetric_noise(np.arange(4.0), 0.2)),
        (DataError, r"shape \(0,\)", lambda: symmetric_noise(np.arange(0), 0.2)),
        (SpecError, "there are 1 classes", lambda: symmetric_noise(np.zeros(4, int), 0.2)),
        (
            SpecError,
            "the pairs name class -1 and the classes go from 0 to 3",
            lambda: asymmetric_noise(np.arange(4), 0.2, pairs={0: -1}),
        ),
        (SpecError, "the pairs name class 9", lambda: asymmetric_noise(np.arange(4), 0.2)),
    ],
)
def test_wrong_noise(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_the_sampler_yields_the_datasets_own_indices():
    found = Crust(0.5, group_by=None).select(np.random.default_rng(0).normal(size=(20, 2)))
    sampler = CrustSampler(found, seed=3)
    first = list(sampler)
    assert sorted(first) == sorted(found.indices.tolist())
    assert list(sampler) == first  # of the same epoch
    sampler.set_epoch(1)
    assert list(sampler) != first
    weights = dict(zip(found.indices.tolist(), found.weights.tolist(), strict=True))
    assert sampler.weights_of(first).tolist() == [weights[index] for index in first]
    sampler.update([4, 2], [1.0, 3.0])
    assert sorted(sampler) == [2, 4]
    assert sampler.weights_of([2]).tolist() == [3.0]
    assert list(CrustSampler([4, 2, 9], shuffle=False)) == [4, 2, 9]
    x = torch.arange(20.0)
    loader = torch.utils.data.DataLoader(x, batch_size=2, sampler=CrustSampler([7, 3]))
    assert sorted(torch.cat(list(loader)).tolist()) == [3.0, 7.0]
    with pytest.raises(ShapeError, match="1 of them different"):
        CrustSampler([4, 4])
    assert sampler.weights_of([2, 3, 99]).tolist() == [3.0, 0.0, 0.0]
    with pytest.raises(ShapeError, match="point -1 is asked for"):
        sampler.weights_of([-1])


def test_wrong_labels_are_dropped_and_not_memorized():
    x, y, noisy = blobs()
    x = np.hstack([x, np.random.default_rng(1).normal(size=(600, 200)).astype(np.float32)])  # something to memorize by

    def wide():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(203, 256), nn.ReLU(), nn.Linear(256, 3))

    plain = train_robust(wide(), (x, noisy), crust=None, true_labels=y, epochs=40, mixup="none", weight_decay=0.0)
    robust = train_robust(wide(), (x, noisy), crust=CENTRAL, true_labels=y, epochs=40, weight_decay=0.0, warmup=2)
    assert plain.coreset is None
    last = robust.history.iloc[-1]
    assert last["clean_fraction"] > 0.95 > 0.7 == pytest.approx(plain.history["clean_fraction"].iloc[-1])
    assert last["noisy_memorized"] < 0.15 < 0.3 < plain.history["noisy_memorized"].iloc[-1]
    assert last["accuracy_kept"] > last["accuracy_dropped"]
    wrong = noisy != y
    suspected = robust.points["suspected"].to_numpy() == 1
    assert wrong[suspected].mean() > 0.9
    assert suspected[wrong].mean() > 0.85
    assert (robust.points["kept"].sum(), len(robust.points)) == (len(robust.coreset), 600)
    assert robust.points["n_kept"].max() == 38  # epochs after the warm-up
    assert not (suspected & (robust.points["kept"] == 1)).any()


def test_truth_is_reported_and_never_trained_on():
    x, y, noisy = blobs()
    with_truth = train_robust(net(), (x, noisy), crust=CENTRAL, true_labels=y, epochs=8)
    without = train_robust(net(), (x, noisy), crust=CENTRAL, epochs=8)
    assert all(
        torch.equal(a, b) for a, b in zip(with_truth.model.parameters(), without.model.parameters(), strict=True)
    )
    assert "true_label" not in without.points
    assert "clean_fraction" not in without.history


@pytest.mark.parametrize("mixup", ["label", "cluster", "none"])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, mixup):
    x, _, noisy = blobs()
    settings = {"epochs": 9, "warmup": 3, "every": 2, "mixup": mixup, "crust": CENTRAL, "seed": 4}
    whole = train_robust(net(), (x, noisy), **settings)

    class StopError(Exception):
        pass

    def stop(_text, done, _all):
        if done == 6:
            raise StopError

    with pytest.raises(StopError):
        train_robust(net(), (x, noisy), out=tmp_path / "run", progress=stop, **settings)
    resumed = train_robust(net(seed=99), (x, noisy), out=tmp_path / "run", **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))
    pd.testing.assert_frame_equal(whole.history, resumed.history)
    pd.testing.assert_frame_equal(whole.points, resumed.points)
    assert whole.coreset.indices.tolist() == resumed.coreset.indices.tolist()
    selections = whole.history["selected"].tolist()
    assert selections[:3] == [600] * 3
    assert whole.points["n_kept"].max() == 3  # in epochs 4, 6 and 8
    again = train_robust(
        net(seed=98), (x, noisy), out=tmp_path / "run", device="cpu", **settings
    )  # finished: nothing is trained
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))
    with pytest.raises(ResultsError, match=r"crust.fraction: 0.5 there, 0.3 now"):
        train_robust(
            net(),
            (x, noisy),
            out=tmp_path / "run",
            **{**settings, "crust": Crust(0.3, objective="centrality", group_by="prediction")},
        )
    with pytest.raises(ResultsError, match="data: "):
        train_robust(net(), (x, (noisy + 1) % 3), out=tmp_path / "run", **settings)
    assert all(300 <= count <= 303 for count in selections[3:])


def test_partners_are_of_the_label_or_the_cluster():
    labels = torch.arange(40) % 4
    coreset = Crust(0.25).select(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), labels)
    rows = coreset.indices
    of_label, share = _Partners(coreset, labels, rows, RobustSpec(), 0).of(rows)
    assert (labels[of_label] == labels[rows]).all()
    assert set(of_label.tolist()) <= set(rows.tolist())
    assert (share >= 0).all()
    assert (share <= 1).all()
    of_cluster, _ = _Partners(coreset, labels, rows, RobustSpec(mixup="cluster"), 0).of(rows)
    assert (coreset.assignment[of_cluster] == rows).all()
    assert _Partners(coreset, labels, rows, RobustSpec(mixup="none"), 0).of(rows)[1] is None
    assert _Partners(None, labels, torch.arange(40), RobustSpec(mixup="cluster"), 0).of(rows)[1] is None


def test_weights_and_mixup_enter_the_loss_as_the_formula_says():
    """One step from zero weights: the gradient is that of Σ w (λ ce(x_mix, y) + (1 - λ) ce(x_mix, y')) / n."""
    torch.manual_seed(0)
    x, labels = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    picks = torch.tensor([0, 1, 2, 3])
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    chosen = Coreset(picks, weights, weights, labels[picks], torch.tensor([0, 1, 2, 3, 0, 1]), 0.0, 0.0, 0)
    settings = {"epochs": 2, "warmup": 1, "batch_size": 4, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "seed": 5, "mixup": "cluster"}  # fmt: skip

    def after(epochs):
        model = nn.Linear(2, 2, bias=False)
        nn.init.zeros_(model.weight)
        train_robust(
            model, (x, labels), crust=None if epochs == 1 else lambda *_: chosen, **{**settings, "epochs": epochs}
        )
        return model.weight.detach().clone()

    before, found = after(1), after(2)
    sampler = CrustSampler(picks, weights, seed=5)
    sampler.set_epoch(1)
    order = torch.tensor(list(sampler))
    partners, share = _Partners(chosen, labels, picks, RobustSpec(**settings), 1).of(order)
    mixed = share[:, None] * x[order] + (1 - share[:, None]) * x[partners]
    weight = before.clone().requires_grad_()
    chance = (mixed @ weight.T).log_softmax(dim=1)
    loss = share * -chance[range(4), labels[order]] + (1 - share) * -chance[range(4), labels[partners]]
    scaled = sampler.weights_of(order).float() / 1.5  # their mean
    ((scaled * loss).sum() / 4).backward()
    assert torch.allclose(found, before - 0.05 * weight.grad, atol=1e-7)


def test_datasets_of_three_kinds_train_alike(monkeypatch):
    rng = np.random.default_rng(0)
    pixels, y = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), np.arange(60) % 3
    images = as_images(pixels, labels=torch.from_numpy(y))

    class Items(torch.utils.data.Dataset):
        targets = y.tolist()

        def __len__(self):
            return 60

        def __getitem__(self, index):
            return images.pixels[index].numpy(), int(y[index])

    def trained(dataset):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        return train_robust(model, dataset, epochs=4, warmup=2, crust=CENTRAL).model[1].weight

    first = trained(images)
    assert torch.equal(first, trained((images.pixels, y)))
    assert torch.equal(first, trained(Items()))


def test_augmentation_is_of_training_and_not_of_selection():
    pixels = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[::2] //= 4  # the first class is dark, as the model knows from the start
    images = as_images(pixels, labels=1 - torch.arange(40) % 2)
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(768, 2)
            nn.init.zeros_(self.layer.weight[1]), nn.init.constant_(self.layer.weight[0], 0.01)
            nn.init.zeros_(self.layer.bias[1]), nn.init.constant_(self.layer.bias[0], -0.01 * 768 / 2)

        def forward(self, x):
            seen.append((self.training, x.detach().clone()))
            return self.layer(x.flatten(1))

    train_robust(Watched(), images, crust=CENTRAL, epochs=2, warmup=1, augmentation="crop", mixup="none")
    plain = pixels.float() / 255
    scored = [x for training, x in seen if not training and len(x) == 40]
    assert len(scored) == 2
    assert all(torch.equal(x, plain) for x in scored)
    trained = [x for training, x in seen if training]
    assert not any(any(torch.equal(one, other) for other in plain) for x in trained for one in x)


def test_a_coreset_by_a_model_that_learned_nothing_is_refused():
    x, _, noisy = blobs()

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))

        def forward(self, x):
            return self.logits.expand(len(x), 3)

    with (
        pytest.warns(MemlocWarning, match="the first selection waits"),
        pytest.raises(DataError, match="the commonest class alone"),
    ):
        train_robust(Constant(), (x, noisy), epochs=3, warmup=1)
    train_robust(Constant(), (x, noisy), crust=None, epochs=2)  # without a coreset nothing rests on it


def test_the_first_selection_waits_until_something_is_learned():
    x, _, noisy = blobs()

    class Late(nn.Module):
        """Predicts one class in its first three epochs."""

        def __init__(self):
            super().__init__()
            self.net, self.passes = net(), 0

        def forward(self, x):
            self.passes += self.training
            late = self.net(x)
            return late if self.passes > 3 * 5 else late * 0 + torch.tensor([1.0, 0.0, 0.0])

    run = train_robust(Late(), (x, noisy), epochs=8, warmup=1, batch_size=128)
    selected = run.history["selected"].tolist()
    first = next(place for place, count in enumerate(selected) if count < len(x))
    assert first > 1
    assert selected[:first] == [len(x)] * first


def test_a_classifier_of_an_encoder_learns():
    stripes = np.zeros((2, 16, 16, 3))
    stripes[0, ::4], stripes[1, :, ::4] = 120, 120
    noise = np.random.default_rng(0).integers(0, 120, (60, 16, 16, 3))
    images = as_images((stripes[np.arange(60) % 2] + noise).astype(np.uint8), labels=torch.arange(60) % 2)
    torch.manual_seed(0)
    model = Classifier(load_encoder("resnet9", weights="random"), 2, (3, 16, 16))
    run = train_robust(model, images, epochs=12, warmup=10, batch_size=20, crust=CENTRAL, precision="auto")
    assert run.history["accuracy"].iloc[-1] == 1.0


@pytest.mark.parametrize("estimator", [LogisticRegression(), RandomForestClassifier(50), KNeighborsClassifier(5), GaussianNB()], ids=lambda one: type(one).__name__)  # fmt: skip
def test_estimators_are_fitted_on_what_is_trusted(estimator):
    x, y, noisy = blobs()
    before = estimator.get_params()
    run = train_robust(estimator, (x, noisy), crust=CENTRAL, true_labels=y, test=(x, y))
    assert estimator.get_params() == before
    assert not hasattr(estimator, "classes_")
    assert run.history["clean_fraction"].iloc[-1] > 0.9
    assert len(run.history) == 4
    assert run.model.score(x, y) > 0.9
    wrong = noisy != y
    assert wrong[run.points["suspected"].to_numpy() == 1].mean() > 0.8
    framed = train_robust(estimator, (pd.DataFrame(x), noisy), crust=CENTRAL, true_labels=y)
    assert framed.coreset.indices.tolist() == run.coreset.indices.tolist()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (SpecError, "there is no setting 'epoch'. Nearest: 'epochs'", lambda x, y: train_robust(net(), (x, y), epoch=3)),
        (SpecError, "epochs is 0", lambda x, y: train_robust(net(), (x, y), epochs=0)),
        (SpecError, "learning_rate is 0", lambda x, y: train_robust(net(), (x, y), learning_rate=0)),
        (SpecError, "there is no mixup 'lable'. Nearest: 'label'", lambda x, y: train_robust(net(), (x, y), mixup="lable")),
        (SpecError, "there is no schedule", lambda x, y: train_robust(net(), (x, y), schedule="steps")),
        (SpecError, "mixup_alpha is", lambda x, y: train_robust(net(), (x, y), mixup_alpha=(1.0, 0.0))),
        (SpecError, "the model is str", lambda x, y: train_robust("resnet9", (x, y))),
        (SpecError, r"returns \(2, 2\) for 2 points, and there are 3 classes", lambda x, y: train_robust(nn.Linear(3, 2), (x, y))),
        (SpecError, "augmentation is 'crop' and the dataset", lambda x, y: train_robust(net(), (x, y), augmentation="crop")),
        (ShapeError, "600 points and labels of shape", lambda x, y: train_robust(net(), (x, y), labels=y[:5])),
        (DataError, "all 600 labels are 0", lambda x, y: train_robust(net(), (x, y * 0))),
        (DataError, "class 1 of 0 to 2 has no points", lambda x, y: train_robust(net(), (x, np.where(y == 1, 0, y)))),
        (DataError, "labels are float64", lambda x, y: train_robust(net(), (x, y * 1.0))),
        (DataError, "the dataset is int", lambda x, y: train_robust(net(), 3)),
        (SpecError, "crust is no Crust", lambda x, y: train_robust(GaussianNB(), (x, y), crust=None)),
        (DataError, "the dataset is no pair", lambda x, y: train_robust(GaussianNB(), x)),
        (SpecError, r"class \d has [1-4] points? and there are 5 folds", lambda x, y: train_robust(GaussianNB(), (x[:8], y[:8]))),
        (TrainingError, "the loss is (nan|inf)", lambda x, y: train_robust(net(), (x * 1e4, y), learning_rate=1e6, epochs=3, warmup=2)),
        (SpecError, "warmup is 5 of 5 epochs", lambda x, y: train_robust(net(), (x, y), epochs=5)),
        (SpecError, "the model is an estimator, whose fits are not resumed", lambda x, y: train_robust(GaussianNB(), (x, y), out="somewhere")),
        (DataError, "the test data is no pair", lambda x, y: train_robust(GaussianNB(), (x, y), test=x)),
        (DataError, "labels are <U1.*return_inverse", lambda x, y: train_robust(net(), (x, np.array(list("abc"))[y]))),
        (ShapeError, "there are 0 points", lambda x, y: train_robust(net(), (x[:0], y[:0]))),
        (DataError, "returned points from 0 to 600 in epoch 6", lambda x, y: train_robust(net(), (x, y), crust=lambda *_: [0, 600])),
        (DataError, "the selector returned points none in epoch 6", lambda x, y: train_robust(net(), (x, y), crust=lambda *_: [])),
    ],
)  # fmt: skip
def test_wrong_calls(error, message, call):
    x, _, noisy = blobs()
    with pytest.raises(error, match=message):
        call(x, noisy)


def test_another_training_in_the_folder_is_refused(tmp_path):
    x, _, noisy = blobs()
    train_robust(net(), (x, noisy), epochs=2, warmup=1, out=tmp_path / "run")
    with pytest.raises(ResultsError, match="epochs: 2 there, 3 now"):
        train_robust(net(), (x, noisy), epochs=3, warmup=1, out=tmp_path / "run")


def test_agreement_is_the_auroc_by_name():
    labels = pd.DataFrame(
        {"name": list("abcdef"), "label": [0, 0, 1, 1, 0, 1], "kept": [1, 1, 1, 0, 0, 0], "p_label": [0.9, 0.8, 0.7, 0.3, 0.2, 0.1], "true_label": [0, 0, 1, 0, 1, 1]}
    )  # fmt: skip
    scores = pd.DataFrame({"s": [3.0, 1.0, 2.0, 2.0, 9.0]}, index=list("fdeba"))  # c has none
    found = agreement(labels, scores)[0]
    # dropped d 1, e 2, f 3 against kept a 9, b 2: above in (f, b), equal in (e, b).
    assert found["points"] == 5
    assert found["dropped"] == pytest.approx(1.5 / 6)
    # wrong d 1, e 2 against right a 9, b 2, f 3.
    assert found["wrong"] == pytest.approx(0.5 / 6)
    with pytest.raises(DataError, match="0 of 6 points are in both"):
        agreement(labels, scores.rename(index=str.upper))


def test_scores_without_a_folder_of_them_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no scores of points"):
        scores_of(tmp_path)


def test_representations_need_no_labels():
    torch.manual_seed(0)
    images = as_images(torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8))
    encoder = load_encoder("resnet9", weights="random")
    found = representation_run(encoder, images, Crust(0.25, group_by=None))
    assert len(found.tables["coreset"]) == 10
    assert found.tables["coreset"]["weight"].sum() == 40
    assert (found.tables["coreset"]["class"] == -1).all()
    assert found.record["cost"] > 0


def test_the_learning_rate_by_hand():
    step, cosine = RobustSpec(), RobustSpec(epochs=4, warmup=1, schedule="cosine")
    rates = [step.rate(epoch) for epoch in (0, 25, 26, 32, 33, 39)]  # .65 and .825 of 40 epochs are 26 and 33
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005])
    assert [cosine.rate(epoch) for epoch in range(4)] == pytest.approx([0.05, 0.0426777, 0.025, 0.0073223], abs=1e-7)
    assert RobustSpec(schedule="constant").rate(39) == 0.05


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0]])
def test_a_sampler_has_a_weight_for_each_point(weights):
    with pytest.raises(ShapeError, match="a weight each"):
        CrustSampler([4, 2], np.array(weights))
