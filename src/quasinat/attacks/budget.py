"""How far an attack may move an image: a ball around each image, in one of three measures, within the box [0, 1].

Every budget is per image. A budget of 0 leaves the image as it is; an infinite one leaves only the box.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from quasinat.arrays import Image, Images, PerImage
from quasinat.errors import UsageError, did_you_mean


class Budget(ABC):
    """What the attacks need to know of a ball; `images` are always the clean ones, `B C H W` in [0, 1]."""

    @property
    @abstractmethod
    def size(self) -> float:
        """The budget as a number, in its own measure."""

    @abstractmethod
    def resized(self, size: float) -> "Budget":
        """The same kind of budget with another size: how long one step of an iterated attack is."""

    @abstractmethod
    def norms(self, difference: Images) -> PerImage:
        """The norm whose balls these are."""

    @abstractmethod
    def radii(self, images: Images) -> PerImage:
        """The radius of each image's ball in `norms`; may be infinite."""

    @abstractmethod
    def reach(self, images: Images) -> PerImage:
        """As `radii`, but an infinite one becomes the diameter of the box: the longest step that has a meaning."""

    @abstractmethod
    def measure(self, images: Images, perturbed: Images) -> PerImage:
        """How far each image has moved, in the measure of `size`."""

    @abstractmethod
    def step_direction(self, gradient: Images) -> Images:
        """The direction of one ascent step; zero where the gradient is zero."""

    @abstractmethod
    def unit_noise(self, shape: torch.Size, generator: Generator) -> Image:
        """One float64 perturbation, uniform in the unit ball; `shape` is that of one image, the generator a CPU one."""

    def scaled(self, images: Images, direction: Images, fraction: float = 1.0) -> Images:
        """`direction` at that length which uses up the given fraction of the budget; a zero direction stays zero."""
        peaks = _nonzero(_linf_norms(direction))  # divided out first: squares of tiny gradients would underflow
        shrunk = direction / _spread(peaks)
        return shrunk * _spread(fraction * self.reach(images) / _nonzero(self.norms(shrunk)))

    def stretched(self, images: Images, direction: Images, fraction: float = 1.0) -> Images:
        """As `scaled`, of a `step_direction`, whose length is known."""
        return self.scaled(images, direction, fraction)

    def project(self, images: Images, perturbed: Images) -> Images:
        """The nearest point of each image's ball, then clipped to the box (which can only bring it closer)."""
        difference = perturbed - images
        shrink = (self.radii(images) / _nonzero(self.norms(difference))).clamp(max=1)
        return (images + difference * _spread(shrink)).clamp(0, 1)


@dataclass(frozen=True)
class Linf(Budget):
    """No pixel moves by more than `radius`: max |x_adv - x0| <= radius. Steps follow the sign of the gradient.

    Args:
        radius: in pixels of [0, 1]; `inf` leaves only the box.

    Examples:
        >>> import torch
        >>> from quasinat import Linf
        >>> images = torch.tensor([[[[0.0, 0.5]]]])
        >>> Linf(0.1).project(images, torch.tensor([[[[-1.0, 1.0]]]]))  # the ball, then the box
        tensor([[[[0.0000, 0.6000]]]])
    """

    radius: float

    def __post_init__(self) -> None:
        _check_size("Linf radius", self.radius)

    @property
    def size(self) -> float:
        return self.radius

    def resized(self, size: float) -> "Budget":
        return type(self)(size)

    def norms(self, difference: Images) -> PerImage:
        return _linf_norms(difference)

    def radii(self, images: Images) -> PerImage:
        return images.new_full((len(images),), self.radius)

    def reach(self, images: Images) -> PerImage:
        return self.radii(images).nan_to_num(posinf=1.0)

    def measure(self, images: Images, perturbed: Images) -> PerImage:
        return _linf_norms(perturbed - images)

    def step_direction(self, gradient: Images) -> Images:
        return gradient.sign()

    def unit_noise(self, shape: torch.Size, generator: Generator) -> Image:
        return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1

    def stretched(self, images: Images, direction: Images, fraction: float = 1.0) -> Images:
        length = fraction * self.reach(images[:1])
        return direction * _spread(length)  # signs have the length 1, or 0 where all are zero

    def project(self, images: Images, perturbed: Images) -> Images:
        return (perturbed - images).clamp_(-self.radius, self.radius).add_(images).clamp_(0, 1)


@dataclass(frozen=True)
class L2(Budget):
    """The image moves by at most `radius`: ||x_adv - x0||_2 <= radius. Steps follow the normalised gradient.

    Args:
        radius: a length, in pixels of [0, 1]; `inf` leaves only the box.

    Examples:
        >>> import torch
        >>> from quasinat import L2
        >>> moved = L2(0.5).project(torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[[0.8, 0.9]]]]))
        >>> moved.mul(10).round()  # 0.3 and 0.4 are within
        tensor([[[[8., 9.]]]])
    """

    radius: float

    def __post_init__(self) -> None:
        _check_size("L2 radius", self.radius)

    @property
    def size(self) -> float:
        return self.radius

    def resized(self, size: float) -> "Budget":
        return type(self)(size)

    def norms(self, difference: Images) -> PerImage:
        return _l2_norms(difference)

    def radii(self, images: Images) -> PerImage:
        return images.new_full((len(images),), self.radius)

    def reach(self, images: Images) -> PerImage:
        return self.radii(images).nan_to_num(posinf=_diameter(images))

    def measure(self, images: Images, perturbed: Images) -> PerImage:
        return _l2_norms(perturbed - images)

    def step_direction(self, gradient: Images) -> Images:
        return _unit_l2(gradient)

    def unit_noise(self, shape: torch.Size, generator: Generator) -> Image:
        return _noise_in_l2_ball(shape, generator)


@dataclass(frozen=True)
class Dissimilarity(Budget):
    """The paper's L2-dissimilarity (section 5.1): ||x_adv - x0||_2 / ||x0||_2 <= value, for each image.

    A black image has a ball of radius 0 under every finite value. `step` names the direction of one step: `sign`, as
    in the paper's FGSM and BIM, or `gradient`, the steepest one in L2, which is the stronger choice for an iterated
    attack (sign steps in an L2 ball drift to the sign pattern of the gradient, about 4/5 as effective on a flat model).

    Args:
        value: a share of the image's own norm; `inf` leaves only the box.
        step: `sign` or `gradient`, see above.

    Examples:
        >>> import torch
        >>> from quasinat import Dissimilarity
        >>> Dissimilarity(0.03).radii(torch.full((1, 1, 2, 2), 0.5))  # the image's norm is 1
        tensor([0.0300])
    """

    value: float
    step: Literal["sign", "gradient"] = "sign"

    def __post_init__(self) -> None:
        _check_size("L2-dissimilarity", self.value)
        if self.step not in ("sign", "gradient"):
            raise UsageError(f"unknown step {self.step!r}", did_you_mean(self.step, ["sign", "gradient"]))

    @property
    def size(self) -> float:
        return self.value

    def resized(self, size: float) -> "Budget":
        return type(self)(size, self.step)

    def norms(self, difference: Images) -> PerImage:
        return _l2_norms(difference)

    def radii(self, images: Images) -> PerImage:
        if self.value == float("inf"):
            return images.new_full((len(images),), self.value)
        return self.value * _l2_norms(images)

    def reach(self, images: Images) -> PerImage:
        return self.radii(images).nan_to_num(posinf=_diameter(images))

    def measure(self, images: Images, perturbed: Images) -> PerImage:
        """A black image that has moved measures infinity, one that has not measures 0."""
        moved, lengths = _l2_norms(perturbed - images), _l2_norms(images)
        return torch.where(moved == 0, moved, moved / lengths)

    def step_direction(self, gradient: Images) -> Images:
        return gradient.sign() if self.step == "sign" else _unit_l2(gradient)

    def unit_noise(self, shape: torch.Size, generator: Generator) -> Image:
        return _noise_in_l2_ball(shape, generator)


def _check_size(name: str, size: float) -> None:
    if not size >= 0:  # also refuses NaN
        raise UsageError(f"{name} is {size}", "give a number of at least 0; inf leaves only the box [0, 1]")


def _l2_norms(difference: Images) -> PerImage:
    return torch.linalg.vector_norm(difference.flatten(1), dim=1)


def _linf_norms(difference: Images) -> PerImage:
    return difference.flatten(1).abs().amax(1)


def _unit_l2(gradient: Images) -> Images:
    shrunk = gradient / _spread(_nonzero(_linf_norms(gradient)))
    return shrunk / _spread(_nonzero(_l2_norms(shrunk)))


def _noise_in_l2_ball(shape: torch.Size, generator: Generator) -> Image:
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    radius = torch.rand((), generator=generator, dtype=torch.float64) ** (1 / normal.numel())
    return normal * (radius / torch.linalg.vector_norm(normal))


def _diameter(images: Images) -> float:
    return images.shape[1:].numel() ** 0.5


def _spread(values: PerImage) -> Tensor:
    return values[:, None, None, None]


def _nonzero(values: PerImage) -> PerImage:
    return values + (values == 0).to(values.dtype)
