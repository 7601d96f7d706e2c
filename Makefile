# clihelper
#
#   make run     start the example in this terminal; Ctrl-C ends it
#   make test    run the tests, installing what they need (ARGS='-k pidfile' goes to pytest),
#                in three processes, or in PROCESSES=0, one after the other
#   make test-pages   open each page of the documentation in a browser, and a daemon's page;
#                installs Chromium
#   make pictures   draw the pictures of a daemon's page in the documentation
#   make lint    check style and types
#   make docs    build the documentation: build/docs/index.html
#   make diagrams   draw the pictures of docs/*.dot again, by Graphviz
#   make bench   measure against other programs and print tables (ARGS go to the benchmarks)
#   make faults  kill, stop and silence what a consumer needs, and print tables (ARGS, too)
#   make soak    a million messages and a hundred faults, and the model test: 10 seeds of 10,000
#                messages; takes about an hour
#   make test-on RELEASE=trixie   run the tests on another release of Debian, or on sid, as root:
#                in a root below build/, with the PYTHON and ARGS that are given; the libraries
#                are PyPI's, or with PACKAGES=debian the release's own; TARGET=faults, soak ...
#                is run in place of the tests
#   make deb     build the Debian packages in a clean chroot, as root: build/deb;
#                on RELEASE=trixie, sid ... if not on Debian 12
#   make deb-check   try them: install, start, rotate, upgrade, purge ... (ARGS='rotation');
#                with RELEASE, too
#   make clean   remove all that the above have made
#
# Everything is installed into .venv, by pip as you have configured it, with the python3 in PATH
# or another (make run PYTHON=python3.13). Packages of the system are installed with apt-get
# where they are missing, which takes root, or sudo without a password.

SHELL  := /bin/bash
PYTHON ?= python3
ARGS   ?=
PROCESSES ?= 3
VENV   := .venv
VENV_OPTIONS ?=
RELEASE ?=
PACKAGES ?= pypi
TARGET ?= test
RABBITMQ_SERVER := /usr/lib/rabbitmq/bin/rabbitmq-server
LIBRABBITMQ := /usr/include/amqp.h
GCC := /usr/bin/gcc
WRK := /usr/bin/wrk
CHROMIUM := /usr/bin/chromium
OPENSSL := /usr/bin/openssl
CURL := /usr/bin/curl
SYSTEMD_ANALYZE := /usr/bin/systemd-analyze
LOGROTATE := /usr/sbin/logrotate
PROMTOOL := /usr/bin/promtool
DEBOOTSTRAP := /usr/sbin/debootstrap
PIUPARTS := /usr/sbin/piuparts

# Without an index, as among a release's own packages, the tests that need these are left out.
OPTIONAL := $(if $(PIP_NO_INDEX),,$(VENV)/installed-optional)

# The documentation, and a daemon's page, in a browser: what it is examined with is the package of
# npm's registry, and the SHA-256 of its archive.
PAGES := tests/test_pages.py tests/test_page_browser.py tests/test_asyncapi_schema.py
AXE_VERSION := 4.14.1
AXE_SHA256 := e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
AXE := build/axe-core-$(AXE_VERSION).js

# What AsyncAPI documents are validated with, in the same way.
ASYNCAPI_VERSION := 6.8.1
ASYNCAPI_SHA256 := 252bfd18c12f60f654ab4def022e3ec9f9589e6dfd65c238204f77c07a1f6b46
ASYNCAPI := build/asyncapi-3.0.0-$(ASYNCAPI_VERSION).json

# The programs of .venv come first for every recipe, so that ./example finds its python3 there.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help run test test-pages test-on lint docs diagrams pictures bench faults soak deb \
        deb-check clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

run: $(VENV)/installed
	@$(call in_terminal,./example -c example.yml -f)

test: $(VENV)/installed-test $(OPTIONAL) $(RABBITMQ_SERVER) $(VENV)/postgresql $(OPENSSL) $(CURL) \
      $(VENV)/libfaketime $(SYSTEMD_ANALYZE) $(LOGROTATE) $(PROMTOOL)
	python -m pytest -n $(PROCESSES) --dist loadfile $(PAGES:%=--ignore=%) $(ARGS)

test-pages: $(VENV)/installed-test $(VENV)/installed-optional $(VENV)/installed-docs $(CHROMIUM) \
            $(AXE) $(ASYNCAPI)
	python -m pytest $(PAGES) $(ARGS)

# What is given to make is in the environment of its commands, PYTHON and ARGS among it.
test-on: $(DEBOOTSTRAP)
	@test -n '$(RELEASE)' || { echo 'which release? RELEASE=trixie, or sid' >&2; exit 2; }
	python3 -m packages.release $(RELEASE) $(TARGET) --packages $(PACKAGES)

lint: $(VENV)/installed-lint
	ruff check .
	mypy

diagrams: $(patsubst %.dot,%.svg,$(wildcard docs/*.dot))

docs/%.svg: docs/%.dot
	dot -Tsvg $< -o $@

docs: $(VENV)/installed-docs
	python -m sphinx -W --keep-going -q -b html docs build/docs

pictures: $(VENV)/installed-test $(CHROMIUM)
	python -m tests.picture

bench: $(VENV)/installed-bench $(RABBITMQ_SERVER) $(LIBRABBITMQ) $(GCC) $(WRK)
	python -m benchmarks $(ARGS)

faults: $(VENV)/installed-bench $(RABBITMQ_SERVER)
	python -m faults $(ARGS)

soak: $(VENV)/installed-bench $(RABBITMQ_SERVER)
	python -m faults soak model

deb: $(VENV)/installed $(DEBOOTSTRAP)
	python -m packages.build

deb-check: $(VENV)/installed-test $(RABBITMQ_SERVER) $(DEBOOTSTRAP) $(PIUPARTS) $(AXE) deb
	python -m packages.check $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +


# The virtual environment. Each stamp says that a set of requirements is in it.

$(VENV)/installed: $(VENV)/created setup.cfg pyproject.toml
	pip install --quiet --use-pep517 --editable .
	@touch $@

$(VENV)/installed-%: $(VENV)/created setup.cfg pyproject.toml
	pip install --quiet --use-pep517 --editable '.[$*]'
	@touch $@

.PRECIOUS: $(VENV)/installed-%

$(VENV)/created:
	@command -v $(PYTHON) >/dev/null || { echo '$(PYTHON) is not installed' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "clihelper needs Python 3.11 or later: $(PYTHON) is $$($(PYTHON) -V)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call apt_install,python3-venv); }
	$(PYTHON) -m venv --clear $(VENV_OPTIONS) $(VENV)
	@touch $@


# Packages of the system. Nothing here uses the services that they bring.

$(RABBITMQ_SERVER):
	@$(call apt_install,rabbitmq-server)

$(LIBRABBITMQ):
	@$(call apt_install,librabbitmq-dev)

$(GCC):
	@$(call apt_install,gcc libc6-dev)

$(WRK):
	@$(call apt_install,wrk)

$(CHROMIUM):
	@$(call apt_install,chromium)

$(OPENSSL):
	@$(call apt_install,openssl)

$(CURL):
	@$(call apt_install,curl)

# About 20 MB, 96 MB when installed: Debian has promtool in no package of its own.
$(PROMTOOL):
	@$(call apt_install,prometheus)

$(SYSTEMD_ANALYZE):
	@$(call apt_install,systemd)

$(DEBOOTSTRAP) $(LOGROTATE) $(PIUPARTS):
	@$(call apt_install,$(notdir $@))

$(VENV)/libfaketime: | $(VENV)/created
	@ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || { $(call apt_install,libfaketime); }
	@touch $@

$(VENV)/postgresql: | $(VENV)/created
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { $(call apt_install,postgresql); }
	@touch $@

# What is fetched: never committed.

$(AXE):
	@command -v npm >/dev/null || { $(call apt_install,npm); }
	@mkdir -p build && rm -f build/axe-core-*
	cd build && npm pack --silent axe-core@$(AXE_VERSION) >/dev/null
	@echo '$(AXE_SHA256)  build/axe-core-$(AXE_VERSION).tgz' | sha256sum --check --quiet
	@tar -xzOf build/axe-core-$(AXE_VERSION).tgz package/axe.min.js >$@

$(ASYNCAPI):
	@command -v npm >/dev/null || { $(call apt_install,npm); }
	@mkdir -p build && rm -f build/asyncapi-*
	cd build && npm pack --silent @asyncapi/specs@$(ASYNCAPI_VERSION) >/dev/null
	@echo '$(ASYNCAPI_SHA256)  build/asyncapi-specs-$(ASYNCAPI_VERSION).tgz' | sha256sum --check --quiet
	@tar -xzOf build/asyncapi-specs-$(ASYNCAPI_VERSION).tgz \
	    'package/schemas/3.0.0-without-$$id.json' >$@


# $(call apt_install,PACKAGES): while it lasts, policy-rc.d keeps services from being started.
define apt_install
set -e; \
sudo=; \
if [ $$(id -u) -ne 0 ]; then sudo='sudo -n'; fi; \
if ! command -v apt-get >/dev/null || ! $$sudo true 2>/dev/null; then \
    echo 'missing, and to be installed by root: apt-get install $(1)' >&2; exit 1; \
fi; \
policy=/usr/sbin/policy-rc.d; \
if [ ! -e $$policy ]; then \
    trap "$$sudo rm -f $$policy" EXIT; \
    $$sudo sh -c "printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy"; \
fi; \
$$sudo apt-get -qq update; \
$$sudo env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o Dpkg::Use-Pty=0 -y --no-install-recommends install $(1)
endef


# $(call in_terminal,COMMAND): alone in the foreground of the terminal, so that Ctrl-C reaches
# the command and not make, which would end with a status of its own. Ctrl-Z suspends both
# (148 is 128 + SIGTSTP); if make is killed, the command is told to terminate.
define in_terminal
if [ ! -t 0 ]; then exec $(1); fi; \
set -m; \
setpriv --pdeathsig TERM $(1); status=$$?; \
while [ $$status -eq 148 ]; do kill -TSTP 0; fg >/dev/null; status=$$?; done; \
exit $$status
endef
