"""Builds the optional kernels; everything else about the package is in pyproject.toml.

`optional=True`: where no C++ compiler is found the installation still succeeds, and the plain torch solver serves.
"""

import sys

from setuptools import Extension, setup

FLAGS = (
    ["/O2", "/std:c++17"]
    if sys.platform == "win32"
    else ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-pthread"]
)


def kernel(module: str, *sources: str, more: tuple[str, ...] = ()) -> Extension:
    """An extension module of plain C functions, with more flags for the compiler."""
    return Extension(
        module,
        [f"src/quasinat/{source}.cpp" for source in sources],
        extra_compile_args=[*FLAGS, *more],
        extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        py_limited_api=True,
        optional=True,
    )


setup(
    ext_modules=[
        kernel(
            "quasinat.sparse_coding._kernels._coordinate_descent",
            "sparse_coding/_kernels/coordinate_descent",
            "sparse_coding/_kernels/statistics",
        ),
        kernel(
            "quasinat.defences._kernels._total_variation",
            "defences/_kernels/total_variation",
            more=() if sys.platform == "win32" else ("-fno-math-errno",),  # or no square root is vectorised
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
