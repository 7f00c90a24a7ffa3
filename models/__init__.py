"""Models of snapshots: fit, predict, explain, save, load."""
