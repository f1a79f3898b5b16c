"""The learning rate that MobileNetV2 is tuned on ten ImageNet classes with, chosen on training images held out.

python benchmarks/tuning_rate.py --root DIR --weights MOBILENET --out results/tuning_rate.json
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from quasinat.arrays import Images, Labels
from quasinat.data import Dataset
from quasinat.data.draws import generator_for
from quasinat.evaluation import accuracy_of, provenance
from quasinat.experiments.columns import answers
from quasinat.experiments.table_classifiers import CLASSIFIERS, TUNING_RATE
from quasinat.experiments.table_images import image_set_named
from quasinat.experiments.table_settings import table_settings
from quasinat.files import write_json
from quasinat.training import train_classifier

RATES = (5e-5, TUNING_RATE, 1e-3)
FITTED, JUDGED = 200, 60  # training images of each class
Half = tuple[Images, Labels]


def held_out(data: Dataset, seed: int) -> tuple[Half, Half]:
    """Of the training images of each class, some to tune on and others to judge on."""
    fitted, judged = [], []
    for label in range(len(data.classes)):
        own = (data.train_labels == label).nonzero().flatten()
        drawn = own[torch.randperm(len(own), generator=generator_for(seed, f"tuning rate {label}"))]
        fitted.append(drawn[:FITTED])
        judged.append(drawn[FITTED : FITTED + JUDGED])
    one, other = torch.cat(fitted), torch.cat(judged)
    return (data.train_images[one], data.train_labels[one]), (data.train_images[other], data.train_labels[other])


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with imagenet10")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2's, a .safetensors file")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    made = provenance()
    settings = replace(table_settings("small"), test=10)  # the test half is not looked at
    data = image_set_named("imagenet10-tuned", arguments.root, settings)
    fitted, judged = held_out(data, settings.seed)
    rows: list[dict[str, Any]] = []
    for rate in RATES:
        start = CLASSIFIERS["tuned mobilenet"](data, settings, arguments.weights, settings.seed, {})
        options = dict(start.options) | {"learning_rate": rate}
        train_classifier(start.network, *fitted, epochs=start.epochs, seed=settings.seed, **options)
        hits, _ = answers(start.network.eval(), *judged, "cpu")
        rows.append({"learning_rate": rate, "accuracy": asdict(accuracy_of(hits))})
        print(rate, f"{rows[-1]['accuracy']['value']:.4f}", flush=True)
    classes = len(data.classes)
    description = (
        f"{classes * FITTED} and {classes * JUDGED} training images of ten ImageNet classes at 128 px, disjoint"
    )
    best = max(rows, key=lambda row: row["accuracy"]["value"])["learning_rate"]
    result = {"data": description, "epochs": settings.tuning_epochs, "provenance": made, "rates": rows, "best": best}
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
