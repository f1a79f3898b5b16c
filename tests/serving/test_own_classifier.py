"""Somebody else's classifier behind the layer in the service: it answers as the classifier does, by its names."""

from pathlib import Path

import pytest
import torch

from interop.others import LABELS, SIDE, exported, save, tiny
from layers import universal
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.interop import classifier_named
from quasinat.networks import save_classifier, vgg
from quasinat.serving.classes import class_names
from quasinat.serving.coder import Coder
from serving.service import eight_bits, png, refused, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny classifier of Hugging Face, by its name."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.MobileViTImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": SIDE, "width": SIDE}
    )
    return f"hf:{save(tmp_path_factory.mktemp('served'), tiny('resnet'), processor)}"


def test_the_service_answers_as_the_classifier_does(folder: str) -> None:
    model, layer = classifier_named(folder), universal()
    image = eight_bits(1)[0]
    with torch.no_grad():
        before = model(image[None].float() / 255)[0].softmax(0)
        after = Defended(layer, model)(image[None].float() / 255)[0].softmax(0)
    with serving(Coder(layer, model), names=class_names(model, None)) as service:
        answer = service.post("/v1/classify?top=3", png(image)).json()
        refused(service.post("/v1/classify", png(eight_bits(1, 4, 20)[0])), 422, "5")  # the filters' size alone
    for opinion, wanted in ((answer["before"], before), (answer["after"], after)):
        assert (opinion["label"], opinion["name"]) == (int(wanted.argmax()), LABELS[int(wanted.argmax())])
        found = {likely["label"]: likely["probability"] for likely in opinion["top"]}
        assert [found[label] for label in range(3)] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_classifiers_of_several_sources_are_compared_where_they_fit(folder: str, tmp_path: Path) -> None:
    for classes in (3, 4):
        save_classifier(tmp_path / f"{classes}.safetensors", vgg("vgg-small", classes=classes), {})
    files = [str(tmp_path / f"{classes}.safetensors") for classes in (3, 4)]
    model, fits, other = (classifier_named(name) for name in (folder, *files))
    assert Coder(universal(), model, fits).plain_model is fits
    with pytest.raises(UsageError, match="other classes"):
        Coder(universal(), model, other)
    with pytest.raises(UsageError, match="3 channels, the layer for 1"):
        Coder(universal(1), model)


def test_a_program_has_no_names_of_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    model = classifier_named(str(exported(network, tmp_path / "net.pt2")))
    assert (model.classes, model.channels, class_names(model)) == (4, 3, None)
    Coder(universal(), model).warm_up()
