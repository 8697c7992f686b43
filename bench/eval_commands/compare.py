"""``edgellm eval compare``: pair the answers in result files, question by question."""

from __future__ import annotations

from edgellm.bench import command_options as common
from edgellm.bench.eval_commands.shown import show_evaluations
from edgellm.bench.records.collect import exit_code
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.report.result_files import open_outputs, read_some_records
from edgellm.errors import FormatError


def compare(
    files: common.Files,
    *,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Pair the answers in result files, question by question, with those of the first file.

    The runs may come from other machines: what they were asked must be the same.
    """
    records: list[EvaluationRecord] = []
    for file in files:
        found = [one for one in read_some_records(file) if isinstance(one, EvaluationRecord)]
        if not found:
            raise FormatError(
                f"{file} holds no evaluations",
                hint="name files that edgellm eval --output has written",
            )
        records += found
    with open_outputs(output) as outputs:
        for record in records:
            for one in outputs:
                one.add(record)
    show_evaluations(records, json=json, wide=wide)
    return exit_code(records, stopped=False)
