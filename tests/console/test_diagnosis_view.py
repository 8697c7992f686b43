"""The report of a diagnosis."""

import re
from pathlib import Path

from support.pseudo_terminal import pseudo_terminal

from edgellm.console.diagnosis_view import show_diagnosis, show_verification
from edgellm.diagnostics.doctor import Check, Diagnosis
from edgellm.diagnostics.verify import Verdict, Verification


def test_the_report_of_a_failure_says_so(capsys):
    found = Diagnosis(
        machine={
            "system": "S",
            "architecture": "A",
            "python": "P",
            "cpu": "C",
            "cores": 2,
            "usable_cores": 1,
        }
    )
    found.checks += [Check("one", True, "fine"), Check("other", False, "it is broken")]
    show_diagnosis(found)
    *_, first, second, _, verdict = capsys.readouterr().out.splitlines()
    assert (first, second) == ("ok      one: fine", "FAILED  other: it is broken")
    assert verdict.startswith("Not all is well: other failed.")
    assert "edgellm doctor --json" in verdict
    found.checks.pop()
    show_diagnosis(found)
    assert capsys.readouterr().out.endswith("\nAll is well: 1 of 1 checks passed.\n")


def test_a_check_is_broken_between_words_where_the_terminal_is_narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    words = ["a", "check", "of", "several", "words", "with", "a", "detail", "that", "is", "long"]
    with pseudo_terminal() as seen:
        show_verification(Verification(Path(), (Verdict("files", True, " ".join(words)),)))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", seen.text).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(lines).split() == ["ok", "files:", *words]
    assert all(line.startswith(" " * 8) for line in lines[1:])
