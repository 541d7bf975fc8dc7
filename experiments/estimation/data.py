"""Questions with pictures and reference answers, and batches of them on the device."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.digits import task
from hawk_jax import checks
from hawk_jax.prompt import Prompt
from models import generation
from models import processor as processor_lib
from models.checkpoints import names
from models.llava import clip_text
from models.processor import Processor
from models.vision_language import Features
from models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True)
class Example:
  """A question about a picture.

  Attributes:
    picture: [H, W, 3] uint8.
    question: its text.
    answer: the reference answer.
    dataset: name of the data set that it belongs to.
  """

  picture: np.ndarray
  question: str
  answer: str
  dataset: str

  @property
  def digest(self) -> str:
    """Hash of the picture's pixels."""
    return hashlib.sha256(repr(self.picture.shape).encode() + self.picture.tobytes()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Batch:
  """Examples whose pictures are encoded.

  Attributes:
    prompt: the packed prompts.
    features: of the vision encoder.
    answers: [B, T] int32 tokens of the reference answers, with their end token, -1 on padding.
    datasets: name of each example's data set.
    relevance: [B, V] CLIP's score of each visual token, or None without a CLIP.
    vision: the port's arrays of the pictures, for a stage in the vision tower.
  """

  prompt: Prompt
  features: Features
  answers: np.ndarray
  datasets: list[str]
  relevance: np.ndarray | None = None
  vision: Any = None


@dataclasses.dataclass(frozen=True)
class Batches:
  """Examples in batches, each of which is encoded when it is asked for.

  Attributes:
    model: a port.
    params: its parameters.
    processor: its processor.
    examples: all of them, in order.
    size: examples per batch; the last batch may hold fewer.
    clip: scores visual tokens for `Batch.relevance`, or None.
    measures: what the vision encoder measures, see `hawk_jax.selectors.Selector.measures`.
    pixels: limits on the size of pictures, as the processor takes them.
  """

  model: VisionLanguageModel
  params: dict[str, Any]
  processor: Processor
  examples: Sequence[Example]
  size: int
  clip: clip_text.Scorer | None = None
  measures: tuple[str, ...] = ()
  pixels: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self._starts)

  def __getitem__(self, number: int) -> Batch:
    start = self._starts[number]
    some = self.examples[start : start + self.size]
    return make_batch(self.model, self.params, self.processor, some, self.clip, self.measures, self.pixels)

  @property
  def _starts(self) -> range:
    return range(0, len(self.examples), self.size)


def from_digits(split: str, datasets: Sequence[str], count: int, seed: int = 0) -> list[Example]:
  """Examples of the embedded task.

  Args:
    split: `train`, `calibration` or `test`.
    datasets: kinds of question, which count as data sets; they take turns.
    count: examples of each kind.
    seed: other seeds draw other examples of the split.

  Raises:
    ValueError: an unknown kind.
  """
  if unknown := sorted({*datasets} - {*task.KINDS}):
    raise ValueError(f"dataset: got {', '.join(unknown)}, the digits have {', '.join(task.KINDS)}")
  examples = task.dataset(split, count * len(task.KINDS), seed)
  return [
    Example(picture, question.text, question.answer, question.kind)
    for picture, question in examples
    if question.kind in datasets
  ]


def from_jsonl(path: str, setting: str = "data") -> list[Example]:
  """Examples of a file with one JSON object per line: image (a path relative to the file), question, answer, dataset.

  Args:
    path: of the file.
    setting: that names it, for messages.

  Raises:
    ValueError: the file is unreadable or empty, or one of its lines, given by number, is something else.
  """
  examples = []
  try:
    content = checks.read_file(path)
  except (OSError, ValueError) as error:
    raise ValueError(f"{setting}: cannot read {path!r} ({error})") from error
  # Not splitlines, which also splits at separators that JSON strings may hold.
  for number, line in enumerate(content.removesuffix("\n").split("\n") if content else [], 1):
    try:
      row = json.loads(line)
      picture = processor_lib.open_picture(pathlib.Path(path).parent / row["image"])
      examples.append(Example(np.asarray(picture), *(_text(row, name) for name in ("question", "answer", "dataset"))))
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
      raise ValueError(
        f"{setting}: {path} line {number}: {error!r}; must be an object with image, question, answer and dataset"
      ) from error
  if not examples:
    raise ValueError(f"{setting}: {path} is empty")
  return examples


def _text(row: dict[str, Any], name: str) -> str:
  if not isinstance(row[name], str):
    raise TypeError(f"{name} is {row[name]!r}, must be a string")
  return row[name]


def first(examples: Sequence[Example], count: int | None) -> list[Example]:
  """The first examples of each data set, at most `count` of each; None: all."""
  seen: collections.Counter = collections.Counter()
  found = []
  for example in examples:
    seen[example.dataset] += 1
    if count is None or seen[example.dataset] <= count:
      found.append(example)
  return found


def fingerprint(examples: Sequence[Example]) -> str:
  """Hash of everything that the examples hold."""
  parts = [f"{e.digest}\0{e.question}\0{e.answer}\0{e.dataset}" for e in examples]
  return hashlib.sha256("\1".join(parts).encode()).hexdigest()[:16]


def params_fingerprint(params: Any) -> str:
  """Hash of a model's parameters: their shapes, and checksums of their bits."""
  flat = jax.tree_util.tree_leaves_with_path(params)
  parts = [f"{names.flat_shape(path[-1].key, leaf.shape)}{leaf.dtype}" for path, leaf in flat]
  parts += [str(int(value)) for value in jax.tree.leaves(jax.device_get(_checksums(params)))]
  return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


@jax.jit
def _checksums(params):
  """Two sums over the bits of each parameter, as wrapping integers, which are the same on every machine."""

  def sums(x):
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    # The number of each element in row-major order, without a reshape, for which a mesh would have to gather x.
    number = jnp.zeros([], jnp.uint32)
    for axis, size in enumerate(x.shape):
      number = number * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    place = 2 * number + 1
    return bits.sum(dtype=jnp.uint32), (bits * place).sum(dtype=jnp.uint32)

  return jax.tree.map(sums, params)


def reference_answers(processor: Processor, examples: Sequence[Example]) -> np.ndarray:
  """[B, T] int32 tokens of the answers, with their end token, -1 on padding."""
  rows = [
    processor.tokenizer(example.answer, add_special_tokens=False)["input_ids"] + list(processor.eos_token_ids[:1])
    for example in examples
  ]
  answers = np.full([len(rows), max(map(len, rows))], -1, np.int32)
  for row, tokens in zip(answers, rows):
    row[: len(tokens)] = tokens
  return answers


def make_batch(
  model: VisionLanguageModel,
  params: dict[str, Any],
  processor: Processor,
  examples: Sequence[Example],
  clip: clip_text.Scorer | None = None,
  measures: Sequence[str] = (),
  pixels: Mapping[str, int] | None = None,
) -> Batch:
  """Packs examples and encodes their pictures, with CLIP's score of each visual token if there is a CLIP; see `Batches`."""
  questions = [example.question for example in examples]
  pictures = [[example.picture] for example in examples]
  inputs = model.pack(**processor(images=pictures, prompts=questions, **(pixels or {})))
  return Batch(
    prompt=inputs.prompt,
    features=generation.encode_pictures(model, params, inputs, measures),
    answers=reference_answers(processor, examples),
    datasets=[example.dataset for example in examples],
    relevance=clip.relevance(model, params, inputs, questions) if clip else None,
    vision=inputs.vision,
  )
