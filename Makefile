# `make` alone lists the targets. Each installs what it needs first (scripts/deps.sh), which costs nothing the second time.
SHELL := /bin/bash
export PATH := $(CURDIR)/build/tools/bin:$(PATH)
export GOTOOLCHAIN := local
JOBS ?= $(shell nproc)

.DEFAULT_GOAL := help
.PHONY: help deps lint-deps build run test test-gateway test-clients torture soak fuzz mutants bench bench-gate lint format docs asan tsan compose-test grpc-current sbom audit clean

help: ## this list
	@echo 'The User Intent gateway. Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name does; do printf '  make %-13s %s\n' "$$name" "$$does"; done
	@echo 'Variables: JOBS=$(JOBS), RUN_ONCE=1 (run: end after the call), GATEWAY_PORT=50051, CHANGED=1 (lint: only changed C++),'
	@echo '  SUITES="e2e client-go" (test: only these; scripts/test.sh --list tells all)'

deps: ## install what a build and the tests need (Debian 12 or 13)
	@scripts/deps.sh

lint-deps: deps
	@scripts/deps.sh lint

build: build-release ## gateway, sandbox and tests into build/release/bin

.PHONY: build-release build-asan build-tsan
build-release build-asan build-tsan: build-%: deps
	@grep -q '^USERINTENT_TESTS:BOOL=ON' build/$*/CMakeCache.txt 2>/dev/null && test -f build/$*/build.ninja || cmake --preset $* -DUSERINTENT_TESTS=ON
	@cmake --build --preset $* -j $(JOBS)

run: ## gateway in front of the sandbox, one call shown; Ctrl-C stops it
	@scripts/deps.sh run
	@scripts/build-run.sh
	@scripts/run.sh

test: build ## every test; SUITES="..." for some
	@scripts/test.sh release $(SUITES)

test-gateway: build ## C++ tests, end-to-end, crash and history suites
	@scripts/test.sh release gateway

test-clients: build ## the client libraries, packaged as users get them, against the real gateway
	@scripts/test.sh release clients

torture: build ## three replicas on PostgreSQL, failovers, kills and cut connections (tests/torture/README.md)
	@scripts/test.sh release torture

soak: build ## torture, crashes and random histories until SOAK_MINUTES (60) have passed
	@scripts/soak.sh

fuzz: deps ## inputs made up by libFuzzer, FUZZ_SECONDS (60) for each target, two at a time; FUZZ="policy text" for some
	@scripts/deps.sh fuzz
	@scripts/fuzz.sh $(or $(FUZZ_SECONDS),60) $(FUZZ)

mutants: deps ## would the tests notice? mutations of the code that keeps the promise, one by one (many minutes)
	@build/tools/venv/bin/python tests/mutants/mutants.py

bench: build ## gateway beside a Go gateway and a bare echo, about six minutes; BENCH_ARGS=--quick: 90 s
	@build/tools/venv/bin/python tests/bench/bench.py $(BENCH_ARGS)

bench-gate: build ## fails when a ratio to the Go gateway is 15 % worse than the committed one
	@build/tools/venv/bin/python tests/bench/bench.py --gate $(BENCH_ARGS)

lint: lint-deps build ## every linter; CHANGED=1 for changed C++ files only
	@scripts/lint.sh

format: lint-deps ## clang-format and gofmt, in place
	@git ls-files --cached --others --exclude-standard '*.cc' '*.h' | xargs -r build/tools/lint/bin/clang-format -i
	@git ls-files --cached --others --exclude-standard '*.java' | xargs -r build/tools/lint/bin/clang-format --style=file:client_lib/java/.clang-format -i
	@git ls-files --cached --others --exclude-standard '*.go' | xargs -r gofmt -w

docs: build ## docs/flags.md and docs/metrics.md anew, from --help and /metrics
	@build/tools/venv/bin/python scripts/reference_pages.py

asan: build-asan ## C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/test.sh asan cpp

tsan: build-tsan ## C++ tests under ThreadSanitizer
	@scripts/test.sh tsan cpp

compose-test: ## the containers; the integration suite and the conformance scenarios in them (needs docker)
	@scripts/compose-test.sh

grpc-current: ## the C++ unit tests on the gRPC of the image, in a container (needs docker)
	@JOBS=$(JOBS) scripts/grpc-current.sh

sbom: ## the bill of materials of the gateway's image, to build/sbom (needs docker)
	@scripts/sbom.sh

audit: sbom ## known faults of what the image holds; 1: some, 2: a source could not be asked (needs docker)
	@scripts/audit.py build/sbom/userintent-gateway.cdx.json

clean: ## remove build output; the installed tools in build/tools stay
	@find build -mindepth 1 -maxdepth 1 ! -name tools -exec rm -rf {} + 2>/dev/null || true
