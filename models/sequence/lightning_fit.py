"""The loop of a fit in Lightning: steps, batches, the end of an epoch, checkpoints. Imported by a fit only.

Lightning does the loop, precision, devices and processes, clipping, the order in which state is restored, and the bar.
Checking and stopping are ours (`EpochEnd`): one function instead of a validation loop, a logger and two callbacks,
exact for any number of processes, and outside the steps. Comments that name a version describe lightning 2.6.6.

A resumed fit gives the bits of one that was never interrupted, because a step's batch and randomness are functions of
the seed and of the number of steps so far, which Lightning restores from the checkpoint.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor, nn

from models.contract import Report
from models.sequence.checkpoints import read_state, write_state
from models.sequence.fit_process import ReportRelay, interruptible, make_quiet_and_deterministic, restored_process
from models.sequence.fit_settings import CHECKPOINT, Batches, FitCurve, FitSettings, rate_share


class FitStep(LightningModule):
    """One step of a network: loss, optimizer and schedule."""

    def __init__(self, network: nn.Module, train: Batches, settings: FitSettings) -> None:
        super().__init__()
        self.network = network
        self.train_batches = train
        self.settings = settings

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning sets the current hook's name some 45 times a step; `nn.Module`'s own setter is slow."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def train_dataloader(self) -> BatchStream:
        """Called in each process, so that each takes its share."""
        return BatchStream(self.train_batches, self.trainer)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """On a CPU the batch as it is; Lightning would rebuild it."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: Any, number: int) -> Tensor:
        """The loss; its randomness is a function of the seed and of the batches of all processes so far."""
        trainer = self.trainer
        seed_step(self.settings.seed, trainer.global_step * trainer.world_size + trainer.global_rank, self.device)
        loss: Tensor = self.network.loss(batch)  # type: ignore[operator]
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW over two groups of parameters, and the schedule, which moves after each step."""
        rate = self.settings.learning_rate
        # Fused takes a quarter of the time with a small network on a CPU (0.3 ms instead of 1.1). With mixed precision
        # Lightning refuses to clip for a fused optimizer.
        fused = True if self.trainer.precision == "32-true" else None
        optimizer = torch.optim.AdamW(decay_groups(self.network, self.settings.weight_decay), lr=rate, fused=fused)
        steps = self.settings.epochs * len(self.train_dataloader())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_share(step, steps, self.settings.warmup_share)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class BatchStream:
    """One process's share of the training batches, from the next step to the end of its epoch.

    Lightning takes any iterable with a length; only a `DataLoader` would get workers and samplers. The place in the
    epoch follows from the number of steps. It is not kept in a `state_dict` of this loader: 2.6.6 saves that at an
    epoch's end too, but does not restore it, and the first epoch's batches would come again.
    """

    def __init__(self, batches: Batches, trainer: Trainer) -> None:
        self.batches = batches
        self.trainer = trainer
        self.rank, self.world = trainer.global_rank, trainer.world_size
        self.seconds = 0.0  # spent on making batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / self.world)

    def __iter__(self) -> Iterator[Any]:
        """Reads the number of steps at the first batch: at `iter()` it is not restored yet."""
        epoch, first = divmod(self.trainer.global_step, len(self))
        for step in range(first, len(self)):
            yield self.timed(self.batches, epoch, (step * self.world + self.rank) % len(self.batches))

    def timed(self, batches: Batches, epoch: int, number: int) -> Any:
        """A batch; adds the time that it took to `seconds`."""
        started = perf_counter()
        batch = batches.batch(epoch, number)
        self.seconds += perf_counter() - started
        return batch


class EpochEnd(Callback):
    """The end of an epoch: checks, keeps the best weights, decides whether to stop, saves."""

    state_key = "curve"  # its key among a checkpoint's callbacks

    def __init__(
        self, check: Batches | None, settings: FitSettings, path: Path | None, purpose: Any, report: Any
    ) -> None:
        self.check_batches = check
        self.settings = settings
        self.path = path
        self.purpose = purpose
        self.report = report
        self.curve = FitCurve()
        self.loss_sum = torch.zeros((), dtype=torch.float64)  # of the epoch's steps so far
        self.rate = 0.0
        self.seconds = self.data_seconds = 0.0  # of the epoch, up to `since`
        self.since = self.saved = monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The part of a checkpoint that is ours."""
        running = {name: getattr(self, name) for name in ("loss_sum", "rate", "seconds", "data_seconds")}
        return {"purpose": self.purpose, "curve": vars(self.curve), "running": running}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.curve = FitCurve(**state["curve"])
        for name, value in state["running"].items():
            setattr(self, name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a spawned process this runs first, before Lightning prints anything."""
        vars(self).update(state)
        make_quiet_and_deterministic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        # A copy: a tensor that came along into spawned processes is shared by all of them.
        self.loss_sum = self.loss_sum.to(pl_module.device, copy=True)
        self.since = self.saved = monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Keep the learning rate before the schedule moves."""
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add up the loss; save a checkpoint when one is due."""
        self.loss_sum += outputs["loss"]
        # Never after an epoch's last step: the epoch's end saves, and what Lightning restores from in between
        # depends on flags of its validation loop.
        if self.path is not None and batch_idx + 1 < trainer.num_training_batches:
            due = monotonic() - self.saved >= self.settings.checkpoint_every_s
            if trainer.strategy.reduce_boolean_decision(due, all=False):  # all processes save together
                self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, add a row to the curve, decide, save."""
        stream = trainer.train_dataloader
        assert isinstance(stream, BatchStream)
        assert isinstance(pl_module, FitStep)
        trained = self._mean_loss_sum(trainer).item() / len(stream)
        checked = self._check_loss(trainer, pl_module, stream)
        epoch = len(self.curve.rows)
        self._clock(stream)
        row = {"epoch": epoch, "train_loss": trained, "check_loss": checked, "learning_rate": self.rate}
        self.curve.rows.append(row | {"seconds": self.seconds, "data_seconds": self.data_seconds})
        self.seconds = self.data_seconds = 0.0
        self.loss_sum.zero_()
        self._decide(trainer, pl_module.network)
        if self.path is not None:
            self._save(trainer)

    def _check_loss(self, trainer: Trainer, module: FitStep, stream: BatchStream) -> float:
        """The mean over the rows of all check batches, each computed by one process; NaN without batches."""
        if self.check_batches is None:
            return math.nan
        sums = torch.zeros(2, dtype=torch.float64, device=module.device)  # loss, rows
        module.network.eval()
        # The network itself, not its wrapper of several processes: they may have unequal numbers of batches.
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            for number in range(stream.rank, len(self.check_batches), stream.world):
                batch = stream.timed(self.check_batches, 0, number)
                seed_step(self.settings.seed, number, module.device)
                batch = module.transfer_batch_to_device(batch, module.device, 0)
                loss, rows = module.network.check(batch)  # type: ignore[operator]
                sums[0] += loss
                sums[1] += rows
        module.network.train()
        total, n = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        return float(total / n)

    def _decide(self, trainer: Trainer, network: nn.Module) -> None:
        """Keep the weights where they are the best so far; decide whether there is another epoch."""
        curve, last = self.curve, self.curve.rows[-1]
        epoch, loss = len(curve.rows) - 1, last["check_loss"]
        checked = self.check_batches is not None
        finite = math.isfinite(last["train_loss"]) and (math.isfinite(loss) or not checked)
        best = curve.rows[curve.best_epoch]["check_loss"] if curve.best_epoch >= 0 else math.inf
        if checked and finite and loss < best:
            curve.best_epoch, curve.best = epoch, copy_state(network)
        if not finite:
            curve.ended = "diverged"
        elif checked and self._stop_requested(trainer, epoch, loss):
            curve.ended = "pruned"
        elif checked and self.settings.patience and epoch - curve.best_epoch >= self.settings.patience:
            curve.ended = "patience"
        elif epoch + 1 == self.settings.epochs:
            curve.ended = "epochs"
        if curve.ended in ("patience", "epochs") and (not checked or self.settings.keep == "last"):
            curve.best_epoch, curve.best = epoch, copy_state(network)
        trainer.should_stop = bool(curve.ended)

    def _stop_requested(self, trainer: Trainer, epoch: int, loss: float) -> bool:
        stop = bool(self.report(epoch, loss)) if self.report and trainer.is_global_zero else False
        return bool(trainer.strategy.reduce_boolean_decision(stop, all=False))

    def _mean_loss_sum(self, trainer: Trainer) -> Tensor:
        reduced: Tensor = trainer.strategy.reduce(self.loss_sum, reduce_op="mean")
        return reduced

    def _clock(self, stream: BatchStream) -> None:
        now = monotonic()
        self.seconds += now - self.since
        self.data_seconds += stream.seconds
        self.since, stream.seconds = now, 0.0

    def _save(self, trainer: Trainer) -> None:
        assert self.path is not None
        assert isinstance(trainer.train_dataloader, BatchStream)
        self._clock(trainer.train_dataloader)
        self.loss_sum = self._mean_loss_sum(trainer)  # the first process saves for all of them
        trainer.save_checkpoint(self.path)
        self.saved = monotonic()


class SafetensorsIO(CheckpointIO):
    """Lightning's checkpoints as safetensors and JSON."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """One file, put in place by a rename."""
        write_state(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The whole state on the CPU; Lightning moves each tensor."""
        state: dict[str, Any] = read_state(Path(path))
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Called for the weights that a spawned process returns."""
        Path(path).unlink(missing_ok=True)
        if Path(path).name == ".temp.ckpt":  # 2.6.6 leaves the folder that it made for this file
            Path(path).parent.rmdir()


class FitProgressBar(TQDMProgressBar):
    """Lightning's bar with the losses of the last epoch; tqdm, because two Rich displays at once raise an error."""

    def __init__(self, epoch_end: EpochEnd) -> None:
        super().__init__(refresh_rate=10, leave=False)
        self.epoch_end = epoch_end

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The losses, shown at the bar's end."""
        rows = self.epoch_end.curve.rows
        return {name: f"{rows[-1][name]:.4f}" for name in ("train_loss", "check_loss")} if rows else {}


def run(
    network: nn.Module,
    train: Batches,
    check: Batches | None,
    settings: FitSettings,
    *,
    folder: Path | None,
    purpose: dict[str, Any],
    report: Report | None,
    bar: bool | None,
) -> FitCurve:
    """Fit, or resume the fit in the folder; restore the process's global state afterwards."""
    strategy = _strategy(settings)
    spawns = strategy.startswith("ddp_spawn")
    relay = ReportRelay(report) if report and spawns else report
    with restored_process(network), tempfile.TemporaryDirectory() as temporary:
        # Spawned processes return their result in their last checkpoint.
        home = folder or (Path(temporary) if spawns else None)
        path = home / CHECKPOINT if home else None
        epoch_end = EpochEnd(check, settings, path, purpose, relay)
        if strategy == "ddp_spawn" and has_unused_parameters(network.train(), train):
            strategy = "ddp_spawn_find_unused_parameters_true"
        trainer = _trainer(settings, strategy, epoch_end, bar=bool(bar) and sys.stdout.isatty())
        with interruptible(trainer), relay if isinstance(relay, ReportRelay) else nullcontext():
            start = str(path) if path and path.exists() else None
            trainer.fit(FitStep(network.train(), train, settings), ckpt_path=start)
        if spawns and path:
            epoch_end.load_state_dict(read_state(path)["callbacks"][EpochEnd.state_key])
        return epoch_end.curve


def _trainer(settings: FitSettings, strategy: str, epoch_end: EpochEnd, bar: bool) -> Trainer:
    on_gpu = torch.cuda.is_available()
    automatic = "bf16-mixed" if on_gpu else "32-true"
    return Trainer(
        accelerator="cuda" if on_gpu else "cpu",
        devices=settings.devices,
        strategy=strategy,
        precision=automatic if settings.precision == "auto" else settings.precision,  # type: ignore[arg-type]
        max_epochs=settings.epochs,
        gradient_clip_val=settings.clip_norm or None,
        callbacks=[epoch_end, FitProgressBar(epoch_end)] if bar else [epoch_end],
        plugins=[SafetensorsIO()],
        logger=False,
        enable_checkpointing=False,  # EpochEnd saves
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _strategy(settings: FitSettings) -> str:
    return "ddp_spawn" if settings.strategy == "auto" and settings.devices != 1 else settings.strategy


def has_unused_parameters(network: nn.Module, train: Batches) -> bool:
    """Whether a loss leaves parameters without a gradient. DDP must know; searching for them in each step is slow."""
    loss: Tensor = network.loss(train.batch(0, 0))  # type: ignore[operator]
    loss.backward()  # type: ignore[no-untyped-call]
    unused = any(weight.grad is None for weight in network.parameters() if weight.requires_grad)
    network.zero_grad(set_to_none=True)
    return unused


def seed_step(seed: int, number: int, device: torch.device) -> None:
    """Seed torch for batch `number`.

    `torch.manual_seed` would also queue a call for CUDA, with the whole call stack, where there is no GPU.
    """
    mixed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    (torch.cuda if device.type == "cuda" else torch.default_generator).manual_seed(mixed)


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters in two groups: matrices, and those without decay (biases, norms, embeddings)."""
    tables = {
        id(weight) for part in network.modules() if isinstance(part, nn.Embedding) for weight in part.parameters()
    }
    learnt = [weight for weight in network.parameters() if weight.requires_grad]
    free = [weight for weight in learnt if weight.ndim < 2 or id(weight) in tables]
    free_ids = {id(weight) for weight in free}
    matrices = [weight for weight in learnt if id(weight) not in free_ids]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's state on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
