"""Run the network.onnx beside this file with onnxruntime and numpy alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime


def main() -> None:
    """Classes of the samples in a .npy file, or of random ones."""
    here = Path(__file__).parent
    manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    entry = manifest["loader"]["input"]
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=Path, help=f"integers in .npy, axes {', '.join(entry['axes'])}")
    given = options.parse_args()

    session = onnxruntime.InferenceSession(here / manifest["file"], providers=["CPUExecutionProvider"])
    shape = (3, *manifest["input"]["shape"])
    shape = (manifest["timesteps"], *shape) if entry["axes"][0] == "timestep" else shape
    random = np.random.default_rng(0).integers(manifest["input"]["low"], manifest["input"]["high"] + 1, shape)
    images = np.load(given.images) if given.images else random
    (sums,) = session.run(["logits"], {entry["name"]: images.astype(entry["type"])})
    print("classes:", sums.argmax(axis=1).tolist())
    print("logits of the first image:", (sums[0] * manifest["output"]["unit"]).round(3).tolist())


if __name__ == "__main__":
    main()
