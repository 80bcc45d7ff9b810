# Bouncer. `make help` lists what there is.
# Every target works on a fresh clone with Rust, Python 3 and make; scripts/tools fetches or builds the rest into .tools/.

CARGO ?= cargo
LOCKED := $(if $(CI),--locked,)
BINARIES := -p bouncer-resolver -p bouncer-control-plane -p bouncerctl

.PHONY: help build wasm tools fmt lint unit lookalikes e2e test deny demo bench clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## The three binaries, release
	$(CARGO) build $(LOCKED) --release $(BINARIES)

wasm: ## The filter for Envoy: target/wasm/bouncer_filter.wasm
	scripts/build-wasm

tools: ## Envoy, the KMS emulator, OpenBao, SPIRE, axe-core and promtool for tests, pinned, into .tools/
	scripts/tools all

fmt: ## Format
	$(CARGO) fmt --all

lint: ## Formatting, clippy for native and wasm with warnings denied, licences and bans
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets --features bouncer-tests/programs -- -D warnings
	scripts/build-wasm --clippy
	scripts/deny

unit: ## Unit and property tests, and each crate's own integration tests
	$(CARGO) test $(LOCKED) --workspace --exclude bouncer-tests

lookalikes: ## How much the plaintext detector sees, and refuses of what is legitimate, in numbers
	$(CARGO) test $(LOCKED) -p bouncer-control-plane --test suite lookalikes::measure -- --nocapture --test-threads 1

e2e: tools wasm ## Scenarios on real parts: Envoy, SPIRE, the KMS emulator
	scripts/build-wasm -p bouncer-spy
	$(CARGO) build $(LOCKED) $(BINARIES)
	envoy/compose/check
	$(CARGO) test $(LOCKED) -p bouncer-tests

test: lint unit lookalikes e2e ## Everything that must hold

demo: ## The operator guide's four steps on this machine, each promise with its evidence (KEEP=1 leaves it up)
	KEEP=$(KEEP) scripts/demo

bench: ## The warm path against plain Envoy and ext_authz; custody against KMS, tonic and SPIRE Agent; long lists and many streams
	scripts/bench

clean: ## Everything that was built; .tools/ stays
	$(CARGO) clean
	rm -rf .demo
