"""Image sources with stable point ids and names, splits, and the embedded sample."""

from memloc.data._images import Images as Images
from memloc.data._images import as_images as as_images
from memloc.data._images import concatenate as concatenate
from memloc.data._images import name_id as name_id
from memloc.data._lazy import LazyPixels as LazyPixels
from memloc.data._open import open_images as open_images
from memloc.data._splits import SPLITS as SPLITS
from memloc.data._splits import check_splits as check_splits
from memloc.data._splits import duplicates_across as duplicates_across
from memloc.data._splits import split_points as split_points
from memloc.data._splits import subset_membership as subset_membership
from memloc.data._thumbnail import thumbnail as thumbnail
