"""A sweep with XManager: one job per shard. Needs an image of the Dockerfile in a registry. From the project's root:

  pip install xmanager
  xmanager launch docs/examples/xm_launch.py -- --image=REGISTRY/hawk --shards=4 --output_dir=/gcs/BUCKET/sweep --gpu=a100 \
      --command=evaluate --config=experiments/configs/qwen7b.py:native

With --gpu, the jobs run on Vertex AI, where each of them sees Cloud Storage as /gcs. Without it, they run in this machine's
Docker, and --output_dir is a directory of this machine. A job that was killed resumes when it is launched again, and the
last one to finish leaves the table of all points.

Nothing else in this project needs XManager, and no test of this project launches a job.
"""

from absl import app
from absl import flags
from xmanager import xm
from xmanager import xm_local

_IMAGE = flags.DEFINE_string("image", None, "Image of the Dockerfile, in a registry.", required=True)
_SHARDS = flags.DEFINE_integer("shards", 1, "Number of jobs.", lower_bound=1)
_GPU = flags.DEFINE_string("gpu", None, "Kind of GPU on Vertex AI, such as a100; by default this machine's Docker.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Directory of the sweep, which all jobs see.", required=True)
_COMMAND = flags.DEFINE_string("command", "evaluate", "As for experiments.sweep.")
_CONFIG = flags.DEFINE_string("config", None, "As for experiments.sweep.")
_SET = flags.DEFINE_multi_string("set", [], "As for experiments.sweep.")


def main(argv):
  """Adds the jobs."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  output = _OUTPUT_DIR.value
  if _GPU.value:
    executor = xm_local.Vertex(xm.JobRequirements(**{_GPU.value: 1}))
  else:
    executor = xm_local.Local(docker_options=xm_local.DockerOptions(volumes={output: output}))
  arguments = ["experiments.sweep", f"--command={_COMMAND.value}", f"--output_dir={output}"]
  arguments += [f"--config={_CONFIG.value}"] if _CONFIG.value else []
  arguments += [f"--set={setting}" for setting in _SET.value]
  with xm_local.create_experiment(experiment_title="hawk") as experiment:
    (executable,) = experiment.package([xm.container(executor.Spec(), image_path=_IMAGE.value)])
    for shard in range(_SHARDS.value):
      experiment.add(xm.Job(executable, executor, args=[*arguments, f"--shard={shard}/{_SHARDS.value}"]))


if __name__ == "__main__":
  app.run(main)
