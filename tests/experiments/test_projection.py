"""Folders through a layer: names, sizes and channels kept; resumed to the byte; two layers never mixed."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from data.test_folder import save
from data.test_shards import official
from quasinat.arrays import Images
from quasinat.artefact import file_digest
from quasinat.data.image_files import pixels, read_picture
from quasinat.data.shards import Shard, read_shard, shard_name, shards_in, write_shard
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import psnr
from quasinat.experiments import projection
from quasinat.experiments.projection import ProjectionReport, project_files
from quasinat.experiments.transforms import NamedTransform, layer_transform
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Dictionary, project_filters


def layer_of(channels: int = 3, seed: int = 0, size: int = 3) -> SparseTransformationLayer:
    atoms = torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return SparseTransformationLayer(None, [Dictionary(project_filters(atoms, "joint"), "joint", 0.1)], 0.1)


def noise(path: Path, seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    """An image file of random pixels; `size` is width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = size[0] * size[1] * len(mode)
    values = torch.randint(256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    Image.frombytes(mode, size, values.numpy().tobytes()).save(path)
    return path


def run(source: Path, out: Path, layer: SparseTransformationLayer | None = None, **options: Any) -> ProjectionReport:
    return project_files(named(layer or layer_of(), options.pop("fingerprint", "f" * 64)), source, out, **options)


def named(layer: SparseTransformationLayer, fingerprint: str) -> NamedTransform:
    """A layer as if it had come from a file of that digest."""
    channels, size = layer.filters.shape[-3], layer.filters.shape[-1]
    identity = {"layer": fingerprint, "lambda": float(layer.sparsity)}
    return NamedTransform(layer, identity, channels, size, f"the filters ({size})")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def floats(path: Path) -> Tensor:
    return pixels(read_picture(path)).float() / 255


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Nine images of three sizes at several depths, one of them grey and one with transparency."""
    root = tmp_path / "tree"
    for seed, name in enumerate(["a/1.png", "a/2.bmp", "a/3.png", "b/c/1.png", "b/c/2.png", "top.png"]):
        noise(root / name, seed)
    noise(root / "a" / "4.png", 6, (9, 17))
    noise(root / "b" / "grey.png", 7, mode="L")
    noise(root / "b" / "clear.png", 8, mode="RGBA", size=(6, 6))
    return root


def test_a_tree_becomes_png_files_of_the_same_names(tree: Path, tmp_path: Path) -> None:
    layer, out = layer_of(), tmp_path / "out"
    report = run(tree, out, layer)
    assert (report.count, report.written, report.skipped, report.failed) == (9, 9, 0, ())
    names = ["a/1", "a/2", "a/3", "a/4", "b/c/1", "b/c/2", "b/clear", "b/grey", "top"]
    assert sorted(files(out)) == sorted([*(f"{name}.png" for name in names), "manifest.json"])
    for name, before in (("a/1", "a/1.png"), ("a/2", "a/2.bmp"), ("a/4", "a/4.png")):
        expected = layer(floats(tree / before)[None])[0]
        found = floats(out / f"{name}.png")
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 0.5 / 255 + 1e-5
        value = dict(report.psnr)[before]
        assert value == pytest.approx(float(psnr(found[None], floats(tree / before)[None])), abs=1e-4)
    grey = floats(tree / "b" / "grey.png").expand(3, -1, -1)
    assert (floats(out / "b" / "grey.png") - layer(grey[None])[0]).abs().max() <= 0.5 / 255 + 1e-5
    with Image.open(tree / "b" / "clear.png") as picture:
        white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    expected = layer(pixels(white)[None].float() / 255)[0]
    assert (floats(out / "b" / "clear.png") - expected).abs().max() <= 0.5 / 255 + 1e-5
    assert report.mean_psnr() == pytest.approx(math.fsum(v for _, v in report.psnr) / 9)
    assert [name for name, _ in report.psnr][:2] == ["a/1.png", "a/2.bmp"]


def test_a_layer_of_one_channel_makes_grey_images(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tree, tmp_path / "out", layer_of(1))
    for path in (tmp_path / "out").rglob("*.png"):
        assert read_picture(path).mode == "L"
    expected = layer_of(1)(floats(tree / "b" / "grey.png")[None])[0]
    assert (floats(tmp_path / "out" / "b" / "grey.png") - expected).abs().max() <= 0.5 / 255 + 1e-5
    official(tmp_path / "cifar", monkeypatch)
    run(tmp_path / "cifar", tmp_path / "shards", layer_of(1))
    assert read_shard(tmp_path / "shards" / shard_name(0)).images.shape == (12, 1, 32, 32)


def test_a_tree_becomes_shards_of_one_size_each(tree: Path, tmp_path: Path) -> None:
    layer, out = layer_of(), tmp_path / "out"
    report = run(tree, out, layer, format="shards", shard_size=4)
    assert (report.written, report.skipped) == (9, 0)
    shards = [read_shard(path) for path in shards_in(out)]
    assert [shard.names for shard in shards] == [
        ("a/1.png", "a/2.bmp", "a/3.png", "b/c/1.png"),
        ("a/4.png",),
        ("b/c/2.png", "b/grey.png", "top.png"),
        ("b/clear.png",),
    ]
    for shard in shards:
        assert shard.labels is None
        assert shard.psnr is not None
        assert shard.psnr.tolist() == [dict(report.psnr)[name] for name in shard.names]
    expected = layer(floats(tree / "a" / "4.png")[None])
    torch.testing.assert_close(shards[1].images, expected, rtol=0, atol=1e-5)
    assert (out / "manifest.json").is_file()


@pytest.mark.parametrize("place", ["parent", "folder"])
def test_cifar10_becomes_shards_with_labels(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in" / "cifar-10-batches-py"
    found = official(folder, monkeypatch).float() / 255
    report = run(folder if place == "folder" else folder.parent, tmp_path / "out", shard_size=5)
    shards = [read_shard(path) for path in shards_in(tmp_path / "out")]
    assert [len(shard.names) for shard in shards] == [5, 5, 2]
    labels = torch.cat([shard.labels for shard in shards if shard.labels is not None])
    assert labels.tolist() == [index % 10 for index in range(12)]
    torch.testing.assert_close(torch.cat([shard.images for shard in shards]), layer_of()(found), rtol=0, atol=1e-5)
    assert report.written == 12
    assert (manifest(tmp_path / "out")["kind"], manifest(tmp_path / "out")["split"]) == ("cifar10", "test")
    train = run(folder, tmp_path / "train", split="train")
    assert train.count == 60
    with pytest.raises(UsageError, match="holds images projected with another split; choose another OUT"):
        run(folder, tmp_path / "train", split="test")


def test_cifar10_becomes_png_files_by_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = official(tmp_path / "in", monkeypatch).float() / 255
    run(tmp_path / "in", tmp_path / "out", format="png")
    names = sorted(files(tmp_path / "out"))
    assert names[:3] == ["airplane/00000.png", "airplane/00010.png", "automobile/00001.png"]
    assert len(names) == 13
    expected = layer_of()(found[10:11])[0]
    assert (floats(tmp_path / "out" / "airplane" / "00010.png") - expected).abs().max() <= 0.5 / 255 + 1e-5


def test_shards_become_shards_and_png_files(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official(tmp_path / "cifar", monkeypatch)
    run(tmp_path / "cifar", tmp_path / "first", shard_size=5)
    second = run(tmp_path / "first", tmp_path / "second", shard_size=7)
    shards = [read_shard(path) for path in shards_in(tmp_path / "second")]
    assert [len(shard.names) for shard in shards] == [7, 5]
    assert shards[1].names[0] == "horse/00007"
    assert shards[1].labels is not None
    assert shards[1].labels.tolist() == [7, 8, 9, 0, 1]
    assert second.written == 12
    run(tmp_path / "first", tmp_path / "png", format="png")
    assert "horse/00007.png" in files(tmp_path / "png")
    run(tree, tmp_path / "tree-shards", format="shards")
    run(tmp_path / "tree-shards", tmp_path / "tree-png", format="png")
    assert "a/2.png" in files(tmp_path / "tree-png")


# What is there already


class StoppedError(Exception):
    """What a signal does in the middle."""


def stop_after(calls: int, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lets the writing of the next file fail after so many files."""
    module = {"write_png": projection.image_tree, "write_shard": projection.shards}[name]
    write, done = getattr(module, name), [0]

    def stopping(*arguments: Any) -> None:
        if done[0] == calls:
            raise StoppedError
        done[0] += 1
        write(*arguments)

    monkeypatch.setattr(module, name, stopping)


@pytest.mark.parametrize("calls", [0, 1, 2, 4])
@pytest.mark.parametrize("form", ["png", "shards"])
def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    tree: Path, tmp_path: Path, form: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"format": form, "shard_size": 2, "batch_size": 3}
    (tree / "a" / "15.png").write_bytes(b"rubbish")
    whole = run(tree, tmp_path / "whole", **options)
    with monkeypatch.context() as stopped:
        stop_after(calls, stopped, "write_png" if form == "png" else "write_shard")
        with pytest.raises(StoppedError):
            run(tree, tmp_path / "out", **options)
    assert manifest(tmp_path / "out")["complete"] is False
    assert len(files(tmp_path / "out")) == calls + 1
    report = run(tree, tmp_path / "out", **options)
    assert report.skipped == (calls if form == "png" else {0: 0, 1: 2, 2: 4, 4: 7}[calls])
    assert report.written + report.skipped == 9
    assert report.psnr == whole.psnr
    assert report.failed == whole.failed
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    again = run(tree, tmp_path / "out", **options)
    assert (again.written, again.skipped, again.psnr, again.failed) == (0, 9, whole.psnr, whole.failed)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_is_there_is_not_projected_again(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("png", "shards"):
        run(tree, tmp_path / form, format=form)

    def refuse(layer: SparseTransformationLayer, images: Images) -> Images:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(SparseTransformationLayer, "forward", refuse)
    for form in ("png", "shards"):
        assert run(tree, tmp_path / form, format=form).skipped == 9


@pytest.mark.parametrize("form", ["png", "shards"])
def test_missing_and_damaged_outputs_are_made_again(tree: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    run(tree, out, format=form, shard_size=3)
    whole = files(out)
    lost, damaged = ("b/c/1.png", "a/4.png") if form == "png" else (shard_name(0), shard_name(1))
    (out / lost).unlink()
    (out / damaged).write_bytes(whole[damaged][: len(whole[damaged]) // 2])
    run(tree, out, format=form, shard_size=3)
    assert files(out) == whole


@pytest.mark.parametrize("form", ["png", "shards"])
def test_a_repaired_image_is_taken_in(tree: Path, tmp_path: Path, form: str) -> None:
    out, path = tmp_path / "out", tree / "a" / "2.bmp"
    whole = path.read_bytes()
    for broken in (b"rubbish", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        assert [failure.name for failure in run(tree, out, format=form, shard_size=3).failed] == ["a/2.bmp"]
    path.write_bytes(whole)
    report = run(tree, out, format=form, shard_size=3)
    assert (report.failed, manifest(out)["failed"]) == ((), [])
    run(tree, tmp_path / "fresh", format=form, shard_size=3)
    if form == "shards":
        assert files(out) == files(tmp_path / "fresh")
    else:
        assert files(out).keys() == files(tmp_path / "fresh").keys()


def test_shards_of_images_that_have_gone_are_removed(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path / "out", format="shards", shard_size=1)
    (tree / "top.png").unlink()
    (tree / "a" / "1.png").unlink()
    report = run(tree, tmp_path / "out", format="shards", shard_size=1)
    assert [read_shard(path).names[0] for path in shards_in(tmp_path / "out")] == [name for name, _ in report.psnr]
    assert manifest(tmp_path / "out")["count"] == 7


# Two layers are never mixed


def test_the_manifest_names_the_layer_and_is_written_first(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer_of().save(tmp_path / "layer.stl")
    fingerprint = file_digest(tmp_path / "layer.stl")
    assert layer_transform(tmp_path / "layer.stl").identity == {"layer": fingerprint, "lambda": 0.1}
    with monkeypatch.context() as stopped:
        stop_after(0, stopped, "write_png")
        with pytest.raises(StoppedError):
            run(tree, tmp_path / "out", fingerprint=fingerprint)
    assert list(files(tmp_path / "out")) == ["manifest.json"]
    run(tree, tmp_path / "out", fingerprint=fingerprint)
    found = manifest(tmp_path / "out")
    assert len(fingerprint) == 64
    assert (found["layer"], found["lambda"], found["format"], found["kind"]) == (fingerprint, 0.1, "png", "tree")
    assert (found["count"], found["complete"], found["failed"]) == (9, True, [])
    assert found["quasinat"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"fingerprint": "0" * 64}, "layer"),
        ({"layer": layer_of().with_sparsity(0.2)}, "lambda"),
        ({"format": "shards"}, "format, shard_size"),
    ],
)
def test_another_layer_is_refused(tree: Path, tmp_path: Path, change: dict[str, Any], what: str) -> None:
    out = tmp_path / "out"
    run(tree, out)
    before = files(out)
    with pytest.raises(UsageError, match=rf"{out} holds images projected with another {what}; choose another OUT, or"):
        run(tree, out, **change)
    assert files(out) == before


def test_another_source_is_refused(tree: Path, tmp_path: Path) -> None:
    save(tmp_path / "other" / "a" / "1.png")
    run(tree, tmp_path / "out")
    with pytest.raises(UsageError, match="projected with another source"):
        run(tmp_path / "other", tmp_path / "out")


@pytest.mark.parametrize("forms", [("png", "png"), ("png", "shards"), ("shards", "png")])
def test_overwriting_removes_what_was_ours_and_nothing_else(
    tree: Path, tmp_path: Path, forms: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(tree, out, format=forms[0])
    save(out / "a" / "mine.png")
    (out / "notes.txt").write_text("mine")
    mine = {name: files(out)[name] for name in ("a/mine.png", "notes.txt")}
    with monkeypatch.context() as stopped:  # nothing of the first layer is left even so
        stop_after(0, stopped, "write_png" if forms[1] == "png" else "write_shard")
        with pytest.raises(StoppedError):
            run(tree, out, fingerprint="0" * 64, format=forms[1], overwrite=True)
    assert files(out).keys() == {*mine, "manifest.json"}
    layer = layer_of(seed=1)
    report = run(tree, out, layer, fingerprint="0" * 64, format=forms[1])
    assert (report.written, report.skipped) == (9, 0)
    run(tree, tmp_path / "fresh", layer, fingerprint="0" * 64, format=forms[1])
    assert files(out) == files(tmp_path / "fresh") | mine


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_is_not_ours_is_refused(tree: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file; choose another OUT"):
        run(tree, tmp_path / "file", overwrite=overwrite)
    out = tmp_path / "out"
    out.mkdir()
    for text in ("", "{}", '{"made_by": "somebody"}'):
        (out / "manifest.json").write_text(text)
        with pytest.raises(UsageError, match=r"holds no projected images of ours; choose another OUT"):
            run(tree, out, overwrite=overwrite)
        assert (out / "manifest.json").read_text() == text
    (out / "manifest.json").unlink()
    run(tree, out, overwrite=overwrite)  # an empty one is taken


def test_folders_that_overlap_are_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    before = files(tree)
    for out in (tree, tree / "out", tree.parent, tmp_path / "link", tmp_path / "link" / "out", tree / "a" / ".."):
        for overwrite in (True, False):
            with pytest.raises(UsageError, match="overlap; choose an OUT beside IN"):
                run(tree, out, overwrite=overwrite)
    assert files(tree) == before


def test_a_collision_is_refused_before_anything_is_written(tree: Path, tmp_path: Path) -> None:
    noise(tree / "a" / "1.jpg", 9)
    with pytest.raises(UsageError, match=r"a/1\.jpg and a/1\.png would both be written as a/1\.png; rename one"):
        run(tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run(tree, tmp_path / "out", format="shards").written == 10


# Images that cannot be used


@pytest.mark.parametrize("form", ["png", "shards"])
def test_unusable_images_are_left_out_and_named(tree: Path, tmp_path: Path, form: str) -> None:
    whole = (tree / "a" / "1.png").read_bytes()
    (tree / "a" / "2.bmp").write_bytes(b"rubbish")
    (tree / "b" / "c" / "1.png").write_bytes(whole[: len(whole) // 2])
    noise(tree / "small.png", 1, (2, 9))
    report = run(tree, tmp_path / "out", format=form)
    assert [failure.name for failure in report.failed] == ["a/2.bmp", "b/c/1.png", "small.png"]
    reasons = [failure.reason for failure in report.failed]
    assert "a/2.bmp cannot be read as an image (no known image format); replace it, or leave it out" in reasons[0]
    assert "b/c/1.png cannot be read as an image" in reasons[1]
    assert reasons[2].startswith("small.png has 9 x 2 pixels, fewer than the filters (3); leave it out")
    assert (report.count, report.written) == (10, 7)
    assert [found["name"] for found in manifest(tmp_path / "out")["failed"]] == ["a/2.bmp", "b/c/1.png", "small.png"]


@pytest.mark.parametrize("content", [b"rubbish", None])
def test_strict_stops_at_the_first(tree: Path, tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tree / "a" / "2.bmp").write_bytes(content)
    else:
        noise(tree / "a" / "2.bmp", 0, (20, 2))
    with pytest.raises(InputError, match=r"a/2\.bmp"):
        run(tree, tmp_path / "out", strict=True)
    assert manifest(tmp_path / "out")["complete"] is False


def test_when_no_image_can_be_used(tmp_path: Path) -> None:
    noise(tmp_path / "in" / "1.png", 0, (2, 2))
    (tmp_path / "in" / "2.png").write_bytes(b"rubbish")
    for form in ("png", "shards"):
        report = run(tmp_path / "in", tmp_path / form, format=form)
        assert (report.written, len(report.failed), report.mean_psnr()) == (0, 2, None)
        assert list(files(tmp_path / form)) == ["manifest.json"]


def test_an_image_in_a_shard_may_be_unusable(tmp_path: Path) -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images[2, 0, 0, 0] = math.nan
    write_shard(tmp_path / "in" / shard_name(0), Shard(images, ("a", "b", "c", "d")))
    report = run(tmp_path / "in", tmp_path / "out")
    assert [failure.name for failure in report.failed] == ["c"]
    assert read_shard(tmp_path / "out" / shard_name(0)).names == ("a", "b", "d")
    write_shard(tmp_path / "two" / shard_name(0), Shard(images[:, :2], ("a", "b", "c", "d")))
    report = run(tmp_path / "two", tmp_path / "out-two")
    assert "2 channels does not fit a layer of 3" in report.failed[0].reason
    two = run(tmp_path / "two", tmp_path / "two-out", layer_of(2))
    assert two.written == 3
    with pytest.raises(UsageError, match="for images of 2 channels; use shards"):
        run(tmp_path / "two", tmp_path / "png", layer_of(2), format="png")


def test_an_image_turned_by_its_header_keeps_its_pixels(tmp_path: Path) -> None:
    path = noise(tmp_path / "in" / "1.tiff", 0, (12, 7))
    with Image.open(path) as picture:
        tags = Image.Exif()
        tags[0x0112] = 6
        picture.save(tmp_path / "in" / "2.tiff", exif=tags)
        picture.save(tmp_path / "in" / "3.png", exif=tags)
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.written + len(report.failed) == 3


def test_constant_images_do_not_spoil_the_mean(tmp_path: Path) -> None:
    save(tmp_path / "in" / "flat.png", (10, 20, 30))
    noise(tmp_path / "in" / "noise.png", 0)
    report = run(tmp_path / "in", tmp_path / "out")
    values = dict(report.psnr)
    assert values["flat.png"] == math.inf
    assert report.mean_psnr() == values["noise.png"]
    assert report.as_json()["psnr"]["flat.png"] is None
    json.dumps(report.as_json(), allow_nan=False)


# How it goes


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.done: list[int] = []

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        self.seen.append((title, total))
        yield self.done.append


@pytest.mark.parametrize("form", ["png", "shards"])
def test_batches_are_bounded_and_progress_is_told(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(7):
        noise(tmp_path / "in" / f"{seed}.png", seed, (8, 8) if seed < 5 else (40, 30))
    monkeypatch.setattr(projection, "BATCH_PIXELS", 1000)
    monkeypatch.setattr(projection, "SHARD_PIXELS", 2000)
    batches: list[tuple[int, ...]] = []
    forward = SparseTransformationLayer.forward

    def recording(layer: SparseTransformationLayer, images: Images) -> Images:
        batches.append(tuple(images.shape))
        return forward(layer, images)

    monkeypatch.setattr(SparseTransformationLayer, "forward", recording)
    recorder = Recorder()
    run(tmp_path / "in", tmp_path / "out", format=form, batch_size=3, progress=recorder)
    assert batches == [(3, 3, 8, 8), (2, 3, 8, 8), (1, 3, 30, 40), (1, 3, 30, 40)]
    assert recorder.seen == [("project 7 images", 7)]
    assert recorder.done == sorted(recorder.done)
    assert recorder.done[-1] == 7


def test_images_are_read_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read before the first file is written does not grow with the number of images."""
    for seed in range(12):
        noise(tmp_path / "in" / f"{seed:02}.png", seed)
    reads: list[str] = []
    read = projection.image_tree.ImageTree.read

    def recording(tree: Any, index: int, channels: int) -> Tensor:
        reads.append(tree.names[index])
        return read(tree, index, channels)

    monkeypatch.setattr(projection.image_tree.ImageTree, "read", recording)
    for form in ("png", "shards"):
        reads.clear()
        with monkeypatch.context() as stopped:
            stop_after(0, stopped, "write_png" if form == "png" else "write_shard")
            with pytest.raises(StoppedError):
                run(tmp_path / "in", tmp_path / form, format=form, batch_size=4, shard_size=4)
        assert len(reads) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "jpg"}, r"no format 'jpg'; .*png"),
        ({"batch_size": 0}, "--batch-size 0 is not positive"),
        ({"shard_size": 0}, "--shard-size 0 is not positive"),
        ({"split": "test"}, "--split test is of CIFAR-10"),
        ({"layer": layer_of().with_sparsity(-1.0)}, r"--lambda -1\.0 is not a finite number >= 0"),
        ({"layer": layer_of().with_sparsity(math.nan)}, "--lambda nan"),
        ({"layer": layer_of(2)}, "for images of 2 channels"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    tree: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(tree, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
