"""The compiled parts, all optional: where there is no compiler the package installs and works without them.

What lives here: extension modules only; everything else about the package is in pyproject.toml.
"""

import glob
import importlib.util
import os
import shutil
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = os.path.dirname(os.path.abspath(__file__))
LINUX = sys.platform == "linux"


def load_speed():
    """multiloop._speed, without importing the package that is being built."""
    spec = importlib.util.spec_from_file_location("_speed", os.path.join(ROOT, "src", "multiloop", "_speed.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


speed = load_speed()


def twins():
    """Extensions of the hot modules, from the same sources (Cython's pure-Python mode); none without Cython."""
    if os.environ.get("MULTILOOP_PURE") or sys.implementation.name != "cpython":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    if os.name == "nt":
        return []  # one binding knows the ways of Unix
    options = {"extra_compile_args": ["-O2", "-g0", "-Wno-unused-function"], "optional": True}
    directives = {
        "language_level": 3,
        "annotation_typing": False,  # the sources' types are mypy's; C types are in the .pxd files
        "binding": True,
        "freethreading_compatible": True,
    }
    try:
        return cythonize(
            [
                Extension(name, [os.path.relpath(source, ROOT)], libraries=["dl"] if LINUX else [], **options)
                for name, source in {**speed.HOT, **speed.BINDINGS}.items()
            ],
            build_dir="build/cython",
            compiler_directives=directives,
            include_path=["src"],
            quiet=True,
        )
    except Exception as error:  # whatever Cython dislikes: the plain form works
        print(f"the hot modules are not compiled: {error}", file=sys.stderr)
        return []


class build_with_twins(build_ext):  # noqa: N801 - setuptools' way to spell commands
    """Moves each twin into multiloop/_compiled under a name that carries the fingerprint of the sources."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self):
        super().run()
        base = os.path.join(ROOT, "src") if self.inplace else self.build_lib
        folder = os.path.join(base, "multiloop", "_compiled")
        suffix = self.get_ext_filename("").rpartition(os.sep)[2]
        for name in (*speed.HOT, *speed.BINDINGS):
            built = os.path.join(base, name.replace(".", os.sep) + suffix)
            if os.path.exists(built):
                os.makedirs(folder, exist_ok=True)
                twin = speed.twin_stem(name)
                for stale in glob.glob(os.path.join(folder, twin.rpartition("-")[0] + "-*" + suffix)):
                    os.remove(stale)
                shutil.move(built, os.path.join(folder, twin + suffix))

    def get_outputs(self):
        return []

    def get_output_mapping(self):
        return {}


setup(
    ext_modules=[
        Extension(
            "multiloop.worker_threads._atomics",
            sources=["src/multiloop/worker_threads/_atomics.c"],
            extra_compile_args=["-O2", "-std=gnu11"],
            optional=True,
        ),
        Extension(
            "multiloop.fs._cached",
            sources=["src/multiloop/fs/_cached.c"],
            extra_compile_args=["-O2", "-std=gnu11"],
            optional=True,
        ),
        *twins(),
    ],
    cmdclass={"build_ext": build_with_twins},
)
