"""A white-box evaluation: every row of the table at every budget, the worst case, the checks, the result file."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels, PerImageBool
from quasinat.attacks import AttackResult
from quasinat.attacks.expectation import worst_of
from quasinat.data import Dataset
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.evaluation import accuracy_of, code_fingerprint, provenance
from quasinat.evaluation.check import Check, objections
from quasinat.evaluation.gradient_checks import repeat_difference
from quasinat.experiments.measure import strength
from quasinat.experiments.models import digest
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.strata_report import check_fit, held_out
from quasinat.experiments.white_box_rows import ROWS, Fallbacks, Parties, Row, is_right
from quasinat.experiments.white_box_settings import WhiteBoxSettings
from quasinat.experiments.workspace import Step, Workspace
from quasinat.files import write_json, write_npz, write_tensors
from quasinat.layer import SparseTransformationLayer

SCHEMA = 1
BATCH = 100
NOT_CHOSEN = "not chosen"
RESULTS = ("white-box.json", "white-box.md", "outcomes.npz")
SAME = 1e-3  # logits that differ by less of their spread between two evaluations are the same but for rounding


@dataclass(frozen=True)
class WhiteBox:
    """A run: the models, the test images, where the steps are kept. Every method is computed once."""

    settings: WhiteBoxSettings
    parties: Parties
    images: Images
    labels: Labels
    workspace: Workspace
    progress: Progress

    def right(self, model: str) -> PerImageBool:
        """Which clean images a party reads right; a randomised one every time."""

        def compute() -> Step:
            return {"right": ~self.judged(model, self.images, self.labels)}, {}

        return self.workspace.step(f"clean-{model}", compute)[0]["right"].to(self.images.device)

    def judged(self, model: str, images: Images, labels: Labels) -> PerImageBool:
        """Which images a party errs on as it is deployed; a randomised one in any of the attacker's submissions."""
        party: nn.Module = getattr(self.parties, model)
        if model == "defended" and self.parties.randomised:
            often: dict[str, Any] = {"submissions": self.settings.submissions, "seed": self.settings.seed + 1}
            each = zip(images.split(1), labels.split(1), strict=True)  # alone: in a batch the draws are others
            return ~torch.cat([worst_of(party, image, label, **often) for image, label in each])
        return ~is_right(party, images, labels)

    def cell(self, key: str, budget: str) -> Step:
        """A row at a budget: the images as attacked and whether each has fallen; those read wrong at once have."""
        row = ROWS[key]
        attack = row.prepare(self.parties, self.settings, self.settings.balls()[budget])
        return self.attacked(f"{key}-{budget}", row, attack, getattr(self.settings, row.images))

    def attacked(self, name: str, row: Row, attack: Callable[[Images, Labels], AttackResult], count: int) -> Step:
        """The first `count` images, those that the row's model reads right, under an attack; kept under `name`."""

        def compute() -> Step:
            images, labels = self.images[:count], self.labels[:count]
            found, fallen = images.clone(), ~self.right(row.model)[:count]
            queries = torch.zeros_like(labels)
            standing, done = (~fallen).nonzero()[:, 0], int(fallen.sum())
            self.parties.fallbacks.fell = 0
            with self.progress.task(f"attack: {name}", len(images)) as report:
                for rows in standing.split(BATCH) if len(standing) else ():
                    result = attack(images[rows], labels[rows])
                    found[rows], queries[rows] = result.images, result.queries
                    fallen[rows] = self.judged(row.model, result.images, labels[rows])
                    done += len(rows)
                    report(done)
            kept = {"images": found, "fallen": fallen, "queries": queries}
            return {key: value.cpu() for key, value in kept.items()}, {"fallbacks": self.parties.fallbacks.fell}

        return self.workspace.step(plain(name), compute)

    def missing(self, key: str) -> str | None:
        """Why a row is not run; `None` if it is."""
        chosen = self.settings.attacks
        return NOT_CHOSEN if chosen and key not in chosen else ROWS[key].missing(self.parties)

    def rows(self, model: str = "defended", *kinds: str) -> list[str]:
        """The keys of the rows that can be run of a party, of some kinds or all."""
        return [
            key
            for key, row in ROWS.items()
            if row.model == model and (not kinds or row.kind in kinds) and self.missing(key) is None
        ]

    def fallen(self, keys: list[str], budget: str, count: int | None = None) -> PerImageBool:
        """Which of the first images have fallen to any of these rows; one that a row was not run on stands there."""
        total = torch.zeros(count or len(self.images), dtype=torch.bool)
        for key in keys:
            hits = self.cell(key, budget)[0]["fallen"][: len(total)]
            total[: len(hits)] |= hits
        return total

    def worst(self, budget: str) -> tuple[Tensor, PerImageBool]:
        """Each image's adversarial example, of the first row that has one, and whether there is one.

        Where there is none, the image of the last gradient row that was run on all images.
        """
        found, fallen = self.images.cpu().clone(), torch.zeros(len(self.images), dtype=torch.bool)
        keys = sorted(self.rows(), key=lambda key: ROWS[key].kind != "gradient")
        for key in keys:
            tensors = self.cell(key, budget)[0]
            count = len(tensors["fallen"])
            use = ~fallen[:count] & (tensors["fallen"] | (ROWS[key].kind == "gradient"))
            found[:count][use] = tensors["images"][use]
            fallen[:count] |= tensors["fallen"]
        return found, fallen


def run_white_box(
    defended: Defended,
    data: Dataset,
    settings: WhiteBoxSettings,
    folder: Path,
    *,
    base: nn.Module | None = None,
    adversarial: nn.Module | None = None,
    device: str = "cpu",
    described: dict[str, Any] | None = None,
    shard: tuple[int, int] | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> dict[str, Any] | None:
    """Runs, or continues, the evaluation in `folder`; every step is computed once.

    Args:
        defended: what is evaluated; its gradient is named here.
        data: its test images are attacked.
        settings: see there.
        folder: of the steps, `worst-BUDGET.safetensors` (each image's adversarial example) and the result.
        base: the undefended network of the same architecture, for the table and for transfer.
        adversarial: an adversarially trained network of the same architecture, for the table.
        device: "cpu" or "cuda".
        described: what the result file says of the models, as JSON holds it.
        shard: (i, n), i from 1: compute the i-th of n shares of the steps only, so that n processes may share the work
            and the folder; a run without it puts them together.

    Returns:
        What `white-box.json` holds; `outcomes.npz` has each image's. `None` for a share.

    Raises:
        QuasinatError: models and images do not fit, or the folder is taken or cannot be written.
    """
    from quasinat.experiments.white_box_checks import all_checks, preparations

    for key in settings.attacks:
        if key not in ROWS:
            raise UsageError(f"unknown attack {key!r}", did_you_mean(key, list(ROWS)))
    images, labels = held_out(data, settings.images, settings.seed)
    if isinstance(defended.transform, SparseTransformationLayer):
        check_fit(defended.transform, images)
    given: dict[str, nn.Module | None] = {"defended": defended, "base": base, "adversarial": adversarial}
    fingerprint: dict[str, Any] = {
        "settings": settings.as_json(),
        "models": {name: None if model is None else digest(model) for name, model in given.items()},
        "data": data.fingerprint(),
        "device": device,
        "code": code_fingerprint(),
    }
    workspace = Workspace(folder, fingerprint, overwrite=overwrite)
    if overwrite:  # what an earlier run made of its steps goes with them
        for stale in [*folder.glob("worst-*.safetensors"), *(folder / name for name in RESULTS)]:
            stale.unlink(missing_ok=True)
    placed = {name: None if model is None else model.to(device).eval() for name, model in given.items()}
    images, labels = images.to(device), labels.to(device)
    with torch.no_grad():
        randomised = repeat_difference(defended, images[:8]) > SAME
    parties = Parties(defended, placed["base"], placed["adversarial"], randomised, Fallbacks())
    run = WhiteBox(settings, parties, images, labels, workspace, progress or Silent())
    if not bool(run.right("defended").any()):
        raise InputError("the defended model reads none of these images right", "pass the classifier of this image set")
    keys = [*run.rows(), *run.rows("base"), *run.rows("adversarial")]
    work = [partial(run.cell, key, budget) for key in keys for budget in settings.budgets] + preparations(run)
    for step in work if shard is None else work[shard[0] - 1 :: shard[1]]:
        step()
    if shard is not None:
        return None
    for budget in settings.budgets:
        found, fallen = run.worst(budget)
        write_tensors(folder / file_of(budget), {"images": found, "fallen": fallen})
    checks = all_checks(run, folder)
    result = {
        "schema": SCHEMA,
        "threat": "white-box",
        "settings": settings.as_json(),
        "provenance": provenance() | {"device": _device(device)},
        "data": {"name": data.name, "description": data.description, "n": len(images)},
        "models": described or {},
        **_numbers(run, checks),
    }
    write_json(folder / "white-box.json", result)
    write_npz(folder / "outcomes.npz", _outcomes(run))
    return result


def _numbers(run: WhiteBox, checks: list[Check]) -> dict[str, Any]:
    """`clean`, `rows`, `worst_case`, `checks`, and the `headline`: the worst case, or `None` with the reasons."""
    budgets, reasons = run.settings.budgets, objections(checks)
    left_out = [ROWS[key].title for key in ROWS if run.missing(key) == NOT_CHOSEN]
    if left_out:
        reasons.append(f"attacks were left out: {', '.join(left_out)}")
    rows = []
    for key, row in ROWS.items():
        missing = run.missing(key)
        cells = {} if missing else {budget: _cell(run, key, budget) for budget in budgets}
        described = {name: getattr(row, name) for name in ("title", "gradient", "model", "kind")}
        rows.append({"key": key, **described, "missing": missing, "cells": cells})
    models = [name for name in ("defended", "base", "adversarial") if getattr(run.parties, name) is not None]
    worst = {budget: asdict(accuracy_of(~run.fallen(run.rows(), budget))) for budget in budgets}
    return {
        "clean": {name: asdict(accuracy_of(run.right(name).cpu())) for name in models},
        "rows": rows,
        "worst_case": worst,
        "checks": [check.as_json() for check in checks],
        "headline": None if reasons else worst,
        "withheld": reasons,
        "seconds": {name: run.workspace.seconds[name] for name in sorted(run.workspace.seconds)},
    }


def _cell(run: WhiteBox, key: str, budget: str) -> dict[str, Any]:
    tensors, values = run.cell(key, budget)
    clean = run.images[: len(tensors["fallen"])].cpu()
    moved = (tensors["images"] != clean).flatten(1).any(1)
    return {
        **asdict(accuracy_of(~tensors["fallen"])),
        "strength": strength(tensors["images"][moved], clean[moved]) if bool(moved.any()) else None,
        "queries": float(tensors["queries"].double().mean()),
        "fallbacks": values["fallbacks"],
    }


def _outcomes(run: WhiteBox) -> dict[str, Tensor]:
    """By row and budget whether each image is still read right; the labels, and the clean outcomes."""
    arrays = {"labels": run.labels.cpu()}
    for model in ("defended", "base", "adversarial"):
        if getattr(run.parties, model) is not None:
            arrays[f"clean/{model}"] = run.right(model).cpu()
            for key in run.rows(model):
                for budget in run.settings.budgets:
                    arrays[f"{key}/{budget}"] = ~run.cell(key, budget)[0]["fallen"]
    for budget in run.settings.budgets:
        arrays[f"worst-case/{budget}"] = ~run.fallen(run.rows(), budget)
    return arrays


def file_of(budget: str) -> str:
    """The name of the file with each image's adversarial example."""
    return f"worst-{plain(budget)}.safetensors"


def plain(name: str) -> str:
    """A name that any file system takes."""
    return name.replace(":", "-").replace("/", "-")


def _device(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
