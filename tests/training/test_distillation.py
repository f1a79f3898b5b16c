"""Distillation's two trainings against their losses written out, and their checkpoints."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quasinat.errors import UsageError
from quasinat.networks import VGG, vgg
from quasinat.training import distillation, train_classifier, train_distilled

QUICK = {"epochs": 2, "batch_size": 16, "augment": False}


@pytest.fixture
def half() -> tuple[Tensor, Tensor]:
    """Dark images of class 0 and light ones of class 1."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = 0.3 * torch.rand(64, 1, 8, 8, generator=generator) + 0.5 * labels.view(-1, 1, 1, 1)
    return images, labels


def small(seed: int = 0) -> VGG:
    return vgg("vgg-small", classes=2, channels=1, seed=seed)


def losses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Every (logits, wanted) whose cross-entropy is minimised from here on."""
    seen: list[tuple[Tensor, Tensor]] = []
    original = distillation.F.cross_entropy

    def recording(logits: Tensor, wanted: Tensor) -> Tensor:
        seen.append((logits.detach(), wanted.detach()))
        return original(logits, wanted)

    monkeypatch.setattr(distillation.F, "cross_entropy", recording)
    return seen


def test_the_teacher_learns_the_labels_at_the_temperature_and_the_student_its_probabilities(
    half: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = losses(monkeypatch)
    teacher = train_distilled(small(), *half, temperature=20.0, **QUICK)
    assert {wanted.dtype for _, wanted in seen} == {torch.int64}
    assert float((teacher(half[0]).argmax(1) == half[1]).float().mean()) == 1
    seen.clear()
    student = train_distilled(small(1), *half, teacher=teacher, temperature=20.0, **QUICK)
    possible = (teacher(half[0]) / 20).softmax(1).detach()
    for _, wanted in seen:  # every label is the teacher's answer about some training image, softened
        distances = (wanted[:, None] - possible).abs().amax(2).amin(1)
        assert float(distances.max()) < 1e-5
    assert float((student(half[0]).argmax(1) == half[1]).float().mean()) == 1


def test_at_temperature_one_the_teacher_is_the_plain_classifier(half: tuple[Tensor, Tensor]) -> None:
    plain = train_classifier(small(), *half, **QUICK)
    teacher = train_distilled(small(), *half, temperature=1.0, **QUICK)
    for name, value in plain.state_dict().items():
        assert value.equal(teacher.state_dict()[name]), name


def test_a_high_temperature_makes_logits_large(half: tuple[Tensor, Tensor]) -> None:
    """What the defence rests on: at temperature 1 the probabilities of a network trained at T are nearly 0 and 1."""
    options = QUICK | {"epochs": 6}
    plain = train_classifier(small(), *half, **options)
    teacher = train_distilled(small(), *half, temperature=20.0, **options)
    student = train_distilled(small(1), *half, teacher=teacher, temperature=20.0, **options)

    def gap(network: nn.Module) -> float:
        with torch.no_grad():
            logits = network(half[0]).sort(1).values
        return float((logits[:, -1] - logits[:, -2]).mean())

    assert gap(student) > 2 * gap(plain)


def test_an_interrupted_training_ends_as_one_that_was_not(half: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    teacher = train_distilled(small(), *half, **QUICK)
    whole = train_distilled(small(1), *half, teacher=teacher, **QUICK)
    path = tmp_path / "checkpoint"

    def stop(epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_distilled(small(1), *half, teacher=teacher, checkpoint=path, on_epoch=stop, **QUICK)
    resumed = train_distilled(small(1), *half, teacher=teacher, checkpoint=path, **QUICK)
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name
    with pytest.raises(UsageError, match="another training"):
        train_distilled(small(1), *half, teacher=whole, checkpoint=path, **QUICK)


def test_a_temperature_of_zero_is_refused(half: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UsageError, match=r"temperature of 0\.0"):
        train_distilled(small(), *half, temperature=0.0)
