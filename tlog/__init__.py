"""The server of tlog."""
