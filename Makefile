# make demo and make test are all a newcomer needs; each makes its own .venv and may be run twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt
INSTALLED := onnx,openvino,native,ziglang,ray,pyarrow
JOBS ?= 2
# Libraries with OpenMP take one core each: with two, every test's threads would wait, spinning, for those of another.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1
# Programs whose absence fails their tests instead of skipping them: .ci/run names what it installs.
PROGRAMS ?=

# Targets in distributions of their own, see plugins/: in an environment beside ours, which sees ours and not the reverse.
PLUGINS := ethosu qnn
SPACE := $(subst ,, )
BESIDE := $(VENV)/plugins
COMMA := ,
PLUGIN_TESTS := GHOSTDEPLOY_REQUIRE=$(subst $(SPACE),$(COMMA),$(PLUGINS)) $(BESIDE)/bin/python -m pytest $(PLUGINS:%=plugins/%/tests)

# The model server asks for older packages than converters do: in an environment beside ours, too.
SERVING := $(VENV)/serve
SERVING_TESTS := GHOSTDEPLOY_REQUIRE=serve,$(INSTALLED) $(SERVING)/bin/python -m pytest tests/serving

.PHONY: help demo test test-all test-plugins test-serve setup plugins serve check bench docs fuzz device-wheel app-wheel clean

help:
	@echo "make demo    export, verify, evaluate and run the shipped model"
	@echo "make test    check + all tests"
	@echo "make test-all  make test, and every pair of network and target"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make bench   wrapper overhead, export time by stage, time to the first result, endurance"
	@echo "make docs    the site in build/docs, warnings as errors; every command and link in it is real, the tutorial runs"
	@echo "make fuzz    property tests, damaged files, killed commands, full disks, threads, networks in C: many of each, an hour or two"
	@echo "make device-wheel  dist/: the wheel for devices, without exporters, models and samples"
	@echo "make app-wheel   dist/: the wheel for apps, which load and run bundles"
	@echo "make setup   everything into .venv"
	@echo "make serve    the model server into .venv/serve; make test-serve tests it"
	@echo "make plugins  the targets of plugins/ and their vendors' compilers into .venv/plugins; make test-plugins tests them"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps carry what was installed; a change of constraints or extras installs again.
$(VENV)/.demo: constraints.txt pyproject.toml | $(BIN)/python
	$(PIP) -e ".[all]"
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e ".[dev]"
	@touch $@

setup: $(VENV)/.dev

# The vendors' packages stay out of .venv: a .pth file shows them what is there.
$(BESIDE)/.ready: constraints.txt $(PLUGINS:%=plugins/%/pyproject.toml) $(VENV)/.dev
	$(PYTHON) -m venv --without-pip --clear $(BESIDE)
	@$(BIN)/python -c "import site; print('import site; site.addsitedir(' + repr(site.getsitepackages()[0]) + ')')" \
		> $$($(BESIDE)/bin/python -c "import site; print(site.getsitepackages()[0])")/ghostdeploy.pth
	$(BESIDE)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt \
		$(PLUGINS:%=-e plugins/%) tflite-micro
	@touch $@

plugins: $(BESIDE)/.ready

test-plugins: plugins
	$(ONE_THREAD) $(PLUGIN_TESTS)

$(SERVING)/.ready: constraints-serve.txt pyproject.toml $(VENV)/.dev
	$(PYTHON) -m venv --without-pip --clear $(SERVING)
	@$(BIN)/python -c "import site; print('import site; site.addsitedir(' + repr(site.getsitepackages()[0]) + ')')" \
		> $$($(SERVING)/bin/python -c "import site; print(site.getsitepackages()[0])")/ghostdeploy.pth
	$(SERVING)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints-serve.txt -e ".[serve]"
	@touch $@

serve: $(SERVING)/.ready

test-serve: serve
	$(ONE_THREAD) $(SERVING_TESTS)

demo: $(VENV)/.demo
	@$(BIN)/python -m ghostdeploy.samples.demo

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=$(subst $(SPACE),:,$(PLUGINS:%=plugins/%)) $(BIN)/mypy $(PLUGINS:%=-p ghostdeploy_%)
	$(BIN)/lint-imports

test: check plugins serve
	$(ONE_THREAD) $(PLUGIN_TESTS) --durations 10
	$(ONE_THREAD) $(SERVING_TESTS) --durations 10
	GHOSTDEPLOY_REQUIRE=$(INSTALLED),$(PROGRAMS) $(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 30

test-all: check plugins serve
	$(ONE_THREAD) $(PLUGIN_TESTS) -m ""
	$(ONE_THREAD) $(SERVING_TESTS) -m ""
	GHOSTDEPLOY_REQUIRE=$(INSTALLED),$(PROGRAMS) $(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m ""

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/wrapper_overhead.py
	$(BIN)/python benchmarks/export_stages.py
	$(BIN)/python -m ghostdeploy export -t onnx -t openvino --out build/bench --force
	$(BIN)/python benchmarks/first_result.py --cache build/bench/*
	$(BIN)/python benchmarks/endurance.py build/bench/*

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs build/docs
	$(BIN)/python -m pytest tests/house/test_docs.py tests/house/test_tutorial.py
	@echo build/docs/index.html

# Without atheris, which has wheels for a few systems, its tests skip.
$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP) -e ".[fuzz]"
	@touch $@

fuzz: $(VENV)/.fuzz serve
	HYPOTHESIS_PROFILE=fuzz $(ONE_THREAD) $(BIN)/python -m pytest tests/fold/test_fold_property.py \
		tests/models/test_checkpoint.py tests/prove/test_image_fuzz.py tests/bundle/test_record_fuzz.py \
		tests/supply/test_hostile.py tests/robustness tests/conformance/test_threads.py -p no:cacheprovider -rP
	HYPOTHESIS_PROFILE=fuzz $(SERVING_TESTS)/test_fuzz.py -p no:cacheprovider

device-wheel app-wheel: %-wheel: | $(BIN)/python
	GHOSTDEPLOY_WHEEL=$* $(BIN)/python -m pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache
