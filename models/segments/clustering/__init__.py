"""Segments found by clustering.

algorithms: Clusterings of points: fitted by scikit-learn, assigned without it.
choice: How many segments, and by which method: what comes out the same on bootstrap samples, with sizes in
    view.
clusters: Found segments: clusters of customers by how they behave and what they do; new customers are
    assigned without a fit.
embedding_view: What an encoder of journeys sees in a customer, as a view for clustering: principal axes of
    its embeddings.
kernels: Compiled kernels of the space that customers are clustered in: counts of values, normal scores,
    products, distances.
refinement: Centres of all customers from partial results: further steps of k-means and of a mixture,
    wherever the points lie.
space: The space that customers are clustered in: a few axes from their snapshots, learnt in training, numpy
    when served.
views: Views of a customer for clustering: how they behave, what their events consist of, what an encoder
    sees in them.
"""
