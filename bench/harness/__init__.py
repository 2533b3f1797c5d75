"""How it is measured: environments, processes, load, statistics, the run, and what is written about it.

Only `statistics`, `model`, `table`, `plots` and `page` are pure; everything else starts programs.
"""
