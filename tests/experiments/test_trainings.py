"""Every training by name is the library's own on the same images; its options are its own, and its file says which."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quasinat.artefact import read_card
from quasinat.attacks import Budget, Dissimilarity, Linf
from quasinat.data import photographs, subset
from quasinat.defences import train_on_fgsm, train_on_pgd
from quasinat.errors import UsageError
from quasinat.experiments import TrainSettings
from quasinat.experiments.train import Trained
from quasinat.experiments.train import train as run
from quasinat.experiments.train_settings import KINDS
from quasinat.networks import VGG, load_classifier, vgg
from quasinat.networks.saturating import SaturatedLinear
from quasinat.networks.thermometer import Thermometer
from quasinat.training import train_classifier, train_distilled, train_saturating, train_trades

FIT: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "seed": 3}
VALUES: dict[str, Any] = {
    "budget": Linf(4 / 255),
    "steps": 2,
    "share": 0.25,
    "beta": 2.0,
    "penalty": 1.0,
    "temperature": 20.0,
    "encoding": "thermometer",
}
OPTIONS = {
    "vanilla": {"encoding"},
    "retrained": {"encoding"},
    "adversarial": {"budget", "steps", "share", "encoding"},
    "fgsm": {"budget", "share", "encoding"},
    "trades": {"budget", "beta", "steps"},
    "saturating": {"penalty"},
    "distilled": {"temperature"},
}
Train = Callable[..., nn.Module]


def train(kind: str, out: Path, **options: Any) -> Trained:
    return run(TrainSettings(kind, train_per_class=2, **FIT, **options), out, device="cpu")


@pytest.fixture(scope="module")
def half() -> tuple[Tensor, Tensor]:
    """The same twenty training images."""
    data = subset(photographs(32, seed=3), 2, 1, seed=3)
    return data.train_images, data.train_labels


def new(**network: Any) -> VGG:
    return vgg("vgg-small", classes=10, channels=1, seed=3, **network)


def fitted(method: Train, half: tuple[Tensor, Tensor], network: VGG, **options: Any) -> tuple[VGG, list[float]]:
    """The library's training, and what it says of its epochs."""
    losses: list[float] = []
    method(network, *half, **FIT, **options, on_epoch=lambda _, loss: losses.append(loss))
    return network, losses


def same(path: Path, network: VGG) -> bool:
    theirs, ours = load_classifier(path).state_dict(), network.state_dict()
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("kind", "given", "method", "options"),
    [
        ("fgsm", {"budget": Dissimilarity(0.05), "share": 0.25}, train_on_fgsm, None),
        ("trades", {"budget": Linf(4 / 255), "beta": 2.0, "steps": 2}, train_trades, {"beta": 2.0, "steps": 2}),
        ("trades", {"noise": 0.1, "steps": 1}, train_trades, {"noise": 0.1, "steps": 1, "radius": 8 / 255}),
        ("saturating", {"penalty": 1.0}, train_saturating, None),
    ],
)
def test_each_kind_is_the_librarys_training(
    kind: str,
    given: dict[str, Any],
    method: Train,
    options: dict[str, Any] | None,
    half: tuple[Tensor, Tensor],
    tmp_path: Path,
) -> None:
    trained = train(kind, tmp_path / "out", **given)
    network = {"activation": "saturating"} if kind == "saturating" else {}
    wanted = given if options is None else {"radius": 4 / 255, **options}
    expected, losses = fitted(method, half, new(**network), **wanted)
    assert same(tmp_path / "out", expected)
    assert trained.losses == tuple(losses)
    assert "teacher_losses" not in trained.as_json()


def test_distilled_is_the_student_of_a_teacher_and_the_card_tells_of_both(
    half: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    trained = train("distilled", tmp_path / "out", temperature=20.0)
    teacher, of_teacher = fitted(train_distilled, half, new(), temperature=20.0)
    student, of_student = fitted(train_distilled, half, new(), teacher=teacher, temperature=20.0)
    assert same(tmp_path / "out", student)
    made = read_card(tmp_path / "out")["provenance"]
    assert (made["teacher_losses"], made["losses"]) == (of_teacher, of_student)
    assert (trained.teacher_losses, trained.losses) == (tuple(of_teacher), tuple(of_student))
    assert trained.as_json()["teacher_losses"] == of_teacher != of_student
    assert made["settings"]["temperature"] == 20.0


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("vanilla", train_classifier, {}),
        ("adversarial", train_on_pgd, {"budget": Linf(4 / 255), "steps": 2}),
        ("fgsm", train_on_fgsm, {}),
    ],
)
def test_a_thermometer_is_trained_and_kept(
    kind: str, method: Train, options: dict[str, Any], half: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    train(kind, tmp_path / "out", encoding="thermometer", levels=6, **options)
    expected, _ = fitted(method, half, new(encoding="thermometer", levels=6), **options)
    assert same(tmp_path / "out", expected)
    loaded = load_classifier(tmp_path / "out")
    assert isinstance(loaded.normalise, Thermometer)
    assert loaded.options == {"encoding": "thermometer", "levels": 6}
    settings = read_card(tmp_path / "out")["provenance"]["settings"]
    assert (settings["encoding"], settings["levels"]) == ("thermometer", 6)
    images, _ = half
    with torch.no_grad():
        assert loaded(images).equal(loaded((images * 6).ceil().clamp_min(1).sub(0.5) / 6))  # only the level counts


def test_a_saturating_file_is_a_saturating_network(tmp_path: Path) -> None:
    train("saturating", tmp_path / "out")
    loaded = load_classifier(tmp_path / "out")
    units = [module for module in loaded.features if isinstance(module, SaturatedLinear | nn.ReLU)]
    assert [type(unit) for unit in units] == [SaturatedLinear] * 5
    assert read_card(tmp_path / "out")["provenance"]["settings"]["penalty"] == 3.0


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_of_other_kinds_is_refused_and_the_remedy_names_them(kind: str) -> None:
    assert OPTIONS.keys() == set(KINDS)
    for name, value in VALUES.items():
        if name in OPTIONS[kind]:
            assert TrainSettings(kind, **{name: value}).own[name] == value
            continue
        with pytest.raises(UsageError, match=f"--{name} is no option of the training '{kind}'") as caught:
            TrainSettings(kind, **{name: value})
        for other in KINDS:
            assert (other in str(caught.value).split(";")[-1]) == (name in OPTIONS[other]), str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_given_is_the_kinds_usual_value_and_recorded(kind: str) -> None:
    bare = TrainSettings(kind)
    plain = {"encoding", "levels"} if bare.own.get("encoding") == "none" else set()
    assert bare.own.keys() - plain == OPTIONS[kind] - plain
    recorded = bare.as_json()
    assert OPTIONS[kind] - plain == recorded.keys() & (VALUES.keys() | {"levels"})
    given = {name: value for name, value in bare.own.items() if name not in plain}
    assert TrainSettings(kind, **given).as_json() == recorded
    for name, value in given.items():
        assert recorded[name] == (value if not isinstance(value, Budget) else recorded["budget"])


def test_the_usual_values_are_the_librarys() -> None:
    def usual(method: Train, name: str) -> Any:
        return inspect.signature(method).parameters[name].default

    adversarial, trades = TrainSettings("adversarial").own, TrainSettings("trades").own
    assert (adversarial["budget"], adversarial["steps"], adversarial["share"]) == (Linf(8 / 255), 7, 1.0)
    assert TrainSettings("fgsm").own["budget"] == usual(train_on_fgsm, "budget") == Dissimilarity(0.08)
    assert TrainSettings("fgsm").own["share"] == usual(train_on_fgsm, "share") == 0.5
    assert trades["budget"].size == usual(train_trades, "radius")
    assert (trades["beta"], trades["steps"]) == (usual(train_trades, "beta"), usual(train_trades, "steps")) == (6, 10)
    assert TrainSettings("saturating").own["penalty"] == usual(train_saturating, "penalty") == 3
    assert TrainSettings("distilled").own["temperature"] == usual(train_distilled, "temperature") == 100
    assert TrainSettings("vanilla", encoding="thermometer").as_json()["levels"] == usual(vgg, "levels") == 16
