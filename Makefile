# Two commands matter: `make demo` (a fused picture) and `make test` (everything checked). With an NVIDIA GPU a third:
# `make gpu PYTHON=python3` (docs/gpu.md).
#
#   PYTHON       the interpreter to start from                    (python3)
#   VENV         where the virtual environment goes               (.venv)
#   TORCH_INDEX  an index to take torch and torchvision from, for a CPU-only or a CUDA build; empty: pip's own
#   CONSTRAINTS  file with the versions that are known to work    (constraints.txt; empty: newest)
#   JOBS         how many tests `make test` runs at a time        (the CPU's cores, at most 4)
#   STAGES       what `make gpu` does             (build test sanitize bench; further: train endure)
#   M3SVD CLIPS  folders of the data set for `make weights`; OPTIONS: further ones of its trainings (--set run.steps=20)
#   PYLDFUSION_CUDA, PYLDFUSION_CUDA_ARCHITECTURES, CMAKE_ARGS  see setup.py

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
JOBS ?= $(shell cores=$$(nproc || echo 2); echo $$((cores < 4 ? cores : 4)))
STAGES ?=
M3SVD ?=
CLIPS ?=
OPTIONS ?=
CONSTRAINTS ?= constraints.txt

BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
SOURCES := pyproject.toml setup.py CMakeLists.txt constraints.txt $(wildcard cmake/* csrc/*)

.PHONY: demo test lint format train-smoke weights cuda-all gpu clean

demo: $(VENV)/.runtime  ## a fused picture of a generated pair, with its numbers
	$(BIN)/pyldfusion demo

test: $(VENV)/.dev  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

lint: $(VENV)/.dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## what `make lint` asks for, done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train-smoke: $(VENV)/.dev  ## 20 steps of language-driven training on generated scenes, exported and opened; CPU
	rm -rf out/smoke
	$(BIN)/python -m trainer.prepare --out out/smoke/pairs --scenes 4
	$(BIN)/python -m trainer --preset smoke --data out/smoke/pairs --out out/smoke/run --device cpu
	$(BIN)/python -m export out/smoke/run/weights.safetensors -o out/smoke/smoke.onnx
	for model in out/smoke/smoke.onnx out/smoke/run/weights.safetensors; do \
	  $(BIN)/pyldfusion fuse out/smoke/pairs/ir/scene_0000.png out/smoke/pairs/vi/scene_0000.png \
	    out/smoke/$$(basename $$model).png --model $$model || exit 1; \
	done

weights: $(VENV)/.dev  ## the bundled weights again, in out/weights; goes on where it was stopped (docs/weights.md)
	test -d "$(M3SVD)" -a -d "$(CLIPS)" || { echo "give M3SVD=DIR and CLIPS=DIR, see docs/weights.md"; exit 2; }
	test -f out/weights/data/manifest.csv || $(BIN)/python -m trainer.prepare --out out/weights/data --m3svd "$(M3SVD)" \
	  --video "$(CLIPS)" --every 12 --scenes 40
	$(BIN)/python -m trainer --preset supervised-lite --data out/weights/data --out out/weights/first $(OPTIONS) \
	  $$(test -d out/weights/first && echo --resume)
	$(BIN)/python -m trainer --preset supervised-calm --data out/weights/data --out out/weights/lite $(OPTIONS) \
	  --set network.start=out/weights/first/weights.safetensors $$(test -d out/weights/lite && echo --resume)
	$(BIN)/python -m trainer --preset supervised-full --data out/weights/data --out out/weights/full $(OPTIONS) \
	  --set network.start=out/weights/lite/weights.safetensors $$(test -d out/weights/full && echo --resume)
	for name in lite full; do \
	  $(BIN)/python -m export out/weights/$$name/weights.safetensors -o out/weights/$$name.onnx \
	    --precision fp16-stored || exit 1; \
	done
	$(BIN)/python -m export out/weights/lite.onnx -o out/weights/lite-temporal.onnx --precision fp16-stored --temporal

cuda-all: $(VENV)/.build  ## every kernel compiled for every architecture nvcc knows, warnings as errors, and its size
	PYLDFUSION_CUDA=1 PYLDFUSION_CUDA_ARCHITECTURES=all CMAKE_ARGS=-DPYLDFUSION_WERROR=ON \
	  $(BIN)/python setup.py build_ext --build-temp build/cuda-all/temp --build-lib build/cuda-all/lib
	@stat --format='%n: %s bytes' build/cuda-all/lib/pyldfusion/_cuda*.so

gpu:  ## builds, checks and measures the CUDA half on this machine's GPU; without one, compiles it
	$(PYTHON) -m benchmarks gpu $(STAGES)

clean:
	rm -rf $(VENV) build dist out *.egg-info pyldfusion/_native*.so pyldfusion/_cuda*.so

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build: $(BIN)/python constraints.txt
	$(PIP) setuptools pybind11
	touch $@

$(VENV)/.runtime: $(BIN)/python $(SOURCES)
	$(PIP) --editable '.[openvino]'
	touch $@

$(VENV)/.torch: $(BIN)/python constraints.txt
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch $(if $(TORCH_INDEX),torchvision)
	touch $@

$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	$(PIP) --editable '.[openvino,train,export,dev]'
	touch $@ $(VENV)/.runtime
