"""Converts a Hugging Face checkpoint to Orbax's format, one layer at a time; see `experiments.convert`."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil

from flax import traverse_util
import jax

from experiments.running import files
from experiments.running import journal
from models import registry
from models.checkpoints import hf
from models.checkpoints import orbax
from models.checkpoints import params as params_lib
from models.checkpoints.sharded import Tally

_JOURNAL = "conversion.jsonl"  # remains in the new checkpoint, and says what it was made from


def convert(source: pathlib.Path, output: pathlib.Path, dtype: str | None) -> bool:
  """Writes a checkpoint.

  Args:
    source: a directory in Hugging Face layout.
    output: absolute path of the new directory; its name ends in `.partial` until it is complete.
    dtype: of the new parameters; None: each keeps the dtype that it is stored in.

  Returns:
    False if the same conversion was complete before.

  Raises:
    ValueError: the source does not fit its config, or the output is of another conversion, or something else.
    OSError: the disk is full; the layers that are there remain.
  """
  _, model = registry.describe(str(source))
  wanted = traverse_util.flatten_dict(params_lib.abstract(model))
  tensors = hf.find_tensors(source, model, wanted)
  dtypes = {path: dtype or hf.stored_dtype(*tensor) for path, tensor in tensors.items()}
  source_files = sorted(path for path in source.iterdir() if path.is_file())
  weights = {
    path.name: [path.stat().st_size, path.stat().st_mtime] for path in source_files if path.suffix == ".safetensors"
  }
  config = hashlib.sha256((source / "config.json").read_bytes()).hexdigest()
  settings = {"dtype": dtype, "config": config, "weights": weights}
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    if not (output / _JOURNAL).is_file():
      raise ValueError(f"output_dir: {output} exists already; remove it or give another")
    journal.read(output / _JOURNAL, settings)
    return False

  groups = orbax.groups(wanted)
  with files.resumable_directory("output_dir", str(output.with_name(output.name + ".partial"))) as partial:
    records = journal.Journal(partial / _JOURNAL, settings)
    names, tally = list(groups), Tally()
    for number in records.remaining(len(names), "layer"):
      for leftover in (partial / "params").glob("*orbax-checkpoint-tmp*"):
        shutil.rmtree(leftover)
      params = {
        path: hf.read_param(path, wanted[path].shape, *tensors[path], dtypes[path], tally) for path in groups[names[number]]
      }
      files.check_space(partial, sum(value.nbytes for value in params.values()))
      orbax.save_group(partial, names[number], params)
      records.append({"group": names[number]})
    records.close()
    for path in source_files:
      if path.suffix in (".json", ".jinja", ".txt", ".model") and not path.name.endswith(".safetensors.index.json"):
        with files.naming(partial / path.name):
          shutil.copyfile(path, partial / path.name)
    abstract = {path: jax.ShapeDtypeStruct(value.shape, params_lib.DTYPES[dtypes[path]]) for path, value in wanted.items()}
    files.write(partial / orbax.MANIFEST, orbax.manifest(abstract))
    os.replace(partial, output)
  return True
