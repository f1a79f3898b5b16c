"""The Adversarial Robustness Toolbox: a defended classifier for its attacks, and the layer as one of its defences.

ART differentiates what a preprocessor's `forward` does and, in a chain of PyTorch parts, never asks `estimate_forward`;
so the straight-through derivative is inside `forward`. It is an upper bound on robustness: the attacks that count are
made on `as_art_classifier` of a module with its true gradient, `defended.with_adjoint(Implicit())`.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quasinat.defended import StraightThrough
from quasinat.errors import UsageError
from quasinat.interop.chunked import Chunked

try:
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
    from art.estimators.classification import PyTorchClassifier
except ImportError as error:
    raise UsageError("quasinat.interop.art needs ART", "pip install 'quasinat[interop]'") from error


def as_art_classifier(
    model: nn.Module, *, shape: tuple[int, int, int], classes: int, chunk: int = 64
) -> PyTorchClassifier:
    """A classifier that ART's attacks run on, differentiated as the module is.

    Args:
        model: images `B C H W` in [0, 1] to logits; a `Defended` with its gradient named by `with_adjoint`.
        shape: `C H W` of the images.
        classes: logits.
        chunk: images that go through the module at a time, whatever ART hands over.

    Raises:
        UsageError: no gradient comes back through the module, or only zeros: the attacks would find nothing, and that
            would not be robustness.
    """
    model = model.eval()
    probe = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(_place(model)).requires_grad_()
    logits = model(probe)
    if logits.shape != (2, classes):
        raise UsageError(f"the module makes {tuple(logits.shape)} of two images", f"give a module of {classes} logits")
    back = torch.autograd.grad(logits.square().sum(), probe, allow_unused=True)[0] if logits.requires_grad else None
    if back is None or not bool(back.any()):
        problem = "no gradient comes back through the module"
        raise UsageError(problem, "name one, as in defended.with_adjoint(quasinat.Implicit())")
    return PyTorchClassifier(
        model=Chunked(model, chunk),
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type=_device_type(model),
    )


class ArtPreprocessor(PreprocessorPyTorch):
    """A transformation in front of any of ART's PyTorch classifiers, at prediction only; BPDA with the identity.

    Args:
        transform: images `B C H W` in [0, 1] to images of the same shape, as the Sparse Transformation Layer.
        chunk: images at a time.
    """

    params: ClassVar = ["chunk"]  # what ART's own checks look at

    def __init__(self, transform: nn.Module, *, chunk: int = 64) -> None:
        super().__init__(is_fitted=True, apply_fit=False, apply_predict=True, device_type=_device_type(transform))
        self.chunk = chunk
        self._module = Chunked(StraightThrough(transform.eval()), chunk)

    def forward(self, x: Tensor, y: Any = None) -> tuple[Tensor, Any]:
        """T(x), and the labels as they are."""
        return self._module(x), y


def _place(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))


def _device_type(module: nn.Module) -> str:
    """As ART names it."""
    return "gpu" if _place(module).type == "cuda" else "cpu"
