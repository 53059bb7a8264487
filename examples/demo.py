"""The main job on real input: the quick start, then a transformer block over a real text, checked and drawn.

    python examples/demo.py [folder]        writes timeline.png and timeline.json to the folder (default: out)

The text is this project's README: its first 512 bytes are the tokens. Their vectors and the block's weights come from
a seeded random generator, since no trained weights are at hand; shapes and arithmetic are those of a real model.
"""

import runpy
import sys
from pathlib import Path

import llama_block
import numpy as np

from pto_wsp import DispatchPolicy

HERE = Path(__file__).parent


def tokens_of(path: Path) -> np.ndarray:
    """The first bytes of a file, as many as the block has positions; a shorter file is repeated."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return np.resize(data, llama_block.S)


def main(folder: Path) -> None:
    print("quick start:", end=" ", flush=True)
    runpy.run_path(str(HERE / "quickstart.py"))

    text = HERE.parent / "README.md"
    vectors = np.random.default_rng(0).standard_normal((256, llama_block.HIDDEN), dtype=np.float32)
    x, weights = vectors[tokens_of(text)], llama_block.random_weights(1)

    steps, y = llama_block.block(x, weights)
    program = steps.named("llama_block").dispatch(DispatchPolicy.round_robin(24)).compile(target="cpu_sim")
    program.execute()
    program.synchronize()
    print(f"\ntransformer block over {text.name}, {llama_block.S} tokens, hidden size {llama_block.HIDDEN}")
    print(program.stats)

    folder.mkdir(parents=True, exist_ok=True)
    timeline = program.timeline()
    print(timeline.text())
    for name in ("timeline.png", "timeline.json"):
        print("wrote", timeline.save(folder / name))

    expected = llama_block.reference(x, weights)
    error = np.abs(y - expected)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    print(f"equals NumPy: {y.size:,} numbers, largest difference {error.max():.1e} (allowed: 1e-4 + 1e-4 of the value)")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out"))
