"""How long `snnkd-deploy --help` takes, beside a bare interpreter and beside importing what it leaves out.

Fresh processes, interleaved; medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import Figure, arguments, conclude

TOOL = "snnkd-deploy "
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
    options = arguments(__doc__)
    options.add_argument("--rounds", type=int, default=11)
    given = options.parse_args()
    given.rounds = 1 if given.quick else given.rounds
    for command in COMMANDS.values():
        seconds(command)  # file caches
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(given.rounds)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in COMMANDS}
    figures = [Figure("start-up", name.removeprefix(TOOL), median, "s", "lower") for name, median in medians.items()]
    conclude(__file__, figures, {"rounds": given.rounds}, given.out)


if __name__ == "__main__":
    main()
