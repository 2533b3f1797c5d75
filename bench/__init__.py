"""The benchmarks: multiloop beside its peers, in one run; and the instruction counts that keep it fast.

What lives here: the harness (`harness`), the rows of the report (`rows`), the programs that are measured (`apps`), and
the check against a committed baseline (`check`). What must not: anything that the package itself imports.

    python -m bench run [--quick] [--rows KEY,…]      measure, write docs/benchmarks/ and the README's block
    python -m bench list                              the rows, their peers and their budgets
    python -m bench report                            write the pages again from the last figures
    python -m bench profile ROW SIDE                  where the time of one side goes
    python -m bench check [--update]                  instruction counts against bench/check/baseline.json
"""
