"""Scoring raw events: the scoring folder, the golden sample that proves it, the training reference.

golden_sample: A sample of raw journeys with the answers that a run recorded: proof that a model stays the
    same.
scorer: A scoring folder: a model with all that is needed to score raw events, and the one code that does
    it.
training_reference: What a champion saw in training, small enough to travel with it: the bins and shares
    that a monitor compares with.
"""
