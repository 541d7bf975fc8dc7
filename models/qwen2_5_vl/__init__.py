"""The port of Qwen2.5-VL."""

from models.port import Port
from models.qwen2_5_vl import config
from models.qwen2_5_vl import processor
from models.qwen2_5_vl.model import Qwen2_5_VL

PORTS = {"qwen2_5_vl": Port(Qwen2_5_VL, config.from_hf, processor.Processor, config.PUBLISHED)}
