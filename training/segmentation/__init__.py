"""Segments of an experiment: fitted, explained, recorded.

explaining: Tables and metrics that explain a partition.
page: The page about an experiment's segments.
partitions: Every partition, fitted, and matched with the one in use.
quality: The predictive value of segments against RFM cells.
rows: The customers and moments of a segmentation.
segmenting: `segment`: from an experiment to segments in MLflow.
spark_segmenting: Segments of a log on Spark.
"""
