"""Metrics with intervals: overall, by group, as curves.

breakdown: Metrics apart by kind of customer and by time, and whether the base rate moved between train and
    test.
curves: Curves as tables: ROC, precision and recall, lift, calibration; each with a 95 % band from
    resampling customers.
customer_groups: How a model does on groups of customers: slices for the reviewer, and fairness over the
    columns that the user names.
metrics: How good probabilities are: every metric with a 95 % interval, by resampling customers rather than
    rows.
"""
