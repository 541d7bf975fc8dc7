"""Seconds that every selector takes to pick tokens, beside the language prefill that pruning saves.

  python -m experiments.speed.selection

By default the shapes are those of Qwen2.5-VL-7B. The prefill is that of one decoder layer on all tokens and on those kept,
times the number of layers, so that no model of the whole size is needed, and no --mesh. Features are smooth over the
picture, as those of pictures are, and have a common part, as those of real models have. Writes selection.md, a Markdown
table. An interrupted run resumes after the last round that it finished; with more rounds, a finished one goes on.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from experiments.running import journal
from experiments.speed import timing
from hawk_jax import selectors
from models import decoder
from models import registry
from models import rope
from models import sensitivity
from models.checkpoints import params as params_lib
from models.inputs import packing
from models.vision_language import VisionLanguageModel

# A rule that takes longer than this share of what it saves is marked.
LIMIT = 0.05
# Random directions whose derivatives are measured; all of `sensitivity.DIRECTIONS` take as many times longer.
_DIRECTIONS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  model_config: str = command.option(
    "qwen2.5-vl-7b", "Published size whose decoder and projector are measured.", choices=registry.published_sizes
  )
  layers: int | None = command.option(None, "Decoder layers that count; by default all of them.", least=1)
  side: int = command.option(64, "Rows and columns of visual tokens of the picture.", least=2)
  text_tokens: int = command.option(64, "Number of text tokens in the prompt.", least=1)
  keep_count: int = command.option(819, "Number of visual tokens to keep.", least=1)
  selector: tuple[str, ...] = command.option(
    (), "Rule to measure, by default all; repeat the flag for several.", choices=lambda: selectors.SELECTORS
  )
  dtype: str | None = command.option(
    None, "Dtype of the decoder; by default float32 on CPU, bfloat16 elsewhere.", choices=params_lib.DTYPES
  )
  rounds: int = command.option(3, "Number of measurements behind each figure.", least=1)
  output_dir: str = command.option("out/selection", "Directory for selection.md and the journal.")

  def __post_init__(self):
    super().__post_init__()
    if self.keep_count >= self.side**2:
      raise ValueError(f"keep_count: got {self.keep_count}, must be less than the {self.side**2} tokens of the picture")


def make_features(side: int, width: int) -> np.ndarray:
  """[side^2, width] float32: a common part, a part that is smooth over the picture, and noise."""
  rng = np.random.default_rng(0)
  coarse = rng.standard_normal([-(-side // 4) + 1, -(-side // 4) + 1, width])
  place = np.arange(side) / 4
  low, share = place.astype(int), (place % 1)[:, None]
  rows = coarse[low] * (1 - share[..., None]) + coarse[low + 1] * share[..., None]
  smooth = rows[:, low] * (1 - share) + rows[:, low + 1] * share
  found = rng.standard_normal(width) + smooth + 0.5 * rng.standard_normal([side, side, width])
  return found.reshape(side * side, width).astype(np.float32)


def rules(settings: Settings, width: int) -> dict[str, Callable[[], Any]]:
  """Programs that pick tokens, by selector, and HAWK's with merging and with each modifier."""
  count, keep_count = settings.side**2, settings.keep_count
  rng = np.random.default_rng(1)
  arrays = dict(
    features=make_features(settings.side, width)[None],
    scores=rng.random([1, count], np.float32),
    visual_mask=np.ones([1, count], bool),
    counts=np.asarray([keep_count], np.int32),
    seeds=np.zeros(1, np.uint32),
    places=np.arange(count, dtype=np.int32)[None],
    curve=packing.z_order([[(settings.side, settings.side, False)]])[None],
    question=rng.standard_normal([1, width], np.float32),
  )
  arrays = jax.device_put(arrays)

  def program(name, **modifiers):
    select = jax.jit(functools.partial(selectors.select, selectors.SELECTORS[name], keep_count=keep_count, **modifiers))
    return lambda: jax.block_until_ready(select(**arrays))

  names = settings.selector or tuple(selectors.SELECTORS)
  extra = {
    "hawk, merging": program("hawk", merge="nearest"),
    "hawk, sink filter": program("hawk", sink_filter=0.01),
    "hawk, region floor": program("hawk", region_floor=0.25),
  }
  # FastV picks as HAWK does; what it costs is the layers that run on all tokens.
  picked = [name for name in names if selectors.SELECTORS[name].stage == "input"]
  return {name: program(name) for name in picked} | ({} if settings.selector else extra)


def layer(settings: Settings, text: decoder.DecoderConfig, dtype: str) -> dict[str, Callable[[], Any]]:
  """One decoder layer on the whole prompt, and on the pruned one."""
  block = decoder.Block(text)
  lengths = {"whole": settings.side**2, "pruned": settings.keep_count}

  def inputs(visual):
    length = visual + settings.text_tokens
    positions = jnp.repeat(jnp.arange(length)[None, :, None], text.position_axes, axis=-1)
    return jnp.ones([1, length, text.hidden_size], dtype), rope.rotation(positions, text.frequencies)

  draw = lambda key: jax.tree.map(lambda x: x.astype(dtype), block.init(key, *inputs(8)))
  params = jax.jit(draw)(jax.random.key(0))
  run = jax.jit(lambda params, x, rotation: block.apply(params, x, rotation)[0])
  program = lambda args: lambda: jax.block_until_ready(run(params, *args))
  return {name: program(inputs(length)) for name, length in lengths.items()}


def projector(settings: Settings, model: VisionLanguageModel) -> Callable[[], Any]:
  """The derivatives of the projector at all visual tokens, in some directions, which `zooprune` needs."""
  module, shape = model.projector(settings.side**2)
  x = jax.random.normal(jax.random.key(0), shape)
  params = jax.jit(module.init)(jax.random.key(1), x)
  measure = jax.jit(lambda params, x: sensitivity.sensitivity(module.bind(params), x, _DIRECTIONS))
  return lambda: jax.block_until_ready(measure(params, x))


def run(settings: Settings) -> dict[str, Any]:
  """Measures, writes the table, and returns seconds by selector, and those that pruning saves."""
  output = files.output_directory("output_dir", settings.output_dir)
  model = registry.published(settings.model_config)
  dtype = settings.dtype or environment.default_dtype()
  origin = dataclasses.asdict(settings) | {
    "dtype": dtype,
    "device": environment.device(),
    "versions": environment.versions(),
  }
  origin = {name: value for name, value in origin.items() if name not in ("rounds", "layers", "output_dir")}
  records = journal.Journal(output / "journal.jsonl", origin)
  if (missing := settings.rounds - len(records.records)) > 0:
    clock = timing.Clock()
    for name, program in rules(settings, model.config.text.hidden_size).items():
      clock.add(name, program)
    for name, program in layer(settings, model.config.text, dtype).items():
      clock.add(f"layer, {name}", program)
    clock.add("sensitivity", projector(settings, model))
    clock.run(missing, records.append)
  records.close()

  seconds = {name: float(np.median([record[name] for record in records.records])) for name in records.records[0]}
  layers = settings.layers or model.config.text.num_hidden_layers
  found: dict[str, Any] = {name: layers * seconds.pop(f"layer, {name}") for name in ("whole", "pruned")}
  found["saved"] = found["whole"] - found["pruned"]
  found["sensitivity"] = seconds.pop("sensitivity") * sensitivity.DIRECTIONS / _DIRECTIONS
  title = (
    f"{settings.keep_count:,} of {settings.side**2:,} visual tokens, width {model.config.text.hidden_size:,}, "
    f"{settings.text_tokens} text tokens; {settings.model_config}, {layers} decoder layers in {dtype}; medians of "
    f"{len(records.records)} rounds; {environment.device()}, {environment.today()}; {environment.versions()}."
  )
  found["seconds"] = seconds
  text = markdown(found, title)
  files.write(output / "selection.md", text)
  print(f"{text}\nwritten to {output}")
  return found


def markdown(found: dict[str, Any], title: str) -> str:
  """The table: one row per selector, the fastest first.

  Args:
    found: of `run`.
    title: above the table.
  """
  saved, measured = found["saved"], found["sensitivity"]
  cells = []
  for name, seconds in sorted(found["seconds"].items(), key=lambda item: item[1]):
    cells.append([name, f"{seconds:.3f}", f"{100 * seconds / saved:.2f} %", "" if seconds <= LIMIT * saved else "too slow"])
  lines = [
    title,
    "",
    f"Language prefill of all tokens: {found['whole']:.1f} s; of those kept: {found['pruned']:.1f} s; saved: {saved:.1f} s.",
    "",
    *tables.table(["selector", "seconds", "of the prefill saved", ""], cells),
    "",
    f"Besides, `zooprune` needs {sensitivity.DIRECTIONS} derivatives of the projector: {measured:.1f} s, "
    f"{100 * measured / saved:.1f} % of the prefill saved.",
  ]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  command.main(Settings, run)
