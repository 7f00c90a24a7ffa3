"""Segments by clustering.

algorithms: K-means, mixtures and clusters by density, fitted by scikit-learn and assigned without it.
choice: How many segments, by which method and on how many axes: stability on bootstrap samples.
clusters: The partition: its settings, fit, assignment and files.
embedding_view: An encoder's embeddings as a view.
kernels: Compiled kernels: counts of values, normal scores, products, distances.
refinement: Centres of all customers from partial results, where the fit saw a sample.
space: The axes that are clustered: views weighted and rotated to principal axes.
views: Views of a customer: behaviour, and the composition of events.
"""
