package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	format "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// writer is a client of a segment, by spec/receipt.md.
type writer struct {
	client   *http.Client
	url      string
	verifier note.Verifier
}

type receipt struct {
	Checkpoint string   `json:"checkpoint"`
	Entry      string   `json:"entry"`
	Index      uint64   `json:"index"`
	Opening    []byte   `json:"opening"`
	Proof      [][]byte `json:"proof"`
}

type batchReceipt struct {
	Checkpoint string   `json:"checkpoint"`
	First      uint64   `json:"first_index"`
	Left       [][]byte `json:"left"`
	Right      [][]byte `json:"right"`
	Openings   [][]byte `json:"openings"`
	Time       int64    `json:"time"`
	Writer     string   `json:"writer"`
}

func driveTlog(_ context.Context, to target) (func() (appender, error), error) {
	verifier, err := note.NewVerifier(to.key)
	return func() (appender, error) { return writer{connection(), to.address, verifier}.append, nil }, err
}

func (w writer) append(ctx context.Context, events [][]byte) error {
	single, kind := len(events) == 1, "application/x-ndjson"
	if single {
		kind = "application/json"
	}
	// The ID of the first is as good a key as any.
	headers := map[string]string{"Content-Type": kind, "Idempotency-Key": string(events[0][len(`{"id":"`):][:16])}
	answer, err := post(ctx, w.client, w.url+"/entries", headers, bytes.Join(events, []byte("\n")))
	if err != nil {
		return err
	}
	if single {
		return w.verify(events[0], answer)
	}
	return w.verifyBatch(events, answer)
}

func (w writer) verify(event, answer []byte) error {
	var r receipt
	var e struct {
		Time   int64  `json:"time"`
		Writer string `json:"writer"`
	}
	if err := errors.Join(json.Unmarshal(answer, &r), json.Unmarshal([]byte(r.Entry), &e)); err != nil {
		return err
	}
	head, err := w.open(r.Checkpoint)
	if err != nil {
		return err
	}
	entry := w.entry(event, r.Opening, e.Time, e.Writer)
	if string(entry) != r.Entry {
		return fmt.Errorf("entry %d is not of this event: %s", r.Index, r.Entry)
	}
	return proof.VerifyInclusion(rfc6962.DefaultHasher, r.Index, head.Size, rfc6962.DefaultHasher.HashLeaf(entry), r.Proof, head.Hash)
}

func (w writer) verifyBatch(events [][]byte, answer []byte) error {
	var r batchReceipt
	if err := json.Unmarshal(answer, &r); err != nil {
		return err
	}
	head, err := w.open(r.Checkpoint)
	if err != nil {
		return err
	}
	if len(r.Openings) != len(events) {
		return fmt.Errorf("%d openings for %d events", len(r.Openings), len(events))
	}
	root, err := w.root(events, r, head.Size)
	if err == nil && !bytes.Equal(root, head.Hash) {
		err = fmt.Errorf("the batch at %d is not in the tree of size %d", r.First, head.Size)
	}
	return err
}

// root is the root of the tree that has the entries of these events where the receipt says.
func (w writer) root(events [][]byte, r batchReceipt, size uint64) ([]byte, error) {
	factory := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	tree, err := factory.NewRange(0, r.First, r.Left)
	if err != nil {
		return nil, err
	}
	for i, event := range events {
		leaf := rfc6962.DefaultHasher.HashLeaf(w.entry(event, r.Openings[i], r.Time, r.Writer))
		if err := tree.Append(leaf, nil); err != nil {
			return nil, err
		}
	}
	rest, err := factory.NewRange(tree.End(), size, r.Right)
	if err != nil {
		return nil, err
	}
	if err := tree.AppendRange(rest, nil); err != nil {
		return nil, err
	}
	return tree.GetRootHash(nil)
}

func (w writer) open(checkpoint string) (*format.Checkpoint, error) {
	head, _, _, err := format.ParseCheckpoint([]byte(checkpoint), w.verifier.Name(), w.verifier)
	return head, err
}

func (w writer) entry(event, opening []byte, time int64, writer string) []byte {
	const kind = "application/json"
	commitment := sha256.New()
	commitment.Write([]byte("tlog/commitment/v1\n"))
	commitment.Write(opening)
	commitment.Write(binary.BigEndian.AppendUint16(nil, uint16(len(kind))))
	commitment.Write([]byte(kind))
	commitment.Write(event)
	return fmt.Appendf(nil, `{"commitment":"%s","origin":%q,"time":%d,"v":1,"writer":%q}`,
		base64.StdEncoding.EncodeToString(commitment.Sum(nil)), w.verifier.Name(), time, writer)
}

// fillTlog fills a segment by batches, and keeps of them what a proof is verified by.
func fillTlog(ctx context.Context, to target, l *load, size int) (func() (appender, error), error) {
	verifier, err := note.NewVerifier(to.key)
	if err != nil {
		return nil, err
	}
	w := writer{connection(), to.address, verifier}
	leaves := make([][]byte, size)
	err = l.batches(size, func(_ int, events [][]byte) error { return w.fill(ctx, events, leaves) })
	if err != nil {
		return nil, err
	}
	checkpoint, err := get(ctx, w.client, w.url+"/checkpoint")
	if err != nil {
		return nil, err
	}
	head, err := w.open(string(checkpoint))
	if err == nil && head.Size != uint64(size) {
		err = fmt.Errorf("it has %d entries, not %d", head.Size, size)
	}
	if err != nil {
		return nil, err
	}
	connect := func() (prover, error) { return writer{connection(), to.address, verifier}.prover(size), nil }
	return (&filled{head.Hash, leaves, connect}).open, nil
}

func (w writer) fill(ctx context.Context, events, leaves [][]byte) error {
	answer, err := post(ctx, w.client, w.url+"/entries", map[string]string{"Content-Type": "application/x-ndjson"}, bytes.Join(events, []byte("\n")))
	if err != nil {
		return err
	}
	var r batchReceipt
	if err := json.Unmarshal(answer, &r); err != nil {
		return err
	}
	for i, event := range events {
		leaves[r.First+uint64(i)] = rfc6962.DefaultHasher.HashLeaf(w.entry(event, r.Openings[i], r.Time, r.Writer))
	}
	return nil
}

func (w writer) prover(size int) prover {
	return func(ctx context.Context, index uint64) ([][]byte, error) {
		answer, err := get(ctx, w.client, fmt.Sprintf("%s/proof/inclusion/%d/%d", w.url, size, index))
		if err != nil {
			return nil, err
		}
		var r struct {
			Proof [][]byte `json:"proof"`
		}
		err = json.Unmarshal(answer, &r)
		return r.Proof, err
	}
}
