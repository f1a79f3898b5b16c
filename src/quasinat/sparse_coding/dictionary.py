"""A learned dictionary and how it starts."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from quasinat.arrays import Filters, Images
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.sparse_coding.proximal import Constraint, project_filters

Start = Literal["patches", "noise"]
FILTERS, SIZES = range(1, 513), range(3, 17)


@runtime_checkable
class ImageSource(Protocol):
    """Images that need not be in memory together: a tensor `N C H W`, a memory-mapped one, or anything like it."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """The images at `rows` (int64 indices), `B C H W`, all of one shape and dtype."""
        ...


@dataclass(frozen=True)
class Dictionary:
    """The filters of one quasi-natural space.

    Attributes:
        filters: f_{k,c}, `K C S S`.
        constraint: on each filter's norm, see `project_filters`.
        sparsity: the lambda it was learned with.
        curve: mean objective per image in each pass over the training images, coded as the filters changed.
        images: how many images it was learned from.
        zero_mean: whether each channel of each filter has zero mean.
        held_out: mean objective per held-out image: of the initial filters, and after every pass.
        reseeded: how many filters died and were replaced on the way.
    """

    filters: Filters
    constraint: Constraint
    sparsity: float
    curve: tuple[float, ...] = field(default=())
    images: int = 0
    zero_mean: bool = False
    held_out: tuple[float, ...] = field(default=())
    reseeded: int = 0


def history(dictionary: Dictionary) -> dict[str, Any]:
    """How a dictionary was learned: everything but its filters, as JSON holds it."""
    values = {item.name: getattr(dictionary, item.name) for item in fields(dictionary) if item.name != "filters"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def dictionary_from(filters: Filters, past: dict[str, Any]) -> Dictionary:
    """The dictionary of these filters and the `history` of one.

    Args:
        filters: `K C S S`.
        past: what `history` gave.

    Raises:
        TypeError, ValueError: it is no such history; what is missing, unknown or of another type.

    Examples:
        >>> import torch
        >>> from quasinat import Dictionary
        >>> from quasinat.sparse_coding import dictionary_from, history
        >>> dictionary = Dictionary(torch.ones(2, 1, 3, 3) / 3, "joint", sparsity=0.2, curve=(2.0, 1.5))
        >>> dictionary_from(dictionary.filters, history(dictionary)).curve
        (2.0, 1.5)
    """
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in past.items()}
    made = Dictionary(filters, **values)
    numbers = (made.sparsity, made.images, made.reseeded, *made.curve, *made.held_out)
    if made.constraint not in get_args(Constraint) or type(made.zero_mean) is not bool:
        raise ValueError(f"a dictionary of constraint {made.constraint!r} and zero_mean {made.zero_mean!r}")
    if not all(type(number) in (int, float) for number in numbers):
        raise TypeError("a dictionary's history that is no numbers")
    return made


def starting_filters(
    images: ImageSource,
    start: Start | Filters = "patches",
    *,
    filters: int = 64,
    size: int = 8,
    constraint: Constraint = "joint",
    zero_mean: bool = False,
    seed: int = 0,
) -> Filters:
    """The filters that dictionary learning starts from, `K C S S`, on their constraint.

    Args:
        images: what is to be coded; a sample of at most 4 K images is read.
        start: "patches" of the images, Gaussian "noise", or filters, which then say K and S.
        filters: K, 1 to 512.
        size: S, 3 to 16.

    Raises:
        InputError: there are no images, they are smaller than the filters, flat, or do not fit the filters given.
        UsageError: an unknown start, or K or S out of range.
    """
    if isinstance(start, Tensor):
        filters, size = len(start), start.shape[-1]
    for name, value, known in (("filters", filters, FILTERS), ("size", size, SIZES)):
        if value not in known:
            raise UsageError(f"{name}={value} is not from {known[0]} to {known[-1]}", f"choose one, such as {known[5]}")
    if len(images) == 0:
        raise InputError("there are no images to learn a dictionary from", "give at least one")
    generator = torch.Generator().manual_seed(seed)
    sample = images[torch.randint(len(images), (min(4 * filters, 4 * len(images)),), generator=generator)]
    channels, height, width = sample.shape[1:]
    if min(height, width) < size:
        raise InputError(
            f"images of {height} x {width} pixels are smaller than the filters ({size} x {size})",
            "use larger images or smaller filters",
        )
    if isinstance(start, Tensor):
        if start.shape[1] != channels:
            raise InputError(f"filters of {start.shape[1]} channels do not fit images of {channels}", "convert one")
        return project_filters(start.to(sample), constraint, zero_mean=zero_mean)
    if start not in get_args(Start):
        raise UsageError(f"unknown start {start!r}", did_you_mean(str(start), list(get_args(Start))))
    if start == "noise":
        drawn = torch.randn(filters, channels, size, size, generator=generator).to(sample)
    else:
        drawn = _patches(sample, filters, size, generator)
    return project_filters(drawn, constraint, zero_mean=zero_mean)


def _patches(images: Images, filters: int, size: int, generator: torch.Generator) -> Filters:
    """Of 4 K random patches the K most energetic, so that no filter starts flat."""
    batch, _, height, width = images.shape
    draw = 4 * filters
    which = torch.arange(draw) % batch  # the sample is random already
    top = torch.randint(height - size + 1, (draw,), generator=generator)
    left = torch.randint(width - size + 1, (draw,), generator=generator)
    patches = torch.stack([images[i, :, t : t + size, s : s + size] for i, t, s in zip(which, top, left, strict=True)])
    energy = patches.square().flatten(1).sum(1)
    if not bool((energy > 0).any()):
        raise InputError("the images are flat: there is nothing to learn a dictionary from", "use textured images")
    strongest = energy.argsort(descending=True)[:filters]
    noise = torch.randn(filters, *patches.shape[1:], generator=generator).to(patches)
    # A little noise keeps two equal patches from staying equal for ever.
    return patches[strongest] + 1e-3 * energy[strongest[0]].sqrt() * noise


def largest_patches(images: Images, count: int, size: int) -> Filters:
    """The `count` S x S patches with the most energy, at most one of each image cell of S x S: `count C S S`.

    Where there are fewer cells than that, fewer patches are returned.
    """
    cells = torch.nn.functional.unfold(images, size, stride=size).transpose(1, 2).flatten(0, 1)
    strongest = cells.square().sum(1).argsort(descending=True, stable=True)[:count]
    return cells[strongest].view(-1, images.shape[1], size, size)
