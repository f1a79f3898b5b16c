"""One shard of image files through a transformation: a task that can be done anywhere, again, and by two at once."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import torch

from quasinat.arrays import Image
from quasinat.batches import BATCH_PIXELS, project
from quasinat.data.image_files import CONVERSIONS, SUFFIXES, in_mode, pixels, read_picture
from quasinat.data.image_tree import Size, by_size, png_bytes, to_8_bits
from quasinat.data.places import Place
from quasinat.data.sample import Sample
from quasinat.data.shard_formats import SHARD_FORMATS, format_of
from quasinat.errors import InputError, UsageError
from quasinat.experiments.transforms import NamedTransform
from quasinat.files import parsed_json

RECORDS = ".quasinat"  # the folder in the destination that says of each shard what it is
Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A shard to be made: its name without suffix, and the files of the source that it is made from."""

    name: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    Attributes:
        source, destination: folders.
        format: a key of `SHARD_FORMATS`.
        load: makes the transformation where it is needed.
        identity: what decides the shards' bytes: of the transformation, the format and the source.
        batch_size: images at a time, at most; `None` as many as the memory holds.
        strict: whether the first image that cannot be used ends the job.
    """

    source: Place
    destination: Place
    format: str
    load: Callable[[], NamedTransform]
    identity: Record
    batch_size: int | None = None
    strict: bool = False

    @property
    def fingerprint(self) -> str:
        """Of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()


def plan(source: Place, shard_size: int) -> list[Task]:
    """A task for each tar or table of a folder, or for every `shard_size` image files in the order of their names.

    Raises:
        InputError: it holds neither, or both.
    """
    names = source.names()
    shards = [name for name in names if format_of(name)]
    images = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if bool(shards) == bool(images):
        held = "both image files and shards" if shards else "no image file, no .tar and no .parquet"
        raise InputError(f"{source.url} holds {held}", "pass a folder with one kind of them")
    if images:
        cuts = range(0, len(images), shard_size)
        return [Task(f"shard-{n:05}", tuple(images[start : start + shard_size])) for n, start in enumerate(cuts)]
    tasks = [Task(str(PurePosixPath(name).with_suffix("")), (name,)) for name in shards]
    if len({task.name for task in tasks}) < len(tasks):
        raise UsageError(f"{source.url} holds a .tar and a .parquet of one name", "rename one of them")
    return tasks


def run_tasks(job: Job, transform: NamedTransform, tasks: Sequence[Task], *, at_once: int = 1) -> Iterator[Record]:
    """The records of tasks, in their order.

    Args:
        at_once: so many are in hand, of which one is computed at a time while the files of the others are decoded and
            encoded: 2 keep a device busy that is not the one that does this.
    """
    if at_once == 1:
        yield from (run_task(job, transform, task) for task in tasks)
        return
    turn = Lock()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            yield from pool.map(run_task, repeat(job), repeat(transform), tasks, repeat(turn))
        finally:
            pool.shutdown(cancel_futures=True)


def run_task(
    job: Job, transform: NamedTransform, task: Task, turn: AbstractContextManager[Any] | None = None
) -> Record:
    """Makes a task's shard, unless it is there whole and of this job, and says what it is.

    The shard has its name only once it is whole, and its record, with the shard's SHA-256, is written after it: whoever
    is stopped in between, or does the task a second time, writes the same bytes.

    Args:
        turn: entered while the transformation computes, and not while files are read, decoded, encoded or written.

    Returns:
        `shard`, `sha256`, `images`, `failed` (key and reason of the images that were left out) and `job`.

    Raises:
        InputError: a file of the source that cannot be read at all; with `strict`, an image.
        OutputError: the destination refuses.
    """
    there = finished(job, task)
    if there is not None:
        return there
    form = SHARD_FORMATS[job.format]
    samples, failed = _projected(_samples(job.source, task), transform, job, turn or nullcontext())
    content = form.write(samples)
    record: Record = {
        "shard": task.name + form.suffix,
        "sha256": hashlib.sha256(content).hexdigest(),
        "images": len(samples),
        "failed": failed,
        "job": job.fingerprint,
    }
    job.destination.write(record["shard"], content)
    job.destination.write(_record_of(task), json.dumps(record).encode())
    return record


def finished(job: Job, task: Task) -> Record | None:
    """The record of a task's shard, if that is there, whole and of this job."""
    try:
        record: Record = parsed_json(job.destination.read(_record_of(task)))
        content = job.destination.read(record["shard"])
    except (InputError, KeyError, TypeError, ValueError):
        return None
    whole = hashlib.sha256(content).hexdigest() == record.get("sha256")
    return record if whole and record.get("job") == job.fingerprint else None


def _record_of(task: Task) -> str:
    return f"{RECORDS}/{task.name}.json"


def _samples(source: Place, task: Task) -> list[Sample]:
    """What a task's files hold."""
    (first, *others) = task.files
    form = format_of(first)
    if form is not None and not others:
        return form.read(source.read(first), f"{source.url}/{first}")
    return [Sample(str(PurePosixPath(name).with_suffix("")), source.read(name)) for name in task.files]


def usable(job: Job, transform: NamedTransform, task: Task) -> Iterator[Image]:
    """The images of a task that can be used, one at a time."""
    for sample in _samples(job.source, task):
        try:
            yield _decoded(sample, transform)
        except InputError:
            continue


def _projected(
    samples: Sequence[Sample], transform: NamedTransform, job: Job, turn: AbstractContextManager[Any]
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """The samples with T(x) for their images, as PNG files, in their order; and those that were left out, and why."""
    images: dict[int, Image] = {}
    failed = []
    for place, sample in enumerate(samples):
        try:
            images[place] = _decoded(sample, transform)
        except InputError as error:
            if job.strict:
                raise
            failed.append((sample.key, str(error)))
    made: dict[int, bytes] = {}
    sizes = ((place, (image.shape[1], image.shape[2])) for place, image in images.items())
    for size, group in by_size(sizes, partial(_together, job)):
        batch = torch.stack([images[place] for place in group])
        with turn:
            outputs = to_8_bits(project(transform.project, batch, batch_size=transform.batch(*size)))
        made |= {place: png_bytes(image) for place, image in zip(group, outputs, strict=True)}
    return [replace(sample, image=made[place]) for place, sample in enumerate(samples) if place in made], failed


def _together(job: Job, size: Size) -> int:
    """How many images of a size are projected in one go."""
    return max(1, min(job.batch_size or BATCH_PIXELS, BATCH_PIXELS // (size[0] * size[1])))


def _decoded(sample: Sample, transform: NamedTransform) -> Image:
    """The image as float32 `C H W` in [0, 1], with the channels that the transformation takes."""
    if sample.image is None:
        raise InputError(f"{sample.key} has no image", "leave it out")
    path = Path(sample.key)
    picture = in_mode(read_picture(path, sample.image), path, CONVERSIONS[transform.channels or 3])
    image = pixels(picture).float() / 255
    transform.check(image[None])
    return image
