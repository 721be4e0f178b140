"""An embedded Cloud Controller and UAA to run against: demo, tests, contract checks.

Stands alone: imports nothing else of `gateway`.
"""
