"""A backbone, data and a study file small enough that a trial takes about a second, made without a network.

Good and bad words carry the labels, and lie apart in the embeddings of the backbone: its other weights are
random, yet a trial learns.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

GOOD = "good great fine lovely superb brilliant moving funny clever warm".split()
BAD = "bad awful dull poor weak boring clumsy cold stupid tedious".split()
FILLER = "the a film plot actor scene story music it was is and very so quite this that with of in".split()
PUNCTUATION = [".", ",", "!", "?"]
LAYERS, HIDDEN_SIZE, POSITIONS = 3, 32, 64
SPLITS = ("train", "validation", "test")


def make_backbone(folder: str | Path, family: str = "bert", seed: int = 0) -> Path:
    """Save a tiny random model of ``family`` and its fast tokenizer as a directory, and return it.

    Families: bert, roberta, distilbert, gpt2. 3 layers, hidden size 32, texts of 64 tokens (roberta: 62).
    """
    import torch
    import transformers

    from sweeper.backbone import quiet

    folder = Path(folder)
    tokenizer = _tokenizer(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(_config(family, len(tokenizer)))
        direction = torch.randn(HIDDEN_SIZE)
        for words, sign in ((GOOD, 1), (BAD, -1)):
            ids = torch.tensor(tokenizer.convert_tokens_to_ids(words))
            model.get_input_embeddings().weight.data[ids] += sign * direction
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _config(family: str, vocab_size: int) -> Any:
    import transformers

    encoder: dict[str, Any] = {
        "hidden_size": HIDDEN_SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "vocab_size": vocab_size,
        "initializer_range": 0.2,
    }
    if family == "bert":
        return transformers.BertConfig(pad_token_id=0, **encoder)
    if family == "roberta":
        return transformers.RobertaConfig(
            pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1, **encoder
        )
    sizes: dict[str, Any]
    if family == "distilbert":
        sizes = {"dim": HIDDEN_SIZE, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 64}
        sizes |= {"max_position_embeddings": POSITIONS, "vocab_size": vocab_size, "initializer_range": 0.2}
        return transformers.DistilBertConfig(pad_token_id=0, **sizes)
    if family == "gpt2":
        sizes = {"n_embd": HIDDEN_SIZE, "n_layer": LAYERS, "n_head": 4, "n_positions": POSITIONS}
        sizes |= {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": vocab_size, "initializer_range": 0.2}
        return transformers.GPT2Config(**sizes)
    raise ValueError(f"no tiny backbone of the family {family!r}")


def _tokenizer(family: str) -> Any:
    """A word-level tokenizer with the special tokens, and where they go, of the family."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = {
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "gpt2": ["<|endoftext|>", "<unk>"],
    }.get(family, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    words = [*special, *GOOD, *BAD, *FILLER, *PUNCTUATION]
    ids = {word: index for index, word in enumerate(words)}
    unknown = "<unk>" if "<unk>" in ids else "[UNK]"
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names: dict[str, Any] = {"unk_token": unknown, "model_input_names": ["input_ids", "attention_mask"]}
    if family == "gpt2":
        names |= {"bos_token": special[0], "eos_token": special[0]}
    elif family == "roberta":
        start, end = ("<s>", 0), ("</s>", 2)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[start, end]
        )
        names |= {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    else:
        start, end = ("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[start, end]
        )
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    if family == "bert":
        names["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_data(
    folder: str | Path,
    rows: tuple[int, int, int] | int = (96, 32, 32),
    kind: str = "classification",
    seed: int = 0,
) -> Path:
    """Write ``train.tsv``, ``validation.tsv`` and ``test.tsv`` and return their folder.

    Args:
        rows: of each split; one number n means n, n // 3 and n // 3.
        kind: "classification" (sentence, label: negative or positive), "pair" (first, second, label: 1 if
            both are positive, 0 if both are negative) or "regression" (sentence, score: half of the number of
            good minus that of bad words).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    counts = (rows, rows // 3, rows // 3) if isinstance(rows, int) else rows
    make_row = {"classification": _sentiment_row, "pair": _pair_row, "regression": _score_row}[kind]
    for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        random_ = random.Random(1000 * seed + number)
        made = [make_row(random_, index) for index in range(count)]
        with open(folder / f"{split}.tsv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(
                file, list(made[0]), delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(made)
    return folder


def _sentence(random_: random.Random, telling: list[str]) -> str:
    words = [*telling, *random_.choices(FILLER, k=random_.randint(2, 8))]
    random_.shuffle(words)
    return " ".join([*words, "."])


def _sentiment_row(random_: random.Random, index: int) -> dict[str, str]:
    words, label = ((BAD, "negative"), (GOOD, "positive"))[index % 2]
    return {"sentence": _sentence(random_, random_.choices(words, k=2)), "label": label}


def _pair_row(random_: random.Random, index: int) -> dict[str, str]:
    words, label = ((BAD, "0"), (GOOD, "1"))[index % 2]
    first, second = (_sentence(random_, random_.choices(words, k=1)) for _ in range(2))
    return {"first": first, "second": second, "label": label}


def _score_row(random_: random.Random, index: int) -> dict[str, str]:
    good = index % 5
    telling = random_.choices(GOOD, k=good) + random_.choices(BAD, k=4 - good)
    return {"sentence": _sentence(random_, telling), "score": str(0.5 * (2 * good - 4))}


def study_data(kind: str = "classification") -> dict[str, Any]:
    """The content of the study file that ``write_study`` writes before its overrides."""
    task: dict[str, Any] = {"kind": "classification", "text": "sentence", "label": "label", "pooling": "mean"}
    objective = {"metric": "accuracy", "direction": "maximize"}
    if kind == "pair":
        task["text"] = ["first", "second"]
    if kind == "regression":
        task |= {"kind": "regression", "label": "score"}
        objective["metric"] = "pearson"
    return {
        "study": "tiny",
        "backbone": {"model": "backbone"},
        "task": task,
        "data": {split: f"data/{split}.tsv" for split in SPLITS},
        "search": {
            "bottleneck_dim": {"from": 2, "to": 16, "log": True},
            "activation": ["relu", "gelu"],
            "initialization": ["zero_up", "normal"],
            "placement": ["houlsby", "pfeiffer"],
            "layers": ["all", "upper_half"],
            "learning_rate": {"from": 1.0e-3, "to": 1.0e-2, "log": True},
        },
        "train": {"epochs": 2, "batch_size": 16, "max_length": 32, "dtype": "float32"},
        "objective": objective,
        "budget": {"trials": 4},
        "pruner": "none",
        "seed": 0,
    }


def write_study(
    folder: str | Path, kind: str = "classification", family: str = "bert", **overrides: Any
) -> Path:
    """Write ``folder/study.yaml`` and return its path; backbone and data are made beside it unless there.

    Args:
        kind: as in ``make_data``.
        family: as in ``make_backbone``.
        overrides: top-level keys of the study file. A mapping is merged into the one that is there, anything
            else replaces it, and None takes a key away (inside a mapping, too).
    """
    import yaml

    folder = Path(folder)
    if not (folder / "backbone").exists():
        make_backbone(folder / "backbone", family)
    if not (folder / "data").exists():
        make_data(folder / "data", kind=kind)
    content = _merged(study_data(kind), overrides)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "search":
            merged[key] = merged[key] | {k: v for k, v in value.items() if v is not None}
            for gone in (k for k, v in value.items() if v is None):
                merged[key].pop(gone, None)
        else:
            merged[key] = value
    return merged
