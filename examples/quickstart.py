"""The three commands from Python: train a student, export it, price its operations."""

from __future__ import annotations

import argparse
from pathlib import Path

from snnkd_deploy.api import energy, export, train
from snnkd_deploy.config import load_config


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="run directory")
    options.add_argument("--epochs", type=int, help="of teacher and student (default: the data set's own number)")
    given = options.parse_args()

    run = train(load_config(epochs=given.epochs, teacher_epochs=given.epochs), out=given.out)
    print("test accuracy:", {role: round(value, 4) for role, value in run.accuracies.items()})

    bundle = export(run, target="onnx")
    print(bundle.file, "verified:", bundle.verified)

    report = energy(given.out / "report.json", bundle.path)
    print(report["headline"]["statement"])


if __name__ == "__main__":
    main()
