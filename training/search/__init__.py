"""Hyperparameter search with Optuna over processes and machines.

folder: What a search keeps on disk: the data its workers read, the scores they write, and who holds the
    folder.
objective: A search's trial as a function of an Optuna trial, for whoever else drives the study:
    `MlflowSparkStudy`, for one.
process: A worker of a search, as its parent sees it: a process that is told what to fit and answers line by
    line.
report: What happened in a search: which settings mattered, and a picture of how it went.
search: Search for settings: Optuna's trials over processes of this machine, resumable after `kill -9`.
shared_trials: The book of trials where several machines write it: every trial is done once, whoever dies.
storage: What several machines share while they search: a PostgreSQL with Optuna's tables, leases on trials,
    scores of folds.
team_search: Searches that several machines share: one trains, the others help.
trials: The book of trials: an Optuna study in one SQLite file, written by one process, readable after any
    `kill -9`.
worker: One worker of a search: reads the job once, then fits and scores one fold of one trial for each line
    it gets.
"""
