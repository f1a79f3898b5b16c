"""Every reader of outside bytes, for `fuzz.py`: what it is given, how it is called, and how its input is damaged.

`READERS` is a plain dict: another reader is one more line, `NAME: Reader(seeds, read, mutate)`. `seeds()` gives whole,
good inputs; `read(content, folder)` reads one as the package does, with a folder of its own to put it in.
"""

import importlib.util
import io
import json
import socket
import sys
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

import fuzz_mutations as mutations

ROOT = Path(__file__).resolve().parents[1]


class Reader(NamedTuple):
    """Of one kind of input: good ones, how one is read, how one is damaged, and its part of the cases."""

    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
    mutate: mutations.Mutation = mutations.mixed(mutations.damage)
    weight: float = 1.0


def helper(name: str) -> Any:
    """A module that the tests share, by its path below `tests`."""
    known = f"fuzzed_{name.replace('/', '_')}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, ROOT / "tests" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[known] = module
    return sys.modules[known]


def put(content: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# Images.


def pictures(kind: str) -> Callable[[], Sequence[bytes]]:
    """Small pictures of a format in several modes."""

    def seeds() -> Sequence[bytes]:
        from PIL import Image

        made = []
        modes = {"JPEG": ("RGB", "L", "CMYK"), "PPM": ("RGB", "L", "1"), "WEBP": ("RGB", "RGBA")}
        for mode in modes.get(kind, ("RGB", "L", "P", "1")) + (("RGBA", "LA", "I;16") if kind == "PNG" else ()):
            size = (24, 19)
            picture = Image.frombytes("L", size, Random(0).randbytes(size[0] * size[1]))
            if mode == "I;16":
                picture = Image.frombytes(mode, size, bytes(range(76)) * 12)
            options: dict[str, Any] = {"compression": "tiff_lzw"} if (kind, mode) == ("TIFF", "RGB") else {}
            if kind in ("GIF", "WEBP", "TIFF") and mode == "RGB":
                options |= {"save_all": True, "append_images": [picture.convert(mode)]}
            file = io.BytesIO()
            picture.convert(mode).save(file, kind, **options)
            made.append(file.getvalue())
        return made

    return seeds


def read_image(content: bytes, folder: Path) -> object:
    from quasinat.data.image_files import in_mode, pixels, read_picture
    from quasinat.data.image_tree import our_pngs, picture_size, read_png

    path = put(content, folder, "x.png")
    list(our_pngs(folder))
    picture_size(path)
    read_png(path, 3, (19, 24))
    in_mode(read_picture(path), path, "grey")
    return pixels(in_mode(read_picture(path, content), path, "rgb"))


# CIFAR-10.


def batches() -> Sequence[bytes]:
    official = helper("data/official_batch")
    pixels = bytes(range(256)) * 12 * 4
    return [
        official.batch(official.array(pixels, (4, 3072)), official.integers([0, 3, 9, 4])),
        official.batch(official.array(pixels, (4, 3072)), official.integers([1, 1, 1, 1])).replace(b"u1", b"i1"),
    ]


def read_cifar10(content: bytes, folder: Path) -> object:
    cifar10 = importlib.import_module("quasinat.data.cifar10")  # the package has a function of that name
    with patch.object(cifar10, "_PER_BATCH", 4):  # a batch of four images instead of 10,000
        return cifar10.read_batch(put(content, folder, "data_batch_1"))


# Artefacts.


def saved(save: Callable[[Path], object]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed"
        save(path)
        return path.read_bytes()


def layers() -> Sequence[bytes]:
    from quasinat.sparse_coding import ADMM, CoordinateDescent

    small = helper("layers")
    made = [
        small.universal(1),
        small.stratified(1),
        small.universal(3, refine=1, solver=ADMM()),
        small.universal(3, solver=CoordinateDescent(), normalise="max", split="none"),
    ]
    return [saved(layer.save) for layer in made]


def read_layer(content: bytes, folder: Path) -> object:
    """Read, and used on one image."""
    from quasinat.layer import SparseTransformationLayer

    layer = SparseTransformationLayer.load(put(content, folder, "x.stl"))
    if layer.filters.numel() > 10**6:
        return layer
    return layer(torch.linspace(0, 1, layer.filters.shape[2] * 400).view(1, -1, 20, 20))


def strata() -> Sequence[bytes]:
    return [saved(lambda path: helper("layers").strata_of(1).save(path, {}))]


def read_strata(content: bytes, folder: Path) -> object:
    from quasinat.strata import Strata

    found = Strata.load(put(content, folder, "x.safetensors"))
    return found(torch.rand(1, found.autoencoder.channels, 16, 16)) if found.autoencoder.channels < 16 else found


def dictionaries() -> Sequence[bytes]:
    from quasinat.strata.dictionaries_file import save_dictionaries

    made = [helper("layers").dictionary_of(1, seed) for seed in range(2)]
    return [saved(lambda path: save_dictionaries(made, path, {"provenance": {}}))]


def read_dictionaries(content: bytes, folder: Path) -> object:
    from quasinat.strata.dictionaries_file import load_dictionaries

    return load_dictionaries(put(content, folder, "x.safetensors"))


def learned() -> Sequence[bytes]:
    """One of everything else that a defence learns."""
    from quasinat.defences.magnet_autoencoder import MagnetAutoencoder, save_magnet
    from quasinat.defences.natural_patches import PatchDictionary, save_patch_dictionary
    from quasinat.defences.patch_bank import PatchBank, save_patch_bank
    from quasinat.defences.pixelcnn_learning import save_pixelcnn
    from quasinat.networks import save_classifier, vgg
    from quasinat.networks.pixelcnn import PixelCNN
    from quasinat.strata.autoencoder import save_autoencoder

    atoms = torch.nn.functional.normalize(torch.randn(6, 3 * 16), dim=1).view(6, 3, 4, 4)
    return [
        saved(lambda path: save_magnet(MagnetAutoencoder(1, "cifar"), path, {})),
        saved(lambda path: save_patch_dictionary(PatchDictionary(atoms, centred=True), path, {})),
        saved(lambda path: save_patch_bank(PatchBank(torch.rand(9, 12), channels=3), path, {})),
        saved(lambda path: save_pixelcnn(PixelCNN(1, width=4, blocks=1, mixtures=2), path, {})),
        saved(lambda path: save_classifier(path, vgg("vgg-small", classes=3, channels=1), {})),
        saved(lambda path: save_autoencoder(helper("layers").strata_of(1).autoencoder, path, {})),
    ]


def read_learned(content: bytes, folder: Path) -> object:
    """By its kind, where the card says one."""
    from quasinat.artefact import read_card
    from quasinat.defences.magnet_autoencoder import load_magnet
    from quasinat.defences.natural_patches import load_patch_dictionary
    from quasinat.defences.patch_bank import load_patch_bank
    from quasinat.defences.pixelcnn_learning import load_pixelcnn
    from quasinat.networks import load_classifier
    from quasinat.strata.autoencoder import load_autoencoder

    loaders = {
        "magnet": load_magnet,
        "patch dictionary": load_patch_dictionary,
        "patch bank": load_patch_bank,
        "pixelcnn": load_pixelcnn,
        "autoencoder": load_autoencoder,
    }
    path = put(content, folder, "x.safetensors")
    kind = read_card(path).get("kind")
    return loaders.get(kind if isinstance(kind, str) else "", load_classifier)(path)


def read_shown_card(content: bytes, folder: Path) -> object:
    """As `quasinat info FILE` does."""
    from quasinat.artefact import read_card
    from quasinat.cli.info import _flat

    return _flat(read_card(put(content, folder, "x.safetensors")), "")


@cache
def mobilenet_seed() -> bytes:
    from quasinat.files import write_tensors
    from quasinat.networks.mobilenet import MobileNetV2

    return saved(lambda path: write_tensors(path, {n: v.half() for n, v in MobileNetV2(2).state_dict().items()}))


def read_mobilenet(content: bytes, folder: Path) -> object:
    from quasinat.networks.mobilenet import load_mobilenet

    return load_mobilenet(put(content, folder, "x.safetensors"))


def folders() -> Sequence[bytes]:
    """Two small classifiers of Hugging Face, each file of a folder after the other."""
    import tempfile

    import transformers

    others = helper("interop/others")
    size = {"height": others.SIDE, "width": others.SIDE}
    processors = {
        "resnet": transformers.EfficientNetImageProcessorPil(size=size),
        "vit": transformers.MobileViTImageProcessorPil(size={"shortest_edge": 36}, crop_size=size),
    }
    made = []
    transformers.logging.disable_progress_bar()
    for family, processor in processors.items():
        with tempfile.TemporaryDirectory() as folder:
            place = others.save(Path(folder), others.tiny(family), processor)
            made.append(mutations.SEAM.join((place / name).read_bytes() for name in others.NAMES))
    return made


def read_hugging_face(content: bytes, folder: Path) -> object:
    """As `defend` takes `hf:FOLDER`, which ends with an image's logits."""
    from quasinat.interop.own_model import own_model

    for left in folder.iterdir():
        left.unlink()
    for name, part in zip(helper("interop/others").NAMES, content.split(mutations.SEAM), strict=False):
        put(part, folder, name)
    return own_model(f"hf:{folder}")


def training() -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
    module = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(module.parameters())
    return module, optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=9)


def checkpoints() -> Sequence[bytes]:
    from quasinat.training.checkpoint import Checkpoint, write_checkpoint

    module, optimiser, schedule = training()
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    schedule.step()
    return [saved(lambda path: write_checkpoint(Checkpoint(path), {"epochs": 3}, module, optimiser, schedule, [0.5]))]


def read_checkpoint(content: bytes, folder: Path) -> object:
    from quasinat.training.checkpoint import Checkpoint, resume

    return resume(Checkpoint(put(content, folder, "x.safetensors")), {"epochs": 3}, *training())


def states() -> Sequence[bytes]:
    from quasinat.sparse_coding.dictionary_problem import LearningState
    from quasinat.strata.learning_file import save_state

    codes = (torch.arange(24.0).view(2, 3, 2, 2) % 5 == 0).float().to_sparse()
    memory = {"gram": torch.eye(3), "codes": codes}
    state = LearningState(torch.randn(3, 1, 3, 3), 2, (1.0, 0.5), (1.0, 0.7, 0.6), 0, memory)
    return [saved(lambda path: save_state(state, path, {"seed": 0}))]


def read_state(content: bytes, folder: Path) -> object:
    """Read, with the sparse parts unfolded, as a learner does."""
    from quasinat.strata.learning_file import load_state

    state = load_state(put(content, folder, "x.safetensors"), {"seed": 0})
    assert state is not None
    return [tensor.to_dense() for tensor in state.memory.values() if tensor.numel() < 10**6]


def shards() -> Sequence[bytes]:
    from quasinat.data.shards import Shard, write_shard

    images = torch.rand(3, 1, 6, 5)
    shard = Shard(images, ("a/1", "a/2", "b/1"), torch.tensor([0, 0, 1]), torch.ones(3))
    bare = Shard(images, ("1", "2", "3"))
    return [saved(lambda path: write_shard(path, shard)), saved(lambda path: write_shard(path, bare))]


def read_shards(content: bytes, folder: Path) -> object:
    from quasinat.data.image_tree import png_names
    from quasinat.data.shards import open_source

    put(content, folder, "shard-00000.safetensors")
    source = open_source(folder)
    png_names(source.names)
    return [source.read(index, 3) for index in range(min(4, len(source.names)))]


def steps() -> Sequence[bytes]:
    from quasinat.files import write_tensors

    values = {"values": json.dumps({"a": 1, "seconds": 0.5})}
    return [saved(lambda path: write_tensors(path, {"right": torch.ones(4)}, values))]


def read_step(content: bytes, folder: Path) -> object:
    from quasinat.experiments.workspace import Workspace

    (folder / "run" / "steps").mkdir(parents=True, exist_ok=True)
    put(content, folder / "run" / "steps", "one.safetensors")
    put(b"{}", folder / "run", "run.json")
    return Workspace(folder / "run", {}).step("one", lambda: ({}, {}))


# Text.


def read_result(content: bytes, folder: Path) -> object:
    from quasinat.files import read_json
    from quasinat.report.result_file import attack_columns, check, layers, rows_by_key

    results = check(read_json(put(content, folder, "results.json")))
    return rows_by_key(results), layers(results), attack_columns(results)


def read_table(content: bytes, folder: Path) -> object:
    """As `quasinat report FOLDER` does."""
    from quasinat.report.results_page import write_results

    put(content, folder, "table.json")
    return write_results(folder, folder / "page")


def read_manifest(content: bytes, folder: Path) -> object:
    """As `project` does before it goes on with a folder."""
    from quasinat.experiments.projection import _take

    put(content, folder, "manifest.json")
    return _take(folder, {"format": "png"}, overwrite=False)


def read_record(content: bytes, folder: Path) -> object:
    """The record that a shard's worker left."""
    from quasinat.data.places import Place
    from quasinat.experiments.shard_tasks import Job, Task, finished

    (folder / ".quasinat").mkdir(exist_ok=True)
    put(content, folder / ".quasinat", "shard-00000.json")
    place = Place(str(folder))
    return finished(Job(place, place, "webdataset", lambda: None, {}), Task("shard-00000", ("a",)))  # type: ignore[arg-type, return-value]


def read_specification(content: bytes, folder: Path) -> object:
    """A table's TOML in place of the package's own."""
    from quasinat.experiments import table_spec

    for name in ("tables", "figures"):
        (folder / name).mkdir(exist_ok=True)
    put((ROOT / "src/quasinat/experiments/tables/rows.toml").read_bytes(), folder / "tables", "rows.toml")
    put(content, folder / "tables", "table1.toml")
    with patch.object(table_spec, "_resources", lambda: folder):
        return table_spec.table_named.__wrapped__("table1").all_columns


def read_labels(content: bytes, folder: Path) -> object:
    from quasinat.data.imagenet import _class_numbers

    put(content, folder, "labels.csv")
    return _class_numbers(folder)


def read_option(content: bytes, folder: Path) -> object:
    """The first line names an option of the command line, the rest is its text."""
    from quasinat.attacks.budget_text import budget_from_text, budget_text
    from quasinat.cli.evaluate import share
    from quasinat.cli.project import worker_range
    from quasinat.defences.registry import defence_from
    from quasinat.experiments.table_places import places
    from quasinat.experiments.table_spec import table_named

    kind, _, text = content.decode("utf-8", "surrogateescape").partition("\n")
    parsers: dict[str, Callable[[str], object]] = {
        "budget": lambda given: budget_text(budget_from_text(given)),
        "defence": defence_from,
        "only": lambda given: places([table_named("table1")], given),
        "share": share,
        "workers": worker_range,
    }
    return parsers.get(kind, budget_from_text)(text)


OPTIONS = (
    *(b"budget\nlinf:8/255", b"budget\ndissimilarity:0.03:gradient", b"budget\nl2:0.5", b"share\n2/8", b"workers\n2,8"),
    *(b"defence\ntvm:weight=0.05,drop=0.3", b"defence\njpeg:quality=75", b"defence\nbit-depth", b"only\nstl-*/fgsm-*"),
    *(b"only\n[a-s]*/bim-0.0?", b"defence\nresize-pad:keep_size=yes,seed=none", b"defence\nmedian:size=3"),
)


# Archives, tables and the network.


def tars() -> Sequence[bytes]:
    from quasinat.data.sample import Sample
    from quasinat.data.tars import write_tar

    image = pictures("PNG")()[0]
    plain = write_tar([Sample(f"a/{n:04}", image, {"cls": b"3", "json": b'{"a": 1}'}) for n in range(3)])
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (("x" * 150 + ".png", tarfile.REGTYPE), ("l.png", tarfile.SYMTYPE), ("d", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png" if kind == tarfile.SYMTYPE else ""
            member.size = len(image) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(image))
    return [plain, file.getvalue()]


def read_samples(content: bytes, folder: Path) -> object:
    from quasinat.data.tars import read_tar, write_tar

    return write_tar(read_tar(content, "x.tar"))


def tables() -> Sequence[bytes]:
    from quasinat.data.parquet import write_parquet
    from quasinat.data.sample import Sample

    image = pictures("PNG")()[0]
    return [write_parquet([Sample(f"{n}", image, {"label": n}) for n in range(3)])]


def read_rows(content: bytes, folder: Path) -> object:
    from quasinat.data.parquet import read_parquet
    from quasinat.data.tars import write_tar

    return write_tar(read_parquet(content, "x.parquet"))


FILES = {"data_batch_1": "5d41402abc4b2a76b9719d911017c592", "test_batch": "7d793037a0760186574b0282f2f435e7"}


def archives() -> Sequence[bytes]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        for name, content in (("data_batch_1", b"hello"), ("test_batch", b"world")):
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return [file.getvalue()]


def read_archive(content: bytes, folder: Path) -> object:
    from quasinat.data.fetch import unpack

    unpack(put(content, folder, "x.tar.gz"), folder / "out", FILES)
    written = {path.name for path in folder.rglob("*") if path.is_file()} - {"x.tar.gz"}
    assert written <= set(FILES), f"{written} were written"
    return written


ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/5\r\nContent-Length: 3\r\n\r\nllo",
    b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
)


def read_answer(content: bytes, folder: Path) -> object:
    """A server that answers every request with these bytes, and hangs up."""
    download = importlib.import_module("quasinat.data.download")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    try:
                        caller.recv(65536)
                        caller.sendall(content)
                    except OSError:
                        pass

        thread = Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a"
        digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        for left in folder.iterdir():
            left.unlink()
        try:
            with patch.object(download, "TIMEOUT", 5):
                return download.download(url, folder / "a", digest)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def files_of(*names: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(ROOT / name).read_bytes() for name in names]


SPECIFICATIONS = files_of(*(f"src/quasinat/experiments/tables/table{name}.toml" for name in ("1", "3", "5")))
RESULTS = files_of("results/demo/results.json")
TABLES = files_of("results/tables/table1-smoke.json", "results/tables/table4-smoke.json")
JSON = mutations.mixed(mutations.json_text, 0.8)
TENSORS = mutations.mixed(mutations.safetensors, 0.8)
FOLDER = mutations.mixed(mutations.one_of(mutations.json_text, mutations.json_text, mutations.safetensors), 0.8)


def bodies() -> Sequence[bytes]:
    """Small pictures of the formats that the service takes."""
    return [content for kind in ("PNG", "JPEG", "WEBP", "BMP") for content in pictures(kind)()]


def read_body(content: bytes, folder: Path) -> object:
    """As the service reads the body of a request."""
    from quasinat.serving.pictures import decode

    return decode(content, 3, max_pixels=2**20, least_side=8)


def read_demo_body(content: bytes, folder: Path) -> object:
    """As its demo page does."""
    from quasinat.serving.demo_picture import read_image as read

    return read(content, 3, 32, 25_000_000)


READERS: dict[str, Reader] = {
    "png": Reader(pictures("PNG"), read_image, mutations.mixed(mutations.png), 1.5),
    "jpeg": Reader(pictures("JPEG"), read_image),
    "gif": Reader(pictures("GIF"), read_image),
    "bmp": Reader(pictures("BMP"), read_image),
    "ppm": Reader(pictures("PPM"), read_image),
    "tiff": Reader(pictures("TIFF"), read_image, weight=1.5),
    "webp": Reader(pictures("WEBP"), read_image),
    "http body": Reader(bodies, read_body, mutations.mixed(mutations.png), 2),
    "demo body": Reader(bodies, read_demo_body, mutations.mixed(mutations.png)),
    "cifar-10 batch": Reader(batches, read_cifar10, mutations.mixed(mutations.pickled), 2),
    "layer": Reader(layers, read_layer, TENSORS, 2),
    "strata": Reader(strata, read_strata, TENSORS),
    "dictionaries": Reader(dictionaries, read_dictionaries, TENSORS),
    "learned by defences": Reader(learned, read_learned, TENSORS, 1.5),
    "card": Reader(dictionaries, read_shown_card, TENSORS),
    "mobilenet weights": Reader(lambda: [mobilenet_seed()], read_mobilenet, TENSORS, 0.1),
    "hugging face folder": Reader(folders, read_hugging_face, FOLDER, 0.5),
    "checkpoint": Reader(checkpoints, read_checkpoint, TENSORS),
    "learning state": Reader(states, read_state, TENSORS),
    "shard": Reader(shards, read_shards, TENSORS, 1.5),
    "step": Reader(steps, read_step, TENSORS),
    "result file": Reader(RESULTS, read_result, JSON),
    "table result": Reader(TABLES, read_table, JSON, 0.5),
    "manifest": Reader(lambda: [b'{"made_by": "quasinat project", "format": "png"}'], read_manifest, JSON),
    "shard record": Reader(lambda: [b'{"shard": "shard-00000.tar", "sha256": "", "job": ""}'], read_record, JSON),
    "table specification": Reader(SPECIFICATIONS, read_specification),
    "labels": Reader(lambda: [b"wnid,class_index,name\nn01,0,tench\nn02,1,shark\n"], read_labels),
    "options": Reader(lambda: OPTIONS, read_option, weight=2),
    "webdataset tar": Reader(tars, read_samples, mutations.mixed(mutations.tar), 2),
    "parquet table": Reader(tables, read_rows),
    "archive": Reader(archives, read_archive, mutations.mixed(mutations.gzipped_tar)),
    "http answer": Reader(lambda: ANSWERS, read_answer, weight=0.5),
}
"""Every reader of outside bytes by name; `fuzz.py` divides its cases among them by their weights."""
