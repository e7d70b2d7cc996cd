"""Images with stable point ids, names and labels, held as uint8 and handed out by row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from memloc.data._decode import as_rgb, fitted_pixels
from memloc.data._labels import LABEL_COLUMNS, given_labels
from memloc.data._lazy import LazyPixels
from memloc.errors import DataError, ShapeError, warn
from memloc.fit import Fit

Labels = Sequence[int] | Sequence[str] | Sequence[int | str | None] | np.ndarray | Tensor
_ROWS = 1 << 40  # ids below it are rows, above it hashes of paths


@dataclass(frozen=True)
class Images:
    """A set of images in memory.

    Attributes:
        pixels: uint8, shape (point, channel, height, width); a tensor, or LazyPixels that read
            files as they are indexed.
        ids: int64, one per point, all different; a point keeps its id when files move or are listed in another order.
        names: what a person calls each point: a relative path, or a row.
        labels: class number per point, -1 where unknown; None without labels.
        class_names: name of each class number.
        skipped: files that could not be read, with the reason.
        source, size: what to pass to `open_images` to get them again; a source of None for arrays.

    >>> images = as_images(np.zeros((3, 28, 28), np.uint8))
    >>> len(images), images.pixels.shape, images.names
    (3, torch.Size([3, 1, 28, 28]), ('0', '1', '2'))
    """

    pixels: Tensor
    ids: Tensor
    names: tuple[str, ...] = field(repr=False)
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    source: str | None = None
    size: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Tensor) -> Images:
        """Some of the images, in the order of `rows`; they have no source of their own."""
        names = tuple(self.names[row] for row in rows.tolist())
        labels = None if self.labels is None else self.labels[rows]
        pixels = self.pixels.take(rows) if isinstance(self.pixels, LazyPixels) else self.pixels[rows]
        return replace(self, pixels=pixels, ids=self.ids[rows], names=names, labels=labels, source=None)

    def rows_of(self, points: Tensor) -> Tensor:
        """The row of each point id.

        Raises:
            DataError: an id that is not here.
        """
        order = self.ids.argsort()
        place = torch.searchsorted(self.ids[order], points).clamp_max(len(self) - 1)
        found = order[place]
        missing = points[self.ids[found] != points]
        if len(missing):
            raise DataError(
                f"{len(missing)} point ids are not among the images, the first {int(missing[0])}. Expected the images "
                "that the run was made with. Pass the same --data and --external, unchanged."
            )
        return found

    def hashes(self) -> np.ndarray:
        """A hash of each image's pixels, int64: equal images have equal hashes. Of its file's name and length where it
        is not in memory."""
        if isinstance(self.pixels, LazyPixels):
            return self.pixels.hashes()
        flat = self.pixels.contiguous().numpy().reshape(len(self), -1)
        digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in flat)
        return np.frombuffer(digests, dtype="<i8")

    def described(self) -> str:
        """A hash of names, labels and class names, with the ids they belong to."""
        labels = [-1] * len(self) if self.labels is None else self.labels.tolist()
        rows = sorted(zip(self.ids.tolist(), self.names, labels, strict=True))
        return hashlib.blake2b(repr((rows, self.class_names, self.labels is None)).encode(), digest_size=8).hexdigest()

    def fingerprint(self) -> str:
        """A hash of all pixels and ids, whatever their order."""
        pairs = np.stack([self.ids.numpy(), self.hashes()], axis=1)
        return hashlib.blake2b(pairs[np.argsort(pairs[:, 0])].tobytes(), digest_size=16).hexdigest()


def as_images(
    images: object,
    *,
    points: Sequence[int] | Tensor | None = None,
    labels: Labels | None = None,
    size: int | None = None,
    fit: Fit | None = None,
) -> Images:
    """Images from a tensor, an array, a map-style dataset or Images.

    Args:
        images: uint8 torch (N, C, H, W) or (N, H, W); uint8 numpy (N, H, W, C) or (N, H, W); a dataset of (image,
            label) or image items, each a PIL image or a uint8 array of one size; or Images.
        points: ids; 0 to N-1 by default.
        labels: class numbers, which stay as they are, or names; None, NaN and numbers below 0 where unknown. A
            dataset's own by default.
        size: height and width to bring every image to, as `open_images` does; needed for a dataset of several sizes.
            fit: the same as an encoder's own preprocessing does it.
    Raises:
        ShapeError: another type or shape. DataError: ids that repeat, labels of another length, or labels that are no
            classes, such as fractions.

    >>> as_images(torch.zeros(2, 3, 8, 8))
    Traceback (most recent call last):
    memloc.errors.ShapeError: images are torch.float32 of shape (2, 3, 8, 8). Expected uint8 with values 0 to 255. Pass
    \
(images * 255).round().to(torch.uint8).
    """
    fit = fit or Fit(size)
    if not isinstance(images, Images):
        pixels, found, class_names = _pixels(images, fit)
        check_pixels(pixels)
        names = tuple(str(row) for row in range(len(pixels)))
        images = Images(pixels, torch.arange(len(pixels)), names, found, class_names)
    images = in_size(images, fit, "the images")
    if points is not None:
        ids = torch.as_tensor(points, dtype=torch.int64)
        if ids.shape != (len(images),) or len(ids.unique()) != len(ids):
            raise DataError(
                f"points has shape {tuple(ids.shape)} and {len(ids.unique())} different ids for {len(images)} images. "
                "Expected one id per image, all different. Pass points=torch.arange(len(images))."
            )
        images = replace(images, ids=ids, names=tuple(str(int(point)) for point in ids))
    if labels is not None:
        numbers, class_names = given_labels(labels, len(images))
        images = replace(images, labels=numbers, class_names=class_names)
    return images


def in_size(images: Images, fit: Fit, where: str) -> Images:
    """Images in memory of the size that is asked for; files that are read later come in it."""
    if fit.size is None or tuple(images.pixels.shape[2:]) == (fit.size, fit.size):
        return images
    if isinstance(images.pixels, LazyPixels):
        raise DataError(
            f"{where} are read from their files as they are used, at {images.pixels.shape[2]} pixels. Expected"
            f" {fit.size}. Open them with size={fit.size}."
        )
    return replace(images, pixels=torch.stack([fitted_pixels(pixels, fit, where) for pixels in images.pixels]))


def check_pixels(pixels: Tensor) -> None:
    """Raise ShapeError unless pixels are uint8 (N, C, H, W), with fewer channels than rows and columns where they are
    not one or three."""
    if pixels.dtype != torch.uint8:
        raise ShapeError(
            f"images are {pixels.dtype} of shape {tuple(pixels.shape)}. Expected uint8 with values 0 to 255."
            f" {_to_uint8(pixels)}"
        )
    if pixels.ndim == 4 and (pixels.shape[1] in (1, 3) or 0 < pixels.shape[1] < min(pixels.shape[2:])):
        return
    raise ShapeError(
        f"images have shape {tuple(pixels.shape)}. Expected (N, C, H, W) as torch or (N, H, W, C) as numpy, with fewer"
        " channels than rows and columns. Move the axis of channels, for instance with images.permute(0, 3, 1, 2)."
    )


def _to_uint8(pixels: Tensor) -> str:
    """What to type for pixels of another type, by the range of their values."""
    if not pixels.numel() or pixels.is_complex():
        return "Pass images in uint8."
    if pixels.dtype in (torch.uint16, torch.uint32, torch.uint64):
        pixels = pixels.to(torch.float64)
        return f"They lie to {float(pixels.max()):g}: scale them to 0 to 255 by the range of their format first."
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype == torch.bool:
        return "They are true and false: pass images.to(torch.uint8) * 255."
    if not pixels.is_floating_point():
        if low >= 0 and high <= 255:
            return "They lie from 0 to 255: pass images.to(torch.uint8)."
        return f"They lie from {low:g} to {high:g}: scale them to 0 to 255 by the range of their format first."
    if low >= 0 and high <= 1:
        return "They lie from 0 to 1: pass (images * 255).round().to(torch.uint8)."
    if low >= 0 and high <= 255:
        return "They lie from 0 to 255: pass images.round().to(torch.uint8)."
    return (
        f"They lie from {low:.3g} to {high:.3g}, as normalized ones do: pass them before normalization, and mean= and"
        " std= to audit or load_encoder, or undo it: ((images * std + mean) * 255).round().to(torch.uint8)."
    )


def concatenate(first: Images, second: Images, *, namespace: str = "external") -> Images:
    """Both sets of images as one.

    Row ids of the second continue after those of the first. Ids of paths stay, unless both sets use the same relative
    paths:
    then the second's are made of `namespace` and the path. Gray images beside RGB ones are repeated to three channels,
    classes are matched by name, and labels that one set lacks are -1.

    >>> both = concatenate(as_images(np.zeros((2, 8, 8), np.uint8)), as_images(np.zeros((1, 8, 8), np.uint8)))
    >>> both.ids.tolist()
    [0, 1, 2]
    """
    if first.pixels.shape[2:] != second.pixels.shape[2:]:
        raise DataError(
            f"images of {_extent(first)} and of {_extent(second)} cannot be audited together. Expected one size. "
            "Pass --size to bring both to one size."
        )
    channels = {first.pixels.shape[1], second.pixels.shape[1]}
    if len(channels) > 1 and channels != {1, 3}:
        raise DataError(
            f"images of {_extent(first)} and of {_extent(second)} cannot be audited together. Expected as many channels"
            " in both. Bring both to the same bands first."
        )
    pixels = _both(first.pixels, second.pixels)
    ids = second.ids
    if len(torch.cat([first.ids, ids]).unique()) != len(first) + len(second):
        if int(first.ids.max()) < _ROWS and int(ids.max()) < _ROWS:  # rows, not hashes of paths
            ids = ids + int(first.ids.max()) + 1
        else:
            ids = torch.tensor([name_id(f"{namespace}/{name}") for name in second.names])
    class_names = tuple(dict.fromkeys(first.class_names + second.class_names))
    labels = None
    if first.labels is not None or second.labels is not None:
        labels = torch.cat([_matched(each, class_names) for each in (first, second)])
    return Images(
        pixels,
        torch.cat([first.ids, ids]),
        first.names + second.names,
        labels,
        class_names,
        first.skipped + second.skipped,
    )


def name_id(name: str) -> int:
    """The id of an image file: 62 bits of a hash of its path relative to the folder.

    >>> name_id("cat/1.png") == name_id("cat/1.png") != name_id("cat/2.png")
    True
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 2


def _both(first: Tensor, second: Tensor) -> Tensor:
    """Pixels of both sets; gray ones beside RGB are repeated, files stay unread."""
    if isinstance(first, LazyPixels):
        return cast(Tensor, first.joined(second, after=True))
    if isinstance(second, LazyPixels):
        return cast(Tensor, second.joined(first, after=False))
    channels = max(first.shape[1], second.shape[1])
    return torch.cat([each.expand(-1, channels, -1, -1) for each in (first, second)])


def _matched(images: Images, class_names: tuple[str, ...]) -> Tensor:
    """Labels by the class names of both sets; -1 where there are none. Numbers without names are places among them."""
    if images.labels is None:
        return torch.full((len(images),), -1)
    if not images.class_names:
        if class_names and class_names != tuple(map(str, range(len(class_names)))):
            raise DataError(
                f"one set of images names its classes ({', '.join(map(repr, class_names[:3]))}) and the other numbers"
                " them. Expected the names of both, or of neither. Open both sets alike, or pass labels= as names."
            )
        return images.labels
    number = torch.tensor([class_names.index(name) for name in images.class_names] + [-1])
    return number[images.labels]


def _extent(images: Images) -> str:
    channels, height, width = images.pixels.shape[1:]
    return f"{height}x{width} pixels with {channels} channel{'s' if channels > 1 else ''}"


def _pixels(images: object, fit: Fit) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """uint8 pixels (N, C, H, W), and labels and class names where a dataset gives them."""
    if isinstance(images, (Tensor, np.ndarray)) and images.ndim == 3 and 3 in (images.shape[0], images.shape[2]):
        one = "images[None]"
        warn(
            f"An array of shape {tuple(images.shape)} is taken for {len(images)} gray images. Pass {one} if it is one"
            " image in colour."
        )
    if isinstance(images, Tensor):
        return (images[:, None] if images.ndim == 3 else images), None, ()
    if isinstance(images, np.ndarray):
        array = images[..., None] if images.ndim == 3 else images
        if array.ndim == 4 and images.dtype == np.uint8 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
            raise ShapeError(
                f"images are a NumPy array of shape {images.shape}. Expected (N, H, W, C), with the channels last. Pass"
                " images.transpose(0, 2, 3, 1), or torch.as_tensor(images)."
            )
        if array.ndim != 4:
            return torch.from_numpy(array.copy()), None, ()
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 3, 1))), None, ()
    if hasattr(images, "__getitem__") and hasattr(images, "__len__") and not isinstance(images, (str, bytes)):
        return _from_dataset(images, fit)
    raise ShapeError(
        f"images are a {type(images).__name__}. Expected a uint8 tensor or array, or a dataset with a length. "
        "Pass memloc.open_images(PATH) for files."
    )


def _from_dataset(dataset: Any, fit: Fit) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Every item of a map-style dataset: an image, (image, label, ...), or a dict with both, as the datasets library
    gives them."""
    pictures, labels = [], []
    for row in range(len(dataset)):
        picture, label = item_parts(dataset[row], row)
        found = _picture(picture, row)
        right = fit.size is None or tuple(found.shape[1:]) == (fit.size, fit.size) or found.dtype != torch.uint8
        pictures.append(found if right else fitted_pixels(found, fit, f"item {row} of the dataset"))
        labels.append(label)
    if not pictures:
        raise DataError("the dataset is empty. Expected at least two images. Pass another dataset.")
    if {len(picture) for picture in pictures} == {1, 3}:  # gray ones among RGB
        pictures = [picture.expand(3, -1, -1) for picture in pictures]
    shapes = {tuple(picture.shape) for picture in pictures}
    if len(shapes) > 1:
        raise ShapeError(
            f"the dataset's images have {len(shapes)} shapes, such as {sorted(shapes)[:2]}. Expected one. Pass size="
            f"{min(min(shape[1:]) for shape in shapes)} (at most), or the size that your encoder was trained with, to"
            " resize and crop them all."
        )
    stacked = torch.stack(pictures)
    if all(label is None for label in labels):
        return stacked, None, ()
    numbers, names = given_labels(labels, len(labels), "the dataset")
    known = dataset_classes(dataset)
    fits = not names and int(numbers.max()) < len(known)  # a transform may make other numbers of them
    return stacked, numbers, known if fits else names


def dataset_classes(dataset: Any) -> tuple[str, ...]:
    """The names of a map-style dataset's class numbers, where it tells them as torchvision's and the datasets library
    do."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset  # a Subset
    classes = getattr(dataset, "classes", None)
    if classes is None:
        features = getattr(dataset, "features", None)
        known: dict[str, Any] = features if isinstance(features, dict) else {}
        first = next((name for name in LABEL_COLUMNS if name in known), None)
        classes = None if first is None else getattr(known[first], "names", None)
    named = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    return tuple(classes) if named and classes is not None else ()


def item_parts(item: Any, row: int) -> tuple[Any, Any]:
    """Image and label of a dataset's item; the label is None where there is none."""
    if isinstance(item, dict):
        image = next((item[name] for name in ("image", "img", "pixel_values") if name in item), None)
        if image is None:
            raise DataError(
                f"item {row} of the dataset is a dict of {', '.join(map(repr, item))}. Expected an image under 'image'"
                " or 'img'. Rename its column."
            )
        return image, next((item[name] for name in LABEL_COLUMNS if name in item), None)
    picture, label = (item[0], item[1]) if isinstance(item, (tuple, list)) and len(item) > 1 else (item, None)
    return (picture[0] if isinstance(picture, (tuple, list)) and picture else picture), label


def _picture(picture: Any, row: int) -> Tensor:
    """An image as (channel, height, width); of a palette, with transparency or of 16 bits as RGB."""
    from PIL import Image

    if isinstance(picture, Image.Image):
        try:
            array = np.asarray(picture if picture.mode in ("L", "RGB") else as_rgb(picture, picture.format))
        except OSError as problem:
            raise DataError(
                f"item {row} of the dataset cannot be read: {problem}. Expected 8 or 16 bits, or floats from 0 to 1."
            ) from problem
    elif isinstance(picture, Tensor):
        if picture.ndim in (2, 3):
            return picture if picture.ndim == 3 else picture[None]
        raise ShapeError(
            f"item {row} of the dataset is a tensor of shape {tuple(picture.shape)}. Expected (channel, height, width)."
            " Take its images apart."
        )
    else:
        array = picture if isinstance(picture, np.ndarray) else np.empty(0)
    if array.ndim not in (2, 3):
        what = f"an array of shape {array.shape}" if isinstance(picture, np.ndarray) else f"a {type(picture).__name__}"
        raise ShapeError(
            f"item {row} of the dataset is {what}. Expected a PIL image, a tensor (channel, height, width) or an array"
            " (height, width, channel). Open the images in the dataset."
        )
    return torch.from_numpy(np.array(np.moveaxis(array if array.ndim == 3 else array[..., None], 2, 0), order="C"))
