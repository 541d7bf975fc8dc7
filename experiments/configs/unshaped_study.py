"""The study of models of `unshaped.py`, each trained into out/unshaped_ARCHITECTURE_SEED, for `experiments.study`.

python -m experiments.study --config=experiments/configs/unshaped_study.py
python -m experiments.study --config=experiments/configs/unshaped_study.py:few,layer=1,seeds=2
"""

from ml_collections import config_dict

from experiments.running import configs

_ARCHITECTURES = ("qwen2_5_vl", "llava")


def get_config(arguments=""):
  """The config.

  Args:
    arguments: `few` for HAWK's own rule and three others without merging, in place of all rules; `layer=N` for the decoder
      layer that scores; `seeds=N` for the number of models of each architecture.
  """
  given = configs.parse_arguments(arguments, few=False, layer=0, seeds=3)
  few = {"selector": ("fastv", "random", "divprune"), "merge": ("none",)} if given["few"] else {}
  name = f"{'few' if few else 'all'}_rules_layer_{given['layer']}"
  return config_dict.ConfigDict(
    {
      "model": tuple(f"out/unshaped_{which}_{seed}/model" for which in _ARCHITECTURES for seed in range(given["seeds"])),
      "score_layer": given["layer"],
      "timing_rounds": 0,  # the times are those of the shaped models
      "output_dir": f"out/study_{name}",
      "results_dir": f"out/study_{name}/results",
      **few,
    }
  )
