"""The card of somebody else's classifier behind the layer: its figures, and how its labels are known."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from interop.others import exported
from layers import images_of, universal
from pages import DOCS, code_blocks, command_lines
from quasinat import Defended, Implicit, Linf, cli
from quasinat.attacks import pgd
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import accuracy_of, psnr
from quasinat.experiments.defend import DefendSettings, defend
from quasinat.experiments.own_images import OwnImages, own_images
from quasinat.interop import OwnModel
from quasinat.networks import save_classifier, vgg
from quasinat.report.defend_card import NOT_ATTACKED, card_markdown, card_rows

SIDE, CLASSES = 32, 4
FOLDERS = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """One to which the classes are about even, so that the layer and an attack change some answers."""
    torch.manual_seed(0)
    made = vgg("vgg-small", classes=CLASSES).eval()
    with torch.no_grad():
        made.classifier.bias -= made(images_of(3, 12, SIDE, SIDE)).mean(0)
    return made


@pytest.fixture
def model(network: nn.Module) -> OwnModel:
    return OwnModel(network, size=(SIDE, SIDE), labels={0: "Ant, an insect", 1: "bee", 2: "CAT", 3: "dog"}).eval()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three images of 36 x 40 pixels in each of four folders, one of which cannot be read."""
    root = tmp_path / "photos"
    for index, image in enumerate(images_of(3, 12, 36, 40)):
        folder = root / FOLDERS[index % 4]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (root / "dog" / "11.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return root


def given(images: Tensor, labels: Tensor | None) -> OwnImages:
    return OwnImages(images, labels, "made up", tuple(map(str, range(len(images)))), {})


def test_the_figures_are_those_of_the_two(model: OwnModel) -> None:
    images, labels = images_of(3, 10, SIDE, SIDE), torch.arange(10) % CLASSES
    layer = universal()
    settings = DefendSettings(attacked=3, eps=2 / 255, steps=3, batch_size=4)
    card = defend(model, layer, given(images, labels), settings)
    defended = Defended(layer, model).eval()
    with torch.no_grad():
        plain, behind = model(images).argmax(1), defended(images).argmax(1)
        assert card["psnr"] == pytest.approx(float(psnr(layer(images), images).mean()), rel=1e-5)
    assert 0 < card["agreement"]["value"] < 1
    assert card["agreement"]["value"] == int((plain == behind).sum()) / 10
    assert card["accuracy"]["plain"]["value"] == pytest.approx(float((plain == labels).float().mean()))
    assert card["accuracy"]["defended"]["value"] == pytest.approx(float((behind == labels).float().mean()))
    difference = card["accuracy"]["defended"]["value"] - card["accuracy"]["plain"]["value"]
    assert card["accuracy"]["difference"]["value"] == pytest.approx(difference)
    for name, module in (("plain", model), ("defended", defended.with_adjoint(Implicit()))):
        found = pgd(module, images[:3], labels[:3], budget=Linf(2 / 255), steps=3, seed=0)
        assert card["attack"][name]["value"] == accuracy_of(~found.success).value
    assert json.loads(json.dumps(card)) == card


def test_without_labels_the_attack_is_judged_by_the_classifiers_own_answers(model: OwnModel) -> None:
    images = images_of(3, 4, SIDE, SIDE)
    card = defend(model, universal(), given(images, None), DefendSettings(attacked=4, eps=1e-6, steps=1))
    assert card["accuracy"] is None
    assert card["attack"]["judged by"] == "the classifier's own answers"
    assert card["attack"]["plain"]["value"] == 1.0  # the smallest of attacks changes nothing
    assert card["attack"]["defended"]["value"] == card["agreement"]["value"]
    assert not any(row[0] == "accuracy" for row in card_rows(card))


def test_the_commands_of_the_page_learn_a_layer_and_defend_with_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are written, on few and small images, and with few filters."""
    (tree / "dog" / "11.png").unlink()
    monkeypatch.chdir(tree.parent)
    exported(nn.Sequential(nn.Conv2d(3, CLASSES, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), Path("model.pt2"))
    page = (DOCS / "interop.md").read_text(encoding="utf-8").split("## Your own classifier")[1]
    learn, defend_it, *_ = command_lines(code_blocks(page, "sh")[0])
    assert learn[:3] == ["quasinat", "learn", "layer"]
    smaller = {"64": "32"}
    small = ["--universal", "--filters", "4", "--passes", "1", "--held-out", "0"]
    assert cli.run([*(smaller.get(word, word) for word in learn[1:]), *small]) == 0
    assert cli.run([*defend_it[1:], "--count", "4"]) == 0
    card = json.loads(Path("card", "card.json").read_text(encoding="utf-8"))
    assert (card["model"]["name"], card["layer"]["file"]) == ("model.pt2", "imagenet.stl")


def test_the_card_says_what_the_classifier_sees(network: nn.Module) -> None:
    model = OwnModel(network, mean=(0.4, 0.5, 0.6), deviation=(0.25,), size=(SIDE, SIDE), flipped=True).eval()
    text = card_markdown(defend(model, universal(), given(images_of(3, 2, 20, 20), None), DefendSettings()))
    seen = "(x - mean) / deviation of the channels in reverse, mean 0.4, 0.5, 0.6, deviation 0.25, 0.25, 0.25, at 32×32"
    assert seen in text
    assert "brought to it (bilinear, antialiased); its own processor's resizing is not done" in text


def test_what_was_not_attacked_is_called_so(model: OwnModel) -> None:
    card = defend(model, universal(), given(images_of(3, 4, SIDE, SIDE), None), DefendSettings())
    assert card["attack"] is None
    assert NOT_ATTACKED in card_markdown(card)


@pytest.mark.parametrize(
    ("name", "value"), [("attacked", -1), ("steps", 0), ("batch_size", 0), ("eps", 0.0), ("eps", 2.0)]
)
def test_settings_that_make_no_sense(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        DefendSettings(**{name: value})  # type: ignore[arg-type]


def test_folders_are_read_by_the_names_of_the_classes(model: OwnModel, tree: Path) -> None:
    found = own_images(tree, model, channels=3, count=20)
    assert found.images.shape == (11, 3, SIDE, SIDE)
    assert found.labelled == "by the classes' names"
    assert found.labels is not None
    assert found.labels.tolist() == [FOLDERS.index(name.split("/")[0]) for name in found.names]
    assert list(found.left_out) == ["dog/11.png"]
    fewer = own_images(tree, model, channels=3, count=4)
    assert fewer.names == found.names[:4]


@pytest.mark.parametrize(
    ("table", "labels", "known"),
    [
        (None, {}, "by the order of the class folders"),
        ("wnid,class_index\nant,3\nbee,2\ncat,1\ndog,0\n", {}, "by labels.csv"),
        ("wnid,class_index\nant,3\n", {}, "not known: the folder bee is no class of the classifier's"),
        (None, {0: "ant", 1: "wasp"}, "not known: the folder bee is no class of the classifier's"),
    ],
)
def test_how_the_labels_are_known(
    network: nn.Module, tree: Path, table: str | None, labels: dict[int, str], known: str
) -> None:
    if table is not None:
        (tree / "labels.csv").write_text(table, encoding="utf-8")
    found = own_images(tree, OwnModel(network, size=(SIDE, SIDE), labels=labels), channels=3, count=3)
    assert found.labelled == known
    if table is not None and found.labels is not None:
        assert found.labels.tolist() == [3 - FOLDERS.index(name.split("/")[0]) for name in found.names]
    assert (found.labels is None) == known.startswith("not known")


def test_what_a_classifier_cannot_take_is_refused_in_a_line(tree: Path) -> None:
    wrong = OwnModel(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)))
    with pytest.raises(UsageError, match="--size"):
        own_images(tree, wrong, channels=3, count=2)
    with pytest.raises(InputError, match="cannot take an image of 3x32x32") as caught:
        own_images(tree, wrong, channels=3, count=2, size=SIDE)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="of logits B classes"):
        own_images(tree, OwnModel(nn.Identity()), channels=3, count=2, size=SIDE)
    with pytest.raises(UsageError, match="--count 0"):
        own_images(tree, wrong, channels=3, count=0, size=SIDE)


def test_the_command_writes_the_card(
    network: Any, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(tmp_path / "net.safetensors", network, {})
    universal().save(tmp_path / "a.stl")
    arguments = ["defend", f"quasinat:{tmp_path / 'net.safetensors'}", str(tree), "--layer", str(tmp_path / "a.stl")]
    arguments += ["--size", str(SIDE), "--out", str(tmp_path / "card"), "--count", "20", "--json", "--device", "cpu"]
    assert cli.run(arguments) == 1  # one of the images cannot be read
    answer = capsys.readouterr()
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    assert json.loads(answer.out) == card
    assert card["model"]["name"] == "quasinat:net.safetensors"
    assert str(tmp_path) not in answer.out
    assert card["images"]["n"] == 11
    text = (tmp_path / "card" / "card.md").read_text(encoding="utf-8")
    assert text.startswith("# quasinat:net.safetensors, behind the layer")
    assert "left out" in answer.err
    assert cli.run([*arguments, "--mean", "a,b"]) == 2
    assert "--mean" in capsys.readouterr().err
