"""CPU seconds of a run, of which short ones are repeated: for a benchmark and for a peer's process alike."""

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

SHORT, REPEATS = 2.0, 5

Found = TypeVar("Found")


def repeated(run: Callable[[], Found]) -> tuple[Found, list[float]]:
    """What it found last, and the CPU seconds of each time: five runs of what takes under two seconds, else one."""
    spent: list[float] = []
    while not spent or (spent[0] < SHORT and len(spent) < REPEATS):
        start = time.process_time()
        found = run()
        spent.append(time.process_time() - start)
    return found, spent


def told(spent: list[float]) -> dict[str, float | list[float]]:
    """As it stands in a row: the median, and what it is the median of."""
    return {"cpu_seconds": statistics.median(spent), "repeats": spent}
