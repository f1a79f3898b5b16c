"""Small models whose decision boundaries are known, or that are small enough to be quick."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import L2, Budget, Dissimilarity, Linf

SHAPE = (1, 6, 6)
BUDGETS: list[Budget] = [Linf(0.03), L2(0.2), Dissimilarity(0.08), Dissimilarity(0.08, "gradient")]


class Linear(nn.Module):
    """Logits W x + b: the distance to the boundary of class k is |f_k - f_y| / ||W_k - W_y||_2."""

    def __init__(self, classes: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        size = math.prod(SHAPE)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=generator, dtype=torch.float64).to(dtype))
        self.register_buffer("bias", torch.tensor([3.0] + [0.0] * (classes - 1), dtype=dtype))

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight.T + self.bias

    def distances(self, images: Tensor) -> Tensor:
        """L2 distance of each image to its nearest decision boundary."""
        with torch.no_grad():
            logits = self(images)
            labels = logits.argmax(1)
            gaps = logits.max(1, keepdim=True).values - logits
            norms = torch.linalg.vector_norm(self.weight[labels][:, None] - self.weight[None], dim=2)
            return (gaps / norms).scatter(1, labels[:, None], torch.inf).amin(1)


class Perceptron(nn.Module):
    """A curved model with dropout, so that its training flag matters."""

    def __init__(self, classes: int = 5, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(SHAPE), 24), nn.Tanh(), nn.Dropout(0.5), nn.Linear(24, classes)
        )
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(4 * images - 2)


class Constant(nn.Module):
    """The same given logits for every image, with or without a path to the image."""

    def __init__(self, logits: list[float], attached: bool = True) -> None:
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.float64)
        self.attached = attached

    def forward(self, images: Tensor) -> Tensor:
        rows = self.logits.expand(len(images), -1)
        return rows + 0 * images.flatten(1).sum(1, keepdim=True) if self.attached else rows.clone()


def decisions(model: nn.Module, images: Tensor) -> Tensor:
    """What the model says in evaluation mode."""
    training = model.training
    model.eval()
    with torch.no_grad():
        labels = model(images).argmax(1)
    model.train(training)
    return labels


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are tiny: a second thread only waits, and on a busy machine for long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    """Seven greyish images, away from black and white."""
    return 0.4 + 0.2 * torch.rand(7, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def perceptron() -> Perceptron:
    return Perceptron()


@pytest.fixture
def labels(perceptron: Perceptron, images: Tensor) -> Tensor:
    """The perceptron's own decisions, but for the last image, which it gets wrong."""
    labels = decisions(perceptron, images)
    labels[-1] = (labels[-1] + 1) % 5
    return labels
