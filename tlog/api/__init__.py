"""The HTTP API: each module is one concern, each view parses, calls and formats (`spec/http-api.md`)."""
