"""Pixel deflection: some pixels, away from what matters, take the value of a neighbour; then wavelet shrinkage."""

import torch
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.attacks.checks import check_count, check_number
from quasinat.defences.class_activation import Maps, check_network, robust_activation_map
from quasinat.defences.draws import Seed, generators
from quasinat.defences.transformation import Transformation
from quasinat.defences.wavelet import wavelet_shrinkage
from quasinat.errors import InputError, UsageError

NAME = "pixel-deflection"
SOURCE_SHARE = 200 / 224**2
"""Of an image's pixels: what 200 deflections are in the source, about 0.4 %."""

ROUNDS = 100
"""How many places are drawn for each deflection at most; about as many are passed over where a map is 0.99."""


def deflect_pixels(
    images: Images,
    *,
    deflections: int = 200,
    share: float | None = None,
    window: int = 10,
    maps: Maps | None = None,
    seed: Seed = 0,
) -> Images:
    """Images in which randomly chosen pixels have been replaced by a random neighbour each.

    (Prakash, Moran, Garber, DiLillo & Storer 2018, "Deflecting Adversarial Attacks with Pixel Deflection",
    Algorithm 1.) A place is drawn uniformly and, with a map, passed over with the probability that the map has
    there. One that is not passed over takes the value of a place drawn uniformly from the square around it, cut off at
    the image's edges; it may be the same. One deflection follows another, so that a pixel can be moved on.

    Args:
        images: `B C H W` in [0, 1].
        deflections: how many; 200 in the source, at 224 x 224 pixels, where they are 0.4 % of them. Of a CIFAR image
            they are 20 %.
        share: how many as a share of the pixels, in (0, 1], in place of `deflections`; `SOURCE_SHARE` is the source's.
        window: the farthest that a value comes from, along either axis, in pixels; 10 in the source.
        maps: `B H W` in [0, 1], such as `robust_activation_map`'s: where not to deflect. None deflects anywhere.
        seed: see `quasinat.defences.draws`.

    Returns:
        The images; no value in them is new. Where a map is so near 1 that the places drawn, `ROUNDS` for each
        deflection, do not suffice, fewer are deflected; where it is 1, none.

    Raises:
        UsageError: a negative number of deflections, a share outside (0, 1], or a window below 1.
        InputError: maps that are not one for each image, of its size and in [0, 1].

    What differs from the source: the paper's algorithm moves whole pixels, as here, while the authors' code
    (iamaaditya/pixel-deflection) moves one channel's value at a time and counts it as a deflection; there, row and
    column 0 give no values, by an oversight; and a map of 1 all over never ends. The paper's algorithm reads every
    value from the image given; here one deflection sees those before it, as in the code.
    """
    check_settings(deflections, share, window)
    height, width = images.shape[2:]
    if maps is not None:
        _check_maps(maps, images)
    count = deflections if share is None else round(share * height * width)
    origins = torch.arange(height * width).repeat(len(images), 1)
    passed = [None] * len(images) if maps is None else maps.detach().to("cpu", torch.float64).unbind()
    for row, generator, chance in zip(origins, generators(images, seed, NAME), passed, strict=True):
        moves = _moves(generator, count, window, height, width, chance)
        if moves:
            row[list(moves)] = torch.tensor(list(moves.values()))
    index = origins.to(images.device)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)


def _moves(
    generator: torch.Generator, count: int, window: int, height: int, width: int, passed: Tensor | None
) -> dict[int, int]:
    """Which pixel of the image given each deflected pixel has in the end; pixels are numbered row by row."""
    sides = torch.tensor((height, width))
    moves: dict[int, int] = {}
    done = 0
    for _ in range(ROUNDS):
        # A row is a deflection: the place, whether it is passed over, and where in its window the value comes from.
        draws = torch.rand(count, 5, generator=generator, dtype=torch.float64)
        places = (draws[:, :2] * sides).long()
        if passed is not None:
            kept = draws[:, 2] >= passed[places[:, 0], places[:, 1]]
            places, draws = places[kept], draws[kept]
        places, draws = places[: count - done], draws[: count - done]
        low = (places - window).clamp_min(0)
        high = torch.minimum(places + window, sides - 1)
        sources = low + (draws[:, 3:] * (high - low + 1)).long()
        numbers = torch.stack((places, sources), 1) @ torch.tensor((width, 1))
        for place, source in numbers.tolist():
            moves[place] = moves.get(source, source)
        done += len(places)
        if done == count:
            break
    return moves


class PixelDeflection(Transformation):
    """Pixel deflection away from what a network looks at, and wavelet shrinkage: the PD-Ens of Prakash et al. (2018).

    The map is that of the image given, adversarial or not. The gradient is not the true one, because places are drawn:
    name `Identity()`, as Athalye & Carlini (2018, "On the Robustness of the CVPR 2018 White-Box Adversarial Example
    Defenses") do in attacking this defence.

    Args:
        network: whose `robust_activation_map` says where not to deflect; see there. Without one, anywhere.
        deflections: see `deflect_pixels`; so are `share`, `window` and `seed`.
        shrink: whether `wavelet_shrinkage` follows.
        sigma: of the shrinkage, in units of a colour channel's range.

    Raises:
        UsageError: a value that cannot be, or a network without class activation maps.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        *,
        deflections: int = 200,
        share: float | None = None,
        window: int = 10,
        shrink: bool = True,
        sigma: float = 0.04,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        check_settings(deflections, share, window)
        check_number("sigma", sigma)
        if network is not None:
            check_network(network)
        self.network = network
        self.deflections, self.share, self.window = deflections, share, window
        self.shrink, self.sigma, self.seed = shrink, sigma, seed

    def transform(self, images: Images) -> Images:
        """The images deflected and, if `shrink`, shrunk."""
        maps = None if self.network is None else robust_activation_map(self.network, images)
        deflected = deflect_pixels(
            images, deflections=self.deflections, share=self.share, window=self.window, maps=maps, seed=self.seed
        )
        return wavelet_shrinkage(deflected, sigma=self.sigma) if self.shrink else deflected


def check_settings(deflections: int, share: float | None, window: int) -> None:
    """Refuses what `deflect_pixels` cannot do on any image."""
    check_count("deflections", deflections, 0)
    check_count("window", window)
    if share is not None and not 0 < share <= 1:
        raise UsageError(f"a share of {share} of the pixels cannot be deflected", "give one above 0, up to 1")


def _check_maps(maps: Tensor, images: Images) -> None:
    wanted = (len(images), *images.shape[2:])
    if maps.shape != wanted:
        raise InputError(f"the maps have shape {tuple(maps.shape)}", f"give one for each image: {wanted}")
    if not bool(((maps >= 0) & (maps <= 1)).all()):
        raise InputError("the maps leave [0, 1]", "scale them, as robust_activation_map does")
