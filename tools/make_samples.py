"""Make the sample data and checkpoints in ``src/redan/samples`` from the full Fashion-MNIST files.

Reads the four IDX files that the Debian package ``dataset-fashion-mnist`` installs (or ``--source``) and
writes, each step seeded and on one thread:

* ``fashion_mnist.npz``: the first 4,000 training rows and the first 1,000 test rows, bytes as in the source;
* ``fashion_natural.safetensors``: ``models.cnn`` after ordinary training;
* ``fashion_robust.safetensors``: ``models.cnn`` after adversarial training with PGD-7 (Madry et al. 2018,
  arXiv:1706.06083), l-infinity radius 0.1 in pixel units [0, 1];
* ``fashion_residual.safetensors``: ``models.residual`` after adversarial training with PGD-7, same radius;
* ``fashion_distilled.safetensors``: ``models.cnn`` after defensive distillation (Papernot et al. 2016,
  arXiv:1511.04508) at temperature 100, a defense that hides its gradients and is known to be broken;
* ``fashion_fast.safetensors``: ``models.cnn`` after adversarial training with one step of 1.25 radii from a random
  start (FGSM-RS, Wong et al. 2020, arXiv:2001.03994);
* ``fashion_trades.safetensors``: ``models.cnn`` after TRADES with 7 steps and β = 6 (Zhang et al. 2019,
  arXiv:1901.08573);
* ``fashion_winners.safetensors``: ``models.winners``, whose activations keep the largest tenth (k-WTA, Xiao et al.
  2020, arXiv:1905.10510), after ordinary training: a defense whose gradients jump, known to be broken.

All checkpoints are trained on all 60,000 training rows and see no test row before they are measured. For
each, the script prints the clean accuracy on the 10,000 test rows, the accuracy on the first 1,000 test rows
clean and under PGD-20 at radius 0.1, and the SHA-256 digest to enter in ``src/redan/samples/__init__.py``.

What it printed for the shipped checkpoints:

    checkpoint   clean, 10,000 rows   clean, first 1,000   PGD-20, first 1,000   trained in (one core)
    natural      0.8915               0.8910               0.0230                14 s
    robust       0.8407               0.8430               0.7490                371 s
    residual     0.8664               0.8720               0.7990                676 s
    distilled    0.8816               0.8830               0.7960                27 s
    fast         0.8534               0.8640               0.5270                251 s
    trades       0.8497               0.8550               0.7590                575 s
    winners      0.8673               0.8640               0.2690                95 s

PGD-20 is one attack from one start and so an upper bound of the robust accuracy, not the accuracy: that of
the distilled network is 0 against an attack on its logits.

    python tools/make_samples.py --out src/redan/samples
    python tools/make_samples.py --out src/redan/samples --only robust

Sums of floats depend on the processor and the torch version, so a repeated run elsewhere gives checkpoints
of the same quality but not necessarily the same bytes; the shipped ones were made with torch 2.13 on a CPU.
"""

import argparse
import gzip
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from redan.samples.models import cnn, residual, winners

Loss = Callable[[Tensor, Tensor], Tensor]

SOURCE = Path("/usr/share/datasets/fashion-mnist")
RADIUS = 0.1
"""l-infinity radius, in pixel units where black is 0 and white is 1."""
BATCH = 128
TRAIN_ROWS = 4_000
TEST_ROWS = 1_000


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is trained; ``steps`` is the PGD steps per batch, 0 for ordinary training."""

    file: str
    build: Callable[[], nn.Module]
    seed: int
    epochs: int
    steps: int
    step_size: float
    peak_rate: float
    temperature: float = 1.0
    """Above 1: trained on the answers of a model like it that was trained on the labels, both at this temperature."""
    beta: float = 0.0
    """Above 0: the weight of TRADES's second term, the divergence between clean and attacked answers."""


RECIPES = {
    "natural": Recipe("fashion_natural.safetensors", cnn, 20260101, 4, 0, 0.0, 2e-3),
    "robust": Recipe("fashion_robust.safetensors", cnn, 20260102, 14, 7, 0.025, 2e-3),
    "residual": Recipe("fashion_residual.safetensors", residual, 20260103, 8, 7, 0.025, 5e-3),
    "distilled": Recipe("fashion_distilled.safetensors", cnn, 20260104, 4, 0, 0.0, 2e-3, 100.0),
    "fast": Recipe("fashion_fast.safetensors", cnn, 20260105, 14, 1, 0.125, 2e-3),
    "trades": Recipe("fashion_trades.safetensors", cnn, 20260106, 14, 7, 0.025, 2e-3, beta=6.0),
    "winners": Recipe("fashion_winners.safetensors", winners, 20260107, 6, 0, 0.0, 2e-3),
}


def read_idx(path: Path, magic: int, dimensions: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of one gzipped IDX file, shaped as its header says.

    Format: big-endian 32-bit magic number, one 32-bit size per dimension, then the bytes.
    """
    if not path.is_file():
        raise SystemExit(
            f"{path} is missing; install the Debian package with `apt-get install dataset-fashion-mnist` "
            "or pass --source with a folder that holds the four Fashion-MNIST .gz files"
        )
    raw = gzip.decompress(path.read_bytes())
    header = np.frombuffer(raw, dtype=">u4", count=1 + dimensions)
    if int(header[0]) != magic:
        raise SystemExit(f"{path} has magic number {int(header[0])}, not {magic}; get the original file")
    shape = tuple(int(size) for size in header[1:])
    return np.frombuffer(raw, dtype=np.uint8, offset=header.nbytes).reshape(shape)


def read_split(source: Path, prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (N, 28, 28) and labels (N,) of the split ``train`` or ``t10k``."""
    images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz", 2051, 3)
    labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz", 2049, 1)
    return images, labels


def tensors(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Return images as floats (N, 1, 28, 28) in [0, 1] and labels as int64 (N,)."""
    x = torch.from_numpy(images.astype(np.float32) / np.float32(255)).unsqueeze(1)
    return x, torch.from_numpy(labels.astype(np.int64))


def divergence(answers: Tensor, clean: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of answers from clean ones, both logits (N, 10)."""
    return F.kl_div(answers.log_softmax(1), clean.softmax(1), reduction="batchmean")


def perturb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    steps: int,
    step_size: float,
    draw: torch.Generator,
    loss: Loss = F.cross_entropy,
) -> Tensor:
    """Return x moved by projected gradient ascent on the loss of the model's answers and y, within RADIUS and [0, 1].

    Starts at a uniform random point of the ball. Only the gradient at the input is computed.
    """
    low, high = (x - RADIUS).clamp(min=0), (x + RADIUS).clamp(max=1)
    noise = torch.empty_like(x).uniform_(-RADIUS, RADIUS, generator=draw)
    moved = (x + noise).clamp(0, 1)
    for _ in range(steps):
        moved.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(model(moved), y), moved)
        moved = torch.clamp(moved.detach() + step_size * gradient.sign(), low, high)
    return moved.detach()


def attack(recipe: Recipe, model: nn.Module, x: Tensor, y: Tensor, draw: torch.Generator) -> Tensor:
    """Return the images that a recipe trains against: of the highest loss, or of the answers farthest from clean."""
    if not recipe.beta:
        return perturb(model, x, y, recipe.steps, recipe.step_size, draw)
    with torch.no_grad():
        clean = model(x)
    return perturb(model, x, clean, recipe.steps, recipe.step_size, draw, divergence)


def train(recipe: Recipe, x: Tensor, y: Tensor) -> nn.Module:
    """Return the model of the recipe, trained on images x (N, 1, 28, 28), in eval mode.

    y: labels (N,), or a probability for each class (N, 10).
    """
    torch.manual_seed(recipe.seed)
    draw = torch.Generator().manual_seed(recipe.seed)
    model = recipe.build()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.peak_rate)
    batches = len(x) // BATCH
    total = recipe.epochs * batches
    # Linear warm-up over the first tenth, then linear decay to zero: the late small steps are what
    # brings the robust accuracy of adversarial training up.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * total), (total - step) / (0.9 * total))
    )
    for epoch in range(recipe.epochs):
        begun, losses = time.perf_counter(), 0.0
        order = torch.randperm(len(x), generator=draw)
        for rows in torch.split(order[: batches * BATCH], BATCH):
            images, labels = x[rows], y[rows]
            if recipe.steps:
                # Running statistics, not those of the batch: the attacked function is the deployed one.
                model.eval()
                attacked = attack(recipe, model, images, labels, draw)
            model.train()
            if recipe.beta:
                answers = model(images)
                loss = F.cross_entropy(answers, labels) + recipe.beta * divergence(model(attacked), answers)
            else:
                loss = F.cross_entropy(model(attacked if recipe.steps else images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses += loss.item()
        seconds = time.perf_counter() - begun
        print(f"  epoch {epoch + 1:2d}: mean loss {losses / batches:.4f}, {seconds:.0f} s", flush=True)
    return model.eval()


def distill(recipe: Recipe, x: Tensor, y: Tensor) -> nn.Module:
    """Return the model of the recipe after defensive distillation (Papernot et al. 2016, section IV).

    Teacher and student are trained on softmax(z / T) and deployed with softmax(z). Training a network whose
    logits are z = T g on z / T is training g, so g is trained, and T is multiplied into its last layer in the end.
    """
    teacher = train(recipe, x, y)
    with torch.no_grad():
        soft = torch.cat([teacher(images).softmax(1) for images in torch.split(x, 500)])
    student = train(replace(recipe, seed=recipe.seed + 1_000_000), x, soft)
    *_, weight, bias = student.parameters()
    with torch.no_grad():
        weight.mul_(recipe.temperature)
        bias.mul_(recipe.temperature)
    return student


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of rows whose largest logit is at the label."""
    with torch.no_grad():
        answers = torch.cat([model(images).argmax(1) for images in torch.split(x, 500)])
    return int((answers == y).sum()) / len(x)


def measure(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Print the clean accuracy on all test rows, and clean and under PGD-20 on the first TEST_ROWS."""
    first, labels = x[:TEST_ROWS], y[:TEST_ROWS]
    attacked = perturb(model, first, labels, 20, 0.01, torch.Generator().manual_seed(0))
    print(f"  clean, {len(x)} test rows: {accuracy(model, x, y):.4f}")
    print(f"  clean, first {TEST_ROWS}: {accuracy(model, first, labels):.4f}")
    print(f"  PGD-20 at {RADIUS}, first {TEST_ROWS}: {accuracy(model, attacked, labels):.4f}")


def report(path: Path) -> None:
    """Print name, size in bytes and digest of a written file."""
    payload = path.read_bytes()
    print(f"  {path.name}: {len(payload)} bytes, sha256 {hashlib.sha256(payload).hexdigest()}", flush=True)


def make_data(source: Path, out: Path) -> None:
    """Write the cut of the data set, bytes unchanged."""
    print("data")
    train_images, train_labels = read_split(source, "train")
    test_images, test_labels = read_split(source, "t10k")
    path = out / "fashion_mnist.npz"
    np.savez_compressed(
        path,
        train_images=train_images[:TRAIN_ROWS],
        train_labels=train_labels[:TRAIN_ROWS],
        test_images=test_images[:TEST_ROWS],
        test_labels=test_labels[:TEST_ROWS],
    )
    report(path)


def make_checkpoint(name: str, source: Path, out: Path) -> None:
    """Train, write and measure one checkpoint."""
    recipe = RECIPES[name]
    print(name, flush=True)
    begun = time.perf_counter()
    make = train if recipe.temperature == 1 else distill
    model = make(recipe, *tensors(*read_split(source, "train")))
    print(f"  trained in {time.perf_counter() - begun:.0f} s")
    path = out / recipe.file
    # contiguous(): the file stores plain row-major tensors, whatever layout training used.
    path.write_bytes(save({key: value.contiguous() for key, value in model.state_dict().items()}))
    report(path)
    measure(model, *tensors(*read_split(source, "t10k")))


def main() -> None:
    """Read the command line and make what it asks for, in the order of the module docstring."""
    parser = argparse.ArgumentParser(description="Make the sample data and checkpoints of redan.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--only", choices=["data", *RECIPES], help="make one file instead of all")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the four IDX .gz files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "data"):
        make_data(options.source, options.out)
    for name in RECIPES:
        if options.only in (None, name):
            make_checkpoint(name, options.source, options.out)


if __name__ == "__main__":
    main()
