"""The papers behind attacks and techniques, as BibTeX, by the arXiv ids that they cite (`papers.bib`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

__all__ = ["arxiv_id", "bibtex"]


def arxiv_id(paper: str) -> str | None:
    """The arXiv id that a citation ends with; None for one without.

    >>> arxiv_id("Madry 2018, arXiv:1706.06083")
    '1706.06083'
    """
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})$", paper)
    return found.group(1) if found else None


@cache
def _entries() -> dict[str, str]:
    text = resources.files("redan.threat").joinpath("papers.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@.*?^}$", text, re.MULTILINE | re.DOTALL)
    return {re.findall(r"eprint = \{(.*?)\}", entry)[0]: entry for entry in entries}


def bibtex(papers: Iterable[str]) -> str:
    """The BibTeX entries of some citations, each paper once. Raises KeyError for a paper that is not in the file."""
    ids = dict.fromkeys(filter(None, map(arxiv_id, papers)))
    return "\n\n".join(_entries()[id] for id in ids)
