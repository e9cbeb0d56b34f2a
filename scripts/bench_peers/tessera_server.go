package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// serveTessera does what Tessera's own conformance server does, whose times are fixed, with times that are given.
func serveTessera(arguments []string) error {
	flags := flag.NewFlagSet("serve-tessera", flag.ExitOnError)
	folder := flags.String("storage_dir", "", "where the log is")
	listen := flags.String("listen", "", "where to listen")
	key := flags.String("private_key", "", "file of the key")
	age := flags.Duration("batch-age", tessera.DefaultBatchMaxAge, "how long an entry waits for others")
	interval := flags.Duration("checkpoint-interval", tessera.DefaultCheckpointInterval, "time between checkpoints")
	flags.Parse(arguments)
	appender, err := openTessera(*folder, *key, *age, *interval)
	if err != nil {
		return err
	}
	files := http.FileServer(http.Dir(*folder))
	http.Handle("GET /checkpoint", files)
	http.Handle("GET /tile/", files)
	http.HandleFunc("POST /add", func(out http.ResponseWriter, in *http.Request) {
		body, err := io.ReadAll(in.Body)
		if err == nil {
			var index tessera.Index
			if index, err = appender.Add(in.Context(), tessera.NewEntry(body))(); err == nil {
				fmt.Fprint(out, index.Index)
				return
			}
		}
		http.Error(out, err.Error(), http.StatusInternalServerError)
	})
	return http.ListenAndServe(*listen, nil)
}

func openTessera(folder, key string, age, interval time.Duration) (*tessera.Appender, error) {
	text, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(string(text))
	if err != nil {
		return nil, err
	}
	driver, err := posix.New(context.Background(), posix.Config{Path: folder})
	if err != nil {
		return nil, err
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithCheckpointInterval(interval).
		WithBatching(tessera.DefaultBatchMaxSize, age)
	appender, _, _, err := tessera.NewAppender(context.Background(), driver, options)
	return appender, err
}

// writeKey writes a fresh key to a file and prints its verifier key.
func writeKey(arguments []string) error {
	private, public, err := note.GenerateKey(rand.Reader, "bench.example/log")
	if err != nil {
		return err
	}
	fmt.Println(public)
	return os.WriteFile(arguments[0], []byte(private), 0o600)
}
