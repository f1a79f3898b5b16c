"""A folder of image files at any depth: which there are, their pixels as a layer wants them, 8-bit PNG files out."""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from quasinat.arrays import Image, Images
from quasinat.data.image_files import CONVERSIONS, FORMATS, SUFFIXES, in_mode, pixels, read_picture
from quasinat.errors import InputError, UsageError
from quasinat.files import write_bytes

Size = tuple[int, int]  # height, width
_MODES = {1: "L", 3: "RGB"}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
LINKS = 2  # from folder to folder on one path: folders that link to each other make paths without number
_COMPRESSION = 3  # of PNG: half the time of Pillow's 6, for files as small
_SOFTWARE = "quasinat"  # what our files say under PNG's standard keyword of that name


def image_names(root: Path) -> Iterator[str]:
    """The image files below `root` (suffixes in `SUFFIXES`) as relative paths with `/`, sorted by name in each folder.

    Hidden files and folders are left out; links are followed, wherever they lead, but not back to a folder that holds
    them, and not through more than `LINKS` linked folders on one path.

    Raises:
        InputError: a folder that cannot be listed, or one behind too many links.
    """
    for path in _below(root, frozenset(), LINKS):
        yield path.relative_to(root).as_posix()


def _below(folder: Path, above: frozenset[Path], links: int) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror or error})", "check its permissions") from None
    for path in entries:
        if path.is_dir():
            left = links - path.is_symlink()
            if left < 0 and path.resolve() not in above | {real}:
                problem = f"{path} lies behind more than {LINKS} links from folder to folder"
                raise InputError(problem, "pass a folder with fewer links")
            yield from _below(path, above | {real}, left)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


class ImageTree:
    """The images below a folder, read one at a time; their names are relative paths and their labels are not known."""

    kind = "tree"
    channels = 3
    labels: Tensor | None = None

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = list(image_names(root))

    def size(self, index: int) -> Size:
        """Height and width in pixels, from the file's header; an InputError names a file that is no image."""
        return picture_size(self.root / self.names[index])

    def read(self, index: int, channels: int) -> Image:
        """The image as float32 `C H W` in [0, 1]: grey or RGB as the 1 or 3 `channels` ask, transparency over white.

        EXIF turns are not applied.

        Raises:
            InputError: the file is unreadable, or of more than 8 bits per pixel and channel.
        """
        path = self.root / self.names[index]
        return pixels(in_mode(read_picture(path), path, CONVERSIONS[channels])).float() / 255


def picture_size(path: Path) -> Size:
    """Height and width of an image file; only the header is read. Errors as of `read_picture`."""
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an image that is too large is refused when it is read
            with Pillow.open(path, formats=FORMATS) as picture:
                return picture.height, picture.width
    except Exception:  # whatever is wrong, `read_picture` names it
        decoded = read_picture(path)
        return decoded.height, decoded.width


def rows_of_a_size(sized: Iterable[tuple[int, Size]], most: Callable[[Size], int]) -> Iterator[tuple[Size, list[int]]]:
    """Images of one size that follow one another, `most` of them at a time; lazily."""
    for size, members in groupby(sized, key=lambda pair: pair[1]):
        while group := [index for index, _ in islice(members, most(size))]:
            yield size, group


def by_size(sized: Iterable[tuple[int, Size]], most: Callable[[Size], int]) -> list[tuple[Size, list[int]]]:
    """All images of one size in order, `most` of them at a time, in the order of the groups' first images."""
    buckets: dict[Size, list[int]] = {}
    for index, size in sized:
        buckets.setdefault(size, []).append(index)
    cut = [
        (size, bucket[start : start + most(size)])
        for size, bucket in buckets.items()
        for start in range(0, len(bucket), most(size))
    ]
    return sorted(cut, key=lambda group: group[1][0])


def fit_channels(image: Image, channels: int) -> Float[Tensor, "fitted height width"]:
    """Grey repeated as RGB, or RGB as its ITU-R 601 luma, where `channels` ask for it; values in [0, 1].

    Raises:
        InputError: the channels can be brought to each other in neither way.
    """
    found = image.shape[0]
    if found == channels:
        return image
    if (found, channels) == (1, 3):
        return image.repeat(3, 1, 1)
    if (found, channels) == (3, 1):
        return (image * torch.tensor(_LUMA, dtype=image.dtype)[:, None, None]).sum(0, keepdim=True).clamp(0, 1)
    raise InputError(f"an image of {found} channels does not fit a layer of {channels}", "convert it, or leave it out")


def png_names(names: Sequence[str]) -> list[str]:
    """The relative path of each image's PNG file: an image suffix is replaced by `.png`, else `.png` is added.

    Raises:
        UsageError: two images would be written to the same place; names both.
    """
    targets = [f"{_without_suffix(name)}.png" for name in names]
    taken: dict[str, str] = {}
    for name, target in zip(names, targets, strict=True):
        if target in taken:
            raise _collision(taken[target], name, target)
        taken[target] = name
    for target, name in taken.items():  # a file where another one needs a folder
        for parent in PurePosixPath(target).parents:
            if str(parent) in taken:
                raise _collision(taken[str(parent)], name, str(parent))
    return targets


def _without_suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES else name


def _collision(first: str, second: str, target: str) -> UsageError:
    problem = f"{first} and {second} would both be written as {target}"
    return UsageError(problem, "rename one of them, or pass --format shards")


def to_8_bits(images: Images) -> UInt8[Tensor, "batch channels height width"]:
    """round(255 x) of images in [0, 1], halves to even."""
    return (255 * images).round().to(torch.uint8)


def write_png(path: Path, image: UInt8[Tensor, "channels height width"]) -> None:
    """Writes an 8-bit grey or RGB image, whole or not at all; the file names this package as its software."""
    write_bytes(path, png_bytes(image))


def png_bytes(image: UInt8[Tensor, "channels height width"]) -> bytes:
    """The PNG file of an 8-bit grey or RGB image; it names this package as its software."""
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    channels, height, width = image.shape
    content = image.permute(1, 2, 0).contiguous().numpy().tobytes()
    picture = Pillow.frombytes(_MODES[channels], (width, height), content)
    note = PngInfo()
    note.add_text("Software", _SOFTWARE)
    file = io.BytesIO()
    picture.save(file, format="PNG", pnginfo=note, compress_level=_COMPRESSION)
    return file.getvalue()


def read_png(path: Path, channels: int, size: Size) -> UInt8[Tensor, "channels height width"] | None:
    """What `write_png` wrote, if it is there, whole, and of these channels and this size."""
    try:
        picture = read_picture(path)
    except InputError:
        return None
    if picture.mode != _MODES[channels] or (picture.height, picture.width) != size:
        return None
    return pixels(picture)


def our_pngs(root: Path) -> Iterator[Path]:
    """The PNG files below `root` that `write_png` wrote."""
    from PIL import Image as Pillow

    for path in sorted(root.rglob("*.png")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Pillow.open(path, formats=("PNG",)) as picture:
                    ours = picture.info.get("Software") == _SOFTWARE
        except Exception:  # a damaged or foreign file is not ours
            continue
        if ours:
            yield path
