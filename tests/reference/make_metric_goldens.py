"""Writes the scores and prompts of VLMEvalKit's own code for the cases below: tests/experiments/goldens/metrics.json,
and the prompts of families that it asks in their own words in family_prompts.json.

It needs the package vlmeval, so it runs in development only: python -m tests.reference.make_metric_goldens. The package must
be that of VLMEvalKit's repository: release 0.0.20 on PyPI lacks the rule that "the answer is d" names an option.
"""

from __future__ import annotations

import json
import pathlib
import tempfile

import pandas as pd
from vlmeval.dataset.image_mcq import ImageMCQDataset
from vlmeval.dataset.image_vqa import ImageVQADataset
from vlmeval.dataset.image_yorn import ImageYORNDataset
from vlmeval.dataset.utils import multiple_choice
from vlmeval.dataset.utils import videomme
from vlmeval.dataset.utils import vqa_eval
from vlmeval.dataset.utils import yorn
from vlmeval.dataset.videomme import VideoMME
from vlmeval.vlm.internvl.internvl_chat import InternVLChat
from vlmeval.vlm.internvl.utils import build_video_prompt
from vlmeval.vlm.llava.llava import LLaVA
from vlmeval.vlm.qwen3_vl.prompt import Qwen3VLPromptMixin

PATH = pathlib.Path(__file__).parents[1] / "experiments" / "goldens" / "metrics.json"
FAMILIES_PATH = PATH.with_name("family_prompts.json")

_TEN = lambda *pairs: [answer for answer, count in pairs for _ in range(count)]
CONSENSUS = [
  ("nokia", _TEN(("nokia", 10))),
  ("Nokia.", _TEN(("nokia", 3), ("samsung", 7))),
  ("nokia", _TEN(("nokia", 2), ("lg", 8))),
  ("the nokia", _TEN(("nokia", 1), ("lg", 9))),
  ("two", _TEN(("2", 4), ("3", 6))),
  ("2", _TEN(("two", 5), ("three", 5))),
  ("none", _TEN(("0", 9), ("no", 1))),
  ("1,000", _TEN(("1000", 6), ("1,000", 4))),
  ("3.5", _TEN(("3.5", 5), ("35", 5))),
  ("dont walk", _TEN(("don't walk", 10))),
  ("Dont't", _TEN(("don't", 10))),
  ("st. john's", _TEN(("st john's", 7), ("st. johns", 3))),
  ("half-off", _TEN(("half off", 5), ("halfoff", 5))),
  ("yes!", _TEN(("yes", 8), ("no", 2))),
  ("A.B.C.", _TEN(("abc", 5), ("a.b.c.", 5))),
  ("10:30 am", _TEN(("10:30", 4), ("10:30 am", 2), ("1030am", 4))),
  ("coca cola\n", _TEN(("coca cola", 4), ("coca-cola", 6))),
  ("$5.99", _TEN(("$5.99", 2), ("5.99", 8))),
  ("", _TEN(("unanswerable", 10))),
  ("couldntve", _TEN(("couldn't've", 10))),
  ("couldn'tve", _TEN(("couldn't've", 10))),
  ("somebody'd", _TEN(("somebodyd", 10))),
  ("ow's'at", _TEN(("'ow's'at", 10))),
  ("oclock", _TEN(("o'clock", 3), ("clock", 7))),
  ("." * 40 + "x", _TEN(("x", 10))),
  ("a man", ["man"]),
  ("twas she's its", _TEN(("'twas she's its", 10))),
  ("yall'll", _TEN(("y'all'll", 4), ("yall", 6))),
  ("50%", _TEN(("50%", 3), ("50", 7))),
  ("50 %", _TEN(("50%", 5), ("50 %", 5))),
  ("1990s", _TEN(("1990's", 5), ("1990s", 2), ("1990", 3))),
  ("two dogs", _TEN(("2 dogs", 6), ("2 dog", 4))),
  ("Yes. It is a phone", _TEN(("yes", 10))),
]
RELAXED = [
  ("10.4", "10"),
  ("10.5", "10"),
  ("10.51", "10"),
  ("9.5", "10"),
  ("9.49", "10"),
  ("14%", "14%"),
  ("14", "14%"),
  ("0.14", "14%"),
  ("14.6%", "14%"),
  ("14.8%", "14%"),
  ("2008", "2010"),
  ("1999", "2010"),
  ("2010", "2010"),
  ("0", "0"),
  ("0.0", "0"),
  ("0.01", "0"),
  ("Yes", "yes"),
  ("yes.", "Yes"),
  ("Male ", "male"),
  (" 42\n", "42"),
  ("42 people", "42"),
  ("1,200", "1200"),
  ("1200", "1,200"),
  ("-5", "-5.2"),
  ("5", "-5"),
  ("1e3", "1000"),
  ("nan", "3"),
  ("inf", "3"),
  ("[1, 2]", "[1, 2]"),
  ("3", "['3', '4']"),
  ("4.1", "['3', '4']"),
  ("dogs", "dog"),
  ("", "5"),
  ("%", "5%"),
  ("United States", "united states"),
  ("12.0", "12"),
  ("50%%", "50%"),
  ("5 %", "5%"),
  ("5 percent", "5%"),
  ("105%", "100%"),
  ("in 2010", "2010"),
  ("2010.", "2010"),
  ("1990s", "1990"),
  ("two", "2"),
  ("2 dogs", "2"),
  ("Yes. There are.", "Yes"),
  ("(a)", "a"),
  ("$5", "5"),
  (".5", "0.5"),
]
EXACT = [
  ("Yes", "yes"),
  ("yes.", "yes"),
  (" Yes ", "yes"),
  ("no", "No"),
  ("John Smith", "john smith"),
  ("John  Smith", "John Smith"),
  ("J. Smith", "J Smith"),
  ("1999", "1999"),
  ("1999.", "1999"),
  ("children's books", "Children's Books"),
  ("Children's Books\n", "children's books"),
  ("", "x"),
  ("x", " x "),
  ("Arts & Photography", "arts & photography"),
  ("Arts", "arts & photography"),
  ("a", "['a', 'b']"),
  ("B", "['a', 'b']"),
  ("c", "['a', 'b']"),
  ("The Book", "Book"),
  ("ÉCOLE", "école"),
  ("yes, it is", "yes"),
  ("10", "10"),
  ("Yes. It is.", "yes"),
  ("10%", "10 %"),
  ("1990s", "1990's"),
  ("(b)", "b"),
  ("Books", "book"),
]
YES_NO = [
  "Yes",
  "yes",
  "YES.",
  "No",
  "no,",
  "yes.",
  "Yes. The picture shows a dog.",
  "No, there is not.",
  "Yes and no",
  "not sure",
  "",
  "No no no",
  "The answer is yes",
  "Yes, there is no cat",
  "yesterday",
  "Noah",
  "yes/no",
  "(yes)",
  "Yes-it is",
  "n o",
  "**Yes**",
  "yes it's 1,000",
  "Answer: No",
  "no.yes",
  "'yes'",
  "Yes\nNo",
  "nope",
  "yes:",
  "NO!",
  "y.e.s",
]
OPTIONS = {"A": "a cat", "B": "a dog", "C": "two dogs", "D": "None of the above"}
CHOICES = [
  "A",
  "a",
  "(B)",
  "B.",
  "b.",
  "C) two dogs",
  "The answer is D",
  "the answer is d",
  "answer is **C**. Because it barks",
  "a dog",
  "A dog",
  "It shows two dogs",
  "two dogs and a cat",
  "The animal is a cat.",
  "none of the above",
  "Z",
  "E",
  "A or B",
  "A and then some more words that go on for long",
  "Some more words that go on and the answer: A",
  "The correct answer is B, because of a long and winding explanation of it",
  "The answer is cat",
  "I'm sorry, but without the image provided I cannot say",
  "Cannot determine the answer",
  "",
  "Option A",
  "[C]",
  "{D}",
  "A: a cat",
  "AB",
  "A,B",
  "Failed to obtain answer via API",
  "dog",
  "A dog is what I see in this picture for sure",
  "*B*",
  "#B",
  "B!",
  "'B'",
  "-B",
  "(b)",
  "(c) two dogs",
  "c",
  "d. none of the above",
  "the answer is (b)",
  "two Dogs.",
  "I think that it must be either the first one or the second one or maybe even all of these animals together, who knows",
  "Sorry, I can't help with images of people yet. A",
]
NUMBERS = {"A": "1", "B": "10", "C": "100", "D": "2", "E": "20"}
NUMBER_CHOICES = [
  "E",
  "20",
  "1",
  "10",
  "100",
  "2",
  "It is 20.",
  "e",
  "(E)",
  "answer is E",
  "answer is 100",
  "The 2 dogs",
  "200",
]
VIDEO = [
  "A",
  "B.",
  "(C)",
  "D) it rains",
  "a",
  "The best answer is B",
  "The correct answer is: C",
  "The answer is D.",
  "Answer: A",
  "Option: B",
  "Best option: C",
  "Best answer: D",
  "The best option is A",
  "The correct option is B",
  "I do not know",
  "It could be any one of them, as far as one can tell from this",
  "",
  "E",
  "A dog, so B",
  "**C**",
  "Because of the rain: D",
  "The Answer: B",
  "(b)",
  "c.",
  "50% of them",
  "In 1999, A",
  "Yes. B",
]


def rating(function, rows: list[dict]) -> dict:
  """What one of VLMEvalKit's ratings gives for a table of rows."""
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / "rows.tsv"
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return json.loads(function(str(path)).to_json(orient="records"))


def mme_rows() -> list[dict]:
  categories = [
    "OCR",
    "artwork",
    "celebrity",
    "color",
    "count",
    "existence",
    "landmark",
    "position",
    "posters",
    "scene",
    "code_reasoning",
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
  ]
  return [
    dict(
      index=6 * c + 2 * p + q,
      category=category,
      image_path=f"{category}/{p}.png",
      score=bool((c * p + q * c + p + (c > 6) * q) % 3),
    )
    for c, category in enumerate(categories)
    for p in range(3)
    for q in range(2)
  ]


def hallusion_rows() -> list[dict]:
  return [
    {
      "index": f"{kind}_{sub}_{with_picture}_{s}_{f}_{q}",
      "category": kind,
      "l2-category": sub,
      "score": bool((s * 7 + f * 3 + q * 5 + (kind == "VS") + len(sub)) % 4),
    }
    for kind, sub in (("VD", "illusion"), ("VD", "math"), ("VS", "chart"), ("VS", "map"))
    for with_picture in (1,)
    for s in range(3)
    for f in range(3)
    for q in range(2)
  ]


def pope_rows() -> list[dict]:
  categories = ["popular", "random", "adversarial", "popular,random", "adversarial,popular,random"]
  rows = []
  for number in range(40):
    answer, said = ("Yes", "No")[number % 2], ("Yes", "No", "Yes", "Unknown", "No", "No", "Yes")[number % 7]
    rows.append(dict(index=number, category=categories[number % 5], answer=answer, extracted=said, score=answer == said))
  return rows


def circular_rows() -> list[dict]:
  rows = []
  for question in range(8):
    options = ["red", "green", "blue", "grey"][: 3 + question % 2]
    for turn in range(len(options)):
      turned = options[turn:] + options[:turn]
      answer = "ABCD"[turned.index("red")]
      said = {
        0: answer,
        1: f"({answer})",
        2: "red",
        3: "A",
        4: answer if turn else "Z",
        5: "green",
        6: answer.lower(),
        7: f"{answer}. red",
      }[question]
      rows.append(
        dict(index=question + turn * 10**6, question="Which?", GT=answer, prediction=said, **dict(zip("ABCD", turned)))
      )
  return rows


MCQ = {"question": "Which animal is it?", "A": "cat", "B": "dog", "answer": "A"}
PROMPTS = [
  ("MME", {"question": "Is it a dog? Please answer yes or no.", "answer": "Yes"}),
  ("HallusionBench", {"question": "Is the line longer?", "answer": "No"}),
  ("POPE", {"question": "Is there a car?", "answer": "No"}),
  ("TextVQA_VAL", {"question": "what brand is it?", "answer": "nokia"}),
  ("ChartQA_TEST", {"question": "How many bars?", "answer": "4"}),
  ("OCRVQA_TESTCORE", {"question": "Who wrote it?", "answer": "x"}),
  ("AI2D_TEST", MCQ),
  ("RealWorldQA", {**MCQ, "C": "horse"}),
  ("ScienceQA_TEST", {**MCQ, "hint": "It barks."}),
  ("CCBench", {**MCQ, "question": "这是什么动物？", "A": "猫", "B": "狗"}),
  ("MMBench_DEV_EN", {**MCQ, "hint": "It barks.", "D": "none of them"}),
  ("RealWorldQA", {"question": "How many animals?", "answer": "2"}),
  ("Video-MME", {"question": "Which digit moves?", "candidates": "['A. one', 'B. two']", "answer": "A", "video": "x"}),
]


def prompts() -> list[tuple[str, dict, str, str]]:
  """For every case the prompts of Qwen2.5-VL and of LLaVA."""
  kinds = {"MME": ImageYORNDataset, "HallusionBench": ImageYORNDataset, "POPE": ImageYORNDataset, "Video-MME": VideoMME}
  result = []
  for name, row in PROMPTS:
    kind = kinds.get(name, ImageMCQDataset if "A" in row or name == "RealWorldQA" else ImageVQADataset)
    dataset = object.__new__(kind)
    dataset.meta_only, dataset.dataset_name, dataset.use_subtitle, dataset.data_root = True, name, False, ""
    asked = dataset.build_prompt({"image_path": "x.png", **row}, *([True] if kind is VideoMME else []))
    qwen = llava = "".join(part["value"] for part in asked if part["type"] == "text")
    model = object.__new__(LLaVA)
    model.dump_image = lambda line, dataset: ["x.png"]
    if model.use_custom_prompt(name):
      llava = "".join(part["value"] for part in model.build_prompt(row, name) if part["type"] == "text")
    result.append((name, row, qwen, llava))
  return result


def qwen3_prompts(others) -> list[str]:
  """For every case of `prompts` that of Qwen3-VL, which asks about videos as the others do."""
  model = Qwen3VLPromptMixin(use_custom_prompt=True)
  model.set_dump_image(lambda line: ["x.png"])
  result = []
  for name, row, plain, _ in others:
    if not model.use_custom_prompt(name):
      result.append(plain)
      continue
    asked = model.build_prompt(row, name)
    result.append("".join(part["value"] for part in asked if part["type"] == "text"))
  return result


def internvl_prompts(others) -> list[str]:
  """For every case of `prompts` that of InternVL."""
  model = object.__new__(InternVLChat)
  model.use_mpo_prompt = model.use_cot = False
  model._use_custom_prompt = True
  model.dump_image = lambda line, dataset: ["x.png"]
  result = []
  for name, row, plain, _ in others:
    if model.use_custom_prompt(name):
      asked = model.build_prompt(pd.Series(row), name)
      result.append("".join(part["value"] for part in asked if part["type"] == "text"))
    else:
      result.append(build_video_prompt(plain, name))
  return result


def main():
  option = lambda text, options: multiple_choice.extract_answer_from_item(
    None, {"question": "Which?", "prediction": text, **options}
  )["opt"]

  def vqa(dataset, method, prediction, answer):
    line = vqa_eval.process_line({"prediction": prediction, "answer": str(answer)}, method=method)
    return float(vqa_eval.hit_calculate([line], dataset)[0])

  circular = pd.DataFrame(circular_rows())
  groups = circular.groupby(circular["index"] % 10**6)
  whole = lambda group: int((multiple_choice.prefetch_circular_group(group) or {"hit": 0})["hit"])
  goldens = {
    "consensus": [(p, a, vqa("TextVQA", "vqa_score", p, a)) for p, a in CONSENSUS],
    "relaxed": [(p, a, vqa("ChartQA", "relaxed_accuracy", p, a)) for p, a in RELAXED],
    "exact": [(p, a, vqa("OCRVQA", "accuracy", p, a)) for p, a in EXACT],
    "yes_no": [(p, yorn.YOrN_Extraction(p)) for p in YES_NO],
    "option": [
      (p, options, option(p, options)) for texts, options in ((CHOICES, OPTIONS), (NUMBER_CHOICES, NUMBERS)) for p in texts
    ],
    "video_option": [(p, videomme.extract_characters_regex(p)) for p in VIDEO],
    "mme": {"rows": mme_rows(), "result": rating(yorn.MME_rating, mme_rows())},
    "hallusion": {"rows": hallusion_rows(), "result": rating(yorn.Hallusion_rating, hallusion_rows())},
    "pope": {"rows": pope_rows(), "result": rating(yorn.POPE_rating, pope_rows())},
    "circular": {"rows": circular_rows(), "result": {str(index): whole(group) for index, group in groups}},
    "prompts": prompts(),
  }
  families = {"internvl": internvl_prompts(goldens["prompts"]), "qwen3": qwen3_prompts(goldens["prompts"])}
  for path, content in ((PATH, goldens), (FAMILIES_PATH, families)):
    path.write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n")
  print({name: len(cases) if isinstance(cases, list) else len(cases["rows"]) for name, cases in goldens.items()})


if __name__ == "__main__":
  main()
