"""Hyperparameter search with Optuna over processes and machines.

folder: The folder of a search: the data that its workers read, the scores that they write, and its lock.
objective: A search's trial as a function of an Optuna trial, for whoever else drives the study:
    `MlflowSparkStudy`, for one.
report: The report of a search: which settings mattered, and a picture of how it went.
search: Search for settings: Optuna's trials over processes of this machine, resumable after `kill -9`.
storage: Where the trials of a search lie: a SQLite file in its folder, or a PostgreSQL that several machines
    share.
team_search: Searches that several machines share: one trains, the others help.
trials: The trials of a search: an Optuna study that several processes ask and tell, whole after any `kill -9`.
worker: A worker of a search: a process that asks for a trial, fits and scores its folds, and tells, until none
    is left.
"""
