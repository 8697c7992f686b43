"""The section on training: a bar for each technique, and the table with all of them."""

from support.bench_records import speed, training

from edgellm.bench.report.html_report import as_html
from edgellm.bench.report.training_section import training_section
from edgellm.bench.tables.columns import training_sentences

STYLES = {"edgellm": 0, "peft": 1}


def test_techniques_are_side_by_side_and_failures_elsewhere():
    records = [
        training(),
        training(test="QLoRA 4-bit, paged", pinned_layers=0),
        training(backend="peft", test="full", error="it is not installed", seconds=()),
        speed(),
    ]
    page = training_section(records, STYLES)
    # three panels of two bars, one table
    assert page.count('class="bar"') == 6
    assert "step of 4 x 128 tokens" in page
    assert "loss after 3 steps" in page
    assert "<td>QLoRA 4-bit, paged</td><td>1,000</td><td>0</td><td>8</td>" in page
    assert "not installed" not in page
    assert "it is not installed" in as_html(records)


def test_columns_of_layers_are_there_only_where_some_are_not_in_memory():
    assert "<td>8</td>" not in training_section([training()], STYLES)
    assert training_section([speed()], STYLES) == ""


def test_each_other_library_is_compared_with_what_edgellm_does_by_that_method():
    records = [
        training(),
        training(test="LoRA, paged", pinned_layers=0),
        training(backend="peft", seconds=(2.0, 4.0), peak_memory_bytes=320_000_000),
        training(backend="peft", test="full", method="full"),
        training(backend="peft", test="LoRA, bfloat16", error="killed"),
    ]
    assert training_sentences(records) == [
        "LoRA: edgellm has 2.00 times the tokens/s and 0.50 times the peak of peft, LoRA"
    ]
    assert "2.00 times the tokens/s" in training_section(records, STYLES)
