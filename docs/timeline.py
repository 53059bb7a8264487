"""Draws docs/timeline.png, the picture in README.md: examples/llama_block.py on twelve workers. No kernel is run."""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))

import llama_block  # noqa: E402

from pto_wsp import DispatchPolicy  # noqa: E402

x = np.zeros((llama_block.S, llama_block.HIDDEN), np.float32)
steps, _ = llama_block.block(x, llama_block.random_weights(0))
program = steps.named("llama_block").dispatch(DispatchPolicy.round_robin(12)).compile()
program.timeline().plot().savefig(HERE / "timeline.png", dpi=90)
