"""The pictures of a run, as tensors: patches, whole photographs, filters and samples of the strata."""

import torch
from torch import Tensor

from quasinat.attacks import Dissimilarity, fgsm
from quasinat.data import photograph, standardise
from quasinat.experiments.columns import CLEAN
from quasinat.experiments.demo import LAYERS, Demo, Evidence
from quasinat.experiments.workspace import Step

PHOTOGRAPHS = ("chelsea", "coffee")
SAMPLES = 12


def pictures(demo: Demo, evidence: Evidence) -> dict[str, Tensor]:
    """Tensors by name.

    `patches/NAME`: one test image of each class, `B C H W`: clean, adversarial (FGSM-0.08) and T of it by layer.
    `photograph/NAME/...`: the same for whole photographs, attacked away from what the vanilla classifier sees in them.
    `filters/LAYER`: `M K C S S`. `strata/M`: training images of a stratum.
    """

    def compute() -> Step:
        return {**_patches(evidence), **_photographs(demo, evidence), **_filters(evidence), **_strata(evidence)}, {}

    return demo.workspace.step("pictures", compute)[0]


def _patches(evidence: Evidence) -> dict[str, Tensor]:
    labels = evidence.data.test_labels
    ones = torch.stack([(labels == label).nonzero().flatten()[0] for label in labels.unique()])[:10]
    tensors = {
        "patches/clean": evidence.sets[CLEAN][ones],
        "patches/adversarial": evidence.sets["fgsm-0.08"][ones],
    }
    return tensors | {f"patches/{name}": evidence.projected[name]["fgsm-0.08"][ones] for name in LAYERS}


def _photographs(demo: Demo, evidence: Evidence) -> dict[str, Tensor]:
    colour = evidence.data.train_images.shape[1] == 3
    tensors: dict[str, Tensor] = {}
    with demo.progress.task("project whole photographs", len(PHOTOGRAPHS)) as report:
        for done, name in enumerate(PHOTOGRAPHS):
            clean = photograph(name, colour=colour)[None]
            if not colour:
                clean = standardise(clean)
            with torch.no_grad():
                seen = evidence.vanilla(clean).argmax(1)
            adversarial = fgsm(evidence.vanilla, clean, seen, budget=Dissimilarity(0.08)).images
            tensors[f"photograph/{name}/clean"] = clean[0]
            tensors[f"photograph/{name}/adversarial"] = adversarial[0]
            for layer in LAYERS:
                tensors[f"photograph/{name}/{layer}"] = evidence.layers[layer].project(adversarial)[0]
            report(done + 1)
    return tensors


def _filters(evidence: Evidence) -> dict[str, Tensor]:
    return {f"filters/{name}": evidence.layers[name].filters for name in LAYERS}


def _strata(evidence: Evidence) -> dict[str, Tensor]:
    images, layer = evidence.data.train_images, evidence.layers["stratified"]
    members = layer.stratum(images)
    return {f"strata/{m}": images[members == m][:SAMPLES] for m in range(len(layer.filters))}
