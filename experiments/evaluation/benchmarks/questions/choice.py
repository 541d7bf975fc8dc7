"""Multiple choice: the answer is the letter of an option."""

from __future__ import annotations

from collections.abc import Mapping
import re

from experiments.evaluation.benchmarks.tsv import Row

NONE_OF_THEM = "Z"
_CHINESE = re.compile("[\u4e00-\u9fff]")
DIRECTLY = "Answer with the option's letter from the given choices directly."
_ENDINGS = {  # by whether there are options, and whether the prompt is Chinese
  (True, False): DIRECTLY,
  (True, True): "请直接回答选项字母。",
  (False, False): "Answer the question directly.",
  (False, True): "请直接回答问题。",
}
_REFUSALS = (
  "Sorry, I can't help with images of people yet.",
  "I can't process this file.",
  "I'm sorry, but without the image provided",
  "Cannot determine the answer",
)
_FAILED = "Failed to obtain answer via API"
_BETWEEN = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")


def prompt(row: Row, family: str) -> str:
  """Hint, question, options, and how to answer; some families have wordings of their own."""
  return _WORDINGS.get(family, _plain)(row, row.fields["question"], row.fields.get("hint", ""))


def _plain(row, question, hint, ending="Please select the correct answer from the options above. \n"):
  text = f"Hint: {hint}\n" * bool(hint) + f"Question: {question}\n"
  if row.options:
    text += "Options:\n" + "".join(f"{letter}. {option}\n" for letter, option in row.options.items()) + ending
  return text


def _qwen3(row, question, hint):
  return _plain(row, question, hint, "Answer with the option letter only.").rstrip()


def _direct(row, question, hint):
  text = f"{hint}\n" * bool(hint) + question + "".join(f"\n{letter}. {option}" for letter, option in row.options.items())
  return f"{text}\n{_ENDINGS[bool(row.options), _CHINESE.search(text) is not None]}"


_WORDINGS = {"internvl": _direct, "llava": _direct, "qwen3": _qwen3}


def score(row: Row, prediction: str) -> float:
  """1 if the prediction names the right option, else 0."""
  return float(extract(prediction, row.options) == row.answer)


def extract(prediction: str, options: Mapping[str, str]) -> str:
  """The letter that a prediction names, or that of the only option whose text it contains; `Z` for none.

  Args:
    prediction: the model's text.
    options: letter to text.
  """
  return _letter(prediction, options) or _text(prediction, options) or NONE_OF_THEM


def _letter(prediction, options):
  if _FAILED in prediction:
    return None
  if any(refusal in prediction for refusal in _REFUSALS):
    return NONE_OF_THEM
  words = prediction.translate(_BETWEEN).split()
  named = [letter for letter in options if letter in words]
  # A single letter far from the end is more likely a word, such as the article A.
  if len(named) == 1 and words.index(named[0]) > len(words) - 5:
    return named[0]
  if not named and NONE_OF_THEM in words:
    return NONE_OF_THEM
  stated = _STATED.search(prediction)
  return stated[1].upper() if stated and stated[1].upper() in options else None


def _text(prediction, options):
  if len(prediction) > 2 * sum(map(len, options.values())):
    return None
  contained = [letter for letter, text in options.items() if text.lower() in prediction.lower()]
  return contained[0] if len(contained) == 1 else None
