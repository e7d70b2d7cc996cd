"""What can be wrong with a training, found before it starts."""

from __future__ import annotations

from torch import nn

from memloc.data import Images
from memloc.encoders import RANDOM, check_own_memory, check_storable, encoder_name, load_encoder
from memloc.errors import DataError, SpecError
from memloc.objectives import objective_named
from memloc.pretrain._distributed import world
from memloc.pretrain._plan import Plan
from memloc.pretrain._private import check_private, noise_of
from memloc.pretrain._spec import TrainSpec
from memloc.views import check_colour, policy_named


def check_training(encoder: str | nn.Module, images: Images, spec: TrainSpec, plan: Plan) -> None:
    """Raise what training would raise for this encoder, these images and their labels."""
    shape = (images.pixels.shape[1], images.pixels.shape[2], images.pixels.shape[3])
    if isinstance(encoder, str) and encoder_name(encoder).is_checkpoint:
        raise SpecError(
            f"the encoder to train is a file of weights, {str(encoder)!r}. Expected an architecture, whose weights are"
            " drawn anew. Pass --encoder resnet9."
        )
    if spec.batch_size < 2 * world():
        raise SpecError(
            f"batch_size is {spec.batch_size} for {world()} processes. Expected at least two points for each. Pass"
            f" --batch-size {2 * world()} or more."
        )
    check_colour(policy_named(spec.policy), shape[0])
    found = load_encoder(encoder, weights=None if isinstance(encoder, nn.Module) else RANDOM, shape=shape)
    check_storable(found.module, name=found.name)
    check_own_memory(found.module, name=found.name)
    objective = objective_named(spec.objective)
    objective.check(found)
    if spec.dp_epsilon is not None:
        check_private(found.module)
        noise_of(spec, int(plan.membership.iloc[:, 1:].sum().min()))
        if world() > 1:
            raise SpecError(
                "dp_epsilon is set for several processes. Expected one: a batch is drawn as a whole. Train without"
                " torchrun."
            )
    if objective.needs_labels:
        _check_labels(images, spec, plan)


def _check_labels(images: Images, spec: TrainSpec, plan: Plan) -> None:
    """Raise DataError unless every training point has a label, of two classes or more of two points or more."""
    trained = plan.membership.iloc[:, 1:].any(axis=1).to_numpy()
    if "label" not in plan.points or (plan.points["label"][trained] < 0).any():
        raise DataError(
            f"the objective {spec.objective} needs a label for every training point, and there are none for some."
            " Expected labelled images, such as folders of classes. Pass others, or --objective simclr."
        )
    sizes = plan.points["label"][trained].value_counts()
    if len(sizes) < 2 or sizes.min() < 2:
        number = int(sizes.idxmin())
        name = images.class_names[number] if images.class_names else str(number)
        what = f"the class {name!r} has one training point" if len(sizes) > 1 else f"there is one class, {name!r}"
        raise DataError(f"{what}. Expected at least two classes of at least two points. Merge or leave out classes.")
