"""Sequence representations: journeys as ragged batches of steps.

kernels: Compiled kernels that lay journeys out as sequences: which events make a step, where each step
    goes, what came again.
sequences: Sequences: journeys as ragged batches of steps, for models that read them in order.
"""
