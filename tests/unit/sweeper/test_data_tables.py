"""Tables: what a study refuses to train on, and what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeper.data.tables import Tables, read_tables
from sweeper.errors import UsageError
from sweeper.study import load_study
from tests.tiny_folder import make_backbone, write_study


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("backbone") / "backbone")


@pytest.fixture
def folder(tmp_path: Path, backbone: Path) -> Path:
    shutil.copytree(backbone, tmp_path / "backbone")
    write_study(tmp_path)
    return tmp_path


def tables_of(folder: Path, **overrides: Any) -> Tables:
    return read_tables(load_study(write_study(folder, **overrides)))


def refused(folder: Path, **overrides: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        tables_of(folder, **overrides)
    return caught.value


def put(folder: Path, name: str, text: str) -> None:
    (folder / "data" / name).write_text(text, encoding="utf-8")


def line_of(error: UsageError) -> str:
    """The text of the line that an error points to."""
    assert error.file is not None and error.line is not None
    return Path(error.file).read_text(encoding="utf-8").splitlines()[error.line - 1]


def test_the_splits_of_a_study(folder: Path) -> None:
    tables = tables_of(folder)
    assert tables.label_names == ("negative", "positive")
    assert [(name, len(table)) for name, table in tables.named()] == [
        ("train", 96),
        ("validation", 32),
        ("test", 32),
    ]
    assert tables.duplicates == {"validation": 0, "test": 0}


def test_pairs(tmp_path: Path, backbone: Path) -> None:
    shutil.copytree(backbone, tmp_path / "backbone")
    tables = read_tables(load_study(write_study(tmp_path, kind="pair")))
    assert len(tables.train.texts) == 2
    assert tables.label_names == ("0", "1")


def test_whole_numbers_are_sorted_as_numbers_whatever_the_format(folder: Path) -> None:
    put(folder, "train.tsv", "sentence\tlabel\n" + "".join(f"good {n}\t{n}\n" for n in (10, 9, 2, -1)))
    rows = [{"sentence": "a film", "label": 10}, {"sentence": "a plot", "label": "9"}]
    put(folder, "validation.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    tables = tables_of(folder, data={"validation": "data/validation.jsonl", "test": None})
    assert tables.label_names == ("-1", "2", "9", "10")
    assert tables.validation.labels == ["10", "9"]
    assert tables.test is None


def test_labels_that_are_the_same_number_have_an_order_of_their_own(folder: Path) -> None:
    """Not that of a set, which is another in every process."""
    names = ("-0", "0", "1")
    put(folder, "train.tsv", "sentence\tlabel\n" + "".join(f"good {n}\t{n}\n" for n in reversed(names)))
    put(folder, "validation.tsv", "sentence\tlabel\ngood\t0\n")
    assert tables_of(folder, data={"test": None}).label_names == names


def test_one_label_that_is_no_whole_number_sorts_all_as_text(folder: Path) -> None:
    put(folder, "train.tsv", "sentence\tlabel\n" + "".join(f"good\t{n}\n" for n in ("10", "9", "02")))
    put(folder, "validation.tsv", "sentence\tlabel\ngood\t9\n")
    assert tables_of(folder, data={"test": None}).label_names == ("02", "10", "9")


def test_labels_of_too_many_digits_for_a_number_are_sorted_as_text(folder: Path) -> None:
    names = ("9", "1" * 5000)
    put(folder, "train.tsv", "sentence\tlabel\n" + "".join(f"good\t{name}\n" for name in names))
    put(folder, "validation.tsv", "sentence\tlabel\ngood\t9\n")
    assert tables_of(folder, data={"test": None}, train={"batch_size": 1}).label_names == names[::-1]


def test_duplicates_of_train_are_counted_and_kept(folder: Path) -> None:
    lines = (folder / "data/train.tsv").read_text().splitlines()
    put(folder, "validation.tsv", "\n".join([*lines[:4], "all new\tpositive"]) + "\n")
    tables = tables_of(folder)
    assert tables.duplicates["validation"] == 3
    assert len(tables.validation) == 4


def test_a_subset_keeps_the_order_and_knows_its_rows(folder: Path) -> None:
    everything = tables_of(folder).train
    some = tables_of(folder, data={"train": {"path": "data/train.tsv", "rows": 20}}).train
    assert len(some) == 20
    assert some.numbers == sorted(some.numbers)
    assert some.texts[0] == [everything.texts[0][number] for number in some.numbers]
    other = tables_of(folder, data={"train": {"path": "data/train.tsv", "rows": 20}}, seed=1).train
    assert other.numbers != some.numbers


def test_fractions_come_out_of_train(folder: Path) -> None:
    tables = tables_of(folder, data={"validation": 0.25, "test": 0.125})
    assert tables.test is not None
    splits = [tables.train, tables.validation, tables.test]
    assert [len(table) for table in splits] == [60, 24, 12]
    numbers = [number for table in splits for number in table.numbers]
    assert sorted(numbers) == list(range(96))
    assert tables.validation.labels.count("positive") == 12


def test_a_fraction_of_a_subset_knows_its_rows(folder: Path) -> None:
    everything = tables_of(folder).train
    tables = tables_of(folder, data={"train": {"path": "data/train.tsv", "rows": 40}, "validation": 0.25})
    for table, count in ((tables.train, 30), (tables.validation, 10)):
        assert len(table) == count
        assert table.texts[0] == [everything.texts[0][number] for number in table.numbers]
        assert table.labels == [everything.labels[number] for number in table.numbers]


def test_regression(tmp_path: Path, backbone: Path) -> None:
    shutil.copytree(backbone, tmp_path / "backbone")
    path = write_study(tmp_path, kind="regression", data={"validation": 0.25, "test": None})
    tables = read_tables(load_study(path))
    assert tables.label_names is None
    assert len(tables.validation) == 24
    assert set(tables.train.labels) <= {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_a_missing_column_lists_those_there_are(folder: Path) -> None:
    error = refused(folder, task={"text": "sentense"})
    assert error.file == str(folder / "study.yaml")
    assert "text: sentense" in line_of(error)
    assert "did you mean 'sentence'" in error.message
    assert "sentence, label" in error.message
    assert "label: lable" in line_of(refused(folder, task={"label": "lable"}))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("\tpositive", "the text in column 'sentence' is empty"),
        (" \u00a0 \tpositive", "the text in column 'sentence' is empty"),
        ("good\t", "the label in column 'label' is missing"),
        ("good\t ", "the label in column 'label' is missing"),
    ],
)
def test_a_bad_row_is_named_by_its_line(folder: Path, row: str, words: str) -> None:
    put(folder, "train.tsv", f"sentence\tlabel\nbad\tnegative\n\n{row}\n")
    error = refused(folder)
    assert (error.file, error.line) == (str(folder / "data/train.tsv"), 4)
    assert words in error.message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"sentence": None, "label": 1}, "is missing"),
        ({"label": 1}, "is missing"),
        ({"sentence": 5, "label": 1}, "holds 5, which is no text"),
        ({"sentence": ["x"], "label": 1}, "no text"),
        ({"sentence": "x", "label": None}, "the label in column 'label' is missing"),
        ({"sentence": "x", "label": 1.0}, "neither a text nor a whole number"),
        ({"sentence": "x", "label": {"a": 1}}, "neither a text nor a whole number"),
    ],
)
def test_bad_values_of_json_lines(folder: Path, row: dict[str, Any], words: str) -> None:
    put(folder, "train.jsonl", '{"sentence": "x", "label": 0}\n' + json.dumps(row) + "\n")
    error = refused(folder, data={"train": "data/train.jsonl"})
    assert (error.file, error.line) == (str(folder / "data/train.jsonl"), 2)
    assert words in error.message


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_train_lacks(folder: Path, split: str) -> None:
    put(folder, f"{split}.tsv", "sentence\tlabel\ngood\tpositive\nso so\tneutral\n")
    error = refused(folder)
    assert (error.file, error.line) == (str(folder / f"data/{split}.tsv"), 3)
    assert "'neutral'" in error.message and "negative, positive" in error.message


def test_a_label_that_train_lacks_in_a_subset_is_named_by_its_own_line(folder: Path) -> None:
    put(folder, "validation.tsv", "sentence\tlabel\n" + "good\tpositive\n" * 30 + "so so\tneutral\n" * 30)
    error = refused(folder, data={"validation": {"path": "data/validation.tsv", "rows": 20}})
    assert line_of(error) == "so so\tneutral"


def test_a_single_label(folder: Path) -> None:
    put(folder, "train.tsv", "sentence\tlabel\ngood\tpositive\nfine\tpositive\n")
    error = refused(folder)
    assert "same label, 'positive'" in error.message
    assert "label: label" in line_of(error)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("content", ["", "sentence\tlabel\n"])
def test_an_empty_file(folder: Path, split: str, content: str) -> None:
    put(folder, f"{split}.tsv", content)
    assert refused(folder).file == str(folder / f"data/{split}.tsv")


def test_more_rows_than_there_are(folder: Path) -> None:
    error = refused(folder, data={"train": {"path": "data/train.tsv", "rows": 97}})
    assert "which has 96" in error.message
    assert "rows: 97" in line_of(error)


def test_a_fraction_that_is_no_row(folder: Path) -> None:
    error = refused(folder, data={"validation": 0.001})
    assert "is not one row" in error.message
    assert "validation: 0.001" in line_of(error)


def test_a_fraction_that_would_take_the_only_row_of_a_label(folder: Path) -> None:
    put(folder, "train.tsv", "sentence\tlabel\n" + "".join(f"good\t{label}\n" for label in range(10)))
    error = refused(folder, data={"validation": 0.25, "test": None})
    assert (
        "0.25 of the 10 rows of train takes no row, as the last one of each label has to stay"
        in error.message
    )


@pytest.mark.parametrize("value", ["high", "nan", "inf", "-inf", "1e39", "1_0", "", "0x10"])
def test_labels_of_a_regression_are_finite_numbers(tmp_path: Path, backbone: Path, value: str) -> None:
    shutil.copytree(backbone, tmp_path / "backbone")
    write_study(tmp_path, kind="regression")
    put(tmp_path, "validation.tsv", f"sentence\tscore\ngood\t1.5\nbad\t{value}\n")
    with pytest.raises(UsageError) as caught:
        read_tables(load_study(tmp_path / "study.yaml"))
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "data/validation.tsv"), 3)


def test_a_label_whose_only_row_is_drawn_is_refused(folder: Path) -> None:
    """No row would be left to learn it from; which rows are drawn does not depend on their labels."""
    rows = [{"sentence": f"text {n}", "label": ["common", *(["rare"] if n == rare else [])]}
            for rare in [drawn_row(folder)] for n in range(40)]  # fmt: skip
    put(folder, "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    error = refused(folder, **MANY)
    assert "the label 'rare' of validation occurs in no row that is left in train" in error.message
    assert "rare" in line_of(error)


MANY: dict[str, Any] = {
    "task": {"kind": "multi_label"},
    "data": {"train": "data/train.jsonl", "validation": 0.2, "test": None},
    "objective": {"metric": "f1_micro"},
}


def drawn_row(folder: Path) -> int:
    """The first of forty rows that a fifth for validation takes."""
    rows = [{"sentence": f"text {n}", "label": ["common", "other"]} for n in range(40)]
    put(folder, "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    taken = tables_of(folder, **MANY).validation.texts[0][0]
    return int(taken.split()[1])


def test_more_evaluations_than_steps_are_refused(folder: Path) -> None:
    train = {"batch_size": 16, "evaluations_per_epoch": 6}
    tables_of(folder, train=train)
    error = refused(folder, train={**train, "evaluations_per_epoch": 7})
    assert "96 rows at batch_size 16 are 6 steps an epoch" in error.message
    assert "evaluations_per_epoch: 7" in line_of(error)
    search = {"bottleneck_dim": 4, "batch_size": [16, 200]}
    error = refused(folder, train={"batch_size": None, "evaluations_per_epoch": 2}, search=search)
    assert "96 rows at batch_size 200 are 1 step an epoch:" in error.message


@pytest.mark.parametrize(("metric", "rows"), [("pearson", 1), ("pearson", 3), ("spearman", 3)])
def test_a_correlation_with_equal_labels_is_refused(
    tmp_path: Path, backbone: Path, metric: str, rows: int
) -> None:
    shutil.copytree(backbone, tmp_path / "backbone")
    write_study(tmp_path, kind="regression")
    put(tmp_path, "validation.tsv", "sentence\tscore\n" + "a good film\t0.5\n" * rows)
    objective = {"metric": metric, "direction": "maximize"}
    with pytest.raises(UsageError, match=f"{metric} does not exist") as caught:
        read_tables(load_study(write_study(tmp_path, kind="regression", objective=objective)))
    assert "validation" in line_of(caught.value)
    objective = {"metric": "mean_squared_error", "direction": "minimize"}
    read_tables(load_study(write_study(tmp_path, kind="regression", objective=objective)))


def test_a_correlation_of_labels_that_are_one_number_in_training_is_refused(
    tmp_path: Path, backbone: Path
) -> None:
    shutil.copytree(backbone, tmp_path / "backbone")
    objective = {"metric": "pearson"}
    write_study(tmp_path, kind="regression")
    rows = "".join(f"text {row}\t{1_700_000_000 + row}\n" for row in range(20))
    put(tmp_path, "validation.tsv", f"sentence\tscore\n{rows}")
    error = refused(tmp_path, kind="regression", objective=objective)
    assert "all rows of validation have the same label in fp32, so that pearson" in error.message


def test_a_label_of_its_own_column_that_no_row_has_is_refused(tmp_path: Path, backbone: Path) -> None:
    shutil.copytree(backbone, tmp_path / "backbone")
    write_study(tmp_path)
    for name in ("train", "validation", "test"):
        put(tmp_path, f"{name}.tsv", "sentence\ta\tb\na film\t1\t0\nanother\t0\t0\n")
    task = {"kind": "multi_label", "text": "sentence", "label": ["a", "b"]}
    error = refused(tmp_path, task=task, objective={"metric": "f1_micro"})
    assert error.message.startswith("column 'b' is 1 in no row of train") and "label:" in line_of(error)


def test_a_correlation_is_refused_as_a_further_objective_and_for_the_test_rows(
    tmp_path: Path, backbone: Path
) -> None:
    shutil.copytree(backbone, tmp_path / "backbone")
    error, pearson = ({"metric": name} for name in ("mean_squared_error", "pearson"))
    write_study(tmp_path, kind="regression")

    def read(*objectives: dict[str, str], **data: Any) -> None:
        written = list(objectives) if len(objectives) > 1 else objectives[0]
        read_tables(load_study(write_study(tmp_path, kind="regression", objective=written, data=data)))

    one = {"path": "data/validation.tsv", "rows": 1}
    with pytest.raises(UsageError, match="validation has one row, so that pearson does not exist") as caught:
        read(error, pearson, validation=one)
    assert "validation" in line_of(caught.value)
    put(tmp_path, "test.tsv", "sentence\tscore\na good film\t0.5\na bad one\t0.5\n")
    with pytest.raises(UsageError, match="all rows of test have the same label, so that pearson") as caught:
        read(pearson, error)
    assert "test: data/test.tsv" in line_of(caught.value)
    read(error, pearson)  # only the first objective is read on the test rows
    read(pearson, error, test=None)
