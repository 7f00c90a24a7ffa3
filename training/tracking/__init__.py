"""MLflow: runs, registered models, promotion, saved views.

promotion: Who may be champion: the rules, pure statistics. `training.tracking.registry` carries them out.
registry: Registered models: what an URI means, and who becomes champion.
saved_views: The reviewer's desk: saved views of MLflow's run list, one a question, kept as tags of the
    experiment.
tracking: MLflow: where runs are kept, and how a search, its trials and the final models get there, once
    each.
"""
