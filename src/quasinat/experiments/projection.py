"""Files in, T(files) out: a tree of images, CIFAR-10 or shards through a transformation, resumable, never two mixed."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.arrays import Image, Images
from quasinat.batches import BATCH_PIXELS, project
from quasinat.data import image_tree, shards
from quasinat.data.image_tree import Size
from quasinat.data.shards import Shard, Source
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.evaluation import psnr
from quasinat.experiments.devices import device_named
from quasinat.experiments.precision import precision_error
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.transforms import NamedTransform
from quasinat.files import read_json, write_json

FORMATS = ("png", "shards")
SHARD_PIXELS = 2**23  # at most, of all images in one; a larger image goes alone
_MADE_BY = "quasinat project"


@dataclass(frozen=True)
class Failure:
    """An image that was left out, and why, with the remedy."""

    name: str
    reason: str


@dataclass(frozen=True)
class ProjectionReport:
    """What `project_files` did.

    Attributes:
        count: images in the source; each was written, skipped or failed.
        written: images written by this run.
        skipped: images that an earlier run had written.
        failed: images that could not be used.
        psnr: name and PSNR in dB between input and output of each image written or skipped; infinite where the two
            are equal. Of PNG files it is that of the rounded image.
        seconds: of this run.
        precision: see `precision_error`.
    """

    count: int
    written: int
    skipped: int
    failed: tuple[Failure, ...]
    psnr: tuple[tuple[str, float], ...]
    seconds: float
    precision: dict[str, Any] | None = None

    def mean_psnr(self) -> float | None:
        """In dB, over the images that differ from their input; None where none does."""
        finite = [value for _, value in self.psnr if math.isfinite(value)]
        return math.fsum(finite) / len(finite) if finite else None

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON holds it; the PSNR of an image that is equal to its input is null."""
        each = {name: value if math.isfinite(value) else None for name, value in self.psnr}
        return asdict(self) | {"mean_psnr": self.mean_psnr(), "psnr": each}


def project_files(
    transform: NamedTransform,
    source: Path,
    destination: Path,
    *,
    format: str | None = None,
    split: str | None = None,
    batch_size: int | None = None,
    shard_size: int = 1000,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ProjectionReport:
    """Sends the images of a folder through a transformation and writes them, keeping names and structure.

    Every file is written whole or not at all, `manifest.json` first; the same call again skips what is there, by its
    name, and ends with the same bytes as a run that was not interrupted. An image that cannot be read or is smaller
    than the transformation can take is left out and named in the report and the manifest.

    PNG files hold round(255 x), under the image's relative path with the suffix .png. A shard holds float32 images of
    one size with their names, labels where known, and PSNR: images of a size are in input order, and shards in the
    order of their first images. Images keep their size. Their channels are converted to those that the transformation
    has learned, 1 or 3; where it takes any, image files become RGB and the others stay as they are.

    Args:
        transform: see `layer_transform` and `defence_transform`.
        source: see `open_source`.
        destination: a folder that is new, empty, or of an earlier run of the same transformation, source and options.
        format: "png" or "shards"; if none is given, png for a tree of images and shards for the others.
        batch_size: images projected together at most; fewer of large ones, and where the memory does not hold as many.
        shard_size: images in a shard; fewer where they have more than `SHARD_PIXELS` pixels in all.
        strict: raise the error of the first image that cannot be used.
        overwrite: remove what an earlier run wrote, and nothing else, if the destination holds another one's images.

    Raises:
        UsageError: unknown options, two images with one PNG file, a destination that is taken or overlaps the source.
        InputError: see `open_source`; with `strict`, of an image.
        OutputError: the file system refuses.
    """
    from importlib.metadata import version

    began = time.perf_counter()
    sparsity = transform.identity.get("lambda", 0.0)
    if not (sparsity >= 0 and math.isfinite(sparsity)):
        raise UsageError(f"--lambda {sparsity} is not a finite number >= 0", "the paper uses 0.2")
    for name, value in (("--batch-size", batch_size), ("--shard-size", shard_size)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value} is not positive", "choose 1 or more")
    if format is not None and format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", did_you_mean(format, list(FORMATS)))
    origin, there = source.resolve(), destination.resolve()
    if origin == there or origin in there.parents or there in origin.parents:
        raise UsageError(f"{destination} and {source} overlap", "choose an OUT beside IN")
    images = shards.open_source(source, split)
    format = format or ("png" if images.kind == "tree" else "shards")
    channels = transform.channels or images.channels
    if channels not in (1, 3) and not (images.kind == format == "shards"):
        problem = f"the {transform.name} is for images of {channels} channels"
        raise UsageError(problem, "use shards of such images, to shards")
    targets = image_tree.png_names(images.names) if format == "png" else []
    identity = {
        **transform.identity,
        "format": format,
        "shard_size": shard_size if format == "shards" else None,
        "source": str(origin),
        "kind": images.kind,
        "split": (split or "test") if images.kind == "cifar10" else None,
        "quasinat": version("quasinat"),
    }
    _take(destination, identity, overwrite)
    manifest = {"made_by": _MADE_BY, **identity, "count": len(images.names), "complete": False, "failed": []}
    write_json(destination / "manifest.json", manifest)
    transform = transform.to(device_named("auto"))
    with (progress or Silent()).task(f"project {len(images.names)} images", len(images.names)) as report:
        run = _Run(transform, images, channels, destination, batch_size or BATCH_PIXELS, strict, report)
        run.to_pngs(targets) if format == "png" else run.to_shards(shard_size)
    failed = tuple(Failure(images.names[index], reason) for index, reason in sorted(run.failed.items()))
    manifest |= {"complete": True, "failed": [asdict(failure) for failure in failed]}
    write_json(destination / "manifest.json", manifest)
    values = tuple((images.names[index], value) for index, value in sorted(run.psnr.items()))
    seconds = round(time.perf_counter() - began, 3)
    usable = (images.read(index, channels) for index in range(len(images.names)) if index not in run.failed)
    error = precision_error(transform, usable)
    return ProjectionReport(len(images.names), run.written, len(values) - run.written, failed, values, seconds, error)


def _take(folder: Path, identity: dict[str, Any], overwrite: bool) -> None:
    """Checks that the folder is new, empty or of a run with this identity; `overwrite` empties it of another's."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", "choose another OUT")
    if not folder.exists() or not any(not path.name.startswith(".") for path in folder.iterdir()):
        return
    try:
        manifest = read_json(folder / "manifest.json")
    except InputError:
        manifest = {}
    if manifest.get("made_by") != _MADE_BY:
        raise UsageError(f"{folder} exists and holds no projected images of ours", "choose another OUT")
    if overwrite:
        for path in [*image_tree.our_pngs(folder), *shards.shards_in(folder)]:
            path.unlink()
        return
    differing = [name for name, value in identity.items() if manifest.get(name) != value]
    if differing:
        problem = f"{folder} holds images projected with another {', '.join(differing)}"
        raise UsageError(problem, "choose another OUT, or pass --overwrite")


@dataclass
class _Run:
    """One pass over a source; what became of each image is kept under its index."""

    transform: NamedTransform
    source: Source
    channels: int
    destination: Path
    batch_size: int
    strict: bool
    report: Callable[[int], None]

    def __post_init__(self) -> None:
        self.failed: dict[int, str] = {}
        self.psnr: dict[int, float] = {}
        self.written = 0

    def to_pngs(self, targets: list[str]) -> None:
        """Batch by batch. If a file of a batch is missing, all of the batch is projected, so that its bytes are equal
        to those of a run that was not interrupted; what an image gets may depend on its batch in the last bits."""
        for size, group in image_tree.rows_of_a_size(self._sized(), partial(_at_most, self.batch_size, BATCH_PIXELS)):
            kept, images = self._read_all(group, size)
            if not kept:
                continue
            paths = [self.destination / targets[index] for index in kept]
            read = [image_tree.read_png(path, self.channels, size) for path in paths]
            there = {place: image for place, image in enumerate(read) if image is not None}
            if len(there) < len(kept):
                made = image_tree.to_8_bits(self._project(images))
                missing = [place for place in range(len(kept)) if place not in there]
                for place in missing:
                    image_tree.write_png(paths[place], made[place])
                self.written += len(missing)
                there |= {place: made[place] for place in missing}
            outputs = torch.stack([there[place] for place in range(len(kept))])
            self._done(kept, psnr(outputs.float() / 255, images))

    def to_shards(self, shard_size: int) -> None:
        """Shard by shard; shards of images that have gone are removed."""
        labels, number = self.source.labels, 0
        for size, group in image_tree.by_size(self._sized(), partial(_at_most, shard_size, SHARD_PIXELS)):
            path = self.destination / shards.shard_name(number)
            kept, values = self._in_shard(path, group, size)
            if values is None:
                kept, images = self._read_all(group, size)
                if not kept:
                    continue
                outputs = self._project(images)
                values = psnr(outputs, images)
                names = tuple(self.source.names[index] for index in kept)
                shards.write_shard(path, Shard(outputs, names, None if labels is None else labels[kept], values))
                self.written += len(kept)
            self._done(kept, values)
            number += 1
        for path in shards.shards_in(self.destination):
            if shards.shard_number(path) >= number:
                path.unlink()

    def _in_shard(self, path: Path, group: list[int], size: Size) -> tuple[list[int], Tensor | None]:
        """The images of a group that are in the shard, and their PSNR; none if another one that can be read is not."""
        try:
            summary = shards.shard_summary(path)
        except InputError:  # missing or damaged
            return [], None
        names, held = self.source.names, set(summary.names)
        kept = [index for index in group if names[index] in held or self._read(index, size) is not None]
        same = [names[index] for index in kept] == list(summary.names) and summary.shape[2:] == size
        return kept, summary.psnr if same else None

    def _sized(self) -> Iterator[tuple[int, Size]]:
        """Every image that is large enough, with its size."""
        for index, name in enumerate(self.source.names):
            try:
                size = self.source.size(index)
                if min(size) < self.transform.least_side:
                    problem = f"{name} has {size[0]} x {size[1]} pixels, fewer than {self.transform.reason}"
                    raise InputError(problem, "leave it out, or use another transformation")
            except InputError as error:
                self._fail(index, error)
            else:
                yield index, size

    def _read(self, index: int, size: Size) -> Image | None:
        try:
            image = self.source.read(index, self.channels)
            if image.shape[1:] != size:
                problem = f"{self.source.names[index]} is not of the {size[0]} x {size[1]} pixels that its header says"
                raise InputError(problem, "save it again, or leave it out")
        except InputError as error:
            self._fail(index, error)
            return None
        return image

    def _read_all(self, group: list[int], size: Size) -> tuple[list[int], Images]:
        """The images of a group that can be used, stacked, and which they are."""
        images = {index: image for index in group if (image := self._read(index, size)) is not None}
        return list(images), torch.stack(list(images.values())) if images else torch.empty(0, self.channels, *size)

    def _project(self, images: Images) -> Images:
        done = len(self.failed) + len(self.psnr)
        size = images.shape[2], images.shape[3]
        most = min(_at_most(self.batch_size, BATCH_PIXELS, size), self.transform.batch(*size))
        return project(
            self.transform.project, images, batch_size=most, on_batch=lambda count: self.report(done + count)
        )

    def _fail(self, index: int, error: InputError) -> None:
        if self.strict:
            raise error
        self.failed[index] = str(error)

    def _done(self, kept: list[int], values: Tensor) -> None:
        self.psnr.update(zip(kept, values.tolist(), strict=True))
        self.report(len(self.failed) + len(self.psnr))


def _at_most(count: int, pixels: int, size: Size) -> int:
    """How many images of a size, `count` or fewer, stay below a number of pixels; at least one."""
    return max(1, min(count, pixels // (size[0] * size[1])))
