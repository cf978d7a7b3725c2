"""Reading files: what is in them comes out as it was written, and what is wrong is told with its line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sweeper.data.rows import Rows
from sweeper.data.sources import read_file
from sweeper.data.typedrows import read_hub
from sweeper.errors import UnreachableError, UsageError
from sweeper.study import Source


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_file(path)
    assert caught.value.file == str(path)
    return caught.value


def test_tsv_knows_no_quotes(tmp_path: Path) -> None:
    rows = read_file(write(tmp_path, "a.tsv", 'text\tlabel\n"half a quote\t1\nsay "x" \t2\n'))
    assert rows.columns == {"text": ['"half a quote', 'say "x" '], "label": ["1", "2"]}
    assert rows.names == ("text", "label")
    assert len(rows) == 2


def test_csv_knows_quotes_and_where_a_record_begins(tmp_path: Path) -> None:
    rows = read_file(write(tmp_path, "a.csv", 'text,label\n"two\nlines, ""quoted""",1\n\nplain,2\n'))
    assert rows.columns["text"] == ['two\nlines, "quoted"', "plain"]
    assert list(rows.lines or ()) == [2, 5]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_nothing_is_taken_for_a_type_or_for_nothing(tmp_path: Path, name: str) -> None:
    separator = "," if name.endswith("csv") else "\t"
    words = ["NA", "null", "None", "2020-01-01", "007", "1e5", "true", " x "]
    rows = read_file(
        write(tmp_path, name, "text" + separator + "n\n" + "".join(f"{w}{separator}1\n" for w in words))
    )
    assert rows.columns["text"] == words


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_line_ends_and_the_byte_order_mark(tmp_path: Path, name: str, ending: str) -> None:
    lines = {
        "a.csv": ["text,label", "a\u2028b,1", "c,2"],
        "a.tsv": ["text\tlabel", "a\u2028b\t1", "c\t2"],
        "a.jsonl": ['{"text": "a\u2028b", "label": "1"}', "", '{"text": "c", "label": "2"}'],
    }[name]
    content = b"\xef\xbb\xbf" + (ending.join(lines) + ending).encode()
    rows = read_file(write(tmp_path, name, content))
    assert rows.columns == {"text": ["a\u2028b", "c"], "label": ["1", "2"]}
    assert list(rows.lines or ()) == ([1, 3] if name == "a.jsonl" else [2, 3])


def test_json_lines_keep_types_and_missing_keys(tmp_path: Path) -> None:
    made = [{"text": "2020-01-01", "label": 1}, {"text": "b", "label": "x"}, {"text": None}]
    rows = read_file(write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in made)))
    assert rows.columns == {"text": ["2020-01-01", "b", None], "label": [1, "x", None]}


def test_json_lines_may_escape_any_character(tmp_path: Path) -> None:
    rows = read_file(write(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00 \\u00e9"}\n'))
    assert rows.columns == {"text": ["\U0001f600 é"]}


def test_a_field_may_be_long(tmp_path: Path) -> None:
    long = "word " * 50_000
    assert read_file(write(tmp_path, "a.csv", f"text,label\n{long},1\n")).columns["text"] == [long]


@pytest.mark.parametrize(
    ("name", "content", "line", "words"),
    [
        ("a.tsv", "", 1, "is empty"),
        ("a.csv", "", 1, "is empty"),
        ("a.jsonl", "", 1, "is empty"),
        ("a.jsonl", "\n\n", None, "no rows"),
        ("a.tsv", "text\tlabel\n", 1, "no rows"),
        ("a.tsv", "\n\n", 1, "no header"),
        ("a.tsv", "text\ttext\nx\ty\n", 1, "two columns have the name 'text'"),
        ("a.tsv", "text\tlabel\nx\t1\n\ny\t1\t2\n", 4, "3 fields where the header has 2: tabs"),
        ("a.csv", "text,label\nx,1\ny\n", 3, "1 field where the header has 2: commas"),
        ("a.csv", "text;label\nx, y;1\n", 1, "its header has semicolons: save it with commas"),
        ("a.csv", "text\tlabel\nx\t1\n", 1, "its header has tabs: call it .tsv"),
        ("a.csv", 'text,label\nx,1\n"never ends,2\nz,3\n', 3, "not a CSV record"),
        ("a.csv", 'text,label\nx,1\n"a"b,2\n', 3, "not a CSV record"),
        ("a.tsv", b"text\tlabel\nx\t1\n\xff\xfe\t2\n", 3, "not UTF-8"),
        ("a.jsonl", '{"text": "x"}\n{"text": }\n', 2, "not a line of JSON"),
        ("a.jsonl", '{"text": "x"}\n[1]\n', 2, "one JSON object"),
        ("a.jsonl", '{"text": "x"}\n{"text": "x", "label": 1, "label": 2}\n', 2, "'label' is there twice"),
        ("a.jsonl", "[" * 100_000, 1, "not a line of JSON"),
        ("a.jsonl", '{"text": "x"}\n{"text": "a\\ud800"}\n', 2, "half of a character"),
        ("a.jsonl", '{"text": ["x", "\\udc00"]}\n', 1, "half of a character"),
        ("a.jsonl", '{"\\ud800": "x"}\n', 1, "half of a character"),
        ("a.parquet", b"PAR1 and no more", None, "not a parquet file"),
        ("a.xlsx", "x", None, ".csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_what_is_wrong_with_a_file(
    tmp_path: Path, name: str, content: str | bytes, line: int | None, words: str
) -> None:
    error = refused(write(tmp_path, name, content))
    assert words in error.message
    assert error.line == line


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "gone.tsv").message


def test_parquet_has_rows_and_no_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "a [1] * {x}::y"
    folder.mkdir()
    path = folder / "data[1]::2.parquet"
    table = {"text": ["x", None], "label": [3, 4], "other": [1.5, 2.5]}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    rows = read_file(path, "data", ["text", "label", "absent"])
    assert rows.columns == {"text": ["x", None], "label": [3, 4]}
    assert rows.names == ("text", "label", "other")
    fault = rows.fault(1, "it is missing")
    assert (fault.message, fault.file, fault.line) == ("row 2 of data: it is missing", str(path), None)
    assert [path.name for path in folder.iterdir()] == ["data[1]::2.parquet"]
    assert capsys.readouterr() == ("", "")


def test_class_numbers_of_a_parquet_file_get_their_names(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    table = pyarrow.table({"label": [1, 0, -1]}, schema=features.arrow_schema)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").columns["label"] == ["yes", "no", None]


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    table = pyarrow.table({"label": [1, 2]}, schema=features.arrow_schema)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    error = refused(tmp_path / "a.parquet")
    assert error.message == "row 2: column 'label' holds 2, and names for 2 classes alone, from 0"
    assert error.file == str(tmp_path / "a.parquet")


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], "string")}), tmp_path / "a.parquet")
    assert "no rows" in refused(tmp_path / "a.parquet").message


def test_faults_name_the_line() -> None:
    rows = Rows("a", {"text": ["x", "y"]}, ("text",), Path("a.tsv"), [2, 7])
    assert str(rows.fault(1, "bad")) == "a.tsv:7: bad"


def test_a_hub_data_set_of_another_commit_is_not_read_where_the_hub_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` itself takes what it fetched last, whatever its commit."""
    import datasets.config
    import huggingface_hub.constants
    import pyarrow.parquet

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    file, there, other = tmp_path / "rows.parquet", "a" * 40, "b" * 40
    pyarrow.parquet.write_table(pyarrow.table({"text": ["fine", "dull"]}), file)
    builder = datasets.load_dataset_builder("parquet", data_files=str(file), cache_dir=str(tmp_path / "made"))
    builder.download_and_prepare()
    # As it keeps a data set of the hub.
    kept = tmp_path / "cache" / "datasets" / "nobody___films" / "default" / "0.0.0" / there
    shutil.copytree(builder.cache_dir, kept)
    (kept / "parquet-train.arrow").rename(kept / "films-train.arrow")
    info = json.loads((kept / "dataset_info.json").read_text())
    (kept / "dataset_info.json").write_text(json.dumps({**info, "dataset_name": "films"}))

    def read(revision: str) -> Rows:
        source = Source(hub="nobody/films", split="train", revision=revision)
        return read_hub(source, None, tmp_path / "cache", tmp_path / "study.yaml", 7)

    assert len(read(there)) == 2
    with pytest.raises(UnreachableError, match=f"films/train@{other}; .* is of the commit {there}"):
        read(other)
    # A folder of that name is none of the hub's.
    (tmp_path / "nobody" / "films").mkdir(parents=True)
    (tmp_path / "nobody" / "films" / "train.csv").write_text("text\nlocal\n")
    monkeypatch.chdir(tmp_path)
    assert read(there).names == ("text",) and len(read(there)) == 2
