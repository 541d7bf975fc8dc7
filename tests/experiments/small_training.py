"""Training of a model so small that it compiles fast; as a program, one that is killed in the middle.

python -m tests.experiments.small_training OUTPUT_DIRECTORY CACHE_DIRECTORY STEPS
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import copy
import dataclasses
import functools
import os
import pathlib
import signal
import sys
from unittest import mock

from experiments import train
from experiments.digits import embedded
from experiments.digits import handwriting
from experiments.digits import training
from experiments.running import compilation_cache


def _config(vocab_size):
  config = copy.deepcopy(embedded.ARCHITECTURES["qwen2_5_vl"].config(vocab_size))
  config["text_config"]["num_hidden_layers"] = 2
  config["vision_config"].update(depth=1, fullatt_block_indexes=[0])
  return config


@contextlib.contextmanager
def architecture() -> Iterator[None]:
  """A context in which there is an architecture `small`, and few versions of every digit, which take time to draw."""
  small = dataclasses.replace(embedded.ARCHITECTURES["qwen2_5_vl"], config=_config)
  varied = functools.cache(handwriting.varied.__wrapped__)
  with mock.patch.dict(embedded.ARCHITECTURES, small=small):
    with mock.patch.multiple(handwriting, VARIANTS=2, varied=varied):
      yield


def run(directory: pathlib.Path, **changes) -> pathlib.Path:
  """Three steps, each with a checkpoint; the directory of the trained model."""
  settings = dict(
    architecture="small",
    output_dir=str(directory),
    steps=3,
    batch_size=1,
    questions=3,
    save_every=1,
    evaluate_every=100,
    probe_left=True,
    point_first=True,
    read_first=1,
    see_few=True,
    answer_early=True,
    optimizer="muon",
  )
  with architecture():
    return train.run(train.Settings(**settings | changes))


def main(output, cache, steps):
  step, number = training.train_step, iter(range(int(steps) + 1))

  def step_or_die(*args, **kwargs):
    if next(number) == int(steps):
      os.kill(os.getpid(), signal.SIGKILL)  # while Orbax is writing the last checkpoint
    return step(*args, **kwargs)

  with compilation_cache.kept_in(cache, 0.0), mock.patch.object(training, "train_step", step_or_die):
    run(pathlib.Path(output))


if __name__ == "__main__":
  main(*sys.argv[1:])
