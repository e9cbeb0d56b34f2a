"""Search: finding entries by who did what, and by words, by an index beside the log (spec/search.md)."""
