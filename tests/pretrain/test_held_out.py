"""Held-out points: a share of the images that no encoder sees, from the plan to the tables of an audit."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from tests.cli.command import run as command

import memloc
from memloc.data import LazyPixels, as_images, origins
from memloc.errors import MemlocWarning, ResultsError, SpecError
from memloc.pretrain import Plan, TrainSpec, make_plan, train, train_cost, train_ensemble, train_pair
from memloc.results import locked, write_json
from memloc.streams import Stream, generator

SMALL = {"epochs": 1, "batch_size": 16, "candidates": 8, "workers": 1, "precision": "float32"}


def images(count=60, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 1), dtype=np.uint8)


def seen_by_any(plan):
    return plan.membership.iloc[:, 1:].any(axis=1).to_numpy()


@pytest.mark.parametrize("spec", [{}, {"ensemble": 4}, {"runs": 3}, {"unpaired": True}], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_share_is_exact_and_no_encoder_sees_it(spec, share):
    plan = make_plan(as_images(images(100)), TrainSpec(held_out=share, **spec), external=20)
    points = plan.points
    assert points["origin"].value_counts().to_dict() == {"": 80 - round(share * 80), "held-out": round(share * 80), "given": 20}  # fmt: skip
    assert (points["split"][points["origin"] != ""] == "external").all()
    assert (points["origin"][80:] == "given").all()
    assert (seen_by_any(plan) == (points["origin"] == "")).all()


def test_a_tenth_each_is_held_out_candidate_and_independent():
    assert TrainSpec().held_out == 0.1
    plan = make_plan(as_images(images(200)), TrainSpec())
    assert plan.points["split"].value_counts().to_dict() == {
        "shared": 140, "external": 20, "candidate": 20, "independent": 20
    }  # fmt: skip


def test_what_the_sizes_leave_over_is_held_out_with_them():
    plan = make_plan(as_images(images()), TrainSpec(candidates=6, shared=20))
    assert plan.points["origin"].value_counts().to_dict() == {"": 32, "held-out": 28}
    plan = make_plan(as_images(images()), TrainSpec(candidates=6, shared=20, held_out=0))
    assert plan.points["origin"].value_counts().to_dict() == {"": 32, "held-out": 28}


@pytest.mark.parametrize("spec", [{}, {"ensemble": 4}], ids=str)
def test_the_draw_belongs_to_ids_and_to_the_seed(spec):
    pixels, ids = images(), np.random.default_rng(1).permutation(1000)[:60]
    order = np.random.default_rng(2).permutation(60)
    one = make_plan(as_images(pixels, points=ids), TrainSpec(**spec)).points
    two = make_plan(as_images(pixels[order], points=ids[order]), TrainSpec(**spec)).points
    assert one.set_index("point")["split"].sort_index().equals(two.set_index("point")["split"].sort_index())
    other = make_plan(as_images(pixels, points=ids), TrainSpec(seed=1, **spec)).points
    assert set(one.loc[one["origin"] != "", "point"]) != set(other.loc[other["origin"] != "", "point"])


def test_the_draw_has_a_stream_of_its_own():
    plan = make_plan(as_images(images()), TrainSpec(seed=3))
    drawn = generator(Stream.HELD_OUT, 3, 60).permutation(60)[:6]
    assert set(plan.points.loc[plan.points["origin"] == "held-out", "point"]) == set(drawn.tolist())


def before(images_, spec, external):
    """Plans as they were drawn before points were held out, from the functions of the splits alone."""
    from memloc.data import split_points, subset_membership

    training = len(images_) - external
    ids = images_.ids[:training]
    if spec.ensemble:
        seen = subset_membership(ids, encoders=spec.ensemble, fraction=spec.fraction, seed=spec.seed).numpy()
        return ["candidate"] * training + ["external"] * external, np.pad(seen, ((0, 0), (0, external)))
    drawn = split_points(ids, candidates=spec.candidates, shared=spec.shared, seed=spec.seed)
    split = np.array([name or "external" for name in drawn] + ["external"] * external)
    return split.tolist(), np.stack([np.isin(split, ("shared", own)) for own in ("candidate", "independent")])


@pytest.mark.parametrize("spec", [{}, {"candidates": 6, "shared": 20}, {"ensemble": 4, "seed": 5}], ids=str)
def test_with_none_held_out_plans_are_as_before(spec):
    known, chosen = as_images(images(70)), TrainSpec(held_out=0, **spec)
    plan = make_plan(known, chosen, external=10)
    split, seen = before(known, chosen, 10)
    assert plan.points["split"].tolist() == split
    assert (seen == plan.membership.iloc[:, 1:].to_numpy().T).all()
    assert plan.notes == ()


def copies(count=60, pairs=12, size=16):
    """Images of which the last are brighter copies of the first."""
    pixels = np.random.default_rng(0).integers(0, 200, (count, size, size, 1), dtype=np.uint8)
    pixels[-pairs:] = pixels[:pairs] + 20
    return as_images(pixels)


@pytest.mark.parametrize("spec", [{"held_out": 0.3}, {"ensemble": 4}, {"candidates": 6, "shared": 20}], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_are_held_out_or_trained_on_together(spec, seed):
    plan = make_plan(copies(), TrainSpec(seed=seed, **spec))
    held = ~seen_by_any(plan)
    assert (held[:12] == held[-12:]).all()
    assert held.sum() == {"held_out": 18, "ensemble": 6, "candidates": 28}[next(iter(spec))]
    assert plan.notes[0] == (
        f"{held.sum()} of 60 images are held out: no encoder sees them. 24 are near-duplicates of others, in 12 groups,"
        " each held out or trained on as a whole."
    )


def test_groups_that_do_not_fit_are_trained_on():
    pixels = np.random.default_rng(0).integers(0, 200, (40, 16, 16, 1), dtype=np.uint8)
    pixels[1:20] = pixels[0]
    for seed in range(5):
        held = ~seen_by_any(make_plan(as_images(pixels), TrainSpec(seed=seed)))
        assert (held[:20].sum(), held.sum()) == (0, 4)
    pixels[20:] = pixels[20]
    plan = make_plan(as_images(pixels), TrainSpec(ensemble=4))
    assert not (~seen_by_any(plan)).any()
    assert plan.notes[0].startswith("0 of 40 images are held out")
    with pytest.raises(SpecError, match="40 of the images are copies of others"):
        make_plan(as_images(pixels), TrainSpec())


def test_what_was_looked_for_is_said():
    def note(known, external=0):
        return make_plan(known, TrainSpec(), external=external).notes[0].split("no encoder sees them. ")[1]

    assert note(as_images(images(size=16))) == "No near-duplicates were found among them."
    small = images()
    assert note(as_images(small)) == (
        "No identical copies were found among them. Near-duplicates were not looked for in images below 16 pixels a"
        " side."
    )
    small[1] = small[0]
    assert note(as_images(small)).startswith("2 are identical copies of others, in 1 groups")
    known = as_images(images(size=16))
    unread = LazyPixels([known.pixels], np.zeros(60, dtype=np.int16), np.arange(60), (1, 16, 16))
    assert note(replace(known, pixels=unread)).startswith("Near-duplicates were not looked for, since the images are")
    given = images(80, size=16)
    given[60:] = given[:20]
    said = note(as_images(given), external=20)
    held = make_plan(as_images(given), TrainSpec(), external=20).points["origin"][:20] == "held-out"
    assert said.endswith(f" {20 - held.sum()} of the external images given are near-duplicates of images trained on.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": 1.0}, "held_out is 1.0. Expected a number below 1. Pass held_out=0.1."),
        ({"held_out": -0.1}, "held_out is -0.1. Expected at least 0"),
        ({"held_out": float("nan")}, "held_out is nan"),
        ({"held_out": True}, "held_out is True. Expected a number"),
        ({"held_out": 0.9}, r"leaves 6 of 60 images.*at least 12, for 6 candidates.*Pass held_out=0.8, or smaller"),
        ({"held_out": 0.5, "candidates": 20}, "leaves 30 of 60 images.*at least 40.*Pass held_out=0.333"),
        ({"candidates": 30}, "leaves 54 of 60 images.*Pass held_out=0, or smaller splits"),
        ({"ensemble": 8, "held_out": 0.9}, "leaves 6 of 60.*at least 8, for 8 encoders. Pass held_out=0.866"),
        ({"candidates": 40}, "do not fit 60 images"),
    ],
)
def test_messages(settings, message):
    with pytest.raises(SpecError, match=message):
        make_plan(as_images(images()), TrainSpec(**settings))


def test_a_plan_says_itself_who_is_held_out(tiny):
    known = as_images(images())
    plan = make_plan(known, TrainSpec(**SMALL, held_out=0.2))
    with pytest.raises(SpecError, match=r"held_out is 0.2 beside a plan.*Leave held_out out"):
        train(known, TrainSpec(**SMALL, held_out=0.2), plan=plan)
    done = train(known, TrainSpec(**SMALL), plan=plan, encoder=tiny(0))
    assert done.record["spec"]["held_out"] == 0
    assert done.points["origin"].tolist() == plan.points["origin"].tolist()


def test_origins():
    assert origins(["external", "shared", "external"], given=0) == ["held-out", "", "held-out"]
    assert origins(["external", "shared", "external"], given=3) == ["given", "", "given"]


def test_held_out_and_given_points_from_training_to_an_audit(tmp_path):
    for name, count in (("train", 30), ("some", 6), ("more", 5)):
        np.savez(tmp_path / f"{name}.npz", images=images(count, 16, seed=count))
    flags = ("--epochs", "1", "--candidates", "4", "--batch-size", "16", "--held-out", "0.2", "--external", "some.npz")
    planned = json.loads(command(tmp_path, "train", "train.npz", "--out", "run", *flags, "--dry-run", "--json").stdout)
    assert planned["splits"] == {"shared": 16, "external": 12, "candidate": 4, "independent": 4}
    assert planned["held_out"].startswith("6 of 30 images are held out: no encoder sees them. No near-duplicates")
    done = command(tmp_path, "train", "train.npz", "--out", "run", *flags)
    assert done.returncode == 0, done.stderr
    assert "6 of 30 images are held out: no encoder sees them. No near-duplicates were found" in done.stderr
    assert "warning: 6" not in done.stderr
    run = memloc.open_run(tmp_path / "run")
    assert run.record["notes"] == [planned["held_out"]]
    assert run.points["origin"].value_counts().to_dict() == {"": 24, "held-out": 6, "given": 6}
    assert not run.sees[:, (run.points["origin"] != "").to_numpy()].any()

    def audited(*arguments):
        done = command(tmp_path, "audit", *arguments, "--views", "4")
        assert done.returncode == 0, done.stderr
        return pd.read_parquet(tmp_path / arguments[-1] / "points.parquet")

    found = audited("run", "--external", "more.npz", "--out", "found")
    assert found.groupby(["split", "origin"]).size().to_dict() == {
        ("candidate", ""): 4, ("external", "given"): 11, ("external", "held-out"): 6, ("independent", ""): 4, ("shared", ""): 16,
    }  # fmt: skip
    assert found["p_value"][found["split"] == "candidate"].notna().all()
    encoders = ("--f", "run/encoders/f.safetensors", "--g", "run/encoders/g.safetensors")
    sets = audited(*encoders, "--data", "train.npz", "--external", "more.npz", "--out", "sets")
    assert sets.groupby(["split", "origin"]).size().to_dict() == {("candidate", ""): 30, ("external", "given"): 5}
    assert "origin" not in audited(*encoders, "--data", "train.npz", "--out", "alone")


def test_points_removed_from_a_run_are_no_held_out_ones(tmp_path, tiny):
    """They were chosen; held out by chance are those that were before, and what the other encoder saw."""
    from memloc.interventions import remove_points

    run = train_pair(images(), **SMALL, encoder=tiny(0), out=tmp_path / "run").run
    chosen = run.points.loc[run.points["split"] == "candidate", "point"].tolist()[:3]
    again = remove_points(run, chosen, encoder="f", module=tiny(0))
    origin = again.points.set_index("point")["origin"]
    held = set(run.points.loc[run.points["origin"] == "held-out", "point"])
    others = set(run.points.loc[run.points["split"] == "independent", "point"])
    assert set(origin[origin == "held-out"].index) == held | others
    assert set(origin[origin == "removed"].index) == set(chosen)


def weights(run):
    return {name: each.module.state_dict() for name, each in run.encoders.items()}


def assert_same(one, two):
    for name, state in weights(one).items():
        assert all(torch.equal(value, weights(two)[name][key]) for key, value in state.items()), name


@pytest.mark.parametrize("kind", [train_pair, train_ensemble], ids=lambda each: each.__name__)
def test_an_interrupted_run_goes_on_with_its_own_plan(tmp_path, monkeypatch, kind, tiny):
    """Whatever is found of near-duplicates on another machine."""
    from memloc.pretrain import _held_out

    settings = {**SMALL, "epochs": 2, "checkpoint_every": 1, "encoder": tiny(0)}
    if kind is train_ensemble:
        settings = {**settings, "k": 3}
        del settings["candidates"]
    whole = kind(images(), **settings, out=tmp_path / "whole").run

    def stop(text, done, _total):
        if text.startswith("training") and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kind(images(), **settings, out=tmp_path / "run", progress=stop)
    monkeypatch.setattr(_held_out, "near_duplicates", lambda _: [[0, 1, 2, 3], [4, 5, 6, 7, 8]])
    resumed = kind(images(), **settings, out=tmp_path / "run").run
    assert resumed.points.equals(whole.points)
    assert_same(whole, resumed)


def begun_before(folder):
    """Make a run look as if it was begun by a memloc that knew no held-out points."""
    for name in ("spec.json", "run.json"):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text())
            (content["spec"] if name == "run.json" else content).pop("held_out", None)
            with locked(folder):
                write_json(folder / name, content)


def test_runs_begun_before_open_and_resume_as_they_were(tmp_path, tiny):
    settings = {**SMALL, "epochs": 2, "checkpoint_every": 1, "encoder": tiny(0)}
    whole = train_pair(images(), **settings, held_out=0, out=tmp_path / "whole").run

    def stop(text, done, _total):
        if text == "training g" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_pair(images(), **settings, held_out=0, out=tmp_path / "run", progress=stop)
    begun_before(tmp_path / "run")
    with pytest.raises(ResultsError, match="held_out: None there, 0.3 now"):
        train_pair(images(), **settings, held_out=0.3, out=tmp_path / "run")
    with pytest.warns(MemlocWarning, match="begun by a memloc that held no points out, and goes on so: held_out is 0"):
        resumed = train_pair(images(), **settings, out=tmp_path / "run").run
    assert_same(whole, resumed)
    begun_before(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = train_pair(images(), **settings, held_out=0, out=tmp_path / "run").run
        assert "held_out" not in memloc.open_run(tmp_path / "run", module=tiny(0)).record["spec"]
    assert_same(whole, again)
    replaced = train_pair(images(), **settings, out=tmp_path / "run", overwrite=True).run
    assert (replaced.points["origin"] == "held-out").sum() == 6


def test_private_training_leaves_held_out_points_out(tmp_path):
    pytest.importorskip("opacus")
    vit = (
        "hf:vit,hidden_size=24,num_hidden_layers=1,num_attention_heads=3,intermediate_size=48,image_size=8,patch_size=4"
    )
    settings = {"objective": "mae", "encoder": vit, "dp_epsilon": 50.0, "epochs": 1, "batch_size": 16, "workers": 1}
    run = train_ensemble(images(), k=2, **settings, out=tmp_path / "run").run
    assert run.sees.sum(axis=1).tolist() == [27, 27]
    assert run.record["privacy"]["delta"] == {"e00": 0.5 / 27, "e01": 0.5 / 27}


@pytest.mark.slow
def test_several_processes_hold_out_what_one_does(tmp_path):
    np.savez(tmp_path / "few.npz", images=images(60, 16))
    flags = ("few.npz", "--epochs", "1", "--candidates", "8", "--batch-size", "16", "--device", "cpu")
    assert command(tmp_path, "train", *flags, "--out", "one").returncode == 0
    launched = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "memloc")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launched, "train", *flags, "--out", "two"], cwd=tmp_path, env=environment, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (memloc.open_run(tmp_path / name).points for name in ("one", "two"))
    assert one.equals(two)
    assert (one["origin"] == "held-out").sum() == 6


def test_a_plan_of_old_tables_needs_no_origin(tiny):
    known = as_images(images())
    plan = make_plan(known, TrainSpec(**SMALL))
    old = Plan(plan.points.drop(columns="origin"), plan.membership)
    run = train(known, TrainSpec(**SMALL), plan=old, encoder=tiny(0))
    assert "origin" not in run.points
    assert train_cost(known, TrainSpec(**{**asdict(TrainSpec()), **SMALL, "held_out": 0}))["held_out"] is None
