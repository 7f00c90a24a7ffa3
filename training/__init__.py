"""Splits, evaluation, Optuna search, MLflow tracking and registry, promotion."""
