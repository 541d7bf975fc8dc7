"""What a model is asked, word for word as VLMEvalKit asks Qwen2.5-VL and LLaVA.

Qwen2.5-VL gets every benchmark's own prompt there; LLaVA has its own for multiple choice.
"""

from __future__ import annotations

import re

from experiments.benchmarks.suites import Suite
from experiments.benchmarks.tsv import Row

FAMILIES = {"qwen2_5_vl": "benchmark", "llava": "llava", "llava_next": "llava"}
_CHINESE = re.compile("[\u4e00-\u9fff]")
_SHORT = "\nAnswer the question using a single word or phrase."
_LLAVA_ENDINGS = {  # by whether there are options, and whether the prompt is Chinese
    (True, False): "Answer with the option's letter from the given choices directly.",
    (True, True): "请直接回答选项字母。",
    (False, False): "Answer the question directly.",
    (False, True): "请直接回答问题。",
}
_VIDEO = ("\nThese are the frames of a video. Select the best answer to the following multiple-choice question based on the "
          "video. Respond with only the letter (A, B, C, or D) of the correct option.\n")


def text(suite: Suite, row: Row, family: str) -> str:
  """The text that follows the pictures.

  Args:
    suite: the benchmark.
    row: the question.
    family: a value of FAMILIES.
  """
  question = row.fields["question"]
  if suite.kind == "video_choice":
    return f"{_VIDEO}Question: " + "\n".join([question, *row.options.values()]) + "\nAnswer: "
  if suite.kind in ("choice", "circular"):
    return (_llava_choice if family == "llava" else _choice)(row, question)
  return question + _SHORT if suite.kind == "short" else question


def _choice(row, question):
  hint = row.fields.get("hint", "")
  prompt = f"Hint: {hint}\n" * bool(hint) + f"Question: {question}\n"
  if row.options:
    prompt += "Options:\n" + "".join(f"{letter}. {option}\n" for letter, option in row.options.items())
    prompt += "Please select the correct answer from the options above. \n"
  return prompt


def _llava_choice(row, question):
  hint = row.fields.get("hint", "")
  prompt = f"{hint}\n" * bool(hint) + question + "".join(f"\n{letter}. {option}" for letter, option in row.options.items())
  return f"{prompt}\n{_LLAVA_ENDINGS[bool(row.options), _CHINESE.search(prompt) is not None]}"
