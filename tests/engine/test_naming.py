"""Which points are named: p-values against points never seen, decoys, folds, the guard, and what is said of none."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tests.bare import bare_job, bare_scores, simulated
from tests.conftest import tiny_net

from memloc import Views, audit
from memloc.data import as_images
from memloc.engine._guard import guarded
from memloc.engine._naming import FEWEST, name_points
from memloc.errors import SpecError
from memloc.report import summarize
from memloc.results import conform

MODES = ("alone", "pair", "ensemble")


def slow_p_values(evidence, split, decoy):
    """By counting: candidates and decoys against the calibration points, and each of those against the others."""
    compared = [point for point, name in enumerate(split) if name == "external" and not decoy[point]]
    found = np.full(len(split), np.nan)
    for point in range(len(split)):
        others = [other for other in compared if other != point]
        found[point] = (1 + sum(evidence[other] >= evidence[point] for other in others)) / (1 + len(others))
    return found


def slow_q_values(p_values):
    """Benjamini-Hochberg: the smallest level at which a point is among those called."""
    order = sorted(p_values)
    return [
        min(min(1.0, order[k] * len(order) / (k + 1)) for k in range(len(order)) if order[k] >= p) for p in p_values
    ]


@pytest.mark.parametrize("mode", MODES)
def test_p_and_q_by_counting(mode):
    job, scores = simulated(mode)
    found = name_points(job, scores)
    assert int(found.decoy.sum()) == found.record["decoys"] == 30  # a fifth
    assert not (found.decoy & ~torch.from_numpy(job.split == "external")).any()
    expected = slow_p_values(found.evidence.numpy(), job.split, found.decoy.numpy())
    assert found.p_value.numpy() == pytest.approx(expected, abs=1e-12)
    candidate = job.split == "candidate"
    assert found.q_value.numpy()[candidate] == pytest.approx(slow_q_values(expected[candidate]), abs=1e-12)
    assert (found.named.numpy() == (candidate & (found.q_value.numpy() < 0.05))).all()
    highest = found.p_value[found.named].max()
    assert found.record["decoys_named"] == int((found.p_value[found.decoy] <= highest).sum())
    assert int(found.named[:20].sum()) >= 15, "those that are memorized"
    assert int(found.named[20:].sum()) <= 5
    assert found.record["readings"] == ["head", "loss"]


@pytest.mark.parametrize("mode", MODES)
def test_without_memorization_nobody_is_named(mode):
    """100 audits in which training changed nothing: some point is named in at most one in twenty, and decoys neither."""
    audits = [name_points(*simulated(mode, memorized=0, seed=seed)).record for seed in range(100)]
    assert sum(each["named"] > 0 for each in audits) <= 10  # 99 % of draws, were it one in twenty
    assert sum(each["decoys_named"] for each in audits) <= 10
    assert all(each["needs"] is None for each in audits if not each["named"] and not each["separates"])


def test_false_names_are_one_in_twenty_and_decoys_show_it():
    false, decoys, all_decoys, right = [], 0, 0, 0
    for seed in range(60):
        found = name_points(*simulated("pair", memorized=30, seed=seed))
        false.append(int(found.named[30:].sum()) / max(int(found.named.sum()), 1))
        right += int(found.named[:30].sum())
        decoys, all_decoys = decoys + found.record["decoys_named"], all_decoys + found.record["decoys"]
    assert np.mean(false) <= 0.05 + 2 * np.std(false) / 60**0.5
    assert right / (60 * 30) > 0.5
    assert decoys / all_decoys <= 0.05


def test_p_values_of_points_never_seen_are_uniform():
    """Candidates that nothing was memorized of, by evidence that others shape."""
    found = [name_points(*simulated("ensemble", memorized=20, seed=seed)).p_value[20:60] for seed in range(40)]
    p_value = torch.cat(found).numpy()
    for level in (0.05, 0.2, 0.5):
        assert (p_value <= level).mean() == pytest.approx(level, abs=0.02)


def slow_evidence(job, align, decoy):
    """Ridge regression by hand: of each reading behind the encoder on the reference's readings and the first layers'."""
    logs, names = np.log(align), [layer.name for layer in job.layers]
    alike = np.isin(job.split, ("candidate", "external"))
    logs = logs - logs[alike].mean(axis=0)
    f, g = logs[:, :, 0], logs[:, :, 1]
    known = np.column_stack([f[:, names.index("convolution")], g])  # of three layers, the first half is one
    known = (known - known[alike].mean(axis=0)) / known[alike].std(axis=0, ddof=1)
    found = []
    for name in ("head", "loss"):
        along = f[:, names.index(name)] - f[alike, names.index(name)].mean()
        extended = np.vstack([known[alike], np.sqrt(0.01 * alike.sum()) * np.eye(known.shape[1])])
        padded = np.concatenate([along[alike], np.zeros(known.shape[1])])
        left = known @ np.linalg.lstsq(extended, padded, rcond=None)[0] - along
        found.append(left / left[alike].std(ddof=1))
    mean, compared = np.mean(found, axis=0), (job.split == "external") & ~decoy
    return (mean - mean[compared].mean()) / mean[compared].std(ddof=1)


def test_evidence_by_hand():
    job, scores = simulated("pair")
    found = name_points(job, scores)
    assert found.evidence.numpy() == pytest.approx(
        slow_evidence(job, scores.align.numpy(), found.decoy.numpy()), abs=1e-6
    )


def test_first_layers_tell_how_easy_a_point_is():
    """An encoder alone, whose readings have most in common: what its first layer says leaves memorization to be seen."""
    named = []
    for common in (True, False):
        job, scores = simulated("alone", effect=3.0, seed=2)
        easy = np.random.default_rng(0).normal(size=(len(job.split), 1, 1))
        align = np.log(scores.align.numpy()) * 0.4
        align[:, slice(0 if common else 1, None)] += easy  # the first layer shares it, or says nothing of it
        named.append(name_points(job, bare_scores(job, np.exp(align))).record["named"])
    assert named[0] > named[1] + 5


def test_without_a_head_the_output_is_read():
    job, scores = simulated("pair")
    other = bare_job(job.membership, job.split, "pair", kinds=("convolution", "residual", "linear", "output"))
    found = name_points(other, bare_scores(other, scores.align[:, [0, 1, 2, 3]]))
    assert found.record["readings"] == ["output"]
    assert int(found.named[:20].sum()) >= 10


def test_evidence_treats_candidates_and_held_out_points_alike():
    """Two points that change places change nothing but their names: what p-values rest on."""
    job, scores = simulated("ensemble", decoys=0.0)
    moved = scores.align.clone()
    job.__dict__["target"] = job.target  # chance vectors of points that nobody saw
    evidence = name_points(job, scores).evidence
    order = torch.arange(len(job.split))
    order[[3, 100]] = order[[100, 3]]
    other = bare_job(job.membership, job.split, "ensemble", decoys=0.0)
    other.__dict__["target"] = job.target[:, order]
    again = name_points(other, bare_scores(other, moved[order])).evidence
    first, second = ((each - each.mean()) / each.std() for each in (evidence[order], again))
    assert torch.allclose(first, second, atol=1e-9)


@pytest.mark.parametrize(
    ("unseen", "options", "reason"),
    [(0, {}, "no points that the encoder never saw"), (10, {}, f"fewer than {FEWEST}"), (70, {}, None)],
)
def test_few_points_to_compare_with(unseen, options, reason):
    job, scores = simulated("pair", unseen=unseen, effect=6.0, **options)
    found = name_points(job, scores)
    assert found.record["decoys"] == 0
    if reason is None:
        assert found.named.any()
    else:
        assert reason in found.record["reason"]
        assert not found.named.any()
        assert found.p_value.isnan().all() == (unseen == 0)


def test_what_would_name_a_point_is_said():
    found = name_points(*simulated("pair", candidates=400, unseen=60, memorized=60, seed=1)).record
    assert found["named"] == 0
    assert found["separates"]
    assert found["needs"] > 60
    more = name_points(*simulated("pair", candidates=400, unseen=3 * found["needs"], memorized=60, seed=1))
    assert more.record["named"] > 0


def test_decoys_leave_enough_to_compare_with():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    splits = ["candidate"] * 20 + ["external"] * 40
    with pytest.raises(SpecError, match=r"decoys are 0.6 of 40 held-out points, which leaves 16 .*decoys=0"):
        audit(tiny_net(0), tiny_net(1), images=images, splits=splits, views=Views(n=2), decoys=0.6)
    with pytest.raises(SpecError, match="decoys"):
        audit(tiny_net(0), tiny_net(1), images=images, splits=splits, views=Views(n=2), decoys=1.0)


def pictures(count, *, brighter=0.0, seed=0):
    random = np.random.default_rng(seed)
    return np.clip(random.normal(110 + brighter, 40, (count, 8, 8, 3)), 0, 255).astype(np.uint8)


def test_the_guard_tells_sets_apart_by_themselves():
    for brighter, differs in ((0.0, False), (25.0, True)):
        images = as_images(np.concatenate([pictures(60), pictures(80, brighter=brighter, seed=1)]))
        job = SimpleNamespace(images=images, options=SimpleNamespace(seed=0))
        candidate = torch.arange(140) < 60
        found = guarded(job, candidate, ~candidate)
        assert found.withholds == differs, found.reason
        assert ("told apart" in found.reason) or ("cannot be told" in found.reason)


def test_the_guard_of_other_formats():
    from memloc.data import Images

    same = as_images(np.concatenate([pictures(60), pictures(60, seed=1)]))
    names = tuple(f"{row}.{'jpg' if row < 60 else 'png'}" for row in range(120))
    for images, differs in ((replace(same, names=names), True), (same, False)):
        assert isinstance(images, Images)
        job = SimpleNamespace(images=images, options=SimpleNamespace(seed=0))
        candidate = torch.arange(120) < 60
        assert guarded(job, candidate, ~candidate).withholds == differs


def test_the_guard_seldom_cries_without_cause():
    """Two random halves of one set, 20 times: by its value alone it would in one of seven."""
    alarms = 0
    for seed in range(20):
        images = as_images(pictures(44, seed=100 + seed))
        job = SimpleNamespace(images=images, options=SimpleNamespace(seed=seed))
        alarms += guarded(job, torch.arange(44) < 22, torch.arange(44) >= 22).withholds
    assert alarms <= 3


def test_few_points_leave_the_guard_without_a_say():
    images = as_images(pictures(50))
    job = SimpleNamespace(images=images, options=SimpleNamespace(seed=0))
    found = guarded(job, torch.arange(50) < 15, torch.arange(50) >= 15)
    assert found.withholds
    assert "there are 15 of one of the two, fewer than 20" in found.reason


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 5, 1), (2, 2, 3), (80, 40, 1)])
def test_the_guard_looks_at_images_of_any_size(shape):
    images = as_images(np.random.default_rng(0).integers(0, 256, (50, *shape), dtype=np.uint8))
    job = SimpleNamespace(images=images, options=SimpleNamespace(seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert guarded(job, torch.arange(50) < 25, torch.arange(50) >= 25).record["auroc"] is not None


def test_an_earlier_checkpoint_and_chosen_points_name_nobody():
    job, scores = simulated("pair")
    job.__dict__["earlier"] = True
    found = name_points(job, scores)
    assert not found.named.any()
    assert "earlier checkpoint" in found.record["reason"]
    job, scores = simulated("pair")
    job.__dict__["chosen"] = torch.from_numpy(job.split == "external")  # taken out by their scores
    assert "no points that the encoder never saw" in name_points(job, scores).record["reason"]


@pytest.mark.parametrize(("encoders", "memorized"), [(4, 0), (8, 0), (4, 60)])
def test_lira_stays_silent_where_nothing_is_memorized(encoders, memorized):
    from memloc.engine._auditor import _lira

    found = []
    for seed in range(20):
        job, scores = simulated("ensemble", encoders=encoders, memorized=memorized, effect=1.0, seed=seed)
        found.append(_lira(job, scores.align[:, 3].T)[0])
    assert np.mean([each.value for each in found]) == pytest.approx(0.5, abs=0.03) or memorized
    assert sum(each.low > 0.5 for each in found) <= 2 or memorized
    assert all(each.low > 0.5 for each in found) or not memorized


@pytest.fixture(scope="module")
def differing():
    images = np.concatenate([pictures(40), pictures(60, brighter=40, seed=1)])
    splits = ["candidate"] * 40 + ["external"] * 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return audit(tiny_net(0, channels=3), tiny_net(1, channels=3), images=images, splits=splits, views=Views(n=2))


def test_external_points_that_differ_name_nobody_and_the_report_says_why(differing):
    assert differing.record["naming"]["guard"]["low"] > 0.6
    assert differing.points["p_value"].isna().all()
    assert not differing.points["named"].any()
    assert "differ from the candidates by themselves" in summarize(differing)["answer"][2]


def test_tables_of_an_audit_conform(differing):
    assert set(differing.separation["reading"]) >= {"output", "evidence"}
    assert differing.separation.groupby("reading").size().eq(4).all()
    for name in ("points", "separation"):
        pd.testing.assert_frame_equal(conform(name, getattr(differing, name)), getattr(differing, name))
    rare = differing.separation.query("fpr == 0.001")
    assert rare["tpr"].isna().all(), "60 points never seen tell no rate of one in a thousand"
