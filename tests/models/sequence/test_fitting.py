"""A fit ends with the best weights, the same ones however often it was interrupted, and leaves no trace behind."""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from features.errors import ConfigError, DataError
from kill_fit import Reader, Sums, run
from models.contract import FitPruned
from models.sequence.checkpoints import read_state
from models.sequence.fit_settings import CHECKPOINT, Batches, FitSettings
from models.sequence.fitting import FitDiverged, fit_network

TRAIN, CHECK = Sums(n=5, rows=8, length=6), Sums(n=3, rows=8, length=6, seed=1)
QUICK = FitSettings(epochs=3, checkpoint_every_s=0.0, seed=5)


class Climber(nn.Module):
    """One weight that climbs by the learning rate at each step; the check loss is its distance from `top`."""

    def __init__(self, top: float = 0.0) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.zeros(()))
        self.top = top

    def loss(self, batch: Tensor) -> Tensor:
        return -self.height * batch

    def check(self, batch: Tensor) -> tuple[Tensor, int]:
        return (self.height - self.top).abs() * 2, 2


@dataclass(frozen=True)
class Ones:
    n: int = 10

    def __len__(self) -> int:
        return self.n

    def batch(self, epoch: int, number: int) -> Tensor:
        return torch.ones(())


class Stops:
    """Batches that fail, or are interrupted, when they have been asked for a number of times."""

    def __init__(self, batches: Batches, after: int, how: Callable[[], None]) -> None:
        self.batches, self.left, self.how = batches, after, how

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, epoch: int, number: int) -> Any:
        if self.left == 0:
            self.how()
        self.left -= 1
        return self.batches.batch(epoch, number)


class PowerCutError(Exception):
    pass


def cut() -> None:
    raise PowerCutError


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def numbers(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns=["seconds", "data_seconds"])


@pytest.fixture(scope="module")
def whole() -> tuple[Reader, pd.DataFrame]:
    """A network that was fitted in one go, and its curve."""
    network = Reader()
    return network, fit_network(network, TRAIN, CHECK, QUICK)


# What comes out


def test_one_row_an_epoch_and_the_weights_of_the_best(whole: tuple[Reader, pd.DataFrame]) -> None:
    network, history = whole
    assert list(history.columns) == ["epoch", "train_loss", "check_loss", "learning_rate", "seconds", "data_seconds"]
    assert history["epoch"].tolist() == [0, 1, 2]
    assert (history["data_seconds"].gt(0) & history["data_seconds"].lt(history["seconds"])).all()
    batches = [CHECK.batch(0, number) for number in range(len(CHECK))]
    with torch.no_grad():
        by_hand = sum(float(network.check(batch)[0]) for batch in batches) / (3 * 8)
    assert by_hand == pytest.approx(history["check_loss"].min(), rel=1e-6)
    assert not network.training
    assert all(weight.grad is None for weight in network.parameters())


def test_it_stops_when_it_only_gets_worse_and_keeps_the_best() -> None:
    climber = Climber(top=0.5)
    settings = FitSettings(epochs=50, learning_rate=0.02, patience=3, warmup_share=0.0, weight_decay=0.0)
    history = fit_network(climber, Ones(), Ones(1), settings)
    assert 2 <= history["check_loss"].idxmin() == len(history) - 1 - 3
    assert float((climber.height.detach() - 0.5).abs()) == pytest.approx(history["check_loss"].min(), abs=1e-6)


def test_patience_0_goes_on_to_the_end() -> None:
    history = fit_network(Climber(top=-1.0), Ones(2), Ones(1), FitSettings(epochs=8, patience=0))
    assert len(history) == 8
    assert history["check_loss"].is_monotonic_increasing


def test_the_last_weights_can_be_kept_instead() -> None:
    climber = Climber(top=-1.0)
    history = fit_network(climber, Ones(2), Ones(1), FitSettings(epochs=8, patience=3, keep="last"))
    assert len(history) == 4
    assert float(climber.height.detach()) + 1.0 == pytest.approx(history["check_loss"].iloc[-1])


def test_without_check_batches_the_last_weights_stay() -> None:
    climber = Climber()
    history = fit_network(climber, Ones(4), None, FitSettings(epochs=2, warmup_share=0.0))
    assert history["check_loss"].isna().all()
    assert float(climber.height.detach()) == pytest.approx(sum(rates(8, 0.0)) * 2e-3, rel=1e-4)  # Adam's steps


def rates(steps: int, warmup: float) -> list[float]:
    from models.sequence.fit_settings import rate_share

    return [rate_share(step, steps, warmup) for step in range(steps)]


def test_the_rate_climbs_then_follows_a_cosine() -> None:
    history = fit_network(Climber(), Ones(4), None, FitSettings(epochs=5, learning_rate=0.1, warmup_share=0.25))
    shares = rates(20, 0.25)
    assert shares[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert shares[12:13] == pytest.approx([0.5 * (1 + math.cos(math.pi * 7 / 15))])
    assert history["learning_rate"].tolist() == pytest.approx([shares[last] * 0.1 for last in (3, 7, 11, 15, 19)])


def test_biases_norms_and_embeddings_are_not_decayed() -> None:
    from models.sequence.lightning_fit import decay_groups

    network = Reader()
    names = {id(weight): name for name, weight in network.named_parameters()}
    decayed, free = ({names[id(weight)] for weight in group["params"]} for group in decay_groups(network, 0.1))
    assert decayed == {"gru.weight_ih_l0", "gru.weight_hh_l0", "head.weight"}
    assert free == set(names.values()) - decayed


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped(precision: str) -> None:
    norms: list[float] = []

    def note(optimizer: Any, args: Any, kwargs: Any) -> None:
        if grads := [w.grad for group in optimizer.param_groups for w in group["params"] if w.grad is not None]:
            norms.append(float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads]))))

    handle = register_optimizer_step_post_hook(note)
    try:
        settings = replace(QUICK, epochs=1, clip_norm=0.01, precision=precision)
        fit_network(Reader(), TRAIN, None, settings)
    finally:
        handle.remove()
    assert len(norms) == len(TRAIN)
    assert max(norms) <= 0.01 * (1 + 1e-3)


def test_only_the_seed_decides(whole: tuple[Reader, pd.DataFrame]) -> None:
    again, other = Reader(), Reader()
    torch.manual_seed(12345)
    assert numbers(fit_network(again, TRAIN, CHECK, QUICK)).equals(numbers(whole[1]))
    assert same(again, whole[0])
    fit_network(other, TRAIN, CHECK, replace(QUICK, seed=6))
    assert not same(other, whole[0])


def test_fits_in_two_threads_do_not_disturb_each_other(whole: tuple[Reader, pd.DataFrame]) -> None:
    networks = [Reader(), Reader()]
    threads = [threading.Thread(target=fit_network, args=(network, TRAIN, CHECK, QUICK)) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(networks[0], whole[0])
    assert same(networks[1], whole[0])


# Who watches


def test_who_watches_is_told_of_each_epoch_and_can_stop_it(tmp_path: Path) -> None:
    reported: list[tuple[int, float]] = []

    def report(epoch: int, loss: float) -> bool:
        reported.append((epoch, loss))
        return epoch == 1

    with pytest.raises(FitPruned):
        fit_network(Reader(), TRAIN, CHECK, QUICK, folder=tmp_path, report=report)
    with pytest.raises(FitPruned):
        fit_network(Reader(), TRAIN, CHECK, QUICK, folder=tmp_path, report=report)
    assert [epoch for epoch, _ in reported] == [0, 1]
    assert all(type(loss) is float for _, loss in reported)


def test_an_error_of_who_watches_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        fit_network(Reader(), TRAIN, CHECK, QUICK, report=lambda epoch, loss: bool(1 / 0))


# Resume


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5, 6, 10, 12])
def test_a_resumed_fit_ends_as_if_it_had_not_been_interrupted(
    after: int, tmp_path: Path, whole: tuple[Reader, pd.DataFrame]
) -> None:
    with pytest.raises(PowerCutError):
        fit_network(Reader(), Stops(TRAIN, after, cut), CHECK, QUICK, folder=tmp_path)
    if after:
        saved = read_state(tmp_path / CHECKPOINT)
        assert saved["global_step"] == after
    resumed = Reader()
    history = fit_network(resumed, Stops(TRAIN, 15 - after, cut), CHECK, QUICK, folder=tmp_path)
    assert numbers(history).equals(numbers(whole[1]))
    assert same(resumed, whole[0])
    assert os.listdir(tmp_path) == [CHECKPOINT]


def test_it_may_be_interrupted_again_and_again_also_while_checking(
    tmp_path: Path, whole: tuple[Reader, pd.DataFrame]
) -> None:
    for train, check in ((2, 9), (2, 9), (9, 1), (4, 9), (9, 2), (3, 9), (9, 0)):
        with pytest.raises(PowerCutError):
            fit_network(Reader(), Stops(TRAIN, train, cut), Stops(CHECK, check, cut), QUICK, folder=tmp_path)
    resumed = Reader()
    assert numbers(fit_network(resumed, TRAIN, CHECK, QUICK, folder=tmp_path)).equals(numbers(whole[1]))
    assert same(resumed, whole[0])


def test_a_resumed_fit_still_knows_its_best_epoch_and_its_patience(tmp_path: Path) -> None:
    settings = FitSettings(epochs=50, learning_rate=0.02, patience=3, warmup_share=0.0, weight_decay=0.0)
    one, two = Climber(0.5), Climber(0.5)
    expected = fit_network(one, Ones(), Ones(1), settings)
    with pytest.raises(PowerCutError):  # after the best epoch
        fit_network(Climber(0.5), Stops(Ones(), len(expected) * 10 - 15, cut), Ones(1), settings, folder=tmp_path)
    assert numbers(fit_network(two, Ones(), Ones(1), settings, folder=tmp_path)).equals(numbers(expected))
    assert same(one, two)


def test_a_finished_fit_is_only_read(tmp_path: Path, whole: tuple[Reader, pd.DataFrame]) -> None:
    first = fit_network(Reader(), TRAIN, CHECK, QUICK, folder=tmp_path)
    again = Reader()
    assert fit_network(again, Stops(TRAIN, 0, cut), Stops(CHECK, 0, cut), QUICK, folder=tmp_path).equals(first)
    assert same(again, whole[0])


def test_the_folder_of_another_fit_is_refused(tmp_path: Path) -> None:
    fit_network(Climber(), Ones(2), None, FitSettings(epochs=1), folder=tmp_path)
    with pytest.raises(ConfigError, match=r"epochs 1 there, 2 now.*Delete it"):
        fit_network(Climber(), Ones(2), None, FitSettings(epochs=2), folder=tmp_path)
    with pytest.raises(ConfigError, match="weights"):
        fit_network(Reader(), Ones(2), None, FitSettings(epochs=1), folder=tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"broken")
    with pytest.raises(DataError, match="Delete it"):
        fit_network(Climber(), Ones(2), None, FitSettings(epochs=1), folder=tmp_path)


@pytest.mark.slow
def test_a_fit_killed_with_9_ends_with_the_same_weights(tmp_path: Path) -> None:
    figures = run(tmp_path, epochs=2, kills=3, seed=1)
    assert figures["ok"], figures
    assert figures["largest_difference"] == 0.0


# What is left behind: nothing


@contextmanager
def unchanged() -> Iterator[None]:
    def world() -> list[Any]:
        loggers = ("", "lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities")
        return [
            torch.get_rng_state().tolist(),
            random.getstate(),
            repr(np.random.get_state()),  # noqa: NPY002
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            list(warnings.filters),
            [logging.getLogger(name).level for name in loggers],
            dict(os.environ),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            sorted(os.listdir()),
        ]

    before = world()
    yield
    assert world() == before


@pytest.mark.usefixtures("whole")  # Lightning's import has effects of its own
def test_the_process_is_as_it_was_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with unchanged(), torch.no_grad():
        fit_network(Reader(), TRAIN, CHECK, QUICK)
        fit_network(Reader(), TRAIN, None, replace(QUICK, precision="bf16-mixed"), progress=True)  # no terminal
    with unchanged(), pytest.raises(PowerCutError):
        fit_network(Reader(), Stops(TRAIN, 2, cut), CHECK, QUICK)
    assert capfd.readouterr() == ("", "")


def test_the_bar_is_shown_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fit_network(Reader(), TRAIN, CHECK, QUICK, progress=True)
    assert "check_loss=0." in "".join(capsys.readouterr())


@pytest.fixture
def custom_sigint() -> Iterator[None]:
    """Python's own answer to Ctrl-C: a shell ignores it in the processes that it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_arrives_and_the_fit_can_be_gone_on_with(
    tmp_path: Path, whole: tuple[Reader, pd.DataFrame], custom_sigint: None
) -> None:
    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with unchanged(), pytest.raises(KeyboardInterrupt):
        fit_network(Reader(), Stops(TRAIN, 7, press), CHECK, QUICK, folder=tmp_path)
    resumed = Reader()
    fit_network(resumed, TRAIN, CHECK, QUICK, folder=tmp_path)
    assert same(resumed, whole[0])


def test_nothing_heavy_is_imported_before_a_fit() -> None:
    code = (
        "import sys, models.sequence.fitting, models.sequence.checkpoints; print([n for n in ('lightning', "
        "'torch') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# What cannot be fitted


def test_a_loss_that_is_not_finite_is_an_error_with_a_remedy() -> None:
    with pytest.raises(FitDiverged, match="Lower learning_rate"):
        fit_network(Climber(top=math.nan), Ones(2), Ones(1), FitSettings(epochs=5))


def test_a_fit_that_diverges_late_keeps_its_best_epoch() -> None:
    class Cliff(Climber):
        def loss(self, batch: Tensor) -> Tensor:
            return super().loss(batch) + torch.log(0.01 - self.height.detach())

    history = fit_network(Cliff(top=1.0), Ones(3), Ones(1), FitSettings(epochs=9, warmup_share=0.0))
    assert 2 <= len(history) < 9
    assert history["train_loss"].isna().tolist() == [False] * (len(history) - 1) + [True]


def test_no_batches_and_impossible_settings_are_errors() -> None:
    with pytest.raises(ConfigError, match="no check batches"):
        fit_network(Climber(), Ones(2), Ones(0), FitSettings())
    with pytest.raises(ConfigError, match="patience is -1"):
        FitSettings(patience=-1)
    with pytest.raises(ConfigError, match="epochs=0"):
        FitSettings(epochs=0)


# Several processes


@dataclass(frozen=True)
class Pairs:
    """Two batches of another source as one, as two processes see them in one step."""

    batches: Batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / 2)

    def batch(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        parts = [self.batches.batch(epoch, (2 * number + rank) % len(self.batches)) for rank in (0, 1)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def calm() -> Reader:
    """Without dropout, whose random numbers differ between one process and two."""
    network = Reader()
    network.dropout.p = 0.0
    return network


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported: list[float] = []

    def report(epoch: int, loss: float) -> bool:
        reported.append(loss)
        return False

    one, two = calm(), calm()
    settings = replace(QUICK, epochs=2)
    expected = fit_network(one, Pairs(TRAIN), CHECK, settings)
    with unchanged():
        result = fit_network(two, TRAIN, CHECK, replace(settings, devices=2), folder=tmp_path, report=report)
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
    columns = ["train_loss", "check_loss", "learning_rate"]
    pd.testing.assert_frame_equal(result[columns], expected[columns], rtol=1e-4)
    assert reported == result["check_loss"].tolist()
    assert capfd.readouterr() == ("", "")
    again = fit_network(Reader(), TRAIN, CHECK, replace(settings, devices=2), folder=tmp_path)
    assert again.equals(result)
