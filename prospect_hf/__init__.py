"""prospect-hf: a SmolVLM2 that follows a task in a video stream, and speaks when there is something to say.

This module holds the version and a filter of one message, so that ``import prospect_hf`` costs nothing: import what
you need from the rooms below (``data``, ``sources``, ``simulator``, ``training``, ``evaluation``).
"""

import logging

__version__ = "0.1.0"

# transformers' Trainer and peft import bitsandbytes, used or not. On a processor with bfloat16 units it then warns, in
# every process, that a kernel of the Hub is not there. adapters_dst_smolvlm switches that kernel off.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in str(record.msg))
