"""Dictionary learning: the objective falls, held-out images are coded better, a planted dictionary is found."""

import warnings

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from quasinat.data import photographs
from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding import (
    ADMM,
    Auto,
    Batch,
    Consensus,
    Constraint,
    Dictionary,
    Learner,
    LearningState,
    Online,
    SparseCodingProblem,
    convolve,
    learn_dictionary,
    project_filters,
    solve,
    tikhonov_split,
)

from .unchecked import unchecked

SETTINGS = {"filters": 12, "size": 6, "sparsity": 0.1, "passes": 5, "tolerance": 0.0}
EVERY = {"batch": Batch(), "online": Online(batch_size=5), "consensus": Consensus(block_size=7)}
every_learner = pytest.mark.parametrize("learner", EVERY.values(), ids=EVERY.keys())


@pytest.fixture(scope="module")
def patches() -> tuple[Tensor, Tensor]:
    """High-pass training and test patches of photographs; the two share no pixel."""
    dataset = photographs(train_per_class=2, test_per_class=1)
    return tikhonov_split(dataset.train_images)[1], tikhonov_split(dataset.test_images)[1]


@pytest.fixture(scope="module", params=EVERY.values(), ids=EVERY.keys())
def learned(request: pytest.FixtureRequest, patches: tuple[Tensor, Tensor]) -> Dictionary:
    return learn_dictionary(patches[0], learner=request.param, held_out=patches[1], **SETTINGS)


def mean_objective(images: Tensor, filters: Tensor, sparsity: float = 0.1) -> float:
    problem = SparseCodingProblem(images, filters, sparsity)
    return float(solve(problem, Auto(tolerance=1e-3)).objective.mean())


def test_the_curves_fall(learned: Dictionary, patches: tuple[Tensor, Tensor]) -> None:
    curve, held_out = torch.tensor(learned.curve), torch.tensor(learned.held_out)
    assert len(curve) == 5
    assert len(held_out) == 6
    assert (curve[1:] <= curve[:-1] * 1.002).all()
    assert curve[-1] < 0.95 * curve[0]
    assert held_out[-1] < 0.97 * held_out[0]
    assert held_out[-1] == pytest.approx(mean_objective(patches[1], learned.filters), rel=5e-3)
    assert learned.images == 20
    assert learned.reseeded == 0


def test_held_out_images_are_coded_better_than_by_chance(
    learned: Dictionary, patches: tuple[Tensor, Tensor], generator: torch.Generator
) -> None:
    random = project_filters(torch.randn(learned.filters.shape, generator=generator), "joint")
    assert mean_objective(patches[1], learned.filters) < 0.8 * mean_objective(patches[1], random)


@every_learner
def test_the_seed_decides(learner: Learner, patches: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    settings = SETTINGS | {"passes": 2, "learner": learner}
    first, again = learn_dictionary(patches[0], **settings), learn_dictionary(patches[0], **settings)
    assert torch.random.get_rng_state().equal(before)
    assert again.filters.equal(first.filters)
    assert again.curve == first.curve
    assert not learn_dictionary(patches[0], **settings, seed=1).filters.allclose(first.filters)


@every_learner
def test_an_interrupted_learning_goes_on_as_if_it_had_not_stopped(
    learner: Learner, patches: tuple[Tensor, Tensor]
) -> None:
    states: list[LearningState] = []
    arguments = SETTINGS | {"passes": 3, "learner": learner, "held_out": patches[1]}
    whole = learn_dictionary(patches[0], **arguments, on_pass=states.append)
    assert [state.passes for state in states] == [0, 1, 2, 3]
    for state in states:
        again = learn_dictionary(patches[0], **arguments, resume=state)
        assert again.filters.equal(whole.filters)
        assert again.curve == whole.curve
        assert again.held_out == whole.held_out


@every_learner
def test_images_need_not_be_in_memory_together(learner: Learner, patches: tuple[Tensor, Tensor]) -> None:
    class Lazy:
        def __len__(self) -> int:
            return len(patches[0])

        def __getitem__(self, rows: Tensor) -> Tensor:
            return patches[0][rows]

    settings = SETTINGS | {"passes": 1, "learner": learner}
    assert learn_dictionary(Lazy(), **settings).filters.equal(learn_dictionary(patches[0], **settings).filters)


@every_learner
@pytest.mark.parametrize("constraint", ["joint", "per-channel", "at-most-one"])
@pytest.mark.parametrize("zero_mean", [False, True])
def test_the_constraint_is_held(
    learner: Learner, constraint: Constraint, zero_mean: bool, generator: torch.Generator
) -> None:
    images = torch.rand(9, 3, 14, 17, generator=generator, dtype=torch.float64) - 0.4
    arguments = {"filters": 5, "size": 4, "sparsity": 0.2, "passes": 2, "learner": learner}
    dictionary = learn_dictionary(images, **arguments, constraint=constraint, zero_mean=zero_mean)
    filters = dictionary.filters
    assert filters.shape == (5, 3, 4, 4)
    assert filters.dtype == torch.float64
    assert (dictionary.constraint, dictionary.zero_mean) == (constraint, zero_mean)
    norms = filters.square().sum((2, 3) if constraint == "per-channel" else (1, 2, 3)).sqrt()
    if constraint == "at-most-one":
        assert (norms <= 1 + 1e-12).all()
    else:
        torch.testing.assert_close(norms, torch.ones_like(norms))
    assert bool((filters.mean((2, 3)).abs() < 1e-12).all()) == zero_mean


@pytest.mark.parametrize(("filters", "size", "channels"), [(1, 3, 1), (3, 16, 2), (512, 3, 1), (40, 7, 5)])
@every_learner
def test_any_number_size_and_channels(
    learner: Learner, filters: int, size: int, channels: int, generator: torch.Generator
) -> None:
    images = torch.randn(3, channels, 18, 20, generator=generator)
    dictionary = learn_dictionary(
        images, filters=filters, size=size, sparsity=0.8, passes=1, learner=learner, held_out=images
    )
    assert dictionary.filters.shape == (filters, channels, size, size)
    assert dictionary.held_out[1] < dictionary.held_out[0]


def test_learning_ends_when_the_objective_stands_still(patches: tuple[Tensor, Tensor]) -> None:
    arguments = SETTINGS | {"passes": 50, "tolerance": 0.02}
    watched = learn_dictionary(patches[0], **arguments, held_out=patches[1])
    assert 1 < len(watched.curve) < 20
    steps = torch.tensor(watched.held_out).double()
    changes = (1 - steps[1:] / steps[:-1]).abs()
    assert changes[-1] < 0.02
    assert (changes[:-1] >= 0.02).all()
    unwatched = learn_dictionary(patches[0], **arguments)
    assert abs(1 - unwatched.curve[-1] / unwatched.curve[-2]) < 0.02
    assert unwatched.held_out == ()


def matched(found: Tensor, truth: Tensor) -> Tensor:
    """The correlation of each true filter with a found one of its own, up to order, sign and a shift in the frame."""
    size = truth.shape[-1]
    canvas = torch.nn.functional.pad(found, (size, size, size, size))
    shifts = torch.nn.functional.conv2d(canvas, truth).abs().flatten(2).amax(2)
    rows, columns = linear_sum_assignment(-shifts.numpy())
    return shifts[torch.from_numpy(rows), torch.from_numpy(columns)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "learner", [Batch(), Online(batch_size=8), Consensus(block_size=12)], ids=["batch", "online", "consensus"]
)
def test_a_planted_dictionary_is_recovered(learner: Learner, seed: int) -> None:
    """From noiseless maps, starting from patches of the images; larger filters than the true ones hold them whole."""
    generator = torch.Generator().manual_seed(seed)
    truth = project_filters(torch.randn(4, 1, 5, 5, generator=generator), "joint")
    shape = (24, 4, 24, 24)
    codes = torch.randn(shape, generator=generator).sign() * (1 + torch.rand(shape, generator=generator))
    images = convolve(truth, codes * (torch.rand(shape, generator=generator) < 0.003))
    settings = {"filters": 8, "size": 9, "sparsity": 0.1, "passes": 30, "tolerance": 0.0, "learner": learner, "seed": 3}
    states: list[LearningState] = []
    found = learn_dictionary(images, **settings, on_pass=states.append).filters
    assert (matched(states[0].filters, truth) < 0.97).any()
    assert (matched(found, truth) > 0.99).all()


@every_learner
def test_a_planted_dictionary_of_the_same_size_is_found_from_nearby(
    learner: Learner, generator: torch.Generator
) -> None:
    truth = project_filters(torch.randn(4, 1, 5, 5, generator=generator), "joint")
    codes = torch.randn(16, 4, 20, 20, generator=generator)
    images = convolve(truth, codes * (torch.rand(codes.shape, generator=generator) < 0.01))
    start = project_filters(truth + 0.15 * torch.randn(truth.shape, generator=generator), "joint")
    found = learn_dictionary(images, sparsity=0.05, passes=15, tolerance=0.0, start=start, learner=learner).filters
    before, after = ((other * truth).sum((1, 2, 3)) for other in (start, found))
    assert (before < 0.9).all()
    assert (after > 0.99).all()


@pytest.mark.parametrize("seed", [0, 2])
def test_online_equals_batch_in_the_limit(seed: int, patches: tuple[Tensor, Tensor]) -> None:
    """On a small set, after as many filter updates, both settle on dictionaries that are as good."""
    shared = SETTINGS | {"seed": seed}
    solver = Auto(tolerance=1e-3)
    batch = learn_dictionary(patches[0], **shared | {"passes": 160}, learner=Batch(solver=solver))
    online = learn_dictionary(patches[0], **shared | {"passes": 32}, learner=Online(batch_size=4, solver=solver))
    ours, theirs = (mean_objective(patches[0], dictionary.filters) for dictionary in (online, batch))
    assert ours == pytest.approx(theirs, rel=0.005)


def test_the_whole_set_as_one_minibatch_that_forgets_all_is_batch(patches: tuple[Tensor, Tensor]) -> None:
    solver = Auto(tolerance=1e-4)
    settings = SETTINGS | {"passes": 3}
    batch = learn_dictionary(patches[0], **settings, learner=Batch(solver=solver, steps=10, keep_codes=False))
    online = learn_dictionary(
        patches[0], **settings, learner=Online(batch_size=99, forgetting=1e9, solver=solver, steps=10)
    )
    torch.testing.assert_close(online.filters, batch.filters, rtol=0, atol=2e-4)


@pytest.mark.filterwarnings("ignore")
@every_learner
def test_no_worse_than_sporco_on_the_same_images_and_iterations(
    learner: Learner, patches: tuple[Tensor, Tensor]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cbpdndl = pytest.importorskip("sporco.dictlrn.cbpdndl")
    images, iterations = patches[0][:6], 40
    first: list[LearningState] = []
    ours = learn_dictionary(
        images, **SETTINGS | {"passes": iterations, "learner": learner}, on_pass=first.append
    ).filters
    options = cbpdndl.ConvBPDNDictLearn.Options(
        {"Verbose": False, "MaxMainIter": iterations, "CBPDN": {"rho": 5.5}}, xmethod="admm", dmethod="cns"
    )
    start = first[0].filters[:, 0].permute(1, 2, 0).numpy()
    learner_ = cbpdndl.ConvBPDNDictLearn(
        start, images[:, 0].permute(1, 2, 0).numpy(), 0.1, options, xmethod="admm", dmethod="cns"
    )
    learner_.solve()
    theirs = torch.from_numpy(learner_.getdict().squeeze().copy()).permute(2, 0, 1)[:, None].float()
    assert mean_objective(images, ours) <= 1.005 * mean_objective(images, theirs.contiguous())


def test_a_start_may_be_given(patches: tuple[Tensor, Tensor], generator: torch.Generator) -> None:
    atoms = 3 * torch.randn(7, 1, 4, 4, generator=generator)
    dictionary = learn_dictionary(patches[0], start=atoms, passes=0)
    torch.testing.assert_close(dictionary.filters, project_filters(atoms, "joint"))
    assert dictionary.curve == ()


def test_what_cannot_be_learned_from_is_refused() -> None:
    images = torch.rand(2, 1, 12, 12)
    with pytest.raises(InputError, match=r"flat: there is nothing to learn .* use textured"):
        learn_dictionary(torch.zeros(2, 1, 12, 12), filters=3, size=4)
    with pytest.raises(InputError, match=r"12 x 12 pixels are smaller than the filters \(13 x 13\); use"):
        learn_dictionary(images, filters=3, size=13)
    with pytest.raises(InputError, match="no images to learn a dictionary from; give at least one"):
        learn_dictionary(images[:0], filters=3, size=4)
    images = torch.rand(120, 1, 12, 12)
    images[110, 0, 3, 3] = torch.nan
    for learner in ("batch", "online", "consensus"):
        with pytest.raises(InputError, match="image 110 holds NaN or infinity; leave it out"):
            learn_dictionary(images, filters=3, size=4, learner=learner, start="noise")


def test_options_out_of_range_are_refused(patches: tuple[Tensor, Tensor]) -> None:
    for name, value in {"filters": 0, "size": 2}.items():
        with pytest.raises(UsageError, match=f"{name}={value} is not from"):
            learn_dictionary(patches[0], **{name: value})
    with pytest.raises(UsageError, match="filters=513 is not from 1 to 512"):
        learn_dictionary(patches[0], filters=513)
    with pytest.raises(UsageError, match="-1 passes; ask for none or more"):
        learn_dictionary(patches[0], passes=-1)
    with pytest.raises(UsageError, match="unknown learner 'bach'; did you mean 'batch'"):
        learn_dictionary(patches[0], learner="bach")
    with unchecked(), pytest.raises(UsageError, match="unknown start 'patch'; did you mean 'patches'"):
        learn_dictionary(patches[0], start="patch")
    with pytest.raises(InputError, match="filters of 3 channels do not fit images of 1"):
        learn_dictionary(patches[0], start=torch.ones(2, 3, 4, 4))
    for make, message in (
        (lambda: Batch(steps=0), r"Batch\(steps=0\)"),
        (lambda: Online(batch_size=0), r"Online\(batch_size=0\)"),
        (lambda: Online(forgetting=-1.0), r"Online\(forgetting=-1.0\)"),
        (lambda: Consensus(penalty=0.0), r"Consensus\(penalty=0.0\)"),
    ):
        with pytest.raises(UsageError, match=message):
            make()


def test_the_number_of_images_decides_by_itself(patches: tuple[Tensor, Tensor]) -> None:
    from quasinat.sparse_coding.learning import chosen_learner

    assert chosen_learner("auto", 1024) == Batch()
    assert chosen_learner("auto", 1025) == Online()
    assert chosen_learner(Batch(solver=ADMM()), 5) == Batch(solver=ADMM())
