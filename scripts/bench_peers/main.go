// Command peers writes to a log for a while and verifies a proof of each entry before its clock stops. Started by
// ../bench_peers.py, which has the servers.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"os"
	"time"
)

// target is the log written to: where it listens, the verifier key of what it signs, if it signs, and how often it is
// asked for its head, if it does not answer with one. It is asked for all connections at once.
type target struct {
	address, key string
	poll         time.Duration
}

// append logs events and returns once a proof of each is verified.
type appender func(ctx context.Context, events [][]byte) error

// driver makes what all connections share, and returns what opens one of them.
type driver func(ctx context.Context, to target) (func() (appender, error), error)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: peers chain | immudb | immudb-fast | tessera | tlog | trillian | serve-tessera | key | ec-key | tables")
	}
	name, arguments := os.Args[1], os.Args[2:]
	drivers := map[string]driver{"chain": driveChain, "tessera": driveTessera, "tlog": driveTlog, "trillian": driveTrillian}
	drivers["immudb"], drivers["immudb-fast"] = driveImmudb(roomy()), driveImmudb(fastest())
	commands := map[string]func([]string) error{"serve-tessera": serveTessera, "key": writeKey, "ec-key": writeECKey, "tables": makeTables}
	fillers := map[string]filler{"immudb-fast": fillImmudb, "tlog": fillTlog, "trillian": fillTrillian}
	run, known := commands[name]
	if drive, ok := drivers[name]; ok {
		run, known = func(arguments []string) error { return measure(drive, fillers[name], arguments) }, true
	}
	if !known {
		log.Fatalf("peers: there is no %q", name)
	}
	if err := run(arguments); err != nil {
		log.Fatalf("peers: %v", err)
	}
}

func measure(drive driver, fill filler, arguments []string) error {
	flags := flag.NewFlagSet("peers", flag.ExitOnError)
	var to target
	var l load
	flags.StringVar(&to.address, "at", "", "where the log listens")
	flags.StringVar(&to.key, "key", "", "its verifier key")
	flags.DurationVar(&to.poll, "poll", 0, "time between looks at its head")
	file := flags.String("events", "", "events, one a line")
	flags.IntVar(&l.connections, "connections", 1, "how many at once")
	flags.IntVar(&l.batch, "batch", 1, "events a request")
	proofs := flags.Int("proofs", 0, "fill it with so many entries, and then ask for proofs only")
	warmUp := flags.Int("warm-up", 2, "seconds before the measurement")
	length := flags.Int("seconds", 10, "seconds of the measurement")
	flags.Parse(arguments)
	l.warmUp, l.length = time.Duration(*warmUp)*time.Second, time.Duration(*length)*time.Second
	if err := l.read(*file); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.warmUp+l.length+time.Minute+time.Duration(*proofs)*10*time.Millisecond)
	defer cancel()
	if *proofs > 0 {
		connect, err := fill(ctx, to, &l, *proofs)
		if err != nil {
			return err
		}
		return l.run(ctx, connect)
	}
	connect, err := drive(ctx, to)
	if err != nil {
		return err
	}
	return l.run(ctx, connect)
}

// read reads the events. Each run gives them IDs of its own, for a log may refuse what it has.
func (l *load) read(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	l.events = bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	var random [8]byte
	rand.Read(random[:])
	l.turn.Store(binary.BigEndian.Uint64(random[:]) << 40)
	return nil
}

// take returns the next events. Each begins with {"id":"0123456789abcdef", whose digits are replaced.
func (l *load) take() [][]byte {
	batch := make([][]byte, l.batch)
	for i := range batch {
		turn := l.turn.Add(1)
		event := bytes.Clone(l.events[turn%uint64(len(l.events))])
		copy(event[len(`{"id":"`):], fmt.Sprintf("%016x", turn))
		batch[i] = event
	}
	return batch
}
