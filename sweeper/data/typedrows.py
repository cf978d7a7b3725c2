"""Rows that carry their types, read through ``datasets``: parquet files, and data sets of the hub.

Code that a data set brings along is never run, nothing is printed, and nothing is written beside a file.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.data.rows import Rows
from sweeper.errors import UnreachableError, UsageError
from sweeper.words import short

if TYPE_CHECKING:
    from sweeper.study import Source


def read_parquet(path: Path, name: str, columns: Sequence[str] | None) -> Rows:
    """The rows of a parquet file; see ``sources.read_file``."""
    import datasets
    import pyarrow.parquet

    try:
        if pyarrow.parquet.read_metadata(path).num_rows == 0:
            raise UsageError("the file has no rows", file=path)
        # What `datasets` writes for itself goes away with the folder; the rows are in memory by then. The
        # name of the link holds nothing that could be taken for a pattern or an address.
        with _quiet_datasets(), tempfile.TemporaryDirectory() as scratch:
            link = Path(scratch, "rows.parquet")
            link.symlink_to(path.absolute())
            stream = datasets.load_dataset(  # nosec B615 # a local file
                "parquet", data_files=str(link), split="train", streaming=True, cache_dir=scratch
            )
            return Rows(name, _columns_of(stream, columns, path), tuple(stream.features), path)
    except (pyarrow.ArrowException, ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UsageError(f"not a parquet file that can be read: {reason[0]}", file=path) from error


def read_hub(
    source: Source,
    columns: Sequence[str] | None,
    cache_dir: Path | None,
    study_file: Path | None,
    line: int | None,
) -> Rows:
    """The rows of a split of a hub data set at its revision; see ``sources.read_source``."""
    import datasets

    from sweeper.backbone import hub_error, quiet

    name = "/".join(part for part in (source.hub, source.config, source.split) if part)
    try:
        with quiet(), _quiet_datasets():
            builder = datasets.load_dataset_builder(
                f"hf://datasets/{source.hub}",  # a bare name could be a folder that happens to be here
                source.config,
                revision=source.revision,
                cache_dir=None if cache_dir is None else str(cache_dir / "datasets"),
            )
            if builder.hash != source.revision:  # of a hub that is away, whatever was fetched last is taken
                raise UnreachableError(
                    f"the hub cannot be reached for the data set {name}@{source.revision}; what is kept "
                    f"of it here is of the commit {builder.hash}"
                )
            builder.download_and_prepare()
            data = builder.as_dataset(split=source.split)
            names, values = tuple(data.features), _columns_of(data, columns, study_file, line)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        known = hub_error(error, f"data set {name}@{source.revision}")
        known.file, known.line = (str(study_file) if study_file else None), line
        raise known from error
    rows = Rows(name, values, names, study_file, line=line)
    if values and not len(rows):
        raise UsageError(f"{name} has no rows", file=study_file, line=line)
    return rows


def _columns_of(
    data: Any, columns: Sequence[str] | None, file: Path | None, line: int | None = None
) -> dict[str, list[Any]]:
    """Columns of a data set; class numbers are given by their names, and a class of -1 by None.

    Raises:
        UsageError: at that place, a class has no name.
    """
    features = data.features
    wanted = [name for name in features if columns is None or name in columns]
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    for batch in data.select_columns(wanted).iter(batch_size=1000) if wanted else ():
        for name in wanted:
            values[name].extend(batch[name])
    for name in wanted:
        feature = features[name]
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if names is None:
            continue
        for place, value in enumerate(values[name]):
            try:
                values[name][place] = _named(value, names)
            except IndexError:
                found = f"row {place + 1}: column {short(name)} holds {short(value)}, and names for"
                raise UsageError(f"{found} {len(names)} classes alone, from 0", file, line) from None
    return values


def _named(value: Any, names: Sequence[str]) -> Any:
    """A class number by its name; a list of them by theirs."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return None if value is None or value < 0 else names[value]


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keep ``datasets`` from writing on the terminal, and put back what was set."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    verbosity, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()
