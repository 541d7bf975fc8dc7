"""The port of InternVL3, and of the dense sizes of InternVL3.5."""

from models.internvl import config
from models.internvl import processor
from models.internvl.model import InternVL
from models.port import Port

PORTS = {
  "internvl": Port(InternVL, config.from_hf, processor.Processor, config.PUBLISHED, prompt_family="internvl"),
}
REFUSED = {"internvl_chat": "a repository with code of its own; take its conversion, whose name ends in -hf"}
