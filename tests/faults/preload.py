"""What a worker imports, imported once in the server that workers are forked from. Starts no thread."""

import datasets
import optuna
import transformers
from sklearn import metrics
from transformers import AutoConfig, AutoModel, AutoTokenizer

import sweeper.worker.process

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoTokenizer",
    "datasets",
    "metrics",
    "optuna",
    "sweeper",
    "transformers",
]
