"""Shards: safetensors files of many images of one size with their names, read and written one file at a time."""

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from quasinat.arrays import Image
from quasinat.data.cifar10 import BATCHES, CLASSES, read_batch
from quasinat.data.image_tree import ImageTree, Size, fit_channels, image_names
from quasinat.data.sample import stays_inside
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.files import parsed_json, read_tensors, write_tensors

SCHEMA = 1
_NAME = re.compile(r"shard-(\d{5,})\.safetensors")
_KEY = "quasinat"
_KINDS = {"tree": "image files", "cifar10": "CIFAR-10 batches", "shards": "shards"}
_REMEDY = "pass the folder of whole shards that `quasinat project --format shards` wrote"


@dataclass(frozen=True, eq=False)
class Shard:
    """Images of one size.

    Attributes:
        images: float32 `B C H W` in [0, 1].
        names: relative paths with `/`, one an image.
        labels: int64 `B`, where they are known.
        psnr: float32 `B`, in dB, of each image against the one it was made from, where it was made from one.
    """

    images: Float32[Tensor, "batch channels height width"]
    names: tuple[str, ...]
    labels: Int64[Tensor, "batch"] | None = None
    psnr: Float32[Tensor, "batch"] | None = None


@dataclass(frozen=True, eq=False)
class ShardSummary:
    """A shard without its pixels; `shape` is `B C H W`."""

    shape: tuple[int, int, int, int]
    names: tuple[str, ...]
    labels: Int64[Tensor, "batch"] | None
    psnr: Float32[Tensor, "batch"] | None


def shard_name(number: int) -> str:
    """`shard-00000.safetensors` and so on."""
    return f"shard-{number:05}.safetensors"


def shard_number(path: Path) -> int:
    """The number in a shard's name; -1 if it is none."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def shards_in(folder: Path) -> list[Path]:
    """The shards in a folder by their number; what else is there is left out."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if shard_number(path) >= 0 and path.is_file()), key=shard_number)


def write_shard(path: Path, shard: Shard) -> None:
    """Writes a shard, whole or not at all; equal shards give equal bytes."""
    tensors = {"images": shard.images, "labels": shard.labels, "psnr": shard.psnr}
    card = {"schema": SCHEMA, "kind": "shard", "names": shard.names}
    known = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    write_tensors(path, known, {_KEY: json.dumps(card)})


def read_shard(path: Path) -> Shard:
    """Reads what `write_shard` wrote; the pixels' values are not checked.

    Raises:
        InputError: the file is missing, truncated, or no shard of ours; in one line.
    """
    summary = shard_summary(path)
    return Shard(read_tensors(path)[0]["images"], summary.names, summary.labels, summary.psnr)


def shard_summary(path: Path) -> ShardSummary:
    """All but the pixels of a shard, which stay on the disk; errors as of `read_shard`."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is missing", "make it again, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            card = parsed_json((file.metadata() or {}).get(_KEY, "null"))
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            kinds = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in found.items()}
            names = _checked(path, card, kinds)
            labels, psnr = (file.get_tensor(name) if name in kinds else None for name in ("labels", "psnr"))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error})", "delete it and make it again") from None
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{path} is no shard of images", _REMEDY) from None
    return ShardSummary(kinds["images"][1], names, labels, psnr)


def _checked(path: Path, card: Any, kinds: dict[str, tuple[str, tuple[int, ...]]]) -> tuple[str, ...]:
    """The names in a shard's card, once they, the tensors' types and the tensors' shapes fit together."""
    match card:
        case {"kind": "shard", "schema": int(schema)} if schema != SCHEMA:
            raise InputError(f"{path} has schema {schema}, this version reads {SCHEMA}", "make it again")
        case {"kind": "shard", "names": list(names)} if all(type(name) is str for name in names):
            pass
        case _:
            raise InputError(f"{path} is no shard of images", _REMEDY)
    count = len(names)
    expected = {"labels": ("I64", (count,)), "psnr": ("F32", (count,))}
    kind, shape = kinds.get("images", ("", ()))
    fits = all(kinds[name] == form for name, form in expected.items() if name in kinds)
    if kind != "F32" or len(shape) != 4 or shape[0] != count or 0 in shape or not fits:
        raise InputError(f"{path} is no shard of images (its tensors do not fit its {count} names)", _REMEDY)
    for name in names:
        if not stays_inside(name):
            raise InputError(f"{path} names an image {name!r}, which is no relative path", _REMEDY)
    return tuple(names)


@runtime_checkable
class Source(Protocol):
    """Named images that are read one at a time."""

    kind: str
    names: list[str]
    labels: Tensor | None
    channels: int  # as they are read where nothing asks for others

    def size(self, index: int) -> Size:
        """Height and width in pixels; an InputError names a file that is no image."""

    def read(self, index: int, channels: int) -> Image:
        """The image as float32 `C H W` in [0, 1]; an InputError names one that cannot be used."""


class Parts:
    """The images in a row of files, each of which is read whole when its turn comes; one is held at a time.

    Args:
        kind: what they are: "shards" or "cifar10".
        paths: the files.
        names, labels: of the images of all files, in order.
        shapes: of each file, `B C H W`.
        load: reads a file's images, `B C H W`, 8-bit or float32 in [0, 1].
    """

    def __init__(
        self,
        kind: str,
        paths: Sequence[Path],
        names: Sequence[str],
        labels: Tensor | None,
        shapes: Sequence[tuple[int, ...]],
        load: Callable[[Path], Tensor],
    ) -> None:
        self.kind, self.names, self.labels = kind, list(names), labels
        self.channels = shapes[0][1]
        self._paths, self._shapes, self._load = paths, shapes, load
        lengths = torch.tensor([shape[0] for shape in shapes])
        self._starts: list[int] = (lengths.cumsum(0) - lengths).tolist()
        self._held: tuple[int, Tensor] | None = None

    def size(self, index: int) -> Size:
        """Height and width in pixels."""
        height, width = self._shapes[self._part(index)][2:]
        return height, width

    def read(self, index: int, channels: int) -> Image:
        """The image as float32 `C H W` in [0, 1], see `fit_channels`; an InputError names one with other values."""
        part = self._part(index)
        if self._held is None or self._held[0] != part:
            self._held = None  # let it go before the next one comes
            self._held = (part, self._load(self._paths[part]))
        image = self._held[1][index - self._starts[part]]
        if image.dtype == torch.uint8:
            return fit_channels(image.float() / 255, channels)
        low, high = (float(bound) for bound in image.aminmax())
        if not (low >= 0 and high <= 1):  # NaN lands here as well
            problem = f"{self.names[index]} in {self._paths[part]} has values from {low:g} to {high:g}, not in [0, 1]"
            raise InputError(problem, "make it again, or leave it out")
        return fit_channels(image, channels)

    def _part(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1


def shard_folder(folder: Path) -> Parts:
    """The images of all shards in a folder.

    Raises:
        InputError: a shard is missing, damaged or not ours.
    """
    paths = shards_in(folder)
    for number, path in enumerate(paths):
        if shard_number(path) != number:
            raise InputError(f"{folder / shard_name(number)} is missing", "run the command that made the shards again")
    summaries = [shard_summary(path) for path in paths]
    labels = [summary.labels for summary in summaries if summary.labels is not None]
    return Parts(
        "shards",
        paths,
        [name for summary in summaries for name in summary.names],
        torch.cat(labels) if len(labels) == len(summaries) else None,
        [summary.shape for summary in summaries],
        lambda path: read_shard(path).images,
    )


def open_source(root: Path, split: str | None = None) -> Source:
    """The images of a folder, whose kind is recognised from what is there.

    Args:
        root: a tree of image files, `cifar-10-batches-py` or the folder that holds it, or a folder of shards.
        split: of CIFAR-10: "train" or "test"; "test" if none is given.

    Raises:
        InputError: the folder is missing, holds none of them or more than one, or damaged ones.
        UsageError: an unknown split, or a split of something else.
    """
    if not root.is_dir():
        remedy = "pass the folder that holds it" if root.is_file() else "check the path"
        raise InputError(f"{root} is a file" if root.is_file() else f"there is no folder {root}", remedy)
    if split is not None and split not in BATCHES:
        raise UsageError(f"CIFAR-10 has no split {split!r}", did_you_mean(split, list(BATCHES)))
    batches = [path.parent for names in BATCHES.values() for name in names for path in _batch_places(root, name)]
    found = {"tree": any(True for _ in image_names(root)), "cifar10": bool(batches), "shards": bool(shards_in(root))}
    kinds = [kind for kind, there in found.items() if there]
    if not kinds:
        raise InputError(f"{root} holds no {', no '.join(_KINDS.values())}", "pass a folder that does")
    if len(kinds) > 1:
        both = " and ".join(_KINDS[kind] for kind in kinds)
        raise InputError(f"{root} holds {both}, so it is not clear what is meant", "pass a folder with one of them")
    if split is not None and kinds != ["cifar10"]:
        raise UsageError(f"--split {split} is of CIFAR-10, and {root} holds {_KINDS[kinds[0]]}", "leave it out")
    if kinds == ["tree"]:
        return ImageTree(root)
    return shard_folder(root) if kinds == ["shards"] else cifar10_parts(batches[0], split or "test")


def _batch_places(root: Path, name: str) -> list[Path]:
    return [path for path in (root / "cifar-10-batches-py" / name, root / name) if path.is_file()]


def cifar10_parts(folder: Path, split: str) -> Parts:
    """The images of one split, read a batch at a time, named `<class>/<index in the split>`; errors of `read_batch`."""
    paths = [folder / name for name in BATCHES[split]]
    labels = torch.cat([read_batch(path)[1] for path in paths])
    names = [f"{CLASSES[label]}/{index:05}" for index, label in enumerate(labels.tolist())]
    shape = (len(labels) // len(paths), 3, 32, 32)
    return Parts("cifar10", paths, names, labels, [shape] * len(paths), lambda path: read_batch(path)[0])
