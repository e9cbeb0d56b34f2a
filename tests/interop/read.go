package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"net/url"
	"os"

	"filippo.io/torchwood"
	formats "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// authorized shows a credential, for a client that has no setting for one.
type authorized string

func (a authorized) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", string(a))
	return http.DefaultTransport.RoundTrip(request)
}

// readLog reads all of a log by its tiles, and checks that it extends what was read before: once with torchwood, and
// once with Tessera's client, which share nothing but the tree of golang.org/x/mod. What both read is the same.
func readLog(prefix, vkey, state string) {
	ctx := context.Background()
	credential := "Bearer " + os.Getenv("TLOG_TOKEN")
	verifier := must(note.NewVerifier(vkey))
	theirs := must(client.NewHTTPFetcher(must(url.Parse(prefix)), nil))
	theirs.SetAuthorizationHeader(credential)
	checkpoint, signed, _, err := client.FetchCheckpoint(ctx, theirs.ReadCheckpoint, verifier, verifier.Name())
	if err != nil {
		log.Fatal(err)
	}
	tree := tlog.Tree{N: int64(checkpoint.Size), Hash: tlog.Hash(checkpoint.Hash)}
	old := readState(state, verifier)
	fetcher := must(torchwood.NewTileFetcher(prefix, torchwood.WithHTTPClient(&http.Client{Transport: authorized(credential)})))

	entries, err := readWithTorchwood(ctx, fetcher, old, tree)
	if err != nil {
		log.Printf("torchwood: %v", err)
	}
	others, err2 := readWithTessera(ctx, theirs, old, tree)
	if err2 != nil {
		log.Printf("tessera: %v", err2)
	}
	if err != nil || err2 != nil {
		os.Exit(1)
	}
	if int64(len(entries)) != tree.N || len(others) != len(entries) {
		log.Fatalf("%d and %d entries of %d", len(entries), len(others), tree.N)
	}
	for index := range entries {
		if !bytes.Equal(entries[index], others[index]) {
			log.Fatalf("torchwood and tessera read different entries %d", index)
		}
	}
	if err := os.WriteFile(state, signed, 0o600); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d entries, of which %d were known\n", tree.N, old.N)
}

func readWithTorchwood(ctx context.Context, fetcher *torchwood.TileFetcher, old, tree tlog.Tree) ([][]byte, error) {
	if old.N > 0 {
		path, err := tlog.ProveTree(tree.N, old.N, torchwood.TileHashReaderWithContext(ctx, tree, fetcher))
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckTree(path, tree.N, tree.Hash, old.N, old.Hash); err != nil {
			return nil, err
		}
	}
	reader := must(torchwood.NewClient(fetcher))
	var entries [][]byte
	for index, entry := range reader.AllEntries(ctx, tree, 0) {
		if index != int64(len(entries)) {
			return nil, fmt.Errorf("entry %d after %d", index, len(entries))
		}
		entries = append(entries, bytes.Clone(entry))
	}
	if err := reader.Err(); err != nil {
		return nil, err
	}
	for _, index := range []int64{0, tree.N / 2, tree.N - 1} {
		if entry, _, err := reader.Entry(ctx, tree, index); err != nil || !bytes.Equal(entry, entries[index]) {
			return nil, fmt.Errorf("entry %d by itself: %v", index, err)
		}
	}
	return entries, nil
}

func readWithTessera(ctx context.Context, fetcher *client.HTTPFetcher, old, tree tlog.Tree) ([][]byte, error) {
	size := uint64(tree.N)
	prover := must(client.NewProofBuilder(ctx, size, fetcher.ReadTile))
	if old.N > 0 {
		path, err := prover.ConsistencyProof(ctx, uint64(old.N), size)
		if err != nil {
			return nil, err
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old.N), size, path, old.Hash[:], tree.Hash[:]); err != nil {
			return nil, err
		}
	}
	var entries [][]byte
	for place := uint64(0); place*torchwood.TileWidth < size; place++ {
		bundle, err := client.GetEntryBundle(ctx, fetcher.ReadEntryBundle, place, size)
		if err != nil {
			return nil, err
		}
		for _, entry := range bundle.Entries {
			index := uint64(len(entries))
			path, err := prover.InclusionProof(ctx, index)
			if err != nil {
				return nil, err
			}
			leaf := rfc6962.DefaultHasher.HashLeaf(entry)
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf, path, tree.Hash[:]); err != nil {
				return nil, fmt.Errorf("entry %d: %w", index, err)
			}
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

func readState(path string, verifier note.Verifier) tlog.Tree {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return tlog.Tree{}
	}
	checkpoint, _, _, err := formats.ParseCheckpoint(raw, verifier.Name(), verifier)
	if err != nil {
		log.Fatal(err)
	}
	return tlog.Tree{N: int64(checkpoint.Size), Hash: tlog.Hash(checkpoint.Hash)}
}
