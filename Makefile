# Two commands do everything on a fresh machine: `make demo` and `make test`. The work is CMake's; this
# file installs what is missing and remembers the calls.
#
#   CMAKE_ARGS   more configuration, e.g. make build CMAKE_ARGS=-DGRADFLOW_CUDA=OFF
#   DEMO_ARGS    more options of `gradflow demo`, e.g. make demo DEMO_ARGS="--quick --seed 7"
#   BENCH_ARGS   more options of `gradflow bench step`
#   REPORT       folder of the demo's report
#   PREFIX       where `make install` installs (DESTDIR is honored)
#   JOBS         compilers and tests that run at once
CMAKE_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
REPORT ?= gradflow-report
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := build
.PHONY: build demo test mutants bench install format clean help setup setup-test
MAKEFLAGS += --no-print-directory

build: setup ## build the program: build/gradflow
	@if [ ! -f build/build.ninja ] || [ -n "$(CMAKE_ARGS)" ]; then \
	  cmake --preset default -DGRADFLOW_BUILD_TESTS=OFF $(CMAKE_ARGS); fi
	@cmake --build build -j $(JOBS) --target gradflow_program

demo: build ## train the networks, measure their gradients, write the report
	build/gradflow demo --out $(REPORT) $(DEMO_ARGS)

# Both runs are finished before a failure of either ends it, so that one `make test` tells everything.
test: setup-test ## run every test, then the unit tests again under ASan and UBSan
	@cmake --preset default -DGRADFLOW_BUILD_TESTS=ON $(CMAKE_ARGS)
	@cmake --build build -j $(JOBS)
	@cmake --preset sanitize $(CMAKE_ARGS)
	@cmake --build build-sanitize -j $(JOBS) --target unit_tests
	@failed=; \
	ctest --test-dir build --output-on-failure -j $(JOBS) || failed="$$failed tests"; \
	ctest --test-dir build-sanitize --output-on-failure -j $(JOBS) || failed="$$failed sanitizers"; \
	if [ -n "$$failed" ]; then echo "make test: FAILED:$$failed"; exit 1; fi; \
	echo "make test: all passed"

mutants: setup-test ## break the CUDA kernels in every known way; the tests must notice each
	@cmake --preset default -DGRADFLOW_BUILD_TESTS=ON $(CMAKE_ARGS)
	@cmake --build build -j $(JOBS) --target mutants

bench: build ## time a training step, see docs and gradflow bench --help
	build/gradflow bench step $(BENCH_ARGS)

install: build ## install program, libraries, headers under PREFIX (default /usr/local)
	cmake --install build --prefix $(PREFIX)

format: ## lay out the sources with clang-format
	@command -v clang-format >/dev/null || { echo "make format: needs clang-format (apt-get install clang-format)"; exit 1; }
	git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format -i

clean: ## remove what was built
	rm -rf build build-sanitize build-gpu

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh build test
