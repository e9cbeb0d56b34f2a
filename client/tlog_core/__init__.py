"""The pure core of tlog: what a verifier has to trust.

Merkle trees, proofs, tiles, signed notes, checkpoints, cosignatures, commitments, entries, receipts, trust policies and
evidence. Nothing in this package does I/O, reads a clock, draws randomness or logs; all of these come in as arguments.
"""
