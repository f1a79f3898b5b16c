"""The white-box evaluation: its table follows from what it saved, and it withholds what it cannot vouch for."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layers import images_of, stratified, universal
from quasinat.attacks import AttackResult, Linf, pgd
from quasinat.data import Dataset
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import accuracy_of
from quasinat.evaluation.check import Check
from quasinat.evaluation.gradient_checks import gradient_agreement, repeat_difference
from quasinat.experiments import white_box_gradients, white_box_rows
from quasinat.experiments.models import check_networks, digest
from quasinat.experiments.progress import Silent
from quasinat.experiments.strata_report import held_out
from quasinat.experiments.white_box import SAME, WhiteBox, file_of, run_white_box
from quasinat.experiments.white_box_checks import (
    budgets_hold,
    budgets_hold_after_rounding,
    falls_with_the_budget,
    finds_planted_examples,
    more_restarts_change_little,
    more_steps_change_little,
    references_are_in_the_table,
    unbounded_reaches_zero,
    white_box_is_no_weaker,
)
from quasinat.experiments.white_box_gradients import (
    gradients_agree,
    gradients_are_trusted,
    gradients_do_not_vanish,
    is_deterministic,
    three_losses,
)
from quasinat.experiments.white_box_rows import ROWS, Fallbacks, Parties, Row, persistent, strongest
from quasinat.experiments.white_box_settings import PRESETS, WhiteBoxSettings, white_box_settings
from quasinat.experiments.workspace import Workspace
from quasinat.files import read_tensors, write_json, write_tensors
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Implicit, Unrolled

COUNT, WRONG = 8, 5  # images, and the one that is read wrong at once
MICRO = WhiteBoxSettings(
    images=COUNT,
    budgets=("linf:2/255", "linf:16/255", "dissimilarity:0.05"),
    steps=4,
    layer_steps=3,
    unrolled=5,
    unrolled_images=3,
    unrolled_steps=2,
    black_box_images=6,
    square_queries=8,
    check_images=6,
    gradient_images=1,
    binarisation_images=2,
)
SMALLEST = replace(
    MICRO,
    images=4,
    budgets=("linf:8/255",),
    steps=2,
    layer_steps=2,
    unrolled=2,
    unrolled_images=2,
    unrolled_steps=1,
    black_box_images=3,
    square_queries=4,
    check_images=2,
    binarisation_images=1,
)


class Scores(nn.Module):
    """A linear classifier of grey images, 16 pixels wide, which names its features: the means of 2 x 2 pixels."""

    classes, channels = 3, 1

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(64, 3, generator=generator))

    def embed(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images - 0.5, 2).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images) @ self.weight


class Stairs(Scores):
    """The same but for fine steps, which leave no gradient."""

    def embed(self, images: Tensor) -> Tensor:
        return (64 * super().embed(images)).round() / 64


class Noisy(Scores):
    """The same with fresh noise on the logits."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits + 0.3 * torch.randn_like(logits)


class Log:
    """After so many reports the user presses Ctrl-C."""

    def __init__(self, interrupted_after: int) -> None:
        self.left = interrupted_after

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        def report(done: int, note: str = "") -> None:
            assert done <= total
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        yield report


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def data_for(layer: nn.Module, classifier: nn.Module, *wrong: int) -> Dataset:
    """Eight images, labelled as the defended classifier reads them, but for those that it is to read wrong."""
    images = (255 * images_of(1, COUNT, 16, 16) - 2).round().clamp(0) / 255
    with torch.no_grad():
        labels = classifier(layer(images)).argmax(1)
    labels[list(wrong)] = (labels[list(wrong)] + 1) % 3
    return Dataset("made up", images[:1], labels[:1], images, labels, ("a", "b", "c"))


def black_box(
    folder: Path,
    transform: nn.Module,
    classifier: nn.Module,
    settings: WhiteBoxSettings = MICRO,
    *,
    base: nn.Module | None = None,
    adversarial: nn.Module | None = None,
    wrong: tuple[int, ...] = (),
) -> WhiteBox:
    """A run as `run_white_box` starts it, of which a test takes what it needs."""
    defended = Defended(transform, classifier).eval()
    data = data_for(transform, Scores(), *wrong)
    images, labels = held_out(data, settings.images, settings.seed)
    with torch.no_grad():
        randomised = repeat_difference(defended, images) > SAME
    parties = Parties(defended, base, adversarial, randomised, Fallbacks())
    return WhiteBox(settings, parties, images, labels, Workspace(folder, {}), Silent())


def save_worst(run: WhiteBox, folder: Path) -> None:
    for budget in run.settings.budgets:
        images, fallen = run.worst(budget)
        write_tensors(folder / file_of(budget), {"images": images, "fallen": fallen})


Finished = tuple[Path, dict[str, Any], Dataset]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run with all that it can have: folder, result, data."""
    folder = tmp_path_factory.mktemp("white-box") / "run"
    layer = stratified(1)
    data = data_for(layer, Scores(), WRONG)
    result = run_white_box(
        Defended(layer, Scores()), data, MICRO, folder, base=Scores(1), adversarial=Scores(2), described={"made": "up"}
    )
    assert result is not None
    return folder, result, data


def quick_checks(patch: pytest.MonkeyPatch) -> None:
    """The comparison of gradients takes most of a small run: here it is cut short."""
    patch.setattr(white_box_gradients, "gradient_agreement", partial(gradient_agreement, directions=1, iterations=10))


def smallest(folder: Path, **options: Any) -> dict[str, Any] | None:
    """A run with as little as it can have: one dictionary, no references."""
    layer = universal(1)
    given = {"defended": Defended(layer, Scores()), "data": data_for(layer, Scores()), "settings": SMALLEST} | options
    with pytest.MonkeyPatch.context() as patch:
        quick_checks(patch)
        return run_white_box(folder=folder, **given)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("bare") / "run"
    result = smallest(folder)
    assert result is not None
    return folder, result


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what the clock says."""
    return {name: value for name, value in result.items() if name != "seconds"}


def saved(folder: Path, budget: str) -> tuple[Tensor, Tensor]:
    tensors = read_tensors(folder / file_of(budget))[0]
    return tensors["images"], tensors["fallen"]


def cells(result: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    for row in result["rows"]:
        for budget, cell in row["cells"].items():
            yield row, budget, cell


# What a run says follows from what it saved.


def test_a_sound_evaluation_has_its_headline(finished: Finished) -> None:
    folder, result, _ = finished
    assert [check for check in result["checks"] if check["mandatory"] and check["status"] != "pass"] == []
    assert len({check["key"] for check in result["checks"]}) == len(result["checks"]) == 15
    assert result["headline"] == result["worst_case"]
    assert result["withheld"] == []
    assert json.loads((folder / "white-box.json").read_text()) == result
    assert [row["key"] for row in result["rows"]] == list(ROWS)
    assert all(row["missing"] is None for row in result["rows"])
    assert (result["models"], result["data"]["n"]) == ({"made": "up"}, COUNT)


def test_every_number_follows_from_the_outcomes(finished: Finished) -> None:
    folder, result, data = finished
    with np.load(folder / "outcomes.npz", allow_pickle=False) as file:
        stored = dict(file)
    _, labels = held_out(data, COUNT, 0)
    assert stored.pop("labels").tolist() == labels.tolist()
    shown = {f"{row['key']}/{budget}": cell for row, budget, cell in cells(result)}
    shown |= {f"clean/{model}": cell for model, cell in result["clean"].items()}
    shown |= {f"worst-case/{budget}": cell for budget, cell in result["worst_case"].items()}
    assert stored.keys() == shown.keys()
    for name, outcomes in stored.items():
        assert outcomes.dtype == bool
        assert (shown[name]["value"], shown[name]["n"]) == (outcomes.mean(), len(outcomes)), name
        share = accuracy_of(torch.from_numpy(outcomes))
        assert (shown[name]["low"], shown[name]["high"]) == (share.low, share.high)


def test_the_rows_have_the_images_that_the_settings_give_them(finished: Finished) -> None:
    counts = {row["key"]: cell["n"] for row, _, cell in cells(finished[1])}
    few = {"noise": 6, "square": 6, "unrolled": 3}
    assert counts == {key: few.get(key, COUNT) for key in ROWS}


def test_the_worst_case_is_that_of_each_image(finished: Finished) -> None:
    with np.load(finished[0] / "outcomes.npz", allow_pickle=False) as stored:
        for budget in MICRO.budgets:
            worst = np.ones(COUNT, dtype=bool)
            for key, row in ROWS.items():
                if row.model == "defended":
                    outcomes = stored[f"{key}/{budget}"]
                    worst[: len(outcomes)] &= outcomes  # a row of fewer images says nothing of the others
                    assert worst[: len(outcomes)].mean() <= outcomes.mean()
            assert stored[f"worst-case/{budget}"].tolist() == worst.tolist()
        assert 0 < stored["worst-case/linf:2/255"].mean() < stored["clean/defended"].mean()  # there is something to see
        assert stored["base/linf:2/255"].mean() < 1


def test_the_saved_images_fool_the_deployed_model_and_keep_their_budgets(finished: Finished) -> None:
    folder, _, data = finished
    clean, labels = held_out(data, COUNT, 0)
    deployed = Defended(stratified(1), Scores()).eval()
    with np.load(folder / "outcomes.npz", allow_pickle=False) as stored, torch.no_grad():
        for budget in MICRO.budgets:
            images, fallen = saved(folder, budget)
            assert (deployed(images).argmax(1) != labels).tolist() == fallen.tolist()
            assert stored[f"worst-case/{budget}"].tolist() == (~fallen).tolist()
            assert float(images.min()) >= 0
            assert float(images.max()) <= 1
            difference = (images - clean).flatten(1)
            kind, _, size = budget.partition(":")
            if kind == "linf":
                assert float(difference.abs().max()) <= int(size.partition("/")[0]) / 255 + 1e-6
            else:
                assert float((difference.norm(dim=1) / clean.flatten(1).norm(dim=1)).max()) <= float(size) + 1e-6


def test_an_image_that_is_wrong_at_once_is_left_as_it_is(finished: Finished) -> None:
    folder, result, data = finished
    clean, labels = held_out(data, COUNT, 0)
    with torch.no_grad():
        (place,) = (Defended(stratified(1), Scores())(clean).argmax(1) != labels).nonzero().flatten().tolist()
    assert clean[place].equal(data.test_images[WRONG])
    assert result["clean"]["defended"]["value"] == (COUNT - 1) / COUNT
    for budget in MICRO.budgets:
        images, fallen = saved(folder, budget)
        assert images[place].equal(clean[place])
        assert bool(fallen[place])
        for key in ROWS:
            if ROWS[key].model == "defended":
                step = read_tensors(
                    folder / "steps" / f"{key}-{budget.replace(':', '-').replace('/', '-')}.safetensors"
                )
                if place < len(step[0]["images"]):
                    assert step[0]["images"][place].equal(clean[place])
                    assert int(step[0]["queries"][place]) == 0
                    assert bool(step[0]["fallen"][place])


def test_a_standing_image_is_the_strongest_attacks(finished: Finished) -> None:
    """So that rounding, or another network, is tried on a perturbed image and not on the clean one."""
    folder, _, data = finished
    clean, _ = held_out(data, COUNT, 0)
    images, fallen = saved(folder, "linf:2/255")
    apgd = read_tensors(folder / "steps" / "implicit-apgd-linf-2-255.safetensors")[0]["images"]
    standing = (~fallen).nonzero().flatten()
    assert len(standing)
    assert images[standing].equal(apgd[standing])
    assert bool((images[standing] != clean[standing]).flatten(1).any(1).all())


def test_what_one_row_found_no_later_row_takes_back(tmp_path: Path) -> None:
    """The image saved is one that fell, of the first gradient row that has it, then of the others."""
    run = black_box(tmp_path / "run", universal(1), Scores())
    fell = {"identity": (0, 1), "implicit": (1, 2), "square": (2, 3), "active-span": (3,)}
    levels = {key: (number + 1) / 100 for number, key in enumerate(run.rows())}
    for key, level in levels.items():
        hits = torch.zeros(COUNT, dtype=torch.bool)
        hits[list(fell.get(key, ()))] = True
        kept = {"images": torch.full_like(run.images, level), "fallen": hits, "queries": torch.zeros_like(run.labels)}
        values = {"values": json.dumps({"fallbacks": 0, "seconds": 0.0})}
        write_tensors(run.workspace.steps / f"{key}-linf-2-255.safetensors", kept, values)
    images, fallen = run.worst("linf:2/255")
    assert fallen.tolist() == [True] * 4 + [False] * (COUNT - 4)
    assert fallen.equal(run.fallen(run.rows(), "linf:2/255"))
    sources = ["identity", "identity", "implicit", "square"] + ["implicit-apgd"] * (COUNT - 4)
    assert images[:, 0, 0, 0].tolist() == pytest.approx([levels[key] for key in sources])


def test_a_short_row_counts_for_its_own_images_only(tmp_path: Path) -> None:
    run = black_box(tmp_path / "run", universal(1), Scores())
    budget = "linf:16/255"
    assert len(run.cell("unrolled", budget)[0]["fallen"]) == 3
    assert run.fallen(["unrolled"], budget)[3:].tolist() == [False] * 5
    assert len(run.fallen(["unrolled"], budget, 2)) == 2
    both = run.fallen(["unrolled", "noise"], budget)
    assert both[:3].equal(run.fallen(["unrolled"], budget)[:3] | run.fallen(["noise"], budget)[:3])
    assert both[6:].tolist() == [False] * 2


def test_a_row_whose_images_are_all_wrong_at_once_is_no_error(tmp_path: Path) -> None:
    run = black_box(tmp_path / "run", universal(1), Scores(), replace(MICRO, images=COUNT), wrong=tuple(range(COUNT)))
    tensors, _ = run.cell("implicit", "linf:2/255")
    assert bool(tensors["fallen"].all())
    assert tensors["images"].equal(run.images)
    wrong = data_for(universal(1), Scores(), *range(COUNT))
    with pytest.raises(InputError, match=r"reads none of these images right; pass the classifier of this image set"):
        run_white_box(Defended(universal(1), Scores()), wrong, SMALLEST, tmp_path / "other")


# What cannot be vouched for is withheld.


def test_without_the_references_there_is_no_headline(bare: tuple[Path, dict[str, Any]]) -> None:
    folder, result = bare
    assert result["headline"] is None
    assert json.loads((folder / "white-box.json").read_text())["headline"] is None
    reasons = "; ".join(result["withheld"])
    assert "no base and no adversarial model was given" in reasons
    assert "Square, transfer and random noise: not run (transfer: no base model was given)" in reasons
    assert "there is one L-infinity budget only" in reasons
    missing = {row["key"]: row["missing"] for row in result["rows"] if row["missing"]}
    assert missing == {
        "oblivious": "no base model was given",
        "transfer": "no base model was given",
        "routing": "the layer has no strata",
        "base": "no base model was given",
        "adversarial": "no adversarial model was given",
    }
    assert all(row["cells"] == {} for row in result["rows"] if row["missing"])
    assert result["clean"].keys() == {"defended"}


def test_attacks_that_were_left_out_withhold_the_headline(finished: Finished, tmp_path: Path) -> None:
    """Even those that no check asks for."""
    _, _, data = finished
    chosen = tuple(key for key in ROWS if key not in ("low-pass", "routing"))
    few = replace(SMALLEST, attacks=chosen)
    given = {"defended": Defended(stratified(1), Scores()), "data": data, "settings": few}
    result = smallest(tmp_path / "run", **given, base=Scores(1), adversarial=Scores(2))
    assert result is not None
    assert result["headline"] is None
    assert result["withheld"][-1] == "attacks were left out: Routing, Low-pass"
    missing = {row["key"]: row["missing"] for row in result["rows"] if row["missing"]}
    assert missing == {"routing": "not chosen", "low-pass": "not chosen"}
    with pytest.raises(UsageError, match=r"unknown attack 'squares'; did you mean 'square'"):
        smallest(tmp_path / "other", settings=replace(SMALLEST, attacks=("squares",)))
    assert not (tmp_path / "other").exists()


def test_a_check_whose_rows_were_left_out_says_which(tmp_path: Path) -> None:
    def why(*attacks: str, base: nn.Module | None = None) -> str:
        settings = replace(SMALLEST, attacks=attacks)
        check = white_box_is_no_weaker(black_box(tmp_path / "run", universal(1), Scores(), settings, base=base))
        assert check.status == "not run"
        return check.figure

    assert why("implicit", "transfer", base=Scores(1)) == "Square: not chosen"
    assert why("implicit", "square", base=Scores(1)) == "transfer: not chosen"
    assert why("implicit", "square", "oblivious") == "transfer: no base model was given"
    assert why("square", "oblivious", base=Scores(1)) == "no row follows a gradient"


def test_why_a_row_is_missing() -> None:
    def reasons(transform: nn.Module) -> dict[str, str]:
        parties = Parties(Defended(transform, Scores()), Scores(), None, False, Fallbacks())
        found = {key: row.missing(parties) for key, row in ROWS.items()}
        return {key: why for key, why in found.items() if why}

    adversarial = {"adversarial": "no adversarial model was given"}
    assert reasons(stratified(1)) == adversarial
    assert reasons(universal(1, split="none")) == adversarial | {
        "routing": "the layer has no strata",
        "low-pass": "the layer passes no band through",
    }
    aimed = ("unrolled", "implicit", "implicit-margin", "implicit-apgd", "routing", "low-pass", "active-span")
    none = "there is no Sparse Transformation Layer"
    assert reasons(nn.Identity()) == adversarial | dict.fromkeys(aimed, none)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> WhiteBox:
    """A defence without a gradient, as weak as ever."""
    folder = tmp_path_factory.mktemp("hidden")
    run = black_box(
        folder,
        universal(1),
        Stairs(),
        replace(MICRO, budgets=("linf:16/255",), square_queries=60),
        base=Scores(),
        adversarial=Scores(2),
    )
    assert float(run.right("defended").float().mean()) > 0.7
    return run


@pytest.mark.parametrize(
    "check",
    [
        gradients_agree,
        gradients_do_not_vanish,
        white_box_is_no_weaker,
        finds_planted_examples,
    ],
)
def test_a_hidden_gradient_fails(check: Callable[[WhiteBox], Check], hidden: WhiteBox) -> None:
    found = check(hidden)
    assert (found.status, found.mandatory) == ("fail", True), found
    json.dumps(found.as_json(), allow_nan=False)


def test_the_same_defence_with_its_gradient_passes(tmp_path: Path) -> None:
    run = black_box(tmp_path / "run", universal(1), Scores(), base=Scores(), adversarial=Scores(2))
    for check in (gradients_do_not_vanish, unbounded_reaches_zero, finds_planted_examples, gradients_are_trusted):
        assert check(run).status == "pass", check(run)


def test_a_defence_that_nothing_fools_is_not_believed(tmp_path: Path) -> None:
    class Stubborn(Scores):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) / 1000 + 10 * torch.eye(3)[0]

    few = replace(MICRO, budgets=("linf:2/255", "linf:16/255"), steps=2, unrolled_steps=1)
    run = black_box(tmp_path / "run", universal(1), Stubborn(), few)
    run = replace(run, labels=torch.zeros(COUNT, dtype=torch.int64))
    unbounded = unbounded_reaches_zero(run)
    assert (unbounded.status, unbounded.values["standing"]) == ("fail", 6)
    assert "6 of 6 images withstand" in unbounded.figure
    assert falls_with_the_budget(run).status == "fail"


@pytest.mark.parametrize(
    ("check", "name"), [(more_steps_change_little, "check-steps-8"), (more_restarts_change_little, "check-restarts-5")]
)
def test_what_more_effort_finds_is_held_against_the_worst_case(
    check: Callable[[WhiteBox], Check], name: str, tmp_path: Path
) -> None:
    run = black_box(tmp_path / "run", universal(1), Scores())

    def step(name: str, *fallen: int) -> None:
        count = run.settings.check_images if name.startswith("check") else COUNT
        hits = torch.zeros(count, dtype=torch.bool)
        hits[list(fallen)] = True
        kept = {"images": run.images[:count], "fallen": hits, "queries": torch.zeros(count, dtype=torch.int64)}
        values = {"values": json.dumps({"fallbacks": 0, "seconds": 0.0})}
        write_tensors(run.workspace.steps / f"{name}.safetensors", kept, values)

    for key in run.rows():
        step(f"{key}-linf-2-255")
    for other in ("check-steps-1", "check-steps-2", "check-steps-4", "check-steps-8", "check-restarts-5"):
        step(other)
    assert check(run).status == "pass"
    step(name, 1)
    found = check(run)
    assert (found.status, found.values["gain"]) == ("fail", pytest.approx(1 / 6))
    step("low-pass-linf-2-255", 1)  # which the worst case then has too
    assert check(run).status == "pass"


def test_the_white_box_must_find_what_the_blind_find(tmp_path: Path) -> None:
    run = black_box(tmp_path / "run", universal(1), Scores(), base=Scores(1))
    check = white_box_is_no_weaker(run)
    assert check.status == "pass"
    for budget in MICRO.budgets:
        for key in ("noise", "oblivious", "transfer", "square"):
            theirs = run.cell(key, budget)[0]["fallen"]
            ours = run.fallen(run.rows("defended", "gradient"), budget, len(theirs))
            expected = [1 - float(ours.float().mean()), 1 - float(theirs.float().mean())]
            assert check.values["accuracy"][f"{key}/{budget}"] == expected
            assert f"of {key} (n = {len(theirs)})" in check.figure


def test_fallbacks_are_counted_against_the_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(Implicit):
        """Trusts no solution."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**{"kkt": 0.0, "fallback": Unrolled(2)} | options)

    settings = replace(MICRO, budgets=("linf:2/255",), steps=2, layer_steps=1)
    monkeypatch.setattr(white_box_rows, "Implicit", Strict)
    check = gradients_are_trusted(black_box(tmp_path / "run", universal(1), Scores(), settings))
    assert check.status == "fail", check
    assert check.values["fell"] > 0.5 * check.values["asked"] > 0


def test_one_loss_is_not_enough(tmp_path: Path) -> None:
    run = black_box(tmp_path / "run", nn.Identity(), Scores())
    assert three_losses(run).status == "fail"
    assert [check(run).status for check in (gradients_agree, gradients_are_trusted)] == ["not run"] * 2
    assert gradients_agree(run).mandatory


def test_the_references_must_be_two_networks_of_the_same_architecture(tmp_path: Path) -> None:
    def status(base: nn.Module | None, adversarial: nn.Module | None) -> tuple[str, str]:
        run = black_box(tmp_path / "run", universal(1), Scores(), base=base, adversarial=adversarial)
        check = references_are_in_the_table(run)
        return check.status, check.figure

    assert status(Scores(1), Scores(2)) == ("pass", "both are; 192 parameters each")
    assert status(Scores(1), Scores(1)) == ("fail", "both are the same network")
    assert status(nn.Linear(64, 3), Scores(1)) == ("fail", "their architectures differ")
    vanilla, robust = Scores(1), Scores(2)
    for network, kind in ((vanilla, "vanilla"), (robust, "adversarial")):
        network.card = {"provenance": {"settings": {"kind": kind}}}
    assert status(vanilla, robust)[0] == "pass"
    assert status(Scores(3), vanilla) == (
        "fail",
        "the adversarial model's file says that its training was of the kind vanilla",
    )
    assert status(robust, Scores(3))[0] == "fail"
    assert status(Scores(1), None) == ("not run", "no adversarial model was given")
    assert status(None, Scores(1)) == ("not run", "no base model was given")


# A randomised defence.


@pytest.mark.parametrize("transform", [universal(1), nn.Identity()], ids=["layer", "identity"])
def test_a_randomised_defence_is_attacked_in_expectation_and_judged_by_the_worst(
    transform: nn.Module, tmp_path: Path
) -> None:
    settings = replace(
        MICRO, budgets=("linf:2/255",), samples=2, submissions=3, layer_steps=1, steps=2, square_queries=3
    )
    run = black_box(tmp_path / "run", transform, Noisy(), settings)
    assert run.parties.randomised
    check = is_deterministic(run)
    assert check.status == "fail"  # two samples and three submissions are too few
    assert "means of 2, outcomes the worst of 3" in check.figure
    assert is_deterministic(replace(run, settings=replace(settings, samples=10, submissions=10))).status == "pass"
    with torch.no_grad():
        logits = Scores()(transform(run.images))
    gaps = logits.topk(2, dim=1).values.diff(dim=1).abs()[:, 0]
    often = replace(run, settings=replace(settings, submissions=12), workspace=Workspace(tmp_path / "often", {}))
    assert bool(run.right("defended")[gaps > 3].all())
    assert not bool((often.right("defended") & ~run.right("defended")).any())  # more submissions, no more right
    for key in run.rows():
        tensors, _ = run.cell(key, "linf:2/255")
        again = run.judged("defended", tensors["images"], run.labels[: len(tensors["images"])])
        assert again.equal(tensors["fallen"]), key  # the outcome is that of the images as saved, in any batch
    if isinstance(transform, SparseTransformationLayer):
        assert {"low-pass", "active-span", "implicit"} <= set(run.rows())
    save_worst(run, tmp_path)
    assert budgets_hold(run, tmp_path).status == "pass"


def test_a_fixed_model_is_not_taken_for_a_randomised_one(tmp_path: Path) -> None:
    class Sure(Scores):
        def forward(self, images: Tensor) -> Tensor:
            return 1e6 * super().forward(images)

    run = black_box(tmp_path / "run", universal(1), Sure())
    assert not run.parties.randomised
    assert is_deterministic(run).status == "pass"


def test_a_saturated_cross_entropy_does_not_save_a_defence(tmp_path: Path) -> None:
    class Sure(Scores):
        def forward(self, images: Tensor) -> Tensor:
            return 1e6 * super().forward(images)

    plain = black_box(tmp_path / "plain", universal(1), Scores())
    sure = black_box(tmp_path / "sure", universal(1), Sure())
    for key in ("implicit-margin", "implicit-apgd"):
        budget = "linf:16/255"
        assert sure.cell(key, budget)[0]["fallen"].equal(plain.cell(key, budget)[0]["fallen"])
    saturated = sure.cell("implicit", "linf:16/255")[0]["fallen"]
    assert saturated.sum() < plain.cell("implicit", "linf:16/255")[0]["fallen"].sum()  # one loss alone would be fooled


# Attacks on what is deployed.


def test_an_attack_does_not_stop_at_what_only_its_own_gradients_model_is_fooled_by() -> None:
    """As a layer with a named gradient is solved more exactly than the layer deployed."""

    class Shifted(Scores):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return logits + self.bonus if images.requires_grad else logits

    model = Shifted()
    images = images_of(1, COUNT, 16, 16)
    labels = model(images).argmax(1)
    model.bonus = -torch.eye(3)[labels[0]]
    chosen = labels == labels[0]
    images, labels = images[chosen], labels[chosen]
    attack: dict[str, Any] = {"budget": Linf(8 / 255), "steps": 20, "loss": "margin"}
    early = pgd(model, images, labels, until_success=True, **attack)
    late = persistent(model, images, labels, lambda *given, **options: pgd(*given, **attack, **options))
    assert bool((~early.success & late.success).any())
    assert not bool((early.success & ~late.success).any())
    assert late.success.equal(model(late.images).argmax(1) != labels)
    kept = early.success
    assert late.images[kept].equal(early.images[kept])
    assert late.queries[kept].equal(early.queries[kept])
    assert bool((late.queries[~kept & late.success] > early.queries[~kept & late.success]).all())


def test_several_attacks_share_the_images_that_still_stand() -> None:
    asked: list[int] = []

    def attack(hits: int) -> Callable[..., AttackResult]:
        def made(model: nn.Module, images: Tensor, labels: Tensor) -> AttackResult:
            asked.append(len(images))
            success = labels == hits
            return AttackResult(torch.full_like(images, hits / 10), success, torch.full_like(labels, 5))

        return made

    images, labels = images_of(1, 4, 16, 16), torch.tensor([0, 1, 2, 1])
    found = strongest(Scores(), images, labels, [attack(1), attack(2), attack(3)])
    assert asked == [4, 2, 1]
    assert found.success.tolist() == [False, True, True, True]
    assert found.queries.tolist() == [15, 5, 10, 5]
    assert found.images[:, 0, 0, 0].tolist() == pytest.approx([0.3, 0.1, 0.2, 0.1])


# What was saved is looked at again.


@pytest.fixture
def run_with_files(finished: Finished, tmp_path: Path) -> tuple[WhiteBox, Path]:
    """The finished run opened again, beside files that a test may overwrite."""
    folder, _, data = finished
    for budget in MICRO.budgets:
        shutil.copy(folder / file_of(budget), tmp_path)
    shutil.copytree(folder / "steps", tmp_path / "run" / "steps")
    write_json(tmp_path / "run" / "run.json", {})
    images, labels = held_out(data, COUNT, 0)
    parties = Parties(Defended(stratified(1), Scores()).eval(), Scores(1), Scores(2), False, Fallbacks())
    return WhiteBox(MICRO, parties, images, labels, Workspace(tmp_path / "run", {}), Silent()), tmp_path


def test_what_was_tampered_with_is_found(run_with_files: tuple[WhiteBox, Path]) -> None:
    run, folder = run_with_files
    assert budgets_hold(run, folder).status == "pass"
    budget = "linf:2/255"
    images, fallen = saved(folder, budget)

    def status(images: Tensor, fallen: Tensor) -> tuple[str, float, int]:
        write_tensors(folder / file_of(budget), {"images": images, "fallen": fallen})
        check = budgets_hold(run, folder)
        return check.status, check.values["excess"], check.values["wrong"]

    assert status(images, fallen)[0] == "pass"
    too_far = images.clone()
    too_far[0, 0, 0, 0] = run.images[0, 0, 0, 0] + 3 / 255
    assert status(too_far, fallen)[1] == pytest.approx(1 / 255, abs=1e-5)
    assert status(too_far, fallen)[0] == "fail"
    outside = images.clone()
    darkest = int(run.images.flatten(1).amin(1).argmin())
    outside[darkest] = run.images[darkest] - 2 / 255
    assert float(outside.min()) < 0
    assert status(outside, fallen)[0] == "fail"
    clean = run.images
    state, _, wrong = status(clean, fallen)
    assert (state, wrong) == ("fail", int((fallen & run.right("defended")).sum()))
    assert wrong > 0
    assert status(clean, ~run.right("defended"))[0] == "fail"  # in themselves consistent, but not what the table says
    assert status(images, ~fallen)[0] == "fail"


def test_rounding_to_8_bits_is_within_balls_of_whole_levels(run_with_files: tuple[WhiteBox, Path]) -> None:
    run, folder = run_with_files
    check = budgets_hold_after_rounding(run, folder)
    assert check.status == "pass"
    for budget in MICRO.budgets:
        images, fallen = saved(folder, budget)
        rounded = (255 * images).round() / 255
        with torch.no_grad():
            right = run.parties.defended(rounded).argmax(1) == run.labels
        assert check.values["budgets"][budget]["accuracy"] == float(right.float().mean())
        assert check.values["budgets"][budget]["before"] == pytest.approx(float((~fallen).float().mean()))
    far = (run.images + 5 / 255).clamp(0, 1)
    write_tensors(folder / file_of("linf:2/255"), {"images": far, "fallen": saved(folder, "linf:2/255")[1]})
    assert budgets_hold_after_rounding(run, folder).status == "fail"
    between = replace(run, images=(run.images * 0.997).clamp(0, 1))  # no 8-bit images: nothing is promised
    assert budgets_hold_after_rounding(between, folder).status == "pass"


# Interrupted, shared, refused.


@pytest.mark.parametrize("after", [2, 7])
def test_killed_and_continued_it_ends_as_if_it_had_not_been(
    after: int, bare: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        smallest(tmp_path / "run", progress=Log(after))
    assert not (tmp_path / "run" / "white-box.json").exists()
    assert 0 < len(list((tmp_path / "run" / "steps").iterdir())) < len(list((bare[0] / "steps").iterdir()))
    result = smallest(tmp_path / "run")
    assert result is not None
    assert numbers(result) == numbers(bare[1])
    same = ("outcomes.npz", file_of("linf:8/255"))
    assert all((tmp_path / "run" / name).read_bytes() == (bare[0] / name).read_bytes() for name in same)


def test_shares_come_to_the_same(bare: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    counts = []
    for i in (2, 1, 3):
        assert smallest(tmp_path / "run", shard=(i, 3)) is None
        counts.append(len(list((tmp_path / "run" / "steps").iterdir())))
        assert not (tmp_path / "run" / "white-box.json").exists()
    assert counts[0] < counts[1] < counts[2]
    steps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "steps").iterdir()}
    result = smallest(tmp_path / "run")
    assert result is not None
    assert numbers(result) == numbers(bare[1])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "steps").iterdir()} == steps  # all was done


def test_a_run_of_anything_else_is_refused(
    bare: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(bare[0], folder)
    layer = universal(1)
    others: list[dict[str, Any]] = [
        {"settings": replace(SMALLEST, steps=3)},
        {"defended": Defended(layer, Scores(3))},
        {"defended": Defended(layer.with_sparsity(0.06), Scores())},
        {"defended": Defended(layer, Scores(), eight_bit=True)},
        {"base": Scores(1)},
        {"adversarial": Scores(1)},
        {"data": data_for(layer, Scores(), 3)},
    ]
    for other in others:
        with pytest.raises(UsageError, match=r"holds a run of other settings or code; choose another --out"):
            smallest(folder, **other)
    monkeypatch.setattr("quasinat.experiments.white_box.code_fingerprint", lambda: "other code")
    with pytest.raises(UsageError, match="holds a run of other settings or code"):
        smallest(folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("not ours")
    with pytest.raises(UsageError, match="holds no run of ours"):
        smallest(tmp_path / "notes", overwrite=True)


def test_overwriting_leaves_nothing_of_the_run_before(bare: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(bare[0], folder)
    other = replace(SMALLEST, budgets=("linf:4/255",))
    with pytest.raises(KeyboardInterrupt):
        smallest(folder, settings=other, overwrite=True, progress=Log(1))
    assert {path.name for path in folder.iterdir()} == {"run.json", "steps"}
    assert [path.name for path in (folder / "steps").iterdir()] == ["clean-defended.safetensors"]


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"images": 0}, r"--images 0 is below 1; give 1 or more"),
        ({"steps": 0}, r"--steps 0 is below 1"),
        ({"submissions": 0}, r"--submissions 0 is below 1"),
        ({"seed": -1}, r"--seed -1 is below zero; give 0 or more"),
        ({"budgets": ("linf:inf",)}, r"a budget of zero or infinity.*give finite ones above 0"),
        ({"budgets": ("linf:0",)}, r"a budget of zero or infinity"),
        ({"budgets": ("l2:0.5",)}, r"no budget is an L-infinity ball; give one too, such as linf:4/255"),
        ({"budgets": ()}, r"no budget is an L-infinity ball"),
        ({"budgets": ("linf:8/255", "linf:8/255")}, r"a budget is given twice"),
        ({"budgets": ("linf:8/255", f"LINF:{8 / 255}")}, r"a budget is given twice: linf:8/255, linf:8/255"),
        ({"budgets": ("linf:8/255", "dissimilarity:0.03", "dissimilarity:0.03:gradient")}, r"given twice"),
        ({"budgets": ("linf8",)}, r"'linf8' is no budget"),
        ({"budgets": ("linv:8/255",)}, r"unknown budget 'linv'.*did you mean 'linf'"),
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, Any], pattern: str) -> None:
    with pytest.raises(UsageError, match=pattern):
        white_box_settings("smoke", **changes)


def test_settings_by_name() -> None:
    assert white_box_settings("smoke", steps=None, images=3) == replace(PRESETS["smoke"], images=3)
    with pytest.raises(UsageError, match=r"unknown preset 'smokes'; did you mean 'smoke'"):
        white_box_settings("smokes")
    settings = WhiteBoxSettings(budgets=(" LINF:0.5 ", "linf:1/255", "l2:1/2"))
    assert settings.budgets == ("linf:0.5", "linf:1/255", "l2:0.5")
    assert settings.linf() == ["linf:1/255", "linf:0.5"]
    assert json.loads(json.dumps(settings.as_json())) == settings.as_json()


def test_networks_of_another_image_set_are_refused() -> None:
    check_networks({"--classifier": Scores(), "--base": None}, classes=3, channels=1)
    with pytest.raises(UsageError, match=r"--base has 3 classes, the image set 10; pass one trained on this set"):
        check_networks({"--base": Scores()}, classes=10, channels=1)
    with pytest.raises(UsageError, match=r"--adversarial has 1 channels, the image set 3"):
        check_networks({"--classifier": None, "--adversarial": Scores()}, classes=3, channels=3)


def test_a_digest_tells_models_apart() -> None:
    layer = universal(1)
    models = [
        Scores(),
        Scores(1),
        Defended(layer, Scores()),
        Defended(layer, Scores(1)),
        Defended(layer, Scores(), eight_bit=True),
        Defended(layer.with_sparsity(0.06), Scores()),
        Defended(universal(1, split="none"), Scores()),
    ]
    assert len({digest(model) for model in models}) == len(models)
    assert digest(Defended(universal(1), Scores())) == digest(models[2])


def test_images_that_do_not_fit_the_layer_are_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 channels and the filters 3"):
        smallest(tmp_path / "run", defended=Defended(universal(3), Scores()))
    assert not (tmp_path / "run").exists()


def test_a_row_is_known_by_its_key() -> None:
    assert all(isinstance(row, Row) and row.kind in ("gradient", "layer", "blind") for row in ROWS.values())
    assert [key for key, row in ROWS.items() if row.model != "defended"] == ["base", "adversarial"]
