"""Write the data that the study files of each kind of task run on: ``python -m sweeper.examples FOLDER``.

Sentences with named entities, and reviews with the things that they speak of, are made from templates, the
same at every call. Sentences on products, with the mean of what people gave each, lie in the archive of the
quickstart's films. The texts for a language model are the negative sentences of the quickstart; since its
backbone is no decoder, a tiny GPT-2 is made as well, and trained for a minute on the positive ones. Give
FOLDER the name ``examples`` beside the study files; the quickstart's own files go into ``quickstart`` there.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sweeper.disk import sha256
from sweeper.domains import DOMAINS
from sweeper.quickstart import (
    FILMS,
    Fetch,
    from_shell,
    pip_download,
    quickstart,
    rate_sentences,
    write_rated,
)

RATINGS_SHA256 = "a320f5b756d315badf380a046afb0bee3c037a81155bd925e3064a6548b3e2f0"
ROWS = 1200
VOCABULARY, POSITIONS, WIDTH, LAYERS = 1000, 64, 64, 4
PRETRAINING_STEPS, PRETRAINING_BATCH = 400, 32

_LABELS = ("positive", "negative")
_FIRST = "Anna Boris Clara David Elena Farid Grace Henrik Ingrid Jamal Keiko Lars Maria".split()
_LAST = "Adler Baker Castillo Dubois Eriksen Fischer Garcia Hansen Ivanova Jensen Keller Lopez Moreau".split()
_PLACES = [
    "Berlin", "New York", "Lagos", "Sao Paulo", "Kyoto", "Cape Town", "Oslo", "Buenos Aires", "Cairo", "Lyon",
    "Mexico City", "Perth", "Toronto", "Jordan", "Washington",
]  # fmt: skip
_STEMS = "Northwind Acme Global Orion Baltic Summit Pacific Granite Jordan Washington Keller Hansen".split()
_ENDS = ["Bank", "Airlines", "Motors", "Foods", "University", "Media Group", "Press"]
_SENTENCES = [
    "{PER} moved from {LOC} to {LOC} last year .",
    "{ORG} opened an office in {LOC} , said {PER} .",
    "According to {PER} , {ORG} will not leave {LOC} .",
    "{PER} and {PER} met in {LOC} on Tuesday .",
    "Shares of {ORG} fell after {ORG} cut its forecast .",
    "The mayor of {LOC} welcomed {PER} of {ORG} .",
    "In {LOC} it rained all week .",
    "{PER} reads the news every morning .",
    "Nobody at {ORG} wanted to comment .",
    "The bank raised its rates again this summer .",
]
_ASPECTS = {
    "battery": ["it lasts two days on one charge", "it is empty by noon", "charging takes forever"],
    "delivery": ["it arrived a week late", "the parcel came the next day", "the box was crushed"],
    "price": ["far too expensive for what it is", "worth every cent", "I found it cheaper elsewhere"],
    "screen": ["the colours are bright", "it is too dim outdoors", "a scratch after one day"],
    "support": [
        "nobody answered my mails",
        "the hotline helped at once",
        "they replaced it without a question",
    ],
}
_NEUTRAL = ["I bought it in May", "my sister has the same one", "it was a present", "we use it every day"]


def entity_rows(rows: int = ROWS, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Sentences as words, and their entities (PER, LOC, ORG) as tags in IOB2; some names have two types."""
    random_ = random.Random(seed)
    made: dict[str, Callable[[], str]] = {
        "PER": lambda: " ".join([random_.choice(_FIRST), random_.choice(_LAST)][random_.random() < 0.3 :]),
        "LOC": lambda: random_.choice(_PLACES),
        "ORG": lambda: f"{random_.choice(_STEMS)} {random_.choice(_ENDS)}",
    }
    for _ in range(rows):
        words, tags = [], []
        for word in random_.choice(_SENTENCES).split():
            kind = word.strip("{}")
            parts = made[kind]().split() if kind in made else [word]
            words += parts
            tags += [f"{'B' if n == 0 else 'I'}-{kind}" if kind in made else "O" for n in range(len(parts))]
        yield {"tokens": words, "tags": tags}


def aspect_rows(rows: int = ROWS, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Reviews, and what they speak of: none, one or several of five aspects."""
    random_ = random.Random(seed)
    for _ in range(rows):
        aspects = random_.sample(sorted(_ASPECTS), k=random_.choice([0, 1, 1, 2, 2, 3]))
        parts = [random_.choice(_ASPECTS[aspect]) for aspect in aspects]
        parts += random_.sample(_NEUTRAL, k=random_.choice([0, 1, 1]) or not parts)
        random_.shuffle(parts)
        yield {"review": ", ".join(parts) + ".", "aspects": sorted(aspects)}


def make_gpt2(texts: list[str], folder: Path, steps: int = PRETRAINING_STEPS) -> None:
    """Save a tiny GPT-2 with a tokenizer of its own, both made from some texts.

    Args:
        texts: what it is pretrained on; longer ones are cut.
        steps: of pretraining.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from sweeper.backbone import quiet

    end = "<|endoftext|>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=end, eos_token=end)
    ids = [[0, *tokenizer(text)["input_ids"]][:POSITIONS] for text in texts]
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=4,
                bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        for _ in range(steps):
            batch = [torch.tensor(ids[n]) for n in torch.randint(len(ids), (PRETRAINING_BATCH,)).tolist()]
            padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
            model(
                input_ids=padded.clamp_min(0), attention_mask=(padded >= 0).long(), labels=padded
            ).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def write_examples(folder: Path, fetch: Fetch | None = None) -> None:
    """Everything that the study files need. The texts are the same each time; the model is trained once.

    Args:
        fetch: gets an archive into a folder and returns its path; pip if None.

    Raises:
        UnreachableError: the package index cannot be reached.
        SweeperError: what came is not what is pinned.
    """
    from filelock import FileLock

    fetch = fetch or pip_download
    quickstart(folder.parent / "quickstart", fetch)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        _write_lines(folder / "entities.jsonl", entity_rows())
        _write_lines(folder / "aspects.jsonl", aspect_rows())
        ratings = folder / "ratings.tsv"
        if not ratings.is_file() or sha256(ratings) != RATINGS_SHA256:
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
                archive = fetch(FILMS, Path(scratch))
                write_rated(archive, ratings, DOMAINS["products"][0], RATINGS_SHA256, rate_sentences)
        praise, blame = (_sentences(folder.parent / "quickstart" / "films.tsv", label) for label in _LABELS)
        _write_lines(folder / "sentences.jsonl", ({"text": text} for text in blame))
        if not (folder / "gpt2" / "tokenizer.json").is_file():
            _say("making a tiny GPT-2, and training it for a minute")
            with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as scratch:
                make_gpt2(praise, Path(scratch, "gpt2"))
                shutil.rmtree(folder / "gpt2", ignore_errors=True)
                Path(scratch, "gpt2").rename(folder / "gpt2")  # whole or not at all
    _say(f"{folder} is complete")


def _sentences(films: Path, label: str) -> list[str]:
    with open(films, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["sentence"] for row in rows if row["label"] == label]


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    beside = path.with_name(f".{path.name}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _say(line: str) -> None:
    print(f"examples: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Run from a shell; returns the exit code."""
    return from_shell("sweeper.examples", write_examples, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
