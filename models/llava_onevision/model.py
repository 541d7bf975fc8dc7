"""LLaVA-OneVision: SigLIP vision tower, projector, and a Qwen2 decoder; pictures, several pictures, and videos."""

from __future__ import annotations

import math

from einops import rearrange
from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from models import sharding
from models import vision_encoder
from models.decoder import Decoder
from models.llava_onevision import inputs as inputs_lib
from models.llava_onevision.config import LlavaOnevisionConfig
from models.llava_onevision.inputs import VisionInputs
from models.llava_onevision.vision import VisionTower
from models.sensitivity import measure
from models.vision_encoder import AXES
from models.vision_encoder import NAMES
from models.vision_encoder import Projector
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import make_lm_head
from models.vision_language import VisionLanguageModel


class LlavaOnevision(VisionLanguageModel):
  """All sizes of the family."""

  config: LlavaOnevisionConfig
  names = NAMES
  axes = AXES
  measures = ("saliency", "sensitivity")

  def setup(self):
    hidden_size = self.config.text.hidden_size
    self.vision_tower = VisionTower(self.config.vision, self.mesh)
    self.multi_modal_projector = Projector(hidden_size, self.config.projector_bias, self.mesh)
    self.image_newline = self.param("image_newline", nn.initializers.normal(), (hidden_size,))
    self.language_model = Decoder(self.config.text, self.mesh)
    if not self.config.text.tie_word_embeddings:
      self.lm_head = make_lm_head(self.config.text.vocab_size)

  def encode(self, vision: VisionInputs, measures: tuple[str, ...] = ()) -> Features:
    """Tiles to [F, D] features: weighted sums of the projected tokens of the tower, and newlines.

    A feature measures the weighted sum of what its tokens measure; newlines measure 0.
    """
    states = self.vision_tower.states(vision.tiles)
    x = self.vision_tower.choose(states)
    tokens = rearrange(self.multi_modal_projector(x), "P T D -> (P T) D")
    rows = sharding.features(jnp.concatenate([tokens, self.image_newline[None].astype(tokens.dtype)]), self.mesh)
    # One tap at a time: the rows of all four would need four times as much memory.
    mixed = sum(vision.weights[:, tap, None] * rows[vision.taps[:, tap]] for tap in range(4))
    mix = lambda values: (vision.weights * jnp.append(values, 0.0)[vision.taps]).sum(axis=-1)
    found = measure(measures, self.multi_modal_projector, x, lambda: self.vision_tower.saliency(states))
    return Features(
      sharding.features(mixed.astype(tokens.dtype), self.mesh), measures={name: mix(found[name]) for name in measures}
    )

  @nn.nowrap
  def pack(
    self,
    input_ids,
    attention_mask=None,
    pixel_values=None,
    image_sizes=None,
    batch_num_images=None,
    pixel_values_videos=None,
    video_frames=None,
  ) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host.

    Args:
      input_ids: [B, S] with one placeholder per visual token; newlines have placeholders too.
      attention_mask: [B, S], nonzero on real tokens; padding on either side. None: all are real.
      pixel_values: [pictures, tiles, C, H, W], in the order of their placeholders; pictures of fewer tiles end in zeros.
      image_sizes: [pictures, 2], height and width of each picture before it was scaled.
      batch_num_images: [prompts with pictures], pictures of each. A picture that is alone in its prompt has several
        tiles, one of several pictures has one tile. None: all are alone.
      pixel_values_videos: [videos, frames, C, H, W], in the order of their placeholders.
      video_frames: [videos], number of frames of each; the rest is padding. None: all frames are real.

    Raises:
      ValueError: arrays that do not fit one another or the model, with the argument's name.
    """
    return inputs_lib.pack(
      self.config,
      input_ids,
      attention_mask,
      pixel_values,
      image_sizes,
      batch_num_images,
      pixel_values_videos,
      video_frames,
      sharding.shards(self.mesh),
    )

  @nn.nowrap
  def example(self) -> Inputs:
    vision = self.config.vision
    return self.pack(
      input_ids=[[self.config.video_token_id] * inputs_lib.video_layout(self.config, 1).count],
      pixel_values_videos=np.zeros((1, 1) + vision.tile_shape, np.float32),
    )

  @nn.nowrap
  def synthetic_batch(self, sizes, text_tokens, rng=None):
    return inputs_lib.synthetic_batch(self.config, sizes, text_tokens, rng)

  @nn.nowrap
  def picture_size(self, visual_tokens=None):
    # From large to small, so that of several sizes with as many tokens the smallest remains.
    pinpoints = sorted(self.config.grid_pinpoints, key=lambda size: -size[0] * size[1])
    sizes = {inputs_lib.picture_layout(self.config, *size).count: size for size in pinpoints}
    if visual_tokens is None:
      limit = self.config.max_tiles * self.config.vision.image_size**2
      return next((size for size in pinpoints if size[0] == size[1] and size[0] ** 2 <= limit), pinpoints[-1])
    if visual_tokens not in sizes:
      raise ValueError(f"visual_tokens: got {visual_tokens}, pictures as large as a grid pinpoint have {sorted(sizes)}")
    return sizes[visual_tokens]

  @nn.nowrap
  def projector(self, visual_tokens):
    projector = Projector(self.config.text.hidden_size, self.config.projector_bias)
    return projector, (1, visual_tokens, self.config.vision.features)

  @nn.nowrap
  def vision_flops(self, arrays):
    sizes = np.asarray(arrays.get("image_sizes", ()), int).tolist()
    layouts = inputs_lib.picture_layouts(self.config, sizes, arrays.get("batch_num_images"))
    frames = math.prod(np.shape(arrays.get("pixel_values_videos", ()))[:2])
    tiles = sum(layout.tiles for layout in layouts) + frames
    return tiles * vision_encoder.flops(self.config.vision, self.config.vision.tokens, self.config.text.hidden_size)

  @nn.nowrap
  def vision_heads(self):
    return self.config.vision.num_attention_heads

  @nn.nowrap
  def leaves_out(self, tensor):
    """As in `VisionLanguageModel`; also SigLIP's pooling head, which no feature passes through."""
    return super().leaves_out(tensor) or tensor.startswith("vision_tower.head.")

  @nn.nowrap
  def stored_shapes(self):
    return {"vision_tower.embeddings.patch_embedding.weight": self.config.vision.patch_shape}
