"""Run an exported ONNX file with onnxruntime and numpy alone; nothing of this package is imported."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("bundle", type=Path, help="folder with network.onnx and manifest.json")
    options.add_argument("--images", type=Path, help=".npy with integer images (N, channel, height, width)")
    given = options.parse_args()

    manifest = json.loads((given.bundle / "manifest.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(given.bundle / manifest["file"], providers=["CPUExecutionProvider"])
    entry = manifest["loader"]["input"]
    shape = (3, *manifest["input"]["shape"])
    random = np.random.default_rng(0).integers(0, manifest["input"]["high"] + 1, shape)
    images = np.load(given.images) if given.images else random
    (sums,) = session.run(["logits"], {entry["name"]: images.astype(entry["type"])})
    print("classes:", sums.argmax(axis=1).tolist())
    print("logits of the first image:", (sums[0] * manifest["output"]["unit"]).round(3).tolist())


if __name__ == "__main__":
    main()
