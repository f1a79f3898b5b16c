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

setup(
    ext_modules=[
        Extension(
            "quasinat.sparse_coding._kernels._coordinate_descent",
            [f"src/quasinat/sparse_coding/_kernels/{name}.cpp" for name in ("coordinate_descent", "statistics")],
            extra_compile_args=FLAGS,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
