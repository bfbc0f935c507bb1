# Set-up and checks; a fresh clone needs python3 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := pdelab solvers meshes benchmarks
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint tree types check-papers clean

demo: $(STAMP)
	$(BIN)/pdelab bench --suite quick --workers 2 --out runs/quick
	@echo "report:   runs/quick/report.html"
	@echo "ParaView: paraview --script runs/quick/runs/burgers-v1/pinn/seed-48109/inspect.py"

test: lint types
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# The mapped folders become one package tree of links, so that static tools can follow imports.
tree:
	rm -rf build/tree && mkdir -p build/tree/pdelab
	ln -s $(CURDIR)/pdelab/* $(CURDIR)/solvers $(CURDIR)/meshes $(CURDIR)/benchmarks build/tree/pdelab/

types: $(STAMP) tree
	MYPYPATH=build/tree $(BIN)/mypy --config-file pyproject.toml -p pdelab

check-papers: $(STAMP)
	$(BIN)/pdelab bench --suite classical --workers 2 --check --out runs/check/classical
	$(BIN)/pdelab bench --suite quick --seeds 3 --workers 2 --check --out runs/check/quick
	$(BIN)/pdelab bench --suite engine --only "*auto*" --workers 2 --check --out runs/check/engine
	$(BIN)/pdelab bench --suite lagrangian-pinn --seeds 1 --workers 2 --check --out runs/check/lagrangian-pinn
	$(BIN)/pdelab bench --suite hc-moe --workers 2 --check --out runs/check/hc-moe
	$(BIN)/pdelab bench --suite linear --check --out runs/check/linear
	$(BIN)/pdelab bench --suite movers --workers 2 --check --out runs/check/movers
	$(BIN)/pdelab bench --suite pig --seeds 1 --workers 2 --check --out runs/check/pig

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf build dist runs *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
