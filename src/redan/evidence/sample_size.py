"""How many rows would decide, if the rate stays as it is seen."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["rows_to_decide"]

_MOST = 2**40


def rows_to_decide(
    p_value: Callable[[float, float], float], k: float, n: int, level: float, *, above: bool
) -> int | None:
    """Return the smallest N ≥ n at which k·N/n successes of N have a p-value of at most `level`.

    p_value: of k and n, whole or real; small where the rate is shown to be above the threshold, or else below.
    k·N/n is rounded against what is to be shown: down where it is above, up where it is not. Exact p-values jump up
    and down with that rounding, so one N may decide and N + 1 not; the N returned is the first that does. None if
    not even 2⁴⁰ rows would: the rate lies at the threshold or on its other side.
    """

    def whole(rows: int) -> float:
        return p_value(k * rows // n if above else -(-k * rows // n), rows)

    def real(rows: int) -> float:
        return p_value(k * rows / n, rows)

    # Without rounding the p-value falls steadily once it falls, and no rounded one is smaller: no N below decides.
    low, high = n - 1, n
    while real(high) > level:
        low, high = high, 2 * high
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if real(middle) <= level else (middle, high)
    while whole(high) > level:
        high += 1
    return high
