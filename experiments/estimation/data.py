"""Questions with pictures and reference answers, and batches of them on the device."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import digits
from hawk_jax import selectors as selectors_lib
from hawk_jax.prompt import Prompt
from models import checkpoint
from models import generation
from models import processor as processor_lib
from models import sharding
from models.llava import clip_text


@dataclasses.dataclass(frozen=True)
class Example:
  """A question about a picture.

  Attributes:
    picture: [H, W, 3] uint8.
    question: its text.
    answer: the reference.
    dataset: which data set it is of.
  """

  picture: np.ndarray
  question: str
  answer: str
  dataset: str

  @property
  def digest(self) -> str:
    """Of the picture's pixels."""
    return hashlib.sha256(repr(self.picture.shape).encode() + self.picture.tobytes()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Batch:
  """Examples, with their pictures encoded.

  Attributes:
    prompt: packed.
    features: of the vision encoder.
    answers: [B, T] int32, with their end token, -1 on padding.
    datasets: of each example.
    relevance: [B, V] of each visual token by CLIP, where there is one.
  """

  prompt: Prompt
  features: jax.Array
  answers: np.ndarray
  datasets: list[str]
  relevance: np.ndarray | None = None


def from_digits(split: str, datasets: Sequence[str], count: int, seed: int = 0) -> list[Example]:
  """`count` examples of each of the embedded task's kinds of question, the kinds in turn."""
  if unknown := sorted({*datasets} - {*digits.KINDS}):
    raise ValueError(f"dataset: got {', '.join(unknown)}, the digits have {', '.join(digits.KINDS)}")
  examples = digits.dataset(split, count * len(digits.KINDS), seed)
  return [Example(picture, question.text, question.answer, question.kind)
          for picture, question in examples if question.kind in datasets]


def from_jsonl(path: str) -> list[Example]:
  """One object a line: image (a path, from the file's directory), question, answer, dataset.

  Raises:
    ValueError: unreadable, empty, or a line that is not that, by number.
  """
  examples = []
  try:
    lines = pathlib.Path(path).read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f"data: cannot read {path!r} ({error})") from error
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      picture = processor_lib.open_picture(pathlib.Path(path).parent / row["image"])
      examples.append(Example(np.asarray(picture), row["question"], row["answer"], row["dataset"]))
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(f"data: {path} line {number}: {error!r}; wanted is an object with image, question, answer and "
                       "dataset") from error
  if not examples:
    raise ValueError(f"data: {path} is empty")
  return examples


def fingerprint(examples: Sequence[Example]) -> str:
  """Of all that the examples hold."""
  parts = [f"{e.digest}\0{e.question}\0{e.answer}\0{e.dataset}" for e in examples]
  return hashlib.sha256("\1".join(parts).encode()).hexdigest()[:16]


@jax.jit
def _checksums(params):
  """Two sums a parameter over its bits, as wrapping integers: the same on every machine."""

  def sums(x):
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    number = jnp.zeros([], jnp.uint32)  # of each element, in row order; not by reshaping, which a mesh would have to gather
    for axis, size in enumerate(x.shape):
      number = number * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    place = 2 * number + 1
    return bits.sum(dtype=jnp.uint32), (bits * place).sum(dtype=jnp.uint32)

  return jax.tree.map(sums, params)


def params_fingerprint(params: Any) -> str:
  """Of a model's parameters: their shapes, and checksums of their bits."""
  flat = jax.tree_util.tree_leaves_with_path(params)
  parts = [f"{checkpoint.flat_shape(path[-1].key, leaf.shape)}{leaf.dtype}" for path, leaf in flat]
  parts += [str(int(value)) for value in jax.tree.leaves(jax.device_get(_checksums(params)))]
  return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def reference_answers(processor, examples: Sequence[Example]) -> np.ndarray:
  """[B, T] int32 tokens of the answers, with their end token, -1 on padding."""
  rows = [processor.tokenizer(example.answer, add_special_tokens=False)["input_ids"] + list(processor.eos_token_ids[:1])
          for example in examples]
  answers = np.full([len(rows), max(map(len, rows))], -1, np.int32)
  for row, tokens in zip(answers, rows):
    row[:len(tokens)] = tokens
  return answers


def load_clip(path: str | None, selectors: Sequence[str]) -> clip_text.Scorer | None:
  """The CLIP that some selectors need.

  Args:
    path: checkpoint directory or hub id, or None.
    selectors: that will be used.

  Raises:
    ValueError: one of them needs a CLIP and there is none, or it cannot be loaded.
  """
  if not path and (needing := [name for name in selectors if name in selectors_lib.WITH_SCORES]):
    raise ValueError(f"clip: the selector {needing[0]} needs a CLIP checkpoint")
  return clip_text.load(path) if path else None


def make_batch(model, params, processor, examples: Sequence[Example], clip: clip_text.Scorer | None = None) -> Batch:
  """Encodes each picture once, and once more for its relevance where there is a CLIP."""
  questions = [example.question for example in examples]
  arrays = processor(images=[[example.picture] for example in examples], prompts=questions)
  inputs = model.pack(**arrays)
  features = generation.encode(params, sharding.place(inputs.vision, model.mesh), model=model)
  relevance = clip.relevance(model, params, inputs, questions) if clip else None
  datasets = [example.dataset for example in examples]
  return Batch(inputs.prompt, features, reference_answers(processor, examples), datasets, relevance)
