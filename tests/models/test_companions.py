"""What runs beside the searched kinds: ablations, the probe of an untrained encoder, LightGBM on an embedding."""

from __future__ import annotations

from typing import Any

from models.catalogue import companions, make
from models.ensembles.embedding_gbdt import EmbeddingGBDT
from models.sequence.model import SequenceModel
from models.sequence.probe import Probe

GRU: dict[str, Any] = {"hidden": 16, "objective": "both", "epochs": 3, "sequences": {"max_steps": 50}, "features": {}}
BOOSTER: dict[str, Any] = {"num_leaves": 5, "features": {"groups": ["rfm"]}}


def test_a_sequence_model_gets_twins_an_untrained_probe_and_an_embedding_beside_lightgbm() -> None:
    result = {each.name: each for each in companions({"gbdt": BOOSTER, "gru": GRU})}
    assert {name: (each.kind, each.role, each.of) for name, each in result.items()} == {
        "gru_shuffled": ("gru", "ablation", ("gru",)),
        "gru_without_time": ("gru", "ablation", ("gru",)),
        "untrained_probe": ("probe", "probe", ("gru",)),
        "embedding_gbdt": ("embedding_gbdt", "model", ("gbdt",)),
    }
    assert all(each.note.endswith(".") or ":" in each.said for each in result.values())
    built = {name: make(each.kind, each.settings) for name, each in result.items()}
    shuffled, timeless = built["gru_shuffled"], built["gru_without_time"]
    assert isinstance(shuffled, SequenceModel)
    assert isinstance(timeless, SequenceModel)
    assert (shuffled.settings.sequences.order, shuffled.settings.sequences.time) == ("shuffled", True)
    assert (timeless.settings.sequences.order, timeless.settings.sequences.time) == ("kept", False)
    for ablation in (shuffled, timeless):
        assert (ablation.settings.hidden, ablation.settings.epochs, ablation.settings.sequences.max_steps) == (
            16,
            3,
            50,
        )
    probe, booster = built["untrained_probe"], built["embedding_gbdt"]
    assert isinstance(probe, Probe)
    assert (probe.settings.objective, probe.settings.network, probe.settings.hidden) == ("none", "gru", 16)
    assert isinstance(booster, EmbeddingGBDT)
    assert (booster.settings.num_leaves, booster.settings.features.groups) == (5, ("rfm",))
    assert (booster.settings.encoder.objective, booster.settings.encoder.hidden) == ("both", 16)


def test_each_sequence_kind_has_twins_and_together_one_untrained_probe() -> None:
    settings = {"gru": GRU, "transformer": GRU | {"hidden": 32}, "probe": {"hidden": 8, "network": "transformer"}}
    result = companions(settings)
    ablations = [each for each in result if each.role == "ablation"]
    assert sorted(each.name for each in ablations) == sorted(
        f"{kind}_{robbed}" for kind in settings for robbed in ("shuffled", "without_time")
    )
    assert len({each.name for each in result}) == len(result)
    assert len([each for each in result if each.role == "probe"]) == 1
    for ablation in ablations:
        built = make(ablation.kind, ablation.settings)
        assert isinstance(built, SequenceModel | Probe)
        assert built.settings.hidden == settings[ablation.kind]["hidden"]


def test_the_settings_that_were_found_stay_as_they_are() -> None:
    before = repr((GRU, BOOSTER))
    companions({"gbdt": BOOSTER, "gru": GRU})
    assert repr((GRU, BOOSTER)) == before


def test_lightgbm_alone_has_no_companions() -> None:
    assert companions({"gbdt": BOOSTER}) == []
