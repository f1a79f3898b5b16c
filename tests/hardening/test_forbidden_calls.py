"""No file of the project runs code out of data: the rule of the package, for benchmarks, examples and tests as well."""

import ast
from pathlib import Path

import pytest

from forbidden import forbidden

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "benchmarks", "examples", "tests", "tools")
PAGES = "tests/pages.py"  # runs the examples of README and docs


def files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))] + [ROOT / "setup.py"]


def test_no_file_runs_code_out_of_data() -> None:
    found = {}
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        calls = list(forbidden(ast.parse(path.read_text(encoding="utf-8")), own_pickles=name.startswith("tests/")))
        if name == PAGES:
            calls = [call for call in calls if not call.startswith("exec in line")]
        if calls:
            found[name] = calls
    assert found == {}
    assert len(files()) > 500


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as json",
        "eval('1')",
        "import builtins as b\nb.exec('1')",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
    ],
)
def test_the_rule_finds_what_it_is_for(code: str) -> None:
    assert list(forbidden(ast.parse(code))) != []


def test_the_rule_lets_the_harmless_through() -> None:
    for call in ("np.load(p)", "np.load(p, allow_pickle=False)", "network.eval()", "torch.load(p, weights_only=True)"):
        assert list(forbidden(ast.parse(f"import numpy as np, torch\n{call}"))) == []
    own = "import pickle\npickle.loads(pickle.dumps(layer))"
    assert list(forbidden(ast.parse(own), own_pickles=True)) == []
    assert list(forbidden(ast.parse("import pickle\npickle.loads(data)"), own_pickles=True)) != []
