# make run    try it: a private Postfix with real mail in it, and the service on 127.0.0.1:8025   (root)
#             make run SANDBOX=no: manage the Postfix of this machine instead
# make test   every test, on a private Postfix                                                   (root)
# make test-image   build the image of deploy/Dockerfile and try it with mail, in containers    (root)
# make lint   ruff and mypy; `make lint test` is the gate of each commit
# make bench  measure speed and memory, and write the figures into benchmarks/README.md           (root)
# make clean  as it was cloned

# What comes from Debian; what is missing is installed.
PACKAGES_TO_RUN  = python3-venv postfix
PACKAGES_TO_TEST = $(PACKAGES_TO_RUN) strace chromium fonts-noto-cjk nginx openssl prometheus systemd
PACKAGES_TO_BENCH = $(PACKAGES_TO_RUN) jq

PYTHON = $(shell for python in /usr/bin/python3 python3; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# Tests wait more than they compute: for mail that moves, for clocks, for a browser.
TEST_PROCESSES = 3

VENV = .venv/installed
BIN  = .venv/bin

.PHONY: run test test-image lint bench clean packages-to-run packages-to-test packages-to-bench always
.NOTPARALLEL:

run: root-for-run packages-to-run $(VENV)
	@exec deploy/run-from-clone $(SANDBOX)

test: root-for-test packages-to-test $(VENV)
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

test-image: root-for-test-image $(VENV)
	deploy/test-image

lint: $(VENV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: root-for-bench packages-to-bench $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

root-for-%:
	@test "$$(id -u)" = 0 || { echo "make $* needs root, because Postfix does: sudo make $*" >&2; exit 1; }

packages-to-run:
	@deploy/install-debian $(PACKAGES_TO_RUN)

packages-to-bench:
	@deploy/install-debian $(PACKAGES_TO_BENCH)

packages-to-test:
	@deploy/install-debian $(PACKAGES_TO_TEST)

# A venv that was moved, or whose interpreter is gone, is made anew.
ifneq ($(shell cd / && '$(CURDIR)/$(BIN)/python' -c 'import postqueue_api as p; print(p.__file__)' 2>/dev/null),$(CURDIR)/postqueue_api/__init__.py)
$(VENV): always
CLEAR = --clear
endif

# Readable for the user whom web becomes, and owned by the owner of the clone when made with sudo.
$(VENV): setup.cfg pyproject.toml
	@test -n '$(PYTHON)' || { echo "Python 3.11 or newer is needed: apt-get install python3, or make PYTHON=FILE" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || deploy/install-debian python3-venv
	umask 022 && $(PYTHON) -m venv $(CLEAR) .venv && $(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ && chown -R --reference=. .venv *.egg-info
