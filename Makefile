PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
LAVA := .venv-lava
READERS := .venv-readers
PEERS := .venv-peers
DEMO ?= runs/demo
READY := $(VENV)/.ready

.PHONY: setup demo test lint lava readers peers bench clean

setup: $(READY)

# Everything through the pins: a plain torch, or a range with nothing installed, pulls gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lava: $(LAVA)/.ready

# Both lava wheels declare Python 3.10 and torch, and need neither; the pins name everything that is needed.
$(LAVA)/.ready: constraints-lava.txt
	$(PYTHON) -m venv --clear $(LAVA)
	$(LAVA)/bin/python -m pip install --quiet --no-deps --ignore-requires-python --requirement constraints-lava.txt
	touch $@

readers: $(READERS)/.ready

# SpikingJelly's wheel asks for much that reading a NIR file does not need; the pins name everything that is needed.
$(READERS)/.ready: constraints-readers.txt
	$(PYTHON) -m venv --clear $(READERS)
	$(READERS)/bin/python -m pip install --quiet --no-deps --requirement constraints-readers.txt
	touch $@

peers: $(PEERS)/.ready

# On top of $(VENV), since benchmarks run both in one process; --no-deps keeps other builds of torch out.
$(PEERS)/.ready: $(READY) constraints-peers.txt
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -c "import sys, sysconfig; \
	  open(sysconfig.get_path('purelib') + '/peers.pth', 'w').write(f'import site; site.addsitedir({sys.argv[1]!r})')" \
	  "$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")"
	$(PEERS)/bin/python -m pip install --quiet --no-deps --ignore-installed --requirement constraints-peers.txt
	touch $@

demo: setup
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	cd $(DEMO) && $(BIN)/snnkd-deploy train
	cd $(DEMO) && $(BIN)/snnkd-deploy export --target onnx
	cd $(DEMO) && $(BIN)/snnkd-deploy export --target nir
	cd $(DEMO) && $(BIN)/snnkd-deploy export --target loihi
	cd $(DEMO) && $(BIN)/snnkd-deploy energy report.json

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Two processes of one thread each: more threads would only wait for one another.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

bench: peers
	$(PEERS)/bin/python benchmarks/bench.py --out runs/bench

clean:
	rm -rf $(VENV) $(LAVA) $(READERS) $(PEERS) build dist *.egg-info runs report.json
