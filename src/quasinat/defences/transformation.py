"""What all input transformations share: images in, images out, the settings that decide them, a gradient by name."""

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import nn

from quasinat.arrays import Images
from quasinat.defences.image_bounds import check_input
from quasinat.errors import UsageError

LEAST_SIDE = 32


class Transformation(nn.Module):
    """An input transformation: images `B C H W` in [0, 1] to images of the same shape and range.

    A subclass keeps its settings in public attributes, tensors in buffers or submodules, and does its work in
    `transform`. What an image gets does not depend on the others in its batch.

    A transformation whose derivative is zero or undefined refuses to be differentiated unless the caller names a
    gradient, as in `Defended(transform, classifier).with_adjoint(Identity())`: the straight-through one.
    """

    differentiable: ClassVar[bool] = False
    """Whether automatic differentiation gives the true gradient, and one that an attack can use."""

    least_side: ClassVar[int] = LEAST_SIDE
    """Of the images, in pixels."""

    def forward(self, images: Images) -> Images:
        """The transformed images.

        Raises:
            InputError: images that are not `B C H W`, finite and in [0, 1], or too small; names the image.
            UsageError: a gradient is wanted and none is named.
        """
        check_input(images, type(self).__name__, self.least_side)
        if self.differentiable:
            return self.transform(images)
        if torch.is_grad_enabled() and images.requires_grad:
            raise UsageError(
                f"no gradient is named for {type(self).__name__}",
                "name one, as in defended.with_adjoint(quasinat.Identity())",
            )
        with torch.no_grad():
            return self.transform(images)

    def transform(self, images: Images) -> Images:
        """The work itself, on images that are checked."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What decides the transformation besides its tensors, as JSON holds it."""
        plain = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "training"}
        kept = (bool, int, float, str, tuple, type(None))
        return {name: value for name, value in plain.items() if isinstance(value, kept)}


class Views(Transformation):
    """A transformation that makes several views of an image; `Defended` averages the class probabilities over them.

    As a plain transformation, for training images, it gives one view. A subclass defines `views`.
    """

    def views(self, images: Images) -> Iterator[Images]:
        """The views, each `B C H W` in [0, 1] of one size, one after another."""
        raise NotImplementedError


def _with_seed(module: Any, seed: int | None) -> Any:
    """A copy that shares tensors, with every `seed` in it replaced."""
    other = copy.copy(module)
    other._modules = {name: part and _with_seed(part, seed) for name, part in module._modules.items()}
    if "seed" in vars(other):
        other.seed = seed
    return other


def with_seed(module: nn.Module, seed: int | None) -> nn.Module:
    """Any module, such as a `Defended`, with the seed of every randomised part of it replaced; tensors are shared.

    With `None` every call draws afresh, as `Expectation` and `worst_of` need of a randomised defence.
    """
    changed: nn.Module = _with_seed(module, seed)
    return changed
