"""`adversarial_step` in the training loops of others: Lightning's and accelerate's, with their real packages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from redan import Linf
from redan.hardening import FGSM_RS, Adversarial, adversarial_step

pytestmark = [
    pytest.mark.extras,
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning"),  # Lightning, of torch's trees
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]
OBJECTIVE = Adversarial(within=Linf(0.1), inner=FGSM_RS)
STEPS = 4


def rows() -> TensorDataset:
    draw = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(32, 1, 4, 4, generator=draw), torch.arange(32) % 3)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def expected() -> list[Tensor]:
    """The weights after a plain loop over the same batches."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, (x, y) in enumerate(DataLoader(rows(), batch_size=8)):
        optimizer.zero_grad()
        torch.autograd.backward(adversarial_step(model, x, y, OBJECTIVE, step=step))
        optimizer.step()
    moved = [weight.detach() for weight in model.parameters()]
    assert any(not torch.equal(now, before) for now, before in zip(moved, network().parameters(), strict=True))
    return moved


def test_lightning_trains_as_a_plain_loop_does(expected: list[Tensor], tmp_path: Path) -> None:
    import pytorch_lightning as lightning

    class Hardened(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            assert index == self.global_step
            x, y = batch
            return adversarial_step(self.network, x, y, OBJECTIVE, step=int(self.global_step))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    made = Hardened()
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(made, DataLoader(rows(), batch_size=8))
    assert all(torch.equal(now, then) for now, then in zip(made.network.parameters(), expected, strict=True))


def test_accelerate_trains_as_a_plain_loop_does(expected: list[Tensor]) -> None:
    from accelerate import Accelerator

    accelerator, model = Accelerator(cpu=True), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(rows(), batch_size=8))
    for step, (x, y) in enumerate(loader):
        optimizer.zero_grad()
        accelerator.backward(adversarial_step(model, x, y, OBJECTIVE, step=step))
        optimizer.step()
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), expected, strict=True))
