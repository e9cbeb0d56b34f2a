"""Receivers: what is already running sends its events to these routes, each in its own words (spec/ingest.md)."""

from tlog.receivers import cloudtrail, json, kubernetes, otlp

RECEIVERS = (*kubernetes.ROUTES, *cloudtrail.ROUTES, *json.ROUTES, *otlp.ROUTES)
"""The routes of all receivers."""
