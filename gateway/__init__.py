"""A front door for the Cloud Foundry API: token checks, link rewriting and a page cache that never leaks."""

__version__ = "0.1.0"
