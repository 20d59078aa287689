# Two commands from a fresh clone: `make run` and `make test`.
.DEFAULT_GOAL := help
python := .venv/bin/python

.PHONY: help setup run demo test check lint proto generate lock bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## Virtual environment, locked packages, the default model
	@scripts/setup.sh

run: setup ## Serve, learn and log, all on this machine; Ctrl-C stops it
	@.venv/bin/foldback up

demo: setup ## Watch a simulated user's taste being learned (15 minutes; writes demo.png)
	@.venv/bin/foldback demo

test: setup lint ## Everything: real broker, real vLLM, the whole loop
	@scripts/test_tools.sh
	@$(python) -m pytest

check: lint ## The fast subset (under 2 minutes)
	@$(python) -m pytest -m "not slow"

lint: ## Style, types, import rules
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/mypy bench
	@.venv/bin/lint-imports

proto: ## Regenerate the stubs beside proto/foldback/v1/*.proto
	@scripts/generate_stubs.sh
	@cd proto && ../.venv/bin/buf lint

generate: proto ## Regenerate all that follows the code: stubs, pages, dashboard, chart schema
	@$(python) scripts/document_metrics.py
	@$(python) -m scripts.document_api
	@$(python) -m scripts.generate_dashboard
	@$(python) scripts/generate_values_schema.py

lock: ## Write requirements/*.lock from this environment
	@$(python) scripts/lock.py

bench: setup ## Every comparison in bench/, quick versions
	@for script in bench/*.py; do $(python) $$script --quick || exit 1; done

clean: ## Remove what `make run` and `make test` left behind (not the model)
	rm -rf .foldback/registry .foldback/trainer .foldback/receipts .foldback/spool* .foldback/logs .pytest_cache .mypy_cache .ruff_cache
