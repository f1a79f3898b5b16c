"""The attacks against Foolbox, torchattacks and ART, and the gradient through the layer: prints goals, writes numbers.

    python benchmarks/attacks.py --root DIR --layer FILE --out results/performance/attacks.json

`--root` holds `cifar-10-batches-py`; without it the built-in photographs serve. `--layer` is a learned layer; without
it a small universal one is learned in the run. `--classifier` is a trained classifier; without it one is trained in the
run. The network's parameters are frozen, so that no package computes gradients that nobody asked for. What is compared
runs in turns in one process, on the same images that the network gets right; a ratio is the median over the rounds.

Everyone hands back perturbed images and where the network errs on them: ours and Foolbox look for themselves, to
torchattacks and ART one forward pass is added ("bare" is without it). `torchattacks` is left out where it is not
installed; its pins are old, `pip install --no-deps torchattacks` serves. Norms are over the images both succeed on.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attack_goals import goals
from images import coded_band
from quasinat.attacks import Linf, carlini_wagner, deepfool, fgsm, pgd
from quasinat.data import cifar10, photographs
from quasinat.defended import Defended
from quasinat.evaluation.record import provenance
from quasinat.files import write_json
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import vgg
from quasinat.networks.classifier_file import load_classifier
from quasinat.sparse_coding import Adjoint, Implicit, SparseCodingProblem, Unrolled, learn_dictionary, solve
from quasinat.sparse_coding.adjoint import tightened
from quasinat.strata import split_bands
from quasinat.training import train_classifier
from sparse_coding import resident, seconds

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PACKAGES = ("foolbox", "torchattacks", "adversarial-robustness-toolbox", "numpy")
RADIUS, STEP, STEPS = 8 / 255, 2 / 255, 40  # of FGSM and PGD, the usual ones of CIFAR-10
OVERSHOOT, DEEPFOOL_STEPS = 0.02, 50
CW_STEPS, SEARCH_STEPS, CONSTANT, RATE = 50, 5, 1.0, 0.01
TOLERANCES = (1e-2, 1e-4, 1e-6)
Run = Callable[[], Any]


@dataclass
class Case:
    """What is attacked."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    source: str

    def errs(self, images: Tensor) -> Tensor:
        """Where the network errs on them."""
        with torch.no_grad():
            return self.network(images).argmax(1) != self.labels

    def first(self, count: int) -> "Case":
        """The first images."""
        return replace(self, images=self.images[:count].contiguous(), labels=self.labels[:count].contiguous())


def case_of(root: Path | None, classifier: Path | None, count: int) -> Case:
    """A classifier and test images that it gets right."""
    if root is not None and (root / "cifar-10-batches-py").is_dir():
        source, (train, labels), (test, truth) = "CIFAR-10 test", cifar10(root, "train"), cifar10(root, "test")
        train, labels = train[:5000], labels[:5000]
    else:
        data = photographs(32, colour=True, train_per_class=200, test_per_class=50)
        source, train, labels, test, truth = (
            "built-in photographs",
            data.train_images,
            data.train_labels,
            data.test_images,
            data.test_labels,
        )
    if classifier is not None:
        network: nn.Module = load_classifier(classifier)
    else:
        print(f"training a classifier on {len(train)} images", file=sys.stderr)
        network = train_classifier(vgg("vgg-small", classes=10), train, labels, epochs=6)
    network.requires_grad_(False)
    few, fewer = test[:2000], truth[:2000]
    with torch.no_grad():
        right = network(few).argmax(1) == fewer
    return Case(network, few[right], fewer[right], source).first(count)


def layer_of(path: Path | None, root: Path | None) -> SparseTransformationLayer:
    """The layer of a file, or a small universal one learned from training images."""
    if path is not None:
        return SparseTransformationLayer.load(path)
    cifar = root is not None and (root / "cifar-10-batches-py").is_dir()
    train = cifar10(root, "train")[0] if cifar and root else photographs(32, colour=True).train_images
    dictionary = learn_dictionary(coded_band(train[:500]), filters=64, size=8, sparsity=0.2, passes=6, seed=0)
    return SparseTransformationLayer(None, [dictionary], 0.2).eval()


def in_turns(runs: dict[str, Run], rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Seconds of one call of each, by round; in a round each runs `repeats` times. One call each goes before."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(lambda run=run: [run() for _ in range(repeats)]) / repeats)
    return times


def times_faster(times: dict[str, list[float]], ours: str, theirs: str) -> float:
    """The median over the rounds of their time over ours."""
    return statistics.median(b / a for a, b in zip(times[ours], times[theirs], strict=True))


def judged(case: Case, attack: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    """The attack and where it succeeds, as ours and Foolbox's give them."""

    def run() -> tuple[Tensor, Tensor]:
        images = attack()
        return images, case.errs(images)

    return run


def fast_attacks(case: Case, rounds: int) -> dict[str, Any]:
    """FGSM and PGD in the Linf ball, against everybody."""
    import art.attacks.evasion as art
    import foolbox

    images, labels, count = case.images, case.labels, len(case.images)
    model, classifier = foolbox.PyTorchModel(case.network, bounds=(0, 1), device="cpu"), art_classifier(case)
    ball, arrays = Linf(RADIUS), (images.numpy(), labels.numpy())
    fast = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    descent = foolbox.attacks.LinfProjectedGradientDescentAttack(steps=STEPS, abs_stepsize=STEP, random_start=True)
    art_fast = art.FastGradientMethod(classifier, eps=RADIUS, batch_size=count)
    art_descent = art.ProjectedGradientDescent(
        classifier, eps=RADIUS, eps_step=STEP, max_iter=STEPS, num_random_init=1, batch_size=count, verbose=False
    )
    bare: dict[str, dict[str, Callable[[], Tensor]]] = {
        "fgsm": {"art": lambda: torch.from_numpy(art_fast.generate(*arrays))},
        "pgd": {"art": lambda: torch.from_numpy(art_descent.generate(*arrays))},
    }
    runs: dict[str, dict[str, Run]] = {
        "fgsm": {
            "ours": lambda: fgsm(case.network, images, labels, budget=ball),
            "foolbox": lambda: fast(model, images, labels, epsilons=RADIUS),
        },
        "pgd": {
            "ours": lambda: pgd(case.network, images, labels, budget=ball, steps=STEPS, step_size=STEP),
            "foolbox": lambda: descent(model, images, labels, epsilons=RADIUS),
        },
    }
    if find_spec("torchattacks"):
        import torchattacks

        their_fast = torchattacks.FGSM(case.network, eps=RADIUS)
        their_descent = torchattacks.PGD(case.network, eps=RADIUS, alpha=STEP, steps=STEPS)
        bare["fgsm"]["torchattacks"] = lambda: their_fast(images, labels)
        bare["pgd"]["torchattacks"] = lambda: their_descent(images, labels)
    results: dict[str, Any] = {}
    for name, own in runs.items():
        for peer, attack in bare[name].items():
            own |= {peer: judged(case, attack), f"{peer}, bare": attack}
        times = in_turns(own, rounds, repeats=20 if name == "fgsm" else 1)
        peers = [peer for peer in own if peer != "ours"]
        results[name] = {
            "images": count,
            "seconds": {key: statistics.median(values) for key, values in times.items()},
            "times faster": {peer: times_faster(times, "ours", peer) for peer in peers},
            "success": {peer: int(success_of(own[peer]()).sum()) for peer in own if "bare" not in peer},
        }
        print(name, "done", file=sys.stderr, flush=True)
    return results


def success_of(answer: Any) -> Tensor:
    """The success flags of ours, of Foolbox's, or of a `judged` attack."""
    return answer[-1] if isinstance(answer, tuple) else answer.success


def art_classifier(case: Case) -> Any:
    """The network as ART wants it."""
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(case.images.shape[1:])
    return PyTorchClassifier(case.network, nn.CrossEntropyLoss(), shape, 10, clip_values=(0.0, 1.0), device_type="cpu")


def minimal_attacks(case: Case, rounds: int) -> dict[str, Any]:
    """DeepFool and Carlini-Wagner in L2, against ART and Foolbox, with the same numbers of steps."""
    import art.attacks.evasion as art
    import foolbox

    images, labels, count = case.images, case.labels, len(case.images)
    model, classifier = foolbox.PyTorchModel(case.network, bounds=(0, 1), device="cpu"), art_classifier(case)
    art_deepfool = art.DeepFool(
        classifier, max_iter=DEEPFOOL_STEPS, epsilon=OVERSHOOT, nb_grads=10, batch_size=count, verbose=False
    )
    fb_deepfool = foolbox.attacks.L2DeepFoolAttack(steps=DEEPFOOL_STEPS, overshoot=OVERSHOOT)
    art_cw = art.CarliniL2Method(
        classifier,
        max_iter=CW_STEPS,
        binary_search_steps=SEARCH_STEPS,
        initial_const=CONSTANT,
        learning_rate=RATE,
        batch_size=count,
        verbose=False,
    )
    fb_cw = foolbox.attacks.L2CarliniWagnerAttack(
        steps=CW_STEPS, binary_search_steps=SEARCH_STEPS, initial_const=CONSTANT, stepsize=RATE, abort_early=False
    )
    own_cw: dict[str, Any] = {
        "steps": CW_STEPS,
        "search_steps": SEARCH_STEPS,
        "initial_constant": CONSTANT,
        "learning_rate": RATE,
    }
    runs: dict[str, dict[str, Callable[[], Tensor]]] = {
        "deepfool": {
            "ours": lambda: deepfool(case.network, images, labels, steps=DEEPFOOL_STEPS, overshoot=OVERSHOOT).images,
            "foolbox": lambda: fb_deepfool(model, images, labels, epsilons=None)[1],
            "art": lambda: torch.from_numpy(art_deepfool.generate(images.numpy())),
        },
        "carlini-wagner": {
            "ours": lambda: carlini_wagner(case.network, images, labels, **own_cw).images,
            "foolbox": lambda: fb_cw(model, images, labels, epsilons=None)[1],
            "art": lambda: torch.from_numpy(art_cw.generate(images.numpy(), labels.numpy())),
        },
    }
    results: dict[str, Any] = {}
    for name, attacks in runs.items():
        answers: dict[str, Tensor] = {}

        def keep(key: str, attack: Callable[[], Tensor], answers: dict[str, Tensor] = answers) -> None:
            answers[key] = attack()

        times = in_turns({k: lambda k=k, f=f: keep(k, f) for k, f in attacks.items()}, rounds)  # type: ignore[misc]
        norms = {key: (each - images).flatten(1).norm(dim=1) for key, each in answers.items()}
        # A black image is Foolbox's word for a failure, the clean one is ART's.
        success = {
            key: case.errs(each) & (norms[key] > 0) & (each != 0).flatten(1).any(1) for key, each in answers.items()
        }
        row: dict[str, Any] = {
            "images": count,
            "seconds": {key: statistics.median(values) for key, values in times.items()},
            "success": {key: int(values.sum()) for key, values in success.items()},
        }
        for peer in ("foolbox", "art"):
            both = success["ours"] & success[peer]
            own, other = norms["ours"][both], norms[peer][both]
            row[f"against {peer}"] = {
                "times faster": times_faster(times, "ours", peer),
                "mean norm, ours": float(own.mean()),
                "mean norm, theirs": float(other.mean()),
                "images on which ours is longer by more than 2 %": int((own > 1.02 * other).sum()),
                "of": int(both.sum()),
            }
        results[name] = row
        print(name, "done", file=sys.stderr, flush=True)
    return results


def gradient(case: Case, layer: SparseTransformationLayer, rounds: int) -> dict[str, Any]:
    """A gradient of the defended network less its forward pass, over the forward pass at the same tolerance."""
    fallen: list[int] = []
    adjoint = Implicit(on_fallback=lambda count, _: fallen.append(count))
    white = Defended(layer, case.network).with_adjoint(adjoint)
    coded = split_bands(case.images, layer.split)[1]
    problem = SparseCodingProblem(coded[:1].contiguous(), layer.filters[0], layer.sparsity)
    converged = layer.with_adjoint(adjoint)  # a copy
    converged.solver = tightened(problem, layer.solver, adjoint.forward_tolerance)
    parts: dict[str, list[float]] = {"backward": []}

    def forward() -> None:
        with torch.no_grad():
            case.network(converged.project(case.images))

    def both() -> None:
        leaf = case.images.clone().requires_grad_(True)
        loss = F.cross_entropy(white(leaf), case.labels)
        parts["backward"].append(seconds(lambda: torch.autograd.grad(loss, leaf)))

    times = in_turns({"forward": forward, "forward and backward": both}, rounds)
    pairs = list(zip(times["forward"], times["forward and backward"], strict=True))
    return {
        "images": len(case.images),
        "layer": f"{len(layer.filters)} dictionaries of {tuple(layer.filters.shape[1:])}, lambda {layer.sparsity:g}",
        "solver": str(converged.solver),
        "tolerance": adjoint.forward_tolerance,
        "fell back to unrolling": max(fallen, default=0),
        "seconds": {name: statistics.median(values) for name, values in (times | parts).items()},
        "gradient less forward, over forward": statistics.median((both - one) / one for one, both in pairs),
    }


def memory_of(arguments: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: the iterations of a forward pass, and the peak bytes of a gradient beyond what was."""
    layer, images = layer_of(arguments.layer, arguments.root), torch.load(arguments.images, weights_only=True)
    kind, _, value = arguments.memory_of.partition("-")
    # Every image is trusted here: it is the implicit derivative that is measured, not its fallback.
    implicit = Implicit(forward_tolerance=float(value), kkt=float("inf"))
    adjoint: Adjoint = Unrolled(int(value)) if kind == "unrolled" else implicit
    white = layer.with_adjoint(adjoint)
    steps = float(kind == "unrolled" and int(value))
    if isinstance(adjoint, Implicit):
        coded = split_bands(images, layer.split)[1].contiguous()
        problem = SparseCodingProblem(coded, layer.filters[0], layer.sparsity)
        solved = solve(problem, tightened(problem, layer.solver, adjoint.forward_tolerance), codes="sparse")
        steps = float(solved.steps.double().mean())

    def one(count: int) -> tuple[int, int]:
        leaf = images[:count].clone().requires_grad_(True)
        before = resident(reset=True)
        output = white(leaf)
        between = resident(reset=True)
        (found,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
        assert bool(found.isfinite().all())
        return between - before, resident() - before

    one(2)  # libraries are loaded
    forward, whole = one(len(images))
    return {"iterations": steps, "forward": forward / 1e6, "forward and backward": max(forward, whole) / 1e6}


def memory(case: Case, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """`memory_of` for forward passes of more and more iterations, and for unrolling beside them."""
    answers, path = {}, arguments.out.with_suffix(".images.pt")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(case.images, path)
    try:
        for key in [f"implicit-{value:g}" for value in TOLERANCES] + ["unrolled-25", "unrolled-100"]:
            command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", key, "--images", str(path)]
            answers[key] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            print("memory", key, answers[key], file=sys.stderr, flush=True)
    finally:
        path.unlink()
    return answers


def machine() -> dict[str, Any]:
    """What ran."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    processor = names[0] if names else platform.processor()
    return {
        **provenance(),
        **versions,
        "processor": processor,
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with cifar-10-batches-py")
    parser.add_argument("--layer", type=Path, help="a learned layer")
    parser.add_argument("--classifier", type=Path, help="a trained classifier of ten classes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", default=64, help="how many, of FGSM, PGD, DeepFool and the gradient; half for CW")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("attacks.json"), help="JSON file to write")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    wanted = dict.fromkeys(VARIABLES, str(arguments.threads))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(json.dumps(memory_of(arguments)))
        return
    case = case_of(arguments.root, arguments.classifier, int(arguments.images))
    layer = layer_of(arguments.layer, arguments.root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers', about newer versions of what they use
        fast = fast_attacks(case, arguments.rounds)
        minimal = minimal_attacks(case.first(int(arguments.images) // 2), arguments.rounds)
    results = {
        "machine": machine(),
        "source": case.source,
        "fast": fast,
        "minimal": minimal,
        "gradient": gradient(case, layer, arguments.rounds),
        "memory": memory(case, arguments),
    }
    write_json(arguments.out, json.loads(json.dumps(results)))
    print(goals(results))


if __name__ == "__main__":
    main()
