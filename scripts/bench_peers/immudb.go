package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	random "math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/codenotary/immudb/embedded/htree"
	"github.com/codenotary/immudb/embedded/store"
	"github.com/codenotary/immudb/pkg/api/schema"
	"github.com/codenotary/immudb/pkg/client"
	"github.com/codenotary/immudb/pkg/database"
)

const immudbName = "bench"

// immudb is a session, and the state that it verified last: each has its own, as clients of its SDK do.
type immudb struct {
	service schema.ImmuServiceClient
	key     *ecdsa.PublicKey
	state   *schema.ImmutableState
}

// roomy are the settings of a database as it is, but for its limit of 30 commits at once: above it writers get errors.
func roomy() *schema.DatabaseNullableSettings {
	return &schema.DatabaseNullableSettings{MaxConcurrency: &schema.NullableUint32{Value: 100}}
}

// fastest are those of one that waits for no others before it syncs, and has values in the log that it syncs anyway.
func fastest() *schema.DatabaseNullableSettings {
	settings := roomy()
	settings.SyncFrequency = &schema.NullableMilliseconds{Value: 0}
	settings.EmbeddedValues = &schema.NullableBool{Value: true}
	return settings
}

func driveImmudb(settings *schema.DatabaseNullableSettings) driver {
	return func(ctx context.Context, to target) (func() (appender, error), error) {
		if err := makeDatabase(ctx, to, settings); err != nil {
			return nil, err
		}
		return func() (appender, error) {
			own, err := openImmudb(ctx, to)
			return func(ctx context.Context, events [][]byte) error {
				_, err := own.log(ctx, events)
				return err
			}, err
		}, nil
	}
}

func makeDatabase(ctx context.Context, to target, settings *schema.DatabaseNullableSettings) error {
	admin, err := openSession(ctx, to, "defaultdb")
	if err != nil {
		return err
	}
	if _, err := admin.CreateDatabaseV2(ctx, immudbName, settings); err != nil {
		return err
	}
	return admin.CloseSession(ctx)
}

// openSession logs in as who is there at first.
func openSession(ctx context.Context, to target, name string) (client.ImmuClient, error) {
	host, text, err := net.SplitHostPort(to.address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	link := client.NewClient().WithOptions(client.DefaultOptions().WithAddress(host).WithPort(port))
	return link, link.OpenSession(ctx, []byte("immudb"), []byte("immudb"), name)
}

func openImmudb(ctx context.Context, to target) (*immudb, error) {
	key, err := parseECKey(to.key)
	if err != nil {
		return nil, err
	}
	link, err := openSession(ctx, to, immudbName)
	if err != nil {
		return nil, err
	}
	return &immudb{link.GetServiceClient(), key, &schema.ImmutableState{Db: immudbName}}, nil
}

// log writes events in one transaction, and verifies that it has them and is under a signed state that extends the last.
func (i *immudb) log(ctx context.Context, events [][]byte) (*store.TxHeader, error) {
	// The proof is of what is synced; that it is indexed too is not waited for.
	request := &schema.SetRequest{NoWait: true}
	for _, event := range events {
		request.KVs = append(request.KVs, &schema.KeyValue{Key: event[len(`{"id":"`):][:16], Value: event})
	}
	answer, err := i.service.VerifiableSet(ctx, &schema.VerifiableSetRequest{SetRequest: request, ProveSinceTx: i.state.TxId})
	if err != nil {
		return nil, err
	}
	header := schema.TxHeaderFromProto(answer.Tx.Header)
	root, err := rootOf(header.Version, request.KVs)
	if err == nil && root != header.Eh {
		err = fmt.Errorf("transaction %d is not of these events", header.ID)
	}
	if err != nil {
		return nil, err
	}
	return header, i.advance(header, answer)
}

// rootOf is the root over the entries of a transaction.
func rootOf(version int, entries []*schema.KeyValue) (root [sha256.Size]byte, err error) {
	digest, err := store.EntrySpecDigestFor(version)
	if err != nil {
		return root, err
	}
	digests := make([][sha256.Size]byte, len(entries))
	for place, entry := range entries {
		digests[place] = digest(database.EncodeEntrySpec(entry.Key, nil, entry.Value))
	}
	tree, err := htree.New(len(digests))
	if err != nil {
		return root, err
	}
	err = tree.BuildWith(digests)
	return tree.Root(), err
}

func (i *immudb) advance(header *store.TxHeader, answer *schema.VerifiableTx) error {
	hash := header.Alh()
	state := &schema.ImmutableState{Db: immudbName, TxId: header.ID, TxHash: hash[:], Signature: answer.Signature}
	if err := state.CheckSignature(i.key); err != nil {
		return err
	}
	// As in its SDK, the first state extends nothing.
	if last := i.state; last.TxId > 0 && !extends(answer.DualProof, last.TxId, header.ID, schema.DigestFromProto(last.TxHash), hash) {
		return fmt.Errorf("state %d does not extend %d", header.ID, last.TxId)
	}
	i.state = state
	return nil
}

func extends(proof *schema.DualProof, source, target uint64, sourceHash, targetHash [sha256.Size]byte) bool {
	return store.VerifyDualProof(schema.DualProofFromProto(proof), source, target, sourceHash, targetHash)
}

// fillImmudb gives each entry a transaction of its own, for who asks for a proof reads the whole transaction.
func fillImmudb(ctx context.Context, to target, l *load, size int) (func() (appender, error), error) {
	if err := makeDatabase(ctx, to, fastest()); err != nil {
		return nil, err
	}
	link, err := openImmudb(ctx, to)
	if err != nil {
		return nil, err
	}
	headers, err := link.fill(ctx, l, size)
	if err != nil {
		return nil, err
	}
	state, err := link.service.CurrentState(ctx, nil)
	if err == nil {
		err = state.CheckSignature(link.key)
	}
	return func() (appender, error) {
		own, err := openImmudb(ctx, to)
		return func(ctx context.Context, _ [][]byte) error {
			return own.prove(ctx, headers[random.IntN(len(headers))], state)
		}, err
	}, err
}

// fill logs by as many at once as ask later, and returns the headers of the transactions, which bind their entries.
func (i *immudb) fill(ctx context.Context, l *load, size int) ([]*store.TxHeader, error) {
	headers, failures := make([]*store.TxHeader, size), make([]error, l.connections)
	var writers sync.WaitGroup
	for writer := range l.connections {
		writers.Go(func() {
			own := *i
			for place := writer; place < size && failures[writer] == nil; place += l.connections {
				headers[place], failures[writer] = own.log(ctx, l.take())
			}
		})
	}
	writers.Wait()
	return headers, errors.Join(failures...)
}

func (i *immudb) prove(ctx context.Context, header *store.TxHeader, state *schema.ImmutableState) error {
	answer, err := i.service.VerifiableTxById(ctx, &schema.VerifiableTxRequest{
		Tx: header.ID, ProveSinceTx: state.TxId, KeepReferencesUnresolved: true,
	})
	if err == nil && !extends(answer.DualProof, header.ID, state.TxId, header.Alh(), schema.DigestFromProto(state.TxHash)) {
		err = fmt.Errorf("transaction %d is not under state %d", header.ID, state.TxId)
	}
	return err
}

// writeECKey writes a signing key to a file, and prints what its signatures are verified by.
func writeECKey(arguments []string) error {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	own, err := x509.MarshalECPrivateKey(secret)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&secret.PublicKey)
	if err != nil {
		return err
	}
	fmt.Println(base64.StdEncoding.EncodeToString(public))
	return os.WriteFile(arguments[0], pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: own}), 0o600)
}

func parseECKey(text string) (*ecdsa.PublicKey, error) {
	bytes, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(bytes)
	if err != nil {
		return nil, err
	}
	if public, ok := key.(*ecdsa.PublicKey); ok {
		return public, nil
	}
	return nil, fmt.Errorf("not an ECDSA key: %T", key)
}
