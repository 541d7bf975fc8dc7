"""CLIP's relevance of each visual token to a question: the scores that the selector `cdpruner` (NeurIPS 2025) needs.

  clip = clip_text.load(directory)  # of openai/clip-vit-large-patch14-336
  scores = clip.relevance(model, params, inputs, ["Which digit is red?"])
  out = generate(model, params, inputs, selector="cdpruner", scores=scores, keep_count=64)

LLaVA-1.5's vision tower is CLIP's, unchanged. The hidden states that it outputs go through CLIP's last norm and projection
instead of LLaVA's projector, and are compared with the question's embedding by CLIP's text tower. The score is the negated
cosine, as in the authors' code. Their code splits a longer text into pieces of 77 tokens and takes the mean of their
embeddings; here the text is cut off after 77 tokens.

Axes: B prompts, V visual slots, P tiles, T tokens per tile, M texts, S = 77 text slots, D hidden size, E joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, ClassVar

from einops import rearrange
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import transformers

from hawk_jax import checks
from hawk_jax.pruning import Pruning
from models import hf_config
from models import sharding
from models.checkpoints import directory as directory_lib
from models.checkpoints import hf
from models.checkpoints import tokenizer as tokenizer_lib
from models.checkpoints.names import Names
from models.inputs import templates
from models.llava.model import Llava
from models.llava.vision import VisionConfig
from models.vision_encoder import Encoder
from models.vision_encoder import EncoderConfig
from models.vision_encoder import layer_norm
from models.vision_language import Inputs

# Older configs hold this number, whatever the id of the end token is.
_LEGACY_END = 2


@dataclasses.dataclass(frozen=True)
class TextConfig(EncoderConfig):
  """Shapes of the text tower.

  Attributes:
    max_position_embeddings: S.
    eos_token_id: id of the token whose state represents the text; 2 stands for the token with the highest id in the text.
  """

  vocab_size: int = 49_408
  max_position_embeddings: int = 77
  eos_token_id: int = 49_407
  causal: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """The parts of a CLIP that are read.

  Attributes:
    text: its text tower.
    vision: its vision tower, of which only the last norm is read.
    projection_dim: E.
  """

  text: TextConfig
  vision: VisionConfig
  projection_dim: int


def from_hf(content: dict[str, Any]) -> ClipConfig:
  """Reads a config.json of model_type clip.

  Raises:
    ValueError: another model_type, or a value that is not supported.
  """
  hf_config.require("model_type", content.get("model_type"), "clip")
  config = transformers.CLIPConfig(**content)
  text, vision = config.text_config, config.vision_config
  for name, part in (("text_config", text), ("vision_config", vision)):
    hf_config.require(f"{name}.hidden_act", part.hidden_act, "quick_gelu")
  clip = ClipConfig(
    text=hf_config.make(TextConfig, "text_config", text),
    vision=hf_config.make(VisionConfig, "vision_config", vision),
    projection_dim=checks.whole("config: projection_dim", config.projection_dim, 1, 2**20),
  )
  hf_config.divides(
    "text_config", "hidden_size", clip.text.hidden_size, "num_attention_heads", clip.text.num_attention_heads
  )
  hf_config.check_tiles("vision_config", clip.vision)
  return clip


class TextEmbedding(nn.Module):
  """Tokens and their learned places."""

  config: TextConfig

  def setup(self):
    self.token_embedding = nn.Embed(self.config.vocab_size, self.config.hidden_size)
    self.position_embedding = nn.Embed(self.config.max_position_embeddings, self.config.hidden_size)

  def __call__(self, tokens):
    return self.token_embedding(tokens) + self.position_embedding(jnp.arange(tokens.shape[1]))


class TextTower(nn.Module):
  """Texts to the state of their end token; attribute names are the checkpoints'."""

  config: TextConfig

  def setup(self):
    self.embeddings = TextEmbedding(self.config)
    self.encoder = Encoder(self.config)
    self.final_layer_norm = layer_norm(self.config)

  def __call__(self, tokens):
    """[M, S] to [M, D]; what follows the end token has no influence."""
    end = self.config.eos_token_id
    places = jnp.argmax(tokens if end == _LEGACY_END else tokens == end, axis=1)
    states = jax.vmap(lambda rows, place: rows[place])(self.encoder(self.embeddings(tokens))[-1], places)
    return self.final_layer_norm(states)


class Clip(nn.Module):
  """CLIP without its vision tower's blocks, which LLaVA has: text tower, and the projections into the joint space."""

  config: ClipConfig
  mesh: ClassVar[None] = None
  names: ClassVar[Names] = Names(
    renames=((r"^vision_model\.post_layernorm\.", "post_layernorm."),),
    prefixes={"post_layernorm.": "vision_model.post_layernorm.", "": ""},
  )

  def setup(self):
    dense = lambda: nn.Dense(self.config.projection_dim, use_bias=False)
    self.text_model = TextTower(self.config.text)
    self.text_projection, self.visual_projection = dense(), dense()
    self.post_layernorm = layer_norm(self.config.vision)

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """[M, S] int32 tokens to [M, E] embeddings of the texts."""
    if self.is_initializing():
      self.visual(jnp.zeros([1, self.config.vision.hidden_size]))
    return self.text_projection(self.text_model(tokens))

  def visual(self, states: jax.Array) -> jax.Array:
    """[..., D] hidden states of the vision tower to [..., E] embeddings of the patches."""
    return self.visual_projection(self.post_layernorm(states))

  @nn.nowrap
  def example(self) -> jax.Array:
    return jnp.zeros([1, self.config.text.max_position_embeddings], jnp.int32)

  @nn.nowrap
  def leaves_out(self, tensor: str) -> bool:
    """As in `VisionLanguageModel`."""
    return tensor.startswith("vision_model.") or tensor == "logit_scale"


@functools.partial(jax.jit, static_argnames=("model", "clip"))
def negated_cosines(params, clip_params, vision, visual_slots, tokens, *, model, clip) -> jax.Array:
  """[B, V] float32, computed in float32: see `Scorer.relevance`.

  Args:
    params: of the LLaVA.
    clip_params: of the CLIP.
    vision: [P, C, H, W] tiles.
    visual_slots: [B, V] int32 rows among the P * T tokens of the tiles.
    tokens: [B, S] int32, of each prompt's question.
    model: LLaVA.
    clip: CLIP.
  """
  states = model.apply({"params": params}, vision, method=lambda module, tiles: module.vision_tower(tiles))
  unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
  with jax.default_matmul_precision("highest"):
    patches = clip.apply({"params": clip_params}, states.astype(jnp.float32), method="visual")
    texts = clip.apply({"params": clip_params}, tokens)
    return -jnp.einsum("BVE,BE->BV", unit(rearrange(patches, "P T E -> (P T) E"))[visual_slots], unit(texts))


@dataclasses.dataclass(frozen=True)
class Scorer:
  """A CLIP that scores LLaVA-1.5's visual tokens.

  Attributes:
    clip: the module.
    params: its parameters, float32.
    tokenizer: transformers' tokenizer of its texts.
  """

  clip: Clip
  params: dict[str, Any]
  tokenizer: Any

  def tokens(self, texts: Sequence[str]) -> np.ndarray:
    """[M, S] int32, padded or cut to S tokens, which include the end token."""
    length = self.clip.config.text.max_position_embeddings
    return self.tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="np")[
      "input_ids"
    ].astype(np.int32)

  def relevance(self, model, params, inputs: Inputs, questions: Sequence[str]) -> np.ndarray:
    """Negated cosine of every visual token and its prompt's question.

    Args:
      model: a LLaVA-1.5 whose vision tower is this CLIP's.
      params: its parameters.
      inputs: a batch of `model.pack`.
      questions: what the user asks in each prompt, without chat template.

    Returns:
      [B, V] float32, the `scores` of `models.generate`; those of slots without a token have no meaning.

    Raises:
      ValueError: another model or tower, or not as many questions as prompts.
    """
    _check_fits(self.clip, model)
    slots = inputs.prompt.visual_slots
    if not isinstance(questions, (list, tuple)) or len(questions) != len(slots):
      raise ValueError(f"questions: got {checks.show(questions)}, must be a list of {len(slots)}, one per prompt")
    for number, question in enumerate(questions):
      templates.check_text(f"questions: prompt {number}", question)
    if inputs.vision is None:
      return np.zeros(slots.shape, np.float32)
    vision = sharding.place(inputs.vision, model.mesh)
    cosines = negated_cosines(params, self.params, vision, slots, self.tokens(questions), model=model, clip=self.clip)
    return sharding.fetch(cosines, model.mesh)


def _check_fits(clip: Clip, model) -> None:
  """Refuses models whose visual tokens the CLIP cannot score."""
  if not isinstance(model, Llava) or model.config.grid_pinpoints:
    raise ValueError(f"clip: scores the visual tokens of LLaVA-1.5 only, the model is {type(model).__name__}")
  tower, own = model.config.vision, clip.config.vision
  handed_on = dict(feature_layers=tower.feature_layers[:1], keep_class_token=tower.keep_class_token)
  if tower != dataclasses.replace(own, **handed_on):
    raise ValueError(f"clip: its vision tower is {own}, the model's is {tower}; must be the same, with one feature layer")


def load(path_or_hub_id: str, model=None) -> Scorer:
  """The CLIP of a checkpoint in Hugging Face layout (`CLIPModel`), in float32.

  Args:
    path_or_hub_id: as for `models.load_model`.
    model: whose visual tokens it will score, to be checked before weights are read; None: unknown yet.

  Raises:
    ValueError: with what is missing, unknown, unreadable or of the wrong shape, or another model or tower.
  """
  try:
    directory = directory_lib.resolve(path_or_hub_id)
    clip = Clip(hf_config.read(directory, directory_lib.read_config(directory), from_hf))
    if model is not None:
      _check_fits(clip, model)
    return Scorer(clip, hf.load(directory, clip), tokenizer_lib.load(directory))
  except ValueError as error:
    raise ValueError(f"clip: {path_or_hub_id}: {str(error).removeprefix('model: ').removeprefix('clip: ')}") from error


def check_given(prunings: Sequence[Pruning], path_or_hub_id: str | None) -> None:
  """Refuses settings of pruning that need a CLIP without one.

  Args:
    prunings: that will be used.
    path_or_hub_id: of the CLIP, or None.

  Raises:
    ValueError: one of them needs a CLIP.
  """
  if not path_or_hub_id and (needing := [pruning.selector for pruning in prunings if "scores" in pruning.rule.needs]):
    raise ValueError(f"clip: the selector {needing[0]} needs a CLIP checkpoint")
