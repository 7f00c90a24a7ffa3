"""Labels: what happened between a cutoff and its horizon, and for which candidates.

kernels: Compiled look-ups around a cutoff: was one of the wanted touchpoints seen just before it, or from
    it on?
label_table: A label table that the user brings: `customer_id, cutoff, label`, optionally `split`; a row a
    snapshot.
labels: Labels: what happened in `[cutoff, cutoff + horizon)` to those who were candidates at the cutoff.
"""
