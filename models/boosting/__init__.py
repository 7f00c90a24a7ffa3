"""Gradient-boosted trees (LightGBM) on tabular features, and their compiled form.

compiled_trees: Boosted trees compiled for many rows at once: a LightGBM booster's margins to the last bit,
    in a tenth of the time.
gbdt: Gradient-boosted trees (LightGBM) on tabular features: members stopped early on later rows of unseen
    customers.
kernels: Compiled kernel that adds up boosted trees for many rows at once.
"""
