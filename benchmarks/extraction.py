"""Copies of models through their answers, from exact numbers to learning by example (`make bench-extraction`).

    equations   logistic regressions by equation solving: exact answers, rounded ones, labels alone
    trees       decision trees by their paths, through confidences, unique leaves and plain probabilities
    relu        networks with one hidden layer from raw outputs
    knockoff    Fashion-MNIST by Knockoff Nets, Copycat and Jacobian augmentation, beside ART; attacks that carry over
    http        an assessment that copies a model through HTTP and is killed

Each part can be run by itself (`python benchmarks/extraction_trees.py --help`). Cells are kept under
`benchmarks/results/cells/extraction`, and only those are measured whose code has changed.

    python benchmarks/extraction.py --seconds 3000   begin no cell after so many seconds; what is measured stays
    python benchmarks/extraction.py --report         measure nothing; write the result if all is there
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import extraction_equations
import extraction_http
import extraction_knockoff
import extraction_relu
import extraction_trees
import parts

BENCH = parts.Bench(
    "extraction",
    {  # in the order of their claims' letters: extraction.a, extraction.b, …
        "equations": (extraction_equations, "Logistic regressions, by equations"),
        "trees": (extraction_trees, "Decision trees, by paths"),
        "relu": (extraction_relu, "Networks with one hidden layer, by their kinks"),
        "knockoff": (extraction_knockoff, "Networks, by example"),
        "http": (extraction_http, "Through HTTP, and killed"),
    },
    setup="extraction_data.sh",
)
claims = BENCH.claims
table = BENCH.table

if __name__ == "__main__":
    sys.exit(BENCH.main())
