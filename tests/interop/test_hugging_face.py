"""A classifier of Hugging Face is fed as its own processor feeds it, or refused in one line."""

import json
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from interop.others import LABELS, NAMES, SIDE, save, tiny
from layers import images_of, universal
from quasinat import cli
from quasinat.data.image_tree import to_8_bits
from quasinat.errors import InputError
from quasinat.interop import own_model

transformers = pytest.importorskip("transformers")

FAR, NEAR = {"shortest_edge": 36}, {"height": SIDE, "width": SIDE}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessorPil", {"size": NEAR}),
    "vit, not normalised": ("ViTImageProcessorPil", {"size": NEAR, "do_normalize": False}),
    "vit, bytes": ("ViTImageProcessorPil", {"size": NEAR, "do_rescale": False, "do_normalize": False}),
    "vit, scaled otherwise": ("ViTImageProcessorPil", {"size": NEAR, "rescale_factor": 1 / 127.5}),
    "convnext": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": SIDE}}),
    "bit": ("BitImageProcessorPil", {"size": FAR, "crop_size": NEAR}),
    "levit": ("LevitImageProcessorPil", {"size": {"shortest_edge": SIDE}, "crop_size": NEAR}),
    "perceiver": ("PerceiverImageProcessorPil", {"size": NEAR, "crop_size": {"height": 40, "width": 40}}),
    "mobilenet": ("MobileNetV1ImageProcessorPil", {"size": FAR, "crop_size": NEAR}),
    "mobilevit": ("MobileViTImageProcessorPil", {"size": FAR, "crop_size": NEAR}),
    "mobilevit, not flipped": (
        "MobileViTImageProcessorPil",
        {"size": FAR, "crop_size": NEAR, "do_flip_channel_order": False},
    ),
    "mobilevit, which ignores this": (
        "MobileViTImageProcessorPil",
        {"size": FAR, "crop_size": NEAR, "do_normalize": True},
    ),
    "efficientnet": ("EfficientNetImageProcessorPil", {"size": NEAR, "image_std": [0.2, 0.3, 0.4]}),
    "efficientnet, without its top": ("EfficientNetImageProcessorPil", {"size": NEAR, "include_top": False}),
    "efficientnet, offset": (
        "EfficientNetImageProcessorPil",
        {"size": NEAR, "rescale_factor": 1 / 127.5, "rescale_offset": True},
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_logits_are_those_of_transformers_own_processor_and_model(name: str, tmp_path: Path) -> None:
    kind, options = PROCESSORS[name]
    family = name.split(",")[0]
    theirs = tiny("vit" if family == "vit" else "resnet")  # what comes after the processor does not matter here
    process = getattr(transformers, kind)(**options)
    image = to_8_bits(images_of(3, 1, SIDE, SIDE))[0]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    model = own_model(f"hf:{save(tmp_path, theirs, process)}")
    assert (model.size, model.classes, model.channels, model.labels) == ((SIDE, SIDE), 3, 3, LABELS)
    seen = process(picture, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = theirs(seen).logits
        torch.testing.assert_close(model(image[None].float() / 255), wanted, rtol=1e-4, atol=1e-4)
        assert float((theirs(seen.flip(1)).logits - wanted).abs().max()) > 1e-2  # the order would be seen


def test_what_a_processors_file_leaves_out_is_as_its_class_has_it(tmp_path: Path) -> None:
    """Of MobileViT: the channels turned round, and no normalisation."""
    given = {"image_processor_type": "MobileViTImageProcessor", "size": FAR, "crop_size": NEAR}
    model = own_model(f"hf:{save(tmp_path, tiny('resnet'), given)}")
    assert (model.flipped, model.normalise.mean.tolist()) == (True, [[[0.0]]] * 3)
    torch.testing.assert_close(model.normalise.deviation, torch.ones(3, 1, 1))


def test_a_grey_model_is_fed_too(tmp_path: Path) -> None:
    theirs = tiny("vit", num_channels=1)
    process = transformers.ViTImageProcessorPil(size=NEAR, image_mean=[0.3], image_std=[0.2])
    image = to_8_bits(images_of(1, 1, SIDE, SIDE))[0]
    model = own_model(f"hf:{save(tmp_path, theirs, process)}")
    assert model.channels == 1
    with torch.no_grad():
        wanted = theirs((image[None].float() / 255 - 0.3) / 0.2).logits
        torch.testing.assert_close(model(image[None].float() / 255), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 28}, "crop_size": NEAR}, "pads"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "makes no image of an image"),
        ({"image_processor_type": "ImageGPTImageProcessor", "clusters": [[0, 0, 0], [1, 1, 1]]}, "makes no image"),
        ({"size": {"shortest_edge": 10**6}}, "more than 2048 pixels"),
        ({"size": {"shortest_edge": SIDE}, "crop_pct": 1e-4}, "more than 2048 pixels"),
        ({"size": NEAR, "image_processor_type": "ViTImageProcessor", "image_std": [-1, 1, 1]}, "does more"),
        ({"size": NEAR, "image_processor_type": "ViTImageProcessor", "image_std": [[0.5], {}]}, "no image classifier"),
        ({"size": NEAR, "image_processor_type": "ViTImageProcessor", "image_std": [0, 1, 1]}, "colour"),
        ({"size": NEAR, "image_processor_type": "ViTImageProcessor", "image_mean": "x"}, "no image classifier"),
        ({"image_processor_type": "NoSuchImageProcessor"}, "no image classifier"),
        ({"size": NEAR, "auto_map": {"AutoImageProcessor": "code.Mine"}}, "no image classifier"),
    ],
)
def test_a_processor_that_does_more_is_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        own_model(f"hf:{save(tmp_path, tiny('resnet'), options)}")
    assert str(caught.value).isprintable()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "net", tiny("resnet"), transformers.ConvNextImageProcessorPil(size={"shortest_edge": SIDE}))


def test_a_checkpoint_in_half_precision_is_read_as_float32(folder: Path) -> None:
    network = tiny("resnet")
    network.half().save_pretrained(folder)
    model = own_model(f"hf:{folder}")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    images = images_of(3, 2, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(model(images), network.float()((images - 0.5) / 0.5).logits, rtol=1e-4, atol=1e-4)


def changed(path: Path, **values: Any) -> None:
    """Other values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def spoilt(folder: Path, how: str) -> None:
    """One kind of damage to a folder."""
    config, processor, weights = (folder / name for name in NAMES)
    content = weights.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    match how:
        case "cut off":
            weights.write_bytes(content[: len(content) // 2])
        case "no weights":
            weights.unlink()
        case "no processor":
            processor.unlink()
        case "no head":
            header = content[8 : 8 + length].replace(b"classifier.1", b"classifier.9")
            weights.write_bytes(content[:8] + header + content[8 + length :])
        case "not a number":
            weights.write_bytes(content[:-4] + struct.pack("<f", float("nan")))
        case "another shape":
            changed(config, hidden_sizes=[4, 16])
        case "without end":
            changed(config, depths=[2**31, 1])
        case "of another kind":
            changed(config, model_type="bert")
        case "no model":
            config.write_text("[[1", encoding="utf-8")
        case "another answer":
            changed(config, return_dict=False)
        case "an index of a pickle":
            weights.unlink()
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "evil.bin"}}', encoding="utf-8")
        case "weights by name":
            changed(config, transformers_weights="adapter_model.bin")
        case "code of its own":
            changed(config, auto_map={"AutoModelForImageClassification": "evil.Net", "AutoConfig": "evil.Config"})
            changed(config, model_type="evil")
        case "attention of the hub":
            changed(config, _attn_implementation="evil/kernel", attn_implementation="evil/kernel")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut off", "no image classifier"),
        ("no weights", "no model.safetensors"),
        ("no processor", "no image classifier"),
        ("no head", "no weights of 2 parts, such as classifier.1.bias"),
        ("not a number", "not finite"),
        ("another shape", "no image classifier"),
        ("without end", "larger network than its weights"),
        ("of another kind", "no image classifier"),
        ("no model", "no image classifier"),
        ("another answer", "the classifier cannot take"),
        ("an index of a pickle", "evil.bin.*no pickle is read"),
        ("weights by name", "names its weights in config.json"),
        ("code of its own", "no image classifier"),
    ],
)
def test_a_damaged_folder_is_refused_in_a_line(
    how: str, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt(folder, how)
    with pytest.raises(InputError, match=said):
        own_model(f"hf:{folder}")
    capsys.readouterr()
    layer = tmp_path / "layer.stl"
    universal().save(layer)
    assert cli.run(["export", str(layer), "--model", f"hf:{folder}", "--out", str(tmp_path / "a.pt2")]) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(f"quasinat: .*{said}.*\\n", printed.err)
    assert printed.out == ""


class Evil:
    """What a pickle runs when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("how", ["no weights", "an index of a pickle", "weights by name", "code of its own"])
def test_neither_a_pickle_nor_code_is_run(how: str, folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    for name in ("pytorch_model.bin", "adapter_model.bin", "evil.bin", "model.safetensors.bin"):
        (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()", encoding="utf-8")
    spoilt(folder, how)
    with pytest.raises(InputError):
        own_model(f"hf:{folder}")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()  # it would have been seen


def test_a_configuration_names_no_attention_of_the_hub(folder: Path) -> None:
    spoilt(folder, "attention of the hub")
    assert own_model(f"hf:{folder}").network.classifier.config._attn_implementation == "eager"


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    network = tiny("resnet")
    network.save_pretrained(tmp_path, max_shard_size="2KB")
    transformers.ConvNextImageProcessorPil(size={"shortest_edge": SIDE}).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    images = images_of(3, 2, SIDE, SIDE)
    with torch.no_grad():
        wanted = network((images - 0.5) / 0.5).logits
        torch.testing.assert_close(own_model(f"hf:{tmp_path}")(images), wanted, rtol=1e-4, atol=1e-4)


def test_placeholders_are_no_names_of_classes(tmp_path: Path) -> None:
    network = tiny("resnet", id2label={number: f"LABEL_{number}" for number in range(3)})
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": SIDE})
    assert own_model(f"hf:{save(tmp_path, network, processor)}").labels == {}
