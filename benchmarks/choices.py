"""The layer's choices, compared by how well they defend CIFAR-10 *training* images that nothing was fitted to.

    python benchmarks/choices.py --root DIR --work FOLDER --out results/choices.json

Splits and normalisations, each with a universal dictionary and classifiers of two seeds retrained on its projections of
the same 5,000 images; judged on 1,000 others: gray-box, on the attacks of the paper's tables made on a vanilla
classifier, and white-box, by BIM with the true gradient (`Implicit`). The score is the mean of the two accuracies. Then
what `refine` changes. The test set is not read. An interrupted run goes on from FOLDER.
"""

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.attacks import Dissimilarity, bim
from quasinat.data import Dataset, cifar10
from quasinat.data.cifar10 import CLASSES
from quasinat.defended import Defended
from quasinat.evaluation import accuracy_of, outcomes, provenance, psnr
from quasinat.experiments.columns import CLEAN, gray_box_attacks
from quasinat.experiments.demo import Demo
from quasinat.experiments.progress import Silent
from quasinat.experiments.settings import DemoSettings
from quasinat.experiments.workspace import Step, Workspace
from quasinat.files import write_json
from quasinat.layer import Normalise, SparseTransformationLayer
from quasinat.sparse_coding import Auto, Implicit, SparseCodingProblem, solve
from quasinat.strata import Split, learn_dictionaries, split_bands

SETTINGS = DemoSettings(data="cifar10", epochs=10, filters=64, tolerance=5e-2)
FITTED, JUDGED, WHITE_BOX = 5000, 1000, 50
# Where nothing passes uncoded, codes are dense and everything is slow: one row.
TRIED: tuple[tuple[Split, float, Normalise], ...] = (
    ("tikhonov", 0.1, "clip"),
    ("tikhonov", 0.1, "max"),
    ("tikhonov", 0.2, "clip"),
    ("tikhonov", 0.2, "max"),
    ("none", 0.2, "clip"),
)
WHITE_BOX_BUDGET = 0.01  # L2-dissimilarity; weaker than the gray-box attacks', so that something is left to compare
SEEDS = (0, 1)
REFINED, REFINES = 100, (1, 3)


def held_out_of_training(root: Path) -> Dataset:
    """Of the training images, some to fit everything to and others to judge on."""
    images, labels = cifar10(root, "train")
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(SETTINGS.seed))
    fitted, judged = drawn[:FITTED], drawn[FITTED : FITTED + JUDGED]
    description = f"{FITTED} and {JUDGED} of CIFAR-10's training images, disjoint"
    return Dataset(
        "cifar10-train", images[fitted], labels[fitted], images[judged], labels[judged], CLASSES, description
    )


def choice(demo: Demo, attacks: dict[str, Tensor], layer: SparseTransformationLayer, name: str) -> dict[str, Any]:
    """Accuracies of one layer with the classifiers retrained behind it, by seed."""
    train = demo.projected(f"train-{name}", layer, demo.data.train_images)
    seen = {column: demo.projected(f"{column}-{name}", layer, images) for column, images in attacks.items()}
    labels, few = demo.data.test_labels, demo.data.test_images[:WHITE_BOX]
    attack = partial(bim, budget=Dissimilarity(WHITE_BOX_BUDGET, step="gradient"), steps=SETTINGS.white_box_steps)
    runs = []
    for seed in SEEDS:
        retrained = demo.classifier(f"retrained-{name}-{seed}", train, seed)
        defended = Defended(layer, retrained).with_adjoint(Implicit(on_fallback=lambda fell, of: None))
        step = demo.adversarial(f"white-box-{name}-{seed}", attack, defended, few, labels[:WHITE_BOX])
        withstood = outcomes(Defended(layer, retrained), step[0]["images"], labels[:WHITE_BOX])
        cells = {column: asdict(accuracy_of(outcomes(retrained, images, labels))) for column, images in seen.items()}
        gray = sum(cells[column]["value"] for column in cells if column != CLEAN) / (len(cells) - 1)
        white = asdict(accuracy_of(withstood))
        score = (gray + white["value"]) / 2
        runs.append({"accuracy": cells, "gray-box mean": gray, "white-box": white, "score": score})
    return {
        "split": layer.split,
        "normalise": layer.normalise,
        "sparsity": layer.sparsity,
        "psnr": float(psnr(seen[CLEAN], attacks[CLEAN]).mean()),
        "seeds": runs,
        "score": sum(run["score"] for run in runs) / len(runs),
    }


def refinement(
    demo: Demo, attacks: dict[str, Tensor], layer: SparseTransformationLayer, refine: int, name: str
) -> dict[str, Any]:
    """What `refine` filter updates an image change: the objective, PSNR and accuracy behind the same classifier."""
    labels, few = demo.data.test_labels[:REFINED], {column: images[:REFINED] for column, images in attacks.items()}
    refined = SparseTransformationLayer(
        None, layer.dictionaries, layer.sparsity, split=layer.split, refine=refine, solver=layer.solver
    )
    train = demo.projected(f"train-{name}", layer, demo.data.train_images)
    retrained = demo.classifier(f"retrained-{name}-0", train, 0)

    def objectives() -> Step:
        band, values = split_bands(few[CLEAN], layer.split)[1], []
        for image in band.split(1):
            filters = refined._refined(image, refined.filters[0], 0)
            solution = solve(SparseCodingProblem(image, filters, layer.sparsity), layer.solver, codes="sparse")
            values.append(solution.objective.float())
        return {"objective": torch.cat(values)}, {}

    seen = {column: demo.projected(f"{column}-refine-{refine}", refined, images) for column, images in few.items()}
    objective = demo.workspace.step(f"objective-refine-{refine}", objectives)[0]["objective"]
    return {
        "refine": refine,
        "objective": float(objective.mean()),
        "psnr": float(psnr(seen[CLEAN], few[CLEAN]).mean()),
        "accuracy": {
            column: asdict(accuracy_of(outcomes(retrained, images, labels))) for column, images in seen.items()
        },
        "seconds an image": demo.workspace.seconds[f"projected-{CLEAN}-refine-{refine}"] / REFINED,
    }


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--work", type=Path, required=True, help="folder of the steps done so far")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    made, data = provenance(), held_out_of_training(arguments.root)
    demo = Demo(SETTINGS, data, Workspace(arguments.work, {"data": data.fingerprint()}), Silent())
    vanilla = demo.classifier("vanilla", data.train_images, SETTINGS.seed)
    attacks = {CLEAN: data.test_images}
    for column, attack in gray_box_attacks(SETTINGS).items():
        attacks[column] = demo.adversarial(column, attack, vanilla, data.test_images, data.test_labels)[0]["images"]
    undefended = {column: outcomes(vanilla, images, data.test_labels) for column, images in attacks.items()}
    rows, refined = [], []
    for split, sparsity, normalise in TRIED:
        layer = learned(demo, split, sparsity)
        layer.normalise = normalise
        rows.append(choice(demo, attacks, layer, f"{split}-{sparsity}-{normalise}"))
        print(split, normalise, sparsity, f"{rows[-1]['score']:.4f}", flush=True)
    layer = learned(demo, "tikhonov", 0.2)
    for refine in (0, *REFINES):
        refined.append(refinement(demo, attacks, layer, refine, "tikhonov-0.2-clip"))
        print("refine", refine, f"{refined[-1]['objective']:.4f}", flush=True)
    best = max(rows, key=lambda row: row["score"])
    result = {
        "data": data.description,
        "settings": SETTINGS.as_json(),
        "provenance": made,
        "undefended": {column: asdict(accuracy_of(hits)) for column, hits in undefended.items()},
        "choices": rows,
        "best": {name: best[name] for name in ("split", "normalise", "sparsity", "score")},
        "refine": refined,
    }
    write_json(arguments.out, result)


def learned(demo: Demo, split: Split, sparsity: float) -> SparseTransformationLayer:
    """A universal layer; its dictionary is learned once."""
    path = demo.workspace.folder / f"{split}-{sparsity}.stl"
    if not path.exists():
        dictionaries = learn_dictionaries(
            demo.data.train_images, filters=SETTINGS.filters, sparsity=sparsity, split=split, passes=2, tolerance=0.0
        )
        solver = Auto(tolerance=SETTINGS.tolerance)
        SparseTransformationLayer(None, dictionaries, sparsity, split=split, solver=solver).save(path)
    return SparseTransformationLayer.load(path)


if __name__ == "__main__":
    main()
