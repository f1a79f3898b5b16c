"""The files give what the module gives, for any number of images, and say what was measured of them."""

import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from interop.others import SIDE, exported, save, tiny
from layers import images_of, stratified, universal
from pages import code_blocks, run_page
from quasinat.artefact import Card
from quasinat.cli.app import app
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.export import Exported, OnnxRuntime, agreement, deploy, export, fingerprint, fixed, load_program
from quasinat.export.measured_on import images_in, random_images
from quasinat.export.onnx_file import onnx_of
from quasinat.export.program import program_of
from quasinat.interop import own_model
from quasinat.networks import save_classifier, vgg

SIZE, STEPS = 20, 12
BATCHES = (1, 3, 17)
needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs the extra onnx")


@pytest.fixture(scope="module")
def as_onnx(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("onnx") / "layer.onnx"
    return export(stratified(), path, steps=STEPS, image_size=SIZE, images=images_of(3, 5))


@needs_onnx
def test_onnxruntime_agrees_with_the_module(as_onnx: Exported) -> None:
    module, run = fixed(stratified(), STEPS, image_size=SIZE), OnnxRuntime(as_onnx.path, threads=1)
    assert len(stratified().stratum(images_of(3, 17)).unique()) == 3
    for count in BATCHES:
        images = images_of(3, count)
        assert (run(images) - module(images)).abs().max() <= 1e-4


@needs_onnx
def test_the_model_is_real_and_has_one_step(as_onnx: Exported) -> None:
    import onnx

    model = onnx.load(as_onnx.path)
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Loop") == 1
    assert not {kind for kind in kinds if "DFT" in kind or "Complex" in kind}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["images", "transformed"]


@needs_onnx
def test_the_card_says_what_can_be_measured_again(as_onnx: Exported) -> None:
    layer, card = stratified(), OnnxRuntime(as_onnx.path).card
    assert card == as_onnx.card
    assert (card["layer"], card["steps"], card["image"]) == (fingerprint(layer), STEPS, [3, SIZE, SIZE])
    assert card["classifier"] is None
    assert card["versions"]["onnxruntime"] == importlib.metadata.version("onnxruntime")
    again = agreement(OnnxRuntime(as_onnx.path), layer, images_of(3, 5))
    assert again.largest == pytest.approx(card["against the layer"]["largest"], rel=1e-3)
    assert again.largest == pytest.approx(
        float((fixed(layer, STEPS, image_size=SIZE)(images_of(3, 5)) - layer(images_of(3, 5))).abs().max()), rel=1e-3
    )


def test_a_layer_has_one_fingerprint() -> None:
    assert fingerprint(stratified()) == fingerprint(stratified())
    assert fingerprint(stratified()) != fingerprint(stratified(sparsity=0.06))


@pytest.mark.parametrize(("suffix", "most"), [(".pt2", 1e-5), pytest.param(".onnx", 1e-4, marks=needs_onnx)])
def test_the_command_writes_a_defended_classifier(tmp_path: Path, suffix: str, most: float) -> None:
    classifier = vgg("vgg-small", classes=4).eval()
    layer, out = stratified(), tmp_path / f"defended{suffix}"
    layer.save(tmp_path / "a.stl")
    save_classifier(tmp_path / "net.safetensors", classifier, {})
    command = ["export", str(tmp_path / "a.stl"), "--model", str(tmp_path / "net.safetensors"), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--size", "20", "--steps", "12", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    run, card = read(out)
    assert json.loads(done.stdout) == card
    assert card["gives"] == "logits"
    assert card["against the module"]["largest"] <= most
    assert card["against the module"]["same_label"] == 1.0
    defended = Defended(fixed(layer, 12, image_size=20), classifier)
    for count in BATCHES:
        images = images_of(3, count)
        with torch.no_grad():
            expected = defended(images)
        assert expected.std() > 100 * most
        assert (run(images) - expected).abs().max() <= most


def read(path: Path) -> tuple[Callable[[Tensor], Tensor], Card]:
    """What a file gives, and its card."""
    if path.suffix == ".pt2":
        return load_program(path)
    run = OnnxRuntime(path, threads=1)
    return run, run.card


class Halved(nn.Module):
    """What no layer gives."""

    def forward(self, images: Tensor) -> Tensor:
        return images / 2


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=needs_onnx)])
def test_what_is_measured_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """A file that does something else than what was in memory is seen."""
    images, write = images_of(1, 2), deploy.write_program if suffix == ".pt2" else deploy.write_onnx
    other = program_of(Halved(), images)
    wrong = other if suffix == ".pt2" else onnx_of(other, "transformed")
    monkeypatch.setattr(deploy, write.__name__, lambda path, made, card: write(path, wrong, card))
    made = export(universal(1), tmp_path / f"layer{suffix}", steps=1, image_size=SIZE, images=images)
    module = fixed(universal(1), 1, image_size=SIZE)
    assert made.with_module.largest == pytest.approx(float((images / 2 - module(images)).abs().max()), rel=1e-3)
    assert made.card["against the module"]["largest"] == made.with_module.largest > 0.1


def test_a_file_that_cannot_be_read_back_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "write_program", lambda path, program, card: path.write_bytes(b"cut off"))
    with pytest.raises(InputError, match="is no exported program"):
        export(universal(1), tmp_path / "layer.pt2", steps=1, image_size=SIZE)
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_somebody_elses_classifier_becomes_one_file(tmp_path: Path) -> None:
    """Of Hugging Face, and for images of another size than its own."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.MobileViTImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": SIDE, "width": SIDE}
    )
    layer, theirs = universal(), f"hf:{save(tmp_path / 'net', tiny('resnet'), processor)}"
    layer.save(tmp_path / "a.stl")
    command = ["export", str(tmp_path / "a.stl"), "--model", theirs, "--out", str(tmp_path / "defended.onnx")]
    done = CliRunner().invoke(app, [*command, "--size", "20", "--steps", "3"], catch_exceptions=False)
    assert done.exit_code == 0
    run, defended = OnnxRuntime(tmp_path / "defended.onnx"), Defended(fixed(layer, 3, image_size=20), own_model(theirs))
    for count in BATCHES:
        images = images_of(3, count)
        with torch.no_grad():
            assert (run(images) - defended(images)).abs().max() <= 1e-4


def test_an_exported_program_is_exported_behind_the_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    theirs = own_model(str(exported(network, tmp_path / "net.pt2")))
    export(universal(), tmp_path / "defended.pt2", classifier=theirs, steps=3, image_size=SIZE)
    run, defended = (
        load_program(tmp_path / "defended.pt2")[0],
        Defended(fixed(universal(), 3, image_size=SIZE), network),
    )
    for count in BATCHES:
        with torch.no_grad():
            assert (run(images_of(3, count)) - defended(images_of(3, count))).abs().max() <= 1e-4


def test_a_classifier_that_cannot_be_exported_is_refused_in_a_line(tmp_path: Path) -> None:
    class Undecided(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) if float(images.sum()) > 0 else -images.flatten(1)

    with pytest.raises(UsageError, match=r"cannot be exported as \.pt2 .*export the layer alone") as caught:
        export(universal(), tmp_path / "defended.pt2", classifier=Undecided(), steps=1, image_size=SIZE)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "defended.pt2").exists()


def test_a_universal_layer_takes_any_number_of_images(tmp_path: Path) -> None:
    export(universal(), tmp_path / "layer.pt2", steps=2, image_size=SIZE)
    run, module = load_program(tmp_path / "layer.pt2")[0], fixed(universal(), 2, image_size=SIZE)
    for count in BATCHES:
        assert (run(images_of(3, count)) - module(images_of(3, count))).abs().max() <= 1e-5


def test_logits_are_compared_by_their_labels_too() -> None:
    flip = nn.Flatten()
    images = torch.rand(4, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    found = agreement(flip, lambda x: flip(x).flip(1) if len(x) else x, images)
    assert found.same_label == 0.0
    assert found.largest == pytest.approx(float((images[..., 0] - images[..., 1]).abs().max()))
    assert agreement(flip, flip, images).same_label == 1.0
    assert agreement(nn.Identity(), nn.Identity(), images).same_label is None


def test_random_images_have_a_falling_spectrum() -> None:
    images = random_images(3, 64, 64, 4)
    assert float(images.amin()) == 0
    assert float(images.amax()) == 1
    power = torch.fft.fft2(images).abs().square().mean((0, 1))
    assert power[0, 2] > 20 * power[0, 16]  # 1 / f^2 of the power: 64 times


def test_images_of_a_folder_are_scaled_and_cropped(tmp_path: Path) -> None:
    from PIL import Image

    wide = Image.new("RGB", (80, 40), "red")
    wide.paste("blue", (20, 0, 60, 40))
    wide.save(tmp_path / "wide.png")
    assert torch.equal(images_in(tmp_path, 3, 40)[0].mean((1, 2)), torch.tensor([0.0, 0.0, 1.0]))
    assert images_in(tmp_path, 1, 20).shape == (1, 1, 20, 20)
    with pytest.raises(InputError, match="there is no folder"):
        images_in(tmp_path / "none", 3, 40)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"end it in \.onnx or \.pt2"):
        export(universal(), tmp_path / "layer.torchscript")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnx is not installed; install it with: pip install 'quasinat\[onnx\]'"):
        export(universal(), tmp_path / "layer.onnx")


@pytest.mark.parametrize("name", ["none", "other"])
def test_files_that_are_no_exports_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").write_bytes(b"something else")
    for load in (load_program, OnnxRuntime):
        with pytest.raises(InputError, match="is missing" if name == "none" else "export it again"):
            load(tmp_path / name)


@needs_onnx
def test_the_code_of_the_page_runs(as_onnx: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(as_onnx.path, tmp_path / "cifar10.onnx")
    export(universal(), tmp_path / "cifar10.pt2", steps=1, image_size=SIZE)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    for block in code_blocks(page, "python")[:2]:
        names = run_page(f"```python\n{block}```", commands=False)
        assert tuple(names["transformed"].shape) == (3, 3, SIZE, SIZE)  # type: ignore[attr-defined]
        assert names["card"]["kind"] == "exported"  # type: ignore[index]
