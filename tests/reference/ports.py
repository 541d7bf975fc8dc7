"""The references of all ports: each a module with tiny configs, prompts and seeded weights."""

from tests.reference import internvl
from tests.reference import llava
from tests.reference import llava_onevision
from tests.reference import qwen2_5_vl
from tests.reference import qwen3_vl
from tests.reference import qwen3_vl_moe

REFERENCES = {
  "internvl": internvl,
  "llava": llava,
  "llava_onevision": llava_onevision,
  "qwen2_5_vl": qwen2_5_vl,
  "qwen3_vl": qwen3_vl,
  "qwen3_vl_moe": qwen3_vl_moe,
}
