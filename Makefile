# Each target works alone: it makes the environment if it is missing and reuses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# Optional packages live apart: torchvision is a CUDA build and would break others beside a CPU torch.
OPTIONAL := .optional
# What benchmarks compare with; memloc never imports it.
PEERS := .peers
# What plants faults in the code; only scripts/mutants.py imports it.
MUTATION := .mutation
# What builds the site.
SITE := .site
TEST_WORKERS ?= 2

.PHONY: env demo test test-all mutants lint bench docs findings paper-scale site notebooks clean

env: $(STAMP)

# A half-made environment has no stamp and is made again.
$(STAMP): constraints.txt pyproject.toml
	@if [ -d $(VENV) ] && [ ! -f $(STAMP) ]; then echo "$(VENV) is half-made: making it again"; rm -rf $(VENV); fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,hf,dp,lightning,ray]'
	@touch $(STAMP)

$(OPTIONAL)/.complete: $(STAMP)
	@rm -rf $(OPTIONAL)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(OPTIONAL) torchvision==0.28.0 timm==1.0.31 lightly==1.6.0 lightly_utils==0.0.2 aenum==3.1.17
	@touch $@

$(PEERS)/.complete: $(STAMP)
	@rm -rf $(PEERS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(PEERS) submodlib-py==0.0.3 apricot-select==0.6.1 numba==0.68.1 llvmlite==0.50.0 tqdm==4.70.1 nose==1.3.7
	@touch $@

$(MUTATION)/.complete: $(STAMP)
	@rm -rf $(MUTATION)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(MUTATION) cosmic-ray==8.7.0 parso==0.8.7 stevedore==5.10.0
	@touch $@

$(SITE)/.complete: $(STAMP)
	@rm -rf $(SITE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(SITE) mkdocs-material==9.8.2
	@touch $@

demo: env
	$(BIN)/memloc demo --out memloc-demo

test: env $(OPTIONAL)/.complete
	MEMLOC_OPTIONAL=$(CURDIR)/$(OPTIONAL) $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal -m "not slow"

# The notebooks of examples/, cell by cell.
notebooks: env
	$(BIN)/python -m pytest -q tests/integration/test_examples.py -k notebooks

test-all: env $(OPTIONAL)/.complete
	MEMLOC_OPTIONAL=$(CURDIR)/$(OPTIONAL) $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal

# About an hour on two cores; MUTANTS="--each 5 --room metrics" for a part of it.
mutants: env $(MUTATION)/.complete
	PYTHONPATH=$(CURDIR)/$(MUTATION) $(BIN)/python scripts/mutants.py $(MUTANTS)

lint: env
	$(BIN)/ruff format --check src tests benchmarks scripts examples
	$(BIN)/ruff check src tests benchmarks scripts examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/audit_dependencies.py

bench: env $(OPTIONAL)/.complete $(PEERS)/.complete
	MEMLOC_OPTIONAL=$(CURDIR)/$(OPTIONAL) $(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/valuation.py
	PEERS=$(CURDIR)/$(PEERS) $(BIN)/python benchmarks/coreset_speed.py

# Reads benchmarks/*.json and measures nothing; what the figures lack stays in the pages, and is named.
docs: env
	$(BIN)/python scripts/make_docs.py

# Hours on two cores; every training, intervention and figure that is there is kept. Then: make docs
findings: env
	$(BIN)/python benchmarks/findings_runs.py
	$(BIN)/python benchmarks/findings_acts.py
	$(BIN)/python benchmarks/findings.py

# A GPU's minutes; STAGES="--seconds 800 a" for a part, STAGES="--scale tiny" on a CPU. What is there is kept.
paper-scale: env
	$(BIN)/python benchmarks/paper_scale.py $(STAGES)

# build/site; nothing is fetched. Looked through by a browser, links and search, where Debian's chromium is there.
site: env $(SITE)/.complete
	$(BIN)/python scripts/make_site.py
	PYTHONPATH=$(CURDIR)/$(SITE) NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --config-file mkdocs.yml
	$(BIN)/python scripts/check_site.py build/site
	@echo "the site: build/site; look at it with: $(BIN)/python -m http.server --directory build/site"

clean:
	rm -rf $(SITE) $(VENV) $(OPTIONAL) $(PEERS) $(MUTATION) build dist memloc-demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
