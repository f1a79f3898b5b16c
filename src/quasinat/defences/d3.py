"""D3: an image's patches, each replaced by a combination of a few natural patches."""

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Image, Images
from quasinat.attacks.checks import check_count
from quasinat.defences.matching_pursuit import matching_pursuit
from quasinat.defences.natural_patches import PatchDictionary, without_mean
from quasinat.defences.transformation import Transformation
from quasinat.errors import InputError, UsageError

Grid = Float[Tensor, "channels rows columns side side"]


def d3(
    images: Images,
    dictionary: PatchDictionary,
    *,
    sparsity: int = 5,
    stride: int = 4,
    orthogonal: bool = False,
) -> Images:
    """Divides images into overlapping patches and replaces each by a sparse combination of natural patches.

    (Moosavi-Dezfooli, Shrivastava & Tuzel 2018, "Divide, Denoise, and Defend against Adversarial Attacks".) Each patch
    is approximated by matching pursuit over the dictionary's atoms; where patches overlap, their approximations are
    averaged. If the dictionary is centred, a patch's mean is set aside, channel by channel, and added again.

    The source's "10K-5" is a dictionary of 10,000 patches and `sparsity=5`; its others are 40K-5 and 10K-4.

    What differs from the source, and why: its code is not public, and no patch size or stride is quoted with its
    results. Patches of 8 pixels (the dictionary's default) at every fourth pixel are this package's choice: each pixel
    is averaged over four patches, at a sixteenth of the cost of all of them. The last patches of a row or column lie at
    the image's edge, so that every pixel is covered at any size. Of the mean, see `learn_patch_dictionary`.

    Args:
        images: `B C H W` in [0, 1], at least a patch a side, of as many channels as the dictionary.
        dictionary: see `natural_patches`; it is brought to the images' type and device.
        sparsity: natural patches in a combination; the source has 4 or 5.
        stride: pixels from a patch to the next, at most the patch size.
        orthogonal: orthogonal matching pursuit, which fits all coefficients again in each step; the source's is plain.

    Raises:
        UsageError: a sparsity or stride that makes no sense.
        InputError: images of other channels than the dictionary, or smaller than a patch.
    """
    _check_options(dictionary, sparsity, stride)
    side, (height, width) = dictionary.patch, images.shape[2:]
    if images.shape[1] != dictionary.channels:
        problem = f"the images have {images.shape[1]} channels, the dictionary's patches {dictionary.channels}"
        raise InputError(problem, "use a dictionary learned from images like these")
    if min(height, width) < side:
        raise InputError(f"images of {height} x {width} pixels hold no patch of {side}", "give larger images")
    atoms = dictionary.atoms.to(images).flatten(1)
    down, across = starts(height, side, stride), starts(width, side, stride)
    cleaned = [images[:0]]
    for image in images:  # one by one: in a matrix product of another size an image's sums may round differently
        grid = image.unfold(1, side, 1).unfold(2, side, 1)[:, down][:, :, across]
        channels, rows, columns = grid.shape[:3]
        patches = grid.permute(1, 2, 0, 3, 4).reshape(rows * columns, channels, side, side)
        means: Tensor | float = 0.0
        if dictionary.centred:
            patches, means = without_mean(patches)
        sparse = matching_pursuit(patches.flatten(1), atoms, sparsity, orthogonal=orthogonal)
        denoised = sparse.view_as(patches) + means
        grid = denoised.view(rows, columns, channels, side, side).permute(2, 0, 1, 3, 4)
        cleaned.append(overlapped(grid, down, across, height, width)[None])
    return torch.cat(cleaned).clamp(0, 1)


def starts(length: int, side: int, stride: int) -> list[int]:
    """The first pixels of the patches along a side of `length` pixels; the last patch ends at the edge."""
    return sorted({*range(0, length - side + 1, stride), length - side})


def overlapped(grid: Grid, down: list[int], across: list[int], height: int, width: int) -> Image:
    """The image whose pixels are the means of the patches that cover them.

    Args:
        grid: `C R N P P`, the patch of row i and column j at the pixel (down[i], across[j]).
    """
    channels, rows, columns, side, _ = grid.shape
    # Two products with matrices of zeros and ones: sums in a fixed order, on a GPU too.
    placed_down, placed_across = _placed(down, side, height, grid), _placed(across, side, width, grid)
    mosaic = grid.permute(0, 1, 3, 2, 4).reshape(channels, rows * side, columns * side)
    return placed_down @ mosaic @ placed_across.T / torch.outer(placed_down.sum(1), placed_across.sum(1))


def _placed(first: list[int], side: int, length: int, like: Tensor) -> Float[Tensor, "length places"]:
    """One where a pixel of the image, a row, is a pixel of a patch, a column."""
    pixels = torch.tensor(first)[:, None] + torch.arange(side)
    return (pixels.flatten() == torch.arange(length)[:, None]).to(like)


def _check_options(dictionary: PatchDictionary, sparsity: int, stride: int) -> None:
    check_count("the sparsity", sparsity)
    if not 1 <= stride <= dictionary.patch:
        problem = f"a stride of {stride} makes no sense for patches of {dictionary.patch} pixels"
        raise UsageError(problem, f"give one from 1 to {dictionary.patch}, so that every pixel is covered")


class D3(Transformation):
    """`d3` as a module; its gradient has to be named: the choice of atoms has none."""

    def __init__(
        self, dictionary: PatchDictionary, *, sparsity: int = 5, stride: int = 4, orthogonal: bool = False
    ) -> None:
        super().__init__()
        _check_options(dictionary, sparsity, stride)
        self.dictionary = dictionary
        self.sparsity, self.stride, self.orthogonal = sparsity, stride, orthogonal

    def transform(self, images: Images) -> Images:
        """`d3` of the images."""
        return d3(images, self.dictionary, sparsity=self.sparsity, stride=self.stride, orthogonal=self.orthogonal)
