"""Models of snapshots: fit, predict, explain, save, load.

baselines: The base rate, recency alone, and RFM with logistic regression. What a model must beat
    to be worth it.
calibration: Calibration: a continuous, strictly increasing map from a model's margin to a probability.
catalogue: The kinds of model there are, what a search may turn in each, how one is made, and what stands
    beside it.
contract: What every model of snapshots can do; training, tracking and serving know nothing else about it.
holdout: Which training rows a model keeps back to choose and to calibrate by: the late ones, of customers
    left out.
pyfunc: The MLflow side of a scoring folder: `loader_module="models.pyfunc"`, a signature, an input example;
    no pickle.
reasons: Reasons: contributions of many features, summed by subject, so that a person can read why.
saving: Saved models: a folder of data with `model.json` that names the kind; loading one never runs code
    from it.
boosting/: Gradient-boosted trees (LightGBM) on tabular features, and their compiled form.
ensembles/: Models made of other models: blends, and LightGBM on embeddings.
scoring/: Scoring raw events: the scoring folder, the golden sample that proves it, the training reference.
segments/: Segments of customers: found by clustering or set by rules, matched over time, explained.
sequence/: Sequence models (PyTorch): encoders, pretraining, fine-tuning, and their compiled runtime.
"""
