"""Attacks on an endpoint in processes that can be killed; run as a script, it imports once and forks for each.

A line of input, [url, ledger, out] as JSON, begins an attack whose result is written to `out`; a line of output tells
its process, another how it ended: 0, or minus the signal.
"""

from __future__ import annotations

import json
import os
import sys

import torch

import redan
from redan.targets.http import from_http
from redan.wire import Ledger, Patience, Protocol, Service


def attack(url: str, ledger: str, out: str) -> None:
    """Square on twelve rows, one of which the server never answers."""
    service = Service(url=url, protocol=Protocol.OIP_V2, model="linear", concurrency=4)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(0)) * 0.8
    x[5, 0] = 0.99
    y = torch.arange(12) % 3
    with from_http(service, classes=3, ledger=Ledger(ledger), patience=Patience(first_seconds=0.01)) as target:
        result = redan.attack(target, x, y, redan.Square(queries=60), within=redan.Linf(0.05))
    with open(out, "wb") as file:
        for part in (result.adversarial, result.success, result.distance, result.queries):
            file.write(part.numpy().tobytes())
        file.write(repr(result.errors).encode())


def main() -> None:
    for line in sys.stdin:
        process = os.fork()
        if not process:
            attack(*json.loads(line))
            os._exit(0)
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()
        ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
