"""What holds the line against evasion, each re-tested by the attack that knows it (`make bench-defenses`).

    training       five ways of adversarial training on images of Fashion-MNIST; speed beside ART's trainers
    collapse       catastrophic overfitting of FGSM training: the alarm, and the remedy
    preprocessing  transformations of inputs, by attackers who know of them and who do not
    served         ensembles and detectors, likewise
    smoothing      certificates by randomized smoothing with few samples, beside a fixed number and ART
    bounds         certified networks: bounds by brute force, under attack, and beside auto_LiRPA

Each part can be run by itself (`python benchmarks/defenses_training.py --help`). Cells are kept under
`benchmarks/results/cells/defenses`, and only those are measured whose code has changed.

    python benchmarks/defenses.py --seconds 3000   begin no cell after so many seconds; what is measured stays
    python benchmarks/defenses.py --report         measure nothing; write the result if all is there
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import defenses_bounds
import defenses_collapse
import defenses_preprocessing
import defenses_served
import defenses_smoothing
import defenses_training
import parts

BENCH = parts.Bench(
    "defenses",
    {
        "training": (defenses_training, "Adversarial training"),
        "collapse": (defenses_collapse, "Catastrophic overfitting"),
        "preprocessing": (defenses_preprocessing, "Transformed inputs"),
        "served": (defenses_served, "Ensembles and detectors"),
        "smoothing": (defenses_smoothing, "Randomized smoothing"),
        "bounds": (defenses_bounds, "Bounds of networks"),
    },
    setup="poisoning_data.sh",
)
claims = BENCH.claims
table = BENCH.table

if __name__ == "__main__":
    sys.exit(BENCH.main())
