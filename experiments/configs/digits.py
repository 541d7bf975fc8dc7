"""The embedded models on digits.tsv, for `experiments.evaluate` and `experiments.sweep`.

python -m experiments.evaluate --config=experiments/configs/digits.py:llava
python -m experiments.sweep --command=evaluate --config=experiments/configs/digits.py
"""

from ml_collections import config_dict

from experiments.running import configs


def get_config(arguments=""):
  """Arguments: `llava` for the embedded LLaVA instead of Qwen2.5-VL."""
  llava = configs.parse_arguments(arguments, llava=False)["llava"]
  name = "llava" if llava else "qwen2_5_vl"
  return config_dict.ConfigDict(
    {
      "model": f"experiments/embedded_models/{name}",
      "head_importance": f"experiments/results/{name}/learned.json",
      "data": ("experiments/benchmark_files/digits.tsv",),
      "max_new_tokens": 8,
    }
  )


def get_hyper(arguments=""):
  """Twelve points: every rule at every share."""
  del arguments
  return {"selector": ["hawk", "random", "divprune"], "keep_ratio": [0.4, 0.2, 0.1, 0.05]}
