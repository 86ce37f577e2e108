"""Run the network.onnx beside this file with onnxruntime and numpy alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def frames(manifest: dict[str, Any]) -> bool:
    """Whether each step has a frame of its own."""
    return not str(manifest["input"]["coding"]).startswith("direct")


def stream(session: Any, manifest: dict[str, Any], states: list[dict[str, Any]], samples: Any) -> Any:
    """One call per step; what comes out of the states goes in again."""
    count = samples.shape[1 if frames(manifest) else 0]
    held = {one["input"]: np.zeros((count, *one["shape"]), dtype=one["type"]) for one in states}
    outputs = [one["output"] for one in states]
    for step in range(manifest["timesteps"]):
        frame = samples[step] if frames(manifest) else samples
        found = session.run(outputs, {manifest["loader"]["input"]["name"]: frame, **held})
        held = dict(zip(held, found, strict=True))
    return found[outputs.index("logits")]


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
    shape = (manifest["timesteps"], *shape) if frames(manifest) else shape
    random = np.random.default_rng(0).integers(manifest["input"]["low"], manifest["input"]["high"] + 1, shape)
    images = np.load(given.images) if given.images else random
    samples = images.astype(entry["type"])
    if states := manifest["loader"].get("states"):
        sums = stream(session, manifest, states, samples)
    else:
        (sums,) = session.run(["logits"], {entry["name"]: samples})
    print("classes:", sums.argmax(axis=1).tolist())
    print("logits of the first image:", (sums[0] * manifest["output"]["unit"]).round(3).tolist())


if __name__ == "__main__":
    main()
