"""Dashboards as code, recording rules and alerts. `make docs` writes the dashboards' JSON from here."""
