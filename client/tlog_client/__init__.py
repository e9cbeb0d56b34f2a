"""The client of tlog."""
