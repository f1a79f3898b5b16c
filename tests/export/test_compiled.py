"""`torch.compile` takes the module whole. In a process of its own: the tests' type checks would break its graphs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = """
import torch
torch.set_num_threads(1)
from layers import images_of, stratified
from quasinat.defended import Defended
from quasinat.export import fixed
from quasinat.networks import vgg

module = fixed(stratified(), 12, image_size=20)
images = images_of(3, 5)
"""
NO_BREAK = """
defended = Defended(module, vgg("vgg-small", classes=4).eval())
found = torch._dynamo.explain(defended)(images)
assert (found.graph_count, found.graph_break_count) == (1, 0), found
assert (torch.compile(defended, fullgraph=True, backend="eager")(images) - defended(images)).abs().max() <= 1e-5
"""
BY_INDUCTOR = """
compiled = torch.compile(module, fullgraph=True)
for count in (3, 5):
    assert (compiled(images[:count]) - module(images[:count])).abs().max() <= 1e-5
"""


def run(script: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    tests = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {tests!r})\n{SETUP}{script}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_there_is_no_graph_break(tmp_path: Path) -> None:
    run(NO_BREAK, tmp_path)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_the_compiled_module_gives_the_same(tmp_path: Path) -> None:
    run(BY_INDUCTOR, tmp_path)
