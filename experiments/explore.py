"""Serves a page on which to see what pruning keeps of a picture, and to weigh the heads by hand.

  python -m experiments.explore
  python -m experiments.explore --model=Qwen/Qwen2.5-VL-7B-Instruct --head_importance=preset:qwen2.5-vl-7b

Open the address that it prints. The page takes a picture and a question, and shows the tokens kept, the score map, every
head's own map with a slider for its weight, and the answers from all and from the kept tokens. Rule, normalization and
stages in the decoder (docs/method.md, "Stages") can be chosen. "Save weights" writes JSON that `--head_importance` of all
commands takes. Pictures stay in memory and are forgotten. Only this machine can reach the page unless --host says otherwise:
whoever can reach it can use the model.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from http import server as http_server
import pathlib
from typing import Any

from experiments.digits import embedded
from experiments.evaluation import answering
from experiments.reporting.explorer import server
from experiments.reporting.explorer import session as session_lib
from experiments.running import command
from experiments.running import environment
from experiments.running import loading
from experiments.running import processes
from hawk_jax import importance
from models import load_processor
from models import processor as processor_lib
from models import registry

_PAGE = pathlib.Path(session_lib.__file__).with_name("page.html")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, loading.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  image: str = command.option(str(embedded.DIRECTORY / "picture.png"), "Picture file that the page begins with.")
  prompt: str = command.option("Which digit is red?", "Question that the page begins with.")
  head_importance: str = command.option("uniform", "First weights: preset:NAME, uniform, or a JSON file.")
  max_new_tokens: int = command.option(32, "Largest number of tokens in the answer.", least=1)
  host: str = command.option("127.0.0.1", "Address to listen on; 0.0.0.0 for all that the machine has.")
  port: int = command.option(8008, "Port to listen on; 0: any that is free.", least=0)
  max_upload_mb: int = command.option(20, "Most megabytes of a picture file.", least=1)


def make_server(settings: Settings) -> http_server.ThreadingHTTPServer:
  """Loads the model, and makes a server that listens; `serve_forever` answers.

  Raises:
    ValueError: an address in use, or settings that do not fit the model.
  """
  processes.check_alone("the explorer")
  processor_lib.open_picture(settings.image)
  example = pathlib.Path(settings.image).read_bytes()
  calls: dict[str, Callable[..., Any]] = {}
  limit = settings.max_upload_mb * 1_000_000
  # The address first, since loading takes long. Pictures come as bytes only: as a call, `open` would take a path.
  served = server.make(settings.host, settings.port, _PAGE.read_text(), calls, lambda body: session.open(body), limit)
  try:
    directory, model = registry.describe(settings.model, processes.mesh(settings.mesh))
    head_importance = importance.load(settings.head_importance, model.config.text.num_attention_heads)
    processor = load_processor(str(directory))
    answering.check(
      model,
      processor,
      answering.Options(1, settings.max_new_tokens, **settings.pixels),
    )
    params = registry.load_params(directory, model, settings.parameter_dtype)
    session = session_lib.Session(
      model,
      params,
      processor,
      max_new_tokens=settings.max_new_tokens,
      **settings.pixels,
    )
    facts = session_lib.facts(environment.model_name(settings.model), model, head_importance)
  except BaseException:
    served.server_close()
    raise
  calls |= {
    "start": lambda: {**facts, "prompt": settings.prompt, "limit": limit, **session.open(example)},
    "ask": session.ask,
    "prune": session.prune,
  }
  return served


def run(settings: Settings) -> None:
  """Serves until it is interrupted."""
  served = make_server(settings)
  host, port = settings.host, served.server_address[1]
  print(f"open http://{f'[{host}]' if ':' in host else host}:{port}   (interrupt with Ctrl-C)", flush=True)
  try:
    served.serve_forever()
  except KeyboardInterrupt:
    pass
  finally:
    served.server_close()


if __name__ == "__main__":
  command.main(Settings, run)
