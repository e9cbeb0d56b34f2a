"""The formats of events that are known, and what events of each have in common (spec/formats.md)."""
