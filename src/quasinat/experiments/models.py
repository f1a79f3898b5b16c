"""Models as a run needs to know them: a digest that tells them apart, and whether they fit the images."""

import hashlib
import json
from collections.abc import Mapping

from torch import nn

from quasinat.defences import Transformation
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer


def digest(module: nn.Module) -> str:
    """SHA-256 over a module's tensors and, of every layer in it, what else decides T(x), and what it is given."""
    total = hashlib.sha256()
    for part in module.modules():
        if isinstance(part, SparseTransformationLayer):
            total.update(json.dumps(part.settings(), sort_keys=True).encode())
        elif isinstance(part, Defended):
            total.update(f"8-bit: {part.eight_bit}".encode())
        elif isinstance(part, Transformation):
            total.update(json.dumps([type(part).__name__, part.settings()], sort_keys=True).encode())
    for name, tensor in module.state_dict().items():
        total.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().data)
    return total.hexdigest()


def check_networks(networks: Mapping[str, nn.Module | None], *, classes: int, channels: int) -> None:
    """Refuses networks, by option, of other classes or channels than the image set's.

    Raises:
        UsageError: names the option.
    """
    for option, network in networks.items():
        for name, wanted in (("classes", classes), ("channels", channels)):
            found = wanted if network is None else getattr(network, name, wanted)
            if found != wanted:
                raise UsageError(f"{option} has {found} {name}, the image set {wanted}", "pass one trained on this set")
