"""All metrics by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgellm.bench.metrics import formulas
from edgellm.bench.metrics.metric import Columns, Metric
from edgellm.bench.metrics.translations import BLEU_COLUMNS, CHRF_COLUMNS

_ALL = (
    Metric(
        name="accuracy",
        title="accuracy",
        definition="questions whose right option is the likeliest, summed over its tokens",
        columns=("correct",),
        formula=formulas.mean,
    ),
    Metric(
        name="acc_norm",
        title="acc_norm",
        definition="accuracy by log-likelihood per character, as lm-evaluation-harness has it",
        columns=("correct_chars",),
        formula=formulas.mean,
    ),
    Metric(
        name="acc_bytes",
        title="acc_bytes",
        definition="accuracy by log-likelihood per byte of the option in UTF-8",
        columns=("correct_bytes",),
        formula=formulas.mean,
    ),
    Metric(
        name="macro_f1",
        title="macro-F1",
        definition="mean F1 of the labels that are right or predicted somewhere, each alike",
        columns=("gold", "predicted"),
        formula=formulas.macro_f1,
        expand=formulas.label_counts,
    ),
    Metric(
        name="right_logprob",
        title="right answer",
        definition="mean log-likelihood of the right option, in nats",
        columns=("right_logprob",),
        formula=formulas.mean,
        unit="nats",
    ),
    Metric(
        name="exact_match",
        title="exact match",
        definition="answers equal to a right one without case, punctuation, a, an, the (SQuAD)",
        columns=("exact_match",),
        formula=formulas.mean,
    ),
    Metric(
        name="f1",
        title="F1",
        definition="mean F1 of an answer's words against the best right one (SQuAD's rules)",
        columns=("f1",),
        formula=formulas.mean,
    ),
    Metric(
        name="contains",
        title="contains",
        definition="answers that hold a right one, word for word, after the same folding",
        columns=("contains",),
        formula=formulas.mean,
    ),
    Metric(
        name="exact_match_has_answer",
        title="exact match, answerable",
        definition="exact match of the questions that have an answer (SQuAD 2.0's HasAns)",
        columns=("exact_match", "no_answer"),
        formula=formulas.mean,
        expand=formulas.of_answerable,
        where="no_answer",
    ),
    Metric(
        name="f1_has_answer",
        title="F1, answerable",
        definition="F1 of the questions that have an answer (SQuAD 2.0's HasAns)",
        columns=("f1", "no_answer"),
        formula=formulas.mean,
        expand=formulas.of_answerable,
        where="no_answer",
    ),
    Metric(
        name="exact_match_no_answer",
        title="no answer",
        definition="questions without an answer that got none (SQuAD 2.0's NoAns)",
        columns=("exact_match", "no_answer"),
        formula=formulas.mean,
        expand=formulas.of_unanswerable,
        where="no_answer",
    ),
    Metric(
        name="span_f1",
        title="span F1",
        definition="F1 of entities with the right type and both ends, over all (conlleval)",
        columns=("span_hits", "span_predicted", "span_gold"),
        formula=formulas.span_f1,
    ),
    Metric(
        name="span_precision",
        title="span precision",
        definition="right entities among those predicted",
        columns=("span_hits", "span_predicted"),
        formula=formulas.ratio,
    ),
    Metric(
        name="span_recall",
        title="span recall",
        definition="right entities among those in the tags",
        columns=("span_hits", "span_gold"),
        formula=formulas.ratio,
    ),
    Metric(
        name="bleu",
        title="BLEU",
        definition="corpus BLEU by sacrebleu, 0 to 100; 0 where no line has four tokens",
        columns=BLEU_COLUMNS,
        formula=formulas.bleu,
        unit="score",
    ),
    Metric(
        name="chrf",
        title="chrF",
        definition="corpus chrF2 by sacrebleu, 0 to 100: n-grams of up to six characters",
        columns=CHRF_COLUMNS,
        formula=formulas.chrf,
        unit="score",
    ),
    Metric(
        name="rouge_l",
        title="ROUGE-L",
        definition="mean F1 of the longest common run of words, in order, gaps allowed",
        columns=("rouge_l",),
        formula=formulas.mean,
    ),
    *(
        Metric(
            name=f"distinct_{order}",
            title=f"distinct-{order}",
            definition=f"different {order}-grams of words in an answer among all of them",
            columns=(f"distinct_{order}", f"ngrams_{order}"),
            formula=formulas.ratio,
        )
        for order in (1, 2, 3)
    ),
    Metric(
        name="repetition",
        title="repetition",
        definition="4-grams of words that the same answer had before, among all of them",
        columns=("distinct_4", "ngrams_4"),
        formula=formulas.repeated,
        higher_is_better=False,
    ),
    Metric(
        name="length",
        title="length",
        definition="mean words of an answer",
        columns=("length",),
        formula=formulas.mean,
        unit="words",
        higher_is_better=None,
    ),
    Metric(
        name="answer_tokens",
        title="tokens",
        definition="mean tokens of a generated answer",
        columns=("answer_tokens",),
        formula=formulas.mean,
        unit="tokens",
        higher_is_better=None,
    ),
    Metric(
        name="reference_logprob",
        title="log-likelihood",
        definition="mean log-likelihood of an answer's tokens under the first model, in nats",
        columns=("reference_logprob", "reference_tokens"),
        formula=formulas.ratio,
        unit="nats",
    ),
    Metric(
        name="rating",
        title="rating",
        definition="mean rating by the judge, 1 to 10, of the answers that it rated",
        columns=("judge",),
        formula=formulas.mean,
        expand=formulas.of_rated,
        unit="1-10",
        where="judge",
    ),
    Metric(
        name="task_score",
        title="score",
        definition="mean of the task's own figure, as lm-evaluation-harness gives it to a question",
        columns=("task_score",),
        formula=formulas.mean,
    ),
    Metric(
        name="task_error",
        title="score, less is better",
        definition="the same of a task where less is better, such as stereotypes held likelier",
        columns=("task_error",),
        formula=formulas.mean,
        higher_is_better=False,
    ),
    Metric(
        name="bits_per_byte",
        title="bits/byte",
        definition="negative log2-likelihood of the texts over their bytes in UTF-8",
        columns=("nll", "bytes"),
        formula=formulas.bits,
        unit="bits/byte",
        higher_is_better=False,
    ),
    *(
        Metric(
            name=f"{counted}_perplexity",
            title=f"ppl/{counted}",
            definition=f"exp of the texts' negative log-likelihood over their {counting}",
            columns=("nll", f"{counted}s"),
            formula=formulas.perplexity,
            unit="perplexity",
            higher_is_better=False,
        )
        for counted, counting in (
            ("token", "tokens, the beginning one not counted"),
            ("word", "words, split at white space"),
            ("byte", "bytes in UTF-8"),
        )
    ),
    Metric(
        name="kl",
        title="KL",
        definition="mean Kullback-Leibler divergence from the first model a token, in nats",
        columns=("kl_sum", "kl_tokens"),
        formula=formulas.ratio,
        unit="nats",
        higher_is_better=False,
    ),
    Metric(
        name="top1",
        title="top-1",
        definition="tokens after which this and the first model find the same one the likeliest",
        columns=("top1_agreed", "kl_tokens"),
        formula=formulas.ratio,
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name."""

COUNTED: Mapping[str, str] = {
    "cut": "prompts did not fit the context and were cut",
    "tie": "questions had two likeliest options; the first counted",
    "unparsed_lines": "lines of answers could not be read",
}
"""Columns that are counted beside the metrics, and how a count is put in words."""


def counts(columns: Columns) -> dict[str, int]:
    """Return the sums of the counted columns that are there and not 0, by column."""
    sums = {name: round(float(np.sum(columns[name]))) for name in COUNTED if name in columns}
    return {name: total for name, total in sums.items() if total}
