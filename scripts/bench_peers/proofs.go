package main

import (
	"context"
	"math/rand/v2"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// prover asks for the inclusion proof of an entry in the tree that was filled.
type prover func(ctx context.Context, index uint64) ([][]byte, error)

// filled is a log with so many entries: its root, the hash of each leaf, and what opens a connection that asks for proofs.
type filled struct {
	root    []byte
	leaves  [][]byte
	connect func() (prover, error)
}

// filler brings a log to a size, and returns what opens a connection that asks for proofs.
type filler func(ctx context.Context, to target, l *load, size int) (func() (appender, error), error)

// open returns an appender that appends nothing: it asks for the proof of an entry anywhere in the tree, and verifies it.
func (f *filled) open() (appender, error) {
	prove, err := f.connect()
	return func(ctx context.Context, _ [][]byte) error {
		index := rand.Uint64N(uint64(len(f.leaves)))
		hashes, err := prove(ctx, index)
		if err != nil {
			return err
		}
		return proof.VerifyInclusion(rfc6962.DefaultHasher, index, uint64(len(f.leaves)), f.leaves[index], hashes, f.root)
	}, err
}

// batches calls send with the events from each index on, until there are so many.
func (l *load) batches(size int, send func(first int, events [][]byte) error) error {
	few := l.batch
	defer func() { l.batch = few }()
	for first := 0; first < size; first += l.batch {
		l.batch = min(1_000, size-first)
		if err := send(first, l.take()); err != nil {
			return err
		}
	}
	return nil
}
