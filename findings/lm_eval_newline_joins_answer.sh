#!/bin/sh
# lm-eval 0.4.13 (PyPI): a newline at the end of a prompt is scored as a part of every answer.
#
# One would expect: what the docstring of TemplateLM._encode_pair says, that trailing spaces of a
# context are moved to the continuation, so that tokens keep to the boundaries of words.
#
# What happens: everything that str.rstrip takes is moved: newlines, tabs, no-break spaces. Of a
# prompt that ends with a line ("Answer with one letter.\n"), the likelihood of that line's end is
# added to each answer, and is_greedy is true only if the model would end the line itself: acc of
# tasks with output_type loglikelihood is then 0 although the answer after the newline is certain.
#
# Output seen (x86-64, Python 3.11; a model that gives "B" after "\n" for certain, and "\n" 1 of 100):
#   prompt "Letter:\n", answer "B": scored "Letter:" and "\nB": log-likelihood -4.6, greedy False
#   prompt "Letter:\n", answer "B", as it stands: log-likelihood 0.0, greedy True
#
# For users: end prompts without a newline, or judge such tasks by the order of options alone.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check lm-eval==0.4.13
"$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON' || { cat "$folder/log"; exit 1; }
import math

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

NEXT = {"\n": {"B": 1.0}, ":": {"\n": 0.01, " ": 0.99}}


class Letters(TemplateLM):
    """A model of letters that knows what follows two of them."""

    eot_token_id = 0

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        return [ord(letter) for letter in string]

    def _loglikelihood_tokens(self, requests, **kwargs):
        self.seen = [("".join(map(chr, one)), "".join(map(chr, two))) for _, one, two in requests]
        return [score(one + two, len(one)) for _, one, two in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


def score(ids, begin):
    """The log-likelihood of the letters from a place on, and whether each is the likeliest."""
    total, greedy = 0.0, True
    for before, letter in zip(map(chr, ids[begin - 1 :]), map(chr, ids[begin:])):
        total += math.log(NEXT[before][letter])
        greedy &= letter == max(NEXT[before], key=NEXT[before].get)
    return round(total, 1), greedy


model = Letters()
(moved,) = model.loglikelihood([Instance("loglikelihood", {}, ("Letter:\n", "B"), 0)])
stands = score([ord(letter) for letter in "Letter:\nB"], len("Letter:\n"))
context, answer = (text.replace("\n", "\\n") for text in model.seen[0])
print(f'prompt "Letter:\\n", answer "B": scored "{context}" and "{answer}":', end=" ")
print(f"log-likelihood {moved[0]}, greedy {moved[1]}")
print(f'prompt "Letter:\\n", answer "B", as it stands: log-likelihood {stands[0]}, greedy {stands[1]}')
assert (moved, stands) == ((-4.6, False), (0.0, True))
PYTHON
