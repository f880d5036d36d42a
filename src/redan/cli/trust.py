"""The one option that lets a pickled model be read."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

TrustPickle: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Read a pickled model (checkpoint, joblib): only from whom you trust, for reading one can run any code.",
    ),
]
"""Whether a pickled model may be read."""
