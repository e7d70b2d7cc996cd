"""Fair coins: who is trained on what, the bound of epsilon that an audit finds, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from tests.bare import KINDS, bare_job, bare_scores

from memloc.data import as_images
from memloc.engine._coins import GUESSED, guess_coins, with_bound
from memloc.errors import SpecError
from memloc.metrics import epsilon_lower_bound
from memloc.pretrain import TrainSpec
from memloc.pretrain._plan import make_plan, slots

IMAGES = as_images(np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8))


def plan(**settings):
    return make_plan(IMAGES, TrainSpec(candidates=20, held_out=0, coin=True, **settings))


def test_a_coin_decides_between_two_points():
    points = plan().points
    pairs = points[points["pair"] >= 0]
    assert sorted(pairs["pair"].value_counts().tolist()) == [2] * 20
    for _, both in pairs.groupby("pair"):
        assert sorted(both["split"]) == ["candidate", "independent"]
    assert (points.loc[points["pair"] < 0, "split"] == "shared").all()
    assert "pair" not in make_plan(IMAGES, TrainSpec(candidates=20, held_out=0)).points


def test_coins_are_fair_and_independent():
    """Over seeds: whether f sees the point of a pair that has the smaller id."""
    heads = []
    for seed in range(60):
        points = plan(seed=seed).points
        pairs = points[points["pair"] >= 0].sort_values(["pair", "point"])
        heads.append((pairs.groupby("pair")["split"].first() == "candidate").to_numpy())
    heads = np.array(heads, dtype=float)
    assert heads.mean() == pytest.approx(0.5, abs=0.045)  # 1 200 coins
    assert heads.mean(axis=1).var() == pytest.approx(0.25 / 20, rel=0.5)  # as independent ones vary


def test_planted_points_stand_in_pairs():
    found = plan(plant=6, repeats=3)
    planted = found.points[found.points["repeats"] > 1]
    assert planted["pair"].value_counts().tolist() == [2] * 6
    assert len(slots(found, "f")[0]) == len(slots(found, "g")[0]) == 20 + 20 + 6 * 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"ensemble": 4, "coin": True}, "an ensemble has no f"), ({"coin": True, "candidates": 8, "independents": 4, "unpaired": True}, "equal numbers")],
)  # fmt: skip
def test_what_coins_cannot_be_tossed_about(settings, words):
    with pytest.raises(SpecError, match=words):
        make_plan(IMAGES, TrainSpec(held_out=0, **settings))


def tossed(apart, *, pairs=40, seed=0, repeats=None):
    """A job of pairs, and scores in which f reads the point it saw as closer by `apart`, g the other by far more."""
    random = np.random.default_rng(seed)
    heads = random.integers(0, 2, pairs).astype(bool)
    seen = np.zeros((2, 2 * pairs), dtype=bool)
    seen[0, ::2], seen[0, 1::2] = heads, ~heads
    seen[1] = ~seen[0]
    job = bare_job(seen, np.where(seen[0], "candidate", "independent"), "pair")
    noise = random.normal(size=(2 * pairs, len(KINDS), 2))
    align = np.exp(noise - np.stack([apart * seen[0], 9 * seen[1]], axis=1)[:, None, :])
    coins = {"pair": {point: point // 2 for point in range(2 * pairs)}, "delta": 0.0}
    job.__dict__["images"] = as_images(np.zeros((2 * pairs, 2, 2, 1), dtype=np.uint8))
    return job, bare_scores(job, align), coins, repeats or {}


def test_guesses_by_hand():
    job, scores, coins, repeats = tossed(1.0)
    found = guess_coins(job, scores, coins, repeats)
    own = np.log(scores.align[:, KINDS.index("head"), 0].numpy())  # the head leads
    gaps = sorted(range(40), key=lambda pair: -abs(own[2 * pair] - own[2 * pair + 1]))[: int(40 * GUESSED)]
    right = sum((own[2 * pair] < own[2 * pair + 1]) == bool(job.membership[0, 2 * pair]) for pair in gaps)
    assert (found["pairs"], found["guesses"], found["right"], found["reading"]) == (40, 20, right, "head")
    assert found["epsilon_low"] == epsilon_lower_bound(int(right), 20, points=40)
    table = with_bound(pd.DataFrame({"reading": ["output", "head"]}), found)
    assert np.isnan(table["epsilon_low"][0])
    assert table["epsilon_low"][1] == found["epsilon_low"]


def test_g_has_no_say():
    """g was trained on the other point of each pair, and would tell every coin."""
    job, scores, coins, repeats = tossed(0.0)
    scores.align[:, :, 1] *= 5
    with_other_g = guess_coins(job, scores, coins, repeats)
    assert with_other_g == guess_coins(*tossed(0.0))
    bounds = [guess_coins(*tossed(0.0, seed=seed))["epsilon_low"] for seed in range(100)]
    assert np.mean(np.array(bounds) > 0) <= 0.1
    assert guess_coins(*tossed(4.0))["epsilon_low"] > 1


def test_planted_pairs_bound_a_group():
    shown = dict.fromkeys(range(20), 8)
    job, scores, coins, repeats = tossed(3.0, repeats=shown)
    found = guess_coins(job, scores, coins, repeats)
    assert (found["pairs"], found["planted"]["pairs"], found["planted"]["repeats"]) == (30, 10, 8)


def test_a_run_of_coins_is_audited(tmp_path, capsys):
    from memloc.cli import main

    run, out = tmp_path / "run", tmp_path / "audit"
    np.savez(tmp_path / "data.npz", images=IMAGES.pixels.permute(0, 2, 3, 1).numpy())
    settings = "--candidates 12 --epochs 1 --batch-size 8 --workers 1 --coin --encoder resnet9"
    assert main(["train", str(tmp_path / "data.npz"), *settings.split(), "--out", str(run)]) == 0
    assert main(["audit", str(run), "--views", "2", "--out", str(out)]) == 0
    record = json.loads((out / "audit.json").read_text())
    assert record["coins"]["pairs"] == 12
    assert record["coins"]["adjacency"] == "replace-one"
    assert "Fair coins decided which point of each of 12 pairs" in (out / "report.html").read_text()
    assert torch.is_tensor(IMAGES.ids)
    capsys.readouterr()


def test_a_run_that_was_begun_before_there_were_coins_goes_on(tmp_path):
    """A spec without the setting is one whose setting is off, in the folder and in what trains from it."""
    from memloc.errors import ResultsError
    from memloc.pretrain import train

    pixels = IMAGES.pixels.permute(0, 2, 3, 1).numpy()
    spec = TrainSpec(candidates=8, held_out=0, epochs=1, batch_size=16, workers=1)
    train(pixels, spec, out=tmp_path / "run")
    stored = json.loads((tmp_path / "run/spec.json").read_text())
    assert "coin" not in stored
    assert train(pixels, spec, out=tmp_path / "run").folder == tmp_path / "run"  # nothing is trained again
    with pytest.raises(ResultsError, match="coin"):
        train(
            pixels,
            TrainSpec(candidates=8, held_out=0, epochs=1, batch_size=16, workers=1, coin=True),
            out=tmp_path / "run",
        )


def test_without_points_that_were_removed_coins_say_nothing(tmp_path):
    """f saw neither point of a pair then, and which one was taken out may follow from the coin."""
    from memloc.engine import run_subject
    from memloc.interventions import remove_points
    from memloc.pretrain import train

    pixels = IMAGES.pixels.permute(0, 2, 3, 1).numpy()
    run = train(
        pixels, TrainSpec(candidates=8, held_out=0, epochs=1, batch_size=16, workers=1, coin=True), out=tmp_path / "run"
    )
    assert "coins" in run_subject(run).extra
    gone = run.points.loc[run.points["split"] == "candidate", "point"].head(3).tolist()
    subject = run_subject(remove_points(run, gone, out=tmp_path / "without"))
    assert "coins" not in subject.extra
    assert [subject.extra["origin"][point] for point in gone] == ["removed"] * 3
    assert sum(subject.arguments["chosen"]) == 3
    assert not any(
        held and chosen for held, chosen in zip(subject.arguments["held_out"], subject.arguments["chosen"], strict=True)
    )
