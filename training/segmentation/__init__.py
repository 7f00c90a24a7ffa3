"""Segments of an experiment: fitted, explained, recorded.

explaining: Tables and metrics that explain a partition.
large_logs: `segment_log`: segments on every engine; on disk and Spark, choices on a sample, centres from all customers.
page: The page about an experiment's segments.
partitions: Every partition, fitted, and matched with the one in use.
quality: The predictive value of segments against RFM cells.
rows: The customers and moments of a segmentation.
segmenting: `SegmentationRun`: segments of packed journeys fitted, explained and recorded in MLflow.
"""
