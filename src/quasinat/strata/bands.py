"""Which band of an image is sparse-coded, and the coded band of images that need not be in memory together."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from quasinat.arrays import Images
from quasinat.errors import UsageError, did_you_mean
from quasinat.sparse_coding.dictionary import ImageSource
from quasinat.sparse_coding.frequency_split import tikhonov_split

Split = Literal["tikhonov", "none", "mid-grey"]


def split_bands(images: Images, split: Split) -> tuple[Images, Images]:
    """(passed through, to be coded), which add up to the image.

    | split | passes through uncoded |
    | --- | --- |
    | "tikhonov" | the low-pass part of a Tikhonov split, as in the authors' released code |
    | "none" | nothing: Eq. (2) as it stands |
    | "mid-grey" | the constant 0.5, which says nothing about the image: Eq. (2) on the image's contrast |

    Args:
        images: `B C H W` in [0, 1].
        split: see the table.

    Raises:
        UsageError: an unknown split.

    Examples:
        >>> import torch
        >>> from quasinat.strata import split_bands
        >>> passed, coded = split_bands(torch.full((1, 1, 2, 2), 0.75), "mid-grey")
        >>> passed.unique(), coded.unique()
        (tensor([0.5000]), tensor([0.2500]))
    """
    if split not in get_args(Split):
        raise UsageError(f"unknown split {split!r}", did_you_mean(str(split), list(get_args(Split))))
    if split == "tikhonov":
        return tikhonov_split(images)
    passed = torch.full_like(images, 0.5 if split == "mid-grey" else 0.0)
    return passed, images - passed


@dataclass(frozen=True, eq=False)
class CodedBand:
    """The coded band of some of the images, split as they are read: an `ImageSource`.

    Attributes:
        images: `N C H W`, in [0, 1] or 8-bit; memory-mapped ones are read a few at a time.
        rows: which of them, int64.
        split: see `split_bands`.
    """

    images: ImageSource
    rows: Tensor
    split: Split

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> Tensor:
        images = self.images[self.rows[rows]]
        if not images.is_floating_point():
            images = images.float() / 255
        return split_bands(images, self.split)[1]
