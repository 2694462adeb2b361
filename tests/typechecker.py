"""The run-time type checker of the tests: beartype, which takes an int for a float as static type checkers do."""

from beartype import BeartypeConf, beartype

__all__ = ["checked"]

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
