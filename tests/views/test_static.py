"""Views of static shape: the same views, no shape or number that comes from the device, and the compiled form only
where it agrees."""

import pytest
import torch
from tests.views.test_views import images

from memloc.machine import own_code
from memloc.objectives import objective_named
from memloc.views import POLICIES, Policy, Views
from memloc.views import _static as static
from memloc.views._recipe import Recipe

IDS = torch.tensor([9, 3, 77, 2**40, 5, 6])


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("sampling", ["sobol", "independent"])
@pytest.mark.parametrize(
    ("channels", "height", "width", "size"),
    [(3, 32, 32, None), (1, 16, 64, 16), (3, 9, 40, 8)],
)
def test_static_views_are_the_sorted_ones(policy, sampling, channels, height, width, size):
    pictures = images(6, channels, height, width)
    views = Views(policy, n=6, seed=4, sampling=sampling, size=size)
    expected = views.draw(pictures, IDS, first=2, static=False)
    assert (views.draw(pictures, IDS, first=2, static=True) - expected).abs().max() <= 1e-5
    if sampling == "independent":  # as in a training step, where the epoch lies on the device
        assert torch.equal(views.draw(pictures, IDS, first=torch.tensor(2), static=True), expected)


def test_crops_that_never_fit_become_the_central_one():
    policy = Policy(crop_scale=(0.9, 1.0), crop_ratio=(3.0, 4.0))
    views = Views(policy, n=4, sampling="independent")
    expected = views.draw(images(), IDS, static=False)
    assert torch.equal(views.draw(images(), IDS, static=True), expected)
    assert torch.equal(expected[:, 0], expected[:, 1]), "nothing but the central crop is drawn"


def test_other_channels_and_the_image_itself():
    whole = torch.randint(0, 256, (4, 5, 16, 16), dtype=torch.uint8)
    for views in (Views("crop", n=2), Views("crop", n=2, original=True)):
        assert torch.equal(views.draw(whole, IDS[:4], static=True), views.draw(whole, IDS[:4], static=False))


def test_a_processor_sorts_unless_told():
    """The two differ in how they are computed, which shows in what is called."""
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memloc.views._views.draw_static", lambda *_: called.append(1) or torch.zeros(6, 2, 3, 32, 32))
        Views(n=2).draw(images(), IDS)
        assert not called
        Views(n=2).draw(images(), IDS, static=True)
        assert called


@pytest.mark.parametrize("policy", ["strong", "independent", "mask"])
@pytest.mark.parametrize("sampling", ["sobol", "independent"])
def test_one_graph_without_a_break(policy, sampling):
    """A graph break would mean that the device is asked for a number or that a shape depends on one."""
    recipe = Recipe(Views(policy).resolved, 2, 3, (16, 16), sampling)
    draw = torch.compile(own_code(static._plain(recipe)), dynamic=False, fullgraph=True, backend="eager")
    pictures = images(6, 3, 16, 16)
    number = recipe.numbers(pictures, torch.tensor(4))
    expected = Views(policy, n=2, seed=3, sampling=sampling).draw(pictures, IDS, first=4)
    assert (
        draw(pictures, IDS, number, recipe.sequence(4, pictures.device), torch.tensor(3)) - expected
    ).abs().max() <= 1e-5


def compiled_by(monkeypatch, backend):
    """A recipe's compiled draw with something in the compiler's place."""
    monkeypatch.setattr(static.torch, "compile", lambda function, **_: backend(function))
    recipe = Recipe(Views("normal").resolved, 2, 3, (32, 32), "independent")
    draw = static._compiled.__wrapped__(recipe)
    number = recipe.numbers(images(), 0)
    expected = static._plain(recipe)(images(), IDS, number, None, 3)
    return lambda: draw(images(), IDS, number, None, torch.tensor(3)), expected


def test_a_compiler_that_fails_is_said_once_and_left(monkeypatch):
    def broken(_function):
        def run(*_):
            raise RuntimeError("no Triton\nmore")

        return run

    draw, expected = compiled_by(monkeypatch, broken)
    with pytest.warns(UserWarning, match="uncompiled, which is slower: RuntimeError: no Triton$"):
        assert torch.equal(draw(), expected)
    assert torch.equal(draw(), expected)


def test_a_compiler_that_is_wrong_is_not_believed(monkeypatch):
    draw, expected = compiled_by(monkeypatch, lambda function: lambda *inputs: function(*inputs) + 0.01)
    with pytest.warns(UserWarning, match=r"differ from them by 0.01"):
        assert torch.equal(draw(), expected)
    assert torch.equal(draw(), expected)


def test_a_compiler_that_is_right_is_used(monkeypatch):
    calls = []
    draw, expected = compiled_by(monkeypatch, lambda function: lambda *inputs: calls.append(1) or function(*inputs))
    assert torch.equal(draw(), expected)
    assert torch.equal(draw(), expected)
    assert len(calls) == 3, "one to compare"


def test_running_out_of_memory_is_no_fault_of_the_compiler(monkeypatch):
    def full(_function):
        def run(*_):
            raise torch.OutOfMemoryError

        return run

    draw, _ = compiled_by(monkeypatch, full)
    with pytest.raises(torch.OutOfMemoryError):
        draw()


def test_the_small_crops_of_dino_are_static_too():
    objective = objective_named("dino").__new__(objective_named("dino"))
    torch.nn.Module.__init__(objective)
    objective.views = 4
    slots = torch.arange(6)
    sorted_, whole = (objective.drawer("normal", 3, static=static)(images(), slots, 2) for static in (False, True))
    assert torch.equal(sorted_, whole)
