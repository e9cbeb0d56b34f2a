package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"filippo.io/torchwood"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// serveTiles is a log of Tessera in a folder, which it serves as the files that they are, at an address that it prints.
//
// Each line of the input is a command, and each answer a line: a size to grow to; or "extend", which signs the latest
// checkpoint with an extension line, as C2SP tlog-checkpoint lets a log do.
func serveTiles(skey, folder, prefix string) {
	ctx := context.Background()
	signer := must(note.NewSigner(skey))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() { log.Fatal(http.Serve(listener, http.FileServer(http.Dir(folder)))) }()
	driver := must(posix.New(ctx, posix.Config{Path: folder}))
	const pause = 100 * time.Millisecond
	// So that a batch is as large as what it grows by, and there are no more checkpoints than those asked for.
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(2048, pause).WithCheckpointInterval(pause)
	appender, _, reader, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		log.Fatal(err)
	}
	await := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, pause)
	fmt.Printf("http://%s\n", listener.Addr())

	size := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "extend" {
			path := filepath.Join(folder, "checkpoint")
			opened := must(note.Open(must(os.ReadFile(path)), note.VerifierList(must(torchwood.NewVerifierFromSigner(skey)))))
			extended := must(note.Sign(&note.Note{Text: opened.Text + "an extension\n"}, signer))
			if err := os.WriteFile(path, extended, 0o600); err != nil {
				log.Fatal(err)
			}
			fmt.Println("extended")
			continue
		}
		var target int
		must(fmt.Sscan(lines.Text(), &target))
		var last tessera.IndexFuture
		for ; size < target; size++ {
			last = appender.Add(ctx, tessera.NewEntry(fmt.Appendf(nil, "%s %d", prefix, size)))
		}
		if _, _, err := await.Await(ctx, last); err != nil {
			log.Fatal(err)
		}
		fmt.Println("size", size)
	}
}
