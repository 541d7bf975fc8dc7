"""The benchmarks' official metrics, as pure functions of predictions and answers; percentages go from 0 to 100."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import statistics

from experiments.benchmarks import normalization

MME_GROUPS = {
    "perception": ("OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters",
                   "scene"),
    "reasoning": ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"),
}
_TOLERANCE = 0.05


def consensus(prediction: str, answers: Sequence[str]) -> float:
  """TextVQA: agreement with ten people, each time leaving one out; three of the others make it full."""
  given, said = [normalization.vqa(answer) for answer in answers], normalization.vqa(prediction)
  same = given.count(said)
  return statistics.fmean(min(1.0, (same - (answer == said)) / 3) for answer in given)


def relaxed(prediction: str, answers: Sequence[str]) -> float:
  """ChartQA: numbers within 5 % of the answer are right, other texts must be equal but for case."""
  return float(any(_relaxed(prediction.strip(), answer) for answer in answers))


def _relaxed(said, answer):
  number, target = _number(said), _number(answer)
  if number is not None and target:
    return abs(number - target) / abs(target) <= _TOLERANCE
  return said.lower() == answer.lower()


def _number(text):
  try:
    return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
  except ValueError:
    return None


def exact(prediction: str, answers: Sequence[str]) -> float:
  """OCRVQA and plain questions: equal to one of the answers but for case and space around."""
  return float(any(answer.strip().lower() == prediction.strip().lower() for answer in answers))


def mme(categories: Sequence[str], pictures: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """MME: for every category accuracy plus accuracy+, the share of pictures whose two questions are both right.

  Args:
    categories: of every question.
    pictures: what picture it is about; those with one question only have no accuracy+.
    scores: 1 or 0.

  Returns:
    `total` (at most 2800), the sums `perception` and `reasoning`, and each category's (at most 200).
  """
  sums = {}
  for category in dict.fromkeys(categories):
    groups: dict[str, list[float]] = {}
    for group, picture, score in zip(categories, pictures, scores):
      if group == category:
        groups.setdefault(picture, []).append(score)
    plus = [group[0] * group[1] for group in groups.values() if len(group) > 1]
    sums[category] = 100 * (statistics.fmean(sum(groups.values(), [])) + (statistics.fmean(plus) if plus else 0.0))
  parts = {part: sum(sums.get(name, 0.0) for name in names) for part, names in MME_GROUPS.items()}
  return {"total": sum(parts.values()), **parts, **sums}


def hallusion(indices: Sequence[str], subcategories: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """HallusionBench: of all answers (aAcc), figures (fAcc) and questions (qAcc) those that are wholly right.

  Args:
    indices: of the rows, `kind_subcategory_..._set_figure_question` with underscores between.
    subcategories: their `l2-category`.
    scores: 1 or 0.
  """
  parts = [index.split("_") for index in indices]
  whole = lambda at: 100 * statistics.fmean(_all_right(
      ((category, part[3], part[at]) for category, part in zip(subcategories, parts)), scores))
  accuracies = {"aAcc": 100 * statistics.fmean(scores), "fAcc": whole(4), "qAcc": whole(5)}
  return {"average": statistics.fmean(accuracies.values()), **accuracies}


def _all_right(keys: Iterable, scores: Sequence[float]) -> list[float]:
  groups: dict = {}
  for key, score in zip(keys, scores):
    groups[key] = groups.get(key, 1.0) * float(score == 1)
  return list(groups.values())


def pope(categories: Sequence[str], answers: Sequence[str], extracted: Sequence[str]) -> dict[str, float]:
  """POPE: F1 of `Yes`, accuracy, precision and recall; a question of several categories counts in each.

  Args:
    categories: of every question, several with commas between.
    answers: `Yes` or `No`.
    extracted: `Yes`, `No` or `Unknown`.
  """
  pairs = [(name, answer, said) for names, answer, said in zip(categories, answers, extracted) for name in names.split(",")]
  result = _f1([pair[1:] for pair in pairs])
  for category in dict.fromkeys(name for name, _, _ in pairs if name):
    measured = _f1([(answer, said) for name, answer, said in pairs if name == category])
    result[f"{category} F1"], result[f"{category} accuracy"] = measured["F1"], measured["accuracy"]
  return result


def _f1(pairs):
  right = sum(answer == said == "Yes" for answer, said in pairs)
  said_yes, is_yes = (sum(pair[at] == "Yes" for pair in pairs) for at in (1, 0))
  precision, recall = right / said_yes if said_yes else 0.0, right / is_yes if is_yes else 0.0
  f1 = 2 * precision * recall / (precision + recall) if right else 0.0
  accuracy = statistics.fmean(answer == said for answer, said in pairs)
  return {"F1": 100 * f1, "accuracy": 100 * accuracy, "precision": 100 * precision, "recall": 100 * recall}


def circular(indices: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """MMBench and CCBench: a question counts if it is right under every rotation of its options.

  Args:
    indices: numbers; rotations of a question agree in the last six digits, the question itself has no more.
    scores: 1 or 0.

  Returns:
    By the index of each question, 1 or 0.
  """
  groups = dict(zip(dict.fromkeys(int(index) % 10**6 for index in indices),
                    _all_right((int(index) % 10**6 for index in indices), scores)))
  return {index: groups[int(index) % 10**6] for index in indices if int(index) < 10**6}


def accuracy(groups: Mapping[str, Sequence[str]], scores: Sequence[float]) -> dict[str, float]:
  """The mean of the scores, over all and by group.

  Args:
    groups: name of a column to every question's value in it; empty values belong nowhere.
    scores: 0 to 1.
  """
  result = {"overall": 100 * statistics.fmean(scores)}
  for values in groups.values():
    for value in sorted(set(values) - {""}):
      result[value] = 100 * statistics.fmean(score for other, score in zip(values, scores) if other == value)
  return result
