"""A valid study file as text, for tests that break it; its backbone and data are empty stand-ins by name."""

from __future__ import annotations

from pathlib import Path

STUDY = """\
study: films
backbone:
  model: backbone
task:
  kind: classification
  text: sentence
  label: label
  pooling: mean
data:
  train: data/train.tsv
  validation: data/validation.tsv
  test: 0.1
search:
  bottleneck_dim: {from: 4, to: 256, log: true}
  activation: [relu, gelu]
  initialization: zero_up
  placement: [houlsby, pfeiffer]
  layers: [all, upper_half, [0, 2, 4]]
  scaling: 1.0
  dropout: {from: 0.0, to: 0.3, step: 0.1}
  learning_rate: {from: 1.0e-4, to: 1.0e-2, log: true}
train:
  epochs: 3
  batch_size: 32
objective:
  metric: accuracy
  direction: maximize
limits:
  trainable_parameters: 500000
budget:
  trials: 60
  hours: 2
sampler: {name: tpe, n_startup_trials: 5}
pruner: successive_halving
seed: 7
"""


def write_study_text(folder: Path, text: str = STUDY) -> Path:
    """Write the text to ``folder/study.yaml``, and beside it the files that STUDY names."""
    (folder / "backbone").mkdir(exist_ok=True)
    (folder / "backbone" / "config.json").write_text("{}")
    (folder / "data").mkdir(exist_ok=True)
    for split in ("train", "validation"):
        (folder / "data" / f"{split}.tsv").write_text("sentence\tlabel\nfine\t1\n")
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def replaced(old: str, new: str) -> str:
    """STUDY with one piece exchanged, which must occur exactly once."""
    assert STUDY.count(old) == 1, f"{old!r} occurs {STUDY.count(old)} times"
    return STUDY.replace(old, new)


def line_of(text: str, piece: str) -> int:
    """The number, from 1, of the first line that holds the piece."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if piece in line)
