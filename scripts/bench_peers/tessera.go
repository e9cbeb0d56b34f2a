package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	format "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
)

// tiles is what all connections share, so that each tile is fetched once, each checkpoint verified once, and the next one
// asked for by one of them.
type tiles struct {
	fetch    *client.HTTPFetcher
	awaiter  *tessera.PublicationAwaiter
	verifier note.Verifier
	had      sync.Map
	heads    sync.Map
}

// head is a verified checkpoint, and what builds the proofs under it, for one at a time.
type head struct {
	*format.Checkpoint
	lock    sync.Mutex
	builder *client.ProofBuilder
}

func driveTessera(ctx context.Context, to target) (func() (appender, error), error) {
	verifier, err := note.NewVerifier(to.key)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(to.address)
	if err != nil {
		return nil, err
	}
	fetch, err := client.NewHTTPFetcher(at, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}})
	if err != nil {
		return nil, err
	}
	shared := &tiles{fetch: fetch, verifier: verifier}
	shared.awaiter = tessera.NewPublicationAwaiter(ctx, fetch.ReadCheckpoint, to.poll)
	return func() (appender, error) {
		own := connection()
		return func(ctx context.Context, events [][]byte) error { return shared.append(ctx, own, to.address, events) }, nil
	}, nil
}

func (t *tiles) append(ctx context.Context, own *http.Client, address string, events [][]byte) error {
	if len(events) != 1 {
		return fmt.Errorf("it takes one entry a request")
	}
	index, checkpoint, err := t.awaiter.Await(ctx, func() (tessera.Index, error) {
		answer, err := post(ctx, own, address+"/add", nil, events[0])
		if err != nil {
			return tessera.Index{}, err
		}
		index, err := strconv.ParseUint(string(answer), 10, 64)
		return tessera.Index{Index: index}, err
	})
	if err != nil {
		return err
	}
	return t.verify(ctx, events[0], index.Index, checkpoint)
}

func (t *tiles) verify(ctx context.Context, event []byte, index uint64, checkpoint []byte) error {
	once, _ := t.heads.LoadOrStore(string(checkpoint), sync.OnceValues(func() (*head, error) { return t.open(ctx, checkpoint) }))
	under, err := once.(func() (*head, error))()
	if err != nil {
		return err
	}
	under.lock.Lock()
	path, err := under.builder.InclusionProof(ctx, index)
	under.lock.Unlock()
	if err != nil {
		return err
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(event)
	return proof.VerifyInclusion(rfc6962.DefaultHasher, index, under.Size, leaf, path, under.Hash)
}

func (t *tiles) open(ctx context.Context, checkpoint []byte) (*head, error) {
	parsed, _, _, err := format.ParseCheckpoint(checkpoint, t.verifier.Name(), t.verifier)
	if err != nil {
		return nil, err
	}
	builder, err := client.NewProofBuilder(ctx, parsed.Size, t.tile)
	return &head{Checkpoint: parsed, builder: builder}, err
}

func (t *tiles) tile(ctx context.Context, level, index uint64, partial uint8) ([]byte, error) {
	key := [3]uint64{level, index, uint64(partial)}
	once, _ := t.had.LoadOrStore(key, sync.OnceValues(func() ([]byte, error) {
		return t.fetch.ReadTile(ctx, level, index, partial)
	}))
	return once.(func() ([]byte, error))()
}
