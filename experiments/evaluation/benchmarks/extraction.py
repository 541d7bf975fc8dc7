"""What a model's text answers: yes or no, or an option's letter, read as VLMEvalKit reads it without a judge."""

from __future__ import annotations

from collections.abc import Mapping
import re

from experiments.benchmarks import normalization

UNKNOWN = "Unknown"
NONE_OF_THEM = "Z"
_REFUSALS = ("Sorry, I can't help with images of people yet.", "I can't process this file.",
             "I'm sorry, but without the image provided", "Cannot determine the answer")
_FAILED = "Failed to obtain answer via API"
_BETWEEN = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")
# In the evaluation two pairs of phrases lack the comma between them, so that neither of a pair is removed.
_VIDEO_PREFIXES = ("The best answer is", "The correct answer is", "The answer is", "The answer",
                   "The best option isThe correct option is", "Best answer:Best option:", "Answer:", "Option:")


def yes_or_no(prediction: str) -> str:
  """`Yes` or `No` if exactly one of the words occurs, else `Unknown`."""
  words = normalization.words_without_punctuation(prediction)
  found = [word for word in ("yes", "no") if word in words]
  return found[0].capitalize() if len(found) == 1 else UNKNOWN


def option(prediction: str, options: Mapping[str, str]) -> str:
  """The letter a prediction names, or the only option whose text it holds; `Z` for none.

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
  # A lone letter far from the end is more likely a word, such as the article A.
  if len(named) == 1 and words.index(named[0]) > len(words) - 5:
    return named[0]
  if not named and NONE_OF_THEM in words:
    return NONE_OF_THEM
  stated = _STATED.search(prediction)
  return stated[1].upper() if stated and stated[1].upper() in options else None


def _text(prediction, options):
  if len(prediction) > 2 * sum(map(len, options.values())):
    return None
  held = [letter for letter, text in options.items() if text.lower() in prediction.lower()]
  return held[0] if len(held) == 1 else None


def video_option(prediction: str) -> str:
  """The first capital A, B, C or D after the usual phrases are gone, as Video-MME and WorldSense score; `Z` for none."""
  text = prediction.strip()
  for prefix in _VIDEO_PREFIXES:
    text = text.replace(prefix, "")
  found = re.search("[ABCD]", text)
  return found[0] if found else NONE_OF_THEM
