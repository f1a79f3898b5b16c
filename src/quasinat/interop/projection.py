"""T(x) as one of `torchvision.transforms`: of a PIL image or a tensor, in a pipeline or a data loader."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.data.image_files import CONVERSIONS, in_mode, pixels
from quasinat.data.image_tree import to_8_bits
from quasinat.errors import InputError
from quasinat.layer import SparseTransformationLayer


class Projection:
    """Projects one image; what comes out is of the kind that went in.

    A PIL image becomes RGB, or grey for a layer of one channel, its transparent parts over white. A tensor `C H W` is
    uint8, or floating-point in [0, 1]; with a batch in front, `B C H W`. Picklable, so that a data loader's workers can
    have it.

    Args:
        transform: the Sparse Transformation Layer, or another module of images `B C H W` in [0, 1].
    """

    def __init__(self, transform: nn.Module) -> None:
        self.transform = transform.eval()

    def __call__(self, image: Any) -> Any:
        """T of the image.

        Raises:
            InputError: neither a PIL image nor a tensor, more than 8 bits a channel, or one that the transformation
                cannot take.
        """
        from PIL import Image as Pillow

        if isinstance(image, Pillow.Image):
            grey = isinstance(self.transform, SparseTransformationLayer) and self.transform.filters.shape[-3] == 1
            picture = in_mode(image, Path(getattr(image, "filename", "") or "the image"), CONVERSIONS[1 if grey else 3])
            made = to_8_bits(self._project(pixels(picture).float()[None] / 255))[0]
            return Pillow.fromarray(made[0].numpy() if grey else made.permute(1, 2, 0).contiguous().numpy())
        if not isinstance(image, Tensor):
            raise InputError(f"{type(image).__name__} is no image", "give a PIL image, or a tensor C H W")
        if image.ndim not in (3, 4):
            raise InputError(f"a tensor of shape {tuple(image.shape)} is no image", "give C H W, or B C H W")
        batch = image if image.ndim == 4 else image[None]
        eight_bit = batch.dtype == torch.uint8
        made = to_8_bits(self._project(batch.float() / 255)) if eight_bit else self._project(batch)
        return made if image.ndim == 4 else made[0]

    def __repr__(self) -> str:
        return f"Projection({type(self.transform).__name__})"

    @torch.no_grad()
    def _project(self, images: Tensor) -> Tensor:
        made: Tensor = self.transform(images)
        return made
