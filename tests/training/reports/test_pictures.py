from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from features.errors import ConfigError
from training.reports.picture_style import save, spread
from training.reports.pictures import (
    Predictions,
    draw_evaluation,
    draw_learning_curve,
    importance,
    learning,
    roc,
    score_over_time,
)

DAY = 86_400_000_000
ALWAYS = ["roc.png", "pr.png", "calibration.png", "lift.png", "scores.png"]


def models(n: int = 400, names: tuple[str, ...] = ("LightGBM", "rfm", "base_rate")) -> list[Predictions]:
    rng = np.random.default_rng(0)
    z = rng.normal(-1, 1, n)
    y = (rng.random(n) < expit(z)).astype(int)
    chosen, when = rng.integers(0, 150, n), rng.integers(0, 4, n) * 14 * DAY
    p = [expit(z), expit(z + rng.normal(size=n)), np.full(n, 0.3)]
    weights = {f"feature {i}, a name that is much too long to fit beside a bar": 1 / (i + 1) for i in range(25)}
    return [Predictions(name, y, p[i % 3], chosen, when, weights) for i, name in enumerate(names)]


def test_pictures_are_deterministic(tmp_path: Path) -> None:
    texts = sys.modules.get("matplotlib.pyplot")
    first = draw_evaluation(models(), tmp_path / "new" / "a", earlier=models(300))
    assert [path.name for path in first] == [*ALWAYS, "importance.png", "score_over_time.png"]
    assert first[0].read_bytes() == save(roc(models()), tmp_path / "again.png").read_bytes()
    for item in first:
        pixels = matplotlib.image.imread(item)  # (height, width, 4)
        assert pixels.shape[1] == 1080
        assert (pixels[..., 3] == 1).all(), "opaque, so that it reads on a dark page"
        assert 0.005 < (pixels[..., :3].min(axis=2) < 0.6).mean() < 0.4
    assert sys.modules.get("matplotlib.pyplot") is texts, "pyplot must not be loaded for this"


def test_tiny_evaluations(tmp_path: Path) -> None:
    single_class = Predictions("alone", np.zeros(40), np.linspace(0, 0.2, 40), np.arange(40), np.zeros(40, np.int64))
    assert len(draw_evaluation([single_class], tmp_path)) == 6
    single = Predictions("alone", [1, 0], [0.4, 0.4], ["a", "a"])
    assert [path.name for path in draw_evaluation([single], tmp_path)] == ALWAYS


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="7 models"):
        draw_evaluation(models(names=tuple("abcdefg")), tmp_path)
    bare = Predictions("bare", [1, 0], [0.4, 0.4], ["a", "b"])
    with pytest.raises(ConfigError, match="no importance"):
        importance(bare)
    with pytest.raises(ConfigError, match="no cutoffs"):
        score_over_time([bare])


def test_labels_keep_their_distance() -> None:
    places = spread([0.5, 0.5, 0.51, 0.9, 0.93], gap=0.1)
    assert np.diff(places).min() >= 0.1 - 1e-9
    assert places[:3] == pytest.approx([0.4033, 0.5033, 0.6033], abs=1e-3)
    assert spread([1.0, 2.0], gap=0.5) == [1.0, 2.0]


def a_history() -> pd.DataFrame:
    rows = [("pretraining", epoch, "train_loss", 4 / (1 + epoch)) for epoch in range(8)]
    for member in range(1, 9):
        for epoch in range(5 + member % 3):
            rows.append((f"member {member}", epoch, "train_loss", 0.7 / (1 + epoch)))
            rows.append((f"member {member}", epoch, "check_loss", 0.5 + (epoch - 3) ** 2 / 100))
            rows.append((f"member {member}", epoch, "learning_rate", 0.002))
    return pd.DataFrame(rows, columns=["part", "epoch", "name", "value"])


def test_learning_curve_panels(tmp_path: Path) -> None:
    path = draw_learning_curve("gru", a_history(), tmp_path / "new")
    assert path.name == "learning.png"
    assert path.read_bytes() == save(learning("gru", a_history()), tmp_path / "again.png").read_bytes()
    pretraining, members = learning("gru", a_history()).axes
    assert (pretraining.get_ylabel(), members.get_ylabel()) == ("Loss, pretraining", "Loss, member")
    assert len(members.lines) == 8 * 3, "two losses and the best epoch of each member"
    lines = [line_style for line_style in members.lines if line_style.get_marker() == "o"]
    assert {float(np.asarray(line_style.get_xdata()).item()) for line_style in lines} == {3.0}
    nothing = pd.DataFrame({"part": ["fit"], "epoch": [0], "name": ["seconds"], "value": [np.nan]})
    with pytest.raises(ConfigError, match="holds no loss"):
        learning("gru", nothing)
    bad_row = pd.DataFrame({"part": ["fit"], "epoch": [0], "name": ["check_loss"], "value": [np.nan]})
    assert len(learning("gru", bad_row).axes) == 1
