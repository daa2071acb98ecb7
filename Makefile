# `make` lists what there is. On a fresh Debian machine with Rust the rest installs itself.

# Half of what a test does is waiting for Alluxio, and every cluster of its own takes 1.3 GB: more threads
# than one mostly make two cores slower. TEST_ARGS=name runs the tests whose names contain it.
TEST_THREADS ?= 1
TEST_ARGS ?=
# What waits for minutes until Alluxio itself notices something, or for chance: `make e2e`.
LONG_CASES = faults::workers faults::master faults::job_service cancel::foreign crash::random \
  cancel::a_load_that_takes_too_long crash::each::killed_after_each_transition_of_a_load_that_fails \
  crash::each::killed_after_each_transition_of_a_load_that_is_repaired \
  crash::each::killed_after_each_transition_of_a_native_load_that_fails reverify::silence \
  versions::without_distributed_load_a_worker versions::without_distributed_load_cuts \
  wishes::replication_limits wishes::room controller::crash::after_every_write_of_a_change
BENCH_ARGS ?=
# Loads with something killed in the middle, runs of the torture, and what their chance begins with: none is a
# new one.
KILLS ?= 200
RUNS ?= 10
SEED ?=
CARGO_DENY = 0.20.2
# Of the fuzz targets, which use fewer crates than all that deny.toml is about.
DENY_LESS = license-not-encountered unmatched-skip unnecessary-skip
ADVISORIES = https://github.com/RustSec/advisory-db

# A panic shows where it was; an error of the harness says what it is without the stack of the runtime.
export RUST_BACKTRACE ?= 1
export RUST_LIB_BACKTRACE ?= 0

.DEFAULT_GOAL := help
.PHONY: help prerequisites demo demo-kubernetes cluster static test e2e kills torture planted fuzz check deny bench manifests clean

help: ## Lists these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

prerequisites: ## Fetches Alluxio, grpcurl, Kubernetes and CoreDNS into ~/.cache/alluxio-preload, once
	@tests/prerequisites

demo: ## Loads sample data into a real two-worker Alluxio, with live progress
	@tests/prerequisites demo
	@cargo build --locked --package preload-sidecar --package preloadctl --package preload-tests --bins
	@target/debug/demo

demo-kubernetes: ## Loads an AlluxioRuntime by kubectl apply, on a real API server without nodes
	@tests/prerequisites demo-kubernetes
	@cargo build --locked --package preload-sidecar --package preload-controller --package preload-tests --bins
	@target/debug/demo-kubernetes

cluster: ## Starts a two-worker Alluxio to play with, until Ctrl-C
	@tests/prerequisites demo
	@cargo build --locked --package preload-sidecar --package preloadctl --package preload-tests --bins
	@target/debug/preload-test-cluster

# Quick to build rather than quick to run; a release has its own.
static: ## Builds the static binaries that the tests put into an image
	CARGO_PROFILE_DEV_DEBUG=none CARGO_PROFILE_DEV_STRIP=symbols cargo build --locked \
	  --target x86_64-unknown-linux-musl --package preload-controller --package preload-sidecar --package preloadctl

test: prerequisites static ## Runs every test but the long cases, most on a real Alluxio or a real Kubernetes
	cargo build --workspace --locked
	cargo test --workspace --locked --no-fail-fast -- --test-threads $(TEST_THREADS) \
	  $(or $(TEST_ARGS),$(addprefix --skip ,$(LONG_CASES)))

e2e: prerequisites static ## Runs the long cases: workers and masters killed in the middle; upgrade of real nodes
	cargo build --workspace --locked
	cargo test --workspace --test e2e --locked --no-fail-fast -- --test-threads 1 $(or $(TEST_ARGS),$(LONG_CASES))
	cargo test --workspace --test cluster --locked --no-fail-fast -- --test-threads 1 --nocapture $(TEST_ARGS)

kills: ## Kills workers and sidecars during KILLS=200 loads, writes docs/kills.md; SEED=n: the same again
	@tests/prerequisites demo
	@cargo build --workspace --locked --bins
	@target/debug/preload-kills $(KILLS) $(SEED)

torture: ## Calls at random while a nemesis is at work, RUNS=10 times, adds to docs/torture.tsv; SEED=n: the same again
	@tests/prerequisites demo
	@cargo build --workspace --locked --bins
	@target/debug/preload-torture $(RUNS) $(SEED)

planted: ## Plants bugs that the torture must find (half an hour), adds to docs/planted.tsv
	tests/planted/run

fuzz: ## Fuzzes five targets (docs/reliability.md), SECONDS_EACH=60; what is found stays in fuzz/artifacts
	fuzz/run

check: ## Checks format, lints and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --test cluster --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny: ## Checks licences, sources, double versions and, where their database answers, advisories of our crates
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --version $(CARGO_DENY)
	cargo deny --workspace --locked check --allow license-exception-not-encountered bans licenses sources
	cargo deny --manifest-path fuzz/Cargo.toml --config deny.toml --locked check $(addprefix --allow ,$(DENY_LESS)) \
	  bans licenses sources
	@if GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote --exit-code $(ADVISORIES) HEAD >/dev/null 2>&1; \
	  then cargo deny --workspace --locked check advisories; \
	  else echo "advisories were not looked at: $(ADVISORIES) does not answer"; fi

bench: prerequisites static ## Measures, writes docs/benchmarks.md; BENCH_ARGS=name: one section, native: all native-*
	@tests/prerequisites ghz
	cargo build --workspace --release --locked
	cargo bench --package preload-tests --bench preload --locked -- $(BENCH_ARGS)
	cargo bench --package preload-sidecar --bench store --locked

manifests: ## Writes what of deploy/ is made: CRDs from the types, the injected master of the example
	cargo run --quiet --locked --package preload-controller -- crd preload > deploy/crd/preload.yaml
	cargo run --quiet --locked --package preload-controller -- crd alluxio-runtime > deploy/crd/standalone/alluxioruntime.yaml
	cargo run --quiet --locked --package preload-controller -- crd fluid-patch > deploy/crd/fluid-alluxioruntime.patch.yaml
	cargo run --quiet --locked --package preload-controller -- inject --namespace alluxio \
	  --sidecar-image alluxio-preload:0.1.0 < deploy/overlays/standalone/alluxio-master.yaml \
	  > deploy/overlays/standalone/alluxio-master.injected.yaml

clean: ## Removes what was built; the prerequisites stay
	cargo clean
