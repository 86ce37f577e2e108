"""The library, as ctypes sees it and as a C program does."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from snnkd_deploy.errors import RuntimeMissingError
from snnkd_deploy.native import library
from snnkd_deploy.native.network_file import pack
from snnkd_deploy.simulate import simulate
from snnkd_deploy.toolchain import compiler, shared_library
from tests.native.integer_networks import mlp
from tests.networks import random_inputs

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{library.FOLDER}")
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "snnkd_native.h"

static char file[1 << 22];

int main(int count, char **names) {
    char message[200];
    unsigned char pixels[100];
    int32_t logits[10];
    FILE *from = fopen(names[1], "rb");
    size_t bytes = fread(file, 1, sizeof file, from);
    snnkd_network *network = snnkd_open(file, bytes, NULL, message, sizeof message);
    snnkd_results wanted = {.logits = logits};
    if (!network) return puts(message), 1;
    while (count == 2 && fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels) {
        if (snnkd_run(network, pixels, 1, 2, &wanted, message, sizeof message)) return puts(message), 1;
        for (int i = 0; i < snnkd_describe(network).classes; i++) printf("%d ", (int)logits[i]);
        puts("");
    }
    snnkd_close(network);
    return 0;
}
"""
SIZES = r"""
#include <stdio.h>
#include "snnkd_native.h"
int main(void) {
    printf("%zu %zu %zu", sizeof(snnkd_about), sizeof(snnkd_node), sizeof(snnkd_results));
    return 0;
}
"""


def program(folder: Path, text: str, *more: str) -> list[str]:
    (folder / "main.c").write_text(text)
    command = [compiler("C"), *STRICT, str(folder / "main.c"), *more, "-o", str(folder / "main")]
    subprocess.run(command, check=True)
    return [str(folder / "main")]


def test_structures_are_those_of_the_header(tmp_path: Path) -> None:
    done = subprocess.run(program(tmp_path, SIZES), capture_output=True, text=True, check=True)
    assert [int(one) for one in done.stdout.split()] == [
        ctypes.sizeof(one) for one in (library.About, library.Node, library.Results)
    ]


def test_a_c_program_runs_a_network_through_the_header(tmp_path: Path) -> None:
    graph = mlp()
    inputs = random_inputs(graph, 3).astype(np.uint8)
    (tmp_path / "network.snn").write_bytes(pack(graph))
    built = str(shared_library(library.SOURCES, library.FLAGS))
    command = [*program(tmp_path, PROGRAM, built, f"-Wl,-rpath,{Path(built).parent}"), str(tmp_path / "network.snn")]
    done = subprocess.run(command, input=inputs.tobytes(), capture_output=True, check=True)
    met = np.array([line.split() for line in done.stdout.decode().splitlines()], dtype=np.int64)
    np.testing.assert_array_equal(met, simulate(graph, inputs).logits)
    (tmp_path / "network.snn").write_bytes(pack(graph)[:-1])
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(b"truncated: ")


def test_every_source_is_named() -> None:
    names = {path.name for path in library.FOLDER.iterdir() if path.suffix in (".cpp", ".hpp", ".h")}
    assert {path.name for path in library.SOURCES} == names


def test_without_a_compiler_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeMissingError, match="no C\\+\\+ compiler \\(no-such-compiler\\)"):
        library.build.__wrapped__()


def test_the_command_line_starts_without_it() -> None:
    code = "import sys, snnkd_deploy.cli; sys.exit('snnkd_deploy.native' in sys.modules or 'ctypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_library_that_was_built_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.build()
    assert library.built()
    monkeypatch.setenv("SNNKD_CACHE", str(tmp_path))
    assert not library.built()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert library.built()  # there is nothing to wait for
