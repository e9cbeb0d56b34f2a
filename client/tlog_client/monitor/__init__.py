"""A monitor follows the logs of a trust policy from outside, and forgets nothing it verified (`spec/monitoring.md`)."""
