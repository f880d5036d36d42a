"""Blocks of rows on the cores of this machine.

Threads, not processes: torch releases the interpreter's lock inside its kernels, any module works (also one
from a notebook, which no other process could import), and the weights are there once. Each worker computes
with one thread of its own, so a block's bytes do not depend on how many workers there are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Kernels inside compute with one thread; the process's setting is put back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pieces(count: int, block: int, workers: int) -> tuple[range, ...]:
    """Positions 0 to count - 1 in pieces of at most `block`, one a worker at the least where each gets 16."""
    many = max(1, min(count, max(math.ceil(count / max(1, block)), min(workers, math.ceil(count / 16)))))
    size, longer = divmod(count, many)
    ends = [at * size + min(at, longer) for at in range(many + 1)]
    return tuple(range(first, last) for first, last in pairwise(ends))


def each(work: Callable[[T], R], items: Sequence[T], workers: int, stop: Callable[[], None]) -> Iterator[tuple[int, R]]:
    """(position, result) of each item as it is done. On any exception `stop` is called, so that running work
    can end early, and no new item is started; on an interrupt what was running is waited for and still given.
    """
    with one_thread_each():
        if workers <= 1 or len(items) <= 1:
            for i, item in enumerate(items):
                yield i, work(item)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="redan") as pool:
            waiting: dict[Future[R], int] = {pool.submit(work, item): i for i, item in enumerate(items)}
            try:
                while waiting:
                    for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                        yield waiting.pop(done), done.result()
            except KeyboardInterrupt:
                stop()
                pool.shutdown(wait=True, cancel_futures=True)
                for ended, i in waiting.items():
                    if not ended.cancelled() and ended.exception() is None:
                        yield i, ended.result()
                raise
            except BaseException:
                stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
