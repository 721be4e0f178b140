"""The operator's settings: one YAML file, read into frozen values, every fault told at once."""

from gateway.settings.errors import ConfigError, Fault
from gateway.settings.load import load, parse
from gateway.settings.model import Settings

__all__ = ["ConfigError", "Fault", "Settings", "load", "parse"]
