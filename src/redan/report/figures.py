"""How numbers and sentences are written, the same in every view."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

__all__ = ["NONE", "capital", "days", "money", "percent", "points", "sentence", "share", "tenths", "usd"]

NONE = "–"


def capital(text: str) -> str:
    """The text with a capital first letter, nothing else changed."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """The text as a sentence of its own.

    >>> sentence("shown to meet the threshold")
    'Shown to meet the threshold.'
    """
    return capital(text) + ("" if text.endswith((".", "!", "?")) else ".")


def percent(value: float | None, rounding: str = ROUND_HALF_EVEN) -> str:
    r"""A rate in percent with one place, or a dash.

    >>> percent(0.73046875).replace("\N{NO-BREAK SPACE}", " ")
    '73.0 %'
    """
    return NONE if value is None else f"{tenths(value, rounding)}\N{NO-BREAK SPACE}%"


def tenths(value: float, rounding: str, places: str = "0.1") -> Decimal:
    """A rate times 100, rounded."""
    return (100 * Decimal(str(value))).quantize(Decimal(places), rounding)


def share(value: float) -> str:
    r"""A share of the training rows in percent, with three digits that count: small ones must not become 0.

    >>> share(0.0005).replace("\N{NO-BREAK SPACE}", " ")
    '0.05 %'
    """
    return f"{100 * value:.3g}\N{NO-BREAK SPACE}%"


def points(value: float) -> str:
    r"""A difference of two rates in points of a percent, with its sign.

    >>> points(-0.0031).replace("\N{NO-BREAK SPACE}", " ")
    '−0.3 points'
    """
    shown = f"{abs(tenths(value, ROUND_HALF_EVEN))}"
    sign = "" if not float(shown) else "+" if value > 0 else "−"
    return f"{sign}{shown}\N{NO-BREAK SPACE}points"


def money(value: float | None) -> str:
    """US dollars in a column of such, or a dash; below ten cents with two digits that count.

    >>> money(1234.5), money(0.00042), money(None)
    ('1,234.50', '0.00042', '–')
    """
    if value is None:
        return NONE
    return f"{value:,.2f}" if value >= 0.1 or not value else f"{value:.2g}"


def usd(value: float) -> str:
    r"""Money in US dollars.

    >>> usd(1234.5).replace("\N{NO-BREAK SPACE}", " ")
    '1,234.50 USD'
    """
    return f"{money(value)}\N{NO-BREAK SPACE}USD"


def days(value: float) -> str:
    r"""A time in days, two digits below ten.

    >>> days(19.6).replace("\N{NO-BREAK SPACE}", " "), days(1).replace("\N{NO-BREAK SPACE}", " ")
    ('20 days', '1 day')
    """
    shown = f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"
    return f"{shown}\N{NO-BREAK SPACE}{'day' if shown == '1' else 'days'}"
