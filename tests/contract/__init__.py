"""The contract that every system meets on every backend; a new system or backend joins by one line in `cases.py`."""
