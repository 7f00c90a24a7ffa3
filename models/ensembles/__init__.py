"""Models made of other models: blends, and LightGBM on embeddings.

blend: A blend: one calibrated probability from those of several models, each with a weight that is not
    negative.
embedding_gbdt: LightGBM on tabular features and the embedding of a pretrained encoder side by side.
"""
