"""Any published Qwen2.5-VL, for `experiments.generate` and `experiments.evaluate` on one GPU or, with `slice`, on a pod.

python -m experiments.generate --config=experiments/configs/qwen2_5_vl.py:size=72b,slice --image=photo.jpg
"""

from ml_collections import config_dict

from experiments.running import configs

SIZES = ("3b", "7b", "32b", "72b")


def get_config(arguments=""):
  """Arguments: `size=7b`, and `slice` for several processes, whose devices share the model as docs/scale.md says."""
  given = configs.parse_arguments(arguments, size="7b", slice=False)
  if given["size"] not in SIZES:
    raise ValueError(f"arguments: size: got {given['size']!r}, allowed are {', '.join(SIZES)}")
  return config_dict.ConfigDict(
    {
      "model": f"Qwen/Qwen2.5-VL-{given['size'].upper()}-Instruct",
      "head_importance": "preset:qwen2.5-vl-7b" if given["size"] == "7b" else "uniform",
      "dtype": "bfloat16",
      "distributed": given["slice"],
    }
  )
