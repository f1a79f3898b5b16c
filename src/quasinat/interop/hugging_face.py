"""A classifier of Hugging Face, from safetensors alone, and how its image processor feeds it, found by asking that.

What a processor does to pixels is not read off its options, which each class has its own of and some of which it
ignores: it is given pictures of one colour. Where it makes of every channel (x - mean) / deviation, with the channels
in their order or turned round, that is what `OwnModel` does; whatever does anything else is refused.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.defended import LogitsOf
from quasinat.errors import InputError, QuasinatError, UsageError
from quasinat.files import parsed_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_SIDE = 2048  # pixels that a processor may scale to
ROOM, ENTRY = 2, 50  # numbers for a byte of the files, beyond which a network is not theirs; bytes of a tensor's entry
ASKED = 64  # side of the pictures that a processor is given
COLOUR = (51, 102, 204)
REMEDY = "name one of the hub, or the folder of save_pretrained, with safetensors"


def hugging_face(place: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network in float32, and what it wants of its images: see `OwnModel`.

    Args:
        place: a name of the hub, or a folder with config.json, preprocessor_config.json and model.safetensors (or
            several files and their index). Nothing else there is read: no pickle, and no code.

    Raises:
        UsageError: transformers is not installed.
        InputError: there is no such classifier, it is damaged or not whole, or its processor does what `OwnModel` does
            not.
    """
    try:
        import transformers
    except ImportError:
        raise UsageError("hf: needs transformers", "pip install 'quasinat[interop]'") from None
    with _quietly(transformers.logging):
        try:
            model = _network(transformers, place)
            said = _feeding(transformers, place, getattr(model.config, "num_channels", 3))
            said["labels"] = _labels(model.config.id2label)
        except QuasinatError:
            raise
        except Exception as error:  # whatever transformers makes of what is not whole
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"transformers finds no image classifier {place!r} ({reason})", REMEDY) from None
    return LogitsOf(model, lambda answer: answer.logits), said


@contextmanager
def _quietly(logging: Any) -> Iterator[None]:
    """Without transformers' own words and bars: what is wrong is said in one line."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _network(transformers: Any, place: str) -> Any:
    config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    files = _weights(transformers.utils.cached_file, place, config)
    with _at_most(ROOM * sum(file.stat().st_size for file in files), place):
        model, found = transformers.AutoModelForImageClassification.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,  # a checkpoint in half precision would stay in it
            attn_implementation="eager",  # not one that the configuration names, which may be code of the hub
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    lacking = sorted(map(str, found["missing_keys"]))
    if lacking:  # which transformers fills with random numbers
        remedy = "name a checkpoint that was trained to classify images"
        raise InputError(f"{place!r} holds no weights of {len(lacking)} parts, such as {lacking[0]}", remedy)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{place!r} holds {name} with numbers that are not finite", "save it again")
    return model


def _weights(cached_file: Callable[..., str | None], place: str, config: Any) -> list[Path]:
    """The files that the weights will be read from, every one of them safetensors.

    Raises:
        InputError: another kind of file is named.
    """
    if getattr(config, "transformers_weights", None) is not None:
        raise InputError(f"{place!r} names its weights in config.json", f"save them as {WEIGHTS}")
    names = [WEIGHTS]
    if not cached_file(place, WEIGHTS, _raise_exceptions_for_missing_entries=False):
        index = cached_file(place, INDEX, _raise_exceptions_for_missing_entries=False)
        if index is None:
            raise InputError(f"{place!r} holds no {WEIGHTS}", "save it with save_pretrained; no pickle is read")
        names = sorted(set(parsed_json(Path(index).read_bytes())["weight_map"].values()))
    strange = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if strange:
        raise InputError(f"{place!r} names weights in {strange[0]}", "save them as safetensors; no pickle is read")
    return [Path(str(cached_file(place, name))) for name in names]


@contextmanager
def _at_most(numbers: int, place: str) -> Iterator[None]:
    """Stops the making of a network of more parameters, which a damaged configuration can ask for without end."""
    left = numbers

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= ENTRY + (0 if parameter is None else parameter.numel())
        if left < 0:
            raise InputError(f"{place!r} describes a larger network than its weights are of", "save it again")

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _labels(given: Mapping[Any, Any]) -> dict[int, str]:
    """The names of the classes; none where they are the placeholders that transformers puts there."""
    labels = {int(number): str(label) for number, label in given.items()}
    return {} if all(label == f"LABEL_{number}" for number, label in labels.items()) else labels


def _feeding(transformers: Any, place: str, channels: int) -> dict[str, Any]:
    """Mean, deviation, order of the channels and size, from what the processor makes of pictures of one colour."""
    process = transformers.AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
    if any(side > MOST_SIDE for side in _sides(process)):
        raise _other(process, f"asks for more than {MOST_SIDE} pixels a side")
    black, size = _made_of(process, (0,) * channels)
    white, _ = _made_of(process, (255,) * channels)
    seen, _ = _made_of(process, COLOUR[:channels])
    colour = torch.tensor(COLOUR[:channels]).double() / 255
    for flipped in (False, True):
        expected = black + (white - black) * (colour.flip(0) if flipped else colour)
        if torch.allclose(seen, expected, rtol=1e-5, atol=1e-5) and bool((white > black).all()):
            deviation = 1 / (white - black)
            mean = 0 - black * deviation  # not the other zero
            return {
                "mean": mean.tolist(),
                "deviation": deviation.tolist(),
                "size": size,
                "flipped": flipped and channels > 1,
                "channels": channels,
            }
    raise _other(process, "does more to a channel than (x - mean) / deviation")


def _sides(process: Any) -> Iterator[float]:
    """The numbers of pixels that a processor names, over the share of them that it crops to."""
    share = getattr(process, "crop_pct", None) or 1
    for key in ("size", "crop_size", "pad_size"):
        given = getattr(process, key, None)
        parts = given if isinstance(given, Mapping) else getattr(given, "__dict__", {key: given})
        yield from (part / share for part in parts.values() if isinstance(part, int | float))


def _made_of(process: Any, colour: tuple[int, ...]) -> tuple[Tensor, tuple[int, int]]:
    """What a processor makes of the channels of a square picture of one colour, and of what height and width."""
    from PIL import Image

    picture = Image.new("RGB", (ASKED, ASKED), colour) if len(colour) == 3 else Image.new("L", (ASKED, ASKED), *colour)
    made = process(picture, return_tensors="pt").get("pixel_values")
    if not isinstance(made, Tensor) or made.ndim != 4 or made.shape[:2] != (1, len(colour)):
        raise _other(process, "makes no image of an image")
    values = made[0].double().flatten(1)
    if not math.isfinite(float(values.sum())) or float((values.amax(1) - values.amin(1)).max()) > 1e-5:
        raise _other(process, "does not leave one colour one colour, as where it pads an image")
    return values.mean(1), (made.shape[2], made.shape[3])


def _other(process: Any, what: str) -> InputError:
    remedy = "export the classifier with its processing as a .pt2, which is taken as it is"
    return InputError(f"the image processor {type(process).__name__} {what}", remedy)
