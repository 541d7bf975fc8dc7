"""How often an embedded model is right: with all visual tokens, with few, and blind.

  python -m experiments.accuracy --questions=2000

Pictures and handwriting are the test split's, never seen in training. Prints a Markdown table of the share of right
answers (exact match) by kind of question, and writes accuracy.json.
"""

from __future__ import annotations

import json

from absl import flags
import jax
import numpy as np
import tqdm

from experiments import command
from experiments import digits
from experiments import embedded
from hawk_jax import importance
from models import generation
from models import load_model
from models import load_processor
from models import sharding

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory.")
_QUESTIONS = flags.DEFINE_integer("questions", 2000, "Held-out questions, the kinds in turn.", lower_bound=1)
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [0.4, 0.2, 0.1], "Shares of the visual tokens to keep.")
_SELECTORS = flags.DEFINE_multi_string("selector", ["hawk", "random"], "Rules that pick them.")
_HEAD_IMPORTANCE = flags.DEFINE_string("head_importance", "uniform", "preset:NAME, uniform, or a JSON file.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 40, "Questions a batch.", lower_bound=1)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/accuracy", "Where accuracy.json goes.")


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  model, params = load_model(_MODEL.value, mesh=command.mesh())
  processor = load_processor(_MODEL.value)
  weights = importance.load(_HEAD_IMPORTANCE.value, model.config.text.num_attention_heads)
  examples = digits.dataset("test", _QUESTIONS.value)
  settings = [("all tokens", dict(keep_ratio=None))]
  settings += [(f"{selector} {ratio:g}", dict(keep_ratio=ratio, selector=selector))
               for ratio in _KEEP_RATIOS.value for selector in _SELECTORS.value]
  right = {name: [] for name, _ in settings} | {"no picture": [], "no question": []}

  def answers(inputs, features, **arguments):
    end_ids, sampling = generation.check_decoding(model, inputs.prompt, 4, processor.eos_token_ids)
    pruning = generation.plan_pruning(model, inputs.prompt, weights, **arguments)
    out = generation.prefill_and_decode(params, inputs.prompt, features, pruning, sampling, end_ids, model=model,
                                        max_new_tokens=4, return_logits=False)
    return processor.decode(out.tokens, out.lengths)

  def encode(inputs):
    return generation.encode(params, sharding.place(inputs.vision, model.mesh), model=model)

  def note(name, texts, chosen):
    right[name] += [text == question.answer for text, (_, question) in zip(texts, chosen)]

  for start in tqdm.trange(0, len(examples), _BATCH_SIZE.value, unit="batch"):
    chosen = examples[start:start + _BATCH_SIZE.value]
    pictures, asked = [[picture] for picture, _ in chosen], [question.text for _, question in chosen]

    inputs = model.pack(**processor(images=pictures, prompts=asked))
    features = jax.block_until_ready(encode(inputs))
    for name, arguments in settings:
      seeds = np.arange(start, start + len(chosen))
      note(name, answers(inputs, features, selector_seed=seeds, **arguments), chosen)
    note("no picture", answers(model.pack(**processor(prompts=asked)), None), chosen)
    silent = model.pack(**processor(images=pictures, prompts=[""] * len(chosen)))
    note("no question", answers(silent, encode(silent)), chosen)

  kinds = np.asarray([question.kind for _, question in examples])
  table = {name: {"all": float(np.mean(hits)), **{kind: float(np.mean(np.asarray(hits)[kinds == kind]))
                                                  for kind in digits.KINDS if (kinds == kind).any()}}
           for name, hits in right.items()}
  columns = list(next(iter(table.values())))
  print(f"\n{len(examples)} questions on unseen handwriting, {_MODEL.value}, head importance {_HEAD_IMPORTANCE.value}\n")
  print("| share of right answers, % | " + " | ".join(columns) + " |")
  print("|---|" + "---:|" * len(columns))
  for name, row in table.items():
    print(f"| {name} | " + " | ".join(f"{100 * row[column]:.1f}" for column in columns) + " |")
  report = {"model": _MODEL.value, "questions": len(examples), "head_importance": weights.tolist(), "accuracy": table}
  (output / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
  command.run(main)
