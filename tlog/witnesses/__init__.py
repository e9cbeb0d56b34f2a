"""The log as client of its witnesses: it asks them to cosign its heads (spec/witnessing.md)."""
