"""Opening a task file: its kind is recognised, its rows become questions, or all is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.tasks.kinds.kind import Kind
from edgellm.bench.evaluation.tasks.kinds.table import KINDS, forms_by_kind, kinds_of
from edgellm.bench.evaluation.tasks.rows.forms import Form
from edgellm.bench.evaluation.tasks.rows.labels import LeftOut, given_labels, named
from edgellm.bench.evaluation.tasks.rows.question import Question
from edgellm.bench.evaluation.tasks.rows.squad import is_squad, squad_rows
from edgellm.bench.evaluation.tasks.task import Task
from edgellm.bench.evaluation.tasks.templates import PromptTemplate, read_prompt
from edgellm.errors import ConfigError, FormatError
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow, Problems
from edgellm.row_files.reading import Row, read_rows


def read_task(
    path: str | Path,
    kind: str | None = None,
    labels: Iterable[str] | None = None,
    prompt: str | Path | None = None,
    shots_from: str | Path | None = None,
) -> Task:
    """Return the task in a file.

    Args:
        path: of the file.
        kind: of the task; default: recognised by the fields of the rows.
        labels: that answers may have; default: those of the rows.
        prompt: a template, or a file with one; default: the kind's.
        shots_from: a file of the same kind that examples come from.

    Raises:
        BackendError: a library that its metrics need is not installed.
        ConfigError: the kind is unknown or cannot be told, or one of the settings does not fit.
        FormatError: rows are damaged; says which, and why.
        ReadError: the file cannot be read.
    """
    given = None
    if labels is not None:
        given = given_labels(labels)
    rows = _rows(path)
    of_kind, form = _recognised(Path(path), rows[0], kind)
    if prompt is not None and of_kind.way == "read":
        raise ConfigError(
            f"tasks of the kind {of_kind.name} are read as they are: they have no prompt",
            hint="leave out --prompt, or name another --kind",
        )
    reader = _Reader(of_kind, form, is_told=kind is not None)
    files = [_File(Path(path), rows)]
    if shots_from is not None:
        files.append(_File(Path(shots_from), _rows(shots_from)))
    parted = [reader.parted(file) for file in files]
    try:
        shared = of_kind.labels(form, [parts for each in parted for _, parts in each], given)
    except ConfigError:
        for file in files:  # rows that are damaged may be the reason
            file.problems.raise_found()
        raise
    (questions, skipped), *others = [
        reader.questions(file, each, shared) for file, each in zip(files, parted, strict=True)
    ]
    of_kind.signatures(questions)  # a library that is missing is said now, not after the answers
    examples = None
    if others:
        examples = others[0][0]
    source = form.template
    if prompt is not None:
        source = read_prompt(prompt)
    variables = {name for question in questions for name in question.shown} | {"chat", "labels"}
    return Task(
        name=Path(path).stem,
        path=Path(path),
        kind=of_kind,
        form=form,
        rows=questions,
        labels=shared,
        template=PromptTemplate(source, variables, form.hidden() - variables),
        is_own_prompt=prompt is not None,
        shots_from=examples,
        skipped=skipped,
        notes=tuple(_notes(of_kind, questions, skipped)),
    )


def _rows(path: str | Path) -> list[Row]:
    """Return the rows of a task file, also of SQuAD's own. Raises ConfigError, FormatError."""
    rows = read_rows(path, '{"text": "...", "label": "..."}')
    if len(rows) == 1 and is_squad(rows[0].fields):
        return [Row(rows[0].line, fields) for fields in squad_rows(rows[0].fields)]
    return rows


def _recognised(path: Path, row: Row, name: str | None) -> tuple[Kind, Form]:
    """Return the kind and form of a file by its first row."""
    fields = ", ".join(quoted(field) for field in list(row.fields)[:10]) or "none"
    if name is not None:
        if name not in KINDS:
            raise ConfigError(
                f"there is no kind of task {quoted(name)}", hint=f"the kinds are {', '.join(KINDS)}"
            )
        return KINDS[name], KINDS[name].nearest_form(row.fields)
    kinds = kinds_of(row.fields)
    if not kinds:
        raise FormatError(
            f"{path}, line {row.line}: no kind of task has these fields: {fields}",
            hint=f"name the kind with --kind, or the fields as one of them has ({forms_by_kind()})",
        )
    if len(kinds) > 1:
        raise ConfigError(
            f"{path}, line {row.line}: the fields {fields} may mean "
            f"{' or '.join(kind.name for kind in kinds)}",
            hint=f"say which: {' or '.join(f'--kind {kind.name}' for kind in kinds)}",
        )
    return kinds[0], kinds[0].nearest_form(row.fields)


Parted = list[tuple[Row, dict[str, Any]]]
"""Rows, and the parts of each by their role."""


class _File:
    """The rows of a file, and what is wrong with them."""

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        self.path = path
        self.rows = rows
        self.problems = Problems(path)


@dataclass(frozen=True)
class _Reader:
    """Reads rows of one kind and form; a person may have told the kind."""

    kind: Kind
    form: Form
    is_told: bool

    def parted(self, file: _File) -> Parted:
        """Return the rows that have all parts, with these."""
        found: Parted = []
        for row in file.rows:
            try:
                found.append((row, self._parts(row, file.rows[0])))
            except BadRow as problem:
                file.problems.add(row.line, problem)
        return found

    def questions(
        self, file: _File, parted: Parted, labels: tuple[str, ...]
    ) -> tuple[tuple[Question, ...], int]:
        """Return what rows ask, and how many cannot be asked. Raises FormatError."""
        found = []
        skipped = 0
        for row, parts in parted:
            try:
                found.append(self.kind.question(row, self.form, parts, labels))
            except LeftOut:
                skipped += 1
            except BadRow as problem:
                file.problems.add(row.line, problem)
        _check_ids(found, file.problems)
        file.problems.raise_found()
        if not found:
            raise FormatError(
                f"{file.path}: none of its {skipped} rows has a {self.kind.asks_for}",
                hint="take other rows: those that data sets test with are without their answers",
            )
        return tuple(found), skipped

    def _parts(self, row: Row, first: Row) -> dict[str, Any]:
        lacks_a_field = row.fields.keys() <= first.fields.keys()
        if not (self.is_told or lacks_a_field or self.form.recognises(row.fields)):
            others = [kind.name for kind in kinds_of(row.fields)]
            if others and self.kind.name not in others:
                raise BadRow(
                    f"its fields are those of {others[0]}, and line {first.line} has those of "
                    f"{self.kind.name}",
                    hint="put rows of each kind into a file of their own",
                )
        return self.form.read(row.fields, like=first.fields)


def _check_ids(questions: Iterable[Question], problems: Problems) -> None:
    lines: dict[str, int] = {}
    for question in questions:
        line = lines.setdefault(question.id, question.line)
        if line != question.line:
            problems.add(
                question.line,
                BadRow(
                    f"the id {quoted(question.id)} is that of line {line} too",
                    hint="give each row an id of its own, or none",
                ),
            )


def _notes(kind: Kind, questions: Sequence[Question], skipped: int) -> Iterator[str]:
    """Yield what a reader should know about the rows."""
    if skipped:
        rows = "rows have" if skipped > 1 else "row has"
        yield f"{skipped} {rows} no {kind.asks_for} and cannot be asked"
    with_prefixes = [question for question in questions if _begins_another(question.options)]
    if with_prefixes:
        pair = ", ".join(map(quoted, _begins_another(with_prefixes[0].options)))
        yield (
            f"{len(with_prefixes)} of {len(questions)} questions have an option that begins "
            f"another, such as {pair}: the shorter one is likelier, so look at acc_norm too"
        )
    options = questions[0].options
    if options and all(option.isdigit() for option in options) and options == questions[-1].options:
        yield f"the labels are numbers, {named(options)}; --labels can give them names"


def _begins_another(options: Sequence[str]) -> tuple[str, ...]:
    """Return the first option that another begins with, and that one; () for none."""
    ordered = sorted(options)
    for first, second in pairwise(ordered):
        if second.startswith(first):
            return first, second
    return ()
