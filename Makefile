# `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo run test chaos fuzz bench bench-instructions lint

help:
	@awk -F ':.*## ' '/^#: / { print (n++ ? "\n" : "") substr($$0, 4) } \
	  /^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

#: Run it

demo: ## A demo clinic with live data, and a dashboard; ARGS='--fresh --rate 50'
	@cargo build --release --locked -p fhir-tail
	@set -e; bin="$$(scripts/postgres-binaries one)"; \
	case "$$bin" in */fhir-tail/postgres-*|*/.cache/postgres-*) export FHIR_TAIL_POSTGRES_BIN="$$bin" ;; esac; \
	exec target/release/fhir-tail demo $(ARGS)

run: ## The service on an embedded Postgres; its data stays in your data directory
	@cargo build --release --locked -p fhir-tail
	@set -e; bin="$$(scripts/postgres-binaries one)"; \
	case "$$bin" in */fhir-tail/postgres-*|*/.cache/postgres-*) export FHIR_TAIL_POSTGRES_BIN="$$bin" ;; esac; \
	exec target/release/fhir-tail serve

#: Check it

lint: ## Formatting, clippy, documentation: warnings are errors
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	@cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p fhir-tail --no-default-features --bins --tests --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --locked --no-deps --document-private-items

test: ## All tests, on each Postgres version available, and a minute of fuzzing; downloads what is missing
	@set -e; \
	export FHIR_TAIL_TEST_SKIPPED="$$(mktemp)"; \
	trap 'scripts/list-skipped; rm -f "$$FHIR_TAIL_TEST_SKIPPED"' EXIT; \
	servers="$$(scripts/postgres-binaries all)"; \
	clients="$$(scripts/test-clients)"; \
	eval "$$clients"; \
	echo "Postgres: $$servers" >&2; \
	FHIR_TAIL_TEST_POSTGRES_BIN="$$servers" cargo test --workspace --locked; \
	scripts/fuzz 60

chaos: TIME ?= 3600
READERS ?= 50

chaos: ## Inject faults for TIME seconds (3600) and check what READERS readers (50) received; SEED repeats a run
	@set -e; \
	server="$$(scripts/postgres-binaries one)"; \
	scripts/test-clients clock; \
	export FHIR_TAIL_TEST_POSTGRES_BIN="$$server" FHIR_TAIL_TEST_SECONDS=$(TIME) FHIR_TAIL_TEST_READERS=$(READERS); \
	$(if $(SEED),export FHIR_TAIL_TEST_SEED=$(SEED);) \
	cargo test --release --locked -p tests --test main -- chaos --nocapture

fuzz: TIME ?= 600
fuzz: ## Search for input that breaks a parser, for TIME seconds (600) over all TARGETS
	@scripts/fuzz $(TIME) $(TARGETS)

SCALE ?= 1
RUNS ?= 5
ROWS ?=
OUT ?= target/bench

#: Measure it

bench: ## Compare with the alternatives: ROWS (all), SCALE (1), RUNS (5); see docs/performance.md
	@set -e; \
	server="$$(scripts/postgres-binaries one)"; \
	cargo build --release --locked -p fhir-tail -p bench --bins; \
	export FHIR_TAIL_TEST_POSTGRES_BIN="$$server" FHIR_TAIL_TEST_BINARY=target/release/fhir-tail; \
	exec target/release/bench --scale $(SCALE) --runs $(RUNS) --out $(OUT) $(ROWS)

bench-instructions: ## Count the instructions of the inner loops, whatever else the machine does
	@bench/instructions
