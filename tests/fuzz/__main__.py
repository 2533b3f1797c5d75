"""`python -m tests.fuzz`: look for bytes that break something.

python -m tests.fuzz                          every target, a minute each
python -m tests.fuzz http frames --seconds 600 --seed 7
python -m tests.fuzz http --guided            with atheris (pip install atheris): guided by coverage, until stopped
python -m tests.fuzz http --input FILE        one input again

What finds something is written to corpus/TARGET, so that every later run begins with it: commit it with the mending.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import sys
import time
import traceback
from pathlib import Path

from .target import CORPUS, TARGETS, Target, mutate


def main() -> int:
    """Fuzz; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF)
    parser.add_argument("--guided", action="store_true")
    parser.add_argument("--input", type=Path)
    options = parser.parse_args()
    if not _load(options.guided):
        return 2
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such targets: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    if options.input is not None:
        for one in chosen:
            one.check(options.input.read_bytes(), random.Random(options.seed))
        return 0
    if options.guided:
        return _guided(chosen[0])
    print(f"seed {options.seed}")
    return 1 if sum(_search(one, options.seconds, options.seed) for one in chosen) else 0


def _search(one: Target, seconds: float, seed: int) -> int:
    chance = random.Random(f"{seed} {one.name}")
    corpus, found, tried = one.corpus(), 0, 0
    until = time.monotonic() + seconds
    while time.monotonic() < until and found < 5:
        data = mutate(chance.choice(corpus), one, corpus, chance)
        tried += 1
        try:
            one.check(data, chance)
        except Exception:
            found += 1
            path = keep(one, data)
            print(f"{one.name}: {path}\n{traceback.format_exc()}", flush=True)
    print(f"{one.name}: {tried} inputs, {found} findings", flush=True)
    return found


def keep(one: Target, data: bytes) -> Path:
    """Put an input into the corpus."""
    folder = CORPUS / one.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def _load(is_guided: bool) -> bool:
    """Import the targets, and so all that they try; False when that cannot be done as wished."""
    if not is_guided:
        importlib.import_module("tests.fuzz.over_bytes")
        importlib.import_module("tests.fuzz.over_http")
        return True
    try:
        import atheris  # type: ignore[import-not-found]
    except ImportError:
        print("--guided needs atheris: pip install atheris", file=sys.stderr)
        return False
    os.environ["MULTILOOP_PURE"] = "1"  # what is compiled tells nothing of its way
    with atheris.instrument_imports(include=["multiloop", "websockets", "tests.fuzz"]):
        importlib.import_module("tests.fuzz.over_bytes")
        importlib.import_module("tests.fuzz.over_http")
    return True


def _guided(one: Target) -> int:
    """Let atheris look, until it finds something or is stopped; what reaches something new goes into the corpus."""
    import atheris

    def test_one_input(data: bytes) -> None:
        one.check(data, random.Random(data))

    for data in one.seeds:
        keep(one, data)
    folder = str(CORPUS / one.name)
    atheris.Setup([sys.argv[0], folder, "-max_len=65536", "-timeout=20"], test_one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
