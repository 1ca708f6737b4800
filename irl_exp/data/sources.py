"""Where comments come from: files of labelled texts, one by one or as the splits of a data set.

One set of rules says what is a text and what is a label, wherever they come from.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path

from irl_exp.config import InputError, LabelsGroundTruth, TableDataset
from irl_exp.data.comments import LabelledText
from irl_exp.data.formats import Records, records
from irl_exp.data.skipped import Refuse, Skipped, stop
from irl_exp.unicode import is_unicode


@dataclass(frozen=True)
class Columns:
    """Where a record has its text and its label; a dotted name reaches into nested records.

    text: the comment, or its rest where `prompt` names a column with its opening.
    labels: one column or more; a comment is toxic if any of them says so.
    toxic_values: the labels that mean toxic; every other label means non-toxic. Case and
        surrounding space don't count, and what reads as a number or truth value is compared as a
        number: 1, 1.0, "1", True and "true" are one label. Null, NaN and blank are no label; "NA"
        and "null" are ordinary words, in a text and in a label.
    toxic_from: labels are scores, toxic from this number up, in the place of `toxic_values`.
    """

    text: str
    labels: Sequence[str]
    toxic_values: Sequence[object] = (1,)
    prompt: str | None = None
    toxic_from: float | None = None

    @classmethod
    def of(cls, table: TableDataset | LabelsGroundTruth) -> Columns:
        """As a configuration names them."""
        labels = table.label_column
        return cls(
            text=table.text_column,
            labels=labels if isinstance(labels, list) else [labels],
            toxic_values=table.toxic_values,
            prompt=table.prompt_column,
            toxic_from=table.toxic_from,
        )

    @property
    def names(self) -> list[str]:
        return [*([self.prompt] if self.prompt else []), self.text, *self.labels]


@dataclass(frozen=True)
class Rows:
    """Labelled texts, read anew whenever somebody goes through them: memory may not hold them all.

    Going through them raises InputError, and says where, when they can't be read, a row has no text
    or no label (unless such are to be skipped), or, at the end, when there were none or all labels
    are of one class.
    """

    records: Callable[[Refuse], Records]
    source: str
    columns: Columns
    skipped: Skipped | None = None

    def __iter__(self) -> Iterator[LabelledText]:
        start = self.columns.toxic_from
        judge = _by_value(self.columns.toxic_values) if start is None else _by_score(start)
        seen = {True: 0, False: 0, None: 0}
        some: dict[object, None] = {}  # distinct labels, in order
        skipped = Skipped(self.skipped.source) if self.skipped else None
        refuse = skipped or stop
        for place, record in self.records(refuse):
            try:
                row, values = self._row(record, place, judge)
            except InputError as error:
                refuse(error)
                continue
            seen[row.toxic] += 1
            if row.toxic is not None and len(some) < 10:
                some |= dict.fromkeys(values)
            yield row
        if self.skipped and skipped:  # not before the end: whoever knows enough may stop earlier
            self.skipped.become(skipped)
        self._require_both_classes(seen, list(some))

    def _row(
        self, record: dict[str, object], place: str, judge: Judge
    ) -> tuple[LabelledText, list[object]]:
        """A record, and its labels as they stand."""
        columns = self.columns
        text = _text_of(record, columns.text, place)
        prompt = _text_of(record, columns.prompt, place) if columns.prompt else None
        values = [field(record, name, place) for name in columns.labels]
        judged = [
            judge(value, f"{place}: {name!r}")
            for name, value in zip(columns.labels, values, strict=True)
        ]
        return LabelledText(text, None if None in judged else any(judged), prompt), values

    def _require_both_classes(self, seen: Mapping[bool | None, int], some: list[object]) -> None:
        if not seen[True] + seen[False]:
            why = f": all {seen[None]} rows lack a score" if seen[None] else ""
            why = why or (f": {self.skipped}" if self.skipped and self.skipped.count else "")
            raise InputError(f"{self.source} is empty{why}; expected comments")
        if not seen[True] or not seen[False]:
            names = " or ".join(repr(name) for name in self.columns.labels)
            start = self.columns.toxic_from
            by_value = f"toxic_values is {list(self.columns.toxic_values)}"
            raise InputError(
                f"{self.source}: every comment is {'toxic' if seen[True] else 'non-toxic'}; "
                f"expected both, but {names} holds {some[:10]} and "
                + (by_value if start is None else f"toxic_from is {start}")
            )


def file_rows(path: str | Path, columns: Columns, skipped: Skipped | None = None) -> Rows:
    """The labelled texts of a CSV, TSV, JSONL or Parquet file.

    The suffix tells the format: .csv, .tsv (as CSV, with tabs), .jsonl or .json (a JSON object a
    line), each also with .gz, or .parquet. Text is UTF-8. With `skipped`, which counts them, rows
    that are wrong are left out; without it they raise InputError.
    """
    path = Path(path).expanduser().absolute()
    return Rows(
        lambda refuse: records(path, str(path), columns.names, refuse=refuse),
        str(path),
        columns,
        skipped,
    )


def split_rows(
    folder: Path, name: str, split: str, columns: Columns, skipped: Skipped | None = None
) -> Rows:
    """The labelled texts of one split of a data set: a folder of such files, as on the hub.

    Which files a split has, the datasets library knows: by the header of README.md, else by their
    names. It does not read them: it would take words such as "NA" for missing, "007" for a number,
    and would keep a copy.

    Raises:
        InputError: there is no such split; the message begins with `name`, as those of reading do.
    """
    where = f"{name}, split {split}"
    files = _files_of(folder, name, split)

    def read(refuse: Refuse) -> Records:
        for file in files:
            yield from records(file, f"{where}, {file.name}", columns.names, refuse=refuse)

    return Rows(read, where, columns, skipped)


def _files_of(folder: Path, name: str, split: str) -> list[Path]:
    import datasets  # takes a second that most runs need not wait

    datasets.disable_progress_bars()
    try:
        # What it notes about the data set would go to its own cache.
        with tempfile.TemporaryDirectory() as notes:
            builder = datasets.load_dataset_builder(str(folder.absolute()), cache_dir=notes)
    except Exception as error:  # of a README, of patterns, of folders: they share no base
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{name}: {folder} is no data set that can be read: {reason}") from error
    files = {str(key): paths for key, paths in (builder.config.data_files or {}).items()}
    if split not in files:
        raise InputError(f"{name}: no split {split!r}; there are {list(files)}")
    return [Path(file) for file in files[split]]


# --- the rules ------------------------------------------------------------------------------------


# What a label means, 1 toxic, 0 not, None for a missing score; from the label and its place.
Judge = Callable[[object, str], bool | None]


def _by_value(toxic_values: Sequence[object]) -> Judge:
    toxic = {_key(value) for value in toxic_values}
    if not toxic or None in toxic:
        raise InputError(f"toxic_values is {list(toxic_values)}; expected one label or more")

    def judge(label: object, place: str) -> bool:
        key = _key(label)
        if key is None:
            raise InputError(f"{place} is {_kind(label)}; expected a label")
        return key in toxic

    return judge


def _by_score(toxic_from: float) -> Judge:
    def judge(label: object, place: str) -> bool | None:
        key = _key(label)
        if isinstance(key, str):
            raise InputError(f"{place} is a word; expected a number")
        if key is None and _kind(label) != "missing":
            raise InputError(f"{place} is {_kind(label)}; expected a number")
        return None if key is None else key >= toxic_from

    return judge


def _key(label: object) -> float | str | None:
    """What labels are compared by; None for what is no label."""
    if not isinstance(label, str | Number):
        return None
    word = str(label).strip().casefold()
    try:
        number = float({"true": "1", "false": "0"}.get(word, word))
    except ValueError:
        return word or None
    return None if math.isnan(number) else number


def _kind(value: object) -> str:
    """What stands where something else was expected; not the content, which may be anything."""
    missing = value is None or (isinstance(value, str | Number) and _key(value) is None)
    return "missing" if missing else f"of type {type(value).__name__}"


def _text_of(record: dict[str, object], name: str, place: str) -> str:
    return text_of(field(record, name, place), f"{place}: {name!r}")


def text_of(value: object, place: str) -> str:
    """A field that is to be a text, exactly as it stands; InputError where it is none."""
    if not isinstance(value, str):
        raise InputError(f"{place} is {_kind(value)}; expected a text")
    if not is_unicode(value):
        raise InputError(f"{place} holds half a character; expected Unicode")
    return value


def field(record: dict[str, object], name: str, place: str) -> object:
    """A column of a record; a dotted name reaches into nested ones."""
    if name in record:  # before the dots are taken apart: a column may have a dot in its name
        return record[name]
    value: object = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"{place}: no column {name!r}; there are {_names(record)}")
        value = value[part]
    return value


def _names(record: dict[str, object]) -> list[str]:
    names = []
    for name, value in record.items():
        nested = _names(value) if isinstance(value, dict) else []
        names += [f"{name}.{inner}" for inner in nested] or [name]
    return names
