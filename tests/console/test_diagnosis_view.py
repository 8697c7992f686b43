"""The report of a diagnosis."""

from edgellm.console.diagnosis_view import show_diagnosis
from edgellm.diagnostics.doctor import Check, Diagnosis


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
