"""Writes the golden arrays: what transformers' torch models say of the prompts of each port's reference.

Needs torch, so it runs in development only: python -m tests.reference.make_goldens [qwen2_5_vl llava ...]
"""

from __future__ import annotations

import json

from absl import app
import numpy as np
from safetensors.numpy import save_file
import torch
import transformers

from tests.reference import tiny
from tests.reference.ports import REFERENCES

# Logits of the two ways in which transformers computes attention may differ by this much.
LARGEST_DIFFERENCE = 1e-4


def build(reference, config: dict, attention: str = "eager") -> transformers.PreTrainedModel:
  """The torch model with the reference weights, in float32."""
  model = transformers.AutoModelForImageTextToText.from_config(
    transformers.AutoConfig.for_model(**config), attn_implementation=attention, dtype=torch.float32
  ).eval()
  weights = getattr(reference, "state_dict", reference.weights)(config)
  expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
  if config["tie_word_embeddings"]:
    del expected["lm_head.weight"]
  if expected != {name: value.shape for name, value in weights.items()}:
    raise ValueError(f"tensors differ: {expected.items() ^ reference.shapes(config).items()}")
  model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
  model.tie_weights()
  return model


def tensors(reference, arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
  """Arrays of a prompt as the torch model takes them."""
  out = {name: torch.from_numpy(value) for name, value in arrays.items()}
  if any(name.endswith("grid_thw") for name in out):
    ids = out["input_ids"]
    out["mm_token_type_ids"] = (ids == reference.IMAGE).int() + 2 * (ids == reference.VIDEO).int()
  if "second_per_grid_ts" in out:
    out["second_per_grid_ts"] = out["second_per_grid_ts"].float()
  return out


def features(reference, model, inputs) -> np.ndarray:
  """[V, D] visual tokens in the order of their placeholders; D times the levels and one where the model has DeepStack."""
  ids = inputs["input_ids"][0]
  rows, given = {}, lambda *names: {name: inputs[name] for name in names if name in inputs}
  if "pixel_values" in inputs:
    rows[reference.IMAGE] = model.get_image_features(
      inputs["pixel_values"], **given("image_grid_thw", "image_sizes", "batch_num_images")
    )
  if "pixel_values_videos" in inputs:
    rows[reference.VIDEO] = model.get_video_features(inputs["pixel_values_videos"], **given("video_grid_thw"))
  if not rows:
    return np.zeros([0, model.config.text_config.hidden_size], np.float32)
  levels = lambda found: (found.pooler_output, *getattr(found, "deepstack_features", ()))
  rows = {token: torch.cat([torch.cat(list(level)) for level in levels(found)], -1) for token, found in rows.items()}
  out = torch.zeros(len(ids), next(iter(rows.values())).shape[1])
  for token, values in rows.items():
    out[ids == token] = values
  return out[torch.isin(ids, torch.tensor(list(rows)))].numpy()


def greedy(reference, model, inputs) -> tuple[np.ndarray, float]:
  """[NEW_TOKENS] tokens, and the least lead of a chosen token's logit over the next best."""
  model.model.rope_deltas = None
  out = model.generate(
    **inputs,
    max_new_tokens=reference.NEW_TOKENS,
    do_sample=False,
    eos_token_id=None,
    pad_token_id=0,
    output_logits=True,
    return_dict_in_generate=True,
  )
  best = torch.stack(out.logits).topk(2).values
  return out.sequences[0, inputs["input_ids"].shape[1] :].int().numpy(), float((best[..., 0] - best[..., 1]).min())


def logits(model, inputs) -> np.ndarray:
  """[B, S, vocab]."""
  model.model.rope_deltas = None
  return model(**inputs).logits.numpy()


def make(reference) -> None:
  """Writes one reference's file."""
  goldens, names = {}, {}
  for config_name, config in reference.CONFIGS.items():
    model, other = build(reference, config), build(reference, config, "sdpa")
    names[config_name] = sorted(reference.shapes(config))
    goldens[f"{config_name}/fingerprint"] = tiny.fingerprint(reference, config_name)
    alone = {}
    for case in reference.PARITY_CASES[config_name]:
      inputs = tensors(reference, reference.case(case))
      alone[case] = logits(model, inputs)[0]
      if (error := np.abs(logits(other, inputs)[0] - alone[case]).max()) > LARGEST_DIFFERENCE:
        raise ValueError(f"{config_name}/{case}: logits with sdpa attention differ by {error}")
      tokens, lead = greedy(reference, model, inputs)
      if lead < 1e-3:
        raise ValueError(f"{config_name}/{case}: the two best tokens of a step are {lead} apart, choose other weights")
      visual = features(reference, model, inputs)
      goldens[f"{config_name}/{case}/features"] = visual[reference.feature_rows(len(visual))]
      goldens[f"{config_name}/{case}/logits"] = alone[case][reference.logit_rows(len(alone[case]))]
      goldens[f"{config_name}/{case}/tokens"] = tokens
      print(
        f"{config_name:9} {case:16} tokens {len(alone[case]):3}, visual {len(visual):3}, features std "
        f"{visual.std() if visual.size else 0:.2f}, logits std {alone[case].std():.2f}, least lead {lead:.4f}, "
        f"distinct answer tokens {len(set(tokens.tolist()))}",
        flush=True,
      )
    for padding in ("right", "left"):
      inputs = tensors(reference, reference.batch(reference.PARITY_CASES[config_name], padding))
      mask = inputs["attention_mask"].bool().numpy()
      error = max(
        np.abs(row[keep] - alone[case]).max()
        for row, keep, case in zip(logits(model, inputs), mask, reference.PARITY_CASES[config_name])
      )
      print(f"{config_name:9} {padding}-padded batch against each row alone: {error:.1e}")
  save_file(
    goldens,
    reference.GOLDENS,
    metadata={"tensor_names": json.dumps(names), "torch": torch.__version__, "transformers": transformers.__version__},
  )
  print(f"{reference.GOLDENS.name}: {reference.GOLDENS.stat().st_size:,} bytes")


@torch.no_grad()
def main(argv) -> None:
  torch.set_num_threads(1)
  for name in argv[1:] or REFERENCES:
    make(REFERENCES[name])


if __name__ == "__main__":
  app.run(main)
