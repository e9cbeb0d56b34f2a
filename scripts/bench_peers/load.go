package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// load is what is sent: batches from so many connections, each the next once it has the proofs of the last.
type load struct {
	events             [][]byte
	turn               atomic.Uint64
	connections, batch int
	warmUp, length     time.Duration
}

// result counts the entries proven in the measurement, and all that were logged; latencies are in milliseconds.
type result struct {
	Entries int     `json:"entries"`
	All     int     `json:"all"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
}

// run prints "begin" and "end" when the measurement does, for whoever reads the clocks of the servers, then the result.
func (l *load) run(ctx context.Context, connect func() (appender, error)) error {
	appenders := make([]appender, l.connections)
	for i := range appenders {
		var err error
		if appenders[i], err = connect(); err != nil {
			return err
		}
	}
	begin := time.Now().Add(l.warmUp)
	end := begin.Add(l.length)
	var workers sync.WaitGroup
	found, failures := make([][]time.Duration, l.connections), make([]error, l.connections)
	var all atomic.Int64
	for i := range appenders {
		workers.Go(func() { found[i], failures[i] = l.work(ctx, appenders[i], begin, end, &all) })
	}
	time.Sleep(time.Until(begin))
	fmt.Println("begin")
	time.Sleep(time.Until(end))
	fmt.Println("end")
	workers.Wait()
	// Others fail in the same way.
	if i := slices.IndexFunc(failures, func(err error) bool { return err != nil }); i >= 0 {
		return failures[i]
	}
	return l.report(slices.Concat(found...), int(all.Load()))
}

func (l *load) work(ctx context.Context, send appender, begin, end time.Time, all *atomic.Int64) ([]time.Duration, error) {
	var found []time.Duration
	for time.Now().Before(end) {
		batch := l.take()
		sent := time.Now()
		if err := send(ctx, batch); err != nil {
			return nil, err
		}
		proven := time.Now()
		all.Add(int64(l.batch))
		if proven.After(begin) && proven.Before(end) {
			found = append(found, proven.Sub(sent))
		}
	}
	return found, nil
}

func (l *load) report(found []time.Duration, all int) error {
	if len(found) == 0 {
		return fmt.Errorf("no proof came within %v", l.length)
	}
	slices.Sort(found)
	at := func(share int) float64 { return found[(len(found)-1)*share/100].Seconds() * 1e3 }
	return json.NewEncoder(os.Stdout).Encode(result{len(found) * l.batch, all, l.length.Seconds(), at(50), at(99)})
}
