"""Sequence representations: journeys as ragged batches of steps.

kernels: Compiled kernels: which events make a step, where it lies, which items repeat.
sequences: Sequences: journeys as ragged batches of steps, for models that read them in order.
"""
