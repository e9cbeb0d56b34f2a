"""Evidence bundles: events of a segment in one file, with all that is needed to verify them (`spec/bundle.md`)."""
