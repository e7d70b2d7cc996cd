"""The house: settings, streams, formats, objectives and columns stand in one place each."""

import ast
import inspect
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest

import memloc
from memloc.data._formats import FORMATS, Asked
from memloc.engine import Options, ViewOptions
from memloc.objectives import OBJECTIVES, RECIPES, objective_named, recipe
from memloc.pretrain import TrainSpec, train_ensemble, train_pair
from memloc.results import HEADLINES, TABLES, UNIT_COLUMNS, comparable, headline
from memloc.settings import settings_of
from memloc.streams import Stream, generator

SOURCE = Path(memloc.__file__).parent
BY_PROTOCOL, BY_SIZE = {"rest", "scale"}, {"batch_size"}


def test_audit_shows_every_option_in_its_signature():
    shown = inspect.signature(memloc.audit).parameters
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in shown.values())
    for known in settings_of(Options):
        usual = None if known.name in BY_PROTOCOL | BY_SIZE else known.default
        assert shown[known.name].default == usual, known.name


@pytest.mark.parametrize(
    ("train", "others"),
    [
        (train_pair, {"ensemble", "fraction"}),
        (train_ensemble, {"ensemble", "candidates", "independents", "shared", "runs", "unpaired", "coin"}),
    ],
)
def test_training_shows_every_setting_in_its_signature(train, others):
    shown = inspect.signature(train).parameters
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in shown.values())
    assert {each.name for each in fields(TrainSpec)} - set(shown) == others


def test_every_setting_has_help_and_a_docstring_of_it():
    for kind in (TrainSpec, Options, ViewOptions):
        for known in settings_of(kind):
            assert known.setting.text.endswith("."), known.name
            assert f"    {known.name}: {known.setting.text.rstrip('.')}" in kind.__doc__


def test_options_of_commands_are_the_settings():
    from typer.main import get_command

    from memloc.cli import app

    parameters = {each.name: each for each in get_command(app).commands["audit"].params}
    for kind in (Options, ViewOptions):
        for known in settings_of(kind):
            assert parameters[known.name].default == known.default, known.name
            assert parameters[known.name].help.startswith(known.setting.text), known.name


def test_streams_differ_and_draws_of_two_have_nothing_in_common():
    numbers = [stream.value for stream in Stream]
    assert len(set(numbers)) == len(numbers)
    drawn = {tuple(generator(stream, seed).integers(0, 2**62, 2)) for stream in Stream for seed in range(3)}
    assert len(drawn) == 3 * len(numbers)


def test_no_other_place_makes_a_generator_of_numpy():
    """But for the splits of trainings, which are drawn as in 0.1, and a plan's timed sample."""
    made = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "default_rng"
    }
    assert made == {"streams.py", "data/_splits.py", "pretrain/_plan.py", "coreset/_cost.py"}


def test_no_format_of_images_hides_another(tmp_path):
    names = [
        "a.npz", "a.parquet", "a.mat", "a-images-idx3-ubyte", "a-images-idx3-ubyte.gz", "cifar.tar.gz", "cifar.zip",
        "train_X.bin", "a.idx3", "folder", "folder.npz", "a-images-idx3-ubyte.npz", "idx3-ubyte.parquet", "idx3-ubyte_X.bin",
    ]  # fmt: skip
    for name in names:
        path = tmp_path / name
        path.mkdir() if name.startswith("folder") else path.write_bytes(b"")
        assert sum(each.takes(Asked(str(path), path, None, None, 0)) for each in FORMATS) == 1, name
    for text in ("sample:train", "hf:set"):
        assert sum(each.takes(Asked(text, Path(text), None, None, 0)) for each in FORMATS) == 1, text


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_an_objective_says_what_it_needs(name):
    kind = objective_named(name)
    known = {each.name for each in fields(TrainSpec)}
    assert set(kind.own_settings) <= known
    assert all(set(recipe(which, name)) <= known for which in RECIPES)
    assert (name == "supervised") == kind.needs_labels
    assert (name == "mae") == kind.needs_patches == (not kind.not_private)
    assert kind.scored_with("weak") == ("normal" if name == "mae" else "weak")


def test_columns_of_units_are_the_schema():
    import memloc.metrics._units as formulas

    declared = [column.name for column in TABLES["units"]]
    assert declared == ["layer", "unit", *(column.name for column in UNIT_COLUMNS)]
    for column in UNIT_COLUMNS:
        assert column.takes
        assert not column.formula or callable(getattr(formulas, column.formula))


def test_the_headline_is_the_first_figure_that_is_known():
    nothing = float("nan")
    table = pd.DataFrame({"layermem_calibrated": [nothing], "layermem_own": [0.1], "alignment_gap": [0.2]})
    assert headline(table).figure == "layermem_own"
    assert headline(table.assign(layermem_calibrated=0.3)).figure == "layermem_calibrated"
    assert headline(pd.DataFrame({"layermem": [0.1]})) is None
    assert [comparable(mode) for mode in ("pair", "alone", "ensemble")] == [
        ("independent", "external"), ("external",), ("candidate",)
    ]  # fmt: skip
    assert all(column in {each.name for each in TABLES["layers"]} for each in HEADLINES for column in (each.figure, each.se, each.low, each.high))  # fmt: skip


def test_files_are_of_one_topic():
    assert {path.name: n for path in SOURCE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400} == {}


def test_shapes_are_checked_while_tests_run():
    import torch

    with pytest.raises(Exception, match="shape|type"):
        memloc.metrics.layermem("no tensor")
    with pytest.raises(Exception, match="dimension|shape|type"):
        memloc.metrics.contrast(torch.zeros(2), torch.zeros(3))


@pytest.mark.parametrize("wrong", [{"shard_size": 2.5}, {"batch_size": "3"}, {"seed": True}, {"thumbnails": 1}])
def test_a_setting_of_another_type_is_refused(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(memloc.MemlocError, match=f"{name} is {value!r}. Expected "):
        Options(**wrong)


def test_a_run_of_a_module_is_opened_at_its_own_size(gray):
    """Whose forward pass takes 8x8 pixels alone."""
    import torch

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16))
    pair = train_pair(gray, encoder=net, epochs=1, candidates=8, batch_size=16)
    assert (pair.f.shape, pair.f.layers[-1].units) == ((1, 8, 8), 16)


def test_a_folder_with_the_name_of_an_encoder_is_none_of_a_run(tmp_path, monkeypatch):
    from memloc.engine._subjects import is_run

    monkeypatch.chdir(tmp_path)
    for name in ("resnet9", "run"):
        (tmp_path / name).mkdir()
    assert [is_run(name) for name in ("resnet9", "run", "nothing")] == [False, True, False]


@pytest.mark.parametrize("name", ["paired", "earlier"])
def test_what_a_run_says_itself_is_refused_beside_it(tmp_path, name):
    with pytest.raises(memloc.MemlocError, match=f"{name} is given beside a run"):
        memloc.audit(tmp_path, **{name: True})


def test_states_of_shards_hold_no_activations(tiny, gray, four_splits, tmp_path):
    """Medians go through files: what was stored is read back without them."""
    from memloc.engine import _run, prepare
    from memloc.engine._own_loss import encode_references

    job = prepare(tiny(0), images=gray, splits=four_splits, views=memloc.Views(n=4), rest="median", shard_size=20)
    job = replace(job, references=encode_references(job, tmp_path))
    states = _run._states(job, tmp_path, lambda *_: None, "", None, None)
    assert [state.activations for state in states] == [{}, {}]
    assert len(list(tmp_path.glob("*.trained.npy"))) == 2
