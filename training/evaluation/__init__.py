"""Metrics with intervals: overall, by group, as curves; for each family of answers.

amounts: Metrics of predicted amounts, counts and other numbers.
bootstrap: Metrics with 95 % intervals and paired differences, by resampling customers, for any family of metrics.
breakdown: Metrics by kind of customer and by time, and whether the mean label moved between train and test.
curves: Curves as tables: ROC, precision and recall, lift, calibration; each with a 95 % band.
customer_groups: Quality on groups of customers: slices for the reviewer, and fairness by the columns that the
    user names.
families: The families of metrics by name, and a task's answers measured by its family.
metrics: Metrics of probabilities.
"""
