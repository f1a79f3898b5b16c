from dataclasses import asdict

import pytest

from quasinat.errors import UsageError
from quasinat.experiments import PRESETS, DemoSettings, demo_settings


def test_changes_that_are_none_are_left_out() -> None:
    assert demo_settings("small", filters=None, seed=3) == DemoSettings(seed=3)


def test_the_full_preset_has_the_papers_parameters() -> None:
    full = PRESETS["full"]
    assert (full.network, full.filters, full.filter_size, full.sparsity, full.strata) == ("vgg16", 64, 8, 0.2, 4)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"filters": 0}, "--filters 0"),
        ({"sparsity": float("nan")}, "--lambda nan"),
        ({"sparsity": float("inf")}, "--lambda inf"),
        ({"network": "vgg17"}, "did you mean 'vgg16'"),
        ({"split": "tikonov"}, "did you mean 'tikhonov'"),
        ({"data": "cifar"}, "did you mean 'cifar10'"),
        ({"filter": 3}, "did you mean 'filters'"),
        ({"seed": -1}, "--seed -1"),
        ({"data": "cifar10", "colour": True}, "--colour"),
        ({"data": "cifar10", "image_size": 64}, "--image-size"),
        ({"convert": "rgb"}, "--convert"),
    ],
)
def test_bad_settings_name_the_option_and_the_remedy(changes: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError) as error:
        demo_settings("small", **changes)
    assert part in str(error.value)


def test_an_unknown_preset_names_the_close_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'small'"):
        demo_settings("smal")


def test_every_setting_survives_json() -> None:
    stored = DemoSettings().as_json()
    assert DemoSettings(**(stored | {"trade_off": tuple(stored["trade_off"])})) == DemoSettings()
    assert stored.keys() == asdict(DemoSettings()).keys()
