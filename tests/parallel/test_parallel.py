"""One process against two and four that share the work: the same dictionaries, strata and trainings."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from parallel.ranks import Found, on_ranks
from quasinat import parallel
from quasinat.defences import learn_magnet, learn_pixelcnn
from quasinat.errors import UsageError
from quasinat.networks import vgg
from quasinat.sparse_coding import Auto, Batch, Consensus, Online, learn_dictionary
from quasinat.sparse_coding.dictionary_problem import LearningState
from quasinat.strata import fit_strata, learn_dictionaries
from quasinat.strata.clustering import k_means
from quasinat.strata.pca import fit_pca
from quasinat.training import train_classifier
from quasinat.training.loop import minimise

pytestmark = pytest.mark.processes
RANKS = [2, 4]
LEARNERS = {
    "consensus": Consensus(block_size=8, solver=Auto(tolerance=1e-4)),
    "batch": Batch(solver=Auto(tolerance=1e-4)),
    "online": Online(batch_size=14, solver=Auto(tolerance=1e-4)),
}


def pictures(count: int = 40, side: int = 16) -> Tensor:
    """Smooth images in [0, 1] with edges."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=generator)
    return F.interpolate(coarse, scale_factor=4.0, mode="bilinear") * 0.9 + 0.05


def learned() -> Found:
    """A dictionary by each learner, its curves, and the strata's dictionaries of every image."""
    found = {}
    images = pictures() - pictures().mean((2, 3), keepdim=True)
    for name, learner in LEARNERS.items():
        options = {"filters": 8, "size": 5, "passes": 3, "tolerance": 0.0, "held_out": images[:9]}
        made = learn_dictionary(images, learner=learner, **options)
        found[name] = made.filters
        found[f"{name} curve"] = torch.tensor(made.curve + made.held_out, dtype=torch.float64)
    return found


def trained() -> Found:
    """Classifier and autoencoder in float64, MagNet's and the PixelCNN: the losses of each epoch; logits, strata."""
    found, losses = {}, {}
    images, labels = pictures(70, 32), torch.arange(70) % 4

    def hear(name: str) -> dict[str, object]:
        losses[name] = []
        return {"on_epoch": lambda _, loss: losses[name].append(loss), "epochs": 3, "batch_size": 16}

    network = vgg("vgg-small", classes=4, channels=3, seed=0)
    train_classifier(network.double(), images.double(), labels, noise=0.1, **hear("classifier"))
    found["classifier"] = network(images.double()).detach()
    options = hear("autoencoder")
    options.pop("batch_size")
    found["strata"] = fit_strata(images.double(), count=3, **options)(images.double())
    learn_magnet(images, **hear("magnet"))
    learn_pixelcnn(images[:20, :, :8, :8], width=8, blocks=1, mixtures=2, **hear("pixelcnn"))
    return found | {f"{name} losses": torch.tensor(values, dtype=torch.float64) for name, values in losses.items()}


def clustered() -> Found:
    """k-means of all latents and of a sample that is refined, and their principal axes."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(900, 6, generator=generator) + 4 * torch.randint(3, (900, 1), generator=generator)
    found = {"axes": fit_pca(latents, 4).axes}
    for name, sample in {"whole": 900, "sample": 60}.items():
        found[f"{name} centres"], found[f"{name} labels"] = k_means(latents, 3, sample=sample)
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, Found]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {name: work() for name, work in WORK.items()}
    torch.set_num_threads(threads)
    return found


def everything() -> Found:
    """All of the above, in one start of the processes."""
    return {f"{name}: {key}": value for name in WORK for key, value in WORK[name]().items()}


WORK = {"learned": learned, "trained": trained, "clustered": clustered}


@pytest.fixture(scope="module", params=RANKS)
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    return on_ranks(request.param, everything, tmp_path_factory.mktemp("ranks"))


def test_all_processes_find_the_same_to_the_bit(together: list[Found]) -> None:
    for found in together[1:]:
        assert found.keys() == together[0].keys()
        assert [name for name, value in found.items() if not value.equal(together[0][name])] == []


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_dictionary_is_that_of_one_process(learner: str, alone: dict[str, Found], together: list[Found]) -> None:
    found, expected = together[0][f"learned: {learner}"], alone["learned"][learner]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    curve = f"{learner} curve"
    torch.testing.assert_close(together[0][f"learned: {curve}"], alone["learned"][curve], rtol=1e-5, atol=0)


def test_the_trainings_are_those_of_one_process(alone: dict[str, Found], together: list[Found]) -> None:
    expected = alone["trained"]
    found = {name: together[0][f"trained: {name}"] for name in expected}
    for name, tolerance in {"classifier": 1e-12, "autoencoder": 1e-12, "magnet": 1e-5, "pixelcnn": 1e-5}.items():
        losses = expected[f"{name} losses"]
        assert len(set(losses.tolist())) == 3
        torch.testing.assert_close(found[f"{name} losses"], losses, rtol=tolerance, atol=0)
    torch.testing.assert_close(found["classifier"], expected["classifier"], rtol=0, atol=1e-9)
    assert found["strata"].equal(expected["strata"])


def test_the_clusters_are_those_of_one_process(alone: dict[str, Found], together: list[Found]) -> None:
    for name, expected in alone["clustered"].items():
        torch.testing.assert_close(together[0][f"clustered: {name}"], expected, rtol=0, atol=1e-5)


def test_one_process_alone_is_the_whole_job(generator: torch.Generator) -> None:
    tensor = torch.rand(3, generator=generator)
    assert (parallel.rank(), parallel.ranks(), parallel.leads()) == (0, 1, True)
    assert parallel.mine(tensor).equal(tensor)
    for function in (parallel.summed, parallel.joined, parallel.from_process):
        assert function(tensor) is tensor
    assert parallel.gathered({"one": tensor}) == {"one": tensor}


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_the_shares_are_even_and_make_the_whole(count: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ranks", lambda: processes)
    shares, owners = [], [parallel.owner(index, count) for index in range(count)]
    for rank in range(processes):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        shares.append(list(parallel.mine(range(count))))
        assert parallel.mine(torch.arange(count)).tolist() == shares[-1]
    assert list(chain(*shares)) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(index in shares[owner] for index, owner in enumerate(owners))


def uneven() -> Found:
    """What needs no equal shares: gathering, one writer, and batches that are too small."""
    rank = parallel.rank()
    found = {"joined": parallel.joined(torch.full((rank, 2), rank))}
    found["sum"] = parallel.summed(torch.tensor(1.0 + rank))
    found["of the last"] = parallel.from_process(torch.tensor(rank), 2)
    found["gathered"] = torch.tensor(len(parallel.gathered({f"{rank}": rank, "same": 0})))
    module = nn.Linear(1, 1)
    with pytest.raises(UsageError, match="batches of 2 images cannot be shared by 3 processes"):
        minimise(module, lambda *_: module.weight.sum(), count=9, epochs=1, batch_size=2, learning_rate=1e-3)
    return found


def test_shares_may_be_uneven_and_small_batches_are_refused(tmp_path: Path) -> None:
    found = on_ranks(3, uneven, tmp_path)
    for each in found:
        assert each["joined"].tolist() == [[1, 1], [2, 2], [2, 2]]
        assert (float(each["sum"]), int(each["of the last"])) == (6, 2)
    assert [int(each["gathered"]) for each in found] == [4, 2, 2]


def interrupted(learner: str, work: Path) -> Found:
    """The dictionary of three passes, of which those that `work` has are not done again; stopped after the first."""
    images, passes = pictures(), []

    def hear(_: int, state: LearningState) -> None:
        passes.append(state.passes)
        if parallel.ranks() == 1 and state.passes == 1:
            raise KeyboardInterrupt

    options = {"filters": 8, "size": 5, "passes": 3, "tolerance": 0.0, "held_out": 4, "learner": LEARNERS[learner]}
    (made,) = learn_dictionaries(images, checkpoint=work, on_pass=hear, **options)
    return {"filters": made.filters, "passes": torch.tensor(passes)}


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_learning_goes_on_with_another_number_of_processes(learner: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(learner, tmp_path / "work")
    found = on_ranks(2, interrupted, tmp_path, learner, tmp_path / "work")
    assert found[0]["passes"].tolist() == [2, 3]
    (whole,) = learn_dictionaries(
        pictures(), filters=8, size=5, passes=3, tolerance=0.0, held_out=4, learner=LEARNERS[learner]
    )
    torch.testing.assert_close(found[0]["filters"], whole.filters, rtol=0, atol=1e-5)
