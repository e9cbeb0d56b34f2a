"""A witness: it cosigns the checkpoints of logs that only grow (spec/witness.md), and knows nothing of our own log."""
