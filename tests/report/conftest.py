import pytest
from torch import Tensor

from quasinat.report.result_file import Results

from .builder import build_pictures, build_results


@pytest.fixture
def results() -> Results:
    return build_results()


@pytest.fixture
def pictures() -> dict[str, Tensor]:
    return build_pictures()
