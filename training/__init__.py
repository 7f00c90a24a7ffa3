"""Splits, evaluation, Optuna search, MLflow tracking and registry, promotion.

progress: What long work shows: a bar on a terminal, plain lines in a log, nothing where no console is
    given.
config/: What an experiment file says: sources, tasks, models, segments, reports, engines.
data/: Labelled snapshots: label tables, splits, records of provenance, features written to Parquet.
drafting/: The draft of an experiment file from a log that nobody has described.
evaluation/: Metrics with intervals: overall, by group, as curves.
fitting/: Final models: fitted, compared, recorded.
journey_map/: The journey map's page, pictures and command.
monitoring/: Served answers compared with the training reference, and with what came true.
reports/: What reviewers read: model cards, pictures, HTML tables.
review/: Two models side by side, and runs made again.
scoring/: Scores for a log of events on each engine.
search/: Hyperparameter search with Optuna over processes and machines.
segmentation/: Segments of an experiment: fitted, explained, recorded.
tracking/: MLflow: runs, registered models, promotion, saved views.
"""
