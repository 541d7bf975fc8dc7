"""The port of Qwen3-VL, the dense sizes."""

from models.port import Port
from models.qwen3_vl import config
from models.qwen3_vl import processor
from models.qwen3_vl.model import Qwen3VL

PORTS = {"qwen3_vl": Port(Qwen3VL, config.from_hf, processor.Processor, config.PUBLISHED, prompt_family="qwen3")}

_LINEAR = "its first layer is linear attention, which has no query-key scores for HAWK to rank visual tokens by"
_EXPERTS = "its mixture-of-experts layers are not ported, the dense Qwen3-VL models (qwen3_vl) are"
REFUSED = {"qwen3_vl_moe": _EXPERTS, "qwen3_5": _LINEAR, "qwen3_5_moe": _LINEAR}
