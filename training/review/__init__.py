"""Two models side by side, and runs made again.

compare: Two runs or registered versions side by side, on rows that neither has seen.
reproduce: Make a run again from what MLflow holds, and say whether the numbers are the same.
"""
