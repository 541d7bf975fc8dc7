"""The port of Qwen3-VL, dense and with experts."""

from models.port import Port
from models.qwen3_vl import config
from models.qwen3_vl import processor
from models.qwen3_vl.model import Qwen3VL

PORTS = {
  "qwen3_vl": Port(Qwen3VL, config.from_hf, processor.Processor, config.PUBLISHED, prompt_family="qwen3"),
  "qwen3_vl_moe": Port(Qwen3VL, config.from_hf, processor.Processor, config.PUBLISHED_EXPERTS, prompt_family="qwen3"),
}

_LINEAR = "its first layer is linear attention, which has no query-key scores for HAWK to rank visual tokens by"
REFUSED = {"qwen3_5": _LINEAR, "qwen3_5_moe": _LINEAR}
