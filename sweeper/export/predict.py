"""Predictions with an exported adapter, as ``sweeper predict`` and the snippet of every card make them.

from sweeper import load_exported
predictor = load_exported("best")
predictor.predict(["a warm and funny film"])      # [{"label": "positive", "score": 0.98}]
predictor.evaluate("sst2.yaml")["accuracy"]       # to the digit what the study recorded
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from sweeper.data.tokens import row_fault
from sweeper.errors import UsageError
from sweeper.export.head import HeadFacts, adapter_folder, load_head
from sweeper.tasks import TaskKind, Tokens, task_of
from sweeper.words import HALF_A_CHARACTER, is_unicode

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from adapters.pack import Pack
    from sweeper.data import Split
    from sweeper.study import Study
    from sweeper.tasks.kind import Fault

STUDY_SUFFIXES = (".yaml", ".yml")


class Predictor:
    """An exported adapter and its head in their backbone. Made by ``load_exported``.

    Args:
        pack: the backbone with the adapter in slot 0.
        head: on the backbone's device.
        tokenizer: the backbone's.
        facts: of the head.
    """

    def __init__(
        self, pack: Pack, head: nn.Linear, tokenizer: PreTrainedTokenizerBase, facts: HeadFacts
    ) -> None:
        self._pack, self._head, self._tokenizer, self.facts = pack, head, tokenizer, facts

    @property
    def kind(self) -> str:
        return self.facts.kind

    @property
    def label_names(self) -> tuple[str, ...] | None:
        return self.facts.label_names

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that a file of texts needs: one, or two for sentence pairs."""
        return self.facts.text

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[dict[str, Any]]:
        """What the adapter says of each text, in their order.

        Args:
            texts: strings; pairs of strings where the study had two text columns; lists of words, or strings
                with spaces between them, where words are labelled.

        Returns:
            ``{"label": name, "score": probability}`` each; of a regression, label None and score value; of
            several labels ``labels``, and ``scores`` by name; of words the ``labels`` and ``scores`` of each,
            None for those beyond ``max_length``; of a language model ``perplexity``, ``loss`` and ``tokens``.

        Raises:
            UsageError: a text is empty, is no text, or is a pair where there should be one (or the reverse).
        """
        columns = self._columns(texts)
        if not columns[0]:
            return []
        tokens = self._tokens(columns, None, row_fault)
        return self._kind.predict(self._logits(tokens.split), tokens, self.label_names)

    def evaluate(self, source: str | Path, split: str = "validation") -> dict[str, float]:
        """Every metric of the task on labelled rows.

        Args:
            source: the study file, whose ``split`` is read as the study read it; or a csv, tsv, jsonl or
                parquet file with the columns of texts and label, all of whose rows are taken.
            split: ``train``, ``validation`` or ``test`` of a study file.

        Raises:
            UsageError: the file is wrong, its data is not what the study had, or a label is unknown.
        """
        path = Path(source)
        rows = self._study_split(path, split) if path.suffix in STUDY_SUFFIXES else self._file_split(path)
        return self._kind.measure(self._logits(rows), rows, self.label_names)

    @property
    def _kind(self) -> TaskKind:
        return task_of(self.facts.kind)

    def _logits(self, split: Split) -> Tensor:
        from sweeper.evaluate import predict_logits

        return predict_logits(self._pack, 0, self._head, split, self.facts.pooling)

    def _tokens(self, columns: Sequence[Sequence[Any]], labels: Sequence[Any] | None, fault: Fault) -> Tokens:
        return self._kind.tokenise(
            columns, labels, self.label_names, self._tokenizer, self.facts.max_length, fault
        )

    def _columns(self, texts: Sequence[str | Sequence[str]]) -> list[list[Any]]:
        if isinstance(texts, str):
            raise UsageError("predict takes a list of texts, not one text: put it into [ ]")
        if self._kind.reading == "words":
            return [_words(texts)]
        wanted = len(self.text_columns)
        rows = [tuple(row) if _are_several(row) else (row,) for row in texts]
        for number, row in enumerate(rows, start=1):
            if len(row) != wanted:
                named = " and ".join(self.text_columns)
                raise UsageError(
                    f"row {number} has {len(row)} texts, and the adapter takes {wanted}: {named}"
                )
            if not all(isinstance(text, str) and text.strip() for text in row):
                raise UsageError(f"row {number} holds an empty text, or something that is no text")
            if not all(is_unicode(text) for text in row):
                raise UsageError(f"row {number} holds {HALF_A_CHARACTER}")
        return [[row[place] for row in rows] for place in range(wanted)]

    def _study_split(self, path: Path, split: str) -> Split:
        from sweeper.data import prepare, read_tables
        from sweeper.study import load_study

        study = load_study(path)
        self._check_same_task(study)
        with tempfile.TemporaryDirectory(prefix="sweeper-evaluate-") as folder:
            data = prepare(study, read_tables(study), self._tokenizer, Path(folder))
        if data.fingerprint != self.facts.data_fingerprint:
            raise UsageError(
                "the rows of this study are not those that the adapter was trained and chosen on: give a "
                "data file to evaluate on other rows",
                path,
            )
        rows = getattr(data, split, None) if split in ("train", "validation", "test") else None
        if rows is None:
            raise UsageError(f"the study has no split {split!r}", path)
        return rows

    def _check_same_task(self, study: Study) -> None:
        theirs, facts = (study.task, study.train.max_length), self.facts
        if theirs != (facts.task, facts.max_length):
            raise UsageError("this study has another task than the adapter was trained for", study.path)

    def _file_split(self, path: Path) -> Split:
        from sweeper.data.texts import read_labelled

        columns, labels, rows = read_labelled(path, self.facts.task, self.label_names)
        return self._tokens(columns, labels, rows.fault).split


def _are_several(given: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(given, Iterable) and not isinstance(given, str)


def _words(texts: Sequence[str | Sequence[str]]) -> list[tuple[str, ...]]:
    rows = [
        tuple(text) if _are_several(text) else tuple(text.split()) if isinstance(text, str) else ()
        for text in texts
    ]
    for number, words in enumerate(rows, start=1):
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise UsageError(f"row {number} has no words, or something that is no word")
        if not all(is_unicode(word) for word in words):
            raise UsageError(f"row {number} holds {HALF_A_CHARACTER}")
    return rows


def load_exported(
    folder: str | Path, backbone: str | Path | None = None, device: str | None = None
) -> Predictor:
    """Loads what ``sweeper export`` wrote, with the backbone that it was trained in.

    Args:
        folder: of one exported adapter, or one that holds a single ``trial-0007`` folder.
        backbone: a directory, if the backbone is not where it was.
        device: ``cpu`` or ``cuda:0``; default: the first that workers would use.

    Raises:
        UsageError: a file is missing or damaged, or the backbone is another one.
        UnreachableError: the backbone is on a hub that cannot be reached.
    """
    import adapters
    from adapters.pack import Pack
    from sweeper.backbone import load_backbone, load_config, load_tokenizer
    from sweeper.device import choose

    place = adapter_folder(Path(folder))
    head, facts = load_head(place / "head.safetensors")
    if facts.backbone.get("sites") is not None:  # they have to be known before the adapter is read
        load_config(_backbone(facts, None if backbone is None else Path(backbone)))
    try:
        adapter = adapters.load(place / "adapter.safetensors")
    except adapters.AdapterError as error:
        raise UsageError(str(error)) from error
    where = choose(device)
    source = _backbone(facts, None if backbone is None else Path(backbone))
    model = load_backbone(source, facts.dtype, where, task_of(facts.kind).language_head)
    pack = Pack(model)
    if head.in_features != pack.hidden_size:
        raise UsageError(
            f"its head reads {head.in_features} channels, and the backbone has {pack.hidden_size}: these are "
            "not files of one export",
            place,
        )
    try:
        pack.put(0, adapter.to(where))
    except adapters.AdapterError as error:
        raise UsageError(f"its adapter does not fit the backbone: {error}", place) from error
    return Predictor(pack, head.to(where), load_tokenizer(source), facts)


def _backbone(facts: HeadFacts, moved: Path | None) -> Any:
    """Where to load the backbone from, once it is known to be the right one."""
    from sweeper.backbone import fingerprint
    from sweeper.study.schema import Backbone

    model, revision, path = (facts.backbone.get(key) for key in ("model", "revision", "path"))
    sites = facts.backbone.get("sites")
    if moved is not None:
        source = Backbone(str(moved), None, moved.absolute(), sites)
    else:
        source = Backbone(str(model), revision, None if path is None else Path(path), sites)
    if source.path is not None and not source.path.is_dir():
        if moved is not None:
            raise UsageError(
                "there is no such folder: --backbone (in Python `backbone=`) names that of the backbone",
                source.path,
            )
        raise UsageError(
            "the backbone is not there: say where it is with --backbone DIR (in Python `backbone=DIR`)",
            source.path,
        )
    # A copy of a hub's model in a directory has another fingerprint, but no other way to be compared.
    if source.is_directory and str(facts.backbone["fingerprint"]).startswith("sha256:"):
        found = fingerprint(source)
        if found != facts.backbone["fingerprint"]:
            raise UsageError(
                f"is not the backbone that this adapter was trained in: its fingerprint is {found}, and "
                f"should be {facts.backbone['fingerprint']}",
                source.path,
            )
    return source
