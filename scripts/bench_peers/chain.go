package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// chainTables is a hash chain as people build it: who appends locks the chain, reads its last hash, and adds a row.
// One call, so that the lock is held for no round trip of the client.
const chainTables = `
create table chain (seq bigint primary key, prev_hash bytea not null, hash bytea not null, event bytea not null);
insert into chain values (0, '', sha256(''), '');
create function append(events bytea[]) returns bigint language plpgsql as $$
declare last chain; event bytea;
begin
	perform pg_advisory_xact_lock(1);
	select * into last from chain order by seq desc limit 1;
	foreach event in array events loop
		last := (last.seq + 1, last.hash, sha256(last.hash || event), event);
		insert into chain values (last.*);
	end loop;
	return last.seq;
end $$`

// chain is what all connections share: how far it has been read and verified, for a chain has no shorter proof, and the
// events found there that nobody has asked for yet.
type chain struct {
	lock   sync.Mutex
	link   *pgx.Conn
	seq    int64
	hash   [sha256.Size]byte
	events map[int64][]byte
}

func driveChain(ctx context.Context, to target) (func() (appender, error), error) {
	link, err := pgx.Connect(ctx, to.address)
	if err != nil {
		return nil, err
	}
	if _, err := link.Exec(ctx, chainTables); err != nil {
		return nil, err
	}
	shared := &chain{link: link, hash: sha256.Sum256(nil), events: map[int64][]byte{}}
	return func() (appender, error) {
		own, err := pgx.Connect(ctx, to.address)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, events [][]byte) error { return shared.append(ctx, own, events) }, nil
	}, nil
}

func (c *chain) append(ctx context.Context, own *pgx.Conn, events [][]byte) error {
	var last int64
	if err := own.QueryRow(ctx, "select append($1)", events).Scan(&last); err != nil {
		return err
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if last > c.seq {
		if err := c.read(ctx); err != nil {
			return err
		}
	}
	for i, event := range events {
		seq := last - int64(len(events)-1-i)
		if !bytes.Equal(c.events[seq], event) {
			return fmt.Errorf("event %d is not in the chain", seq)
		}
		delete(c.events, seq)
	}
	return nil
}

// read reads and verifies all that came since.
func (c *chain) read(ctx context.Context) error {
	rows, err := c.link.Query(ctx, "select hash, event from chain where seq > $1 order by seq", c.seq)
	if err != nil {
		return err
	}
	var hash, event []byte
	_, err = pgx.ForEachRow(rows, []any{&hash, &event}, func() error {
		if c.hash = sha256.Sum256(append(c.hash[:], event...)); !bytes.Equal(hash, c.hash[:]) {
			return fmt.Errorf("the chain breaks at %d", c.seq+1)
		}
		c.seq++
		c.events[c.seq] = bytes.Clone(event)
		return nil
	})
	return err
}
