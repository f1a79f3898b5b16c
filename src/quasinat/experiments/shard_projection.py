"""Folders of image files, tars or tables through a transformation, shard by shard, by an engine."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quasinat.data.places import Place
from quasinat.data.shard_formats import SHARD_FORMATS
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.experiments.local_engine import run_here
from quasinat.experiments.precision import precision_error
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.ray_engine import run_on_ray
from quasinat.experiments.shard_tasks import Job, Record, Task, plan, usable
from quasinat.experiments.transforms import NamedTransform
from quasinat.files import parsed_json

MANIFEST = "manifest.json"
MADE_BY = "quasinat project"
Workers = tuple[int, int]
Engine = Callable[[Job, Sequence[Task], Workers], Iterable[Record]]


@dataclass(frozen=True)
class ShardReport:
    """What became of the source's images: written into `shards`, or `failed` (key and reason), `precision_error`."""

    images: int
    shards: int
    failed: tuple[tuple[str, str], ...]
    precision: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


ENGINES: Mapping[str, Engine] = {"local": run_here, "ray": run_on_ray}


def project_shards(
    load: Callable[[], NamedTransform],
    source: str,
    destination: str,
    *,
    format: str = "webdataset",
    engine: str = "local",
    workers: Workers = (1, 1),
    batch_size: int | None = None,
    shard_size: int = 1000,
    strict: bool = False,
    progress: Progress | None = None,
) -> ShardReport:
    """Sends every image of a folder through a transformation into shards, the same bytes by every engine.

    A tar or table of the source becomes a shard of the same name; image files are put together, `shard_size` to a
    shard, in the order of their names. T(x) is a PNG file; what else a sample has is passed on. Each shard has its name
    only once it is whole. The same call again makes what is missing, damaged or unfinished, and nothing twice; a
    destination of another transformation, format or source is refused. `manifest.json` has every shard with its SHA-256
    and count.

    Args:
        load: makes the transformation, wherever a worker is.
        source, destination: folders: paths, or URLs that fsspec opens.
        format: of the shards, a key of `SHARD_FORMATS`.
        engine: a key of `ENGINES`.
        workers: at least, and at most; the local engine has as many as at most.
        batch_size: images at a time, at most; `None` as many as the memory holds.
        shard_size: image files in a shard.
        strict: end at the first image that cannot be used; otherwise they are left out and named.

    Raises:
        UsageError: an unknown option, or a destination that is another job's.
        InputError: the source holds no images, or one of its files cannot be read; with `strict`, an image.
        OutputError: the destination refuses.
    """
    for name, value, known in (("format", format, SHARD_FORMATS), ("engine", engine, ENGINES)):
        if value not in known:
            raise UsageError(f"there is no {name} {value!r}", did_you_mean(value, list(known)))
    for name, count in (("--batch-size", batch_size), ("--shard-size", shard_size), ("--workers", workers[0])):
        if count is not None and count < 1:
            raise UsageError(f"{name} {count} is not positive", "choose 1 or more")
    if workers[1] < workers[0]:
        raise UsageError(f"--workers {workers[0]},{workers[1]} is no range", "give the least and the most, as 1,4")
    here, there = Place(source).absolute(), Place(destination).absolute()
    if here.overlaps(there):
        raise UsageError(f"{destination} and {source} overlap", "choose an OUT beside IN")
    tasks = plan(here, shard_size)
    transform = load()
    job = Job(here, there, format, load, _identity(transform, here.url, format, shard_size), batch_size, strict)
    _take(there, job)
    records = []
    with (progress or Silent()).task(f"project {len(tasks)} shards", len(tasks)) as report:
        for record in ENGINES[engine](job, tasks, workers):
            records.append(record)
            report(len(records))
    records.sort(key=lambda record: record["shard"])
    failed = tuple((key, reason) for record in records for key, reason in record["failed"])
    error = precision_error(transform, usable(job, transform, tasks[0]))
    made = ShardReport(sum(record["images"] for record in records), len(records), failed, error)
    shards = [{name: record[name] for name in ("shard", "sha256", "images")} for record in records]
    _write(there, {**_manifest(job), "complete": True, **made.as_json(), "shards": shards})
    return made


def _identity(transform: NamedTransform, source: str, format: str, shard_size: int) -> Record:
    from importlib.metadata import version

    return {
        **transform.identity,
        "source": source,
        "format": format,
        "shard_size": shard_size,
        "quasinat": version("quasinat"),
    }


def _manifest(job: Job) -> Record:
    return {"made_by": MADE_BY, "complete": False, "job": job.fingerprint, "identity": job.identity}


def _take(destination: Place, job: Job) -> None:
    """Marks the destination as the job's."""
    if destination.holds(MANIFEST):
        manifest = _read(destination)
        if manifest.get("made_by") != MADE_BY or "identity" not in manifest:
            raise UsageError(f"{destination.url} holds no shards of ours", "choose another OUT")
        theirs = manifest["identity"]
        differing = sorted(name for name in {*theirs, *job.identity} if theirs.get(name) != job.identity.get(name))
        if differing:
            problem = f"{destination.url} holds shards made with another {', '.join(differing)}"
            raise UsageError(problem, "choose another OUT")
        return
    if destination.names():
        raise UsageError(f"{destination.url} holds files and no manifest of ours", "choose another OUT")
    _write(destination, _manifest(job))


def _read(destination: Place) -> Record:
    try:
        manifest = parsed_json(destination.read(MANIFEST))
    except (InputError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _write(destination: Place, manifest: Record) -> None:
    import json

    destination.write(MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
