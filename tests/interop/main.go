// Command interop is a log, or a witness, made of software that is not ours: it is what tlog's tests talk to.
//
//	interop log <url of a witness> <its vkey> <signer key of the log>
//	interop witness <vkey of a log> <signer key of the witness>
//	interop read <prefix of a log> <its vkey> <file with the checkpoint that was read last>
//	interop tiles <signer key of the log> <folder> <what its entries begin with>
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"filippo.io/torchwood"
	formats "github.com/transparency-dev/formats/note"
	client "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 6 && os.Args[1] == "log":
		runLog(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	case len(os.Args) == 4 && os.Args[1] == "witness":
		runWitness(os.Args[2], os.Args[3])
	case len(os.Args) == 5 && os.Args[1] == "read":
		readLog(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 5 && os.Args[1] == "tiles":
		serveTiles(os.Args[2], os.Args[3], os.Args[4])
	default:
		log.Fatal("usage: interop log URL VKEY MLDSAVKEY SKEY | witness VKEY SKEY | read URL VKEY FILE | tiles SKEY FOLDER TEXT")
	}
}

// runLog grows a log and has each checkpoint cosigned, and tries what must be refused.
func runLog(address, vkey, mldsaVkey, skey string) {
	signer := must(note.NewSigner(skey))
	verifier := must(torchwood.NewVerifierFromSigner(skey))
	cosigner := must(torchwood.NewCosignatureVerifier(vkey))
	formatsCosigner := must(formats.NewVerifierForCosignatureV1(vkey))
	subtrees := must(formats.NewMLDSAVerifier(mldsaVkey))
	base := must(url.Parse(address))
	w := client.NewWitness(base, http.DefaultClient)
	tree := &tree{origin: signer.Name()}
	old := int64(0)
	for _, size := range []int64{0, 1, 2, 5, 5, 8, 9, 64, 100} {
		tree.grow(size)
		checkpoint := tree.sign(size, signer)
		lines, _, err := w.Update(context.Background(), uint64(old), checkpoint, tree.prove(old, size))
		if err != nil {
			log.Fatalf("from %d to %d: %v", old, size, err)
		}
		cosigned := append(bytes.Clone(checkpoint), lines...)
		opened := must(note.Open(cosigned, note.VerifierList(verifier, cosigner)))
		must(note.Open(cosigned, note.VerifierList(formatsCosigner)))
		postQuantum := must(note.Open(cosigned, note.VerifierList(subtrees)))
		if size > 5 {
			tree.checkSubtree(base, 5, size, cosigned, subtrees)
		}
		if len(opened.Sigs) != 2 || len(postQuantum.Sigs) != 1 {
			log.Fatalf("%d and %d signatures at size %d", len(opened.Sigs), len(postQuantum.Sigs), size)
		}
		served := get(base, tree.origin)
		if must(note.Open(served, note.VerifierList(verifier, cosigner))).Text != opened.Text {
			log.Fatalf("another checkpoint is served: %s", served)
		}
		fmt.Println("cosigned", size)
		old = size
	}
	refuse := func(name string, want error, old, size int64, proof [][]byte, s note.Signer) {
		_, latest, err := w.Update(context.Background(), uint64(old), tree.sign(size, s), proof)
		if !errors.Is(err, want) {
			log.Fatalf("%s: %v", name, err)
		}
		fmt.Println(name, latest)
	}
	tree.grow(120)
	stranger, _, err := note.GenerateKey(nil, tree.origin)
	if err != nil {
		log.Fatal(err)
	}
	refuse("stale", witness.ErrCheckpointStale, 64, 120, tree.prove(64, 120), signer)
	refuse("forged", witness.ErrNoValidSignature, 100, 120, tree.prove(100, 120), must(note.NewSigner(stranger)))
	refuse("unproven", witness.ErrInvalidProof, 100, 120, tree.prove(64, 120), signer)
	refuse("backwards", witness.ErrOldSizeInvalid, 100, 64, nil, signer)
	tree.origin = "unknown.example/log"
	refuse("unknown", witness.ErrUnknownLog, 0, 120, nil, signer)
}

// runWitness serves a witness of one log, at an address that it prints.
func runWitness(vkey, skey string) {
	verifier := must(note.NewVerifier(vkey))
	store := inmemory.New()
	w := must(witness.New(context.Background(), witness.Opts{
		Persistence: store,
		Signers:     []note.Signer{must(formats.NewSignerForCosignatureV1(skey))},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			return verifier, origin == verifier.Name(), nil
		},
	}))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Printf("http://%s\n", listener.Addr())
	http.HandleFunc("POST /add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	log.Fatal(http.Serve(listener, nil))
}

// tree is a log in memory, hashed by golang.org/x/mod.
type tree struct {
	origin string
	size   int64
	hashes []tlog.Hash
}

func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, 0, len(indexes))
	for _, index := range indexes {
		found = append(found, t.hashes[index])
	}
	return found, nil
}

func (t *tree) grow(size int64) {
	for ; t.size < size; t.size++ {
		t.hashes = append(t.hashes, must(tlog.StoredHashes(t.size, fmt.Appendf(nil, "entry %d", t.size), t))...)
	}
}

// checkSubtree has the witness sign that one entry is a part of a checkpoint that it cosigned.
func (t *tree) checkSubtree(base *url.URL, index, size int64, checkpoint []byte, verifier formats.SubtreeVerifier) {
	hash := must(t.ReadHashes([]int64{tlog.StoredHashIndex(0, index)}))[0]
	body := fmt.Sprintf("subtree %d %d\n%s\n", index, index+1, hash)
	for _, one := range must(tlog.ProveRecord(size, index, t)) {
		body += one.String() + "\n"
	}
	response := must(http.Post(base.JoinPath("sign-subtree").String(), "", strings.NewReader(body+"\n"+string(checkpoint))))
	defer response.Body.Close()
	line := must(io.ReadAll(response.Body))
	if response.StatusCode != http.StatusOK {
		log.Fatalf("sign-subtree: %s: %s", response.Status, line)
	}
	encoded := strings.Fields(string(line))[2]
	blob := must(base64.StdEncoding.DecodeString(encoded))
	if !verifier.VerifySubtree(0, t.origin, uint64(index), uint64(index+1), hash[:], blob[4:]) {
		log.Fatalf("the line of a subtree does not verify: %s", line)
	}
}

func (t *tree) sign(size int64, signer note.Signer) []byte {
	text := torchwood.Checkpoint{Origin: t.origin, Tree: tlog.Tree{N: size, Hash: must(tlog.TreeHash(size, t))}}.String()
	return must(note.Sign(&note.Note{Text: text}, signer))
}

func (t *tree) prove(old, size int64) [][]byte {
	var proof [][]byte
	if old == 0 || old == size {
		return proof
	}
	for _, hash := range must(tlog.ProveTree(size, old, t)) {
		proof = append(proof, hash[:])
	}
	return proof
}

func get(base *url.URL, origin string) []byte {
	path := fmt.Sprintf("%x/checkpoint", sha256.Sum256([]byte(origin)))
	response := must(http.Get(base.JoinPath(path).String()))
	defer response.Body.Close()
	return must(io.ReadAll(response.Body))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
