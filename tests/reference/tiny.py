"""What the tiny checkpoints of all ports share: decoder tensors, random weights, and which rows goldens hold."""

from __future__ import annotations

import hashlib
import json
import pathlib
import zlib

import numpy as np
from safetensors.numpy import load_file
from safetensors.numpy import save_file


def linear(name: str, size_in: int, size_out: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
  """Tensors of a torch linear layer."""
  out = {f"{name}.weight": (size_out, size_in)}
  return {**out, f"{name}.bias": (size_out,)} if bias else out


def tower_shapes(name: str, size: int, mlp: int, layers: int, norms: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
  """Tensors of the blocks and norms of CLIP's and SigLIP's towers, as torch lays them out.

  Args:
    name: of the tower.
    size: hidden size.
    mlp: intermediate size.
    layers: how many blocks.
    norms: names of the norms outside the blocks.
  """
  out, norms = {}, [f"{name}.{norm}" for norm in norms]
  for number in range(layers):
    layer = f"{name}.encoder.layers.{number}"
    norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
      out |= linear(f"{layer}.self_attn.{projection}", size, size)
    out |= linear(f"{layer}.mlp.fc1", size, mlp) | linear(f"{layer}.mlp.fc2", mlp, size)
  for norm in norms:
    out[f"{norm}.weight"] = out[f"{norm}.bias"] = (size,)
  return out


def llava_hub_name(name: str) -> str:
  """A tensor's name in the published checkpoints of the LLaVA family."""
  for new, old in (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.language_model.", "language_model.model."),
    ("model.", ""),
  ):
    if name.startswith(new):
      return old + name.removeprefix(new)
  return name


def llava_hub_config(config: dict) -> dict:
  """The same config with the keys of the LLaVA family's published checkpoints."""
  text = dict(config["text_config"])
  text |= {"rope_theta": text.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
  return {**config, "text_config": text, "ignore_index": -100, "use_image_newline_parameter": True}


def decoder_shapes(text: dict, *, attention_bias: bool, tied: bool, qk_norm: bool = False) -> dict[str, tuple[int, ...]]:
  """Every tensor of a decoder, by its newer name, as torch lays it out.

  Args:
    text: a text config.
    attention_bias: of the query, key and value projections.
    tied: no lm_head.
    qk_norm: with norms of each head's queries and keys.
  """
  hidden, mlp = text["hidden_size"], text["intermediate_size"]
  head_dim = text.get("head_dim", hidden // text["num_attention_heads"])
  query, key_value = head_dim * text["num_attention_heads"], head_dim * text["num_key_value_heads"]
  out = {"model.language_model.embed_tokens.weight": (text["vocab_size"], hidden)}
  for number in range(text["num_hidden_layers"]):
    layer = f"model.language_model.layers.{number}"
    out[f"{layer}.input_layernorm.weight"] = out[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
    out |= linear(f"{layer}.self_attn.q_proj", hidden, query, attention_bias)
    out |= linear(f"{layer}.self_attn.k_proj", hidden, key_value, attention_bias)
    out |= linear(f"{layer}.self_attn.v_proj", hidden, key_value, attention_bias)
    out |= linear(f"{layer}.self_attn.o_proj", query, hidden, False)
    if qk_norm:
      out[f"{layer}.self_attn.q_norm.weight"] = out[f"{layer}.self_attn.k_norm.weight"] = (head_dim,)
    out |= linear(f"{layer}.mlp.gate_proj", hidden, mlp, False)
    out |= linear(f"{layer}.mlp.up_proj", hidden, mlp, False)
    out |= linear(f"{layer}.mlp.down_proj", mlp, hidden, False)
  out["model.language_model.norm.weight"] = (hidden,)
  return out if tied else out | linear("lm_head", hidden, text["vocab_size"], False)


# Factors on the decoder's kernels, whose standard deviation else is 1 / sqrt(fan_in). With these, attention is far from
# even, and a greedy answer goes on changing instead of repeating one token.
_GAINS = {"q_proj": 1.5, "k_proj": 1.5, "o_proj": 1.5, "down_proj": 1.5}
_EMBEDDING_SCALE = 0.15


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Random float32 tensors, each seeded by its name: kernels N(0, gain^2 / fan_in), norms 1 + 0.1 N, biases 0.1 N."""
  out = {}
  for name, shape in shapes.items():
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    *_, module, kind = name.split(".")
    if kind == "bias":
      noise *= 0.1
    elif kind == "weight" and len(shape) == 1:
      noise = 1 + 0.1 * noise
    elif module == "embed_tokens":
      noise *= _EMBEDDING_SCALE
    elif kind == "weight":
      gain = _GAINS.get(module, 1) if "language_model" in name else 1
      noise *= gain / np.sqrt(np.prod(shape[1:]))
    out[name] = noise.astype(np.float32)
  return out


def write(directory, config: dict, tensors: dict[str, np.ndarray]) -> None:
  """Writes config.json and model.safetensors into an existing folder."""
  directory = pathlib.Path(directory)
  (directory / "config.json").write_text(json.dumps(config, indent=1))
  save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def split(directory) -> None:
  """Turns a checkpoint's file of tensors into two, and an index."""
  directory = pathlib.Path(directory)
  tensors = load_file(directory / "model.safetensors")
  (directory / "model.safetensors").unlink()
  where = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
  for file in set(where.values()):
    save_file({name: tensors[name] for name in where if where[name] == file}, directory / file)
  (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def stack(cases: list[dict[str, np.ndarray]], padding: str = "right", media: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
  """Several prompts in one batch.

  Args:
    cases: arrays of single prompts.
    padding: side on which ids and mask are padded, `right` or `left`.
    media: names of arrays of pictures and videos, which follow one another.
  """
  length = max(arrays["input_ids"].shape[1] for arrays in cases)

  def pad(values):
    missing = length - len(values)
    return np.pad(values, (missing, 0) if padding == "left" else (0, missing))

  out = {name: np.stack([pad(arrays[name][0]) for arrays in cases]) for name in ("input_ids", "attention_mask")}
  for name in media:
    if values := [arrays[name] for arrays in cases if name in arrays]:
      out[name] = np.concatenate(values)
  return out


def pad_tiles(pictures) -> np.ndarray:
  """[pictures, tiles, C, H, W], shorter ones ending in zeros, as image processors pad them."""
  room = max(map(len, pictures))
  return np.stack([np.pad(tiles, ((0, room - len(tiles)),) + ((0, 0),) * 3) for tiles in pictures])


def feature_rows(count: int) -> np.ndarray:
  """Which of a prompt's visual tokens the goldens hold: all of up to 80, else every third."""
  return np.arange(count) if count <= 80 else np.arange(0, count, 3)


def logit_rows(length: int) -> np.ndarray:
  """Which of a prompt's positions the goldens hold: 20 evenly spaced ones, the first and the last among them."""
  return np.unique(np.linspace(0, length - 1, 20).astype(int))


def magnitudes(arrays) -> np.ndarray:
  """Mean of the absolute values of each array."""
  return np.array([np.abs(value).mean(dtype=np.float64) for value in arrays], np.float32)


def fingerprint(reference, config_name: str) -> np.ndarray:
  """Magnitudes of all weights, then of all prompts, by which goldens are recognized.

  Args:
    reference: module with the configs, weights and prompts of a port.
    config_name: of its `CONFIGS`.
  """
  values = list(reference.weights(reference.CONFIGS[config_name]).values())
  for name in reference.PARITY_CASES[config_name]:
    arrays = reference.case(name)
    values.extend(arrays[key] for key in ("input_ids", "pixel_values", "pixel_values_videos") if key in arrays)
  return magnitudes(values)


def digest(shapes) -> str:
  """A short string that differs for other tensors.

  Args:
    shapes: of all tensors, by name.
  """
  lines = sorted(f"{name} {list(shape)}\n" for name, shape in shapes.items())
  return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
