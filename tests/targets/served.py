"""A model server in a process of its own, whose append-only log is the truth; run as a script, it is told by JSON.

It is a linear softmax classifier of three classes behind each protocol, and as unreliable as it is told to be: what
happens to a request is drawn from a seed, in the order of arrival, and written down before anything is answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

NAMES = ["cat", "dog", "owl"]
WEIGHT = np.array([[3.0, 2.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 3.0, 2.0]])
CURSED = 0.96  # an input whose first number is above it is answered by 500, always

transports: dict[Any, asyncio.BaseTransport] = {}


def watched(**settings: Any) -> asyncio.Protocol:
    """uvicorn's protocol, whose connections a handler can tear down."""
    protocol: Any = H11Protocol(**settings)
    made = protocol.connection_made

    def noted(transport: asyncio.BaseTransport) -> None:
        made(transport)
        transports[transport.get_extra_info("peername")] = transport

    protocol.connection_made = noted
    served: asyncio.Protocol = protocol
    return served


@dataclass
class Scene:
    """How the server behaves. Chances are of each fate; latency is in seconds, from least to most.

    slow: the chance that an answer takes `slow_by` seconds more. per_second: requests answered a second, others being
    told to wait; None: all.
    """

    log: str
    seed: int = 0
    latency: tuple[float, float] = (0.005, 0.02)
    errors: float = 0.0
    busy: float = 0.0
    cut: float = 0.0
    resets: float = 0.0
    retry_after: str = "0"
    token: str | None = None
    described: bool = True
    life: float = 120.0
    echo: bool = False
    slow: float = 0.0
    slow_by: float = 0.1
    per_second: int | None = None
    under_way: int = 0
    answered: list[float] = field(default_factory=list)
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def patience(self) -> float:
        """How long the next answer takes, in seconds."""
        lag = self.slow_by if self.slow and self.draw.random() < self.slow else 0.0
        return self.draw.uniform(*self.latency) + lag

    def fate(self) -> str:
        """What happens to the next request."""
        if self.per_second is not None:
            now = time.monotonic()
            self.answered = [at for at in self.answered if at > now - 1]
            if len(self.answered) >= self.per_second:
                return "busy"
            self.answered.append(now)
        at = self.draw.random()
        for name in ("errors", "busy", "cut", "resets"):
            at -= getattr(self, name)
            if at < 0:
                return name
        return "fine"

    def write(self, request: Request, fate: str, rows: int, asked: bytes = b"") -> None:
        line = {
            "id": request.headers.get("X-Request-ID"),
            "path": request.url.path,
            "fate": fate,
            "rows": rows,
            "asked": hashlib.sha256(asked).hexdigest()[:16],
            "at": time.monotonic(),
            "under_way": self.under_way + 1,
        }
        os.write(self.file, json.dumps(line).encode() + b"\n")


def probabilities(x: np.ndarray[Any, Any]) -> list[list[float]]:
    z = np.asarray(x, dtype=np.float64).reshape(len(x), -1) @ WEIGHT.T
    z = np.exp(z - z.max(1, keepdims=True))
    return [[float(p) for p in row] for row in z / z.sum(1, keepdims=True)]


def inputs(path: str, asked: dict[str, Any]) -> np.ndarray[Any, Any]:
    if path.endswith("/infer"):
        (tensor,) = asked["inputs"]
        assert tensor["name"] in ("pixels", "input-0")
        assert tensor["datatype"] in ("FP32", "FP64")
        return np.array(tensor["data"]).reshape(tensor["shape"])
    if path == "/invocations":
        return np.array(asked["inputs"])
    return np.array([asked["row"]]) if "row" in asked else np.array(asked["rows"])


def answer(path: str, x: np.ndarray[Any, Any]) -> object:
    scores = probabilities(x)
    match path:
        case "/v2/models/linear/infer":
            flat = [p for row in scores for p in row]
            out = {"name": "scores", "shape": [len(x), 3], "datatype": "FP64", "data": flat}
            return {"model_name": "linear", "model_version": "1", "outputs": [out]}
        case "/invocations":
            return {"predictions": scores}
        case "/named":
            return {"predictions": [dict(zip(NAMES, row, strict=True)) for row in scores]}
        case "/score":
            return {"result": {"scores": scores[0]}}
        case "/scores":
            return {"results": [{"p": row} for row in scores]}
        case "/top":
            best = sorted(zip(NAMES, scores[0], strict=True), key=lambda pair: -pair[1])[:2]
            return [[{"label": name, "score": round(p, 3)} for name, p in best]]
        case "/label":
            return {"label": NAMES[int(np.argmax(scores[0]))]}
        case "/short":
            return {"result": {"scores": scores[0][:2]}}
        case _:
            raise KeyError(path)


def application(scene: Scene) -> Starlette:
    async def post(request: Request) -> Response:
        path, body = request.url.path, await request.body()
        scene.under_way += 1
        await asyncio.sleep(scene.patience())
        scene.under_way -= 1  # below, nothing is waited for any more
        if scene.token is not None and request.headers.get("Authorization") != f"Bearer {scene.token}":
            scene.write(request, "denied", 0)
            said = request.headers.get("Authorization", "") if scene.echo else "no"
            return JSONResponse({"error": said}, status_code=401)
        x = inputs(path, json.loads(body))
        fate = "cursed" if float(x.reshape(len(x), -1)[:, 0].max()) > CURSED else scene.fate()
        scene.write(request, fate, len(x), x.tobytes())
        whole = json.dumps(answer(path, x)).encode()
        match fate:
            case "errors" | "cursed":
                return JSONResponse({"error": "the model fell over"}, status_code=500)
            case "busy":
                return JSONResponse({}, status_code=429, headers={"Retry-After": scene.retry_after})
            case "cut":
                return Response(whole[: len(whole) // 2], media_type="application/json")
            case "resets":
                transport = transports[tuple(request.scope["client"])]
                assert isinstance(transport, asyncio.Transport)
                transport.abort()
        return Response(whole, media_type="application/json")

    async def describe(request: Request) -> Response:
        scene.write(request, "description", 0)
        if not scene.described:
            return JSONResponse({"error": "unknown"}, status_code=404)
        return JSONResponse(
            {
                "name": "linear",
                "platform": "numpy",
                "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 6]}],
                "outputs": [{"name": "scores", "datatype": "FP64", "shape": [-1, 3]}],
            }
        )

    async def moved(request: Request) -> Response:
        scene.write(request, "moved", 0)
        return Response(status_code=307, headers={"Location": "/score"})

    paths = ["/v2/models/linear/infer", "/invocations", "/named", "/score", "/scores", "/top", "/label", "/short"]
    return Starlette(
        routes=[
            *[Route(path, post, methods=["POST"]) for path in paths],
            Route("/v2/models/linear", describe, methods=["GET"]),
            Route("/moved", moved, methods=["POST"]),
        ]
    )


async def serve(scene: Scene) -> None:
    """Serve until the time is over, or nobody is left to serve for."""
    heard = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so told, it is sent without delay
    heard.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            application(scene), http=watched, log_level="critical", access_log=False, loop="asyncio", lifespan="off"
        )
    )
    parent = os.getppid()
    running = asyncio.create_task(server.serve(sockets=[heard]))
    part = Path(scene.log + ".part")
    part.write_text(str(heard.getsockname()[1]), encoding="utf-8")
    part.rename(scene.log + ".port")  # whole, once it is there
    end = asyncio.get_running_loop().time() + scene.life
    while not running.done() and asyncio.get_running_loop().time() < end and os.getppid() == parent:
        await asyncio.sleep(0.1)
    server.should_exit = server.force_exit = True
    await running


if __name__ == "__main__":
    asyncio.run(serve(Scene(**json.loads(sys.argv[1]))))
