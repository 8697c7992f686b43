# The project's verbs. Works with GNU make 3.81, which macOS ships.
# MODEL=... names a model for chat, ARGS=... goes on to the program, PYTHON=... chooses the Python of .venv,
# EXTRAS=torch adds optional dependencies.

MODEL =
ARGS =
BIN = .venv/bin

.PHONY: help setup chat serve bench test acceptance slow lint format types check clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

setup: ## make or renew .venv for development
	@sh scripts/setup.sh dev

chat: ## talk to the bundled model, or to MODEL=...
	@sh scripts/setup.sh chat
	@$(BIN)/edgellm chat $(MODEL) $(ARGS)

serve: ## serve the bundled model, or MODEL=..., with a page at http://localhost:8080
	@EXTRAS=serve sh scripts/setup.sh chat
	@$(BIN)/edgellm serve $(MODEL) $(ARGS)

bench: ## measure: make bench ARGS="paging MODEL"
	@sh scripts/setup.sh chat
	@$(BIN)/edgellm bench $(ARGS)

# All tests run on all cores; a choice of them (ARGS="-k word") starts no workers, which take longer.
# Bytecode is kept whatever the environment says: tests start many a process, and collecting them
# takes twice as long without.
test: setup ## run the tests
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q $(if $(ARGS),,-n auto --dist worksteal) $(ARGS)

acceptance: ## run documented commands, type checkers, a service under load, the page in a browser
	@EXTRAS=acceptance sh scripts/setup.sh dev
	@command -v npm >/dev/null && npm install --silent --no-audit --no-fund --no-package-lock \
		--prefix tests/acceptance/clients/node || echo "no npm: clients in JavaScript are left out"
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m slow tests/acceptance tests/stress $(ARGS)

slow: setup ## run the tests that take minutes
	@$(BIN)/python -m pytest -q -m slow $(ARGS)

lint: setup ## check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## repair style and formatting where that is possible
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# mypy cannot follow folders that install under another name, so it reads the package as installed.
types: setup ## check types
	@rm -rf build
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	@cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p edgellm

check: lint types test ## everything that CI checks

clean: ## remove what was built, but not .venv
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
