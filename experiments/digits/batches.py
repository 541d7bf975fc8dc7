"""Batches for training: pictures with several questions each, which share the picture's cache.

Axes: B pictures, Q questions per picture, T tokens of a question and its answer, V visual tokens: one per cell, and none of
padding, since their number, 144, is a bucket.
"""

from __future__ import annotations

import dataclasses

from flax import struct
import jax
import numpy as np

from experiments.digits import embedded
from experiments.digits import task
from models.vision_language import Inputs

QUESTION_LENGTH = 20  # T
# How many values each label of a cell can have; the last one says that there is nothing.
CELL_CLASSES = (11, 10, 2)  # digit or none; colour, grey or none; not boxed or boxed
LEFT_CLASSES = (11, 10)  # digit and colour of the cell to the left
GREY = len(task.COLORS)  # the label of grey digits


@struct.dataclass
class Batch:
  """Pictures, with several questions to each.

  Attributes:
    inputs: the packed prompts up to where the questions begin.
    tokens: [B, Q, T] int32, each question with its answer, padded with 0.
    targets: [B, Q, 2] int32, the answer's token and the end token.
    target_index: [B, Q, 2] int32, the places in T whose logits predict the targets.
    cells: [B, V, 3] int32, what each visual token shows, with CELL_CLASSES values.
    left: [B, V, 2] int32, what the cell to its left shows, with LEFT_CLASSES values.
    about: [B, Q, V] float32, the cells that each question is about, with a sum of 1.
    kinds: [B, Q] int32, the kind of each question, as an index into `task.KINDS`.
    seen: [B, Q, V] bool, the visual tokens that each question may attend to, or None: all.
  """

  inputs: Inputs
  tokens: jax.Array
  targets: jax.Array
  target_index: jax.Array
  cells: jax.Array
  left: jax.Array
  about: jax.Array
  kinds: jax.Array
  seen: jax.Array | None = None


def make_batch(
  student: embedded.Student, rng: np.random.Generator, split: str, size: int, questions: int, difficulty: float = 1.0
) -> Batch:
  """Draws pictures and questions.

  Args:
    student: who is asked.
    rng: source of all choices.
    split: whose handwriting, see `task.make_scene`.
    size: B.
    questions: Q.
    difficulty: how full the pictures are, see `task.make_scene`.

  Returns:
    The batch, of NumPy arrays.

  Raises:
    ValueError: more questions than scenes have, a question that is too long, or an answer that is not a single token.
  """
  pictures, scenes, asked = [], [], []
  for _ in range(size):
    scene, found = _scene(rng, split, questions, difficulty)
    scenes.append(scene)
    pictures.append(task.render(scene, rng))
    asked.append(task.balanced(found, rng, questions))
  tokens, targets, target_index = zip(*(_encode(student, question) for row in asked for question in row))
  cells, left = zip(*map(_labels, scenes))
  rows = lambda values: np.asarray(values, np.int32).reshape(size, questions, -1)
  return Batch(
    inputs=student.model.pack(input_ids=[student.before] * size, **student.architecture.pixels(np.stack(pictures))),
    tokens=rows(tokens),
    targets=rows(targets),
    target_index=rows(target_index),
    cells=np.asarray(cells, np.int32),
    left=np.asarray(left, np.int32),
    about=np.asarray([[_about(question) for question in row] for row in asked]),
    kinds=np.asarray([[task.KINDS.index(question.kind) for question in row] for row in asked], np.int32),
  )


def drop_tokens(batch: Batch, rng: np.random.Generator) -> Batch:
  """Removes visual tokens that no question is about: from every second picture, on average, a random share of them."""
  needed = batch.about.sum(axis=1) > 0
  share = np.where(rng.random(len(needed)) < 0.5, rng.random(len(needed)), 1.0)
  kept = needed | (rng.random(needed.shape) < share[:, None])
  prompt = batch.inputs.prompt
  prompt = prompt.replace(visual_order=np.where(kept, prompt.visual_order, -1))
  return batch.replace(inputs=dataclasses.replace(batch.inputs, prompt=prompt))


def _scene(rng, split, questions, difficulty):
  """A scene with at least so many questions, and all of its questions."""
  for _ in range(1000):
    scene = task.make_scene(rng, split, difficulty)
    found = task.questions(scene, rng)
    if len(found) >= questions:
      return scene, found
  raise ValueError(f"questions: got {questions}, pictures have fewer")


def _encode(student, question):
  """A question's `tokens`, `targets` and `target_index`."""
  asked = student.tokenizer.encode(question.text + student.after).ids
  targets = student.tokenizer.encode(question.answer + student.architecture.end_token).ids
  if len(targets) != 2:
    raise ValueError(f"answer: {question.answer!r} has {len(targets) - 1} tokens, must be one")
  if len(asked) >= QUESTION_LENGTH:
    raise ValueError(f"question: {question.text!r} has {len(asked)} tokens, must be at most {QUESTION_LENGTH - 1}")
  tokens = asked + targets[:1] + [0] * (QUESTION_LENGTH - 1 - len(asked))
  return tokens, targets, (len(asked) - 1, len(asked))


def _labels(scene):
  """A picture's `cells` and `left`; -1, an empty cell, becomes the last class."""
  box = np.zeros_like(scene.digits)
  box[scene.box] = 1
  shown = np.stack([scene.digits, scene.colors, box], axis=-1)
  left = np.pad(shown[:, :-1, :2], ((0, 0), (1, 0), (0, 0)), constant_values=-1)
  return [(labels % classes).reshape(-1, len(classes)) for labels, classes in ((shown, CELL_CLASSES), (left, LEFT_CLASSES))]


def _about(question):
  cells = np.zeros([task.GRID, task.GRID], np.float32)
  cells[tuple(np.transpose(question.cells))] = 1 / len(question.cells)
  return cells.reshape(-1)
