"""What a layer's strata are worth: sizes, stability of the vote under attack, and what each dictionary reconstructs."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.arrays import Filters, Images, Labels, PerImage, PerImageBool
from quasinat.data import Dataset, load
from quasinat.data.draws import generator_for
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import accuracy_of, code_fingerprint, outcomes, provenance, psnr
from quasinat.experiments.columns import CLEAN, gray_box_attacks
from quasinat.experiments.demo import Demo
from quasinat.experiments.models import digest
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.settings import DemoSettings
from quasinat.experiments.workspace import Workspace
from quasinat.files import read_tensors
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import vgg
from quasinat.sparse_coding import Solution, SparseCodingProblem, solve
from quasinat.sparse_coding.solution import join
from quasinat.strata import Strata

SCHEMA = 1
FULL = 1 - 1e-6  # a margin from which on every neighbour voted alike
BATCH = 256
USED = {"data", "image_size", "colour", "convert", "network", "epochs", "seed"}  # of the settings, and the attacks':
USED |= {"bim_steps", "cw_steps", "cw_search_steps", "cw_constant"}
Quality = dict[str, Tensor]


def image_set(settings: DemoSettings) -> Dataset:
    """The whole image set that the settings name, not cut to a number of images a class."""
    if settings.data == "photographs":
        return load("photographs", settings.root, size=settings.image_size, colour=settings.colour, seed=settings.seed)
    options = {"size": settings.image_size, "convert": settings.convert} if settings.data == "folder" else {}
    return load(settings.data, settings.root, **options)


def held_out(data: Dataset, count: int, seed: int) -> tuple[Images, Labels]:
    """`count` test images, or all if there are fewer, drawn at random; a larger draw contains a smaller one."""
    if count < 1:
        raise UsageError(f"--images {count} is not above zero", "give a positive number")
    chosen = torch.randperm(len(data.test_images), generator=generator_for(seed, "held out"))[:count]
    return data.test_images[chosen], data.test_labels[chosen]


def check_fit(layer: SparseTransformationLayer, images: Images) -> None:
    """Raises an `InputError` where the layer cannot code such images: other channels, or too small."""
    given, needed = images.shape[1], layer.filters.shape[2]
    if given != needed:
        problem = f"the images have {given} channels and the filters {needed}"
        raise InputError(problem, "convert the images, or pass a layer of images like these")
    SparseCodingProblem(images[:1], layer.filters[0], layer.sparsity)


def strata_of(layer: SparseTransformationLayer) -> Strata:
    """The layer's strata.

    Raises:
        UsageError: it is a universal layer, which has none.
    """
    if layer.strata is None:
        raise UsageError("the layer has one universal dictionary and no strata", "pass a layer learned with strata")
    return layer.strata


@torch.no_grad()
def coded_with(layer: SparseTransformationLayer, images: Images, m: int) -> tuple[Images, Solution, Filters]:
    """T(x) of every image with the dictionary `m`, whatever its stratum; the codes, sparse, and the filters used.

    Those are the dictionary's, unless the layer refines them for each image: then the last image's.
    """
    alone = layer.within(m)
    parts: list[tuple[Solution, Filters]] = []

    def coding(coded: Images, filters: Filters) -> Images:
        parts.append(
            (solve(SparseCodingProblem(coded, filters, layer.sparsity), layer.solver, codes="sparse"), filters)
        )
        return parts[-1][0].reconstruction

    seen = alone._transform(images, coding)
    return seen, join([solution for solution, _ in parts]), parts[-1][1]


def quality(layer: SparseTransformationLayer, images: Images, *, progress: Progress | None = None) -> Quality:
    """How well each dictionary of the layer reconstructs each image.

    Returns:
        `psnr`, in dB between T(x) and x, and `nonzero`, the share of codes that are not zero, both `M B`.
    """
    parts: list[list[tuple[PerImage, PerImage]]] = [[] for _ in layer.filters]
    total, done = len(layer.filters) * len(images), 0
    which = "each dictionary" if len(parts) > 1 else "the one dictionary"
    with (progress or Silent()).task(f"reconstruct with {which}", total) as report:
        for m in range(len(layer.filters)):
            for batch in images.split(BATCH):
                seen, solution, _ = coded_with(layer, batch, m)
                active = torch.bincount(solution.codes.indices()[0], minlength=len(batch))
                nonzero = active.to(seen) / solution.codes[0].numel()
                parts[m].append((psnr(seen, batch), nonzero))
                done += len(batch)
                report(done)
    both = (torch.stack([torch.cat([pair[i] for pair in part]) for part in parts]) for i in range(2))
    return dict(zip(("psnr", "nonzero"), both, strict=True))


def strata_report(
    layer: SparseTransformationLayer,
    sets: Mapping[str, Images],
    right: Mapping[str, PerImageBool],
    each: Quality,
    universal: Quality | None = None,
) -> dict[str, Any]:
    """Every number of the report, each with the n that it was computed from.

    Args:
        layer: with strata.
        sets: the same held-out images by column, `clean` among them, the others attacked.
        right: by column, whether the attacked classifier reads each image right.
        each: the `quality` of the layer on the clean images.
        universal: that of a universal layer; None if there is none.

    Returns:
        `strata`, a list, and `all`: `fit` and `test` images, `margin`, `full_margin`, `unchanged` by attack, `psnr` and
        `nonzero` of the own, the other and the universal dictionary. `columns`: by column the classifier's `right`,
        the mean `margin`, and, of an attack, the share `unchanged` and `unchanged_full_margin` of the images whose
        clean vote was unanimous. A share is `{value, n, low, high}` with its 95 % Wilson interval, a mean `{value, n}`;
        both are None where n is 0.

    Raises:
        UsageError: the layer has no strata.
    """
    strata = strata_of(layer)
    votes = {column: strata.vote(images) for column, images in sets.items()}
    members, margins = votes[CLEAN]
    unchanged = {column: vote[0] == members for column, vote in votes.items() if column != CLEAN}
    sources = _by_source(each, members, universal)
    fit = torch.bincount(strata.labels.cpu(), minlength=strata.count).tolist()

    def part(rows: PerImageBool) -> dict[str, Any]:
        return {
            "test": int(rows.sum()),
            "margin": _mean(margins[rows]),
            "full_margin": _share(margins[rows] >= FULL),
            "unchanged": {column: _share(same[rows]) for column, same in unchanged.items()},
            **{
                name: {source: None if values is None else _mean(values[name][rows]) for source, values in by.items()}
                for name, by in (("psnr", sources), ("nonzero", sources))
            },
        }

    columns: dict[str, Any] = {}
    for column, (_, margin) in votes.items():
        columns[column] = {"right": _share(right[column]), "margin": _mean(margin)}
        if column != CLEAN:
            columns[column]["unchanged"] = _share(unchanged[column])
            columns[column]["unchanged_full_margin"] = _share(unchanged[column][margins >= FULL])
    return {
        "strata": [{"stratum": m, "fit": fit[m], **part(members == m)} for m in range(strata.count)],
        "all": {"fit": sum(fit), **part(torch.ones_like(members, dtype=torch.bool))},
        "columns": columns,
    }


def _by_source(each: Quality, members: Tensor, universal: Quality | None) -> dict[str, Quality | None]:
    """Per image: with its own stratum's dictionary, the mean over the other strata's, and with the universal one."""
    own = {name: values.gather(0, members[None])[0] for name, values in each.items()}
    others = len(next(iter(each.values()))) - 1
    other = {name: (values.sum(0) - own[name]) / others for name, values in each.items()} if others else None
    return {
        "own": own,
        "other": other,
        "universal": None if universal is None else {name: values[0] for name, values in universal.items()},
    }


def _share(hits: PerImageBool) -> dict[str, Any] | None:
    return asdict(accuracy_of(hits)) if len(hits) else None


def _mean(values: PerImage) -> dict[str, Any] | None:
    """Over the finite ones: the PSNR of an image that is reproduced exactly is not."""
    finite = values[values.isfinite()].double()
    return {"value": float(finite.mean()), "n": len(finite)} if len(finite) else None


def run_strata_report(
    layer: SparseTransformationLayer,
    data: Dataset,
    settings: DemoSettings,
    folder: Path,
    *,
    images: int = 500,
    model: Path | None = None,
    universal: SparseTransformationLayer | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, Any], Images]:
    """Runs, or continues, the report in `folder`; every step is computed once.

    Args:
        layer: with strata.
        data: the classifier is trained on its training images, everything is measured on its test images.
        settings: the classifier's network and epochs, the attacks' steps, and the seed.
        folder: of the steps.
        images: how many test images, see `held_out`.
        model: a safetensors file with the weights of the network to attack, instead of training one.
        universal: a layer with one dictionary, to compare with.

    Returns:
        What `strata.json` holds, and the held-out images.

    Raises:
        QuasinatError: layer and images do not fit, or the folder is taken or cannot be written.
    """
    strata_of(layer)
    progress = progress or Silent()
    test, labels = held_out(data, images, settings.seed)
    for each in [layer] if universal is None else [layer, universal]:
        check_fit(each, test)
    if universal is not None and universal.strata is not None:
        raise UsageError("--universal names a layer with strata", "pass one with a single dictionary, or leave it out")
    given = None if model is None else _read_network(model, data, settings)
    fingerprint = {
        "settings": settings.as_json(),
        "images": images,
        "layer": digest(layer),
        "universal": None if universal is None else digest(universal),
        "model": None if given is None else digest(given),
        "data": data.fingerprint(),
        "code": code_fingerprint(),
    }
    workspace = Workspace(folder, fingerprint, overwrite=overwrite)
    demo = Demo(settings, data, workspace, progress)  # whose steps these are
    network = demo.classifier("vanilla", data.train_images, settings.seed) if given is None else given
    sets = {CLEAN: test}
    for column, attack in gray_box_attacks(settings).items():
        sets[column] = demo.adversarial(column, attack, network, test, labels)[0]["images"]
    right = {column: outcomes(network, batch, labels) for column, batch in sets.items()}
    own = workspace.step("quality", lambda: (quality(layer, test, progress=progress), {}))[0]
    compared = None
    if universal is not None:
        compared = workspace.step("quality-universal", lambda: (quality(universal, test, progress=progress), {}))[0]
    result = {
        "schema": SCHEMA,
        "layer": _described(layer),
        "universal": None if universal is None else _described(universal),
        "model": "trained here" if model is None else model.name,
        "data": {"name": data.name, "description": data.description, "train": len(data.train_images), "n": len(test)},
        "settings": {name: value for name, value in settings.as_json().items() if name in USED},
        "provenance": provenance(),
        **strata_report(layer, sets, right, own, compared),
    }
    return result, test


def _read_network(path: Path, data: Dataset, settings: DemoSettings) -> nn.Module:
    network = vgg(settings.network, classes=len(data.classes), channels=data.train_images.shape[1])
    tensors, _ = read_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        problem = f"{path} does not fit the network ({str(error).splitlines()[-1].strip()})"
        raise InputError(problem, "name its --network, and --data of the same classes") from None
    return network.eval()


def _described(layer: SparseTransformationLayer) -> dict[str, Any]:
    names = ("dictionaries", "filters", "channels", "filter_size")
    return dict(zip(names, layer.filters.shape, strict=False)) | {"sparsity": layer.sparsity, "split": layer.split}
