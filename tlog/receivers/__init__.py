"""Receivers: what is already running sends its events to these routes, each in its own words (spec/ingest.md)."""

from tlog.receivers import cloudevents, cloudtrail, json, kubernetes, otlp, splunk, syslog, vault

RECEIVERS = (
    *kubernetes.ROUTES,
    *cloudtrail.ROUTES,
    *syslog.ROUTES,
    *vault.ROUTES,
    *otlp.ROUTES,
    *cloudevents.ROUTES,
    *splunk.ROUTES,
    *json.ROUTES,
)
"""The routes of all receivers."""
