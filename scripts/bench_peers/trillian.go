package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/google/trillian"
	"github.com/google/trillian/client"
	"github.com/google/trillian/types"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// roots is what all connections share: the latest root, shown to extend all before it, and asked for by one of them.
// Trillian signs no root, which is for what stands in front of it.
type roots struct {
	log     *client.LogClient
	lock    sync.Mutex
	changed *sync.Cond
	err     error
}

func driveTrillian(ctx context.Context, to target) (func() (appender, error), error) {
	stub, tree, err := newTree(ctx, to, trillian.TreeType_LOG)
	if err != nil {
		return nil, err
	}
	log, err := client.NewFromTree(stub, tree, types.LogRootV1{})
	if err != nil {
		return nil, err
	}
	shared := &roots{log: log}
	shared.changed = sync.NewCond(&shared.lock)
	go shared.poll(ctx, to.poll)
	return func() (appender, error) {
		own, err := dial(to)
		if err != nil {
			return nil, err
		}
		stub := trillian.NewTrillianLogClient(own)
		return func(ctx context.Context, events [][]byte) error { return shared.append(ctx, stub, events) }, nil
	}, nil
}

func dial(to target) (*grpc.ClientConn, error) {
	return grpc.NewClient(to.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func newTree(ctx context.Context, to target, kind trillian.TreeType) (trillian.TrillianLogClient, *trillian.Tree, error) {
	link, err := dial(to)
	if err != nil {
		return nil, nil, err
	}
	wanted := &trillian.Tree{TreeState: trillian.TreeState_ACTIVE, TreeType: kind, MaxRootDuration: durationpb.New(time.Hour)}
	stub := trillian.NewTrillianLogClient(link)
	tree, err := client.CreateAndInitTree(ctx, &trillian.CreateTreeRequest{Tree: wanted}, trillian.NewTrillianAdminClient(link), stub)
	return stub, tree, err
}

func (r *roots) poll(ctx context.Context, every time.Duration) {
	for ctx.Err() == nil {
		time.Sleep(every)
		_, err := r.log.UpdateRoot(ctx)
		r.lock.Lock()
		r.err = err
		r.lock.Unlock()
		r.changed.Broadcast()
	}
}

// after returns the first root larger than this size, or, once patience is at its end, one larger than before.
func (r *roots) after(size, before uint64, patience time.Time) (*types.LogRootV1, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	for r.err == nil {
		root := r.log.GetRoot()
		if root.TreeSize > size || root.TreeSize > before && time.Now().After(patience) {
			return root, nil
		}
		r.changed.Wait()
	}
	return nil, r.err
}

func (r *roots) append(ctx context.Context, stub trillian.TrillianLogClient, events [][]byte) error {
	if len(events) != 1 {
		return fmt.Errorf("it takes one entry a request")
	}
	before := r.log.GetRoot().TreeSize
	hash := rfc6962.DefaultHasher.HashLeaf(events[0])
	leaf := &trillian.LogLeaf{LeafValue: events[0], MerkleLeafHash: hash}
	if _, err := stub.QueueLeaf(ctx, &trillian.QueueLeafRequest{LogId: r.log.LogID, Leaf: leaf}); err != nil {
		return err
	}
	// A root from before the answer hardly ever has it, and to ask in vain would burden the log.
	size, patience := r.log.GetRoot().TreeSize, time.Now().Add(50*time.Millisecond)
	for {
		root, err := r.after(size, before, patience)
		if err != nil {
			return err
		}
		if proven, err := r.prove(ctx, stub, hash, root); proven || err != nil {
			return err
		}
		size, before = root.TreeSize, root.TreeSize
	}
}

func (r *roots) prove(ctx context.Context, stub trillian.TrillianLogClient, hash []byte, root *types.LogRootV1) (bool, error) {
	answer, err := stub.GetInclusionProofByHash(ctx, &trillian.GetInclusionProofByHashRequest{
		LogId: r.log.LogID, LeafHash: hash, TreeSize: int64(root.TreeSize),
	})
	if status.Code(err) == codes.NotFound {
		return false, nil
	}
	if err != nil || len(answer.Proof) == 0 {
		return false, err
	}
	return true, r.log.VerifyInclusionByHash(root, hash, answer.Proof[0])
}

// makeTables runs the statements of a file in a database.
func makeTables(arguments []string) error {
	database, err := sql.Open("mysql", arguments[0]+"?multiStatements=true")
	if err != nil {
		return err
	}
	defer database.Close()
	statements, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	_, err = database.Exec(string(statements))
	return err
}

// fillTrillian fills a tree whose entries come in order, as that takes the largest batches.
func fillTrillian(ctx context.Context, to target, l *load, size int) (func() (appender, error), error) {
	stub, tree, err := newTree(ctx, to, trillian.TreeType_PREORDERED_LOG)
	if err != nil {
		return nil, err
	}
	log, err := client.NewFromTree(stub, tree, types.LogRootV1{})
	if err != nil {
		return nil, err
	}
	leaves := make([][]byte, size)
	err = l.batches(size, func(first int, events [][]byte) error { return fillTree(ctx, stub, tree.TreeId, first, events, leaves) })
	for err == nil && log.GetRoot().TreeSize < uint64(size) {
		time.Sleep(100 * time.Millisecond)
		_, err = log.UpdateRoot(ctx)
	}
	if err != nil {
		return nil, err
	}
	connect := func() (prover, error) {
		own, err := dial(to)
		return treeProver(own, tree.TreeId, size), err
	}
	return (&filled{log.GetRoot().RootHash, leaves, connect}).open, nil
}

func fillTree(ctx context.Context, stub trillian.TrillianLogClient, tree int64, first int, events, leaves [][]byte) error {
	request := &trillian.AddSequencedLeavesRequest{LogId: tree}
	for i, event := range events {
		leaves[first+i] = rfc6962.DefaultHasher.HashLeaf(event)
		request.Leaves = append(request.Leaves, &trillian.LogLeaf{LeafValue: event, LeafIndex: int64(first + i)})
	}
	answer, err := stub.AddSequencedLeaves(ctx, request)
	for _, one := range answer.GetResults() {
		if code := codes.Code(one.GetStatus().GetCode()); err == nil && code != codes.OK {
			err = fmt.Errorf("a leaf was not taken: %v", one.Status)
		}
	}
	return err
}

func treeProver(link *grpc.ClientConn, tree int64, size int) prover {
	stub := trillian.NewTrillianLogClient(link)
	return func(ctx context.Context, index uint64) ([][]byte, error) {
		request := &trillian.GetInclusionProofRequest{LogId: tree, LeafIndex: int64(index), TreeSize: int64(size)}
		answer, err := stub.GetInclusionProof(ctx, request)
		return answer.GetProof().GetHashes(), err
	}
}
