"""The compiled parts, all optional: where there is no compiler the package installs and works without them.

What lives here: extension modules only; everything else about the package is in pyproject.toml.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "multiloop.worker_threads._atomics",
            sources=["src/multiloop/worker_threads/_atomics.c"],
            extra_compile_args=["-O2", "-std=gnu11"],
            optional=True,
        ),
    ],
)
