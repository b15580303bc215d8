"""Programs that try to break what the gateway promises; `python -m tests.attack.budget --help`."""
