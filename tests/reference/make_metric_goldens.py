"""Writes the scores and prompts of VLMEvalKit's own code for the cases of `metric_cases` to
tests/experiments/goldens/metrics.json, and the prompts of families that it asks in their own words to family_prompts.json.

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

from tests.reference import metric_cases as cases

PATH = pathlib.Path(__file__).parents[1] / "experiments" / "goldens" / "metrics.json"
FAMILIES_PATH = PATH.with_name("family_prompts.json")


def rating(function, rows: list[dict]) -> dict:
  """What one of VLMEvalKit's ratings gives for a table of rows."""
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / "rows.tsv"
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return json.loads(function(str(path)).to_json(orient="records"))


def prompts() -> list[tuple[str, dict, str, str]]:
  """For every case the prompts of Qwen2.5-VL and of LLaVA."""
  kinds = {"MME": ImageYORNDataset, "HallusionBench": ImageYORNDataset, "POPE": ImageYORNDataset, "Video-MME": VideoMME}
  result = []
  for name, row in cases.PROMPTS:
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

  circular = pd.DataFrame(cases.circular_rows())
  groups = circular.groupby(circular["index"] % 10**6)
  whole = lambda group: int((multiple_choice.prefetch_circular_group(group) or {"hit": 0})["hit"])
  goldens = {
    "consensus": [(p, a, vqa("TextVQA", "vqa_score", p, a)) for p, a in cases.CONSENSUS],
    "relaxed": [(p, a, vqa("ChartQA", "relaxed_accuracy", p, a)) for p, a in cases.RELAXED],
    "exact": [(p, a, vqa("OCRVQA", "accuracy", p, a)) for p, a in cases.EXACT],
    "yes_no": [(p, yorn.YOrN_Extraction(p)) for p in cases.YES_NO],
    "option": [
      (p, options, option(p, options))
      for texts, options in ((cases.CHOICES, cases.OPTIONS), (cases.NUMBER_CHOICES, cases.NUMBERS))
      for p in texts
    ],
    "video_option": [(p, videomme.extract_characters_regex(p)) for p in cases.VIDEO],
    "mme": {"rows": cases.mme_rows(), "result": rating(yorn.MME_rating, cases.mme_rows())},
    "hallusion": {"rows": cases.hallusion_rows(), "result": rating(yorn.Hallusion_rating, cases.hallusion_rows())},
    "pope": {"rows": cases.pope_rows(), "result": rating(yorn.POPE_rating, cases.pope_rows())},
    "circular": {"rows": cases.circular_rows(), "result": {str(index): whole(group) for index, group in groups}},
    "prompts": prompts(),
  }
  families = {"internvl": internvl_prompts(goldens["prompts"]), "qwen3": qwen3_prompts(goldens["prompts"])}
  for path, content in ((PATH, goldens), (FAMILIES_PATH, families)):
    path.write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n")
  print({name: len(found) if isinstance(found, list) else len(found["rows"]) for name, found in goldens.items()})


if __name__ == "__main__":
  main()
