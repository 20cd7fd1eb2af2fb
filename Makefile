# The front door. CMake does the building (CMakePresets.json), ctest the testing; this file only names the everyday commands.
FUZZ_SECONDS ?= 30
CTEST_ARGS ?=
RELEASE := build/release/sluice

.PHONY: build run test test-tsan bench lint fuzz deps deps-test release clean help

build: deps release              ## compile build/release/sluice

run: build                       ## run the gateway with a demo backend, data in ./sluice-data
	@exec $(RELEASE) run --demo --data sluice-data

test: deps-test release          ## everything a change must pass: lint, unit, fuzz corpus, derived, integration
	@cmake --preset asan >/dev/null
	@cmake --build --preset asan
	@ctest --preset asan $(CTEST_ARGS)

test-tsan: deps-test release     ## unit and integration tests under the thread sanitizer
	@cmake --preset tsan >/dev/null
	@cmake --build --preset tsan
	@setarch -R ctest --preset tsan $(CTEST_ARGS)

bench: deps-test release         ## compare with nginx and HAProxy on this machine
	@tests/bench/run

lint: deps-test release          ## the limits of CONTRIBUTING.md; no allow-list
	@bad=0; for what in layers style compile generated; do tools/check_$$what || bad=1; done; exit $$bad

fuzz: deps-test                  ## run every fuzz target for FUZZ_SECONDS (30)
	@cmake --preset fuzz >/dev/null
	@cmake --build --preset fuzz
	@tools/run_fuzz $(FUZZ_SECONDS)

deps:                            ## install the packages that building needs
	@tools/install_deps build

deps-test:                       ## install the packages that testing needs
	@tools/install_deps test

release:
	@cmake --preset release >/dev/null
	@cmake --build --preset release

clean:                           ## remove build/ (not the data directory)
	@rm -rf build

help:                            ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
