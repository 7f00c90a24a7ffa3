"""MLflow: runs, registered models, promotion, saved views.

champions: Promotion: a model is registered, and its version gets the alias that it has earned.
comparison: Two models side by side: recorded metrics, what made them, and the paired difference on the same
    rows.
promotion: The rules of promotion: statistics on predictions, without MLflow.
registry: Registered models: what a URI means, and the version of a model.
saved_views: Saved views of MLflow's run list, one a question, kept as tags of the experiment.
tracking: Runs in MLflow: a search, its trials and the final models get there once each, whoever is killed.
"""
