"""Multiple choice about a video: the answer is A, B, C or D, and the options come with their letters."""

from __future__ import annotations

import re

from experiments.evaluation.benchmarks.questions import choice
from experiments.evaluation.benchmarks.questions.choice import NONE_OF_THEM
from experiments.evaluation.benchmarks.tsv import Row

_BEGINNING = (
  "\nThese are the frames of a video. Select the best answer to the following multiple-choice question based on "
  "the video. Respond with only the letter (A, B, C, or D) of the correct option.\nQuestion: "
)
# In the official evaluation two pairs of phrases lack the comma between them, so neither phrase of such a pair is removed.
_PREFIXES = (
  "The best answer is",
  "The correct answer is",
  "The answer is",
  "The answer",
  "The best option isThe correct option is",
  "Best answer:Best option:",
  "Answer:",
  "Option:",
)


def prompt(row: Row, family: str) -> str:
  """The question between instructions, of which InternVL has one of its own at the end."""
  ending = f" \n{choice.DIRECTLY}" if family == "internvl" else "\nAnswer: "
  return _BEGINNING + "\n".join([row.fields["question"], *row.options.values()]) + ending


def score(row: Row, prediction: str) -> float:
  """1 if the prediction names the right option, else 0."""
  return float(extract(prediction) == row.answer)


def extract(prediction: str) -> str:
  """The first capital A, B, C or D once the usual phrases are removed; `Z` for none."""
  text = prediction.strip()
  for prefix in _PREFIXES:
    text = text.replace(prefix, "")
  found = re.search("[ABCD]", text)
  return found[0] if found else NONE_OF_THEM
