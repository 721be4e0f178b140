"""Pure decisions: no clock, no I/O, no logging, no asyncio. `now` is always a parameter.

Imports the standard library and msgspec (a codec without side effects); tests/test_architecture.py holds it to that.
"""
