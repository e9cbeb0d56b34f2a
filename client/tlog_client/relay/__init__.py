"""A relay: takes messages off streams that have no answer, and sends them to a log's receivers (`spec/relay.md`)."""
