"""The images that an exported file is measured on: of a folder, or random ones with a natural spectrum."""

from itertools import islice
from pathlib import Path

import torch

from quasinat.arrays import Images
from quasinat.data.image_files import CONVERSIONS, crop_centre, in_mode, pixels, read_picture, scale_short_side
from quasinat.data.image_tree import image_names
from quasinat.errors import InputError

MOST = 64


def images_in(folder: Path, channels: int, side: int) -> Images:
    """The first 64 images below a folder, `N C side side` in [0, 1]: scaled by their short side, cropped in the centre.

    Raises:
        InputError: the folder is missing or holds no image, or one cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", "name one with images")
    paths = [folder / name for name in islice(image_names(folder), MOST)]
    if not paths:
        raise InputError(f"{folder} holds no image", "name a folder with images")
    pictures = [in_mode(read_picture(path), path, CONVERSIONS[channels]) for path in paths]
    return torch.stack([pixels(crop_centre(scale_short_side(each, side), side)) for each in pictures]).float() / 255


def random_images(channels: int, height: int, width: int, count: int) -> Images:
    """Images with the power spectrum of natural ones, 1 / frequency, each from 0 to 1; always the same."""
    noise = torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    falling = 1 / (rows.square() + columns.square()).sqrt().clamp_min(1 / max(height, width))
    images = torch.fft.irfft2(torch.fft.rfft2(noise) * falling, s=(height, width))
    low, high = images.flatten(1).amin(1), images.flatten(1).amax(1)
    return (images - low.view(-1, 1, 1, 1)) / (high - low).view(-1, 1, 1, 1)
