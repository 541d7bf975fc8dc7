"""Work that a model cannot avoid, in floating-point operations (a multiply-add is two) and bytes.

Matrix products only, over real tokens: padding is not work. Causal attention counts half its square.
"""

from __future__ import annotations

from models.decoder import DecoderConfig
from models.llava.config import LlavaConfig
from models.qwen2_5_vl.config import Qwen2_5_VLConfig


def language_prefill(text: DecoderConfig, tokens: int) -> float:
  """One prompt of `tokens` through the decoder, and the head on its last token.

  Of the other tokens the last layer needs only keys and values.
  """
  width = text.num_attention_heads * text.head_dim
  keys_values = 2 * text.hidden_size * text.num_key_value_heads * text.head_dim
  whole = (text.num_hidden_layers - 1) * (2 * tokens * _block_weights(text) + 2 * tokens**2 * width)
  last = 2 * (tokens - 1) * keys_values + 2 * _block_weights(text) + 4 * tokens * width
  return whole + last + 2 * text.hidden_size * text.vocab_size


def scoring(text: DecoderConfig, tokens: int) -> float:
  """HAWK's scores of one prompt's visual tokens: one folded query a head."""
  folding = 2 * text.hidden_size * text.num_attention_heads * 2 * text.head_dim
  return folding + 2 * tokens * text.hidden_size * text.num_attention_heads


def decode_bytes(text: DecoderConfig, cached: int, batch: int, itemsize: int) -> float:
  """Bytes that one decoding step reads: every weight once, and each row's cache of `cached` tokens."""
  weights = text.num_hidden_layers * _block_weights(text) + text.hidden_size * text.vocab_size
  return itemsize * (weights + batch * kv_cache_elements(text, cached))


def kv_cache_elements(text: DecoderConfig, tokens: int) -> int:
  """Elements of one row's cache: 2 * layers * tokens * key/value heads * head dim."""
  return 2 * text.num_hidden_layers * tokens * text.num_key_value_heads * text.head_dim


def vision(config, arrays) -> float:
  """The pictures in a processor's arrays through a port's tower."""
  if "image_grid_thw" in arrays:
    return qwen_vision(config, arrays["image_grid_thw"].tolist())
  return llava_vision(config, len(arrays["pixel_values"]))


def qwen_vision(config: Qwen2_5_VLConfig, grids) -> float:
  """Pictures and videos through the tower of Qwen2.5-VL.

  Args:
    config: of the model.
    grids: for each, temporal slices, height and width in patches.
  """
  vision = config.vision
  size, window = vision.hidden_size, vision.window_side * vision.spatial_merge_size
  weights = size * (4 * size + 3 * vision.intermediate_size)
  merged = size * vision.merge_unit
  full = sum(block < vision.depth for block in vision.fullatt_block_indexes)
  total = 0
  for frames, height, width in grids:
    patches = frames * height * width
    squares = frames * sum(min(window, height - top) ** 2 * min(window, width - left) ** 2
                           for top in range(0, height, window) for left in range(0, width, window))
    total += vision.depth * 2 * patches * weights + 2 * patches * vision.patch_dim * size
    total += 4 * size * ((vision.depth - full) * squares + full * frames * (height * width) ** 2)
    total += 2 * patches // vision.merge_unit * merged * (merged + vision.out_hidden_size)
  return total


def llava_vision(config: LlavaConfig, tiles: int) -> float:
  """Tiles through the tower of LLaVA, up to the last hidden state asked for, and through the projector."""
  vision, size = config.vision, config.vision.hidden_size
  tokens, layers = vision.side**2 + 1, max(vision.feature_layers)
  block = 2 * tokens * size * (4 * size + 2 * vision.intermediate_size) + 4 * tokens**2 * size
  hidden = config.text.hidden_size
  projector = 2 * vision.tokens * hidden * (size * len(vision.feature_layers) + hidden)
  return tiles * (layers * block + 2 * (tokens - 1) * vision.num_channels * vision.patch_size**2 * size + projector)


def _block_weights(text: DecoderConfig) -> int:
  heads = 2 * text.num_attention_heads + 2 * text.num_key_value_heads
  return text.hidden_size * (heads * text.head_dim + 3 * text.intermediate_size)
