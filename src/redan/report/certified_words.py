"""What was proven of an attacker's rows, in words."""

from __future__ import annotations

from collections.abc import Iterator

from redan.evidence.certified import CertifiedPart

__all__ = ["headline"]


def headline(part: CertifiedPart) -> Iterator[str]:
    """Sentences: how many rows are certified, what is left of the others, and how it was proven."""
    if part.reason is not None:
        yield f"no row is certified: {part.reason}"
        return
    if part.verifier is None:
        yield "no row was tried for a certificate: the run was ended before"
        return
    left = ((part.broken, "shown to break"), (part.open, "open"), (part.missing, "never tried"))
    rest = "".join(f", {count:,} {what}" for count, what in left if count)
    yield f"{part.certified:,} of {part.drawn:,} rows certified in {part.norm} {part.radius:g}{rest}: {part.verifier}"
    if part.contradicted:
        yield f"CONTRADICTION: {part.contradicted:,} of the certified rows were broken by an attack"
