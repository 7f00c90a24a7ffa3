"""Final models: fitted, compared, recorded.

comparison: What a model is worth: differences from its ablations, its probes and the members of a blend, row by
    row.
final_files: The files and pictures of a final model's run, under stable names.
finals: Final models: fitted on all training rows, kept on disk with their predictions, so that a killed
    training goes on.
train: From an experiment to models in MLflow: read, label, search, fit, measure, record.
"""
