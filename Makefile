# The two targets for a newcomer: make demo, make test. Those that CI calls: lint, test.

export CGO_ENABLED ?= 0
# An older Go fetches the one that go.mod asks for, also where its distribution has switched that off.
export GOTOOLCHAIN ?= auto

BIN       := bin/ssm-ssh
SET       ?= core
SSH       ?= $(BIN)
FUZZTIME  ?= 30s
BENCHTIME ?= 5x
NODES     ?= 3
# Stamping the commit fails where git doesn't trust the folder; the version is worth less than a build.
VCS       := $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false)
STATIC    := go tool -modfile=test/tools/go.mod staticcheck
SYSTEMS   := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
RACE_TEST := CGO_ENABLED=1 go test -race

.PHONY: build setup demo test test-full conformance bench lint fuzz man clean

build:
	go build -trimpath $(VCS) -ldflags "-s -w" -o $(BIN) ./cmd/ssm-ssh

# What demo and test need and the machine lacks; silent when there is nothing to do.
setup:
	@test/setup

# Ansible and a login through a stand-in for AWS on this machine.
demo: setup build
	$(BIN) lab --nodes $(NODES) -- examples/demo.sh

# Everything once, the long ones in their short form, without those that measure time.
test: setup
	$(RACE_TEST) -short -timeout 20m ./...

# Everything in full length. For 500 hosts the race detector has no room: it has 200 of them, then they come without it.
test-full: setup
	$(RACE_TEST) -timeout 90m ./...
	go test -count 1 -timeout 30m -run 'TestManyHosts$$' ./test/e2e

# OpenSSH's own regression scripts with the program as ssh: SET=quick, core, slow, server, all or a script.
# Beside it, on the same machine: SSH=/usr/bin/ssh.
conformance: setup build
	@go run ./test/conformance -ssh $(SSH) $(SET)

# Time, processor time and memory beside the official plugin's and stock ssh's, as ratios with their spread in
# one table; for a machine without other work. A turn takes about three minutes.
bench: setup
	go test -count 1 -timeout 60m -run '^$$' -bench . -benchtime $(BENCHTIME) ./test/bench

lint:
	@test/lint $(SYSTEMS)
	$(STATIC) ./...

# Every fuzz target for FUZZTIME.
fuzz:
	@test/fuzz $(FUZZTIME)

man:
	@test/man

clean:
	rm -rf bin
