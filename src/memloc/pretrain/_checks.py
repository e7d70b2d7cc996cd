"""What can be wrong with a training, found before it starts."""

from __future__ import annotations

from torch import nn

from memloc.data import Images
from memloc.encoders import RANDOM, is_vit, load_encoder, mae_positions
from memloc.errors import DataError, EncoderError, SpecError
from memloc.pretrain._distributed import world
from memloc.pretrain._plan import Plan
from memloc.pretrain._private import check_private, noise_of
from memloc.pretrain._spec import TrainSpec


def check_training(encoder: str | nn.Module, images: Images, spec: TrainSpec, plan: Plan) -> None:
    """Raise what training would raise for this encoder, these images and their labels."""
    shape = (images.pixels.shape[1], images.pixels.shape[2], images.pixels.shape[3])
    if str(encoder).endswith(".safetensors"):
        raise SpecError(
            f"the encoder to train is a file of weights, {str(encoder)!r}. Expected an architecture, whose weights are"
            " drawn anew. Pass --encoder resnet9."
        )
    if spec.batch_size < 2 * world():
        raise SpecError(
            f"batch_size is {spec.batch_size} for {world()} processes. Expected at least two points for each. Pass"
            f" --batch-size {2 * world()} or more."
        )
    found = load_encoder(encoder, weights=None if isinstance(encoder, nn.Module) else RANDOM, shape=shape)
    if spec.objective == "mae":
        if not is_vit(found.module):
            raise EncoderError(
                f"{found.name} is no plain ViT of transformers, whose patches the objective mae could hide. Expected"
                " one with a class token and a position per patch. Pass --encoder vit-tiny."
            )
        mae_positions(1, found.module.config.hidden_size)  # type: ignore[union-attr, arg-type]
        if spec.dp_epsilon is not None:
            check_private(found.module)
            noise_of(spec, int(plan.membership.iloc[:, 1:].sum().min()))
            if world() > 1:
                raise SpecError(
                    "dp_epsilon is set for several processes. Expected one: a batch is drawn as a whole. Train without"
                    " torchrun."
                )
    if spec.objective != "supervised":
        return
    trained = plan.membership.iloc[:, 1:].any(axis=1).to_numpy()
    if "label" not in plan.points or (plan.points["label"][trained] < 0).any():
        raise DataError(
            "the objective supervised needs a label for every training point, and there are none for some. Expected"
            " labelled images, such as folders of classes. Pass others, or --objective simclr."
        )
    sizes = plan.points["label"][trained].value_counts()
    if len(sizes) < 2 or sizes.min() < 2:
        number = int(sizes.idxmin())
        name = images.class_names[number] if images.class_names else str(number)
        what = f"the class {name!r} has one training point" if len(sizes) > 1 else f"there is one class, {name!r}"
        raise DataError(f"{what}. Expected at least two classes of at least two points. Merge or leave out classes.")
