// Command peers is a hashicorp/raft server with its log in raft-boltdb, measured as the benchmarks measure ours: the load is driven in the leader's process.
//
// N in flight are N goroutines, each of which proposes, waits for the commit, and proposes again. (One that keeps N futures open, as our driver does, would be
// unfair: the server groups what stands at its unbuffered channel, and there would never stand more than one; it then commits 1,800 a second instead of 30,000.)
//
// Everything is as the two packages have it by default: raft.DefaultConfig, its TCP transport with three pooled connections, a file snapshot store, a bolt store
// that syncs every write. With -tuned the batches are larger (MaxAppendEntries 1024, BatchApplyCh), for who wants to know.
//
// It says its address in a line, then answers lines:
//
//	bootstrap      -> "leads", when it does
//	join ID ADDR   -> "joined"
//	drive D N      -> {"rate": per second, "p50_ms", "p99_ms"} of N commands, D in flight
//	state          -> {"role", "term", "leader"}
//
// It ends when standard input does.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
)

const patience = 60 * time.Second

// counter is a state machine that does nothing, as the benchmark's handlers.
type counter struct{ applied uint64 }

func (c *counter) Apply(*raft.Log) any {
	c.applied++
	return nil
}

func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return snapshot(c.applied), nil }

func (c *counter) Restore(from io.ReadCloser) error {
	defer from.Close()
	_, err := fmt.Fscan(from, &c.applied)
	return err
}

type snapshot uint64

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := fmt.Fprintln(sink, uint64(s)); err != nil {
		return sink.Cancel()
	}
	return sink.Close()
}

func (snapshot) Release() {}

type peer struct {
	*raft.Raft
	id      raft.ServerID
	address raft.ServerAddress
	payload []byte
}

func start(id, directory string, payload int, tuned bool) (*peer, error) {
	config := raft.DefaultConfig()
	config.LocalID, config.LogOutput = raft.ServerID(id), os.Stderr
	if tuned {
		config.MaxAppendEntries, config.BatchApplyCh = 1024, true
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	store, err := boltdb.NewBoltStore(filepath.Join(directory, "raft.db"))
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStore(directory, 2, os.Stderr)
	if err != nil {
		return nil, err
	}
	transport, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, os.Stderr)
	if err != nil {
		return nil, err
	}
	server, err := raft.NewRaft(config, &counter{}, store, store, snapshots, transport)
	if err != nil {
		return nil, err
	}
	return &peer{server, config.LocalID, transport.LocalAddr(), make([]byte, payload)}, nil
}

// bootstrap makes it the only voter of a cluster, and waits until it leads.
func (p *peer) bootstrap() error {
	only := raft.Configuration{Servers: []raft.Server{{ID: p.id, Address: p.address}}}
	if err := p.BootstrapCluster(only).Error(); err != nil {
		return err
	}
	select {
	case <-p.LeaderCh():
		return nil
	case <-time.After(patience):
		return fmt.Errorf("it does not lead after %s", patience)
	}
}

type figures struct {
	Rate float64 `json:"rate"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
}

// drive lets depth goroutines propose one command after another until count are committed.
func (p *peer) drive(depth, count int) (figures, error) {
	var next atomic.Int64
	var group sync.WaitGroup
	took, failed := make([]time.Duration, count), make(chan error, depth)
	began := time.Now()
	for range depth {
		group.Go(func() {
			for n := next.Add(1) - 1; n < int64(count); n = next.Add(1) - 1 {
				sent := time.Now()
				if err := p.Apply(p.payload, patience).Error(); err != nil {
					failed <- err
					return
				}
				took[n] = time.Since(sent)
			}
		})
	}
	group.Wait()
	rate := float64(count) / time.Since(began).Seconds()
	select {
	case err := <-failed:
		return figures{}, err
	default:
	}
	slices.Sort(took)
	milliseconds := func(part float64) float64 { return took[int(float64(count)*part)].Seconds() * 1e3 }
	return figures{rate, milliseconds(0.5), milliseconds(0.99)}, nil
}

func (p *peer) answer(line string) (any, error) {
	var id, address string
	var depth, count int
	switch {
	case line == "bootstrap":
		return "leads", p.bootstrap()
	case line == "state":
		_, leader := p.LeaderWithID()
		return map[string]any{"role": p.State().String(), "term": p.CurrentTerm(), "leader": leader}, nil
	case scan(line, "join %s %s", &id, &address):
		return "joined", p.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, patience).Error()
	case scan(line, "drive %d %d", &depth, &count):
		return p.drive(depth, count)
	}
	return nil, fmt.Errorf("no such command: %q", line)
}

func scan(line, form string, into ...any) bool {
	found, err := fmt.Sscanf(line, form, into...)
	return err == nil && found == len(into)
}

func die(err error) {
	fmt.Fprintln(os.Stderr, "fatal:", err)
	os.Exit(1)
}

func main() {
	id := flag.String("follower", "", "server id")
	directory := flag.String("directory", "", "where its files go")
	payload := flag.Int("payload", 128, "bytes of a command")
	tuned := flag.Bool("tuned", false, "larger batches than the defaults have")
	flag.Parse()
	p, err := start(*id, filepath.Join(*directory, *id), *payload, *tuned)
	if err != nil {
		die(err)
	}
	fmt.Println(p.address)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		said, err := p.answer(strings.TrimSpace(in.Text()))
		if err != nil {
			die(err)
		}
		line, err := json.Marshal(said)
		if err != nil {
			die(err)
		}
		fmt.Println(string(line))
	}
}
