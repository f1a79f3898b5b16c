"""The built-in images: ten colour photographs that ship inside scikit-image and scikit-learn.

Sources: `skimage/data` (astronaut, chelsea, coffee, hubble_deep_field, ihc, motorcycle_left, retina, rocket) and
`sklearn/datasets/images` (china, flower). They are read from the installed packages; nothing is downloaded.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from quasinat.arrays import Image, Images
from quasinat.data.image_files import pixels, read_picture, scale_short_side
from quasinat.errors import InputError, UsageError, did_you_mean

_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "ihc": ("skimage", "data/ihc.png"),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
PHOTOGRAPHS: tuple[str, ...] = tuple(_FILES)
MEAN, DEVIATION = 0.5, 0.2
_SMALLEST_DEVIATION = 1e-3


def photograph(name: str, colour: bool = False, size: int = 256) -> Image:
    """One whole photograph, `1 H W` (ITU-R 601 luma) or with `colour` `3 H W`, float32 in [0, 1].

    Its short side has `size` pixels, resized with antialiasing.

    Raises:
        UsageError: an unknown name, or a size below one.
        InputError: the installed package ships no such file, or a damaged one.
    """
    if name not in _FILES:
        raise UsageError(f"there is no photograph {name!r}", did_you_mean(name, list(PHOTOGRAPHS)))
    if size < 1:
        raise UsageError(
            f"a photograph cannot have a side of {size} pixels", "pass size=256 or another positive number"
        )
    image = _scaled(_path(name), size).float() / 255
    return image if colour else _luma(image)


@lru_cache(maxsize=2 * len(_FILES))
def _scaled(path: Path, size: int) -> UInt8[Tensor, "3 height width"]:
    return pixels(scale_short_side(read_picture(path).convert("RGB"), size))


def _luma(image: Float[Tensor, "3 height width"]) -> Float[Tensor, "1 height width"]:
    """ITU-R 601: Y = 0.299 R + 0.587 G + 0.114 B."""
    red, green, blue = image
    return (0.299 * red + 0.587 * green + 0.114 * blue).clamp(0, 1)[None]


def _path(name: str) -> Path:
    package, inside = _FILES[name]
    distribution = _DISTRIBUTIONS[package]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"{distribution} is not installed, so there is no {inside}", f"pip install {distribution}")
    path = Path(spec.origin).parent / inside
    if not path.is_file():
        problem = f"the installed {distribution} ships no {inside} for the photograph {name!r}"
        raise InputError(problem, f"install another release of {distribution} that ships it")
    return path


def standardise(images: Images) -> Images:
    """Brings each image to mean 0.5 and standard deviation 0.2, then clips to [0, 1].

    Texture and shape stay, brightness and contrast go. An image without contrast becomes plain 0.5.

    Args:
        images: `B C H W` in [0, 1].

    Examples:
        >>> import torch
        >>> from quasinat.data import standardise
        >>> dark = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 10
        >>> round(float(standardise(dark).mean()), 2)
        0.5
    """
    mean = images.mean((1, 2, 3), keepdim=True)
    deviation = images.std((1, 2, 3), correction=0, keepdim=True).clamp_min(_SMALLEST_DEVIATION)
    return ((images - mean) * (DEVIATION / deviation) + MEAN).clamp(0, 1)
