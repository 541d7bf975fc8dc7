"""Cases of the files of a checkpoint: configs, tokenizers, image processors, indices, manifests."""

from __future__ import annotations

import functools
import pathlib
import tempfile

import jax
import numpy as np

from models import load_model
from models import load_processor
from models import registry
from models.checkpoints import params as params_lib
from models.inputs.video import Video
from tests.fuzz import files
from tests.fuzz import spoil
from tests.reference import qwen2_5_vl
from tests.reference.ports import REFERENCES

# Keys that a config.json may have, too.
_KEYS = (
  "quantization_config",
  "dtype",
  "auto_map",
  "rope_scaling",
  "num_labels",
  "head_dim",
  "image_grid_pinpoints",
  "depth",
)
_SETTINGS = ("do_pad", "resample", "rescale_factor", "min_pixels", "max_pixels", "crop_size", "image_std", "merge_size")
_TOKENIZER = ("model_max_length", "added_tokens_decoder", "auto_map", "tokenizer_class", "chat_template", "bos_token")
_CONFIGS = tuple((reference, name) for reference in REFERENCES.values() for name in reference.CONFIGS)
_FILES = {
  "preprocessor_config.json": _SETTINGS,
  "tokenizer_config.json": _TOKENIZER,
  "generation_config.json": ("eos_token_id",),
  "tokenizer.json": (),
  "video_preprocessor_config.json": _SETTINGS,
}


def config(rng: np.random.Generator) -> None:
  """A config.json, flat or nested: what is accepted can be built."""
  reference, name = spoil.choose(rng, _CONFIGS)
  content = reference.CONFIGS[name]
  if reference is qwen2_5_vl and rng.integers(2):
    content = qwen2_5_vl.flat(content)
  with tempfile.TemporaryDirectory() as directory:
    (pathlib.Path(directory) / "config.json").write_bytes(spoil.text(rng, content, _KEYS))
    _, model = registry.describe(directory)
  sizes = [value.size for value in jax.tree.leaves(params_lib.abstract(model))]
  assert min(sizes) > 0, sizes


def processor(rng: np.random.Generator) -> None:
  """The other files: what is accepted prepares pictures."""
  port = spoil.choose(rng, files.PORTS)
  with tempfile.TemporaryDirectory() as directory:
    directory = pathlib.Path(directory)
    files.link(port, directory)
    changed = spoil.choose(rng, tuple(_FILES))
    content = spoil.text(rng, files.content(port, changed), _FILES[changed])
    (directory / changed).unlink(missing_ok=True)
    (directory / changed).write_bytes(content)
    loaded = load_processor(directory)
    batch = loaded(images=[[np.zeros([40, 50, 3], np.uint8)]], prompts=["Which digit is red?"])
    if loaded.media.video_token is not None:
      loaded(videos=[[Video(np.zeros([2, 30, 40, 3], np.uint8), (0.0, 0.5), 0.5)]], prompts=["Which digit is red?"])
  assert np.isfinite(batch["pixel_values"]).all() and len(batch["input_ids"]) == 1


def weights(rng: np.random.Generator) -> None:
  """Weights in a whole file, or in shards behind an index: only the right ones are loaded."""
  with tempfile.TemporaryDirectory() as directory:
    directory = pathlib.Path(directory)
    qwen2_5_vl.write_checkpoint(directory, "gqa")
    file = directory / "model.safetensors"
    if rng.integers(2):
      content = file.read_bytes()
      # The header, where all but the numbers are.
      size = int.from_bytes(content[:8], "little") + 8
      file.write_bytes(spoil.data(rng, content[:size]) + content[size:])
    else:
      names = dict.fromkeys(qwen2_5_vl.weights(qwen2_5_vl.CONFIGS["gqa"]), "model.safetensors")
      index = spoil.text(rng, {"metadata": {}, "weight_map": names})
      (directory / "model.safetensors.index.json").write_bytes(index)
    _, params = load_model(directory)
  for found, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(_params()), strict=True):
    assert found.shape == wanted.shape


@functools.cache
def _params():
  return params_lib.abstract(registry.build(pathlib.Path("tiny"), qwen2_5_vl.CONFIGS["gqa"]))


SUBJECTS = {"configs": config, "files": processor, "weights": weights}
