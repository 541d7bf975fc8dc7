"""The port of LLaVA-OneVision."""

from models.llava_onevision import config
from models.llava_onevision import processor
from models.llava_onevision.model import LlavaOnevision
from models.port import Port

PORTS = {
  "llava_onevision": Port(
    LlavaOnevision, config.from_hf, processor.Processor, config.PUBLISHED, prompt_family="llava_onevision"
  ),
}
REFUSED = {"llava_qwen": "the authors' own code; take its conversion, whose name ends in -hf"}
