"""The square attack: random search over squares, by the model's scores alone."""

import math

import torch
from jaxtyping import Float64
from torch import Generator, Tensor, nn

from quasinat.arrays import Image, Images, Labels, PerImage
from quasinat.attacks.budget import Budget, Linf
from quasinat.attacks.checks import check_count
from quasinat.attacks.goal import check_loss
from quasinat.attacks.model_access import OnStep, attacking
from quasinat.attacks.result import AttackResult, judged
from quasinat.attacks.scores import better, scores
from quasinat.errors import UsageError

HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of 10 000 proposals: when the share of pixels halves
TILES = 5  # the L2 start is a chequerboard of 5 x 5 patterns
CANCELLED = 1e-3  # of a sum of two unit patterns: shorter than this they have cancelled, and rounding is what is left


def square(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    targets: Labels | None = None,
    queries: int = 5000,
    share: float = 0.8,
    loss: str = "margin",
    seed: int = 0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """Random search over square patches (Andriushchenko, Croce, Flammarion & Hein 2020, Algorithm 1).

    No gradient is asked for. In an Linf budget the start is one of vertical stripes, and a proposal moves a square by
    plus or minus twice the radius in each channel before it is projected (Algorithm 2). In an L2 budget or a
    dissimilarity, the start is a chequerboard of patterns, and a proposal takes the mass of one square to another, with
    what is left of the budget (Algorithm 3). The squares shrink by the source's schedule (section 3), rescaled to the
    number of proposals. A proposal is kept where the loss rises. An image stops at its first success, and one that is
    wrong already stays as it is; one that never succeeds is returned at its best iterate, without success.

    One proposal is drawn per step, on the CPU, and shared by all images, each at its own radius, so that an image's
    result depends neither on its batch nor on the device. On images that are not square the side follows the number of
    pixels, up to the shorter edge.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image; an Linf one chooses Algorithm 2, any other Algorithm 3.
        targets: the classes wanted, if the attack is to be targeted.
        queries: forward passes per image at most, the look at the clean image and the start included; the re-check of
            the result costs one more.
        share: of the pixels that the first square covers (the source's p), above 0 and at most 1.
        loss: of `LOSSES`.
        seed: of the start and the proposals.
        on_step: called with the proposals done, the start included, and those in all.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `queries` under 2, a `share` out of its range, or an unknown loss.
    """
    check_count("queries", queries, least=2)
    check_loss(loss)
    if not 0 < share <= 1:
        raise UsageError(f"share is {share}", "give a number above 0 and at most 1")
    generator = torch.Generator().manual_seed(seed)
    flat = isinstance(budget, Linf)
    steps = queries - 1
    with attacking(model, images, labels, targets) as (clean, goal), torch.no_grad():
        losses, reached = scores(model, clean, goal, loss)
        current, radii, spent = clean.clone(), budget.reach(clean), torch.ones_like(goal.labels)
        rows = (~reached).nonzero()[:, 0]
        for step in range(steps):
            if not len(rows):
                break
            center, here, reach = clean[rows], current[rows], radii[rows]
            if step == 0:
                moved = _stripes(center, reach, generator) if flat else _chequerboard(center, reach, generator)
            else:
                side = _side(share * _remaining(step, steps - 1), clean.shape[2], clean.shape[3], odd=not flat)
                propose = _square_of_signs if flat else _square_of_mass
                moved = propose(center, here, reach, side, generator)
            moved = budget.project(center, moved)
            new, hit = scores(model, moved, goal.of(rows), loss, rows)
            spent[rows] += 1
            kept = hit | better(new, losses[rows]) if step > 0 else torch.ones_like(hit)
            current[rows[kept]], losses[rows[kept]] = moved[kept], new[kept]
            rows = rows[~hit]
            if on_step is not None:
                on_step(step + 1, steps)
        return judged(model, current, goal, spent)


def _remaining(step: int, steps: int) -> float:
    """The factor of the share of pixels at a step from 1 to `steps`: halved at each mark that has been passed."""
    return 0.5 ** sum(10_000 * step >= mark * steps for mark in HALVINGS)


def _side(share: float, height: int, width: int, *, odd: bool) -> int:
    """The side of the square that covers this share of the pixels; for L2 an odd one, at least 3."""
    side = math.sqrt(share * height * width)
    wanted = max(2 * round((side - 1) / 2) + 1, 3) if odd else max(round(side), 1)
    return min(wanted, height, width)


def _stripes(clean: Images, radii: PerImage, generator: Generator) -> Images:
    """One random sign for each column and channel."""
    _, channels, _, width = clean.shape
    return clean + _spread(radii) * _signs((channels, 1, width), generator).to(clean)


def _square_of_signs(clean: Images, current: Images, radii: PerImage, side: int, generator: Generator) -> Images:
    """Algorithm 2: plus or minus twice the radius in a square, one random sign for each channel."""
    window = _window(clean, side, generator)
    moved = current.clone()
    moved[window] += 2 * _spread(radii) * _signs((clean.shape[1], 1, 1), generator).to(clean)
    return moved


def _chequerboard(clean: Images, radii: PerImage, generator: Generator) -> Images:
    """Tiles of the pattern with random signs and turns, all at the full radius."""
    _, channels, height, width = clean.shape
    edge = max(min(height, width) // TILES, 1)
    down, across = height // edge, width // edge
    top, left = (height - down * edge) // 2, (width - across * edge) // 2
    tiles = torch.zeros(channels, height, width, dtype=torch.float64)
    for row in range(top, top + down * edge, edge):
        for column in range(left, left + across * edge, edge):
            signs = _signs((channels, 1, 1), generator)
            tiles[:, row : row + edge, column : column + edge] = signs * _pattern(edge, generator)
    return clean + _spread(radii) * (tiles / torch.linalg.vector_norm(tiles)).to(clean)


def _square_of_mass(clean: Images, current: Images, radii: PerImage, side: int, generator: Generator) -> Images:
    """Algorithm 3: in each channel the mass of two windows and a share of the unused budget go to the first window.

    There the old perturbation is bent towards plus or minus the pattern; the second window is cleared. Where the two
    cancel, the pattern alone is taken.
    """
    first, second = _window(clean, side, generator), _window(clean, side, generator)
    signs, pattern = _signs((clean.shape[1], 1, 1), generator), _pattern(side, generator)
    precise = torch.promote_types(clean.dtype, torch.float32)  # squares of small numbers vanish in half precision
    nu = (current - clean).to(precise)
    union = torch.zeros_like(nu[:1])
    union[first], union[second] = 1, 1
    unused = (radii.to(precise).square() - nu.square().sum((1, 2, 3))).clamp(min=0)
    mass = (nu.square() * union).sum((2, 3), keepdim=True)
    available = (mass + _spread(unused) / clean.shape[1]).sqrt()
    target = (signs * pattern).to(nu)
    bent = target + _unit(nu[first])
    cancelled = torch.linalg.vector_norm(bent, dim=(2, 3), keepdim=True) < CANCELLED
    nu[second] = 0
    nu[first] = _unit(torch.where(cancelled, target, bent)) * available
    return (clean + nu).to(clean.dtype)


def _pattern(side: int, generator: Generator) -> Float64[Tensor, "side side"]:
    """The unit pattern of the L2 version: a hill beside a dip, lying or upright by a coin (section 3, Eq. 2)."""
    half = side // 2
    pattern = torch.cat([_hill(half, side), -_hill(side - half, side)])
    pattern = pattern / torch.linalg.vector_norm(pattern)
    return pattern.T if int(torch.randint(2, (), generator=generator)) else pattern


def _hill(height: int, width: int) -> Float64[Tensor, "height width"]:
    """At the distance d from the middle, in the largest coordinate: the sum of 1 / (j + 1)^2 over j from d to n."""
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(down[:, None], across[None])
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64).square()
    return terms.flip(0).cumsum(0).flip(0)[distance]


def _window(images: Images, side: int, generator: Generator) -> tuple[slice, slice, slice, slice]:
    """A random square of that side, in all images and channels."""
    top, left = (int(torch.randint(edge - side + 1, (), generator=generator)) for edge in images.shape[2:])
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def _signs(shape: tuple[int, int, int], generator: Generator) -> Image:
    return 2 * torch.randint(2, shape, generator=generator).double() - 1


def _unit(patches: Images) -> Images:
    """Each channel at length 1, or 0 where there is nothing."""
    norms = torch.linalg.vector_norm(patches, dim=(2, 3), keepdim=True)
    return patches / torch.where(norms > 0, norms, 1)


def _spread(values: PerImage) -> Tensor:
    return values[:, None, None, None]
