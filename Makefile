# The pip home: ROS 2 from wheels in .venv. With ROS 2 from apt use colcon, see docs/install.md.
PYTHON ?= python3

# A sourced ROS 2 or another environment must not leak into this one.
RUN = env -u PYTHONPATH -u PYTHONHOME -u LD_LIBRARY_PATH -u AMENT_PREFIX_PATH -u CMAKE_PREFIX_PATH \
	-u COLCON_PREFIX_PATH -u _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help venv demo test lint clean

help:
	@echo 'make demo   simulate, train, play bags through ROS 2, report the errors (out/demo)'
	@echo 'make test   linters and the test suite'
	@echo 'make lint   linters alone'
	@echo 'make venv   only prepare .venv (the others do so by themselves)'
	@echo 'make clean  remove .venv and everything made by the targets above'
	@echo 'Variables:  PYTHON=python3.11 makes .venv with that Python;'
	@echo '            TORCH_INDEX=URL installs torch from that package index.'

venv:
	@$(PYTHON) scripts/bootstrap.py

demo: venv
	@$(RUN) .venv/bin/python scripts/demo.py

lint: venv
	@$(RUN) .venv/bin/ruff check .
	@$(RUN) .venv/bin/ruff format --check .
	@$(RUN) .venv/bin/mypy

test: lint
	@$(RUN) .venv/bin/python -m pytest

clean:
	rm -rf .venv out build install log .pytest_cache .mypy_cache .ruff_cache .hypothesis
