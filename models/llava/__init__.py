"""The ports of LLaVA-1.5 and LLaVA-NeXT."""

from models.llava import config
from models.llava import processor
from models.llava.model import Llava
from models.llava.model import LlavaNext
from models.port import Port

PORTS = {
  "llava": Port(Llava, config.from_hf, processor.Processor, config.PUBLISHED, prompt_family="llava"),
  "llava_next": Port(LlavaNext, config.from_hf, processor.Processor, prompt_family="llava"),
}
