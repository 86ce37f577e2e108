"""All benchmarks that have goals, one after the other, and one table of what was met and what was missed.

python benchmarks/bench.py [--quick] [--out FOLDER] [--only training.py ...] [--show FOLDER]

Each script writes its figures into FOLDER. `--show` prints the table of a folder without measuring anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from figures import arguments, table

HERE = Path(__file__).parent
SCRIPTS = ("start_up.py", "compile.py", "onnx_forms.py", "counting.py", "training.py", "inference.py")


def measure(scripts: list[str], folder: Path, quick: bool) -> list[str]:
    """Run them; the names of those that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for script in scripts:
        out = folder / f"{Path(script).stem}.json"
        command = [sys.executable, str(HERE / script), "--out", str(out), *(["--quick"] if quick else [])]
        print(f"{script}: figures in {out}", file=sys.stderr, flush=True)
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            failed.append(script)
    return failed


def shown(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a folder that have a goal, and on which machine which script was run."""
    rows, machines = list[dict[str, Any]](), list[str]()
    for script in SCRIPTS:
        path = folder / f"{Path(script).stem}.json"
        if path.is_file():
            document = json.loads(path.read_text())
            rows += [row for row in document["rows"] if row["must"] is not None]
            where = document["machine"]
            machines.append(f"{script}: {where['processor']}, {where['cores']} cores")
    return rows, machines


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), metavar="SCRIPT")
    parser.add_argument("--show", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    folder = given.show or given.out or Path("runs/bench")
    failed = [] if given.show else measure(given.only, folder, given.quick)
    rows, machines = shown(folder)
    if not rows:
        sys.exit(f"no figures in {folder}")
    print(table(rows))
    print("\n" + "\n".join(machines))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
