# `make` says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo run test chaos fuzz bench bench-instructions lint

help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

demo: ## See it run: sample data, a clinic at work, the service and its page; ARGS='--fresh --rate 50'
	@cargo build --release --locked -p fhir-tail
	@set -e; bin="$$(scripts/postgres-binaries one)"; \
	case "$$bin" in */fhir-tail/postgres-*|*/.cache/postgres-*) export FHIR_TAIL_POSTGRES_BIN="$$bin" ;; esac; \
	exec target/release/fhir-tail demo $(ARGS)

run: ## The service on a Postgres of its own; its data stays in your data directory
	@cargo build --release --locked -p fhir-tail
	@set -e; bin="$$(scripts/postgres-binaries one)"; \
	case "$$bin" in */fhir-tail/postgres-*|*/.cache/postgres-*) export FHIR_TAIL_POSTGRES_BIN="$$bin" ;; esac; \
	exec target/release/fhir-tail serve

test: ## All tests, on the Postgres versions that can be had, and a minute of fuzzing; fetches what is missing
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

chaos: ## Faults of every kind for TIME seconds (an hour), READERS readers (50), and SEED if given: who lost what?
	@set -e; \
	server="$$(scripts/postgres-binaries one)"; \
	scripts/test-clients clock; \
	export FHIR_TAIL_TEST_POSTGRES_BIN="$$server" FHIR_TAIL_TEST_SECONDS=$(TIME) FHIR_TAIL_TEST_READERS=$(READERS); \
	$(if $(SEED),export FHIR_TAIL_TEST_SEED=$(SEED);) \
	cargo test --release --locked -p tests --test main -- chaos --nocapture

fuzz: TIME ?= 600
fuzz: ## Looks for TIME seconds (600), all TARGETS together, for input that breaks a parser
	@scripts/fuzz $(TIME) $(TARGETS)

SCALE ?= 1
RUNS ?= 5
ROWS ?=
OUT ?= target/bench

bench: ## Measure it beside what one would use instead: ROWS (all), SCALE (1), RUNS (5); see docs/performance.md
	@set -e; \
	server="$$(scripts/postgres-binaries one)"; \
	cargo build --release --locked -p fhir-tail -p bench --bins; \
	export FHIR_TAIL_TEST_POSTGRES_BIN="$$server" FHIR_TAIL_TEST_BINARY=target/release/fhir-tail; \
	exec target/release/bench --scale $(SCALE) --runs $(RUNS) --out $(OUT) $(ROWS)

bench-instructions: ## Count the instructions of the inner loops, which no other work on the machine changes
	@bench/instructions

lint: ## Formatting, clippy and docs, warnings are errors
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	@cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p fhir-tail --no-default-features --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --locked --no-deps --document-private-items
