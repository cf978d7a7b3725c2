"""What commands and workers import, imported once in the server that tests fork from. Starts no thread."""

import datasets
import mlflow
import optuna
import transformers
from sklearn import metrics
from transformers import AutoConfig, AutoModel, AutoTokenizer

import sweeper.cli
import sweeper.worker.process

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoTokenizer",
    "datasets",
    "metrics",
    "mlflow",
    "optuna",
    "sweeper",
    "transformers",
]
