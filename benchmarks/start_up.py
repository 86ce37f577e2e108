"""How long `snnkd-deploy --help` takes, beside a bare interpreter and beside importing what it leaves out.

Fresh processes, interleaved; medians, and the median of the per-round ratios to the bare interpreter.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "snnkd-deploy --help": [str(Path(sys.executable).with_name("snnkd-deploy")), "--help"],
    "import numpy": [sys.executable, "-c", "import numpy"],
    "import onnx": [sys.executable, "-c", "import onnx"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=11)
    options.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = options.parse_args()
    for command in COMMANDS.values():
        seconds(command)  # file caches
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(given.rounds)]
    base = next(iter(COMMANDS))
    rows = {
        name: {
            "median_s": statistics.median(one[name] for one in rounds),
            "ratio": statistics.median(one[name] / one[base] for one in rounds),
        }
        for name in COMMANDS
    }
    print(f"Python {platform.python_version()}, {given.rounds} rounds")
    for name, row in rows.items():
        print(f"{name:22} {row['median_s']:7.3f} s  {row['ratio']:6.1f} x")
    if given.out:
        given.out.write_text(
            json.dumps({"python": platform.python_version(), "rounds": given.rounds, "rows": rows}, indent=2)
        )


if __name__ == "__main__":
    main()
