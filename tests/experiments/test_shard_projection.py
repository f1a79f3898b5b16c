"""Shards through a transformation: the same bytes by every engine, after any interruption, and never two mixed."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from layers import images_of, stratified
from quasinat import cli
from quasinat.data.image_tree import png_bytes, to_8_bits
from quasinat.data.places import Place
from quasinat.data.sample import Sample
from quasinat.data.shard_formats import SHARD_FORMATS
from quasinat.errors import InputError, OutputError, ProcessError, UsageError
from quasinat.experiments import shard_tasks
from quasinat.experiments.shard_projection import project_shards
from quasinat.experiments.shard_tasks import Job, plan, run_tasks
from quasinat.experiments.transforms import NamedTransform, layer_transform
from quasinat.files import read_json

TAR, TABLE = SHARD_FORMATS["webdataset"], SHARD_FORMATS["parquet"]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    stratified().save(tmp_path / "layer.stl")
    return tmp_path / "layer.stl"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two tars of five images of two sizes each, with labels."""
    for number in range(2):
        images = images_of(3, 5)
        files = [png_bytes(to_8_bits(image[None, :, : 20 - 2 * (n % 2)])[0]) for n, image in enumerate(images)]
        samples = [Sample(f"{number}{n}", file, {"cls": str(n).encode()}) for n, file in enumerate(files)]
        path = tmp_path / "source" / "train" / f"{number}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TAR.write(samples))
    return tmp_path / "source"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(layer: Path, source: Path, out: Path, **options: Any) -> Any:
    return project_shards(partial(layer_transform, layer), str(source), str(out), **options)


def test_a_shard_has_t_of_its_images_and_the_rest_as_it_was(layer: Path, source: Path, tmp_path: Path) -> None:
    report = run(layer, source, tmp_path / "out")
    assert (report.images, report.shards, report.failed) == (10, 2, ())
    module = layer_transform(layer).module
    for name in ("train/0.tar", "train/1.tar"):
        given = TAR.read((source / name).read_bytes(), name)
        made = TAR.read((tmp_path / "out" / name).read_bytes(), name)
        assert [(sample.key, sample.rest) for sample in made] == [(sample.key, sample.rest) for sample in given]
        for before, after in zip(given, made, strict=True):
            image = torch.from_numpy(_array(before.image)).permute(2, 0, 1)[None].float() / 255
            expected = to_8_bits(module(image))[0].permute(1, 2, 0)
            assert (torch.from_numpy(_array(after.image)).int() - expected.int()).abs().max() <= 1
    manifest: Any = read_json(tmp_path / "out" / "manifest.json")
    assert manifest["complete"]
    assert manifest["images"] == 10
    assert [shard["images"] for shard in manifest["shards"]] == [5, 5]


def _array(content: bytes | None) -> Any:
    import numpy as np

    assert content is not None
    return np.array(Image.open(io.BytesIO(content)))


def test_image_files_are_put_together_and_tables_are_taken(layer: Path, tmp_path: Path) -> None:
    for n, image in enumerate(images_of(3, 5)):
        path = tmp_path / "tree" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png_bytes(to_8_bits(image[None])[0]))
    report = run(layer, tmp_path / "tree", tmp_path / "table", format="parquet", shard_size=2)
    assert (report.images, report.shards) == (5, 3)
    rows = TABLE.read((tmp_path / "table" / "shard-00000.parquet").read_bytes(), "x")
    assert [row.key for row in rows] == ["a/0", "a/2"]
    again = run(layer, tmp_path / "table", tmp_path / "tar")
    assert (again.images, again.shards) == (5, 3)
    assert [sample.key for sample in TAR.read((tmp_path / "tar" / "shard-00000.tar").read_bytes(), "x")] == [
        "a/0",
        "a/2",
    ]


def test_what_is_there_is_not_made_again_and_what_is_damaged_is(
    layer: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(layer, source, out)
    whole = contents(out)
    made: list[str] = []
    projected = shard_tasks._projected

    def counting(samples: Any, *rest: Any) -> Any:
        made.append(samples[0].key)
        return projected(samples, *rest)

    monkeypatch.setattr(shard_tasks, "_projected", counting)
    run(layer, source, out)
    assert (made, contents(out)) == ([], whole)
    shard = out / "train" / "1.tar"
    for harm in (
        lambda: shard.unlink(),
        lambda: shard.write_bytes(b"x"),
        lambda: shard.write_bytes(whole["train/1.tar"][:-9]),
    ):
        harm()
        run(layer, source, out)
        assert contents(out) == whole
    (out / ".quasinat" / "train" / "0.json").write_text("{", encoding="utf-8")
    run(layer, source, out)
    assert (made, contents(out)) == (["10", "10", "10", "00"], whole)


def test_bad_images_are_left_out_and_named_and_strict_stops(
    layer: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = source / "train" / "1.tar"
    samples = TAR.read(path.read_bytes(), "x")
    samples[2] = Sample("12", b"no image", samples[2].rest)
    samples[4] = Sample("14", None, samples[4].rest)
    path.write_bytes(TAR.write(samples))
    arguments = ["project", str(source), str(tmp_path / "out"), "--layer", str(layer), "--format", "webdataset"]
    for _ in range(2):  # what was left out is told again
        assert cli.run(arguments) == 1
        said = capsys.readouterr()
        assert "failed          2" in said.out
        assert "12 cannot be read as an image" in said.err
        assert "14 has no image" in said.err
    left = TAR.read((tmp_path / "out" / "train" / "1.tar").read_bytes(), "x")
    assert [sample.key for sample in left] == ["10", "11", "13"]
    with pytest.raises(InputError, match="12 cannot be read as an image"):
        run(layer, source, tmp_path / "strict", strict=True)
    path.write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"train/1\.tar is damaged or no tar"):
        run(layer, source, tmp_path / "damaged")
    assert [name for name in contents(tmp_path / "damaged") if name.endswith("tar")] == ["train/0.tar"]


def test_two_layers_are_not_mixed_and_bad_requests_are_refused(layer: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(layer, source, out)
    before = contents(out)
    stratified(sparsity=0.2).save(tmp_path / "other.stl")
    with pytest.raises(UsageError, match="another lambda, layer"):
        run(tmp_path / "other.stl", source, out)
    with pytest.raises(UsageError, match="another shard_size"):
        run(layer, source, out, shard_size=7)
    assert contents(out) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    with pytest.raises(UsageError, match="holds files and no manifest of ours"):
        run(layer, source, tmp_path / "full")
    with pytest.raises(UsageError, match="no engine 'rya'; did you mean 'ray'"):
        run(layer, source, tmp_path / "new", engine="rya")
    with pytest.raises(UsageError, match="no format 'tar'"):
        run(layer, source, tmp_path / "new", format="tar")
    with pytest.raises(UsageError, match="--workers 4,1 is no range"):
        run(layer, source, tmp_path / "new", workers=(4, 1))
    for inside in (source, source / "train", source.parent):
        with pytest.raises(UsageError, match="overlap; choose an OUT beside IN"):
            run(layer, source, inside)
    said = ["project", str(source), str(tmp_path / "new"), "--layer", str(layer), "--format", "parquet"]
    assert cli.run([*said, "--overwrite"]) == 2
    assert cli.run([*said, "--split", "test"]) == 2
    (source / "image.png").write_bytes(b"")
    with pytest.raises(InputError, match="holds both image files and shards"):
        run(layer, source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_runs_at_once_leave_what_one_leaves(layer: Path, source: Path, tmp_path: Path) -> None:
    from threading import Thread

    run(layer, source, tmp_path / "one")
    threads = [Thread(target=run, args=(layer, source, tmp_path / "two")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two


class Device(nn.Module):
    """Stands in for a device of its own: it computes without the processor's help, one batch at a time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.batches = seconds, 0
        self.at_once, self.most = 0, 0

    def forward(self, images: Tensor) -> Tensor:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        time.sleep(self.seconds)
        self.batches += 1
        self.at_once -= 1
        return images


def test_files_are_decoded_and_encoded_while_the_device_computes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(10):
        images = to_8_bits(images_of(3, 40).tile(1, 1, 8, 8))
        samples = [Sample(f"{number}{n}", png_bytes(image)) for n, image in enumerate(images)]
        (source / f"{number}.tar").write_bytes(TAR.write(samples))
    tasks = plan(Place(str(source)), 10)
    took = {}
    for at_once in (1, 2):
        device = Device(0.1)
        transform = NamedTransform(device, {})
        job = Job(
            Place(str(source)), Place(str(tmp_path / str(at_once))), "webdataset", lambda: layer_transform(tmp_path), {}
        )
        start = time.perf_counter()
        records = list(run_tasks(job, transform, tasks, at_once=at_once))
        took[at_once] = time.perf_counter() - start
        assert [record["images"] for record in records] == [40] * 10
        assert device.most == 1
        assert device.batches == 10
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    files = took[1] - 10 * 0.1
    assert took[2] < 10 * 0.1 + 0.6 * files  # those of the first and the last shard cannot be hidden


def test_an_error_ends_the_tasks_that_are_in_hand(layer: Path, source: Path, tmp_path: Path) -> None:
    (source / "train" / "0.tar").write_bytes(b"no tar")
    job = Job(Place(str(source)), Place(str(tmp_path / "out")), "webdataset", partial(layer_transform, layer), {})
    with pytest.raises(InputError, match=r"0\.tar"):
        list(run_tasks(job, job.load(), plan(job.source, 10), at_once=2))


@pytest.mark.processes
def test_several_processes_make_the_same_bytes_also_when_one_is_killed(
    layer: Path, source: Path, tmp_path: Path
) -> None:
    for number in range(2, 12):
        (source / "train" / f"{number}.tar").write_bytes((source / "train" / f"{number % 2}.tar").read_bytes())
    whole = run(layer, source, tmp_path / "whole")
    assert run(layer, source, tmp_path / "two", workers=(2, 2)) == whole
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")
    load = partial(killed_once, tmp_path, layer, os.getpid())
    made = project_shards(load, str(source), str(tmp_path / "three"), workers=(2, 2))
    assert (tmp_path / "killed").exists()
    assert (made.images, made.shards, made.failed) == (whole.images, whole.shards, whole.failed)
    assert contents(tmp_path / "three") == contents(tmp_path / "whole")
    with pytest.raises(ProcessError, match=r"3 times in a row a process died over .*; see if the memory"):
        project_shards(partial(always_killed, layer, os.getpid()), str(source), str(tmp_path / "no"), workers=(2, 2))
    (source / "train" / "11.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"11\.tar"):
        run(layer, source, tmp_path / "bad", workers=(2, 2))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The images are tiny: a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_narrow_maps_have_their_error_measured(
    precision: str, layer: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["project", str(source), str(tmp_path / "out"), "--layer", str(layer), "--format", "webdataset"]
    assert cli.run([*said, "--precision", precision, "--json"]) == 0
    error = json.loads(capsys.readouterr().out)["precision"]
    assert error["images"] == 5
    assert 0 < error["mean"] < error["largest"] < 0.1
    assert read_json(tmp_path / "out" / "manifest.json")["identity"]["precision"] == precision
    assert cli.run([*said, "--precision", precision]) == 0
    assert f"off by {error['largest']:.1e} at most" in capsys.readouterr().out
    assert cli.run(said) == 2  # not to be mixed with single precision
    assert "another precision" in capsys.readouterr().err
    assert cli.run([*said, "--precision", "float8"]) == 2
    assert "did you mean 'float" in capsys.readouterr().err


@pytest.mark.processes
def test_a_run_that_is_killed_goes_on_and_leaves_what_an_undisturbed_one_leaves(
    layer: Path, source: Path, tmp_path: Path
) -> None:
    for number in range(2, 40):
        (source / "train" / f"{number}.tar").write_bytes((source / "train" / f"{number % 2}.tar").read_bytes())
    run(layer, source, tmp_path / "whole")
    out = tmp_path / "out"
    arguments = [str(source), str(out), "--layer", str(layer), "--format", "webdataset"]
    process = subprocess.Popen([sys.executable, "-m", "quasinat", "project", *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.tar"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not read_json(out / "manifest.json")["complete"]
    made = {name: (out / name).stat().st_mtime_ns for name in contents(out) if name.endswith(".tar")}
    assert 3 <= len(made) < 40
    run(layer, source, out)
    kept = [name for name, when in made.items() if (out / name).stat().st_mtime_ns == when]
    assert len(kept) >= len(made) - 1  # all but one whose record was not written yet
    left = {name: content for name, content in contents(out).items() if not name.endswith(".part")}
    assert left == contents(tmp_path / "whole")


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    layer: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 4:  # the manifest, a shard and its record are there
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"1\.tar: no space left; free some"):
        run(layer, source, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == [".quasinat/train/0.json", "manifest.json", "train/0.tar"]
    monkeypatch.undo()
    run(layer, source, tmp_path / "out")
    run(layer, source, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore")
def test_ray_makes_the_same_bytes_also_when_a_worker_is_killed(
    layer: Path, source: Path, tmp_path: Path, cluster: None
) -> None:
    for number in range(2, 8):
        (source / "train" / f"{number}.tar").write_bytes((source / "train" / f"{number % 2}.tar").read_bytes())
    run(layer, source, tmp_path / "local")
    run(layer, source, tmp_path / "ray", engine="ray", workers=(2, 2))
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    marks = tmp_path / "marks"
    marks.mkdir()
    load = partial(killed_once, marks, layer, os.getpid())
    project_shards(load, str(source), str(tmp_path / "killed"), engine="ray", workers=(2, 2))
    assert (marks / "killed").exists()
    assert contents(tmp_path / "killed") == contents(tmp_path / "local")


def killed_once(marks: Path, layer: Path, driver: int) -> Any:
    """The layer's transformation; the first worker, none of them the driver, that is asked for an image dies of it."""
    made = layer_transform(layer)
    hook = partial(_wait, marks / "killed") if os.getpid() == driver else partial(_die, marks / "killed")
    made.module.register_forward_pre_hook(hook)
    return made


def always_killed(layer: Path, driver: int) -> Any:
    """The same, and so does every other worker; the driver takes its time."""
    made = layer_transform(layer)
    made.module.register_forward_pre_hook((lambda *_: time.sleep(1)) if os.getpid() == driver else partial(_die, None))
    return made


def _wait(mark: Path, *_: Any) -> None:
    """Until another worker has died."""
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _die(mark: Path | None, *_: Any) -> None:
    try:
        if mark is not None:
            mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
