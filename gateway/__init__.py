"""A front door for the Cloud Foundry API: token checks, link rewriting and a page cache that never leaks."""

from importlib.metadata import version

__version__ = version("gateway")
