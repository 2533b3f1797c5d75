"""What a worker process runs: `python -m multiloop.cluster._worker_main …` (see `_worker.Arguments`)."""

from __future__ import annotations

import sys

from ._worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
