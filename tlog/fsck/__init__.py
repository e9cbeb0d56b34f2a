"""`tlog fsck` and the scrub: everything is computed again from the stored bytes (`spec/fsck.md`)."""
