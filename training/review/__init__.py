"""Two models side by side, and runs made again.

compare: Two runs or registered versions side by side: figures, what made them, and the paired difference on
    the same rows.
reproduce: Make a run again from what MLflow holds, and say whether the numbers are the same.
"""
