# `make demo` shows one question going all the way; `make test` runs everything that has to hold.
# Nothing but make, gcc and Python 3.11 has to be there: the rest is installed into .venv (see deploy/install.sh).

SHELL := /bin/bash
BIN := .venv/bin
LOCK := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links

.PHONY: help install demo stop test lint format types imports unit lock clean

help: ## This list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: ## Make .venv and install into it what requirements.lock names.
	@deploy/install.sh dev

demo: ## Start a gateway and ask it a question; it runs on afterwards.
	@deploy/install.sh run
	@deploy/demo.sh

stop: ## Stop what `make demo` left running.
	@deploy/demo.sh stop

test: install ## Everything: style, types, import contracts, tests.
	@$(MAKE) --no-print-directory lint types imports unit

lint: ## Ruff: rules and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ## mypy, strict.
	$(BIN)/mypy

imports: ## The order of the rooms, and the purity of some.
	$(BIN)/lint-imports --no-cache

unit: ## The tests; PYTEST_FLAGS adds flags.
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

format: ## Let Ruff mend what it can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The second is a part of the first, with the same versions: what an installation without tests needs.
lock: ## Write requirements.lock and deploy/requirements.lock anew.
	$(LOCK) --upgrade --extra dev --output-file requirements.lock pyproject.toml
	$(LOCK) --upgrade --constraint requirements.lock --output-file deploy/requirements.lock pyproject.toml
	$(LOCK) --upgrade --output-file tests/clients/llama_index/requirements.lock tests/clients/llama_index/requirements.in

clean: stop ## Remove what the checks and the demo left; .venv stays.
	rm -rf .state .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
