"""LLaVA-1.5 and LLaVA-NeXT, for `experiments.generate` and `experiments.evaluate` on one GPU or, with `slice`, on a pod.

python -m experiments.generate --config=experiments/configs/llava.py:name=next-7b --image=photo.jpg
"""

from ml_collections import config_dict

from experiments.running import configs

NAMES = {
  "1.5-7b": "llava-hf/llava-1.5-7b-hf",
  "1.5-13b": "llava-hf/llava-1.5-13b-hf",
  "next-7b": "llava-hf/llava-v1.6-mistral-7b-hf",
}


def get_config(arguments=""):
  """Arguments: `name=1.5-7b`, and `slice` for several processes, whose devices share the model."""
  given = configs.parse_arguments(arguments, name="1.5-7b", slice=False)
  if given["name"] not in NAMES:
    raise ValueError(f"arguments: name: got {given['name']!r}, allowed are {', '.join(NAMES)}")
  return config_dict.ConfigDict({"model": NAMES[given["name"]], "dtype": "bfloat16", "distributed": given["slice"]})
