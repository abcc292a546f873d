# The commands of a clone.  `make` alone lists them.
#
# Everything runs from .venv, which is made by plain `python3 -m venv` and pip and holds exactly
# what the lock files name.  It is made once, again when a lock changes, and needs no network after.
#
#   make demo ARGS="--for 20s"    arguments for the program behind the target
#   make test PYTHON=python3.13   another interpreter (a .venv of a different one is remade)

PYTHON ?= python3
ARGS   ?=
UV     ?= uv

VENV    := .venv
BIN     := $(VENV)/bin
TOOLS   := $(VENV)/audit/bin
# Asked for by hand, PYTHON decides; otherwise an existing .venv keeps the interpreter it has.
CHOSEN  := $(if $(filter undefined file,$(origin PYTHON)),,$(PYTHON))
PIP     := $(BIN)/python -m pip --disable-pip-version-check --no-input

export PYTHONUNBUFFERED := 1
.NOTPARALLEL:
.PHONY: help demo test fuzz lint format types unit compiled unit-compiled bench bench-peers bench-quick \
	lesson-cascade lesson-availability lesson-retry-storm audit sbom audit-tools lock clean venv \
	runtime dev
.DEFAULT_GOAL := help

help: ## List these commands
	@echo 'meshproxy: a sidecar proxy and a mini service mesh. Start with `make demo`.'
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name what; do printf '  make %-20s %s\n' "$$name" "$$what"; done

demo: runtime ## Run the demo mesh until Ctrl-C (ARGS="--for 20s": end by itself)
	@$(BIN)/meshctl demo $(ARGS)

test: lint types unit ## Lint, types and all tests (ARGS go to pytest)

lint: dev ## Check format and style
	@echo '== ruff format --check'
	@$(BIN)/python -m ruff format --check .
	@echo '== ruff check'
	@$(BIN)/python -m ruff check .

types: dev ## Check types, strictly
	@echo '== mypy --strict'
	@$(BIN)/python -m mypy

# The tests of a file stay on one worker, in the order that tests/conftest.py gives them: at most four
# files compete for the machine, most of them waiting.
unit: dev ## All tests (ARGS go to pytest)
	@echo '== pytest'
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# Coverage is the guide where atheris has a wheel for this interpreter; otherwise chance is.
fuzz: dev ## Fuzz all that reads what others say (ARGS="--seconds 600 --only requests")
	@$(call beside,fuzz) \
	if $(BIN)/python -c 'import atheris' 2>/dev/null; then \
		$(BIN)/python -m tests.fuzz.coverage_guided $(ARGS); \
	else \
		FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-20000} $(BIN)/python -m pytest tests/fuzz --timeout=0; \
	fi

# The same sources, with the hot path translated to C (deploy/compiled.py), and what runs beside them.
compiled: dev ## Compile the hot path into build/compiled (mypyc; needs a C compiler)
	@now=$$($(BIN)/python -m bench.tree); \
	[ "$$(cat build/compiled/.made 2>/dev/null)" = "$$now" ] || { \
		command -v "$${CC:-cc}" >/dev/null || { \
			echo 'A C compiler and the headers of Python are needed: apt install gcc python3-dev' >&2; exit 1; }; \
		echo 'Compiling the hot path into build/compiled (some minutes) …'; \
		rm -rf build && mkdir build && \
		HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m hatchling build -t wheel -d build/wheel >build/log 2>&1 \
			|| { cat build/log >&2; exit 1; } && \
		$(BIN)/python -m zipfile -e build/wheel/*.whl build/compiled && \
		echo "$$now" > build/compiled/.made; }

unit-compiled: compiled ## The tests with the hot path compiled (ARGS go to pytest)
	@rm -rf build/unit && cp -r build/compiled build/unit
	@cp -r bench configs deploy docs lessons tests pyproject.toml Makefile LICENSE *.md *.lock build/unit
	@echo '== pytest, compiled'
	@cd build/unit && PYTHONPATH="$$PWD" ../../$(BIN)/python -m pytest -p no:cacheprovider $(ARGS)

format: dev ## Put the code in its format, mend what can be mended
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

bench: bench-peers ## Measure beside Envoy, HAProxy, nginx (ARGS="--quick", see bench/README.md)
	@case ' $(ARGS) ' in *' --interpreted '*) ;; *) \
		$(MAKE) --no-print-directory compiled || echo 'Going on with the sources, interpreted.' >&2;; esac
	@$(BIN)/python -m bench.compare $(ARGS)

bench-peers: runtime
	@$(call beside,bench) :

bench-quick: runtime ## Measure one sidecar and the mTLS path against a direct call
	@$(BIN)/python -m bench.quick $(ARGS)

lesson-cascade: runtime ## One dependency turns slow: what becomes of the rest, without policies and with them
	@$(BIN)/python -m lessons.cascade $(ARGS)

lesson-availability: runtime ## Four services at 99.9 % in a chain, without retries and with them
	@$(BIN)/python -m lessons.availability $(ARGS)

lesson-retry-storm: runtime ## A service that fails, when everybody asks again: without a budget and with one
	@$(BIN)/python -m lessons.retry_storm $(ARGS)

# No answer is not a good answer: a package that no database knows, or a database that cannot be
# reached, is as much of an error as a vulnerability that is known.
audit: audit-tools ## Look for known vulnerabilities in what the lock files name
	@worst=0; for lock in requirements*.lock; do \
		verdict=2; for database in pypi osv; do \
			said=$$($(TOOLS)/pip-audit -s $$database --strict --disable-pip --require-hashes \
				--progress-spinner off --timeout 15 -r $$lock 2>&1) && verdict=0 && break; \
			case $$said in *"known vulnerabilit"*) verdict=1; break;; esac; \
		done; \
		case $$verdict in \
			0) echo "$$lock: no known vulnerabilities ($$database)";; \
			1) echo "$$lock: KNOWN VULNERABILITIES ($$database)"; printf '%s\n' "$$said";; \
			2) echo "$$lock: NOT CHECKED, no database could be asked: $$(printf '%s\n' "$$said" | tail -n 1)";; \
		esac; \
		[ $$verdict = 0 ] || [ $$worst = 1 ] || worst=$$verdict; \
	done; \
	[ $$worst != 2 ] || echo 'Run it again where the Python Package Index or OSV can be reached.'; exit $$worst

sbom: audit-tools ## Write dist/sbom.json: what the mesh is made of (CycloneDX), from the lock; needs no network
	@mkdir -p dist
	@PYTHONWARNINGS=ignore $(TOOLS)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
		--mc-type application --output-reproducible --output-format JSON --output-file dist/sbom.json
	@echo "dist/sbom.json: $$(grep -c '"purl"' dist/sbom.json) packages"

# Beside the environment, not in it: they want other versions of what is there.
audit-tools: venv
	@now=$$(cksum < requirements-audit.lock); \
	[ "$$(cat $(TOOLS)/installed 2>/dev/null)" = "$$now" ] || { \
		echo 'Installing pip-audit and cyclonedx-bom into $(VENV)/audit …'; \
		$(BIN)/python -m venv --clear $(VENV)/audit && \
		$(TOOLS)/python -m pip --disable-pip-version-check --no-input install --quiet \
			--require-hashes -r requirements-audit.lock && \
		echo "$$now" > $(TOOLS)/installed; }

lock: ## Choose versions anew and write the lock files (needs uv)
	@command -v $(UV) >/dev/null || { \
		echo 'make lock needs uv: install it (pipx install uv) or say where it is (make lock UV=…).' >&2; \
		exit 1; }
	@$(call compile,requirements.lock,pyproject.toml --extra control-plane --group build)
	@$(call compile,requirements-dev.lock,pyproject.toml --extra dev --constraint requirements.lock)
	@$(call compile,requirements-bench.lock,--group bench)
	@$(call compile,requirements-audit.lock,--group audit)
	@$(call compile,requirements-fuzz.lock,--group fuzz)

# One lock for every CPython from 3.11 on; hashes, and no word on where packages come from.
compile = $(UV) pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(2) -o $(1)

clean: ## Remove .venv and what tools left behind; not .mesh (keys, authority, logs)
	@rm -rf $(VENV) build dist .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment ----------------------------------------------------------------------------------

runtime: venv
	@$(call install,runtime,requirements.lock,the mesh needs)

dev: venv
	@$(call install,dev,requirements-dev.lock,the tests need)

# $(1) what, $(2) its lock, $(3) in words.  Nothing to do if what was installed last, by content, is
# what the lock says now; the development lock is a superset, so with it the runtime is there too.
define install
	now=$$(cat $(2) pyproject.toml | cksum); \
	[ "$$(cat $(VENV)/.installed-$(1) 2>/dev/null)" = "$$now" ] && exit 0; \
	rm -f $(VENV)/.installed-*; \
	echo "Installing what $(3) ($$(grep -c == $(2)) packages) into $(VENV) …"; \
	$(PIP) install --quiet --require-hashes -r $(2) || exit 1; \
	$(PIP) install --quiet --no-deps --no-build-isolation -e . || exit 1; \
	cat requirements.lock pyproject.toml | cksum > $(VENV)/.installed-runtime; \
	echo "$$now" > $(VENV)/.installed-$(1)
endef

# What one target alone needs, $(1) being the name of its lock, and it can do without.
define beside
	now=$$(cksum < requirements-$(1).lock); \
	[ "$$(cat $(VENV)/.installed-$(1) 2>/dev/null)" = "$$now" ] || { \
		what=$$(sed -n 's/==.*//p' requirements-$(1).lock | sort -u); \
		echo "Installing $$what into $(VENV) …"; \
		if $(PIP) install --quiet --only-binary :all: --require-hashes -r requirements-$(1).lock; then \
			echo "$$now" > $(VENV)/.installed-$(1); \
		else \
			echo "$$what could not be installed: going on without." >&2; \
		fi; };
endef

# Leave a sound .venv alone.  One that was left half-made, moved with its folder, or asked for with
# another interpreter is made again.  The last line written into it, `.made`, is what makes it sound.
venv:
	@python='$(PYTHON)'; chosen='$(CHOSEN)'; \
	fail() { printf '%s\n' "$$@" >&2; exit 1; }; \
	if [ -x $(BIN)/python ] && [ "$$(cat $(VENV)/.made 2>/dev/null)" = "$$(pwd -P)" ] \
		&& $(BIN)/python -c 'import pip' 2>/dev/null; then \
		[ -n "$$chosen" ] || exit 0; \
		command -v "$$chosen" >/dev/null || fail "There is no $$chosen on this machine: name another with make PYTHON=/path/to/python3 …"; \
		which='import sys; print(sys.base_prefix, sys.version)'; \
		[ "$$($(BIN)/python -c "$$which")" != "$$("$$chosen" -c "$$which")" ] || exit 0; \
	fi; \
	command -v "$$python" >/dev/null || fail \
		"There is no $$python on this machine. meshproxy needs Python 3.11 or newer:" \
		"  Debian, Ubuntu: apt install python3 python3-venv" \
		"or name another interpreter: make PYTHON=/path/to/python3 …"; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail \
		"meshproxy needs Python 3.11 or newer; '$$python --version' says: $$("$$python" --version 2>&1 | head -n 1)" \
		"Install one (Debian 12, Ubuntu 24.04 or newer: apt install python3 python3-venv)" \
		"or name another interpreter: make PYTHON=/path/to/python3.11 …"; \
	"$$python" -c 'import venv, ensurepip' 2>/dev/null || fail \
		"$$python cannot make virtual environments: its venv module is not complete." \
		"  Debian, Ubuntu: apt install python3-venv   (or python3.X-venv for another python3.X)"; \
	echo "Making $(VENV) with $$("$$python" --version) …"; \
	rm -rf $(VENV) && "$$python" -m venv $(VENV) && printf '%s\n' "$$(pwd -P)" > $(VENV)/.made
